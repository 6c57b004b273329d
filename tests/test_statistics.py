"""Statistics against definitions, a published example, a second library, and studies with planted truth."""

from __future__ import annotations

import itertools
import math
import re
from typing import Any

import numpy as np
import pandas as pd
import pytest
from scipy import stats

from alkit import statistics
from alkit.errors import words
from alkit.statistics import PairedTest, paired_test

# Darwin's maize, cross- minus self-fertilised heights in eighths of an inch (Fisher, The Design of Experiments, § 17:
# mean 20.933, t = 2.148, p just under 0.05; exact signed-rank p = 0.0413 as in scipy's and R's documentation)
DARWIN = [49, -67, 8, 16, 6, 23, 28, 41, 14, 29, 56, 24, 75, 60, -48]
# Student's sleep data (Biometrika, 1908; R's `sleep`): t = -4.0621, p = 0.002833, interval -2.4598858 to -0.7001142
SLEEP_1 = [0.7, -1.6, -0.2, -1.2, -0.1, 3.4, 3.7, 0.8, 0.0, 2.0]
SLEEP_2 = [1.9, 0.8, 1.1, 0.1, -0.1, 4.4, 5.5, 1.6, 4.6, 3.4]


def test_a_constant_curve_scores_itself() -> None:
    assert statistics.area_under_budget_curve([20, 50, 1000], [0.7] * 3) == pytest.approx(0.7)
    assert statistics.area_under_budget_curve([1000], [0.3]) == 0.3


def test_the_area_is_the_sum_of_trapezoids_over_the_span() -> None:
    x, y = [100, 300, 400, 1000], [0.2, 0.6, 0.5, 0.9]
    slow = sum((b - a) * (u + v) / 2 for a, b, u, v in zip(x, x[1:], y, y[1:], strict=False)) / 900
    assert statistics.area_under_budget_curve(x, y) == pytest.approx(slow)
    assert statistics.area_under_budget_curve(x[::-1], y[::-1]) == pytest.approx(slow)


@pytest.mark.parametrize(("x", "y"), [([], []), ([1, 1], [0.1, 0.2]), ([1, 2], [0.1, math.nan]), ([1, 2], [0.1])])
def test_what_is_no_curve_has_no_area(x: list[float], y: list[float]) -> None:
    with pytest.raises(ValueError, match="expected"):
        statistics.area_under_budget_curve(x, y)


def test_labels_to_reach_interpolates() -> None:
    assert statistics.labels_to_reach([10, 20, 40], [0.2, 0.4, 0.8], 0.5) == pytest.approx(25)
    assert statistics.labels_to_reach([10, 20, 40], [0.2, 0.4, 0.8], 0.1) == 10
    assert statistics.labels_to_reach([10, 20, 40], [0.5, 0.4, 0.8], 0.4) == 10, "the first time counts"
    assert math.isnan(statistics.labels_to_reach([10, 20, 40], [0.2, 0.4, 0.8], 0.9))


@pytest.mark.parametrize("n", [3, 5, 12])
def test_the_interval_of_a_mean_is_students(n: int) -> None:
    values = np.random.default_rng(3).normal(size=n)
    theirs = stats.ttest_1samp(values, 0.0).confidence_interval(0.95)
    assert statistics.mean_interval([*values, math.nan]) == pytest.approx(tuple(theirs))
    assert statistics.interval_name(n) == "95% interval"


def test_of_two_seeds_the_range_is_given_and_called_so() -> None:
    assert statistics.mean_interval([0.7, 0.5]) == (0.5, 0.7)
    assert statistics.interval_name(2) == "range"
    assert np.isnan(statistics.mean_interval([0.5])).all()
    test = paired_test([0.61, 0.72], [0.60, 0.70])
    assert test.interval == pytest.approx((0.01, 0.02))
    assert "range 1.0 to 2.0; 2 seeds" in statistics.sentence(test, "A", "B")


def test_the_interval_holds_the_true_mean_nineteen_times_in_twenty() -> None:
    draw = np.random.default_rng(5)
    for n in (3, 5):
        ends = np.array([statistics.mean_interval(draw.normal(0.7, 0.02, n)) for _ in range(1000)])
        held = ((ends[:, 0] < 0.7) & (ends[:, 1] > 0.7)).mean()
        assert held == pytest.approx(0.95, abs=0.02), "a bootstrap of three seeds: 0.75"


def test_paired_tests_of_published_examples() -> None:
    sleep = paired_test(SLEEP_1, SLEEP_2)
    assert sleep.p == pytest.approx(0.002833, abs=5e-7)
    assert sleep.interval == pytest.approx((-2.4598858, -0.7001142), abs=5e-8)
    darwin = paired_test(DARWIN, [0.0] * 15)
    assert darwin.mean_difference == pytest.approx(20.933, abs=5e-4)
    assert darwin.p == pytest.approx(0.0497, abs=5e-5)
    assert darwin.wilcoxon_p == pytest.approx(0.0413, abs=5e-5)


def test_signed_ranks_with_ties_count_every_assignment_of_signs() -> None:
    gaps = np.array([1.0, 1.0, 2.0, -3.0, 4.0, 4.0, 5.0])
    ranks = stats.rankdata(np.abs(gaps))
    centre = ranks.sum() / 2
    seen = abs(ranks[gaps > 0].sum() - centre)
    every = [abs((ranks * np.array(signs)).sum() - centre) for signs in itertools.product([0, 1], repeat=7)]
    assert paired_test(gaps, np.zeros(7)).wilcoxon_p == pytest.approx(np.mean(np.array(every) >= seen - 1e-9))


def test_the_effect_interval_inverts_the_noncentral_t() -> None:
    test = paired_test(DARWIN, [0.0] * 15)
    t = test.effect_size * math.sqrt(15)
    low, high = test.effect_interval
    assert stats.nct.cdf(t, 14, low * math.sqrt(15)) == pytest.approx(0.975, abs=1e-4)
    assert stats.nct.cdf(t, 14, high * math.sqrt(15)) == pytest.approx(0.025, abs=1e-4)
    assert low < test.effect_size < high


def test_detectable_effect_agrees_with_statsmodels() -> None:
    from statsmodels.stats.power import TTestPower

    for n in (3, 5, 20):
        theirs = TTestPower().solve_power(nobs=n, alpha=0.05, power=0.8, alternative="two-sided")
        assert statistics.detectable_effect(n) == pytest.approx(theirs, rel=1e-3)


def test_two_seeds_and_huge_effects_have_an_interval_too() -> None:
    two = paired_test([0.61, 0.72], [0.60, 0.70])
    assert two.n == 2
    assert two.effect_interval[0] < two.effect_size < two.effect_interval[1]
    assert two.detectable > two.mean_difference > 0
    huge = paired_test([0.61, 0.721, 0.8], [0.50, 0.61, 0.69])
    assert np.isfinite(huge.effect_interval).all()


def test_an_interval_that_ends_at_nought_has_p_at_the_level() -> None:
    gaps = np.array([0.01, 0.03, 0.02, -0.01])
    low, high = paired_test(gaps, np.zeros(4)).interval
    at_the_edge = gaps - low
    assert paired_test(at_the_edge, np.zeros(4)).p == pytest.approx(0.05)
    assert paired_test(gaps - high, np.zeros(4)).p == pytest.approx(0.05)


def test_runs_are_paired_by_seed_and_not_by_order() -> None:
    a, b = pd.Series({0: 0.5, 1: 0.6, 2: 0.9}), pd.Series({2: 0.8, 0: 0.45, 1: 0.52, 7: 0.1})
    test = paired_test(a, b)
    assert test.seeds == (0, 1, 2)
    assert test.unpaired == (7,)
    assert test.mean_difference == pytest.approx((0.05 + 0.08 + 0.1) / 3)
    assert test == paired_test(a.sample(frac=1, random_state=1), b.to_dict())
    with pytest.raises(ValueError, match="one value a seed"):
        paired_test(pd.Series([1.0, 2.0], index=[0, 0]), b)
    with pytest.raises(ValueError, match="as many"):
        paired_test([1.0], [1.0, 2.0])


def test_without_spread_nothing_is_claimed() -> None:
    same = paired_test([0.5, 0.6], [0.5, 0.6])
    assert (same.p, same.wilcoxon_p) == (1.0, 1.0)
    shifted = paired_test([0.6, 0.7, 0.8], [0.5, 0.6, 0.7])
    assert math.isnan(shifted.p), "a gap that is the same in each seed would have p = 0"
    assert math.isnan(paired_test([0.5], [0.4]).p)
    assert paired_test({0: 0.5}, {1: 0.4}).n == 0


def test_holm_by_hand() -> None:
    assert statistics.holm([0.01, math.nan, 0.04, 0.03]) == pytest.approx([0.03, math.nan, 0.06, 0.06], nan_ok=True)
    assert np.isnan(statistics.holm([math.nan])).all()
    from statsmodels.stats.multitest import multipletests

    for p in np.random.default_rng(0).random((5, 20)) ** 4:
        assert statistics.holm(p) == pytest.approx(multipletests(p, method="holm")[1])


# --- planted truth ---


def simulated(gain: float, seeds: int, studies: int, noise: float = 0.01) -> list[PairedTest]:
    draw = np.random.default_rng(0)
    base = draw.normal(0.7, 0.02, (studies, seeds))
    a, b = (base + draw.normal(0, noise, base.shape) + shift for shift in (gain, 0.0))
    return [paired_test(x, y) for x, y in zip(a, b, strict=True)]


@pytest.mark.parametrize("seeds", [3, 5])
def test_identical_methods_are_called_different_one_time_in_twenty(seeds: int) -> None:
    rate = np.mean([test.p < 0.05 for test in simulated(0.0, seeds, 600)])
    assert rate == pytest.approx(0.05, abs=3 * math.sqrt(0.05 * 0.95 / 600))


def test_a_better_method_is_found_as_often_as_the_power_says() -> None:
    effect = statistics.detectable_effect(5)
    tests = simulated(effect * 0.01 * math.sqrt(2), 5, 800)
    assert np.mean([test.p < 0.05 for test in tests]) == pytest.approx(0.8, abs=0.04)
    gain = effect * 0.01 * math.sqrt(2)
    assert np.mean([t.interval[0] < gain < t.interval[1] for t in tests]) == pytest.approx(0.95, abs=0.02)
    covered = [t.effect_interval[0] < effect < t.effect_interval[1] for t in tests]
    assert np.mean(covered) == pytest.approx(0.95, abs=0.02)


def frame_of(gains: dict[str, float], seeds: int = 5, noise: float = 0.01, start: int = 0) -> pd.DataFrame:
    draw = np.random.default_rng(start)
    rows = []
    for seed in range(seeds):
        luck = draw.normal(0, 0.02)
        for cycle in range(1, 5):
            for label, gain in gains.items():
                accuracy = 0.4 + 0.1 * cycle + luck + gain + draw.normal(0, noise)
                rows.append((label, seed, cycle, 20 * cycle, accuracy))
    return pd.DataFrame(rows, columns=["label", "seed", "cycle", "labelled", "accuracy"]).sample(frac=1, random_state=0)


def test_penalty_matrix_is_one_paired_t_test_a_budget() -> None:
    frame = frame_of({"a": 0.0, "b": 0.02, "c": 0.012})
    matrix = statistics.penalty_matrix(frame)
    for one, other in itertools.permutations("abc", 2):
        wins = 0.0
        for budget in (20, 40, 60, 80):
            at = frame[frame.labelled == budget].sort_values("seed")
            x, y = (at[at.label == label].accuracy.to_numpy() for label in (one, other))
            result = stats.ttest_rel(x, y)
            wins += 0.25 * (result.pvalue < 0.05 and result.statistic > 0)
        assert matrix.loc[one, other] == pytest.approx(wins)
    assert matrix.to_numpy().max() > 0, "the example has wins"
    assert (np.diag(matrix) == 0).all()


def test_penalty_matrix_adds_studies_and_leaves_out_what_cannot_be_compared() -> None:
    frame = frame_of({"a": 0.0, "b": 0.1})
    two = pd.concat([frame.assign(study="x"), frame.assign(study="y")])
    assert statistics.penalty_matrix(frame).loc["b", "a"] == 1
    assert statistics.penalty_matrix(two).loc["b", "a"] == 2
    upper = pd.DataFrame({"label": "all", "seed": [0, 1], "cycle": 1, "labelled": 999, "accuracy": 0.9})
    matrix = statistics.penalty_matrix(pd.concat([frame, upper]))
    assert math.isnan(matrix.loc["all", "a"])


def test_identical_methods_win_one_budget_in_forty_each() -> None:
    wins = [statistics.penalty_matrix(frame_of({"a": 0, "b": 0}, start=s)).loc["a", "b"] for s in range(120)]
    assert np.mean(wins) == pytest.approx(0.025, abs=0.02)


def test_pairwise_tests_find_what_is_planted_and_only_that() -> None:
    final = frame_of({"a": 0.0, "same": 0.0, "better": 0.05}, seeds=8).query("cycle == 4")
    table = statistics.pairwise_tests(final, "accuracy").set_index(["a", "b"])
    found = {frozenset(pair) for pair, row in table.iterrows() if row.p_holm < 0.05}
    assert found == {frozenset({"a", "better"}), frozenset({"same", "better"})}
    assert table["p_holm"].to_numpy() == pytest.approx(statistics.holm(table["p"].to_numpy()))


def test_attribution_recovers_the_planted_parts_and_adds_up() -> None:
    frame = frame_of({"random": 0, "ranked_margin": 0.02, "cmam": 0.05, "oo4al": 0.07}, seeds=40)
    at_start = frame.cycle == 1
    same = {"oo4al": "cmam", "ranked_margin": "random"}  # before any query the selection cannot matter
    reference = frame[at_start].set_index(["label", "seed"]).accuracy
    keys = [(same.get(label, label), seed) for label, seed in zip(frame.label, frame.seed, strict=True)]
    frame["accuracy"] = np.where(at_start, reference.reindex(keys).to_numpy(), frame.accuracy)
    table = statistics.attribution(frame)
    assert len(table) == 40 * 4
    assert np.allclose(table.training_part + table.selection_part, table.total)
    for order in ("training_first", "selection_first"):
        assert np.allclose(table[f"training_{order}"] + table[f"selection_{order}"], table.total)
    first, later = table[table.cycle == 1], table[table.cycle > 1]
    assert (first.selection_part == 0).all()
    assert first.check.max() == 0
    assert later.training_part.mean() == pytest.approx(0.05, abs=0.005)
    assert later.selection_part.mean() == pytest.approx(0.02, abs=0.005)


def test_attribution_without_the_controls_is_empty() -> None:
    assert len(statistics.attribution(frame_of({"random": 0, "oo4al": 0.1}))) == 0


# --- sentences ---


def say(a: list[float], b: list[float], **more: Any) -> str:
    return statistics.sentence(paired_test(a, b), "A", "B", **more)


FAR, NEAR = [0.60, 0.71, 0.80, 0.75], [0.50, 0.60, 0.71, 0.65]


def test_a_shown_difference_is_named_with_its_size_and_interval() -> None:
    text = say(FAR, NEAR)
    assert re.fullmatch(r"A is 10\.0 points above B \(95% interval 8\.7 to 11\.3; 4 seeds, shown: p = \S+\)\.", text)
    assert say(NEAR, FAR) == text.replace("A is", "B is").replace("above B", "above A"), "the one ahead comes first"


def test_a_difference_that_is_not_shown_is_not_claimed() -> None:
    text = say([0.60, 0.70, 0.80], [0.61, 0.68, 0.80])
    assert re.match(r"A is 0\.3 points above B \(95% interval −3\.5 to 4\.1; 3 seeds, not shown: p = ", text)
    visible = paired_test([0.60, 0.70, 0.80], [0.61, 0.68, 0.80]).detectable
    assert text.endswith(f"Four such studies in five would have found a difference of {100 * visible:.1f} points.")
    assert "better" not in text


def test_no_sentence_has_a_negative_difference() -> None:
    draw = np.random.default_rng(0)
    for _ in range(50):
        text = say(list(draw.random(3)), list(draw.random(3)))
        assert re.match(r"[AB] is \d+\.\d points above [AB] ", text)


def test_a_difference_lost_to_the_correction_is_not_shown() -> None:
    text = say(FAR, NEAR, p_corrected=0.2, comparisons=15)
    assert "; 4 seeds, not shown: " in text
    assert ", 0.2 after correction for 15 comparisons). " in text
    assert text.endswith("points, tested alone.")


def test_one_seed_and_no_spread_are_said_so() -> None:
    assert (
        say([0.5], [0.4])
        == "A is 10.0 points above B in the one seed they share: not shown, one seed cannot be tested."
    )
    assert say([0.5, 0.6], [0.5, 0.6]) == "A and B gave the same numbers in both seeds."
    assert say([0.6, 0.7, 0.8], [0.5, 0.6, 0.7]).startswith("A is 10.0 points above B in each of 3 seeds: not shown")
    assert (
        statistics.sentence(paired_test({0: 0.5}, {1: 0.4}), "A", "B")
        == "A and B share no seed: nothing can be tested."
    )


@pytest.mark.parametrize(("n", "said"), [(0, "no runs"), (1, "1 run"), (2, "2 runs")])
def test_one_thing_is_not_called_things(n: int, said: str) -> None:
    assert words.counted(n, "run") == said
    assert words.every(1, "run") == "the one run"
    assert words.every(2, "run") == "both runs"
    assert words.every(3, "run") == "all 3 runs"
    assert words.listed(["a", "b", "c"]) == "a, b and c"
    assert words.listed("abcdef", most=3) == "a, b and 4 more"
    assert words.listed([]) == ""
