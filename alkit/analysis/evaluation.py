"""Evaluation of checkpoints: accuracy and calibration a cycle over seeds, the published accuracy beside them.

Understands OO4AL's released files, `jobs/DATASET/InitX_SY_BZ/Seed-N/active_MODEL_DATASET_cycleC.pth`, and
those a run of this kit keeps, `LABEL/seed-N/models/active_MODEL_DATASET_cycleC.pth`. One of the latter is evaluated as
its run did it, by the `result.json` beside it; of any other the weights' shapes tell the network.
"""

from __future__ import annotations

import json
import math
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
import torch

from alkit.analysis import published
from alkit.config import DATA_OPTIONS, ECE_BINS, Experiment
from alkit.data import ImageSet, digest, load_for
from alkit.data.registry import get_entry
from alkit.errors import CheckpointError, ConfigError, DivergedError, TrainingError, nearest
from alkit.errors.words import counted
from alkit.methods import METHODS
from alkit.models import Network, build_backbone
from alkit.records import MEASURES, read_run
from alkit.storage.checkpoint_files import CheckpointFile, find_checkpoints
from alkit.storage.files import atomic_write
from alkit.storage.progress import image_digests
from alkit.storage.weights import architecture_of, fit_weights, read_weights
from alkit.training import devices
from alkit.training.evaluate import evaluate_cycle
from alkit.training.loop import to_device

Array = npt.NDArray[Any]

OE_UNITS = {"cifar10": 1e-3, "cifar100": 1e-2, "cifar10_step": 1e-2, "imagenet": 1e-4}
"""OO4AL's paper gives OE in these units."""

PARAMETERS = (*DATA_OPTIONS, "protocol", "quirks", "calibration_bins", "eval_batch_size", "precision", "device",
              "method")  # fmt: skip
"""The parameters of `Experiment` that an evaluation takes; `method` says whose published numbers to compare with."""

_FULL, _CORNER = "ece_drops_full_confidence", "imagenet_corner_pool"


@dataclass(frozen=True)
class Evaluation:
    """What `evaluate` found: `frame`, a row a checkpoint, and `predictions` (confidence, correct), each (n,), by its
    label, seed and cycle. `notes` are what a reader of the numbers must know."""

    dataset: str
    frame: pd.DataFrame
    predictions: dict[tuple[str, int | None, int | None], tuple[Array, Array]]
    notes: list[str]

    def joined(self, label: str, cycle: int | None) -> tuple[Array, Array]:
        """Confidence and correctness (seeds × n,) of a label's cycle over the test images of all its seeds."""
        found = [arrays for (name, _, number), arrays in self.predictions.items() if (name, number) == (label, cycle)]
        return np.concatenate([pair[0] for pair in found]), np.concatenate([pair[1] for pair in found])

    @property
    def table(self) -> pd.DataFrame:
        """A row a label and cycle: see `summarise`."""
        return summarise(self.frame, self.dataset)


@dataclass(frozen=True)
class _Source:
    """A checkpoint with what is known of it before it is evaluated; `known` are the parameters it was made with."""

    file: CheckpointFile
    experiment: Experiment
    method: str | None
    known: dict[str, Any] = field(default_factory=dict)
    labelled: int | None = None
    temperature: float = 1.0
    images: str | None = None  # the digest of the test images that its run had, where those are asked for


def evaluate(
    pattern: str | Path,
    dataset: str,
    data_root: str | Path | None = None,
    parameters: Mapping[str, Any] | None = None,
    progress: Callable[[int, int, dict[str, Any]], None] | None = None,
) -> Evaluation:
    """Evaluate the checkpoints that `pattern` names on the test images of `dataset`.

    `pattern` is a glob, or has `{seed}` and `{cycle}` in their places. `parameters` are those of `PARAMETERS`.
    `progress` is called after every checkpoint with how many are done, how many there are, and its row.

    Every file is read and checked before the first is evaluated. Raises `CheckpointError` for one that is not weights
    or does not fit, `ConfigError` for a parameter that does not exist, `DataError` for images that are not there.
    """
    given = _checked(dataset, data_root, parameters or {})
    sources = [_source(file, dataset, given) for file in find_checkpoints(pattern)]
    device = devices.choose_device(given.get("device", "auto"))
    images = _Images(device)
    for source in sources:
        _refuse_other_images(source, images(source.experiment))
        _network(source, images(source.experiment))
    rows, predictions = [], {}
    with devices.deterministic():
        for number, source in enumerate(sources, 1):
            row, arrays = _evaluate(source, images(source.experiment), device)
            rows.append(row)
            predictions[row["label"], row["seed"], row["cycle"]] = arrays
            if progress is not None:
                progress(number, len(sources), row)
    frame = pd.DataFrame(rows).astype({"seed": "Int64", "cycle": "Int64", "labelled": "Int64"})
    return Evaluation(dataset, frame, predictions, _notes(frame, dataset, sources))


def _checked(dataset: str, data_root: str | Path | None, parameters: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters given, refused where they are not an evaluation's, or impossible."""
    for key in parameters:
        if key not in PARAMETERS:
            hint = nearest(key, PARAMETERS) or f"; expected one of {', '.join(PARAMETERS)}"
            raise ConfigError(f"{key}: not a parameter of an evaluation{hint}")
    get_entry(dataset)
    given = dict(parameters) | ({} if data_root is None else {"data_root": str(data_root)})
    Experiment(dataset=dataset, **given)
    return given


# --- what a checkpoint is ---


def _source(file: CheckpointFile, dataset: str, given: dict[str, Any]) -> _Source:
    folder = file.path.parent.parent
    if file.path.parent.name == "models" and (folder / "result.json").exists():
        return _kept(file, read_run(folder), dataset, given)
    return _released(file, dataset, given)


def _kept(file: CheckpointFile, record: dict[str, Any], dataset: str, given: dict[str, Any]) -> _Source:
    """A checkpoint that a finished run kept."""
    if record["dataset"] != dataset:
        raise CheckpointError(
            f"{file.path}: of a run on '{record['dataset']}', not '{dataset}' "
            "(a copy outside the run's folder can be evaluated on any images)"
        )
    cycle = next((cycle for cycle in record["cycles"] if cycle["cycle"] == file.cycle), None)
    if cycle is None:
        raise CheckpointError(f"{file.path}: the run's result.json has no cycle {file.cycle}")
    try:
        before = Experiment(**record["params"])
    except ConfigError as error:
        raise CheckpointError(f"{file.path.parent.parent / 'result.json'}: {error}") from None
    # the quirks that shaped the network stay what they were; what is asked for now is how to measure
    quirks = dict(before.quirk_states)
    if "protocol" in given:
        quirks[_FULL] = given["protocol"] == "released"
        given = {"calibration_bins": ECE_BINS[given["protocol"]]} | given
    quirks |= given.get("quirks", {})
    now = {key: value for key, value in given.items() if key != "method"} | {"quirks": quirks}
    experiment = Experiment(**(record["params"] | {"device": "auto"} | now | {"protocol": before.protocol}))
    method = given.get("method", before.method)
    # under ts_fit_on_train the published measures are those of the model without its temperature
    temperature = 1.0 if experiment.quirk("ts_fit_on_train") else cycle.get("temperature") or 1.0
    file = replace(file, seed=int(record["seed"])) if file.seed is None else file
    digests = None if {"data_root", *DATA_OPTIONS} & given.keys() else image_digests(record.get("images"))
    return _Source(file, experiment, method, experiment.model_dump(), int(cycle["labelled"]), float(temperature),
                   digests and digests[1])  # fmt: skip


def _refuse_other_images(source: _Source, test: ImageSet) -> None:
    """Refuse to measure a run on test images that have changed since, unless others are asked for."""
    if source.images not in (None, digest(test)):
        raise CheckpointError(
            f"{source.file.path}: its run was tested on other images of '{test.name}' than the {len(test)} there are "
            "now; `--data-root DIR` measures it on those of DIR, whatever they are"
        )


def _released(file: CheckpointFile, dataset: str, given: dict[str, Any]) -> _Source:
    """A checkpoint of which nothing is known but its path and its weights."""
    found = architecture_of(read_weights(file.path), file.path)
    network = {key: found[key] for key in ("model", "width", "stem")}
    asked = {key: value for key, value in given.items() if key != "method"}
    if file.layout and dataset == "imagenet":  # so were these trained, whatever is measured now
        asked["quirks"] = {_CORNER: True} | asked.get("quirks", {})
    experiment = Experiment(dataset=dataset, **(network | asked))
    resized = {key: given[key] for key in ("image_size", "test_size") if key in given}
    known = network | file.layout | resized
    method = given.get("method") or (file.label if file.label in METHODS else "oo4al" if file.layout else None)
    return _Source(file, experiment, method, known, file.labelled)


class _Images:
    """The test images of an experiment, each set loaded once."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._sets: dict[str, ImageSet] = {}

    def __call__(self, experiment: Experiment) -> ImageSet:
        key = json.dumps([experiment.data_root, experiment.data_options(), experiment.quirk("bgr_images"),
                          experiment.quirk("imbalance_step"), experiment.features, experiment.on_features])  # fmt: skip
        if key not in self._sets:
            test = load_for(experiment)[1]
            digest(test)  # before it goes to the device
            self._sets[key] = (test.on_features() if experiment.on_features else test).to(self.device)
        return self._sets[key]


def _network(source: _Source, test: ImageSet) -> Network:
    """The checkpoint's network, on the CPU; `CheckpointError` where it does not fit the images."""
    path, weights = source.file.path, read_weights(source.file.path)
    last = weights.get("linear.weight")
    if last is not None and last.ndim == 2 and len(last) != test.num_classes:
        raise CheckpointError(f"{path}: has {len(last)} classes, the data set '{test.name}' {test.num_classes}")
    first = weights.get("conv1.weight")
    if first is not None and first.ndim == 4 and first.shape[1] != test.shape[0]:
        raise CheckpointError(
            f"{path}: for images of {first.shape[1]} channels, those of '{test.name}' have {test.shape[0]}"
        )
    with torch.device("meta"):
        backbone = build_backbone(source.experiment, test.shape, test.num_classes)
    fit_weights(backbone, weights, path)
    return Network(backbone)


def _evaluate(source: _Source, test: ImageSet, device: torch.device) -> tuple[dict[str, Any], tuple[Array, Array]]:
    network, file = _network(source, test), source.file
    to_device(network, device)
    try:
        measures, arrays = evaluate_cycle(source.experiment, network, test, file.cycle or 0, source.temperature)
    except DivergedError:  # finite weights can still overflow
        raise CheckpointError(f"{file.path}: its outputs are not numbers") from None
    except TrainingError as error:
        raise TrainingError(f"{file.path}: {error}") from None
    row = {"label": file.label, "method": source.method, "seed": file.seed, "cycle": file.cycle,
           "labelled": source.labelled, **measures, "images": len(test), "file": str(file.path)}  # fmt: skip
    return row, (arrays["confidence"].numpy(), arrays["correct"].numpy())


# --- the table ---


def summarise(frame: pd.DataFrame, dataset: str) -> pd.DataFrame:
    """A row a label and cycle: `labelled`, `seeds`, each measure's mean and `_deviation` over seeds (sample standard
    deviation, NaN for one seed), `oe_scaled` in `oe_unit` (the paper's), and `published` with its `source`.

    Measures are fractions; `frame` is that of an `Evaluation`.
    """
    rows = []
    unit = OE_UNITS.get(dataset, math.nan)
    for (label, cycle), part in frame.groupby(["label", "cycle"], sort=False, dropna=False):
        labelled = part["labelled"].unique()
        row: dict[str, Any] = {"label": label, "cycle": cycle, "seeds": len(part)}
        row["labelled"] = labelled[0] if len(labelled) == 1 else pd.NA  # a pool that ran dry early
        for measure in MEASURES:
            row[measure] = float(part[measure].mean())
            row[f"{measure}_deviation"] = float(part[measure].std(ddof=1))
        row |= {"oe_unit": unit, "oe_scaled": row["oe"] / unit, "oe_scaled_deviation": row["oe_deviation"] / unit}
        value, source = _published(part["method"].iloc[0], dataset, row["labelled"])
        rows.append(row | {"published": value, "source": source})
    return pd.DataFrame(rows).astype({"cycle": "Int64", "labelled": "Int64"})


_known_numbers = cache(published.load)


def _published(method: Any, dataset: str, labelled: Any) -> tuple[float, str | None]:
    """The published accuracy of a method at this many labels, OO4AL's where it has one, and its source."""
    if method is None or pd.isna(labelled):
        return math.nan, None
    known = _known_numbers()
    cells = known[(known["method"] == method) & (known["dataset"] == dataset) & (known["labelled"] == labelled)]
    cells = cells.sort_values("source", key=lambda names: ~names.str.startswith("OO4AL"), kind="stable")
    return (float(cells["accuracy"].iloc[0]), str(cells["source"].iloc[0])) if len(cells) else (math.nan, None)


def _notes(frame: pd.DataFrame, dataset: str, sources: list[_Source]) -> list[str]:
    """What a reader must know of the numbers."""
    images = " or ".join(f"{number:,}" for number in sorted(set(frame["images"])))
    notes = [f"{dataset}: {counted(len(frame), 'checkpoint')}, {images} test images."]
    notes.append("gap is mean confidence less accuracy: above 0 overconfident, below 0 underconfident.")
    if (summarise(frame, dataset)["seeds"] > 1).any():
        notes.append("± is the sample standard deviation over seeds.")
    sources = list({source.file.label: source for source in reversed(sources)}.values())[::-1]  # the first of each
    ways: dict[tuple[int, bool], list[str]] = {}
    for source in sources:
        way = source.experiment.ece_bins, source.experiment.quirk(_FULL)
        ways.setdefault(way, []).append(source.file.label)
    for (bins, dropped), labels in ways.items():
        whose = f"{', '.join(labels)}: " * (len(ways) > 1)
        last, out = "belongs to the last bin", "is left out, as in OO4AL's program"
        how = f"{out} (protocol corrected: it {last})" if dropped else f"{last} (protocol released: it {out})"
        notes.append(f"{whose}ECE and OE in {counted(bins, 'bin')}; a confidence of exactly 1 {how}.")
    if any(s.experiment.quirk(_CORNER) for s in sources):
        notes.append(f"The last map is pooled at its corner, as these were trained (quirk {_CORNER}).")
    if frame["labelled"].isna().any():
        notes.append("The number of labels is not known where the path does not tell (InitX_SY_BZ).")
    for source in sources:
        cells = summarise(frame[frame["label"] == source.file.label], dataset).dropna(subset=["source"])
        for name in cells["source"].unique():
            theirs = published.protocol_of(name, dataset, str(source.method)) or {}
            known = {key: value for key, value in theirs.items() if key in source.known}
            other = "; ".join(published.differences(source.known, known))
            notes.append(
                f"{source.file.label}: published is {source.method} in {name}. "
                + (f"Not the same settings: {other}." if other else "No difference of settings is known.")
            )
    return notes


def shown(evaluation: Evaluation) -> pd.DataFrame:
    """The table as text for readers: percentages, ± the deviation where there is one, OE also in the paper's unit."""
    table, unit = evaluation.table, OE_UNITS.get(evaluation.dataset)
    cells: list[dict[str, str]] = []
    for row in table.to_dict("records"):
        cell = {"label": str(row["label"])} if table["label"].nunique() > 1 else {}
        for name, key in (("cycle", "cycle"), ("labels", "labelled"), ("seeds", "seeds")):
            cell[name] = "–" if pd.isna(row[key]) else f"{row[key]:,}"
        cell |= {"accuracy, %": _pair(row, "accuracy", 2, 100), "OE": _pair(row, "oe", 5)}
        if unit is not None:
            cell[f"OE, 1e-{-round(math.log10(unit))}"] = _pair(row, "oe_scaled", 2)
        cell |= {"ECE": _pair(row, "ece", 4), "gap": _pair(row, "gap", 4, sign="+"), "NLL": _pair(row, "nll", 4)}
        if table["published"].notna().any():
            cell["published, %"] = "–" if pd.isna(row["published"]) else f"{100 * row['published']:.1f}"
        cells.append(cell)
    return pd.DataFrame(cells)


def as_text(evaluation: Evaluation) -> str:
    """The table and its notes for a terminal."""
    from alkit.errors.words import aligned

    table = shown(evaluation)
    rows = [list(table.columns), *table.to_numpy().tolist()]
    right = range(int("label" in table), len(table.columns))
    return aligned(rows, right=right) + "\n\n" + "\n".join(evaluation.notes)


def _pair(row: Mapping[Any, Any], measure: str, digits: int, factor: float = 1, sign: str = "") -> str:
    mean, deviation = factor * row[measure], factor * row[f"{measure}_deviation"]
    return f"{mean:{sign}.{digits}f}" + ("" if math.isnan(deviation) else f" ± {deviation:.{digits}f}")


# --- the command ---


def main(
    pattern: str, dataset: str, data_root: str | None, out: Path | None, parameters: Mapping[str, Any] | None = None
) -> int:
    """`alkit evaluate`: the table on standard output, how far it is on standard error; `out` gets it as CSV."""
    if out is not None and (out.is_dir() or any(parent.is_file() for parent in out.parents)):
        raise ConfigError(f"out: {out}: not a file that can be written")
    evaluation = evaluate(
        pattern,
        dataset,
        data_root,
        parameters,
        lambda *state: print(progress_line(*state), file=sys.stderr, flush=True),
    )
    print(as_text(evaluation))
    if out is not None:
        with atomic_write(out) as stream:
            evaluation.table.to_csv(stream, index=False)
    return 0


def progress_line(done: int, total: int, row: Mapping[str, Any]) -> str:
    """How far an evaluation is, and what the last checkpoint gave."""
    where = "".join(f", {key} {row[key]}" for key in ("seed", "cycle") if row[key] is not None)
    return f"{done}/{total}: {row['label']}{where}: accuracy {row['accuracy']:.2%}"
