"""A study against its data, before any run of it starts: each run as `check_run` does, and a sample of the images."""

from __future__ import annotations

from collections.abc import Callable, Container

import numpy as np

from alkit.config import Experiment
from alkit.data import Facts, decode, facts_of
from alkit.data.folder import scan_own
from alkit.data.registry import set_root
from alkit.errors import AlkitError, DataError
from alkit.errors.words import counted
from alkit.grid import planning
from alkit.training.devices import choose_device
from alkit.training.run_check import check_run

SAMPLE = 200
"""Files of a folder that are decoded to see whether they are images."""


def check_plan(
    plan: planning.Plan,
    again: Container[str] = (),
    here: bool = True,
    facts: Callable[[Experiment], Facts] = facts_of,
) -> list[str]:
    """Refuse a study of which any run would be refused; returns a line on each folder of images that was looked at.

    Finished runs stay as they are, but for the labels `again`. `here`: the runs are made on this machine, whose devices
    can be asked for.
    """
    known: dict[str, Facts] = {}
    runs = [run for run in plan.runs if not run.finished or run.label in again]
    for run in runs:
        experiment = run.experiment
        key = planning.data_key(experiment)
        try:
            if here:
                choose_device(experiment.device)
            if key not in known:
                known[key] = facts(experiment)
            check_run(experiment, known[key])
        except DataError:  # names its file or folder, whichever run asks for it
            raise
        except AlkitError as error:
            label = f"{run.label}: " if len(plan.labels) > 1 else ""
            raise type(error)(f"{plan.source}: {label}{error}") from None
    folders = {run.experiment.data_root: run.experiment for run in runs if run.experiment.dataset == "folder"}
    return [decode_sample(experiment) for experiment in folders.values()]


def decode_sample(experiment: Experiment) -> str:
    """A line on a folder of images, of which some were decoded; `DataError` names a broken one."""
    listing = scan_own(set_root(experiment))
    paths = [listing.root / name for name in listing.names]
    chosen, broken = paths[:: max(1, -(-len(paths) // SAMPLE))], []
    for place, path in enumerate(chosen):
        try:
            decode.decode(path, 8, 3)
        except DataError as error:
            if not experiment.skip_broken:
                raise DataError(f"{error}; remove it, or set skip_broken: true") from None
            broken.append(place)
    if len(chosen) == len(paths):
        listing.check_classes(np.setdiff1d(np.arange(len(paths)), broken))
    skipped = f", {len(broken)} of them broken and to be skipped" if broken else ""
    what = f"all {len(paths):,} files" if len(chosen) == len(paths) else f"{len(chosen)} of {len(paths):,} files"
    counts = np.bincount(listing.labels)
    sizes = f" of {counts.min():,} to {counts.max():,} files" if counts.max() > counts.min() else ""
    return f"images    {what} decoded{skipped}, in {counted(len(counts), 'class', 'classes')}{sizes}"
