"""Which strategy is ahead of random, and where: the README's short answer, by one rule from the published records."""

from __future__ import annotations

import pandas as pd

from alkit.errors.words import counted
from alkit.methods import METHODS
from alkit.statistics import is_shown, pairwise_tests

BASELINE = "random"
MOST_NAMED = 2
SETTINGS = (
    ("cifar10_features_empty", "fixed features, no labels", (20, 100)),
    ("cifar10_features", "fixed features, 100 labels", (200, 1_000)),
    ("cifar10_scaled", "images, 500 labels", (1_500,)),
)
"""Study, what its model is trained on and starts with, and an early and the last number of labels."""


def is_strategy(label: str) -> bool:
    """Whether a method differs from random in what it asks, not in how it trains."""
    return label not in METHODS or METHODS[label].objective == METHODS[BASELINE].objective


def shown(frame: pd.DataFrame, labelled: int) -> pd.DataFrame:
    """The differences to random (fractions) at so many labels that a study shows, the largest first.

    Paired by seed, and corrected (Holm) for all strategies of the study. A row a strategy: `names`, `difference` and
    `half`, half of its 95% interval. Strategies whose runs were the same until then, such as TCM before it changes over
    from TypiClust, share a row.
    """
    rows = frame[frame["labelled"] == labelled]
    names = [name for name in rows["label"].unique() if name != BASELINE and is_strategy(name)]
    tests = pairwise_tests(rows, "accuracy", pairs=[(name, BASELINE) for name in names]).set_index("a")
    until = frame[frame["labelled"] <= labelled].pivot_table(index=["seed", "labelled"], columns="label",
                                                             values="accuracy")  # fmt: skip
    alike: dict[tuple[float, ...], list[str]] = {}
    for name in tests.index[tests["p_holm"].map(is_shown)]:
        alike.setdefault(tuple(until[name]), []).append(name)
    first = tests.loc[[same[0] for same in alike.values()]]
    found = first.assign(
        names=["`/`".join(same) for same in alike.values()], half=(first["high"] - first["low"]) / 2
    )  # fmt: skip
    return found[["names", "difference", "half"]].sort_values("difference", ascending=False)


def listed(differences: pd.DataFrame) -> str:
    """`a` +2.1 ± 0.3, `b` +1.9 ± 0.4, 3 more."""
    named = [f"`{row.names}` {100 * row.difference:+.1f} ± {100 * row.half:.1f}".replace("-", "−")
             for row in differences.head(MOST_NAMED).itertuples()]  # fmt: skip
    rest = len(differences) - len(named)
    return ", ".join(named) + (f", {rest} more" if rest else "") or "none"


def advice_table(frames: dict[str, pd.DataFrame]) -> str:
    """A row a setting and number of labels: who is shown to be ahead of random there, and who behind."""
    head = "CIFAR-10: trained on, starting with"
    lines = [f"| {head} | labels | ahead of random | behind |", "| --- | --- | --- | --- |"]
    for study, words, numbers in SETTINGS:
        for labelled in numbers if study in frames else ():
            found = shown(frames[study], labelled)
            ahead, behind = found[found["difference"] > 0], found[found["difference"] < 0][::-1]
            seeds = counted(frames[study]["seed"].nunique(), "seed")
            place = f"[{words}](outputs/published/{study}) ({seeds}) | {labelled:,}"
            lines.append(f"| {place} | {listed(ahead)} | {listed(behind)} |")
    return "\n".join(lines)
