"""A study on disk: which runs it has, what is wrong with it before anything starts, and the folder it runs in.

`workflow/Snakefile` says how runs are made; this module says which. It imports nothing heavy, since every Snakemake
process reads it.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml

from alkit.config import Experiment, Study
from alkit.config.own_module import look_in
from alkit.config.pretext import pretext_key
from alkit.config.study_yaml import read_yaml
from alkit.errors import CheckpointError, ConfigError, nearest
from alkit.methods import METHODS, added_methods
from alkit.storage.files import take_lock, write_text
from alkit.storage.paths import absolute, check_writable_as_text

ROOT = Path(__file__).parents[2]
NOTEBOOKS = ROOT / "notebooks"
SNAKEFILE = ROOT / "workflow" / "Snakefile"
PROFILES = ROOT / "workflow" / "profiles"
BEGUN = ("result.json", "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.new.pt")
RESERVED = (
    "tables", "figures", "paper", "models", "logs", "pretext", "study.yaml", "summary.html", "summary.ipynb",
)  # fmt: skip
"""Names in a study's folder that are no label's."""

ImagesOf = Callable[[Experiment], dict[str, Any] | None]
"""The images that an experiment has now, as a record has them; None for a named set, checked whenever it is read."""


@dataclass(frozen=True)
class GridRun:
    """One run of a study: its experiment and its folder STUDY/LABEL/seed-N."""

    label: str
    seed: int
    experiment: Experiment
    folder: Path

    @property
    def name(self) -> str:
        return f"{self.label}, seed {self.seed}"

    @property
    def finished(self) -> bool:
        """`result.json` is written last and atomically: it is there, or the run is not complete."""
        return (self.folder / "result.json").exists()

    @property
    def epochs(self) -> int:
        """Epochs of the whole run."""
        return self.experiment.cycle_count * self.experiment.epochs

    @property
    def pretext(self) -> str | None:
        """The name of the pretext job that this run waits for, if it needs one and was given no losses."""
        experiment = self.experiment
        needed = "pretext" in experiment.row.needs and experiment.pretext_losses is None
        return pretext_key(experiment) if needed else None


@dataclass(frozen=True)
class Plan:
    """What `alkit run` was asked for: the runs, and the study they belong to with all that is known of it."""

    source: Path
    study: Study
    folder: Path
    runs: tuple[GridRun, ...]

    @cached_property
    def labels(self) -> list[str]:
        return list(dict.fromkeys(run.label for run in self.runs))

    @cached_property
    def seeds(self) -> list[int]:
        return list(dict.fromkeys(run.seed for run in self.runs))

    @property
    def pretext_jobs(self) -> dict[str, Experiment]:
        """The pretext jobs of the runs, by name; runs with the same settings share one."""
        return {run.pretext: run.experiment for run in self.runs if run.pretext}


def make_plan(
    source: str | Path,
    out: str | Path = "outputs",
    methods: Iterable[str] | None = None,
    seeds: Iterable[int] | None = None,
) -> Plan:
    """Read and check a study file; `plan_check.check_plan` checks it against its data. Writes nothing.

    `methods` are labels of the study or rows of the methods table, `seeds` any seeds; None is all that the file
    names.

    Raises an `AlkitError` of one line for the first thing that is wrong.
    """
    source = Path(source)
    look_in(source.parent, Path.cwd())
    methods, seeds = list(methods or []), list(seeds or [])
    try:
        study = whole_study(Study.from_yaml(source), methods, seeds)
    except ConfigError as error:
        raise ConfigError(str(error) if str(source) in str(error) else f"{source}: {error}") from None
    folder = absolute(out) / study.study
    check_writable_as_text(folder)
    chosen, wanted = methods or study.labels, seeds or study.seeds
    runs = tuple(grid_run(study, label, seed, folder) for label in chosen for seed in wanted)
    if not runs:
        raise ConfigError(f"{source}: names no run; expected methods or variants, and seeds")
    for run in runs:
        check_writable_as_text(*filter(None, (run.experiment.data_root, run.experiment.pretext_losses)))
        losses = run.experiment.pretext_losses
        if losses is not None and not Path(losses).is_file():
            raise ConfigError(f"{source}: pretext_losses: {losses}: no such file")
    missing = [run.label for run in runs if not notebook_of(run.experiment.method).is_file()]
    if missing:
        raise ConfigError(f"method: no notebook for '{missing[0]}' in {NOTEBOOKS}")
    return Plan(source, study, folder, runs)


def whole_study(study: Study, methods: list[str], seeds: list[int]) -> Study:
    """The study with every label and seed spelt out, and with those asked for that its file does not name."""
    values = study.model_dump()
    parameters = dict(values["parameters"])
    named = study.methods if study.labels else [study.experiment().method]
    own_seed = parameters.pop("seed", None)
    own_seeds = study.seeds if own_seed is None else [own_seed]
    known = [*named, *study.variants]
    for label in methods:
        if label not in known and label not in METHODS:
            raise ConfigError(f"methods: the study has no '{label}'{nearest(label, [*known, *METHODS])}")
    if len(set(methods)) < len(methods):
        raise ConfigError("methods: each method once")
    if len(set(seeds)) < len(seeds):
        raise ConfigError("seeds: each seed once")
    added = [label for label in methods if label not in known]
    more_seeds = [seed for seed in seeds if seed not in own_seeds] if not methods else []
    values |= {"methods": [*named, *added], "seeds": [*own_seeds, *more_seeds], "parameters": parameters}
    whole = Study(**values)
    whole.check()
    if whole.study.lower() in RESERVED:
        raise ConfigError(f"study: '{whole.study}' is the name of a file or folder of every study; choose another")
    for label in whole.labels:
        if whole.experiment(label).name != label:
            raise ConfigError(f"label: the runs of '{label}' cannot have another label; use variants to name runs")
        if label.lower() in RESERVED:
            raise ConfigError(f"variants: '{label}' is the name of a file or folder of every study; choose another")
    return whole


def data_of(experiment: Experiment) -> list[Any]:
    """What decides which images of a folder an experiment has, wherever the folder is."""
    return [experiment.dataset, experiment.data_options(), experiment.quirk("imbalance_step")]


def data_key(experiment: Experiment) -> str:
    """A text that experiments with the same images and features share."""
    return json.dumps([experiment.data_root, experiment.features, data_of(experiment)], sort_keys=True)


def grid_run(study: Study, label: str, seed: int, folder: Path) -> GridRun:
    return GridRun(label, seed, study.experiment(label, seed=seed), folder / label / f"seed-{seed}")


def notebook_of(method: str, notebooks: Path = NOTEBOOKS) -> Path:
    """The notebook of a method: one's own methods share one. Nothing but a row of the table names a notebook."""
    name = METHODS[method].id
    return notebooks / ("own_method.ipynb" if name in added_methods() else f"methods/{name}.ipynb")


# --- the study's folder ---


def prepare(plan: Plan, cores: int, rerun: Iterable[str] = (), images_of: ImagesOf | None = None) -> None:
    """Write STUDY/study.yaml and each run's run.yaml; `rerun` are labels whose runs begin anew.

    `images_of` tells which images an experiment has now: see `study_check`. Raises `CheckpointError`, before anything
    is written, if the folder holds a run with other parameters or on other images.
    """
    from alkit.grid import study_check

    again = check_rerun(plan, rerun)
    study_check.drop_stale_losses(study_check.check_folder(plan, again, images_of))
    try:
        (plan.folder / "logs").mkdir(parents=True, exist_ok=True)
        for run in plan.runs:
            if run.label in again and run.folder.exists():
                shutil.rmtree(run.folder)
        shares = max(1, cores // (len(plan.study.labels) * len(plan.study.seeds)))
        for run in plan.runs:
            _write_changed(run.folder / "run.yaml", run_parameters(run, shares))
        for key, experiment in plan.pretext_jobs.items():
            given = own_parameters(experiment) | {"threads": experiment.threads or shares}
            given.setdefault("pretext_supervised", False)  # a comparison for readers, not needed by any run
            given.pop("label", None)
            _write_changed(plan.folder / "pretext" / f"{key}.yaml", given)
        _write_changed(plan.folder / "study.yaml", study_mapping(plan.study), f"# made by alkit run {plan.source}\n")
    except OSError as error:
        raise CheckpointError(f"{plan.folder}: cannot be written ({error.strerror})") from None


def check_rerun(plan: Plan, rerun: Iterable[str]) -> set[str]:
    """The labels to begin anew; `ConfigError` for one that is not among the runs."""
    for label in rerun:
        if label not in plan.labels:
            raise ConfigError(f"rerun: '{label}' is not among the runs{nearest(label, plan.labels)}")
    return set(rerun)


def study_mapping(study: Study) -> dict[str, Any]:
    """The study as its file's content: its own keys, then the parameters that all runs share."""
    own = {key: value for key, value in study.model_dump().items() if key != "parameters" and value is not None}
    return own | study.parameters


def own_parameters(experiment: Experiment) -> dict[str, Any]:
    """The parameters that differ from their defaults, with those that say which run it is."""
    values = experiment.model_dump(mode="json")
    return {k: v for k, v in values.items() if v != default_of(k) or k in ("dataset", "method", "seed")}


def default_of(key: str) -> Any:
    """What a parameter is where nobody sets it; None for one that this version does not have."""
    field = Experiment.model_fields.get(key)
    return None if field is None else field.default


def run_parameters(run: GridRun, shares: int) -> dict[str, Any]:
    """The content of run.yaml. The number of threads is fixed when a run is first prepared: it can change last bits."""
    parameters = own_parameters(run.experiment)
    if run.experiment.threads is None:
        before = read_quietly(run.folder / "run.yaml").get("threads")
        parameters["threads"] = before if isinstance(before, int) and has_begun(run.folder) else shares
    return parameters


def has_begun(folder: Path) -> bool:
    """Whether a run's folder holds more than its parameters."""
    return any((folder / name).exists() for name in BEGUN)


def read_quietly(path: Path) -> dict[str, Any]:
    """The parameters in a YAML file; none where it cannot be read."""
    try:
        return read_yaml(path)
    except ConfigError:
        return {}


def _write_changed(path: Path, content: dict[str, Any], head: str = "") -> None:
    """Write YAML unless the file says the same already: an older file is then not newer than what was made of it."""
    text = head + yaml.safe_dump(content, sort_keys=False, allow_unicode=True)
    if not path.exists() or path.read_text(encoding="utf-8") != text:
        write_text(path, text)


# --- one command a folder ---


@contextmanager
def hold(folder: Path) -> Iterator[None]:
    """Hold the study's folder. The system lets go of it however this process ends, so no lock is ever stale.

    Raises `CheckpointError` naming the process that holds it.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = (folder / ".alkit.lock").open("a+")
    except OSError as error:
        raise CheckpointError(f"{folder}: cannot be written ({error.strerror})") from None
    with handle:
        if not take_lock(handle, 2.0):  # a command may just be ending
            handle.seek(0)
            holder = handle.read().strip() or "another process"
            raise CheckpointError(f"{folder}: in use by {holder}; wait for it, or stop it first")
        handle.seek(0)
        handle.truncate()
        handle.write(f"alkit run, process {os.getpid()} on {os.uname().nodename}")
        handle.flush()
        yield
