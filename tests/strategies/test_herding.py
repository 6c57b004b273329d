"""MaxHerding and uncertainty herding against the full kernel matrix."""

import pytest
import torch

from alkit.strategies import herding
from alkit.strategies.herding import least_ece_temperature, max_herding, nearest_labelled, uncertainty_herding


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def points(count, seed=0, width=16, groups=0):
    x = torch.randn(count, width, generator=source(seed), dtype=torch.float64)
    if groups:
        middle = 3 * torch.randn(groups, width, generator=source(seed + 1), dtype=torch.float64)
        x = x + middle[torch.randint(groups, (count,), generator=source(seed + 2))]
    return x


def obvious(candidates, labelled, budget, weight=None, delta=1.0):
    """The definition: the full kernel matrix, every gain at every pick."""
    x = torch.cat([candidates, labelled]).double()
    x = x / x.norm(dim=1, keepdim=True).clamp_min(1e-300)
    n = len(candidates)
    kernel = torch.exp(-(x[:, None] - x[None]).square().sum(2) / delta**2)
    weight = torch.ones(n, dtype=torch.float64) if weight is None else weight.double()
    known, picks = list(range(n, len(x))), []
    for _ in range(budget):
        cover = kernel[:n, known].amax(1) if known else torch.zeros(n, dtype=torch.float64)
        gain = (weight[:, None] * (kernel[:n, :n] - cover[:, None]).clamp_min(0)).mean(0)
        gain[picks] = -1
        best = int((gain >= gain.max() - 1e-12).nonzero()[0])  # the lowest on a tie
        picks.append(best)
        known.append(best)
    return picks


@pytest.mark.parametrize("groups", [0, 7])
@pytest.mark.parametrize("labelled", [0, 1, 20])
@pytest.mark.parametrize("delta", [0.3, 1.0, 4.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_max_herding_is_the_full_kernel_matrix_greedily(groups, labelled, delta, dtype):
    x, known = points(150, 1, groups=groups).to(dtype), points(labelled, 2).to(dtype)
    assert max_herding(x, known, 30, delta).tolist() == obvious(x, known, 30, delta=delta)


@pytest.mark.parametrize("labelled", [0, 20])
def test_blocks_and_lazy_bounds_do_not_change_the_picks(labelled, monkeypatch):
    monkeypatch.setattr(herding, "BLOCK", 1 << 12)
    monkeypatch.setattr(herding, "FEWEST", 2)
    monkeypatch.setattr(herding, "CONTESTED", 2)
    for groups in (0, 9):
        x, known = points(300, 3, groups=groups), points(labelled, 4)
        assert max_herding(x, known, 60).tolist() == obvious(x, known, 60)


@pytest.mark.parametrize("labelled", [2, 25])
def test_uncertainty_weighs_the_points_that_are_covered(labelled):
    x, known = points(120, 5, groups=5), points(labelled, 6, groups=5)
    weight = torch.rand(120, generator=source(7)).square()
    unit = known / known.norm(dim=1, keepdim=True)
    delta = float(torch.pdist(unit).min())
    assert uncertainty_herding(x, known, weight, 25).tolist() == obvious(x, known, 25, weight, delta)
    assert uncertainty_herding(x, known, weight, 25, 0.8).tolist() == obvious(x, known, 25, weight, 0.8)


@pytest.mark.parametrize("delta", [0.001, 0.003, 0.02])
def test_however_many_float32_cannot_tell_apart_the_best_is_asked_first(delta):
    """Alone in its neighbourhood each candidate gains its weight; in float32 the kernel is off by as much as 1/δ²."""
    x, weight = points(300, 20).float(), torch.rand(300, generator=source(21), dtype=torch.float64)
    x[200:] = x[:100]  # these gain twice: the first of both is asked
    picks = uncertainty_herding(x, x[:0], weight, 40, delta).tolist()
    assert picks == obvious(x, x[:0], 40, weight, delta)


@pytest.mark.parametrize(("seed", "delta"), [(5, 1.0), (8, 0.03), (11, 0.1), (13, 0.01)])
def test_the_cover_and_the_weights_too_are_known_better_than_in_float32(seed, delta):
    x = (points(200, seed, 32) * 0.1 + points(10, seed + 50, 32).repeat(20, 1) * 3).float()
    known = x[:10] + 0.001 * points(10, seed + 60, 32).float()
    weight = torch.rand(200, generator=source(seed), dtype=torch.float64)
    assert uncertainty_herding(x, known, weight, 60, delta).tolist() == obvious(x, known, 60, weight, delta)


@pytest.mark.parametrize("delta", [0.003, 0.3, 1.0])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_once_all_are_covered_the_lowest_positions_are_asked(delta, dtype):
    x = points(40, 22, 64).repeat(5, 1).to(dtype)
    picks = max_herding(x, x[:0], 200, delta).tolist()
    assert sorted(picks[:40]) == list(range(40))
    assert picks[40:] == list(range(40, 200))
    assert max_herding(x, x[:40], 200, delta).tolist() == list(range(200))


def test_what_is_subtracted_belongs_to_the_covered_point():
    """On a line of angles: with the candidate's own cover subtracted, the second pick would be another."""
    angle = torch.tensor([0.0, 0.1, 0.2, 0.3, 1.2, 1.5], dtype=torch.float64)
    x = torch.stack([angle.cos(), angle.sin()], 1)
    kernel = torch.exp(-(x[:, None] - x[None]).square().sum(2) / 0.25)
    first = int(kernel.mean(0).argmax())
    toolbox = (kernel - kernel[:, first][None]).clamp_min(0).mean(0)
    right = (kernel - kernel[:, first][:, None]).clamp_min(0).mean(0)
    picks = max_herding(x, x[:0], 2, 0.5).tolist()
    assert picks == [first, int(right.argmax())]
    assert int(toolbox.argmax()) != picks[1]


def test_duplicates_and_zeros_tie_to_the_lowest_position():
    x = points(8, 8).repeat(5, 1).float()
    assert max_herding(x, x[:0], 8).max() < 8
    assert max_herding(torch.zeros(6, 3), torch.zeros(0, 3), 6).tolist() == list(range(6))
    assert uncertainty_herding(x, x[:2], torch.zeros(40), 3).tolist() == [0, 1, 2]


def test_features_are_normalised_inside():
    x, known = points(60, 9), points(5, 10)
    scale = torch.rand(60, 1, generator=source(11), dtype=torch.float64) * 100 + 0.01
    assert torch.equal(max_herding(x, known, 20), max_herding(x * scale, known * 7, 20))


def test_the_smallest_distance_between_labelled_images_that_is_not_0():
    x = torch.tensor([[0.0, 0.0], [0.0, 0.0], [0.0, 0.5], [2.0, 0.0]])
    assert nearest_labelled(x) == pytest.approx(0.5)
    assert nearest_labelled(x[:2]) == nearest_labelled(x[:1]) == nearest_labelled(x[:0]) == 1


def test_the_temperature_of_least_ece():
    truth = torch.randint(3, (4000,), generator=source(12))
    logits = torch.nn.functional.one_hot(truth, 3) * 1.5 + torch.randn(4000, 3, generator=source(13))
    calibrated = least_ece_temperature(logits * 1.5, truth)
    assert least_ece_temperature(logits * 6, truth) == pytest.approx(4 * calibrated, rel=0.1)
    assert least_ece_temperature(logits[:0], truth[:0]) == 1


def test_no_square_matrix_is_held():
    from torch.utils._python_dispatch import TorchDispatchMode

    largest = 0

    class Watch(TorchDispatchMode):
        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            nonlocal largest
            result = func(*args, **(kwargs or {}))
            if isinstance(result, torch.Tensor):
                largest = max(largest, result.numel())
            return result

    x = points(6000, 14, width=4).float()
    with Watch():
        max_herding(x, x[:10], 3)
    assert 0 < largest <= herding.BLOCK


def test_bad_input_is_refused():
    x = points(10)
    with pytest.raises(ValueError, match="not a finite number"):
        max_herding(x * torch.nan, x, 2)
    with pytest.raises(ValueError, match="budget: expected 0 to 10"):
        max_herding(x, x, 11)
    with pytest.raises(ValueError, match="delta: expected a number above 0"):
        max_herding(x, x, 1, 0.0)
    with pytest.raises(ValueError, match="uncertainty: expected"):
        uncertainty_herding(x, x, -torch.ones(10), 1)
