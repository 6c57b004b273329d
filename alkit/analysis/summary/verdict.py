"""The few lines that a summary begins with, made from its tests by a fixed rule.

Only final accuracy is spoken of: one question, whose comparisons are all corrected together, so that of studies in
which nothing differs at most one in twenty says that something is shown.
"""

from __future__ import annotations

import re

import pandas as pd

from alkit.analysis import published
from alkit.analysis.summary import tables
from alkit.analysis.summary.study import BASELINE, StudyFolder
from alkit.errors.words import counted, every, listed
from alkit.statistics import found_by_most, is_shown


def verdict(study: StudyFolder) -> list[str]:
    """Three to six lines: what was run, what is shown, the largest difference, the lead, what could have been found,
    and how many published numbers agree.

    A difference is "shown" where `statistics.is_shown` says so of its p, corrected over all pairs, else "not shown".
    """
    if not len(study.frame):
        return ["No run of this study has finished."]
    found = tables.pairs(study, "accuracy")
    tested = found[found["p"].notna()]
    if not len(tested):
        return [scope(study), _untested(study, found), *_as_published(study)]
    beside = found[found["b"] == BASELINE] if not study.switches else found
    family = beside if beside["p"].notna().any() else found
    lines = [scope(study), _shown(family, len(tested)), _largest(family, len(tested))]
    if len(study.labels) > 2 and not study.switches:
        lines += _lead(study, found)
    detectable = family["detectable"].dropna()
    if len(detectable) > 1:
        lines.append(found_by_most(float(detectable.median()), " (a typical pair, tested alone)"))
    return [*lines, *_as_published(study)]


def _as_published(study: StudyFolder) -> list[str]:
    """How many of the published numbers that were run by their protocol, by several seeds, ours agree with."""
    if study.dataset not in set(published.load()["dataset"]):
        return []
    compared = published.compare(study.frame, study.params, study.dataset, study.image_records)
    agree, of, how_far = published.how_many_agree(compared)
    told = f"{agree or 'None'} of {counted(of, 'number')} run by the paper's protocol agree with its own; {how_far}."
    return [told] if of else []


def scope(study: StudyFolder) -> str:
    """What was run, and how much of it has finished."""
    frame, state = study.frame, study.state
    seeds = frame.groupby("label")["seed"].nunique()
    low, high = int(seeds.min()), int(seeds.max())
    each = f"{counted(low, 'seed')} each" if low == high else f"{low} to {high} seeds each"
    active = frame[frame["label"].isin(study.active)] if study.active else frame
    first, last = int(active["labelled"].min()), int(active["labelled"].max())
    labels = f"{last:,} labels" if first == last else f"{first:,} to {last:,} labels"
    done = int((state["state"] == "finished").sum())
    complete = done == len(state) and not study.problems
    finished = f"{every(done, 'run')} {'has' if done == 1 else 'have'}"
    if not complete:
        finished = f"{done} of {len(state)} runs have"
    methods = counted(len(study.labels), "method")
    if study.switches:
        methods = f"{counted(len(study.switches), 'switch', 'switches')}, each against the same without it,"
    return f"{methods} on {study.dataset}, {each}, {labels}; {finished} finished."


def _untested(study: StudyFolder, found: pd.DataFrame) -> str:
    if not len(found):
        return "Fewer than two methods end at the same number of labels: nothing can be compared."
    most = int(found["n"].max())
    if most < 2:
        return f"No two methods share more than {counted(most, 'seed')}: nothing can be tested, so nothing is shown."
    return "The differences have no spread over seeds: nothing can be tested, so nothing is shown."


def _shown(family: pd.DataFrame, comparisons: int) -> str:
    """How many of the differences to the baseline (or of all pairs, without one) are shown."""
    corrected = f" (Holm's correction for {counted(comparisons, 'comparison')})" if comparisons > 1 else ""
    seen = family["p_holm"].map(is_shown)
    against = set(family["b"]) == {BASELINE}
    if not against:
        if len(family) == 1:
            a, b = family.iloc[0][["a", "b"]]
            return f"Final accuracy: a difference between {a} and {b} is {'' if seen.any() else 'not '}shown."
        number = f"{seen.sum() or 'none'} of {counted(len(family), 'comparison')}"
        return f"Final accuracy: {number} {'shows' if seen.sum() < 2 else 'show'} a difference{corrected}."
    if not seen.any():
        none = f"of {counted(len(family), 'method')} none is" if len(family) > 1 else f"{family['a'].iloc[0]} is not"
        return f"Final accuracy: {none} shown to differ from {BASELINE}{corrected}."
    parts = []
    for word, side in (("above", family["difference"] > 0), ("below", family["difference"] < 0)):
        names = list(family.loc[seen & side, "a"])
        if names:
            parts.append(f"shown to be {word} {BASELINE}: {listed(names)}")
    rest = int((~seen).sum())
    if rest:
        parts.append(f"not shown to differ from it: {counted(rest, 'method')}")
    return f"Final accuracy, {'; '.join(parts)}{corrected}."


def _largest(family: pd.DataFrame, comparisons: int) -> str:
    """The largest difference that is shown, or the largest of all where none is."""
    seen = family[family["p_holm"].map(is_shown)]
    among = seen if len(seen) else family
    row = among.iloc[int(among["difference"].abs().to_numpy().argmax())]
    said = tables.in_words(row.to_dict(), comparisons)
    return re.sub(r" Four such studies.*?\.(?= \(With|$)", "", said) if len(family) > 1 else said


def _lead(study: StudyFolder, found: pd.DataFrame) -> list[str]:
    """Over how many others the highest mean is shown; a rank alone says nothing."""
    compared = {*found["a"], *found["b"]}
    leader = next(label for label in study.labels if label in compared)
    runs = tables.per_run(study)
    mean = runs.loc[runs["label"] == leader, "accuracy"].mean()
    rows = found[(found["a"] == leader) | (found["b"] == leader)]
    ahead = rows["difference"].where(rows["a"] == leader, -rows["difference"]) > 0
    below = [b if a == leader else a for a, b in rows.loc[rows["p_holm"].map(is_shown) & ahead, ["a", "b"]].to_numpy()]
    others = counted(len(rows), "other")
    what = f"shown to be above {listed(below)}, of {others}" if below else f"not shown to be above any of {others}"
    return [f"The highest mean final accuracy is that of {leader}, {100 * mean:.1f}%; it is {what}."]
