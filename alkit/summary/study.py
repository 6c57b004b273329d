"""A study as it lies on disk: its records, what is missing, and the arrays and images that pictures need."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterable
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from alkit import records
from alkit.config import DATA_OPTIONS, Experiment, Study
from alkit.data import ImageSet, load_for
from alkit.errors import AlkitError, CheckpointError, DataError

BASELINE = "random"
SEEDS_IN_PICTURES = 3
"""Reliability diagrams and queries are shown for the first seeds only; tables and curves are of all."""


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
        """Labels with a finished run, in the study file's order, then by name."""
        found = list(dict.fromkeys(self.frame["label"]))
        return [label for label in self.order if label in found] + [label for label in found if label not in self.order]

    @cached_property
    def order(self) -> list[str]:
        return [] if self.file is None else self.file.labels

    @cached_property
    def file(self) -> Study | None:
        """The study file, if the folder has one that can be read."""
        try:
            return Study.from_yaml(self.path / "study.yaml")
        except AlkitError:
            return None

    @property
    def title(self) -> str:
        return (self.file.title if self.file else None) or self.path.name

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
        """Labels of more than one cycle: those that select anything."""
        cycles = self.frame.groupby("label")["cycle"].max()
        return [label for label in self.labels if cycles[label] > 1]

    @cached_property
    def params(self) -> dict[str, dict[str, Any]]:
        """The parameters of each label's first run."""
        first = self.frame.drop_duplicates("label").set_index("label")["path"]
        return {label: records.read_run(first[label])["params"] for label in self.labels}

    @cached_property
    def class_names(self) -> list[str]:
        """Class names of the first run's record."""
        if not len(self.frame):
            return []
        return [str(name) for name in records.read_run(self.frame["path"].iloc[0]).get("class_names", [])]

    def runs(self, label: str) -> list[tuple[int, Path]]:
        """(seed, folder) of the first finished runs of `label`."""
        part = self.frame[self.frame["label"] == label].drop_duplicates("path").sort_values("seed")
        return [(int(s), Path(p)) for s, p in zip(part["seed"], part["path"], strict=True)][:SEEDS_IN_PICTURES]

    def predictions(self, label: str, names: Iterable[str] = ("confidence", "correct")) -> list[dict[str, Any]]:
        """The arrays `names` of each of `runs(label)` whose predictions can be read."""
        found = []
        for _, path in self.runs(label):
            try:
                arrays = records.read_predictions(path)
                found.append({name: arrays[name] for name in names})
            except (AlkitError, KeyError):
                continue
        return found

    def queries(self, label: str) -> dict[int, dict[int, np.ndarray]]:
        """{seed: {cycle: indices bought}} of each of `runs(label)` whose queries can be read."""
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
        train, _ = load_for(Experiment(**chosen))
        if len(train) < int(self.frame["pool_size"].iloc[0] or 0):
            raise DataError(f"{self.dataset}: {len(train)} images, fewer than the pool of the runs")
        return train

    @cached_property
    def same_images(self) -> list[str]:
        """Active labels whose indices mean the same images as those of `images`."""
        if not self.labels:
            return []
        first = self.params[self.labels[0]]
        return [label for label in self.active if _data(self.params[label]) == _data(first)]


def _data(params: dict[str, Any]) -> str:
    return json.dumps({name: params.get(name) for name in ("dataset", *DATA_OPTIONS)}, sort_keys=True)


def open_study(study_dir: str | Path, out_dir: str | Path | None = None, data_root: str | None = None) -> StudyFolder:
    """Read the study folder `study_dir`; tables and figures go to `out_dir` (the study folder itself by default).

    Of a study over several data sets the one with most runs is summarised; `left_out` names the others. Raises
    `CheckpointError` if there is no such folder, or if it is one of several studies.
    """
    path = Path(study_dir)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", records.RecordWarning)
        frame = records.load_runs(path)
        problems = frame.attrs.pop("problems")
        whole = frame.copy()
        whole.attrs["problems"] = problems
        state = records.completeness(path, whole)
    studies = sorted(frame["study"].unique())
    if len(studies) > 1 and not (path / "study.yaml").exists():
        raise CheckpointError(f"{path}: holds {len(studies)} studies, {', '.join(studies)}; name the folder of one")
    runs = frame.drop_duplicates("path")["dataset"].value_counts()
    others = [f"{name} ({count} runs)" for name, count in runs.iloc[1:].items()]
    if len(runs):
        frame = frame[frame["dataset"] == runs.index[0]].drop_duplicates(["path", "labelled"], ignore_index=True)
    study = StudyFolder(path, path if out_dir is None else Path(out_dir), frame, state, problems, others, data_root)
    place = {label: number for number, label in enumerate(study.labels)}
    study.frame = frame.sort_values("label", key=lambda column: column.map(place), kind="stable", ignore_index=True)
    return study
