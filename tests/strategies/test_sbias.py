"""Statistical bias: estimators whose expectation over every possible draw is the pool's risk, and the draws."""

import itertools
import math

import pytest
import torch

from alkit import Experiment
from alkit.strategies import TensorPool, make_strategy
from alkit.strategies.sbias import (
    draw_without_replacement,
    estimator_expectations,
    log_proposal,
    lure_weights,
    predictive_entropy,
    pure_weights,
    random_log_proposal,
)
from alkit.strategies.uncertainty import bald

LOSSES = [0.3, 2.0, 0.1, 5.0, 1.1]
SCORES = [0.1, 0.4, 0.05, 0.3, 0.15]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def proposal(scores, kind="softmax", temperature=15_000.0):
    return log_proposal(scores, kind, temperature).exp()


def expectation(weigh, draws, losses=LOSSES, scores=SCORES):
    """Σ over all ordered draws of its probability × its estimate."""
    total = 0.0
    for order in itertools.permutations(range(len(losses)), draws):
        left, chance, masses = sum(scores), 1.0, []
        for i in order:
            masses.append(scores[i] / left)
            chance *= masses[-1]
            left -= scores[i]
        weights = weigh(torch.tensor(masses, dtype=torch.float64), len(losses)).tolist()
        total += chance * sum(w * losses[i] for w, i in zip(weights, order, strict=True)) / draws
    return total


@pytest.mark.parametrize("draws", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("weigh", [lure_weights, pure_weights])
def test_weighted_losses_are_the_pools_risk_in_expectation(weigh, draws):
    assert expectation(weigh, draws) == pytest.approx(sum(LOSSES) / 5, abs=1e-12)


@pytest.mark.parametrize("draws", [1, 2, 3, 4])
def test_unweighted_losses_are_not(draws):
    plain = expectation(lambda q, n: torch.ones(len(q)), draws)
    assert abs(plain - sum(LOSSES) / 5) > 0.05


@pytest.mark.parametrize("draws", [1, 3, 5])
def test_the_enumeration_offered_to_readers_is_that_expectation(draws):
    found = estimator_expectations(torch.tensor(LOSSES), torch.tensor(SCORES), draws)
    assert found["pool"] == pytest.approx(1.7, abs=1e-6)
    assert found["plain"] == pytest.approx(expectation(lambda q, n: torch.ones(len(q)), draws), abs=1e-5)
    assert found["pure"] == pytest.approx(1.7, abs=1e-5)
    assert found["lure"] == pytest.approx(1.7, abs=1e-5)


def test_the_weights_are_the_papers_formulas():
    q, n = [0.5, 0.2, 0.9], 10
    pure = [(1 / q[m - 1] + 3 - m) / n for m in (1, 2, 3)]
    lure = [1 + (n - 3) / (n - m) * (1 / ((n - m + 1) * q[m - 1]) - 1) for m in (1, 2, 3)]
    assert pure_weights(torch.tensor(q), n).tolist() == pytest.approx(pure, rel=1e-6)
    assert lure_weights(q, n).tolist() == pytest.approx(lure)
    assert lure_weights(q, n).dtype == torch.float64


def test_uniform_draws_weigh_one_under_lure():
    masses = 1 / (10 - torch.arange(4, dtype=torch.float64))
    assert lure_weights(masses, 10).tolist() == pytest.approx([1] * 4)


def test_a_pool_drawn_to_the_end_weighs_one_under_lure():
    assert lure_weights([0.7, 0.2, 1.0], 3).tolist() == [1, 1, 1]
    assert lure_weights([1.0], 1).tolist() == [1]
    assert pure_weights([1.0], 1).tolist() == [1]


def test_no_draws_have_no_weights():
    assert lure_weights([], 3).shape == (0,)


@pytest.mark.parametrize("masses", [[0.0], [-0.1], [1.5], [math.nan], [0.5] * 4, [[0.5]]])
@pytest.mark.parametrize("weigh", [lure_weights, pure_weights])
def test_impossible_masses_are_refused(weigh, masses):
    with pytest.raises(ValueError, match="masses"):
        weigh(masses, 3)


def test_the_softmax_proposal_is_softmax_of_temperature_times_share():
    scores = [0.2, 0.0, 0.5]
    raw = [math.exp(7 * s / 0.7) for s in scores]
    assert proposal(torch.tensor(scores), "softmax", 7.0).tolist() == pytest.approx(
        [r / sum(raw) for r in raw], rel=1e-6
    )


def test_the_proportional_proposal_is_the_share():
    assert proposal(torch.tensor([1.0, 3.0]), "proportional").tolist() == pytest.approx([0.25, 0.75])
    zero = proposal(torch.tensor([1.0, 0.0]), "proportional")
    assert 0 < zero[1] < 1e-300


@pytest.mark.parametrize("kind", ["softmax", "proportional"])
@pytest.mark.parametrize("scores", [[0.0, 0.0, 0.0], [4.0, 4.0, 4.0], [1e-320] * 3])
def test_constant_scores_are_a_uniform_proposal(kind, scores):
    assert proposal(torch.tensor(scores), kind).tolist() == pytest.approx([1 / 3] * 3)


@pytest.mark.parametrize("kind", ["softmax", "proportional"])
@pytest.mark.parametrize("scores", [[1e300, 1e300, 0.0], [1e-30, 1.0, 5.0], [7.0]])
def test_no_score_overflows(kind, scores):
    log_q = log_proposal(torch.tensor(scores, dtype=torch.float64), kind)
    assert log_q.isfinite().all()
    assert float(log_q.exp().sum()) == pytest.approx(1)


@pytest.mark.parametrize("scores", [[-1.0, 1.0], [math.nan], [math.inf], []])
def test_impossible_scores_are_refused(scores):
    with pytest.raises(ValueError, match="scores"):
        proposal(torch.tensor(scores))


def test_draws_have_the_probabilities_of_sequential_draws():
    """Every ordered pair of five points, counted over many draws, against q_i · q_j / (1 − q_i)."""
    q, count, seen = torch.tensor(SCORES), 6000, {}
    log_q, generator = q.log(), source(3)
    for _ in range(count):
        drawn, masses = draw_without_replacement(log_q, 2, generator)
        pair = tuple(drawn.tolist())
        seen[pair] = seen.get(pair, 0) + 1
        i, j = pair
        assert masses.tolist() == pytest.approx([SCORES[i], SCORES[j] / (1 - SCORES[i])], rel=1e-5)
    chi = 0.0
    for i, j in itertools.permutations(range(5), 2):
        expected = count * SCORES[i] * SCORES[j] / (1 - SCORES[i])
        chi += (seen.get((i, j), 0) - expected) ** 2 / expected
    assert chi < 43.8  # the 0.1% point of chi-squared with 19 degrees of freedom


def test_masses_are_of_what_is_left_down_to_the_last_point():
    log_q = proposal(torch.tensor(SCORES), "proportional").log()
    drawn, masses = draw_without_replacement(log_q, 5, source())
    assert sorted(drawn.tolist()) == [0, 1, 2, 3, 4]
    left = list(range(5))
    for i, mass in zip(drawn.tolist(), masses.tolist(), strict=True):
        assert mass == pytest.approx(SCORES[i] / sum(SCORES[k] for k in left), rel=1e-5)
        left.remove(i)
    assert masses[-1] == 1


def test_vanishing_masses_are_drawn_last_with_the_right_probability():
    log_q = log_proposal(torch.tensor([1.0, 0.0, 0.0]), "softmax", 15_000.0)  # two points of mass exp(-15000)
    drawn, masses = draw_without_replacement(log_q, 3, source())
    assert drawn[0] == 0
    assert masses.tolist() == pytest.approx([1, 0.5, 1])


def test_the_same_generator_draws_the_same():
    log_q = torch.zeros(50).log_softmax(0)
    first, again, other = (draw_without_replacement(log_q, 9, source(s))[0].tolist() for s in (0, 0, 1))
    assert first == again != other


@pytest.mark.parametrize("budget", [0, 4])
def test_an_impossible_budget_is_refused(budget):
    with pytest.raises(ValueError, match="budget"):
        draw_without_replacement(torch.zeros(3), budget, source())


def samples(count=3, n=6, classes=4, scale=2.0):
    return (scale * torch.randn(count, n, classes, generator=source())).log_softmax(2)


def test_the_entropy_is_of_the_mean_prediction():
    log_probs = samples()
    for image, found in enumerate(predictive_entropy(log_probs).tolist()):
        mean = [sum(math.exp(log_probs[s, image, c]) for s in range(3)) / 3 for c in range(4)]
        assert found == pytest.approx(-sum(p * math.log(p) for p in mean), rel=1e-5)


def ask(log_probs=None, budget=3, n=6, seed=0, **changes):
    pool = TensorPool(
        torch.arange(10, 10 + n), torch.arange(2), torch.zeros(2).long(), 4,
        **({} if log_probs is None else {"log_probs": log_probs}),
    )  # fmt: skip
    return make_strategy(Experiment(method="sbias", **changes)).query(pool, budget, source(seed))


@pytest.mark.parametrize(("name", "score"), [("mutual_information", bald), ("entropy", predictive_entropy)])
@pytest.mark.parametrize("kind", ["softmax", "proportional"])
def test_the_query_is_drawn_from_the_proposal_of_its_score(name, score, kind):
    query = ask(samples(), sbias_score=name, sbias_proposal=kind, sbias_temperature=20.0)
    q = proposal(score(samples()), kind, 20.0)
    assert torch.allclose(query.utilities, q)
    left = torch.ones(6, dtype=torch.bool)
    for index, mass in zip(query.indices.tolist(), query.masses.tolist(), strict=True):
        assert mass == pytest.approx(float(q[index - 10] / q[left].sum()))
        left[index - 10] = False


@pytest.mark.parametrize("kind", ["softmax", "proportional"])
def test_random_acquisition_is_uniform(kind):
    query = ask(n=40, budget=4, sbias_score="random", sbias_proposal=kind)
    assert query.utilities.tolist() == pytest.approx([1 / 40] * 40)
    assert query.masses.tolist() == pytest.approx([1 / 40, 1 / 39, 1 / 38, 1 / 37])


@pytest.mark.parametrize("kind", ["softmax", "proportional"])
def test_under_the_quirk_it_is_uniform_over_as_many_images_as_there_are_batches(kind):
    options = {"sbias_score": "random", "sbias_proposal": kind, "batch_size": 16}
    for seed in range(20):  # 40 images are 3 batches
        query = ask(n=40, budget=3, seed=seed, quirks={"random_scores_per_batch": True}, **options)
        assert sorted(query.indices.tolist()) == [10, 11, 12]
        assert query.masses.tolist() == pytest.approx([1 / 3, 1 / 2, 1])
    assert query.utilities.tolist() == pytest.approx([1 / 3] * 3 + [0] * 37)
    rest = ask(n=40, budget=40, quirks={"random_scores_per_batch": True}, **options).indices.tolist()
    assert sorted(rest[:3]) == [10, 11, 12]
    assert sorted(rest) == list(range(10, 50))
    assert random_log_proposal(130, 64).exp().tolist() == pytest.approx([1 / 3] * 3 + [0] * 127)


def test_the_whole_pool_is_looked_at():
    strategy = make_strategy(Experiment(method="sbias", subset=20, budget=5))
    assert torch.equal(strategy.candidates(torch.arange(100), 1, source()), torch.arange(100))


@pytest.mark.parametrize("score", ["mutual_information", "entropy", "random"])
@pytest.mark.parametrize(
    "log_probs",
    [
        samples(),
        samples(n=1),
        samples(classes=1),
        samples(classes=2),
        samples(scale=1e6),
        torch.zeros(3, 6, 4).log_softmax(2),
    ],
    ids=["plain", "one candidate", "one class", "two classes", "extreme logits", "constant"],
)
def test_it_can_ask_for_the_whole_pool_whatever_the_model_says(log_probs, score):
    n = log_probs.shape[1]
    query = ask(log_probs, budget=n, n=n, sbias_score=score)
    assert sorted(query.indices.tolist()) == list(range(10, 10 + n))
    assert ((query.masses > 0) & (query.masses <= 1)).all()
    assert query.utilities.isfinite().all()
    assert lure_weights(query.masses, n).tolist() == pytest.approx([1] * n)


def test_it_draws_the_same_for_the_same_generator():
    one, same, other = (ask(n=30, budget=5, seed=s, sbias_score="random").indices.tolist() for s in (0, 0, 1))
    assert one == same != other
