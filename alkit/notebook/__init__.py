"""What the method notebooks call: their parameters become an Experiment, a run becomes pictures.

Comes in: a notebook's names. Goes out: a run, its pictures, and (`teaching`) examples of a rule. It knows no study.

A notebook says `begin(globals())` before its parameters cell and `experiment(globals(), method=…)` after it. Every
name defined in between, by the notebook or by papermill, is a parameter, so a misspelt one is refused, not ignored.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterable
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pandas as pd

from alkit.config import Experiment, Study
from alkit.config.pretext import pretext_key
from alkit.data import ImageSet, load_for, own_experiment
from alkit.data.cache import statistics_of
from alkit.errors import ConfigError
from alkit.errors.words import counted
from alkit.learner import ActiveLearner
from alkit.storage.loss_files import PretextLosses
from alkit.storage.paths import named
from alkit.training.pretext.run import run_pretext, with_pretext

_NAMES = "_alkit_names"
_PARAMETERS = "_alkit_parameters"
DRIVE = Path("/content/drive")
_NOT_OF_THE_RUN = {"out_dir", "outputs_dir", *Study.own_keys()}


def begin(namespace: dict[str, Any]) -> None:
    """Remember the names that are there before the parameters. Running the cell again changes nothing."""
    namespace.setdefault(_NAMES, set(namespace) | {_NAMES, _PARAMETERS})


def parameters(namespace: dict[str, Any]) -> dict[str, Any]:
    """The names defined since `begin`, less IPython's own; asked again, the same names with their present values."""
    if _NAMES not in namespace:
        raise ConfigError("parameters: run the notebook's set-up cell first")
    known = namespace.get(_PARAMETERS)
    if known is None:
        known = {name for name in namespace if name not in namespace[_NAMES] and not name.startswith("_")}
        namespace[_PARAMETERS] = known
    fields = {name for name in Experiment.model_fields if name in namespace and name not in namespace[_NAMES]}
    return {name: namespace[name] for name in sorted(known | fields) if name in namespace}


def experiment(namespace: dict[str, Any], method: str | None = None, own: Iterable[str] = ()) -> Experiment:
    """The Experiment of a method's notebook, or (`method` None) of the parameter `method`; `own` are parameters of the
    notebook itself.

    Raises `ConfigError` for a parameter that does not exist or fit.
    """
    found = {k: v for k, v in parameters(namespace).items() if k not in _NOT_OF_THE_RUN.union(own)}
    asked = found.pop("method", method)
    if method is not None and asked != method:
        raise ConfigError(f"method: this is the notebook of '{method}', not of '{asked}'")
    return Experiment(method=asked, **found)


def images(namespace: dict[str, Any], dataset: str) -> tuple[ImageSet, ImageSet]:
    """The training and test images of a data set's notebook, with the augmentation they are trained with.

    Every parameter of an Experiment is taken, so that a study's file can be given. Raises `ConfigError` for a
    parameter that does not exist or fit, `DataError` for files that are missing or broken.
    """
    found = {k: v for k, v in parameters(namespace).items() if k not in _NOT_OF_THE_RUN}
    asked = found.pop("dataset", dataset)
    if asked != dataset:
        raise ConfigError(f"dataset: this is the notebook of '{dataset}', not of '{asked}'")
    wanted = Experiment(dataset=dataset, **found)
    train, test = load_for(wanted)
    if wanted.augmentation != "auto":
        train = replace(train, augmentation=wanted.augmentation)
    channels, height, width = train.shape
    print(f"{len(train):,} training and {len(test):,} test images of {width}×{height} pixels, "
          f"{'grey' if channels == 1 else f'{channels} channels'}, {train.num_classes:,} classes")  # fmt: skip
    for name, value in train.notes.items():
        if name not in ("class_counts", "class_counts_before"):
            print(f"{name}: {value}")
    return train, test


def channel_table(train: ImageSet, most: int = 20_000) -> pd.DataFrame:
    """Channel statistics used and those of the training images (at most `most` of them, evenly spaced), a row each."""
    names = ["red", "green", "blue"] if len(train.mean) == 3 else ["grey"]
    found = statistics_of(train, most)
    rows = {}
    for what, used, recomputed in zip(("mean", "deviation"), (train.mean, train.std), found, strict=True):
        for name, ours, theirs in zip(names, used, recomputed, strict=True):
            rows[f"{what}, {name}"] = {"used": ours, "recomputed": theirs, "difference": ours - theirs}
    return pd.DataFrame(rows).T.round(4)


@dataclass(frozen=True)
class Run:
    """A finished run and what its pictures need."""

    experiment: Experiment
    records: list[dict[str, Any]]
    queries: dict[str, np.ndarray]
    predictions: dict[str, np.ndarray]
    train: ImageSet
    test: ImageSet

    @property
    def last_query(self) -> np.ndarray:
        """Dataset indices (budget,) of the last query, in the order asked; the first labelled set if there is one."""
        return self.queries[f"query_{len(self.records)}"]


def run(
    experiment: Experiment,
    out_dir: str | Path | None = None,
    outputs_dir: str | Path | None = None,
    *,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
    quiet: bool = False,
) -> Run:
    """Run the experiment (or go on with it, or read it back if its folder holds it finished), showing progress.

    The record goes to `out_dir`; without one to `outputs_dir`/DATASET/LABEL/seed-N; without either nothing is kept.
    A method that needs a pretext task's losses and was given none has them computed first, into the same folder (with
    `outputs_dir` into one that all runs share). `train` and `test` are images of one's own, as for `ActiveLearner`.
    A `quiet` run shows nothing.
    """
    if train is not None or test is not None:
        experiment = own_experiment(experiment, train, test)
    out_dir, outputs_dir = named(out_dir, "out_dir"), named(outputs_dir, "outputs_dir")
    pretext_dir = out_dir
    if out_dir is None and outputs_dir is not None:
        pretext_dir = outputs(outputs_dir) / experiment.dataset / "pretext"
        out_dir = outputs(outputs_dir) / experiment.dataset / experiment.name / f"seed-{experiment.seed}"
    with _Quiet(experiment) if quiet else _Bars(experiment) as bars:
        experiment = with_pretext(experiment, pretext_dir or _scratch().name, bars, train=train, test=test)
        learner = ActiveLearner(experiment, out_dir, progress=bars, train=train, test=test)
        records = []
        for record in learner:
            records.append(record)
            bars.note(record)
    if learner.state.queries:
        queries, predictions = learner.query_arrays(), learner.prediction_arrays()
    else:
        assert out_dir is not None
        queries, predictions = (dict(np.load(Path(out_dir) / f"{n}.npz")) for n in ("queries", "predictions"))
    return Run(experiment, records, queries, predictions, learner.train, learner.test)


def pretext(experiment: Experiment, out_file: str | Path | None = None) -> tuple[PretextLosses, Path]:
    """The experiment's pretext losses, computed or read back, and the file that holds them, showing progress.

    Without `out_file` it is a file of this session, gone when it ends.
    """
    path = named(out_file, "out_file") or Path(_scratch().name) / f"{pretext_key(experiment)}.npz"
    with _Bars(experiment) as bars:
        return run_pretext(experiment, path, bars), path


@cache
def _scratch() -> TemporaryDirectory[str]:
    """A folder that lasts as long as the process."""
    return TemporaryDirectory(prefix="alkit-")


def interactive() -> bool:
    """Whether a person is watching: JupyterLab, VS Code or Colab, not papermill."""
    return "google.colab" in sys.modules or any(name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID"))


class _Bars:
    """A bar of cycles and one of epochs where a person watches; a line a cycle in a log, where a bar is many lines."""

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment
        self._bars: list[Any] = []

    def __enter__(self) -> _Bars:
        if interactive():
            from tqdm.auto import tqdm

            name = f"{self.experiment.name}, seed {self.experiment.seed}"
            self._bars = [
                tqdm(desc=name, total=self.experiment.cycle_count, unit="cycle"),
                tqdm(desc="epochs", total=self.experiment.epochs, unit="epoch", leave=False),
            ]
        return self

    def __call__(self, status: dict[str, Any]) -> None:
        if self._bars:
            epochs = self._bars[1]
            epochs.set_description(f"cycle {status['cycle']}: {status['state']}", refresh=False)
            epochs.n, epochs.total = status["epoch"], status["epochs"]
            epochs.refresh()
        elif status["state"].startswith("pretext"):
            accuracy = "" if status["accuracy"] is None else f", accuracy {status['accuracy']:.1%}"
            print(f"{status['state']}, epoch {status['epoch']}/{status['epochs']}: loss {status['loss']:.3f}{accuracy}",
                  flush=True)  # fmt: skip

    def note(self, record: dict[str, Any]) -> None:
        bins = counted(record["bins"], "bin")
        line = f"{record['labelled']} labels, accuracy {record['accuracy']:.1%}, ECE {record['ece']:.3f} ({bins})"
        if self._bars:
            self._bars[0].update()
            self._bars[0].set_postfix_str(line)
        else:
            name = f"{self.experiment.name}, seed {self.experiment.seed}"
            print(f"{name}, cycle {record['cycle']}/{self.experiment.cycle_count}: {line}", flush=True)

    def __exit__(self, *_: object) -> None:
        for bar in reversed(self._bars):
            bar.close()


class _Quiet(_Bars):
    """Shows nothing."""

    def __enter__(self) -> _Quiet:
        return self

    def __call__(self, status: dict[str, Any]) -> None:
        pass

    def note(self, record: dict[str, Any]) -> None:
        pass


def table(runs: Iterable[Run]) -> pd.DataFrame:
    """Runs of this notebook as one DataFrame, one row a run and cycle, with the columns that plots of studies need."""
    rows = [
        {"dataset": r.experiment.dataset, "method": r.experiment.method, "label": r.experiment.name,
         "seed": r.experiment.seed, "protocol": r.experiment.protocol, **record}
        for r in runs
        for record in r.records
    ]  # fmt: skip
    return pd.DataFrame(rows)


# --- where things are ---


def root() -> Path:
    """The repository that the working directory lies in; the working directory itself outside any."""
    here = Path.cwd()
    for folder in (here, *here.parents):
        if (folder / "pyproject.toml").is_file() and (folder / "alkit").is_dir():
            return folder
    return here


def outputs(outputs_dir: str | Path) -> Path:
    """The folder `outputs_dir`, taken from the repository's root, wherever in it the notebook runs.

    A folder on Google Drive, `/content/drive/…`, is the one thing that makes Colab ask for access to it.
    """
    folder = root() / os.path.expanduser(outputs_dir)
    if "google.colab" in sys.modules and DRIVE in (folder, *folder.parents) and not (DRIVE / "MyDrive").exists():
        from google.colab import drive

        drive.mount(str(DRIVE))
    return folder


def versions() -> str:
    """What this notebook ran with, on one line."""
    import platform
    from importlib.metadata import version  # importing torchvision takes a second

    import torch

    import alkit

    return (
        f"alkit {alkit.__version__}, torch {torch.__version__}, torchvision {version('torchvision')}, "
        f"python {platform.python_version()}, {counted(torch.get_num_threads(), 'thread')}"
    )
