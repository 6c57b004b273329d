"""Hierarchical sampling: prune a cluster tree as its labels are revealed (Dasgupta & Hsu, ICML 2008)."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alkit.data import Facts
from alkit.errors import ConfigError
from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import check_features, origin_of, squared_distances

WARD_LIMIT = 40_000  # leaves: Ward's method holds 8·n² bytes, 12.8 GB for as many

Array = NDArray[Any]


def check_size(count: int) -> None:
    """Refuse a tree over more than `WARD_LIMIT` images."""
    if count > WARD_LIMIT:
        raise ConfigError(
            f"hierarchical: a Ward tree over {count} images needs {8 * count**2 / 1e9:.0f} GB; "
            f"expected at most {WARD_LIMIT} candidates and labelled images together: set subset"
        )


def ward_children(features: Tensor) -> Array:
    """Ward's tree over the rows of `features` (n, D): children (n − 1, 2) int64; merge i makes node n + i.

    Time O(n²·D), memory 8·n² bytes. Raises `ConfigError` for more than `WARD_LIMIT` rows, `ValueError` for features
    that are not finite. Ward, 1963.
    """
    from scipy.cluster.hierarchy import linkage

    check_features(features)
    count = len(features)
    check_size(count)
    if count < 2:
        return np.empty((0, 2), dtype=np.int64)
    points = features.detach().cpu()
    points = points.double() - origin_of(points)
    condensed = np.empty(count * (count - 1) // 2)
    filled = 0
    for start in range(0, count - 1, 256):
        block = squared_distances(points[start : start + 256], points[start:]).sqrt_().numpy()
        for row in range(min(256, count - 1 - start)):
            length = count - 1 - start - row
            condensed[filled : filled + length] = block[row, row + 1 :]
            filled += length
    merges: Array = linkage(condensed, "ward")
    return merges[:, :2].astype(np.int64)


def count_bounds(counts: Array, sizes: Array) -> tuple[Array, Array]:
    """Lower and upper bounds (k, C) of each class's number of leaves below k nodes with `sizes` (k,) leaves.

    `counts` (k, C) is what was seen. With t seen of n and f = count/t, the bounds are n·(f ∓ δ),
    δ = (1 − t/n)/t + sqrt((1 − t/n)·f·(1 − f)/t), within what the seen leaves allow; 0 and n where nothing was seen.
    """
    seen = counts.sum(1)
    lower, upper = _bounds(counts, np.maximum(seen, 1), sizes.astype(np.float64))
    lower[seen == 0], upper[seen == 0] = 0, sizes[seen == 0, None]
    return lower, upper


def _bounds(counts: Array, seen: Array, sizes: Array) -> tuple[Array, Array]:
    """`count_bounds` where something was seen of each node, `seen` (k,) float; every label asks for it, so in place."""
    t, n = seen[:, None], sizes[:, None]
    unseen = 1 - t / n
    f = counts / t
    delta = unseen * f
    delta *= 1 - f
    delta /= t
    np.sqrt(delta, out=delta)
    delta += unseen / t
    lower, upper = f - delta, f + delta
    lower *= n
    upper *= n
    return np.maximum(counts, lower, out=lower), np.minimum(n - (t - counts), upper, out=upper)


def admissible_best(counts: Array, lower: Array, upper: Array, sizes: Array) -> Array:
    """The admissible class of largest count for each of k nodes, (k,) int64, or −1: all (k, C), `sizes` (k,).

    Class l is admissible when LB_l > 2·UB_k − n for every other class k, so only the largest and the second largest
    upper bound matter: O(C) a node. The lowest class wins a tie.
    """
    nodes, highest = np.arange(len(upper)), upper.argmax(1)
    allowed = lower > (2 * upper[nodes, highest] - sizes)[:, None]
    others = upper.copy()
    others[nodes, highest] = -np.inf
    allowed[nodes, highest] = lower[nodes, highest] > 2 * others.max(1) - sizes
    score = np.where(allowed, counts, -1)
    best = score.argmax(1)
    return np.where(score[nodes, best] < 0, -1, best)


class HierarchicalSampler:
    """Dasgupta & Hsu's algorithm on a binary tree: `children` (n − 1, 2), merge i makes node n + i of n leaves.

    After each `observe(leaf, label)`: `pruning`, the set of nodes that partition the leaves; `best_label` (2n − 1,)
    int64, −1 for none; `cost` (2n − 1,), the leaves that may be mislabelled below a node; `lower` and `upper`
    (2n − 1, C), bounds of the class counts. `integer_cost` cuts off a cost's fraction when it is stored, as a released
    program does; what the children's costs are compared with keeps its own. Nodes above the pruning are no longer
    updated. Work is O(C) a node of the observed leaf's path.

    Raises `ValueError` for children that are not a binary tree, and for a label or leaf that cannot be observed.
    """

    def __init__(self, children: Any, num_classes: int, integer_cost: bool = False) -> None:
        self.children = np.asarray(children, dtype=np.int64).reshape(-1, 2)
        leaves = self.leaves = len(self.children) + 1
        nodes = 2 * leaves - 1
        merged = np.sort(self.children.ravel())
        order = np.arange(leaves, nodes)[:, None]
        if not np.array_equal(merged, np.arange(nodes - 1)) or bool((self.children >= order).any()):
            raise ValueError("children: expected (n − 1, 2), each node merged once and before it is named")
        self.num_classes = num_classes
        self.parent = np.full(nodes, -1, dtype=np.int64)
        self.parent[self.children.ravel()] = np.repeat(np.arange(leaves, nodes), 2)
        sizes = [1] * leaves
        for left, right in self.children.tolist():
            sizes.append(sizes[left] + sizes[right])
        self.size = np.array(sizes)
        self.unseen = self.size.copy()
        self.counts = np.zeros((nodes, num_classes))
        self.best_label = np.full(nodes, -1, dtype=np.int64)
        self.integer_cost = integer_cost
        # lists where single elements are read: numpy is slow at those
        self._parent, self._below = self.parent.tolist(), [None] * leaves + self.children.tolist()
        self._cost: list[float] = [*sizes]
        self.split = [False] * nodes
        self.weight = self.size.astype(np.float64)  # n − LB_best, or n without a label
        self.in_pruning = np.zeros(nodes, dtype=bool)
        self.in_pruning[-1] = True
        self._pruning = {nodes - 1}

    @property
    def pruning(self) -> set[int]:
        """The nodes of the current pruning."""
        return set(self._pruning)

    @property
    def cost(self) -> Array:
        """(2n − 1,): how many leaves below each node may be mislabelled; int64 if `integer_cost`."""
        return np.array(self._cost, dtype=np.int64 if self.integer_cost else np.float64)

    @property
    def lower(self) -> Array:
        """(2n − 1, C): at least so many leaves below each node are of each class."""
        return count_bounds(self.counts, self.size)[0]

    @property
    def upper(self) -> Array:
        """(2n − 1, C): at most so many leaves below each node are of each class."""
        return count_bounds(self.counts, self.size)[1]

    def observe(self, leaf: int, label: int) -> None:
        """Enter the label of `leaf`: update the nodes up to the pruning, then split the pruning's node if it pays."""
        if not 0 <= leaf < self.leaves or not self.unseen[leaf]:
            raise ValueError(f"leaf: expected an unseen one of 0 to {self.leaves - 1}, not {leaf}")
        if not 0 <= label < self.num_classes:
            raise ValueError(f"label: expected 0 to {self.num_classes - 1}, not {label}")
        nodes = [int(leaf)]
        while nodes[-1] not in self._pruning:
            nodes.append(self._parent[nodes[-1]])
        path = np.array(nodes)
        self.unseen[path] -= 1
        self.counts[path, label] += 1
        self._update(path)
        self._replace(nodes[-1])

    def _update(self, path: Array) -> None:
        """Labels and costs of the nodes of `path`, each after the one below it."""
        counts, sizes = self.counts[path], self.size[path]
        lower, upper = _bounds(counts, (sizes - self.unseen[path]).astype(np.float64), sizes.astype(np.float64))
        found = admissible_best(counts, lower, upper, sizes)
        best = self.best_label[path] = np.where(found < 0, self.best_label[path], found)
        weight = self.weight[path] = np.where(best < 0, sizes, sizes - lower[np.arange(len(path)), best])
        cost, below = self._cost, self._below
        for node, label, own in zip(path.tolist(), best.tolist(), weight.tolist(), strict=True):
            children = below[node]
            if children is not None and label >= 0:
                both = cost[children[0]] + cost[children[1]]
                if both < own:
                    own = both
                    self.split[node] = True
            cost[node] = int(own) if self.integer_cost else own  # cut off as it is stored, not before

    def _replace(self, node: int) -> None:
        """Put the unsplit descendants of `node` in its place."""
        waiting = [node]
        while waiting:
            node = waiting.pop()
            children = self._below[node] if self.split[node] else None
            self.in_pruning[node] = children is None
            if children is None:
                self._pruning.add(node)
            else:
                self._pruning.discard(node)
                waiting += children

    def draw(self, first: float, second: float) -> int:
        """An unseen leaf for two uniform numbers in 0..1.

        The first chooses a node of the pruning, with probability ∝ n − LB_best (n without a label) among those with
        unseen leaves, the second walks down from there, with probability ∝ unseen leaves.
        """
        nodes = (self.in_pruning & (self.unseen > 0)).nonzero()[0]
        if not len(nodes):
            raise ValueError("every leaf has been seen")
        node = int(nodes[_place(self.weight[nodes], first)])
        rank = min(int(second * self.unseen[node]), int(self.unseen[node]) - 1)
        while node >= self.leaves:
            left, right = self.children[node - self.leaves].tolist()
            if rank < self.unseen[left]:
                node = left
            else:
                rank, node = rank - int(self.unseen[left]), right
        return node

    def probabilities(self) -> Array:
        """The probability (n,) with which each leaf would be drawn next; 0 where it was seen."""
        weight = np.where(self.in_pruning & (self.unseen > 0), self.weight, 0)
        share = weight / max(weight.sum(), 1e-300) / np.maximum(self.unseen, 1)
        for node in range(len(share) - 1, self.leaves - 1, -1):
            if not self.in_pruning[node] and share[node] == 0:
                continue
            share[self.children[node - self.leaves]] = share[node]
        return np.where(self.unseen[: self.leaves] > 0, share[: self.leaves], 0)


def _place(weights: Array, uniform: float) -> int:
    """The place that a uniform number in 0..1 falls on when each has room in proportion to its weight."""
    total = weights.cumsum()
    return min(int(np.searchsorted(total, uniform * total[-1], side="right")), len(weights) - 1)


@register("hierarchical")
class Hierarchical(Strategy):
    """Labels are revealed one at a time within the cycle, each steering the next.

    The tree's leaves are the candidates, then the labelled images, whose labels are entered first, in the order
    they were bought. A candidate's utility is the probability with which it would be drawn first.
    """

    reveals_within_cycle = True

    def check(self, facts: Facts) -> None:
        e, available = self.experiment, facts.pool - self.experiment.validation_size
        for query in range(1, e.cycle_count):
            labelled = e.first_count + (query - 1) * e.quota
            candidates = min(e.subset or available, available - labelled)
            check_size(labelled + max(candidates, 0))

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        count = len(pool.candidates)
        check_size(count + len(pool.labelled))  # before the features are computed
        features = torch.cat([pool.features, pool.labelled_features.to(pool.features.device)])
        sampler = HierarchicalSampler(
            ward_children(features), pool.num_classes, self.experiment.quirk("hsamp_integer_cost")
        )
        for leaf, label in enumerate(pool.labels.tolist(), count):
            sampler.observe(leaf, label)
        utilities = torch.from_numpy(sampler.probabilities()[:count])
        candidates, asked = pool.candidates.tolist(), []
        for first, second in torch.rand(budget, 2, generator=generator, dtype=torch.float64).tolist():
            leaf = sampler.draw(first, second)
            sampler.observe(leaf, pool.reveal(candidates[leaf]))
            asked.append(leaf)
        return Query(pool.candidates[torch.tensor(asked, device=pool.candidates.device)], utilities)
