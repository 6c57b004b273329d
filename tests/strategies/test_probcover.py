"""ProbCover against the ball graph written out."""

import pytest
import torch
import torch.nn.functional as F

from alkit import Experiment
from alkit.strategies import TensorPool, make_strategy, probcover
from alkit.strategies.k_means import k_means
from alkit.strategies.probcover import cover_greedily, purity_radius


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def some(count=60, width=3, seed=0):
    return F.normalize(torch.randn(count, width, generator=source(seed), dtype=torch.float64))


def obvious_cover(candidates, covering, budget, radius):
    """Every ball as a set; what is open is counted anew for each pick."""
    near = torch.cdist(candidates, candidates) <= radius
    balls = [set(row.nonzero().flatten().tolist()) for row in near]
    covered = set((torch.cdist(covering, candidates) <= radius).any(0).nonzero().flatten().tolist())
    chosen = []
    while len(chosen) < budget:
        if len(covered) == len(candidates) or not any(
            balls[i] - covered for i in range(len(candidates)) if i not in chosen
        ):
            covered = set() if len(covered) == len(candidates) else set(range(len(candidates)))
            if covered:
                chosen.append(min(set(range(len(candidates))) - set(chosen)))
            continue
        free = [i for i in range(len(candidates)) if i not in chosen]
        best = max(free, key=lambda i: (len(balls[i] - covered), -i))
        chosen.append(best)
        covered |= balls[best]
    return chosen


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize("labelled", [0, 1, 8])
@pytest.mark.parametrize("radius", [0.05, 0.3, 0.8, 3.0])
@pytest.mark.parametrize("budget", [1, 12, 52])
def test_the_picks_cover_most_of_what_is_open(seed, labelled, radius, budget):
    points = some(52 + labelled, seed=seed)
    picks, first = cover_greedily(points[:52], points[52:], budget, radius**2)
    assert picks.tolist() == obvious_cover(points[:52], points[52:], budget, radius)
    clusters = torch.randint(3, (52,), generator=source(seed))
    for one, other in zip(
        cover_greedily(points[:52], points[52:], budget, radius**2, clusters), (picks, first), strict=True
    ):
        assert torch.equal(one, other)
    covered = (torch.cdist(points[52:], points[:52]) <= radius).any(0)
    assert first.tolist() == ((torch.cdist(points[:52], points[:52]) <= radius) & ~covered).sum(1).tolist()


@pytest.mark.parametrize("purity", [0.0, 0.5, 0.9, 0.95, 1.0])
def test_the_radius_is_the_largest_of_that_purity(purity):
    points = some(80)
    labels = (points[:, 0] > 0).long() + (points[:, 1] > 0.5).long()
    distance = torch.cdist(points, points)
    differs = labels[:, None] != labels

    def pure(radius):
        return (~((distance <= radius) & differs).any(1)).double().mean().item()

    radius = purity_radius(points, labels, purity) ** 0.5
    steps = distance[differs].unique()
    assert pure(radius) >= purity
    larger = steps[steps > radius * (1 + 1e-4)]
    if purity > 0:
        assert pure(radius * (1 + 2e-5)) < purity
        assert pure(float(larger[0])) < purity


def test_one_pseudo_label_makes_one_ball():
    assert purity_radius(some(10), torch.zeros(10, dtype=torch.int64), 0.95) == float("inf")


def test_a_large_pool_covers_an_evenly_spaced_part(monkeypatch):
    points = some(90)
    monkeypatch.setattr(probcover, "MOST_COVERED", 30)
    picks, first = cover_greedily(points, points[:0], 5, 0.16)
    held = torch.cdist(points, points[::3]) <= 0.4
    assert first.tolist() == held.sum(1).tolist()
    assert picks[0] == int(held.sum(1).argmax())


def pool_of(points, count, num_classes=3):
    m = torch.arange(len(points) - count) * 3
    return TensorPool(
        torch.arange(count) * 3 + 1, m, torch.zeros_like(m), num_classes,
        features=points[:count], labelled_features=points[count:],
    )  # fmt: skip


def test_the_strategy_takes_the_radius_from_the_clusters_of_the_candidates():
    points = some(70) * 7
    answer = make_strategy(Experiment(method="probcover", probcover_purity=0.8)).query(
        pool_of(points, 60), 6, source(2)
    )
    unit = F.normalize(points)
    radius = purity_radius(unit[:60], k_means(unit[:60], 3, source(2)), 0.8) ** 0.5
    assert answer.indices.tolist() == [3 * i + 1 for i in obvious_cover(unit[:60], unit[60:], 6, radius)]


def test_bad_features_and_budgets_are_refused():
    points = some(10)
    with pytest.raises(ValueError, match="not a finite number"):
        probcover.probcover(points * torch.nan, points, 2, 2, source())
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        probcover.probcover(points, points, 2, 11, source())


@pytest.mark.parametrize("kind", ["varied", "constant", "zero", "extreme"])
@pytest.mark.parametrize("classes", [1, 2, 5])
@pytest.mark.parametrize(("count", "labelled", "budget"), [(1, 3, 1), (1, 0, 1), (25, 3, 25), (25, 0, 4)])
def test_the_strategy_survives_degenerate_pools(kind, classes, count, labelled, budget):
    points = torch.randn(count + labelled, 5, generator=source())
    points = {"varied": points, "constant": points * 0 + 1, "zero": points * 0, "extreme": points * 1e30}[kind]
    strategy = make_strategy(Experiment(method="probcover"))
    answer = strategy.query(pool_of(points, count, classes), budget, source())
    assert len(set(answer.indices.tolist())) == budget
    assert set(answer.indices.tolist()) <= set(range(1, 3 * count, 3))
    assert answer.utilities.shape == (count,)
    assert answer.utilities.isfinite().all()
    torch.manual_seed(5)
    assert torch.equal(answer.indices, strategy.query(pool_of(points, count, classes), budget, source()).indices)
