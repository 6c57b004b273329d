"""A study as it lies on disk: its records, what is missing, and the arrays and images that pictures need."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alkit import records
from alkit.config import DATA_OPTIONS, Experiment, Study
from alkit.data import ImageSet, load_for
from alkit.data.identity import is_of, query_digest
from alkit.errors import AlkitError, CheckpointError, DataError
from alkit.errors.words import as_text, counted, listed
from alkit.storage.progress import find_studies

BASELINE = "random"


@dataclass(eq=False)
class StudyFolder:
    """The finished runs of one data set in a study's folder.

    `frame` is `records.load_runs` of that data set, without cycles that bought nothing (of an emptied pool), `state`
    is `records.completeness`. Tables go to `out_dir/tables`, figures to `out_dir/figures`.
    """

    path: Path
    out_dir: Path
    frame: pd.DataFrame
    state: pd.DataFrame
    problems: tuple[tuple[str, str], ...]
    left_out: list[str] = field(default_factory=list)
    data_root: str | None = None

    @cached_property
    def labels(self) -> list[str]:
        """Labels with a finished run, in the one order that legends, tables and tests have: see `ranked`."""
        return ranked(self.frame, [] if self.file is None else self.file.labels)

    @cached_property
    def file(self) -> Study | None:
        """The study file, if the folder has one that can be read."""
        try:
            return Study.from_yaml(self.path / "study.yaml", check=False)
        except AlkitError:
            return None

    @property
    def dataset(self) -> str:
        return str(self.frame["dataset"].iloc[0]) if len(self.frame) else ""

    @cached_property
    def methods(self) -> dict[str, str]:
        """{label: method}, in the order of `labels`."""
        known = dict(zip(self.frame["label"].astype(str), self.frame["method"].astype(str), strict=True))
        return {label: known[label] for label in self.labels}

    @cached_property
    def active(self) -> list[str]:
        """Labels of more than one cycle: those that have a curve."""
        cycles = self.frame.groupby("label")["cycle"].max()
        return [label for label in self.labels if cycles[label] > 1]

    @cached_property
    def choosing(self) -> list[str]:
        """Labels whose method chose images: after its first labels, or from no labels."""
        return [label for label in self.labels if label in self.active
                or (self.first_chosen(label) == 1 and self.methods[label] != "whole_dataset")]  # fmt: skip

    @cached_property
    def first_records(self) -> dict[str, dict[str, Any]]:
        """The record of each label's first run."""
        first = self.frame.drop_duplicates("label").set_index("label")["path"]
        return {label: records.read_run(first[label]) for label in self.labels}

    @property
    def params(self) -> dict[str, dict[str, Any]]:
        """The parameters of each label's first run."""
        return {label: record["params"] for label, record in self.first_records.items()}

    def first_chosen(self, label: str) -> int:
        """The first cycle whose labels the method chose: 1 where nothing had a label before, else 2."""
        return 2 if self.params[label].get("initial", 1) else 1

    @cached_property
    def image_records(self) -> dict[str, list[Mapping[str, Any] | None]]:
        """What the records of each label say of their images, each different one once."""
        found: dict[str, list[Mapping[str, Any] | None]] = {label: [] for label in self.labels}
        for label, path in self.frame.drop_duplicates(["label", "images"])[["label", "path"]].itertuples(index=False):
            found[str(label)].append(records.read_run(path).get("images"))
        return found

    @cached_property
    def switches(self) -> dict[str, tuple[str, str]]:
        """{label: (quirk, label without it)}, if the study is of quirks: at least half of its labels are such."""
        from alkit.analysis.quirk_effects import switched

        try:
            found = switched(self.first_records)
        except AlkitError:  # numbers without records, as in a notebook
            return {}
        return found if 2 * len(found) >= len(self.labels) else {}

    @property
    def bases(self) -> dict[str, str] | None:
        """{label: label without its switch} of a study of quirks; None of any other."""
        return {label: base for label, (_, base) in self.switches.items()} or None

    @cached_property
    def class_names(self) -> list[str]:
        """Class names of the first run's record."""
        if not len(self.frame):
            return []
        return [as_text(name) for name in records.read_run(self.frame["path"].iloc[0]).get("class_names", [])]

    def runs(self, label: str) -> list[tuple[int, str]]:
        """(seed, folder) of each finished run of `label` whose arrays are not damaged, by seed."""
        part = self.frame[self.frame["label"] == label].drop_duplicates("path").sort_values("seed")
        runs = zip(part["seed"].astype(int), part["path"].astype(str), strict=True)
        return [(seed, path) for seed, path in runs if path not in self.damaged]

    @cached_property
    def damaged(self) -> dict[str, str]:
        """{run's folder: what is wrong} where the arrays beside a record cannot be read, or are not those it is of."""
        runs = self.frame.groupby("path", sort=False)
        return {str(path): what for path, cycles in runs if (what := _unlike_record(Path(str(path)), cycles))}

    def predictions(
        self, label: str, names: Iterable[str] = ("confidence", "correct")
    ) -> Iterator[tuple[str, dict[str, Any]]]:
        """(folder, arrays `names`) of each finished run of `label` whose predictions are whole, one at a time."""
        for _, path in self.runs(label):
            try:
                arrays = records.read_predictions(path)
                yield path, {name: arrays[name] for name in names}
            except (AlkitError, KeyError):
                continue

    @cached_property
    def unbalanced_test(self) -> np.ndarray[Any, Any] | None:
        """Test images a class, where the commonest class has at least twice those of the rarest; else None."""
        for label in self.labels:
            for _, arrays in self.predictions(label, ["labels"]):
                counts = np.bincount(arrays["labels"], minlength=len(self.class_names))
                return counts if counts.max() >= 2 * counts.min() else None
        return None

    def queries(self, label: str) -> dict[int, dict[int, np.ndarray]]:
        """{seed: {cycle: indices bought}} of each of `runs(label)` that has its queries."""
        found = {}
        for seed, path in self.runs(label):
            try:
                found[seed] = records.read_queries(path)
            except AlkitError:
                continue
        return found

    @cached_property
    def images(self) -> ImageSet:
        """The training images of the first label's runs. Raises an `AlkitError` where they cannot be had."""
        if not self.labels:
            raise DataError("no finished run")
        params = self.params[self.labels[0]]
        chosen = {name: params[name] for name in ("dataset", "data_root", *DATA_OPTIONS) if name in params}
        if self.data_root is not None:
            chosen["data_root"] = self.data_root
        try:
            train, _ = load_for(Experiment(**chosen))
        except DataError as error:
            raise DataError(f"the images of {self.dataset} are not on this machine, or not whole; `alkit get` brings "
                            "named sets, `alkit summary --data-root FOLDER` names a folder") from error  # fmt: skip
        if not all(record is None or is_of(dict(record), train) for record in self.image_records[self.labels[0]]):
            raise DataError(f"{self.dataset}: the {len(train)} images found are not those of the runs")
        if len(train) < int(self.frame["pool_size"].iloc[0] or 0):
            raise DataError(f"{self.dataset}: {len(train)} images, fewer than the pool of the runs")
        return train

    @cached_property
    def same_images(self) -> list[str]:
        """Labels that chose images whose indices mean the same images as those of `images`."""
        if not self.labels:
            return []
        first = self.params[self.labels[0]]
        groups = records.image_groups(self.frame, "train_images")
        return [
            label
            for label in self.choosing
            if same_data(self.params[label], first) and groups[label] == groups[self.labels[0]]
        ]


def _unlike_record(run: Path, cycles: pd.DataFrame) -> str | None:
    """The array file of a run that cannot be read, or that its record does not follow from; none is no fault."""
    try:
        if (run / "queries.npz").exists():
            queries = records.read_queries(run)
            for cycle, known in zip(cycles["cycle"], cycles["query_sha256"], strict=True):
                if isinstance(known, str) and query_digest(queries.get(cycle, _NOTHING)) != known:
                    return f"{run / 'queries.npz'}: not what cycle {cycle} of its record bought"
        if (run / "predictions.npz").exists():
            correct = records.read_predictions(run)["correct"]
            for cycle, accuracy in zip(cycles["cycle"], cycles["accuracy"], strict=True):
                if cycle > len(correct) or correct[cycle - 1].sum() != round(accuracy * correct.shape[1]):
                    return f"{run / 'predictions.npz'}: not of the accuracy that cycle {cycle} of its record has"
    except CheckpointError as error:
        return str(error)
    return None


_NOTHING = np.zeros(0, dtype=np.int64)


def ranked(frame: pd.DataFrame, order: list[str]) -> list[str]:
    """The labels of `frame`, the highest mean final accuracy first; of equal ones as in `order`, then by name.

    The one order of the methods of a study, in every legend, table and list of tests.
    """
    last = frame.loc[frame.groupby("path")["cycle"].idxmax()] if len(frame) else frame
    means = last.groupby("label")["accuracy"].mean()
    place = {label: number for number, label in enumerate(order)}
    return sorted(means.index, key=lambda label: (-means[label], place.get(label, len(place)), label))


def same_data(one: dict[str, Any], other: dict[str, Any]) -> bool:
    """Whether two runs' parameters ask for the same images and labels."""
    return all(one.get(name) == other.get(name) for name in ("dataset", *DATA_OPTIONS))


def open_study(study_dir: str | Path, out_dir: str | Path | None = None, data_root: str | None = None) -> StudyFolder:
    """Read the study folder `study_dir`; tables and figures go to `out_dir` (the study folder itself by default).

    Of a study over several data sets the one with most runs is summarised; `left_out` names the others. Raises
    `CheckpointError` if there is no such folder, or if it is one of several studies.
    """
    path = Path(study_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", records.RecordWarning)
        frame = records.load_runs(path)
        state = records.completeness(path, frame)
        problems = frame.attrs.pop("problems")
    studies = find_studies(path)
    if len(studies) > 1 and path not in studies:
        named = listed([str(study) for study in studies])
        raise CheckpointError(f"{path}: holds {len(studies)} studies; name one: {named}")
    runs = frame.drop_duplicates("path")["dataset"].value_counts()
    others = [f"{name} ({counted(int(count), 'run')})" for name, count in runs.iloc[1:].items()]
    if len(runs):
        frame = frame[frame["dataset"] == runs.index[0]].drop_duplicates(
            ["path", "labelled"], keep="last", ignore_index=True
        )
    study = StudyFolder(path, path if out_dir is None else Path(out_dir), frame, state, problems, others, data_root)
    place = {label: number for number, label in enumerate(study.labels)}
    study.frame = frame.sort_values("label", key=lambda column: column.map(place), kind="stable", ignore_index=True)
    return study
