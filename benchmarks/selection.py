"""Selection against its obvious implementation: full distance matrix, dense adjacency, class by class loops."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.models import GCN
from alkit.strategies.coreset import k_center_greedy
from alkit.strategies.graph import gcn_scores
from alkit.strategies.herding import max_herding
from alkit.strategies.hierarchical import HierarchicalSampler, ward_children
from benchmarks.timing import compare

CANDIDATES, LABELLED, WIDTH, BUDGET, CLASSES = 10_000, 1_000, 512, 1_000, 100
HERDED = 100
QUERY = LABELLED + BUDGET  # labels that a query of the hierarchical sampler enters


def full_matrix_k_center(candidates: Tensor, centers: Tensor, budget: int) -> Tensor:
    """Greedy k-center from the matrix of all distances."""
    distance = torch.cdist(candidates, torch.cat([candidates, centers]))
    nearest = distance[:, len(candidates) :].amin(1)
    picks = []
    for _ in range(budget):
        picks.append(nearest.argmax())
        nearest = torch.minimum(nearest, distance[:, picks[-1]]).index_fill_(0, picks[-1], -1)
    return torch.stack(picks)


def dense_gcn_scores(
    features: Tensor, labelled: Tensor, generator: torch.Generator, steps: int, dropout: float = 0.3
) -> Tensor:
    """The graph network by autograd on the dense adjacency."""
    x = F.normalize(features)
    a = x @ x.T - torch.eye(len(x))
    a = a / a.sum(0) + torch.eye(len(x))
    gcn = GCN(x.shape[1], dropout=dropout, generator=generator)
    optimizer = torch.optim.Adam(gcn.parameters(), lr=1e-3, weight_decay=5e-4)

    def logits(rate: float) -> Tensor:
        h = F.dropout((a @ (x @ gcn.weight1) + gcn.bias1).relu(), rate)
        return (a @ (h @ gcn.weight2) + gcn.bias2)[:, 0]

    for _ in range(steps):
        z = logits(dropout)
        loss = -F.logsigmoid(z[labelled]).mean() - 1.2 * F.logsigmoid(-z[~labelled]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        return logits(0.0).sigmoid()


def full_matrix_max_herding(candidates: Tensor, labelled: Tensor, budget: int) -> Tensor:
    """MaxHerding from the matrix of all kernels: each pick subtracts what is covered and averages all N² numbers."""
    rows, given = F.normalize(candidates), F.normalize(labelled)
    kernel = torch.cdist(rows, rows).square().neg().exp()  # (covered, covering)
    covered = torch.cdist(rows, given).square().neg().exp().amax(1)
    picks = []
    for _ in range(budget):
        gain = (kernel - covered[:, None]).clamp(min=0).mean(0)
        picks.append(gain.index_fill_(0, torch.tensor([int(p) for p in picks], dtype=torch.int64), -1).argmax())
        covered = torch.maximum(covered, kernel[:, picks[-1]])
    return torch.stack(picks)


class LoopSampler:
    """Hierarchical sampling with one update a leaf and every pair of classes compared."""

    def __init__(self, children: np.ndarray, classes: int) -> None:
        self.leaves, self.classes = len(children) + 1, classes
        nodes = 2 * self.leaves - 1
        self.children = children.tolist()
        self.parent, self.size = [-1] * nodes, [1] * nodes
        for node, (left, right) in enumerate(self.children, self.leaves):
            self.parent[left] = self.parent[right] = node
            self.size[node] = self.size[left] + self.size[right]
        self.counts, self.seen = np.zeros((nodes, classes)), [0] * nodes
        self.label: list[int | None] = [None] * nodes
        self.cost, self.split = [float(n) for n in self.size], [False] * nodes
        self.pruning = {nodes - 1}

    def _update(self, node: int) -> None:
        n, t = self.size[node], self.seen[node]
        lower, upper = [0.0] * self.classes, [0.0] * self.classes
        for label, count in enumerate(self.counts[node].tolist()):
            f = count / t
            delta = (1 - t / n) / t + ((1 - t / n) * f * (1 - f) / t) ** 0.5
            lower[label], upper[label] = max(count, n * (f - delta)), min(n - (t - count), n * (f + delta))
        best = None
        for label in range(self.classes):
            rivals = (k for k in range(self.classes) if k != label)
            allowed = all(lower[label] > 2 * upper[k] - n for k in rivals)
            if allowed and (best is None or self.counts[node, label] > self.counts[node, best]):
                best = label
        self.label[node] = self.label[node] if best is None else best
        chosen = self.label[node]
        self.cost[node] = n if chosen is None else n - lower[chosen]
        if node >= self.leaves and chosen is not None:
            below = sum(self.cost[child] for child in self.children[node - self.leaves])
            if below < self.cost[node]:
                self.cost[node], self.split[node] = below, True

    def observe(self, leaf: int, label: int) -> None:
        node = leaf
        while True:
            self.counts[node, label] += 1
            self.seen[node] += 1
            self._update(node)
            if node in self.pruning:
                break
            node = self.parent[node]
        self.pruning.remove(node)
        waiting = [node]
        while waiting:
            node = waiting.pop()
            if self.split[node]:
                waiting += self.children[node - self.leaves]
            else:
                self.pruning.add(node)


def _features(generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Features like a network's, (n + m, D): positive, of 100 overlapping classes; and the classes."""
    labels = torch.randint(CLASSES, (CANDIDATES + LABELLED,), generator=generator)
    middle = torch.randn(CLASSES, WIDTH, generator=generator)
    return (0.4 * middle[labels] + torch.randn(len(labels), WIDTH, generator=generator)).relu(), labels


def measure(repetitions: int = 5, graph_steps: int = 200, observations: int = QUERY) -> list[dict[str, Any]]:
    """One row a selection: seconds of both, their ratio, and whether both answer the same.

    `graph_steps` of the graph network and `observations` of the hierarchical sampler (a query's: the labelled images,
    then what it asks for) are timed in both.
    """
    features, labels = _features(torch.Generator().manual_seed(0))
    candidates, centers = features[:CANDIDATES], features[CANDIDATES:]
    expected = full_matrix_k_center(candidates.double(), centers.double(), BUDGET)
    same = torch.equal(k_center_greedy(candidates, centers, BUDGET), expected)
    rows = [
        _row("k-center greedy", lambda: k_center_greedy(candidates, centers, BUDGET), "full distance matrix",
             lambda: full_matrix_k_center(candidates, centers, BUDGET), repetitions, "at least 4", same),
    ]  # fmt: skip
    labelled = torch.arange(len(features)) >= CANDIDATES
    few = {"dropout": 0.0, "steps": 5}  # without dropout both are the same computation
    same = torch.allclose(
        gcn_scores(features, labelled, torch.Generator().manual_seed(1), **few).float(),
        dense_gcn_scores(features, labelled, torch.Generator().manual_seed(1), 5, 0.0), atol=1e-4,
    )  # fmt: skip
    rows.append(
        _row(f"graph network, {graph_steps} steps",
             lambda: gcn_scores(features, labelled, torch.Generator().manual_seed(1), steps=graph_steps),
             "dense adjacency",
             lambda: dense_gcn_scores(features, labelled, torch.Generator().manual_seed(1), graph_steps),
             repetitions, "at least 20", same)
    )  # fmt: skip
    children = ward_children(features)
    leaves = [*range(CANDIDATES, len(features)), *range(CANDIDATES)][:observations]

    def enter(make: Callable[..., Any]) -> Any:
        sampler = make(children, CLASSES)
        for leaf in leaves:
            sampler.observe(leaf, int(labels[leaf]))
        return sampler

    ours, reference = enter(HierarchicalSampler), enter(LoopSampler)
    same = ours.pruning == reference.pruning and np.array_equal(ours.cost, reference.cost)
    rows.append(
        _row(f"hierarchical, {CLASSES} classes", lambda: enter(HierarchicalSampler), "loops over pairs of classes",
             lambda: enter(LoopSampler), repetitions, "at least 50", same)
    )  # fmt: skip
    return rows


def herding(repetitions: int = 5) -> list[dict[str, Any]]:
    """MaxHerding against the form that holds all kernels; the first ten picks are compared in float64."""
    features, _ = _features(torch.Generator().manual_seed(0))
    candidates, given = features[:CANDIDATES], features[CANDIDATES:]
    expected = full_matrix_max_herding(candidates.double(), given.double(), 10)
    return [
        _row(f"max_herding, {HERDED} of {CANDIDATES:,}", lambda: max_herding(candidates, given, HERDED),
             "full kernel matrix, averaged for each pick", lambda: full_matrix_max_herding(candidates, given, HERDED),
             repetitions, "at least 5", torch.equal(max_herding(candidates, given, 10), expected))
    ]  # fmt: skip


def _row(
    name: str, ours: Callable[[], Any], against: str, reference: Callable[[], Any], repetitions: int, target: str,
    same: bool,
) -> dict[str, Any]:  # fmt: skip
    return compare(name, ours, against, reference, repetitions, target, same_answer=bool(same)).row()
