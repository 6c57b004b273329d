"""What each quirk changes: runs of a study that differ in one switch alone, compared seed by seed.

python -m alkit.analysis.quirk_effects outputs/quirks      also writes the effects into the register's file
"""

from __future__ import annotations

import json
import sys
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from alkit.analysis.plots import comparisons
from alkit.errors.words import counted
from alkit.quirks import EFFECTS_FILE, QUIRKS, Effect, in_words, measured_effects
from alkit.records import compared_params, load_runs, read_run
from alkit.statistics import area_under_budget_curve, holm, is_shown, paired_test
from alkit.storage.files import write_text

MEASURES = {"accuracy": "final accuracy", "area": "area under the budget curve", "ece": "final ECE"}
_NOT_COMPARED = {"label", "protocol", "program", "quirks"}
"""Beside the parameters of the machine: what a switch is set by, and what changes no number."""


def register_table() -> pd.DataFrame:
    """The register, a row a quirk."""
    rows = [
        {
            "quirk": quirk.id,
            "seen in": ", ".join(quirk.programs),
            "place": quirk.place,
            "released behaviour": quirk.released,
            "corrected behaviour": quirk.corrected,
            "acts on": quirk.parameter,
            "applies to": quirk.applies_to,
            "how it is known": quirk.established,
            "measured effect on accuracy": "; ".join(
                in_words(effect) for effect in quirk.effects if effect.measure == "accuracy"
            )
            or "not measured",
        }
        for quirk in QUIRKS.values()
    ]
    return pd.DataFrame(rows).set_index("quirk")


# --- measuring -------------------------------------------------------------------------------------------------------


def run_values(study: str | Path) -> pd.DataFrame:
    """One row a finished run of the study's folder: what it was (`compared`, `on`) and the measures `MEASURES`.

    `compared` is the text of every parameter that two runs must share to be compared, `on` the set of quirks switched
    on. A run of one cycle, such as a cold start, has no curve and no area (NaN). Raises `CheckpointError` if there is
    no such folder.
    """
    frame = load_runs(study)
    ends = frame.drop_duplicates("path", keep="last")
    settings: Any = [setting(read_run(path)) for path in ends["path"]]
    # of cycles that bought nothing (an emptied pool) the last counts, as in a summary
    curves = frame.drop_duplicates(["path", "labelled"], keep="last").groupby("path", sort=False)[
        ["labelled", "accuracy"]
    ]
    return ends[["study", "dataset", "method", "label", "seed", "labelled", "accuracy", "ece"]].assign(
        compared=[compared for compared, _ in settings],
        on=[on for _, on in settings],
        area=[area_under_budget_curve(*curve.to_numpy(dtype=np.float64).T) if len(curve) > 1 else np.nan
              for _, curve in curves],
    )  # fmt: skip


def setting(record: Mapping[str, Any]) -> tuple[str, frozenset[str]]:
    """What two runs must have in common to be compared, as text, and the switches that are on."""
    shared = {key: value for key, value in compared_params(record["params"]).items() if key not in _NOT_COMPARED}
    return json.dumps(shared, sort_keys=True), frozenset(n for n, on in (record.get("quirks") or {}).items() if on)


def switched(records: Mapping[str, Mapping[str, Any]]) -> dict[str, tuple[str, str]]:
    """{label: (switch, base)} of each label that differs from another, its base, in one switch being on and in no more.

    `records` has a record of each label, all of one study and data set.
    """
    bases: dict[tuple[object, ...], str] = {}
    found: dict[str, tuple[str, str]] = {}
    for label, record in records.items():
        bases.setdefault((record["method"], *setting(record)), label)
    for label, record in records.items():
        compared, on = setting(record)
        for quirk in QUIRKS:
            base = bases.get((record["method"], compared, on - {quirk})) if quirk in on else None
            if base is not None:
                found[label] = (quirk, base)
                break
    return found


def pairs(values: pd.DataFrame) -> list[tuple[str, pd.DataFrame, pd.DataFrame]]:
    """(quirk, runs without, runs with) wherever two labels of `values` differ in that quirk and in nothing else."""
    found = []
    for _, group in values.groupby(["study", "dataset", "method", "compared"], sort=False):
        by_state: Any = group.groupby("on", sort=False)
        states: dict[frozenset[str], pd.DataFrame] = {on: part.drop_duplicates("seed") for on, part in by_state}
        for on, released in states.items():
            found += [
                (quirk, states[on - {quirk}], released)
                for quirk in QUIRKS
                if quirk in on and on - {quirk} in states
            ]  # fmt: skip
    order = list(QUIRKS)
    return sorted(found, key=lambda pair: order.index(pair[0]))


def effects(study: str | Path) -> pd.DataFrame:
    """What each quirk changes in the study's folder: a row a quirk, method and measure.

    Released minus corrected, paired by seed: `difference`, `low`, `high` (Student's 95% interval; of two seeds
    their range), `p`, `seeds`, `labels` (of the last cycle, without and with the quirk) and the `differences` of the
    single seeds.
    """
    rows = []
    for quirk, without, with_it in pairs(run_values(study)):
        first = with_it.iloc[0]
        labels = f"{without['labelled'].iloc[0]} / {first['labelled']}"
        for measure in MEASURES:
            a, b = (part.set_index("seed")[measure].dropna() for part in (with_it, without))
            test = paired_test(a, b)
            if not test.n:
                continue
            rows.append(
                {
                    "quirk": quirk, "study": first["study"], "dataset": first["dataset"], "method": first["method"],
                    "measure": measure, "seeds": test.n, "difference": test.mean_difference,
                    "low": test.interval[0], "high": test.interval[1], "p": test.p, "labels": labels,
                    "differences": list(test.differences),
                }
            )  # fmt: skip
    columns = [field.name for field in fields(Effect)]
    return pd.DataFrame(rows, columns=[*columns, "p", "differences"])


def why_nothing(study: str | Path) -> str:
    """Why `effects` found nothing to compare in the study's folder."""
    runs = run_values(study)
    if not len(runs):
        return "no finished run is there, so there is nothing to compare"
    return f"of {counted(len(runs), 'finished run')} no two with the same seed differ in one switch and in nothing else"


def forest(table: pd.DataFrame) -> Figure:
    """A forest plot of `effects`: a panel a measure, a line a quirk and method, the largest rise of accuracy first."""
    table = table.assign(
        name=table["quirk"] + " · " + table["method"], singles=table["differences"], n=table["seeds"],
        shown=table.groupby("measure")["p"].transform(lambda p: holm(p.to_numpy(dtype=np.float64))).map(is_shown),
    )  # fmt: skip
    parts = dict(iter(table.groupby("measure", sort=False)))
    order = parts.get("accuracy", table).sort_values("difference", ascending=False, kind="stable")["name"]
    place = {name: number for number, name in enumerate(dict.fromkeys([*order, *table["name"]]))}
    panels = [
        (title, parts.get(measure, table.iloc[:0]).sort_values("name", key=lambda names: names.map(place)))
        for measure, title in MEASURES.items()
    ]
    return comparisons.forest(panels, note="released − corrected; shown: after Holm's correction, a measure at a time")


# --- the register's file ---------------------------------------------------------------------------------------------


def keep(table: pd.DataFrame, path: Path = EFFECTS_FILE) -> list[Effect]:
    """Write the `effects` of a study into the register's file, in the place of what was measured there before."""
    names = [field.name for field in fields(Effect)]
    new = [Effect(**row) for row in table[names].to_dict("records")]  # type: ignore[arg-type]
    replaced = {(e.quirk, e.dataset, e.method) for e in new}
    old = [e for e in measured_effects(path) if (e.quirk, e.dataset, e.method) not in replaced]
    order = list(QUIRKS)
    rows = sorted(old + new, key=lambda e: (order.index(e.quirk), e.dataset, e.method))
    written = pd.DataFrame(rows, columns=names).to_csv(index=False, float_format="%.6g", na_rep="nan")
    write_text(path, written)
    return rows


if __name__ == "__main__":
    print(f"{counted(len(keep(effects(sys.argv[1]))), 'effect')} in {EFFECTS_FILE}")
