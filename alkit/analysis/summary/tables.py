"""The tables of a summary: numbers from a study's records, as DataFrames. Accuracies in percent, times in seconds."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any

import numpy as np
import pandas as pd

from alkit import statistics
from alkit.analysis import published
from alkit.analysis.summary.study import BASELINE, StudyFolder
from alkit.errors.words import counted
from alkit.records import ENVIRONMENT, MEASURES, OF_THE_MACHINE

Format = Callable[[Any], str]


def fixed(digits: int) -> Format:
    """Numbers with so many digits after the point; nothing for what is not known."""
    return lambda value: "" if pd.isna(value) else f"{float(value):.{digits}f}"


def signed(digits: int) -> Format:
    """As `fixed`, with the sign of what may be on either side of 0."""
    return lambda value: "" if pd.isna(value) else f"{float(value):+.{digits}f}"


def whole(value: Any) -> str:
    return "" if pd.isna(value) else f"{round(float(value))}"


def p_value(value: Any) -> str:
    return "" if pd.isna(value) else f"{float(value):.2g}" if value >= 1e-4 else f"{float(value):.0e}"


def text(frame: pd.DataFrame, formats: Mapping[str, Format]) -> pd.DataFrame:
    """The table as it is shown and saved: text in every cell, so that both are the same numbers."""
    shown = {name: [formats.get(str(name), _plain)(value) for value in frame[name]] for name in frame.columns}
    return pd.DataFrame(shown, columns=list(frame.columns))


# --- what there is ---


def completeness(study: StudyFolder) -> pd.DataFrame:
    """Runs a label by their state."""
    counts = pd.crosstab(study.state["label"], study.state["state"])
    counts = counts.reindex(columns=["finished", "running", "failed", "missing"], fill_value=0)
    counts.insert(0, "runs", counts.sum(axis=1))
    return counts.reindex(list(dict.fromkeys([*study.labels, *counts.index])), fill_value=0).reset_index()


def unfinished(study: StudyFolder) -> pd.DataFrame:
    """Every run that is not finished, how far it came and why; and records that are left out."""
    part = study.state[study.state["state"] != "finished"]
    listed = part[["label", "seed", "state", "cycle", "cycles", "reason"]].to_dict("records")
    known = set(study.state["path"])
    listed += [{"label": path, "state": "left out", "reason": why} for path, why in study.problems if path not in known]
    return pd.DataFrame.from_records(listed, columns=["label", "seed", "state", "cycle", "cycles", "reason"])


def protocol(study: StudyFolder) -> pd.DataFrame:
    """The parameters that decide numbers: those that all labels share, and those that some have for themselves.

    Fixed features are told by their encoder and the beginning of their SHA-256, not by where they lie.
    """
    skipped = {*OF_THE_MACHINE, "method", "label"} - {"features", "strategies"}
    known = {label: params | {"features": _features_of(study.first_records[label])}
             for label, params in study.params.items()}  # fmt: skip
    rows = []
    for name in dict.fromkeys(key for params in known.values() for key in params if key not in skipped):
        values = {label: _as_written(params.get(name)) for label, params in known.items()}
        common = max(values.values(), key=list(values.values()).count)
        rows.append(
            {"parameter": name, "value": common, "of": "all" if len(set(values.values())) == 1 else "the others"}
        )
        rows += [{"parameter": name, "value": v, "of": label} for label, v in values.items() if v != common]
    return pd.DataFrame.from_records(rows, columns=["parameter", "value", "of"])


def _features_of(record: Mapping[str, Any]) -> str | None:
    """Of what encoder a run's features are, and their digest; None without any."""
    found = (record.get("data") or {}).get("features") or {}
    return f"{found.get('encoder') or 'own'} (SHA-256 {str(found.get('sha256', ''))[:12]})" if found else None


def environment(study: StudyFolder) -> pd.DataFrame:
    """What the runs ran with: one row a combination."""
    runs = study.frame.drop_duplicates("path")[[*ENVIRONMENT]].astype(str)
    runs["git_commit"] = runs["git_commit"].str[:12]
    return runs.groupby(list(ENVIRONMENT), sort=False).size().rename("runs").reset_index()


# --- which is better ---


@lru_cache(maxsize=4)
def per_run(study: StudyFolder) -> pd.DataFrame:
    """One row a run: `label`, `seed`, labels at its `first` cycle and its last, its last measures, its `area`."""
    runs = study.frame.sort_values(["path", "cycle"], kind="stable").groupby("path")
    areas = [statistics.area_under_budget_curve(*part.to_numpy(dtype=float).T)
             for _, part in runs[["labelled", "accuracy"]]]  # fmt: skip
    table = runs.tail(1)[["label", "seed", "labelled", *MEASURES]].reset_index(drop=True)
    return table.assign(first=runs.head(1)["labelled"].to_numpy(), area=areas)


def results(study: StudyFolder) -> pd.DataFrame:
    """Final accuracy, area under the budget curve and labels to the baseline's final accuracy.

    `low` and `high` are of `statistics.mean_interval`. Where test images are unbalanced, `balanced` is the mean over
    the classes of the share of their images that are right.
    """
    runs, rows = per_run(study), []
    target, spent = _baseline(study)
    for label in study.labels:
        part = runs[runs["label"] == label]
        curve = study.frame[study.frame["label"] == label].groupby("labelled")["accuracy"].mean()
        alike = part["labelled"].nunique() == 1 and part["first"].nunique() == 1
        reach = statistics.labels_to_reach(curve.index.to_numpy(), curve.to_numpy(), target) if alike else math.nan
        one = len(curve) == 1
        low, high = statistics.mean_interval(part["accuracy"].to_numpy())
        rows.append(
            {
                "label": label, "seeds": len(part), "labels": _range(part["labelled"]),
                "accuracy": 100 * part["accuracy"].mean(), "sd": 100 * part["accuracy"].std(ddof=1),
                "low": 100 * low, "high": 100 * high, "balanced": 100 * _balanced(study, label),
                "area": math.nan if one else 100 * part["area"].mean(),
                "area sd": math.nan if one else 100 * part["area"].std(ddof=1),
                "labels to baseline": math.nan if one else reach,
                "share of its labels": math.nan if one or not spent else 100 * reach / spent,
            }
        )  # fmt: skip
    table = pd.DataFrame.from_records(rows, columns=list(RESULT_FORMATS))
    return table.drop(columns="balanced") if study.unbalanced_test is None else table


def _balanced(study: StudyFolder, label: str) -> float:
    """Mean balanced accuracy of a label's runs at their last cycle; NaN where test images are not unbalanced."""
    if study.unbalanced_test is None:
        return math.nan
    from sklearn.metrics import balanced_accuracy_score

    found = [balanced_accuracy_score(arrays["labels"], arrays["predicted"][-1])
             for _, arrays in study.predictions(label, ["labels", "predicted"])]  # fmt: skip
    return float(np.mean(found)) if found else math.nan


RESULT_FORMATS: dict[str, Format] = {
    "label": str, "seeds": whole, "labels": str,
    "accuracy": fixed(2), "sd": fixed(2), "low": fixed(2), "high": fixed(2), "balanced": fixed(2),
    "area": fixed(2), "area sd": fixed(2), "labels to baseline": whole, "share of its labels": whole,
}  # fmt: skip


def _baseline(study: StudyFolder) -> tuple[float, float]:
    """Mean final accuracy of the random baseline and its labels there; NaN without one."""
    part = study.frame[study.frame["label"] == BASELINE]
    if not len(part):
        return math.nan, math.nan
    last = part[part["labelled"] == part["labelled"].max()]
    return float(last["accuracy"].mean()), float(part["labelled"].max())


def calibration(study: StudyFolder) -> pd.DataFrame:
    """Measures of calibration at the end of each run: mean and deviation over seeds; `bins` are those of ECE and OE."""
    runs, rows = per_run(study), []
    ends = study.frame.loc[study.frame.groupby("path")["cycle"].idxmax()]
    more = [name for name in WITH_TEMPERATURE if ends[name].notna().any()]
    for label in study.labels:
        part = runs[runs["label"] == label]
        row = {"label": label, "seeds": len(part), "labels": _range(part["labelled"])}
        for name in [*CALIBRATION, *more]:
            values = part[name] if name in part else ends.loc[ends["label"] == label, name]
            row |= {name: values.mean(), f"{name} sd": values.std(ddof=1)}
        rows.append(row | {"bins": bins_of(study, label)})
    return pd.DataFrame(rows)


CALIBRATION = ("ece", "gap", "oe", "ace", "nll", "brier")
WITH_TEMPERATURE = ("ece_with_temperature", "oe_with_temperature")
"""Measured where a method has a temperature and its program reports the model without it."""


def bins_of(study: StudyFolder, label: str | None = None) -> str:
    """The bins that ECE and OE of a label (of all labels) are measured in; more than one number where they differ."""
    frame = study.frame if label is None else study.frame[study.frame["label"] == label]
    return " or ".join(f"{int(bins)}" for bins in sorted(frame["bins"].dropna().unique()))


def curve_points(study: StudyFolder) -> pd.DataFrame:
    """The points of every curve: measure, label, labels, mean, interval, seeds."""
    from alkit.analysis.plots.curves import summarise

    parts = [summarise(study.frame, name).assign(measure=name) for name in MEASURES]
    columns = ["measure", "label", "labelled", "mean", "low", "high", "seeds"]
    return pd.concat(parts, ignore_index=True)[columns]


def times(study: StudyFolder) -> pd.DataFrame:
    """Mean wall time of a cycle and its parts, training, evaluation and query; and of a whole run."""
    names = ["train_seconds", "evaluate_seconds", "query_seconds"]
    rows = []
    for label in study.labels:
        part = study.frame[study.frame["label"] == label]
        queried = part[part["cycle"] < part.groupby("path")["cycle"].transform("max")]["query_seconds"]
        rows.append(
            {
                "label": label, "training": part["train_seconds"].mean(),
                "evaluation": part["evaluate_seconds"].mean(), "a query": queried.mean(),
                "a cycle": part[names].sum(axis=1).mean(),
                "a run": part.groupby("path")[names].sum().sum(axis=1).mean(),
                "devices": ", ".join(sorted(set(part["device"].astype(str)))),
            }
        )  # fmt: skip
    return pd.DataFrame(rows)


# --- how sure ---


def pairs(study: StudyFolder, measure: str) -> pd.DataFrame:
    """Every pair of labels that end at the same number of labels, by seed on `measure` (accuracy, …, or area).

    The baseline is always `b`; of any other pair `a` comes first in the study's order. Labels of one cycle, such as
    cold starts, have no area, but their accuracies are compared. In a study of quirks each switch (`a`) is tested
    against the same without it (`b`), and nothing else is.
    """
    runs = per_run(study)
    if measure == "area":
        runs = runs[runs["label"].isin(study.active)]
    if study.bases:
        present = set(runs["label"])
        chosen = [(label, base) for label, base in study.bases.items() if {label, base} <= present]
        table = statistics.pairwise_tests(runs, measure, pairs=chosen)
        last = runs.groupby("label")["labelled"].max()
        said = "(With the switch it ends at {:,} labels, without it at {:,}.)"
        return table.assign(ends=["" if last[a] == last[b] else said.format(last[a], last[b]) for a, b in chosen])
    order = [label for label in study.labels if label != BASELINE] + [BASELINE]
    parts = []
    for _, group in runs.groupby(["first", "labelled"], sort=False):
        if group["label"].nunique() > 1:
            group = group.sort_values("label", key=lambda column: column.map(order.index), kind="stable")
            parts.append(statistics.pairwise_tests(group, measure))
    if not parts:
        return statistics.pairwise_tests(runs.iloc[:0], measure)
    table = pd.concat(parts, ignore_index=True)
    table["p_holm"] = statistics.holm(table["p"].to_numpy(dtype=np.float64))
    return table


def to_draw(table: pd.DataFrame) -> pd.DataFrame:
    """`pairs` for a picture: with `shown` and the differences of the single seeds (`singles`)."""
    singles = pd.Series([list(test.differences) for test in table["test"]], index=table.index, dtype=object)
    return table.assign(shown=table["p_holm"].map(statistics.is_shown), singles=singles)


def against_baseline(table: pd.DataFrame) -> pd.DataFrame:
    """The lines of a forest: each label's difference to the baseline, the largest first."""
    beside = table[table["b"] == BASELINE]
    return beside.assign(name=beside["a"]).sort_values("difference", ascending=False, kind="stable")


TEST_FORMATS: dict[str, Format] = {
    "seeds": whole, "difference": fixed(2), "low": fixed(2), "high": fixed(2), "p": p_value, "p holm": p_value,
    "wilcoxon p": p_value, "effect": fixed(2), "effect low": fixed(2), "effect high": fixed(2),
    "4 in 5 find": fixed(2),
}  # fmt: skip


def in_points(table: pd.DataFrame) -> pd.DataFrame:
    """Tests as they are shown: differences of fractions in percentage points, and whether they are shown."""
    shown = table.drop(columns="test")
    for name in ("difference", "low", "high", "detectable"):
        shown[name] = 100 * shown[name].astype(float)
    shown.insert(6, "interval", [statistics.interval_name(n).removesuffix(" interval") for n in shown["n"]])
    words = ["" if pd.isna(p) else "shown" if statistics.is_shown(p) else "not shown" for p in shown["p_holm"]]
    shown.insert(7, "verdict", words)
    shown = shown.rename(columns={"n": "seeds", "detectable": "4 in 5 find"})
    return shown.rename(columns=lambda name: str(name).replace("_", " "))


MOST_SENTENCES = 8


def sentences(table: pd.DataFrame, most: int = MOST_SENTENCES) -> list[str]:
    """A sentence a pair, at most `most`: what is shown first, then pairs with the baseline, larger differences first.

    A last line says how many pairs are in the table only.
    """
    known = int(table["p"].notna().sum())
    unseen = ~table["p_holm"].map(statistics.is_shown).astype(bool)
    ordered = table.assign(unseen=unseen, other=table["b"] != BASELINE, size=-table["difference"].abs())
    ordered = ordered.sort_values(["unseen", "other", "size"], kind="stable")
    said = [in_words(row, known) for row in ordered.head(most).to_dict("records")]
    rest = len(table) - len(said)
    return [*said, f"{counted(rest, 'more pair')} {'is' if rest == 1 else 'are'} in the table."] if rest else said


def in_words(row: Mapping[Any, Any], comparisons: int) -> str:
    """The sentence of one row of `pairs`; of a switch that changes the labels bought, how many those are."""
    said = statistics.sentence(row["test"], str(row["a"]), str(row["b"]), row["p_holm"], comparisons)
    return f"{said} {row['ends']}" if row.get("ends") else said


def penalty(study: StudyFolder) -> pd.DataFrame:
    """The penalty matrix of the active labels."""
    frame = study.frame[study.frame["label"].isin(study.active)]
    order = frame["label"].map(study.labels.index)
    return statistics.penalty_matrix(frame.iloc[np.argsort(order.to_numpy(), kind="stable")])


def attribution_means(parts: pd.DataFrame) -> pd.DataFrame:
    """Means over seeds with intervals, in points, and both orders of attribution."""
    rows = []
    for (cycle, labelled), part in parts.groupby(["cycle", "labelled"]):
        row = {"cycle": cycle, "labels": labelled, "seeds": len(part)}
        for name, column in (("gap", "total"), ("training", "training_part"), ("selection", "selection_part")):
            low, high = statistics.mean_interval(part[column].to_numpy())
            row |= {name: 100 * part[column].mean(), f"{name} low": 100 * low, f"{name} high": 100 * high}
        for name in ("training", "selection"):
            row[f"{name}, if first"] = 100 * part[f"{name}_{name}_first"].mean()
        rows.append(row)
    return pd.DataFrame(rows)


def beside_published(study: StudyFolder) -> pd.DataFrame:
    """Every published number of the study's data set beside ours, in percent; those that we have too come first.

    `at` numbers the sources and what our runs differ in from each, as `published_protocols` lists them.
    """
    table = published.compare(study.frame, study.params, study.dataset, study.image_records)
    table = table.sort_values("seeds", key=lambda seeds: seeds == 0, kind="stable", ignore_index=True)
    table.insert(0, "at", table.groupby(["source", "label", "protocol", "note"], sort=False).ngroup() + 1)
    for name in ("published", "tolerance", "ours", "deviation", "difference", "reach"):
        table[name] = 100 * table[name].astype(float)
    return table


def _as_written(value: Any) -> str:
    return value if isinstance(value, str) else json.dumps(value)


def published_protocols(table: pd.DataFrame) -> pd.DataFrame:
    """The sources of `beside_published`, and in what each label's runs differ from them."""
    return (
        table[["at", "source", "label", "protocol", "note"]].drop_duplicates("at").sort_values("at", ignore_index=True)
    )


def _range(values: pd.Series) -> str:
    low, high = int(values.min()), int(values.max())
    return f"{low}" if low == high else f"{low} to {high}"


def _plain(value: Any) -> str:
    return "" if pd.isna(value) else str(value)
