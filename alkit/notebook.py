"""What the method notebooks call: their parameters become an Experiment, a run becomes pictures.

A notebook says `begin(globals())` before its parameters cell and `experiment(globals(), method=…)` after it. Every
name defined in between, by the notebook or by papermill, is a parameter, so a misspelt one is refused, not ignored.
"""

from __future__ import annotations

import os
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alkit.config import Experiment, Study
from alkit.data import ImageSet
from alkit.errors import ConfigError
from alkit.learner import ActiveLearner

_NAMES = "_alkit_names"
_PARAMETERS = "_alkit_parameters"
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


def experiment(namespace: dict[str, Any], method: str) -> Experiment:
    """The Experiment of a method's notebook. Raises `ConfigError` for a parameter that does not exist or fit."""
    found = {k: v for k, v in parameters(namespace).items() if k not in _NOT_OF_THE_RUN}
    asked = found.pop("method", method)
    if asked != method:
        raise ConfigError(f"method: this is the notebook of '{method}', not of '{asked}'")
    return Experiment(method=method, **found)


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


def run(experiment: Experiment, out_dir: str | Path | None = None) -> Run:
    """Run the experiment (or go on with it, or read it back if `out_dir` holds it finished), showing progress."""
    with _Bar() as bar:
        learner = ActiveLearner(experiment, out_dir, progress=bar)
        records = []
        for record in learner:
            records.append(record)
            bar.note(
                f"cycle {record['cycle']}/{experiment.cycle_count}: {record['labelled']} labels, "
                f"accuracy {record['accuracy']:.1%}, ECE {record['ece']:.3f}"
            )
    if learner.state.queries:
        queries, predictions = learner.query_arrays(), learner.prediction_arrays()
    else:
        assert out_dir is not None
        queries, predictions = (dict(np.load(Path(out_dir) / f"{n}.npz")) for n in ("queries", "predictions"))
    return Run(experiment, records, queries, predictions, learner.train, learner.test)


def interactive() -> bool:
    """Whether a person is watching: JupyterLab, VS Code or Colab, not papermill."""
    return "google.colab" in sys.modules or any(name in os.environ for name in ("JPY_SESSION_NAME", "VSCODE_PID"))


class _Bar:
    """A bar a run where a person watches; a line a cycle in a log, where a bar would print a line an update."""

    def __init__(self) -> None:
        self._bar: Any = None

    def __enter__(self) -> _Bar:
        return self

    def __call__(self, status: dict[str, Any]) -> None:
        if not interactive():
            return
        if self._bar is None:
            from tqdm.auto import tqdm

            self._bar = tqdm(total=status["cycles"] * status["epochs"], unit="epoch")
        self._bar.set_description(f"cycle {status['cycle']}/{status['cycles']}, {status['state']}")
        self._bar.n = (status["cycle"] - 1) * status["epochs"] + status["epoch"]
        self._bar.refresh()

    def note(self, line: str) -> None:
        if interactive() and self._bar is not None:
            self._bar.set_postfix_str(line.split(": ", 1)[1])
        else:
            print(line, flush=True)

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.close()


def versions() -> str:
    """What this notebook ran with, on one line."""
    import platform

    import torch
    import torchvision

    import alkit

    return (
        f"alkit {alkit.__version__}, torch {torch.__version__}, torchvision {torchvision.__version__}, "
        f"python {platform.python_version()}, {torch.get_num_threads()} threads"
    )
