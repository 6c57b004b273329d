"""k-center greedy against the full distance matrix."""

import pytest
import torch

from alkit import Experiment
from alkit.strategies import TensorPool, coreset, make_strategy
from alkit.strategies.coreset import farthest_first, k_center_greedy


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def obvious(candidates, centers, budget):
    """The definition: every distance, by differences, in float64."""
    points = torch.cat([candidates, centers]).double()
    distance = torch.stack([(points - point).square().sum(1) for point in candidates.double()])
    chosen = []
    while len(chosen) < budget:
        known = [*range(len(candidates), len(points)), *chosen]
        nearest = distance[:, known].amin(1) if known else torch.full((len(candidates),), torch.inf)
        nearest[chosen] = -1
        chosen.append(int(nearest.argmax()))
    return chosen


def features_like(kind, count, width, generator):
    if kind == "normal":
        return torch.randn(count, width, generator=generator)
    if kind == "far from the origin":
        return torch.randn(count, width, generator=generator) + 1000
    if kind == "a plane":
        return torch.randn(count, 2, generator=generator) @ torch.randn(2, width, generator=generator)
    if kind == "clusters":
        middle = torch.randn(5, width, generator=generator)[torch.randint(5, (count,), generator=generator)]
        return 100 * middle + 0.01 * torch.randn(count, width, generator=generator)
    if kind == "integers":  # many ties, all exact
        return torch.randint(0, 3, (count, 3), generator=generator).float()
    return torch.randn(count, width, generator=generator, dtype=torch.float64) * 1e-20


KINDS = ["normal", "far from the origin", "a plane", "clusters", "integers", "tiny float64"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("labelled", [0, 1, 40])
@pytest.mark.parametrize("budget", [1, 30, 250])
def test_the_picks_are_those_of_the_full_distance_matrix(kind, labelled, budget):
    points = features_like(kind, 250 + labelled, 17, source(budget))
    candidates, centers = points[:250], points[250:]
    assert k_center_greedy(candidates, centers, budget).tolist() == obvious(candidates, centers, budget)


@pytest.mark.parametrize("smallest", [1, 2, 7])
@pytest.mark.parametrize("kind", KINDS)
def test_the_size_of_the_blocks_does_not_change_the_picks(monkeypatch, kind, smallest):
    points = features_like(kind, 120, 5, source(smallest))
    expected = obvious(points[:100], points[100:], 100)
    monkeypatch.setattr(coreset, "SMALLEST_BLOCK", smallest)
    monkeypatch.setattr(coreset, "LARGEST_BLOCK", 4 * smallest)
    monkeypatch.setattr(coreset, "CHUNK", 50)
    assert k_center_greedy(points[:100], points[100:], 100).tolist() == expected


def test_each_pick_becomes_a_center():
    line = torch.tensor([[0.0], [1.0], [9.0], [10.0]])
    assert k_center_greedy(line, torch.tensor([[0.0]]), 3).tolist() == [3, 1, 2]


def test_ties_go_to_the_lowest_position():
    square = torch.tensor([[1.0, 0.0], [0.0, 1.0], [-1.0, 0.0], [0.0, -1.0]])
    assert k_center_greedy(square, torch.zeros(1, 2), 4).tolist() == [0, 1, 2, 3]
    assert k_center_greedy(square, torch.tensor([[1.0, 0.0]]), 3).tolist() == [2, 1, 3]


@pytest.mark.parametrize("labelled", [0, 3])
def test_constant_features_are_asked_in_their_order(labelled):
    same = torch.full((300, 8), 0.1)
    assert k_center_greedy(same, same[:labelled], 300).tolist() == list(range(300))


def test_duplicates_come_after_everything_else():
    points = torch.randn(40, 64, generator=source()) * 7 + 3
    doubled = torch.cat([points, points])
    picks = k_center_greedy(doubled, points[:1], 80).tolist()
    assert sorted(p % 40 for p in picks[:39]) == list(range(1, 40))
    assert sorted(picks) == list(range(80))


def test_a_small_difference_far_from_everything_is_still_seen():
    points = torch.zeros(64, 4)
    points[:, 0] = 4096 + torch.arange(64) / 64
    assert k_center_greedy(points, torch.full((1, 4), -4096.0), 64).tolist() == obvious(
        points, torch.full((1, 4), -4096.0), 64
    )


def test_float32_magnitudes_near_overflow_do_not_change_the_picks():
    points = torch.randn(60, 4, generator=source())
    assert torch.equal(k_center_greedy(points * 1e30, points[:2] * 1e30, 30), k_center_greedy(points, points[:2], 30))


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("where", [0, 1])
def test_features_that_are_not_finite_are_refused(bad, where):
    parts = [torch.zeros(5, 2), torch.zeros(3, 2)]
    parts[where][1, 1] = bad
    with pytest.raises(ValueError, match="not a finite number"):
        k_center_greedy(*parts, 2)


def test_a_budget_beyond_the_candidates_and_widths_that_differ_are_refused():
    with pytest.raises(ValueError, match="budget: expected 0 to 5"):
        k_center_greedy(torch.zeros(5, 2), torch.zeros(3, 2), 6)
    with pytest.raises(ValueError, match=r"expected features \(·, 2\)"):
        k_center_greedy(torch.zeros(5, 2), torch.zeros(3, 3), 1)


def test_the_distances_are_those_before_the_first_pick():
    points = torch.randn(30, 5, generator=source())
    distances = farthest_first(points[:25], points[25:], 10)[1]
    torch.testing.assert_close(distances, torch.cdist(points[:25], points[25:]).amin(1).double(), rtol=1e-5, atol=1e-5)


def test_no_candidates_by_centers_matrix_is_formed(monkeypatch):
    """The largest tensor that any operation returns is a chunk, however many centers there are."""
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor) and result.untyped_storage().nbytes() > largest:
                largest = result.untyped_storage().nbytes()
            return result

    monkeypatch.setattr(coreset, "CHUNK", 1 << 12)
    monkeypatch.setattr(coreset, "LARGEST_BLOCK", 64)
    points = torch.randn(4000, 4, generator=source())
    with Watch():
        k_center_greedy(points[:2000], points[2000:], 50)
    assert 0 < largest < 2000 * 2000 * 4 / 10


def pool_of(features, labelled_features):
    n, m = len(features), len(labelled_features)
    labels = torch.zeros(m, dtype=torch.int64)
    return TensorPool(
        torch.arange(n) * 3 + 1, torch.arange(m) * 3, labels, 2, features=features, labelled_features=labelled_features
    )


@pytest.mark.parametrize(("count", "labelled", "budget"), [(1, 4, 1), (20, 4, 20), (20, 0, 5), (20, 4, 3)])
def test_the_strategy_answers_in_images_of_the_data_set(count, labelled, budget):
    points = torch.randn(count + labelled, 6, generator=source())
    pool = pool_of(points[:count], points[count:])
    answer = make_strategy(Experiment(method="coreset")).query(pool, budget, source())
    assert answer.indices.tolist() == [3 * i + 1 for i in obvious(points[:count], points[count:], budget)]
    assert answer.utilities.shape == (count,)
    assert answer.utilities.isfinite().all()
    if labelled:
        assert int(answer.utilities.argmax()) * 3 + 1 == int(answer.indices[0])
