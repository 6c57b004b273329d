"""Reading what runs left on disk: many `result.json` files as one DataFrame, and which runs of a study are missing.

A record that is broken, half written or foreign is named and left out; it never stops the others from being read.
Nothing here unpickles anything.
"""

from __future__ import annotations

import hashlib
import json
import math
import os
import re
import stat
import time
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alkit.config import FREE_PARAMETERS, Experiment, Study
from alkit.errors import AlkitError, CheckpointError
from alkit.errors.words import counted
from alkit.methods import METHODS
from alkit.storage.progress import find_runs, image_digests, is_alive, one_line, read_mapping, seconds

SCHEMA = 1
RUN_COLUMNS = ("dataset", "method", "label", "seed", "protocol", "pool_size", "started", "finished")
CYCLE_COLUMNS = ("cycle", "labelled", "accuracy", "nll", "brier", "ece", "gap", "oe", "ace", "bins", "train_loss",
                 "ece_with_temperature", "oe_with_temperature", "temperature", "reveals_within_cycle", "query_sha256",
                 "class_counts")  # fmt: skip
SECONDS = ("train", "evaluate", "query")
ENVIRONMENT = ("python", "torch", "device", "threads", "precision", "git_commit", "alkit")
COLUMNS = (
    "study",
    *RUN_COLUMNS,
    *CYCLE_COLUMNS,
    *(f"{name}_seconds" for name in SECONDS),
    *ENVIRONMENT,
    "train_images",
    "test_images",
    "images",
    "params_sha256",
    "path",
)
MEASURES = ("accuracy", "nll", "brier", "ece", "gap", "oe", "ace")
"""What a cycle measures on the test images; `gap` is mean confidence less accuracy, and `bins` are those of the ECE."""

OF_THE_MACHINE = ("seed", "threads", *sorted(FREE_PARAMETERS))
"""Parameters in which runs that are alike may differ; `compared_params` leaves them out."""

RETIRED = ("compile",)
"""Parameters of older versions that never changed a number; `read_run` leaves them out."""

_SEED_FOLDER = re.compile(r"seed-(\d+)")


class RecordWarning(UserWarning):
    """Some records could not be read; `frame.attrs["problems"]` names them."""


def load_runs(folder: str | Path) -> pd.DataFrame:
    """All finished runs below `folder` (of outputs, of a study or of one run), one row a run and cycle.

    Columns: `COLUMNS`; `study` is the name of the study's folder, or where it lies below `folder` if two there have
    the same name; accuracy and errors are fractions, times seconds. `path` is the run's folder,
    `train_images` and `test_images` are the digests of its pool and test images and `images` is both of them (None in
    older records, of which they are not known), `params_sha256` that of `compared_params`. What could
    not be read is in `.attrs["problems"]`, a tuple of (path, reason), and announced by a `RecordWarning`.
    Raises `CheckpointError` if there is no such folder.
    """
    root = Path(folder)
    if not root.is_dir():
        raise CheckpointError(f"{root}: no such folder")
    rows: list[tuple[Any, ...]] = []
    problems: list[tuple[str, str]] = []
    seen: dict[tuple[Path, str, int], str] = {}
    for path in find_runs(root, "result.json"):
        try:
            record = read_run(path)
            study = _study_of(path, record)
            key = (study, record["label"], record["seed"])
            if key in seen:
                raise CheckpointError(f"{path}: the same run (label {key[1]}, seed {key[2]}) as {seen[key]}")
            rows += _rows(record, str(study), path)
            seen[key] = str(path)
        except CheckpointError as error:
            problems.append((str(path), str(error).removeprefix(f"{path}: ").removeprefix(f"{path / 'result.json'}: ")))
    frame = pd.DataFrame.from_records(rows, columns=list(COLUMNS))
    frame["study"] = frame["study"].map(_told_apart({study for study, _, _ in seen}, root.absolute()))
    for name in (*MEASURES, "temperature", "train_loss", *(f"{name}_seconds" for name in SECONDS)):
        frame[name] = frame[name].astype(float)
    frame = frame.sort_values(["study", "label", "seed", "cycle"], kind="stable", ignore_index=True)
    frame.attrs["problems"] = tuple(problems)
    if problems:
        first = f"{problems[0][0]}: {problems[0][1]}"
        warnings.warn(f"{counted(len(problems), 'record')} left out, the first: {first}", RecordWarning, stacklevel=2)
    return frame


def read_run(path: str | Path) -> dict[str, Any]:
    """The record of one run, from its folder or its `result.json`. Raises `CheckpointError` if it is not whole."""
    path = Path(path)
    file = path if path.suffix == ".json" else path / "result.json"
    record: dict[str, Any] = _read_json(file)
    _check_record(record, file)
    for name in RETIRED:
        record["params"].pop(name, None)
    return record


def read_arrays(path: str | Path) -> dict[str, np.ndarray]:
    """The arrays of an npz file, never unpickling; `CheckpointError` of one line if it is broken."""
    try:
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files}
    except FileNotFoundError:
        raise CheckpointError(f"{path}: no such file") from None
    except Exception as error:  # a damaged header makes zipfile and its decompressors raise what they like
        raise CheckpointError(f"{path}: not a whole npz of plain arrays ({type(error).__name__})") from None


def read_predictions(run: str | Path) -> dict[str, np.ndarray]:
    """`predictions.npz` of a run's folder: `confidence`, `correct`, … (cycles, n), `labels` (n,), `logits_last`.

    The logits (n, C) are those of the last cycle, less the largest of their row."""
    path = Path(run) / "predictions.npz"
    arrays = read_arrays(path)
    for name in ("confidence", "correct"):
        if name not in arrays or arrays[name].ndim != 2 or arrays[name].shape != arrays["confidence"].shape:
            raise CheckpointError(f"{path}: expected '{name}' with a row a cycle and a column an image")
    if arrays["confidence"].dtype == np.uint16:
        arrays["confidence"] = (arrays["confidence"] / _STEPS).astype(np.float32)
        _restore_log_probs(arrays)
    return arrays


def in_steps(predictions: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The arrays of `predictions.npz` in a third of their size, without logits; `read_predictions` reads both.

    Confidences are whole steps of 1/65535, and what is below 1 stays below it: a quirk leaves out what is 1. The
    log-probability of the true class is kept, in float16, of the wrong predictions alone: of a correct one it is that
    of its confidence. Arrays that are so already stay as they are.
    """
    if "log_prob_wrong" in predictions:
        return predictions
    rest = {name: values for name, values in predictions.items() if name not in ("logits_last", "log_prob_true")}
    confidence = predictions["confidence"]
    steps = np.minimum(np.rint(confidence.astype(np.float64) * _STEPS), _STEPS - (confidence < 1)).astype(np.uint16)
    wrong = predictions["log_prob_true"][~predictions["correct"].astype(bool)].astype(np.float16)
    return rest | {"confidence": steps, "log_prob_wrong": wrong}


def _restore_log_probs(arrays: dict[str, np.ndarray]) -> None:
    if "log_prob_wrong" in arrays:
        found = np.log(np.maximum(arrays["confidence"], 0.5 / _STEPS))
        found[~arrays["correct"].astype(bool)] = arrays.pop("log_prob_wrong")
        arrays["log_prob_true"] = found


_STEPS = 65535


def read_queries(run: str | Path) -> dict[int, np.ndarray]:
    """What each cycle bought, {cycle: dataset indices in the order bought}, from `queries.npz` of a run's folder."""
    path = Path(run) / "queries.npz"
    found = {
        int(name[6:]): values.astype(np.int64)
        for name, values in read_arrays(path).items()
        if re.fullmatch(r"query_\d+", name) and values.ndim == 1 and values.dtype.kind in "iu"
    }
    if not found:
        raise CheckpointError(f"{path}: expected arrays query_1, query_2, … of indices")
    return dict(sorted(found.items()))


def image_groups(frame: pd.DataFrame, column: str = "images") -> dict[str, list[str | None]]:
    """The different images that the runs of each label had, {label: digests} in the order of `frame`.

    `column` is `images`, `train_images` or `test_images` of `load_runs`. None stands for runs of older versions, of
    which it is not known: they are equal to nothing.
    """
    runs = frame.drop_duplicates("path").groupby("label", sort=False)[column]
    return {str(label): [None if pd.isna(each) else str(each) for each in part.unique()] for label, part in runs}


# --- completeness ---


def completeness(folder: str | Path, frame: pd.DataFrame | None = None) -> pd.DataFrame:
    """The runs that a study folder should hold and what became of each.

    One row a run: `label`, `seed`, `state` (finished, running, failed or missing), `cycle` of `cycles`, `reason` (empty
    for a finished run) and `path`. Expected are the labels × seeds of the folder's `study.yaml`, and every folder
    that a run has begun in. `frame` is what `load_runs` gave, if it was called already.
    """
    root = Path(folder)
    if frame is None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RecordWarning)
            frame = load_runs(root)
    finished = frame.groupby("path")["cycle"].max().to_dict()
    broken = dict(frame.attrs.get("problems", ()))
    rows = []
    for (label, seed), path in sorted(_expected(root).items()):
        if str(path) in finished:
            cycle = int(finished[str(path)])
            row = {"state": "finished", "cycle": cycle, "cycles": cycle, "reason": ""}
        elif str(path) in broken:
            row = {"state": "failed", "reason": f"its record is left out: {broken[str(path)]}"}
        else:
            row = _unfinished(path)
        rows.append({"label": label, "seed": seed, "path": str(path)} | row)
    columns = ["label", "seed", "state", "cycle", "cycles", "reason", "path"]
    table = pd.DataFrame.from_records(rows, columns=columns)
    return table.astype({"cycle": "Int64", "cycles": "Int64"})


def _expected(root: Path) -> dict[tuple[str, int], Path]:
    """(label, seed) of every run that should be, or has begun to be, in a study folder, and the run's folder."""
    found = {}
    if (root / "study.yaml").exists():
        try:
            study = Study.from_yaml(root / "study.yaml", check=False)
            found = {(l, s): root / l / f"seed-{s}" for l in study.labels for s in study.seeds}  # noqa: E741
        except AlkitError as error:
            warnings.warn(f"expected runs are not known: {error}", RecordWarning, stacklevel=3)
    for path in find_runs(root, "run.yaml", "result.json", "progress.json", "failure.json", "checkpoint.pt"):
        seed = _SEED_FOLDER.fullmatch(path.name)
        if seed and path.parent.parent == root:
            found.setdefault((path.parent.name, int(seed[1])), path)
    return found


def _unfinished(path: Path) -> dict[str, Any]:
    """State and reason of a run without a readable record."""
    progress, failure = read_mapping(path / "progress.json"), read_mapping(path / "failure.json")
    row: dict[str, Any] = {key: progress[key] for key in ("cycle", "cycles") if _count(progress.get(key))}
    updated = seconds(progress.get("updated"))
    if failure and (seconds(failure.get("time")) or math.inf) >= updated - 1:  # one without a time is not to be lost
        cell = f" (cell {failure['cell']})" if failure.get("cell") not in (None, "") else ""
        error = one_line(str(failure.get("error") or "no message was left"))
        return row | {"state": "failed", "reason": f"{error}{one_line(cell)}"}
    if progress:
        if is_alive(progress, time.time()):
            return row | {"state": "running", "reason": one_line(str(progress.get("state", "running")))}
        since = time.strftime("%Y-%m-%d %H:%M", time.localtime(updated)) if updated else "an unknown time"
        return row | {"state": "failed", "reason": f"stopped: no sign of life since {since}; started again, it goes on"}
    if (path / "run.ipynb").exists():
        return row | {"state": "failed", "reason": "began and left no record; see run.ipynb"}
    return row | {"state": "missing", "reason": "not started"}


# --- one record ---


def _check_record(record: Any, file: Path) -> None:
    """Refuse a record that is not one of this kit's, naming what is wrong with it."""

    def refuse(what: str) -> CheckpointError:
        return CheckpointError(f"{file}: not a record of alkit ({what})")

    if not isinstance(record, dict) or "schema" not in record:
        raise refuse("no schema")
    if record["schema"] != SCHEMA:
        raise refuse(f"schema {record['schema']!r}, this version reads {SCHEMA}")
    for key in ("dataset", "method", "label", "protocol"):
        if not isinstance(record.get(key), str):
            raise refuse(f"'{key}' is missing or not text")
    if not _count(record.get("seed")):
        raise refuse("'seed' is missing or not a whole number")
    for key in ("params", "environment"):
        if not isinstance(record.setdefault(key, {}), dict):
            raise refuse(f"'{key}' is not a mapping")
    if not isinstance(record.get("quirks") or {}, dict):
        raise refuse("'quirks' is not a mapping")
    cycles = record.get("cycles")
    if not isinstance(cycles, list) or not cycles or not all(isinstance(cycle, dict) for cycle in cycles):
        raise refuse("no cycles")
    wanted, row = record["params"].get("cycles"), METHODS.get(record["method"])
    if row is not None and _count(wanted) and len(cycles) != (1 if row.single_cycle else wanted):
        raise refuse(f"{counted(len(cycles), 'cycle')}, not {wanted}")
    for number, cycle in enumerate(cycles, 1):
        accuracy, labelled = _number(cycle.get("accuracy")), cycle.get("labelled")
        if type(cycle.get("cycle")) is not int or cycle["cycle"] != number:
            raise refuse(f"cycle {number} is missing")
        if not 0 <= accuracy <= 1:
            raise refuse(f"accuracy of cycle {number} is not a fraction")
        if not labelled or not _count(labelled):
            raise refuse(f"labelled of cycle {number} is not a count")


def _rows(record: dict[str, Any], study: str, path: Path) -> Iterator[tuple[Any, ...]]:
    """The rows of one record, in the order of `COLUMNS`."""
    run = [study, *(record.get(name) for name in RUN_COLUMNS)]
    environment = [record["environment"].get(name) for name in ENVIRONMENT]
    params = compared_params(record["params"])
    digest = hashlib.sha256(json.dumps(params, sort_keys=True).encode()).hexdigest()
    splits = image_digests(record.get("images"))
    images = (*splits, "/".join(splits)) if splits else (None, None, None)
    for cycle in record["cycles"]:
        seconds = cycle.get("seconds") if isinstance(cycle.get("seconds"), dict) else {}
        values = [_number(cycle.get(n)) if n in _NUMBERS else cycle.get(n) for n in CYCLE_COLUMNS]
        times = [_number(seconds.get(name)) for name in SECONDS]
        yield (*run, *values, *times, *environment, *images, digest, str(path))


_NUMBERS = {*MEASURES, "train_loss", "temperature", "ece_with_temperature", "oe_with_temperature"}


@cache
def defaults() -> dict[str, Any]:
    """Every parameter of an `Experiment` at its default, as records have them."""
    return Experiment.model_validate({}).model_dump(mode="json")


def compared_params(params: dict[str, Any]) -> dict[str, Any]:
    """The parameters of a record in which runs that are averaged must be alike.

    Without those of the machine, and without those at their default, which older records do not have. Losses of the
    pretext task that a study computed are a file a seed, so of them only that counts.
    """
    usual = defaults()
    kept = {
        name: value
        for name, value in params.items()
        if name not in OF_THE_MACHINE and not (name in usual and usual[name] == value)
    }
    losses = params.get("pretext_losses")
    own = rf"{re.escape(str(params.get('pretext')))}-seed-{params.get('seed')}-[0-9a-f]{{8}}"
    if isinstance(losses, str) and re.fullmatch(own, Path(losses).stem):
        kept["pretext_losses"] = "computed"
    return kept


def _told_apart(studies: Iterable[Path], root: Path) -> dict[str, str]:
    """What each study's folder is called: its name, or where it lies below `root` if another has the same name."""
    names = Counter(study.name for study in studies)
    return {str(study): study.name if names[study.name] == 1 else os.path.relpath(study, root) for study in studies}


def _study_of(path: Path, record: dict[str, Any]) -> Path:
    """The folder of a run's study; refuses a record whose folder STUDY/LABEL/seed-N is another run's."""
    path = path.absolute()
    folder = _SEED_FOLDER.fullmatch(path.name)
    if not folder:
        return path.parent
    if (int(folder[1]), path.parent.name) != (record["seed"], record["label"]):
        raise CheckpointError(
            f"{path}: the record is of label {record['label']}, seed {record['seed']}, not of its folder's run"
        )
    return path.parent.parent


def _read_json(file: Path) -> Any:
    try:
        if not stat.S_ISREG(file.stat().st_mode):
            raise CheckpointError(f"{file}: not a file")
        return json.loads(file.read_bytes())
    except FileNotFoundError:
        raise CheckpointError(f"{file}: no such file") from None
    except (ValueError, RecursionError) as error:
        raise CheckpointError(f"{file}: does not parse as JSON ({type(error).__name__})") from None
    except OSError as error:
        raise CheckpointError(f"{file}: cannot be read ({error.strerror})") from None


def _count(value: Any) -> bool:
    """Whether this is a whole number from 0 that arrays can hold."""
    return type(value) is int and 0 <= value < 2**63


def _number(value: Any) -> float:
    """A number of a record; NaN for what is none."""
    try:
        return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else math.nan
    except OverflowError:  # a whole number of hundreds of digits
        return math.nan
