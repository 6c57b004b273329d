"""What is refused before a study's runs start: others in its folder that are not alike, and images that have changed.

A summary counts every run that lies in a study's folder, so each of them has to be of the study. Imports nothing
heavy; the images of now are looked at once a study, and only where a run has begun on images that can change.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from alkit.config import FREE_PARAMETERS, Experiment, Study
from alkit.config.own_module import own_sha256
from alkit.errors import AlkitError, CheckpointError, ConfigError, DataError
from alkit.grid import planning
from alkit.methods import METHODS
from alkit.storage.files import sha256
from alkit.storage.progress import read_mapping, run_images

Images = dict[str, Any]
"""What a record says of a run's images: see `alkit.data.identity.images_record`."""

_SEED = re.compile(r"seed-(\d+)")
_HOW = "give another --out or a study name of its own"


@dataclass(frozen=True)
class Begun:
    """A run that has begun in a study's folder: its parameters, none where they cannot be read; the checksums of its
    pretext losses, of its first query and of a module of one's own, and its images, where they are known."""

    label: str
    seed: int
    folder: Path
    params: dict[str, Any]
    losses: str | None
    first: str | None
    module: str | None
    images: Images | None


def check_folder(
    plan: planning.Plan, again: Iterable[str] = (), images_of: planning.ImagesOf | None = None
) -> dict[Path, str]:
    """Refuse what would make one study of unlike runs; returns the files of pretext losses to be made anew, and why.

    `again` are labels whose runs begin anew. Raises `CheckpointError` of one line; writes nothing.
    """
    asked = {(run.label, run.seed): run.experiment for run in plan.runs}
    gone = {(label, seed) for label, seed in asked if label in again}
    begun = [run for run in begun_runs(plan.folder) if (run.label, run.seed) not in gone]
    for run in begun:
        if (run.label, run.seed) in asked:
            _refuse_changed(run, asked[run.label, run.seed])
    begun = [run for run in begun if run.params]
    others = [run for run in begun if (run.label, run.seed) not in asked]
    before = _study_before(plan.folder)
    for run in others:
        _refuse_other_study(plan, run, before)
        _refuse_renamed(plan, run)
    now = _Now(images_of)
    _refuse_other_images(begun, asked, now)
    return dict(_stale_losses(plan, now))


def begun_runs(folder: Path) -> Iterator[Begun]:
    """The runs that have begun in a study's folder, by label and seed."""
    for path in sorted(folder.glob("*/seed-*")):
        seed = _SEED.fullmatch(path.name)
        if not seed or not planning.has_begun(path):
            continue
        finished = (path / "result.json").exists()
        record = read_mapping(path / "result.json")
        params = record.get("params") if finished else planning.read_quietly(path / "run.yaml")
        params = params if isinstance(params, dict) else {}
        yield Begun(path.parent.name, int(seed[1]), path, params, record.get("pretext_sha256"), _first_query(record),
                    record.get("strategies_sha256"), run_images(path))  # fmt: skip


def _first_query(record: dict[str, Any]) -> str | None:
    """The checksum of a finished run's first query."""
    with suppress(LookupError, TypeError):
        first: str | None = record["cycles"][0]["query_sha256"]
        return first
    return None


# --- parameters -----------------------------------------------------------------------------------------------------


def _refuse_changed(run: Begun, new: Experiment) -> None:
    """Refuse to go on with a run that was begun with other parameters, naming the first that differs."""
    if not run.params:
        if (run.folder / "result.json").exists():
            raise CheckpointError(
                f"{run.folder / 'result.json'}: not a record of alkit; move it away or begin anew with "
                f"--rerun {run.label}"
            )
        return  # its parameters were removed under the run; the checkpoint knows them, and refuses by itself
    if (key := _first_difference(run.params, new)) is not None:
        raise CheckpointError(
            f"{run.folder}: holds a run with {key} = {_value(run.params, key)!r}, "
            f"not {new.model_dump(mode='json')[key]!r}; {_HOW}, or begin anew with --rerun {run.label}"
        )
    if new.pretext_losses is not None and run.losses is not None and sha256(new.pretext_losses) != run.losses:
        raise CheckpointError(
            f"{run.folder}: holds a run with other pretext_losses; begin anew with --rerun {run.label}"
        )
    if run.module is not None and own_sha256(new.strategies, new.method) not in (run.module, None):
        raise CheckpointError(
            f"{run.folder}: holds a run with other code in {new.strategies}; begin anew with --rerun {run.label}"
        )
    if new.first_labelled is not None and run.first is not None:
        from alkit.data.first import first_digest

        if first_digest(new) not in (run.first, None):
            raise CheckpointError(
                f"{run.folder}: holds a run with other images in first_labelled; begin anew with --rerun {run.label}"
            )


def _study_before(folder: Path) -> Study | None:
    try:
        return Study.from_yaml(folder / "study.yaml", check=False)
    except AlkitError:
        return None


def _refuse_other_study(plan: planning.Plan, run: Begun, before: Study | None) -> None:
    """Refuse a run, not asked for now, that this study would have made with other parameters."""
    study = plan.study
    if run.label not in study.labels and before is not None and run.label in before.variants:
        study = Study(**(study.model_dump() | {"variants": {**before.variants, **study.variants}}))  # as it was named
    expected = _experiment(study, run)
    key = None if expected is None else _first_difference(run.params, expected, "label")
    if key is not None:
        raise CheckpointError(
            f"{run.folder}: lies in this study's folder with {key} = {_value(run.params, key)!r}, "
            f"not {getattr(expected, key)!r}: of another study of the same name? {_HOW}, or remove that run"
        )


def _refuse_renamed(plan: planning.Plan, run: Begun) -> None:
    """Refuse a run of a label that the study does not name, which is one of its labels under another name."""
    if run.label in plan.study.labels:
        return
    for label in plan.study.labels:
        expected = _experiment(plan.study, replace(run, label=label))
        if expected is not None and _first_difference(run.params, expected, "label") is None:
            raise CheckpointError(
                f"{run.folder}: a run of '{run.label}', which the study does not name, with the parameters of "
                f"'{label}': renamed? It would be counted beside it; call it '{run.label}' again, or remove its folder"
            )


def _experiment(study: Study, run: Begun) -> Experiment | None:
    """What the study makes of the run's label and seed; None where it cannot tell."""
    if run.label not in study.labels and run.label not in METHODS:
        return None
    with suppress(ConfigError):
        return study.experiment(run.label, seed=run.seed)
    return None


def _first_difference(params: dict[str, Any], expected: Experiment, *free: str) -> str | None:
    """The first parameter in which a run is another than `expected`, of those that decide its numbers; not `free`."""
    for key, value in expected.model_dump(mode="json").items():
        if key in FREE_PARAMETERS or key in ("pretext_losses", *free) or (key == "threads" and value is None):
            continue
        if _value(params, key) != value:
            return key
    return None


def _value(params: dict[str, Any], key: str) -> Any:
    return params.get(key, planning.default_of(key))


# --- images ---------------------------------------------------------------------------------------------------------


class _Now:
    """The images of now, each set looked at once."""

    def __init__(self, images_of: planning.ImagesOf | None) -> None:
        self._images_of = images_of
        self._known: dict[str, Images | None] = {}

    def __call__(self, experiment: Experiment) -> Images | None:
        key = planning.data_key(experiment)
        if self._images_of is not None and key not in self._known:
            self._known[key] = self._images_of(experiment)
        return self._known.get(key)


def _refuse_other_images(begun: list[Begun], asked: dict[tuple[str, int], Experiment], now: _Now) -> None:
    """Refuse runs on other images than those of now, the ones asked for first."""
    other: dict[str, str] = {}
    strange: str | None = None
    for run in begun:
        experiment = asked.get((run.label, run.seed)) or _alike(run, asked.values())
        if run.images is None or experiment is None or (current := now(experiment)) is None:
            continue
        from alkit.data.identity import difference

        if (what := difference(run.images, current)) is None:
            continue
        text = f"{run.folder}: holds a run on other images of '{experiment.dataset}': {what}"
        if (run.label, run.seed) in asked:
            other.setdefault(run.label, text)
        else:
            strange = strange or text
    if other:
        raise CheckpointError(f"{next(iter(other.values()))}; {_HOW}, or begin anew with --rerun {','.join(other)}")
    if strange:
        raise CheckpointError(f"{strange}, and would be counted in this study; {_HOW}, or remove that run")


def _alike(run: Begun, experiments: Iterable[Experiment]) -> Experiment | None:
    """One of `experiments` on the images that the run's parameters ask for."""
    known = {key: value for key, value in run.params.items() if key in Experiment.model_fields}
    with suppress(ConfigError):
        wanted = planning.data_of(Experiment(**known))
        return next((each for each in experiments if planning.data_of(each) == wanted), None)
    return None


def _stale_losses(plan: planning.Plan, now: _Now) -> Iterator[tuple[Path, str]]:
    """The study's files of pretext losses that are damaged, or were computed on other images than those of now."""
    from alkit.storage.loss_files import DamagedLossesError, read_losses

    for key, experiment in plan.pretext_jobs.items():
        path = plan.folder / "pretext" / f"{key}.npz"
        if not path.exists():
            continue
        try:
            settings = read_losses(path).settings
        except DamagedLossesError:
            yield path, "damaged pretext losses"
            continue
        except DataError:  # of another version, or unreadable now: it may be whole, and the run refuses it
            continue
        if "pixels" not in settings or (images := now(experiment)) is None:
            continue
        if settings["pixels"] not in images["parts"]["train"].values():
            yield path, "the pretext losses of other images"


def drop_stale_losses(files: Mapping[Path, str]) -> None:
    """Remove pretext losses that are damaged or of other images, so that they are computed anew, and say so."""
    for path, why in files.items():
        print(f"alkit: {path}: {why}; they are computed anew", file=sys.stderr)
        path.unlink(missing_ok=True)
