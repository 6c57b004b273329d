"""Each score against its definition, written as a loop over one image's probabilities."""

import math
from collections.abc import Callable

import pytest
import torch

from alkit.strategies import uncertainty
from alkit.strategies.base import top
from alkit.strategies.sbias import predictive_entropy
from alkit.strategies.uncertainty import SCORES, bald, entropy, least_confidence, margin, ranked_margin


def probabilities(row: torch.Tensor) -> list[float]:
    exponentials = [math.exp(float(z) - float(row.max())) for z in row]
    return sorted((e / sum(exponentials) for e in exponentials), reverse=True)


ORACLES: dict[str, Callable[[list[float]], float]] = {
    "least_confidence": lambda p: 1 - p[0],
    "margin": lambda p: -(p[0] - p[1]),
    "entropy": lambda p: -sum(q * math.log(q) for q in p if q > 0),
    "ranked_margin": lambda p: -sum((p[i - 1] - p[i]) / i for i in range(1, len(p))),
}


@pytest.mark.parametrize("name", sorted(SCORES))
@pytest.mark.parametrize("classes", [2, 3, 10])
def test_a_score_is_its_definition(name: str, classes: int) -> None:
    logits = 5 * torch.randn(50, classes, generator=torch.Generator().manual_seed(0))
    expected = [ORACLES[name](probabilities(row)) for row in logits]
    torch.testing.assert_close(SCORES[name](logits), torch.tensor(expected, dtype=torch.float64), rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("name", sorted(SCORES))
def test_extreme_logits_give_numbers_and_certainty_comes_last(name: str) -> None:
    logits = torch.tensor([[1e30, -1e30, 0.0], [0.0, 0.0, 0.0], [3e38, -3e38, -3e38]])
    scores = SCORES[name](logits)
    assert torch.isfinite(scores).all()
    assert scores.argmax() == 1


@pytest.mark.parametrize("name", sorted(SCORES))
def test_a_single_class_leaves_nothing_to_choose(name: str) -> None:
    scores = SCORES[name](torch.randn(4, 1))
    assert torch.equal(scores, torch.zeros(4, dtype=torch.float64))


def test_ranked_margin_is_minus_one_where_certain_and_zero_where_uniform() -> None:
    scores = ranked_margin(torch.tensor([[100.0, -100.0, -100.0], [0.0, 0.0, 0.0]]))
    torch.testing.assert_close(scores, torch.tensor([-1.0, 0.0], dtype=torch.float64))


def test_bald_is_the_entropy_of_the_mean_less_the_mean_entropy() -> None:
    logits = 3 * torch.randn(7, 20, 5, generator=torch.Generator().manual_seed(1))
    expected = []
    for image in range(20):
        rows = [logits[s, image].double().softmax(0) for s in range(7)]
        mean = sum(rows) / 7
        inner = sum(-(row * row.log()).sum() for row in rows) / 7
        expected.append(float(-(mean * mean.log()).sum() - inner))
    torch.testing.assert_close(bald(logits.log_softmax(2)), torch.tensor(expected, dtype=torch.float64))


def test_bald_is_zero_where_all_samples_agree_even_when_saturated() -> None:
    one = torch.tensor([[[1e30, -1e30]], [[1e30, -1e30]]]).log_softmax(2)
    assert torch.equal(bald(one), torch.zeros(1, dtype=torch.float64))


def test_ties_break_by_lowest_position() -> None:
    assert top(torch.tensor([1.0, 2.0, 2.0, 1.0]), 3).tolist() == [1, 2, 0]


def test_a_utility_that_is_not_a_number_is_refused() -> None:
    with pytest.raises(ValueError, match="not a number"):
        top(torch.tensor([1.0, float("nan")]), 1)


def test_logits_of_another_shape_are_refused() -> None:
    for score in (least_confidence, margin, entropy, ranked_margin):
        with pytest.raises(ValueError, match=r"logits \(N, C\)"):
            score(torch.zeros(3))


@pytest.mark.parametrize("count", [0, 1, 6, 50])
def test_blocks_change_no_bit(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = torch.randn(count, 7, generator=torch.Generator().manual_seed(0))
    samples = torch.randn(5, count, 7, generator=torch.Generator().manual_seed(1)).log_softmax(2)
    monkeypatch.setattr(uncertainty, "BLOCK", 20)
    for score in SCORES.values():
        assert torch.equal(uncertainty.in_blocks(score, logits), score(logits))
    for score in (bald, predictive_entropy):
        assert torch.equal(uncertainty.in_blocks(score, samples, 1), score(samples))
