"""What a study's numbers allow one to say: areas, intervals, tests paired by seed, and plain sentences made of them.

Everything takes fractions and gives fractions; only sentences speak of points (hundredths). Runs are paired by their
seed, never by the order of files.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import combinations
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from scipy import optimize, special, stats

from alkit.errors.words import counted, every

Array = npt.NDArray[np.float64]
Values = Mapping[int, float] | pd.Series | Sequence[float] | Array

NAN = math.nan
LEVEL = 0.05


def area_under_budget_curve(labels: Sequence[float] | Array, accuracy: Sequence[float] | Array) -> float:
    """Mean height of the curve of `accuracy` (k,) over `labels` (k,): the trapezoid area divided by the budget's span.

    A constant curve scores its own height, and so does a single point. Points may come in any order.
    Raises `ValueError` for an empty curve, numbers that are not finite, or two points at the same labels.
    """
    x, y = np.asarray(labels, dtype=np.float64), np.asarray(accuracy, dtype=np.float64)
    if x.ndim != 1 or x.shape != y.shape or len(x) == 0:
        raise ValueError(f"expected a curve: labels and accuracy (k,), k ≥ 1, not {x.shape} and {y.shape}")
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        raise ValueError("expected finite labels and accuracy")
    order = np.argsort(x)
    x, y = x[order], y[order]
    if (np.diff(x) == 0).any():
        raise ValueError("expected one accuracy for each number of labels")
    return float(y[0]) if len(x) == 1 else float(np.trapezoid(y, x) / (x[-1] - x[0]))


def labels_to_reach(labels: Sequence[float] | Array, accuracy: Sequence[float] | Array, target: float) -> float:
    """Labels at which the curve first reaches `target`, between two points by a straight line; NaN if it never does."""
    order = np.argsort(np.asarray(labels, dtype=np.float64))
    x, y = np.asarray(labels, dtype=np.float64)[order], np.asarray(accuracy, dtype=np.float64)[order]
    reached = np.flatnonzero(y >= target)
    if not len(reached):
        return NAN
    k = int(reached[0])
    if k == 0:
        return float(x[0])
    return float(x[k - 1] + (target - y[k - 1]) / (y[k] - y[k - 1]) * (x[k] - x[k - 1]))


def mean_interval(values: Sequence[float] | Array, confidence: float = 0.95) -> tuple[float, float]:
    """Student's interval of the mean of `values` (n,) over seeds; of two values their range, of fewer NaN.

    Two values have a Student's interval 9 times as wide as they are apart: it would say nothing, so the range is
    given, and `interval_name` calls it so.
    """
    data = np.asarray(values, dtype=np.float64)
    data = data[~np.isnan(data)]
    if len(data) < 2:
        return NAN, NAN
    if len(data) == 2:
        return float(data.min()), float(data.max())
    mean, reach = float(data.mean()), _student(len(data), confidence) * float(data.std(ddof=1)) / math.sqrt(len(data))
    return mean - reach, mean + reach


@lru_cache(maxsize=256)
def _student(n: int, confidence: float) -> float:
    """Standard errors from the mean of n values to the end of its interval."""
    return float(stats.t.ppf((1 + confidence) / 2, n - 1))


def interval_name(n: int) -> str:
    """What the interval over n seeds is: `95% interval` (Student's), or of two their `range`."""
    return "range" if n == 2 else "95% interval"


# --- two methods ---


@dataclass(frozen=True)
class PairedTest:
    """Differences a − b of runs paired by seed: `differences` are those of the single `seeds`.

    `interval` is Student's 95% interval of `mean_difference` (of two seeds the range of their differences), `p` the
    paired t-test's, `wilcoxon_p` the exact signed-rank test's. `effect_size` is Cohen's d_z (mean over deviation of the
    differences) with the interval of the noncentral t. `detectable` is the true difference that four such studies in
    five would find at 0.05, given this spread. What cannot be known is NaN.
    """

    n: int
    mean_difference: float
    interval: tuple[float, float]
    p: float
    wilcoxon_p: float
    effect_size: float
    effect_interval: tuple[float, float]
    detectable: float
    seeds: tuple[int, ...] = ()
    unpaired: tuple[int, ...] = ()
    differences: tuple[float, ...] = ()


def paired_test(a: Values, b: Values, level: float = LEVEL) -> PairedTest:
    """Test a − b, paired by seed: mappings or Series {seed: value} by their keys, plain sequences by position.

    Seeds that only one side has are left out and named in `unpaired`. Raises `ValueError` for sequences of different
    lengths and for values that are not finite.
    """
    if not isinstance(a, (Mapping, pd.Series)) and len(a) != len(b):
        raise ValueError(f"expected as many values on both sides, not {len(a)} and {len(b)}")
    first, second = _by_seed(a), _by_seed(b)
    seeds = tuple(sorted(set(first) & set(second)))
    unpaired = tuple(sorted(set(first) ^ set(second)))
    gaps = np.array([first[seed] - second[seed] for seed in seeds], dtype=np.float64)
    if not np.isfinite(gaps).all():
        raise ValueError("expected finite values")
    n = len(gaps)
    mean = float(gaps.mean()) if n else NAN
    deviation = float(gaps.std(ddof=1)) if n > 1 else NAN
    if not deviation > 1e-12 * max(1.0, abs(mean)):  # one seed, or the same gap in every seed: no test has a meaning
        same = n > 1 and abs(mean) < 1e-12
        p, nothing = 1.0 if same else NAN, (NAN, NAN)
        return PairedTest(n, mean, nothing, p, p, NAN, nothing, NAN, seeds, unpaired, tuple(gaps.tolist()))
    error = deviation / math.sqrt(n)
    p = float(2 * stats.t.sf(abs(mean) / error, n - 1))
    effect, between = mean / deviation, effect_interval(mean / error, n)
    return PairedTest(
        n, mean, mean_interval(gaps), p, _wilcoxon(gaps), effect, between, detectable_effect(n, level) * deviation,
        seeds, unpaired, tuple(gaps.tolist()),
    )  # fmt: skip


def effect_interval(t: float, n: int, confidence: float = 0.95) -> tuple[float, float]:
    """Interval of Cohen's d_z for a paired `t` of n pairs, by inverting the noncentral t (Cumming & Finch, 2001)."""
    tail, root = (1 - confidence) / 2, math.sqrt(n)

    def bound(probability: float) -> float:
        def gap(delta: float) -> float:
            return _noncentral_t(t, n - 1, delta) - probability

        low, high = t - 1.0, t + 1.0
        while gap(low) < 0:
            low = t - 2 * (t - low)
        while gap(high) > 0:
            high = t + 2 * (high - t)
        return float(optimize.brentq(gap, low, high)) / root

    return bound(1 - tail), bound(tail)


@lru_cache(maxsize=256)
def detectable_effect(n: int, level: float = LEVEL, power: float = 0.8) -> float:
    """The true d_z that a paired t-test of n pairs at `level` finds with probability `power`."""
    df, root = n - 1, math.sqrt(n)
    critical = float(stats.t.ppf(1 - level / 2, df))

    def missing(effect: float) -> float:
        between = _noncentral_t(critical, df, effect * root) - _noncentral_t(-critical, df, effect * root)
        return 1 - between - power

    high = 1.0
    while missing(high) < 0:
        high *= 2
    return float(optimize.brentq(missing, 0.0, high))


def _noncentral_t(t: float, df: int, delta: float) -> float:
    """P(T ≤ t) of the noncentral t: the normal law averaged over the spread that df differences may show.

    scipy's is not a number for the few seeds and large effects that occur here.
    """
    return float(special.ndtr(t * _spreads(df) - delta).mean())


@lru_cache(maxsize=256)
def _spreads(df: int) -> Array:
    """The observed over the true deviation at 2,048 evenly spaced quantiles."""
    return np.asarray(stats.chi.ppf((np.arange(2048) + 0.5) / 2048, df) / math.sqrt(df))


def holm(p_values: Sequence[float] | Array) -> Array:
    """Holm's step-down correction of p (k,); NaNs stay and are not counted as comparisons."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")[: (~np.isnan(p)).sum()]  # NaNs come last
    corrected = np.full_like(p, np.nan)
    # statsmodels' collects garbage at each call, which takes longer than a summary's tests do together
    corrected[order] = np.maximum.accumulate(p[order] * np.arange(len(order), 0, -1)).clip(max=1)
    return corrected


def _by_seed(values: Values) -> dict[int, float]:
    if isinstance(values, pd.Series) and not values.index.is_unique:
        raise ValueError("expected one value a seed")
    pairs: Any = values.items() if isinstance(values, (Mapping, pd.Series)) else enumerate(values)
    return {int(seed): float(value) for seed, value in pairs}


def _wilcoxon(gaps: Array) -> float:
    gaps = np.round(gaps, 12)  # equal differences must tie in spite of their rounding
    exact = len(gaps) <= 50 and (gaps != 0).all() and len(np.unique(np.abs(gaps))) == len(gaps)
    if exact:
        return float(stats.wilcoxon(gaps, method="exact").pvalue)
    if len(gaps) <= 13:  # ties or zeros: every assignment of signs
        return float(stats.wilcoxon(gaps, method=stats.PermutationMethod(n_resamples=np.inf)).pvalue)
    return float(stats.wilcoxon(gaps, method="approx").pvalue)


# --- all methods ---


def pairwise_tests(
    values: pd.DataFrame, column: str = "value", level: float = LEVEL, pairs: Iterable[tuple[str, str]] | None = None
) -> pd.DataFrame:
    """Every pair of labels, or `pairs` of them (a, b), tested by seed, with Holm's correction over all these.

    `values` has the columns `label`, `seed` and `column`, one row a run. One row a pair: `a`, `b`, `n`, `difference`,
    `low`, `high`, `p`, `p_holm`, `wilcoxon_p`, `effect`, `effect_low`, `effect_high`, `detectable`, `test`.
    """
    by_label = {label: part.set_index("seed")[column].dropna() for label, part in values.groupby("label", sort=False)}
    rows = []
    for a, b in combinations(by_label, 2) if pairs is None else pairs:
        test = paired_test(by_label[a], by_label[b], level)
        rows.append(
            (a, b, test.n, test.mean_difference, *test.interval, test.p, NAN, test.wilcoxon_p, test.effect_size,
             *test.effect_interval, test.detectable, test)
        )  # fmt: skip
    names = ["a", "b", "n", "difference", "low", "high", "p", "p_holm", "wilcoxon_p", "effect", "effect_low",
             "effect_high", "detectable", "test"]  # fmt: skip
    table = pd.DataFrame.from_records(rows, columns=names)
    return table.assign(p_holm=holm(table["p"].to_numpy(dtype=np.float64)))


def penalty_matrix(frame: pd.DataFrame, metric: str = "accuracy", level: float = LEVEL) -> pd.DataFrame:
    """How often the method of a row beats that of a column (Ash et al., BADGE, ICLR 2020).

    At each budget (`labelled`) that both were run at, a two-sided t-test paired by seed; a significant win counts
    1/number of those budgets. Each study and data set in `frame` adds its own comparison, up to 1. NaN: the two share
    no budget with two seeds. `frame` has the columns `label`, `seed`, `labelled`, `metric` (and `study`, `dataset`).
    Larger `metric` is better.
    """
    labels = list(dict.fromkeys(frame["label"]))
    wins = np.full((len(labels), len(labels)), np.nan)
    groups = [name for name in ("study", "dataset") if name in frame]
    parts = [part for _, part in frame.groupby(groups, sort=False)] if groups else [frame]
    for part in parts:
        tables = {
            label: rows.pivot(index="seed", columns="labelled", values=metric).astype(float)
            for label, rows in part.groupby("label", sort=False)
        }
        for (i, a), (j, b) in combinations(enumerate(labels), 2):
            if a in tables and b in tables:
                won, lost, compared = _wins((tables[a] - tables[b]).to_numpy(), level)
                if compared:
                    wins[i, j] = np.nansum([wins[i, j], won / compared])
                    wins[j, i] = np.nansum([wins[j, i], lost / compared])
    np.fill_diagonal(wins, 0.0)
    return pd.DataFrame(wins, index=pd.Index(labels, name="beats"), columns=labels)


def _wins(gaps: Array, level: float) -> tuple[int, int, int]:
    """Budgets won, lost and compared, from differences (seeds, budgets), NaN where one side has no run."""
    count = (~np.isnan(gaps)).sum(0)
    gaps, count = gaps[:, count > 1], count[count > 1]
    if not gaps.size:
        return 0, 0, 0
    mean, deviation = np.nanmean(gaps, 0), np.nanstd(gaps, 0, ddof=1)
    clear = deviation > 1e-12 * np.maximum(1.0, np.abs(mean))  # as in paired_test
    t = np.divide(mean * np.sqrt(count), deviation, out=np.zeros_like(mean), where=clear)
    significant = 2 * stats.t.sf(np.abs(t), count - 1) < level
    return int((significant & (t > 0)).sum()), int((significant & (t < 0)).sum()), len(count)


def attribution(frame: pd.DataFrame) -> pd.DataFrame:
    """The gap oo4al − random in accuracy, split into what the training and the selection add, a row a seed and cycle.

    Both orders, each exact: training first (cmam − random, then oo4al − cmam) and selection first (ranked_margin −
    random, then oo4al − ranked_margin); their mean is `training_part` and `selection_part`, which add up to `total`.
    At cycle 1 nothing has been selected: all of the gap is training, and `check` is what the controls measured there
    instead of 0 (same seed, same images: rounding of the device at most).
    Rows exist for the seeds and cycles that all four labels have.
    """
    labels = ["oo4al", "cmam", "ranked_margin", "random"]
    wide = frame.pivot(index=["seed", "cycle"], columns="label", values="accuracy").reindex(columns=labels).dropna()
    both, train, select, base = (wide[label] for label in labels)
    labelled = frame[frame["label"] == "oo4al"].set_index(["seed", "cycle"])["labelled"]
    table = pd.DataFrame({"labelled": labelled.loc[wide.index], "total": both - base})
    first = wide.index.get_level_values("cycle") == 1
    orders = {
        "training_first": (train - base, both - train),
        "selection_first": (both - select, select - base),
    }
    for order, (trained, selected) in orders.items():
        table[f"training_{order}"] = np.where(first, table["total"], trained)
        table[f"selection_{order}"] = np.where(first, 0.0, selected)
    for part in ("training", "selection"):
        table[f"{part}_part"] = (table[f"{part}_training_first"] + table[f"{part}_selection_first"]) / 2
    gaps = np.maximum((both - train).abs(), (select - base).abs())
    table["check"] = np.where(first, gaps, np.nan)
    return table.reset_index()


# --- sentences ---


def is_shown(p: float) -> bool:
    """Whether a difference may be called shown: by this rule alone, everywhere. `p` is corrected for its family."""
    return p < LEVEL


def sentence(test: PairedTest, a: str, b: str, p_corrected: float | None = None, comparisons: int = 1) -> str:
    """What the test allows one to say of labels `a` and `b`, the one ahead first, in one or two plain sentences."""
    ahead, behind = (a, b) if not test.mean_difference < 0 else (b, a)
    if not test.n:
        return f"{ahead} and {behind} share no seed: nothing can be tested."
    gap, seeds = abs(test.mean_difference), counted(test.n, "seed")
    said = f"{ahead} is {points(gap)} above {behind}"
    if test.n == 1:
        return f"{said} in the one seed they share: not shown, one seed cannot be tested."
    if math.isnan(test.p):
        return f"{said} in each of {seeds}: not shown, without any spread there is no test."
    if math.isnan(test.detectable):
        return f"{ahead} and {behind} gave the same numbers in {every(test.n, 'seed')}."
    p = test.p if p_corrected is None or math.isnan(p_corrected) else p_corrected
    low, high = test.interval if test.mean_difference >= 0 else (-test.interval[1], -test.interval[0])
    digits = _digits(gap, low, high)
    if gap == 0:
        said = f"{ahead} and {behind} are equal in the mean"
    else:
        said = f"{ahead} is {points(gap, digits)} above {behind}"
    said += f" ({interval_name(test.n)} {_signed(low, digits)} to {_signed(high, digits)}; {seeds}, "
    corrected = (
        f", {_p(p).removeprefix('p = ')} after correction for {counted(comparisons, 'comparison')}"
        if comparisons > 1
        else ""
    )
    if is_shown(p):
        return f"{said}shown: {_p(test.p)}{corrected})."
    alone = ", tested alone" if comparisons > 1 else ""
    return f"{said}not shown: {_p(test.p)}{corrected}). {found_by_most(test.detectable, alone)}"


def found_by_most(detectable: float, remark: str = "") -> str:
    """What a study of this size could have found: the true difference that has a power of 80%."""
    if detectable > 1:
        return f"Four such studies in five would not have found even a difference of 100 points{remark}."
    return f"Four such studies in five would have found a difference of {points(detectable)}{remark}."


def points(fraction: float, digits: int | None = None) -> str:
    """A difference of fractions in percentage points."""
    return f"{100 * fraction:.{_digits(fraction) if digits is None else digits}f} points"


def _digits(*fractions: float) -> int:
    """Digits after the point that these differences are worth: one from a point on, else two."""
    return 1 if abs(fractions[0]) >= 0.0005 and max(map(abs, fractions)) >= 0.01 else 2


def _signed(fraction: float, digits: int) -> str:
    return f"{100 * fraction:.{digits}f}".replace("-", "−")


def _p(p: float) -> str:
    return "p < 0.0001" if p < 1e-4 else f"p = {p:.2g}"
