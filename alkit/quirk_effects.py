"""What each quirk changes: runs of a study that differ in one switch alone, compared seed by seed.

python -m alkit.quirk_effects outputs/quirks      also writes the effects into the register's file
"""

from __future__ import annotations

import csv
import io
import json
import sys
from collections.abc import Mapping
from dataclasses import asdict, fields
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from alkit.files import write_text
from alkit.plots.style import figure, in_style, plain
from alkit.quirks import EFFECTS_FILE, QUIRKS, Effect, in_words, measured_effects
from alkit.records import compared_params, load_runs, read_run
from alkit.statistics import area_under_budget_curve, paired_test
from alkit.words import counted

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
            "measured effect on accuracy": "; ".join(map(in_words, _of("accuracy", quirk.effects))) or "not measured",
        }
        for quirk in QUIRKS.values()
    ]
    return pd.DataFrame(rows).set_index("quirk")


def _of(measure: str, effects: list[Effect]) -> list[Effect]:
    return [effect for effect in effects if effect.measure == measure]


# --- measuring -------------------------------------------------------------------------------------------------------


def run_values(study: str | Path) -> pd.DataFrame:
    """One row a finished run of the study's folder: what it was (`compared`, `on`) and the measures `MEASURES`.

    `compared` is the text of every parameter that two runs must share to be compared, `on` the set of quirks switched
    on. A run of one cycle, such as a cold start, has no curve and no area (NaN). Raises `CheckpointError` if there is
    no such folder.
    """
    frame = load_runs(study)
    rows = []
    for path, cycles in frame.groupby("path", sort=False):
        record, last = read_run(str(path)), cycles.iloc[-1]
        shared = {key: value for key, value in compared_params(record["params"]).items() if key not in _NOT_COMPARED}
        curve = cycles.drop_duplicates("labelled")  # of cycles that bought nothing (an emptied pool) the first is kept
        rows.append(
            {
                "study": last["study"], "dataset": last["dataset"], "method": last["method"], "label": last["label"],
                "seed": int(last["seed"]), "labelled": int(last["labelled"]),
                "compared": json.dumps(shared, sort_keys=True),
                "on": frozenset(name for name, state in record.get("quirks", {}).items() if state),
                "accuracy": float(last["accuracy"]), "ece": float(last["ece"]),
                "area": area_under_budget_curve(curve["labelled"].tolist(), curve["accuracy"].tolist())
                if len(curve) > 1 else np.nan,
            }
        )  # fmt: skip
    columns = ["study", "dataset", "method", "label", "seed", "labelled", "compared", "on", *MEASURES]
    return pd.DataFrame(rows, columns=columns)


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
                    "differences": [float(a[seed] - b[seed]) for seed in test.seeds],
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
    """A forest plot of `effects`: a panel a measure, a line a quirk and method; points are single seeds."""
    lines = list(dict.fromkeys(zip(table["quirk"], table["method"], strict=True)))
    fig, axes = figure(1, len(MEASURES), width=10.5, height=1.6 + 0.42 * max(len(lines), 1), sharey=True)
    with in_style():
        for axis, (measure, title) in zip(axes[0], MEASURES.items(), strict=True):
            axis.axvline(0, color="black", linewidth=1)
            for row in table[table["measure"] == measure].to_dict("records"):
                _draw_line(axis, lines.index((row["quirk"], row["method"])), row)
            axis.set(title=title, xlabel="released − corrected, points", ylim=(len(lines) - 0.4, -0.6))
        axes[0, 0].set_yticks(range(len(lines)), [plain(f"{quirk} · {method}") for quirk, method in lines])
        fig.supxlabel("squares: mean over seeds with Student's 95% interval; dots: single seeds", fontsize=9)
    return fig


def _draw_line(axis: Any, place: int, row: Mapping[Any, Any]) -> None:
    single = 100 * np.asarray(row["differences"])
    axis.plot(single, np.full(len(single), place + 0.22), ".", color="#8c8c8c", markersize=5)
    if np.isfinite(row["low"]):
        axis.plot([100 * row["low"], 100 * row["high"]], [place, place], color="#0072B2", linewidth=2)
    axis.plot(100 * row["difference"], place, "s", color="#0072B2", markersize=6)


# --- the register's file ---------------------------------------------------------------------------------------------


def keep(table: pd.DataFrame, path: Path = EFFECTS_FILE) -> list[Effect]:
    """Write the `effects` of a study into the register's file, in the place of what was measured there before."""
    names = [field.name for field in fields(Effect)]
    new = [Effect(**row) for row in table[names].to_dict("records")]  # type: ignore[arg-type]
    replaced = {(e.quirk, e.dataset, e.method) for e in new}
    old = [e for e in measured_effects(path) if (e.quirk, e.dataset, e.method) not in replaced]
    order = list(QUIRKS)
    rows = sorted(old + new, key=lambda e: (order.index(e.quirk), e.dataset, e.method))

    text = io.StringIO()
    writer = csv.DictWriter(text, names, lineterminator="\n")
    writer.writeheader()
    for effect in rows:
        writer.writerow({k: f"{v:.6g}" if isinstance(v, float) else v for k, v in asdict(effect).items()})
    write_text(path, text.getvalue())
    return rows


if __name__ == "__main__":
    print(f"{counted(len(keep(effects(sys.argv[1]))), 'effect')} in {EFFECTS_FILE}")
