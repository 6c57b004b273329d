"""What was published, with its source, and whether ours was run as theirs: only then is there a verdict.

`published.csv` holds the facts: source, data set, method, labels (or the cycle, where a source counts those), accuracy
in percent, whether it was read from text or from a plot, and how far that reading can be off (percentage points).
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from importlib.resources import files
from typing import Any

import numpy as np
import pandas as pd
from scipy import stats

from alkit.data.registry import DATASETS
from alkit.methods import METHODS
from alkit.quirks import quirk_states
from alkit.records import OF_THE_MACHINE, defaults

_SGD = {"optimizer": "sgd", "lr": 0.1, "batch_size": 128, "epochs": 200, "milestones": [160], "weight_decay": 5e-4}
_WHOLE = {"image_size": None, "pool_size": None, "test_size": None, "label_noise": 0.0}
_RESNET = {"model": "resnet18", "width": 64, "stem": "cifar"}
_RELEASED = {"protocol": "released", "program": "OO4AL"}
_CIFAR = _SGD | _WHOLE | _RESNET | _RELEASED | {"initial": 1000, "budget": 1000, "subset": 10_000}
_PT4AL = _CIFAR | {"subset": None, "cycles": 10, "program": "PT4AL"}  # a batch is what it chooses from
_IMAGENET = _CIFAR | {
    "initial": 128_120, "budget": 64_060, "subset": 640_600, "epochs": 100, "batch_size": 256,
    "milestones": [30, 60, 90], "weight_decay": 1e-4, "stem": "imagenet", "image_size": 224,
}  # fmt: skip

PROTOCOLS: dict[tuple[str, str], dict[str, Any]] = {
    ("OO4AL", "cifar10"): _CIFAR,
    ("OO4AL", "cifar100"): _CIFAR,
    ("OO4AL", "cifar10_step"): _CIFAR | {"initial": 100, "budget": 100, "subset": 1000},
    ("OO4AL", "imagenet"): _IMAGENET,
    ("PT4AL, paper", "cifar10"): _PT4AL,
    ("PT4AL repository, issue 11 (authors", "cifar10"): _PT4AL,
    ("Sequential-GCN", "cifar10"): _CIFAR | {"milestones": [160, 240], "program": "Sequential GCN"},
}
"""What each source's program sets, by the beginning of its name and the data set. Other sources do not say.

What is not named here is at the kit's default, which is the papers' own value."""

ARMS: dict[str, frozenset[str]] = {
    "OO4AL": frozenset({
        "random", "mixup", "cmam", "oo4al", "ranked_margin", "margin", "entropy", "cmam_input", "ll4al",
        "coreset", "uncertain_gcn", "ta_vaal", "hierarchical", "temperature_scaling", "sbias",
    }),
    "PT4AL": frozenset({"random", "pt4al", "pt4al_cold_start", "whole_dataset"}),
    "Sequential GCN": frozenset({"random", "uncertain_gcn", "core_gcn", "coreset", "ll4al", "vaal"}),
    "TA-VAAL": frozenset({"random", "uncertain_gcn", "core_gcn", "ll4al", "ta_vaal"}),
}  # fmt: skip
"""The methods that a released program can run, read in it: one that is only named there, without code, is none."""

_QUIRKS = {"protocol", "program", "quirks"}
_FREE = {
    *OF_THE_MACHINE,
    *_QUIRKS,
    "dataset",
    "method",
    "label",
    "cycles",
    "dataset_seed",
    "calibration_bins",
}
"""Not compared: the accuracy after a cycle does not depend on them (PT4AL's does on `cycles`, and names it), or, as for
the quirks, they are compared by what they come to."""

FEW_SEEDS = "none: under 3 seeds"
"""The verdict of a number that was run as published by so few seeds that their interval would let nearly all agree."""

COLUMNS = ("method", "label", "labelled", "published", "tolerance", "read_from", "ours", "deviation", "seeds",
           "difference", "reach", "protocol", "verdict", "source", "note")  # fmt: skip


def load() -> pd.DataFrame:
    """The published numbers: `source`, `dataset`, `method`, `labelled` (NaN where only the cycle is given), `cycle`,
    `accuracy` and `tolerance` as fractions, `read_from`, `note`."""
    with (files("alkit.analysis") / "published.csv").open(encoding="utf-8") as stream:
        table = pd.read_csv(stream, dtype={"labelled": str, "note": str}, keep_default_na=False)
    cycles = table["labelled"].str.removeprefix("cycle ")
    table["cycle"] = pd.to_numeric(cycles.where(table["labelled"].str.startswith("cycle ")), errors="coerce")
    table["labelled"] = pd.to_numeric(table["labelled"], errors="coerce")
    table["accuracy"] = table.pop("accuracy_percent") / 100
    table["tolerance"] = table["tolerance"] / 100
    return table


def protocol_of(source: str, dataset: str, method: str) -> dict[str, Any] | None:
    """The parameters that a published number was made with; None where its source does not say."""
    for (beginning, name), protocol in PROTOCOLS.items():
        if source.startswith(beginning) and name == dataset:
            if method == "sbias":  # another program, whose settings in that figure are not stated
                return None
            return {key: value for key, value in protocol.items() if key != "cycles" or method.startswith("pt4al")}
    return None


def missing_arm(params: Mapping[str, Any], protocol: Mapping[str, Any] | None) -> str | None:
    """In words, that the program a run stands for, or that of a published number, never had the run's method."""
    method = str(params.get("method"))
    for setting in (params, protocol or {}):
        program = setting.get("program")
        if setting.get("protocol") == "released" and program in ARMS and method not in ARMS[program]:
            return f"the program {program} never had {method}"
    return None


def differences(params: Mapping[str, Any], protocol: Mapping[str, Any] | None) -> list[str]:
    """In what a run's parameters are not the protocol's: `width 16, theirs 64`, one text each; empty if they match."""
    if protocol is None:
        return ["their settings are not published"]
    if (missing := missing_arm(params, protocol)) is not None:
        return [missing]
    usual = {name: value for name, value in defaults().items() if name in params and name not in _FREE}
    theirs = usual | dict(protocol)
    found = [
        f"{name} {_show(params.get(name))}, theirs {_show(value)}"
        for name, value in theirs.items()
        if name not in _QUIRKS and params.get(name) != value
    ]
    ours, seen = _quirks(params, params), _quirks(protocol, params)
    return found + [f"quirk {name} {_show(ours[name])}, theirs {_show(seen[name])}" for name in ours
                    if ours[name] != seen[name]]  # fmt: skip


def _quirks(setting: Mapping[str, Any], params: Mapping[str, Any]) -> dict[str, bool]:
    """The states under `setting` of the quirks that change the accuracy of the method and data set of `params`."""
    method = METHODS.get(str(params.get("method")), METHODS["random"])
    states = quirk_states(setting.get("protocol", "corrected"), setting.get("quirks") or {}, method,
                          str(params.get("dataset")), setting.get("program"))  # fmt: skip
    return {name: on for name, on in states.items() if name != "ece_drops_full_confidence"}


def other_images(dataset: str, images: Iterable[Mapping[str, Any] | None]) -> list[str]:
    """In words, that runs had other images than the published ones of `dataset`; empty if they had these.

    `images` are what the runs' records say of theirs (None: of a version that kept nothing). They are known by the
    SHA-256 of their pixels; of a data set that the kit knows none of, nothing is said.
    """
    entry = DATASETS.get(dataset)
    if entry is None or not entry.sha256:
        return []
    wanted = {"train": (entry.pool_sha256 or entry.sha256["training"]).pixels, "test": entry.sha256["test"].pixels}
    for record in images:
        parts = (record or {}).get("parts") or {}
        if not parts:
            return ["images not recorded, theirs the published ones"]
        if {split: (parts.get(split) or {}).get("pixels") for split in wanted} != wanted:
            return ["other images than the published ones"]
    return []


def compare(
    frame: pd.DataFrame,
    params: Mapping[str, Mapping[str, Any]],
    dataset: str,
    images: Mapping[str, list[Mapping[str, Any] | None]] | None = None,
) -> pd.DataFrame:
    """Every published number of `dataset` beside ours: columns `COLUMNS`, accuracies as fractions.

    `reach` is how far ours may be off and still agree: the error of reading, and half of our mean's 95% interval.
    How much theirs varies is not in it, so with enough seeds two means that only chance sets apart can differ.

    `frame` is what `records.load_runs` gave, `params` the parameters of each label in it. A published cell is compared
    with every label of its method at the same number of labels (or cycle), and stands alone where there is none.
    `images` are what the records of each label say of their images; None: they are not looked at.
    """
    known = load()
    rows = []
    for cell in known[known["dataset"] == dataset].itertuples(index=False):
        runs = frame[(frame["method"] == cell.method) & (frame["dataset"] == dataset)]
        rows += [_compared(cell, label, runs[runs["label"] == label], params.get(label, {}),
                           other_images(dataset, (images or {}).get(label, []))) for label in
                 dict.fromkeys(runs["label"])] or [_row(cell, verdict="not run here")]  # fmt: skip
    return pd.DataFrame.from_records(rows, columns=list(COLUMNS))


def _row(cell: Any, **more: Any) -> dict[str, Any]:
    labelled = f"cycle {cell.cycle:.0f}" if math.isnan(cell.labelled) else f"{cell.labelled:.0f}"
    empty = {"label": "", "ours": math.nan, "deviation": math.nan, "seeds": 0, "difference": math.nan,
             "reach": math.nan, "protocol": ""}  # fmt: skip
    return {
        "method": cell.method, "labelled": labelled, "published": cell.accuracy, "tolerance": cell.tolerance,
        "read_from": cell.read_from, "source": cell.source, "note": cell.note, **empty, **more,
    }  # fmt: skip


def _compared(
    cell: Any, label: str, runs: pd.DataFrame, params: Mapping[str, Any], images: list[str]
) -> dict[str, Any]:
    column, value = ("cycle", cell.cycle) if math.isnan(cell.labelled) else ("labelled", cell.labelled)
    ours = runs.loc[runs[column] == value, "accuracy"].to_numpy(dtype=np.float64)
    theirs = protocol_of(cell.source, cell.dataset, cell.method)
    other, missing = differences(params, theirs) or images, missing_arm(params, theirs)
    protocol = "; ".join(other) or "the same"
    if not len(ours):
        return _row(cell, label=label, protocol=protocol, verdict=f"ours has no model at {column} {value:.0f}")
    mean, n = float(ours.mean()), len(ours)
    deviation = float(ours.std(ddof=1)) if n > 1 else math.nan
    gap, reach = mean - cell.accuracy, math.nan
    if missing:
        verdict = f"none: {missing}"
    elif other:
        verdict = "none: the protocols differ"
    elif n < 3:
        verdict = FEW_SEEDS
    else:
        reach = cell.tolerance + float(stats.t.ppf(0.975, n - 1)) * deviation / math.sqrt(n)
        allowed = f"within ±{100 * reach:.1f} points"
        verdict = f"agrees {allowed}" if abs(gap) <= reach else f"differs by {100 * gap:+.1f} points, not {allowed}"
    return _row(cell, label=label, ours=mean, deviation=deviation, seeds=n, difference=gap, reach=reach,
                protocol=protocol, verdict=verdict)  # fmt: skip


def how_many_agree(table: pd.DataFrame) -> tuple[int, int, str]:
    """Of `compare`'s rows that have a verdict: how many agree, how many there are, and, in words, how far off they are.

    `the farthest is 2.1 points off (±1.1 to ±2.4 allowed)`; no words where there are none.
    """
    said = table[table["verdict"].str.startswith(("agrees", "differs"))]
    if not len(said):
        return 0, 0, ""
    low, high = (f"±{100 * end:.1f}" for end in (said["reach"].min(), said["reach"].max()))
    allowed = low if low == high else f"{low} to {high}"
    agree = int(said["verdict"].str.startswith("agrees").sum())
    return (
        agree,
        len(said),
        f"the farthest is {100 * said['difference'].abs().max():.1f} points off ({allowed} allowed)",
    )


def _show(value: Any) -> str:
    return "none" if value is None else ("off", "on")[value] if isinstance(value, bool) else str(value)
