"""TypiClust against its definition, cluster by cluster."""

import pytest
import torch

from alkit import Experiment
from alkit.strategies import TensorPool, make_strategy
from alkit.strategies import typiclust as module
from alkit.strategies.k_means import k_means
from alkit.strategies.typiclust import typicality, typiclust


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def blobs(sizes, seed=0, width=8):
    """Tight, well separated groups of directions."""
    middle = torch.eye(width, dtype=torch.float64)[torch.arange(len(sizes))].repeat_interleave(torch.tensor(sizes), 0)
    return middle + 0.05 * torch.randn(sum(sizes), width, generator=source(seed), dtype=torch.float64)


def test_typicality_is_one_over_the_mean_distance_to_the_nearest():
    points = torch.randn(30, 4, generator=source(), dtype=torch.float64)
    for neighbours in (1, 7, 29, 50):
        near = torch.cdist(points, points).sort(1).values[:, 1 : neighbours + 1]
        torch.testing.assert_close(typicality(points, neighbours, source()), 1 / (near.mean(1) + 1e-5))


def test_a_huge_cluster_looks_for_neighbours_in_a_part_of_itself(monkeypatch):
    points = torch.randn(400, 2, generator=source(), dtype=torch.float64)
    whole = typicality(points, 5, source())
    monkeypatch.setattr(module, "LARGEST_CLUSTER", 200)
    part = typicality(points, 5, source())
    assert torch.corrcoef(torch.stack([whole, part]))[0, 1] > 0.7
    assert (part <= whole + 1e-9).all()


def test_clusters_are_found_and_are_a_function_of_the_generator():
    points = blobs([30, 20, 10])
    for clusters in (3,):
        found = k_means(points, clusters, source(1))
        groups = {tuple(found[a:b].unique().tolist()) for a, b in [(0, 30), (30, 50), (50, 60)]}
        assert groups == {(0,), (1,), (2,)}
    assert torch.equal(k_means(points, 60, source(2)), k_means(points, 60, source(2)))


def test_the_largest_uncovered_clusters_come_first_each_with_its_most_typical():
    points = blobs([30, 20, 10, 15])
    unit = points / points.norm(dim=1, keepdim=True)
    labelled, candidates = points[:2], points[2:]  # the largest group has labels already
    picks, values = typiclust(candidates, labelled, 2, source(), neighbours=4)  # four clusters
    for pick, (start, end) in zip(picks.tolist(), [(28, 48), (58, 73)], strict=True):
        members = unit[2:][start:end]
        near = torch.cdist(members, members).sort(1).values[:, 1:5]
        assert pick == start + int(near.mean(1).argmin())
        torch.testing.assert_close(values[start:end], 1 / (near.mean(1) + 1e-5))


def test_small_clusters_come_last():
    points = blobs([20, 3, 10])
    picks, _ = typiclust(points, points[:0], 3, source())
    groups = [int((p >= 20) + (p >= 23)) for p in picks.tolist()]
    assert groups == [0, 2, 1]


def test_a_budget_beyond_the_clusters_takes_turns():
    points = blobs([12, 8])
    picks, _ = typiclust(points, points[:0], 20, source(), max_clusters=2)
    assert sorted(picks.tolist()) == list(range(20))
    assert [p >= 12 for p in picks[:16].tolist()] == [False, True] * 8


def test_bad_features_and_budgets_are_refused():
    points = blobs([5, 5])
    with pytest.raises(ValueError, match="not a finite number"):
        typiclust(points * torch.nan, points, 2, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        typiclust(points, points, 11, source())


@pytest.mark.parametrize("kind", ["varied", "constant", "zero", "extreme"])
@pytest.mark.parametrize(("count", "labelled", "budget"), [(1, 3, 1), (1, 0, 1), (25, 3, 25), (25, 0, 4), (80, 3, 60)])
def test_the_strategy_survives_degenerate_pools(kind, count, labelled, budget):
    points = torch.randn(count + labelled, 5, generator=source())
    points = {"varied": points, "constant": points * 0 + 1, "zero": points * 0, "extreme": points * 1e30}[kind]
    m = torch.arange(labelled) * 3
    pool = TensorPool(
        torch.arange(count) * 3 + 1, m, torch.zeros_like(m), 2,
        features=points[:count], labelled_features=points[count:],
    )  # fmt: skip
    strategy = make_strategy(Experiment(method="typiclust"))
    answer = strategy.query(pool, budget, source())
    assert len(set(answer.indices.tolist())) == budget
    assert set(answer.indices.tolist()) <= set(range(1, 3 * count, 3))
    assert answer.utilities.shape == (count,)
    assert answer.utilities.isfinite().all()
    torch.manual_seed(5)
    assert torch.equal(answer.indices, strategy.query(pool, budget, source()).indices)
