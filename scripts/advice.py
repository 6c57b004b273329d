"""Which method is ahead of random, and where: the README's short answer, by one rule from the published records."""

from __future__ import annotations

import pandas as pd

from alkit.statistics import is_shown, pairwise_tests

BASELINE = "random"
MOST_NAMED = 3
SETTINGS = (
    ("cifar10_features_empty", "fixed features, no labels", (20, 100)),
    ("cifar10_features", "fixed features, 100 labels", (200, 1_000)),
    ("cifar10_scaled", "images, 500 labels", (1_500,)),
)
"""Study, what its model is trained on and starts with, and an early and the last number of labels."""


def shown(frame: pd.DataFrame, labelled: int) -> pd.Series:
    """The differences to random (fractions) at so many labels that a study shows, by label, the largest first.

    Paired by seed, and corrected (Holm) for all methods of the study.
    """
    rows = frame[frame["labelled"] == labelled]
    names = [name for name in rows["label"].unique() if name != BASELINE]
    tests = pairwise_tests(rows, "accuracy", pairs=[(name, BASELINE) for name in names])
    found = tests[tests["p_holm"].map(is_shown)].set_index("a")["difference"]
    return found.sort_values(ascending=False)


def listed(differences: pd.Series) -> str:
    """`a` +2.1, `b` +1.9, 3 more."""
    named = [f"`{name}` {100 * value:+.1f}".replace("-", "−") for name, value in differences.items()][:MOST_NAMED]
    rest = len(differences) - len(named)
    return ", ".join(named) + (f", {rest} more" if rest else "") or "none"


def advice_table(frames: dict[str, pd.DataFrame]) -> str:
    """A row a setting and number of labels: who is shown to be ahead of random there, and who behind."""
    head = "CIFAR-10: trained on, starting with"
    lines = [f"| {head} | labels | ahead of random, in points | behind |", "| --- | --- | --- | --- |"]
    for study, words, numbers in SETTINGS:
        for labelled in numbers if study in frames else ():
            found = shown(frames[study], labelled)
            ahead, behind = found[found > 0], found[found < 0].sort_values()
            place = f"[{words}](outputs/published/{study}) | {labelled:,}"
            lines.append(f"| {place} | {listed(ahead)} | {listed(behind)} |")
    return "\n".join(lines)
