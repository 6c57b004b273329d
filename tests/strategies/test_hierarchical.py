"""Hierarchical sampling against the definition in double loops."""

import math

import numpy as np
import pytest
import torch
from scipy.cluster.hierarchy import linkage

from alkit import Experiment
from alkit.errors import ConfigError
from alkit.strategies import TensorPool, hierarchical, make_strategy
from alkit.strategies.hierarchical import HierarchicalSampler, ward_children


def source(seed=0):
    return torch.Generator().manual_seed(seed)


class Obvious:
    """The algorithm's text, node by node, class by class, pair by pair."""

    def __init__(self, children, num_classes, integer_cost=False):
        self.n_leaves, self.classes, self.integer = len(children) + 1, range(num_classes), integer_cost
        self.kids = {self.n_leaves + i: tuple(map(int, pair)) for i, pair in enumerate(children)}
        self.leaves_below = {}
        for node in range(2 * self.n_leaves - 1):
            below = (
                [leaf for kid in self.kids[node] for leaf in self.leaves_below[kid]] if node in self.kids else [node]
            )
            self.leaves_below[node] = below
        nodes = range(2 * self.n_leaves - 1)
        self.seen = {node: [] for node in nodes}  # labels seen below it
        self.label = dict.fromkeys(nodes)
        self.cost = {node: len(self.leaves_below[node]) for node in nodes}
        self.split = dict.fromkeys(nodes, False)
        self.pruning = {2 * self.n_leaves - 2}

    def bounds(self, node, label):
        n, t, count = len(self.leaves_below[node]), len(self.seen[node]), self.seen[node].count(label)
        if not t:
            return 0, n
        f = count / t
        delta = (1 - t / n) / t + math.sqrt((1 - t / n) * f * (1 - f) / t)
        return max(count, n * (f - delta)), min(n - (t - count), n * (f + delta))

    def admissible(self, node, label):
        n = len(self.leaves_below[node])
        for other in self.classes:
            if other != label and not self.bounds(node, label)[0] > 2 * self.bounds(node, other)[1] - n:
                return False
        return True

    def update(self, node):
        n, best = len(self.leaves_below[node]), None
        for label in self.classes:
            if self.admissible(node, label):
                count = self.seen[node].count(label)
                if best is None or count > self.seen[node].count(best):
                    best = label
        if best is not None:
            self.label[node] = best
        label = self.label[node]
        own = n if label is None else n - self.bounds(node, label)[0]
        self.cost[node] = self.stored(own)
        if node in self.kids and label is not None:
            below = sum(self.cost[kid] for kid in self.kids[node])
            if below < own:  # the children's stored costs against the node's own, uncut
                self.cost[node], self.split[node] = self.stored(below), True

    def stored(self, cost):
        """A cost as the node keeps it: the released program's array holds whole numbers."""
        return math.floor(cost) if self.integer else cost

    def unsplit(self, node):
        if not self.split[node]:
            return {node}
        left, right = self.kids[node]
        return self.unsplit(left) | self.unsplit(right)

    def observe(self, leaf, label):
        (top,) = [node for node in self.pruning if leaf in self.leaves_below[node]]
        path = [node for node in range(top + 1) if leaf in self.leaves_below[node]]
        path = [node for node in path if set(self.leaves_below[node]) <= set(self.leaves_below[top])]
        for node in sorted(path, key=lambda node: len(self.leaves_below[node])):
            self.seen[node].append(label)
            self.update(node)
        self.pruning = self.pruning - {top} | self.unsplit(top)


def random_tree(leaves, generator):
    """Children (n − 1, 2): random pairs are merged until one node is left."""
    alive, children = list(range(leaves)), []
    while len(alive) > 1:
        left, right = (alive.pop(int(torch.randint(len(alive), (), generator=generator))) for _ in range(2))
        alive.append(leaves + len(children))
        children.append([left, right])
    return np.array(children).reshape(-1, 2)


def labels_of(kind, leaves, classes, generator, children):
    if kind == "noise":
        return torch.randint(classes, (leaves,), generator=generator).tolist()
    labels = [0] * leaves  # a class a subtree, so that prunings go deep
    below = Obvious(children, 1).leaves_below
    for node in sorted(below, reverse=True):
        if len(below[node]) <= leaves // 3:
            for leaf in below[node]:
                labels[leaf] = labels[leaf] or 1 + node % classes
    return [label % classes for label in labels]


def same_state(sampler, oracle):
    nodes = range(2 * oracle.n_leaves - 1)
    assert sampler.pruning == oracle.pruning
    assert sampler.best_label.tolist() == [-1 if oracle.label[node] is None else oracle.label[node] for node in nodes]
    assert sampler.cost.tolist() == [oracle.cost[node] for node in nodes]
    for side, ours in enumerate([sampler.lower, sampler.upper]):
        assert ours.tolist() == [[oracle.bounds(node, label)[side] for label in oracle.classes] for node in nodes]


@pytest.mark.parametrize("integer_cost", [False, True])
@pytest.mark.parametrize("kind", ["noise", "subtrees"])
@pytest.mark.parametrize(("leaves", "classes"), [(1, 2), (2, 1), (7, 3), (40, 2), (40, 5)])
@pytest.mark.parametrize("seed", [0, 1])
def test_every_observation_leaves_the_state_of_the_definition(integer_cost, kind, leaves, classes, seed):
    generator = source(seed)
    children = random_tree(leaves, generator)
    labels = labels_of(kind, leaves, classes, generator, children)
    sampler = HierarchicalSampler(children, classes, integer_cost)
    oracle = Obvious(children, classes, integer_cost)
    same_state(sampler, oracle)
    for leaf in torch.randperm(leaves, generator=generator).tolist():
        sampler.observe(leaf, labels[leaf])
        oracle.observe(leaf, labels[leaf])
        same_state(sampler, oracle)


def test_a_pure_tree_stays_whole_and_a_mixed_one_is_split():
    children = ward_children(torch.tensor([[0.0], [0.1], [0.2], [0.3], [9.0], [9.1], [9.2], [9.3]]))
    mixed, pure = HierarchicalSampler(children, 2), HierarchicalSampler(children, 2)
    for leaf in [0, 4, 1, 5, 2, 6, 3, 7]:
        mixed.observe(leaf, int(leaf > 3))
        pure.observe(leaf, 0)
    assert pure.pruning == {14}
    assert len(mixed.pruning) == 2
    assert sorted(mixed.best_label[list(mixed.pruning)].tolist()) == [0, 1]


def test_integer_costs_lead_to_other_prunings():
    """The quirk hsamp_integer_cost: there is a tree and an order of labels where the fraction decides."""
    for seed in range(50):
        generator = source(seed)
        children = random_tree(30, generator)
        labels = labels_of("subtrees", 30, 3, generator, children)
        samplers = [HierarchicalSampler(children, 3, integer) for integer in (False, True)]
        for leaf in torch.randperm(30, generator=generator)[:15].tolist():
            for sampler in samplers:
                sampler.observe(leaf, labels[leaf])
        if samplers[0].pruning != samplers[1].pruning:
            return
    pytest.fail("integer costs never changed a pruning")


def test_the_order_of_observations_matters():
    children = random_tree(30, source(3))
    labels = torch.randint(3, (30,), generator=source(3)).tolist()
    prunings = set()
    for seed in range(20):
        sampler = HierarchicalSampler(children, 3)
        for leaf in torch.arange(20)[torch.randperm(20, generator=source(seed))].tolist():
            sampler.observe(leaf, labels[leaf])
        prunings.add(frozenset(sampler.pruning))
    assert len(prunings) > 1


def test_leaves_are_drawn_with_the_stated_probabilities():
    children = ward_children(torch.arange(40.0)[:, None] + 900 * (torch.arange(40) > 19)[:, None])
    labels, seen = [0] * 20 + [1] * 20, set(range(0, 40, 2))
    sampler, oracle = HierarchicalSampler(children, 3), Obvious(children, 3)
    for leaf in sorted(seen, key=lambda leaf: leaf % 20):
        sampler.observe(leaf, labels[leaf])
        oracle.observe(leaf, labels[leaf])
    expected = np.zeros(40)
    for node in oracle.pruning:
        unseen = [leaf for leaf in oracle.leaves_below[node] if leaf not in seen]
        n, label = len(oracle.leaves_below[node]), oracle.label[node]
        for leaf in unseen:
            expected[leaf] = (n if label is None else n - oracle.bounds(node, label)[0]) / len(unseen)
    expected /= expected.sum()
    np.testing.assert_allclose(sampler.probabilities(), expected)
    assert len(oracle.pruning) > 1
    draws = torch.rand(20000, 2, generator=source(), dtype=torch.float64).tolist()
    counts = np.bincount([sampler.draw(*pair) for pair in draws], minlength=40)
    np.testing.assert_allclose(counts / 20000, expected, atol=0.01)
    assert sampler.draw(0.0, 0.0) not in seen
    assert sampler.draw(1.0, 1.0) not in seen


@pytest.mark.parametrize("count", [2, 3, 50, 300])
def test_the_tree_is_wards(count):
    features = torch.randn(count, 5, generator=source(), dtype=torch.float64)
    assert ward_children(features).tolist() == linkage(features.numpy(), "ward")[:, :2].astype(int).tolist()


def test_a_pool_too_large_for_ward_is_refused_with_a_way_out():
    class Unreadable(TensorPool):
        features = labelled_features = property(lambda self: pytest.fail("the features were computed"))

    candidates = torch.arange(1_000_000)
    pool = Unreadable(candidates, candidates[:0], candidates[:0], 10)
    with pytest.raises(ConfigError, match=r"1000000 images needs 8000 GB.*set subset"):
        make_strategy(Experiment(method="hierarchical")).query(pool, 5, source())


def test_children_that_are_no_tree_and_impossible_observations_are_refused():
    for children in ([[0, 1], [0, 2]], [[0, 4], [1, 2]], [[0, 1], [2, 5]]):
        with pytest.raises(ValueError, match="each node merged once"):
            HierarchicalSampler(children, 2)
    sampler = HierarchicalSampler([[0, 1], [2, 3]], 2)
    sampler.observe(1, 0)
    for leaf, label, message in [(1, 0, "leaf"), (3, 0, "leaf"), (-1, 0, "leaf"), (0, 2, "label"), (0, -1, "label")]:
        with pytest.raises(ValueError, match=message):
            sampler.observe(leaf, label)


def pool_of(count, known, classes=3, constant=False, log=None):
    points = torch.randn(count + known, 4, generator=source(7))
    points = torch.ones_like(points) if constant else points
    truth = (points[:, 0] > 0).long() % classes

    def reveal(index):
        assert index % 3 == 1
        if log is not None:
            log.append(index)
        return int(truth[(index - 1) // 3])

    return TensorPool(
        torch.arange(count) * 3 + 1, torch.arange(known) * 3, truth[count:], classes, reveal=reveal,
        features=points[:count], labelled_features=points[count:],
    )  # fmt: skip


@pytest.mark.parametrize(("count", "known", "budget"), [(1, 3, 1), (30, 5, 30), (30, 0, 4), (1, 0, 1), (30, 5, 7)])
@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("constant", [False, True])
def test_the_strategy_reveals_exactly_what_it_asks_for(count, known, budget, classes, constant):
    log = []
    pool = pool_of(count, known, classes, constant, log)
    strategy = make_strategy(Experiment(method="hierarchical"))
    answer = strategy.query(pool, budget, source())
    assert answer.indices.tolist() == log
    assert len(set(log)) == budget
    assert answer.utilities.shape == (count,)
    assert answer.utilities.sum().item() == pytest.approx(1)
    assert strategy.reveals_within_cycle
    again = strategy.query(pool_of(count, known, classes, constant), budget, source())
    assert torch.equal(answer.indices, again.indices)


def test_the_strategy_is_the_algorithm_run_by_hand():
    pool = pool_of(25, 6)
    answer = make_strategy(Experiment(method="hierarchical")).query(pool, 10, source(4))
    children = linkage(torch.cat([pool.features, pool.labelled_features]).double().numpy(), "ward")[:, :2].astype(int)
    oracle, seen, asked = Obvious(children, 3), set(range(25, 31)), []
    for leaf, label in zip(range(25, 31), pool.labels.tolist(), strict=True):
        oracle.observe(leaf, label)
    for first, second in torch.rand(10, 2, generator=source(4), dtype=torch.float64).tolist():
        unseen = {node: [x for x in oracle.leaves_below[node] if x not in seen] for node in sorted(oracle.pruning)}
        weights = {}
        for node in unseen:
            n, label = len(oracle.leaves_below[node]), oracle.label[node]
            if unseen[node]:
                weights[node] = n if label is None else n - oracle.bounds(node, label)[0]
        at = first * sum(weights.values())
        for node, weight in weights.items():  # noqa: B007
            at -= weight
            if at < 0:
                break
        leaf = unseen[node][int(second * len(unseen[node]))]
        seen.add(leaf)
        asked.append(leaf)
        oracle.observe(leaf, pool.reveal(3 * leaf + 1))
    assert answer.indices.tolist() == [3 * leaf + 1 for leaf in asked]


def test_it_asks_for_what_it_is_told_to_and_the_quota_is_the_learners():
    strategy = make_strategy(Experiment(method="hierarchical", quirks={"hsamp_fixed_quota": True}))
    assert len(strategy.query(pool_of(20, 3), 5, source()).indices) == 5


def test_the_integer_cost_switch_reaches_the_sampler(monkeypatch):
    made = []
    original = hierarchical.HierarchicalSampler
    monkeypatch.setattr(hierarchical, "HierarchicalSampler", lambda *a: made.append(original(*a)) or made[-1])
    for on in (False, True):
        experiment = Experiment(method="hierarchical", quirks={"hsamp_integer_cost": on})
        make_strategy(experiment).query(pool_of(10, 3), 2, source())
    assert [sampler.cost.dtype.kind for sampler in made] == ["f", "i"]
