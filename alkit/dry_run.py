"""`alkit run --dry-run`: all that can be known of a study before it runs, without writing anything."""

from __future__ import annotations

import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alkit import grid, study_check
from alkit.config import Experiment
from alkit.data.registry import get_entry
from alkit.errors import DataError
from alkit.progress import read_mapping
from alkit.runner import aligned
from alkit.words import counted

MOST_LINES = 12
"""Runs of which each gets a line; of more there is a table."""

SAMPLE = 200
"""Files of a folder that are decoded to see whether they are images."""


def show(plan: grid.Plan, rerun: Iterable[str], images_of: grid.ImagesOf) -> None:
    """Print what the command would do. Raises the `AlkitError` that it would raise, and one for a broken image."""
    again = set(rerun)
    for run in plan.runs:
        if run.label not in again:
            grid.refuse_changed(run)
    print(*(f"{line}\n" for line in decode_samples(plan)), sep="", end="")
    stale = study_check.check_folder(plan, again, images_of)
    if len(plan.runs) <= MOST_LINES:
        for run in plan.runs:
            state = "anew" if run.label in again else "finished" if run.finished else "to run"
            print(f"{state:9} {run.name}")
    else:
        print(table(plan, again))
    for path in stale:
        print(f"anew      {path.relative_to(plan.folder)}, of other images")
    print(f"{len(to_do(plan, again))} of {counted(len(plan.runs), 'run')} to do, in {plan.folder}")


def to_do(plan: grid.Plan, again: set[str]) -> list[grid.GridRun]:
    return [run for run in plan.runs if not run.finished or run.label in again]


# --- images ---------------------------------------------------------------------------------------------------------


def decode_samples(plan: grid.Plan) -> list[str]:
    """A line on each folder of images of the study, of which some were decoded; `DataError` names a broken one."""
    known: dict[str, Experiment] = {}
    for run in plan.runs:
        known.setdefault(json.dumps([run.experiment.dataset, run.experiment.data_root]), run.experiment)
    return [line for experiment in known.values() if (line := _decode_sample(experiment))]


def _decode_sample(experiment: Experiment) -> str | None:
    if get_entry(experiment.dataset).name != "folder":
        return None
    from alkit.data import decode
    from alkit.data.folder import folder_root, scan

    listing = scan(folder_root(None if experiment.data_root is None else Path(experiment.data_root)))
    paths = [listing.root / name for name in listing.names]
    chosen, broken = paths[:: max(1, -(-len(paths) // SAMPLE))], []
    for path in chosen:
        try:
            decode.decode(path, 8, 3)
        except DataError as error:
            if not experiment.skip_broken:
                raise DataError(f"{error}; remove it, or set skip_broken: true") from None
            broken.append(path)
    skipped = f", {len(broken)} of them broken and to be skipped" if broken else ""
    what = f"all {len(paths):,} files" if len(chosen) == len(paths) else f"{len(chosen)} of {len(paths):,} files"
    return f"images    {what} decoded{skipped}, in {counted(len(listing.class_names), 'class', 'classes')}"


# --- a large study --------------------------------------------------------------------------------------------------


def table(plan: grid.Plan, again: set[str]) -> str:
    """A row a label: how many runs are finished and to do, of what length, and what those to do need.

    Time and disk are those of a finished run of the label, else of the study, by epochs times labels; a run's own
    processor or GPU is meant, so that several at once need less.
    """
    costs = {run.label: cost for run in plan.runs if run.finished and (cost := cost_of(run))}
    rows = [["method", "finished", "to run", "cycles", "labels", "epochs a cycle", "hours", "MB"]]
    left = to_do(plan, again)
    total = [0.0, 0.0]
    for label in plan.labels:
        runs = [run for run in left if run.label == label]
        first = next(run for run in plan.runs if run.label == label).experiment
        last = first.initial + (first.cycle_count - 1) * first.budget
        labels = (
            "all" if first.row.whole_pool else f"{first.initial:,} to {last:,}" if last > first.initial else f"{last:,}"
        )
        cost = costs.get(label) or next(iter(costs.values()), None)
        need = [work(first) * len(runs) * each for each in cost] if cost else []
        total = [one + more for one, more in zip(total, need or [0.0, 0.0], strict=True)]
        rows.append([label, str(sum(run.label == label for run in plan.runs) - len(runs)), str(len(runs)),
                     str(first.cycle_count), labels, str(first.epochs), *_shown(need)])  # fmt: skip
    done = len(plan.runs) - len(left)
    rows.append(["together", str(done), str(len(left)), "", "", "", *_shown(total if costs else [])])
    note = (
        "" if costs else "\nHours and MB are known when the first run is finished: `--seeds N --methods ONE` runs one."
    )
    return aligned(rows, right=range(1, 8)) + note


def work(experiment: Experiment) -> float:
    """Images that a run trains on, each as often as it does; a whole pool counts as the last cycle would."""
    cycles = range(experiment.cycle_count)
    return float(sum(experiment.initial + cycle * experiment.budget for cycle in cycles) * experiment.epochs)


def cost_of(run: grid.GridRun) -> tuple[float, float] | None:
    """Hours and MB a trained image of a finished run; None where its record does not tell."""
    cycles: Any = read_mapping(run.folder / "result.json").get("cycles")
    try:
        seconds = sum(sum(cycle["seconds"].values()) for cycle in cycles)
        size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        return seconds / 3600 / work(run.experiment), size / 1e6 / work(run.experiment)
    except (TypeError, KeyError, AttributeError, OSError):
        return None


def _shown(need: list[float]) -> list[str]:
    return [f"{value:,.1f}" for value in need] or ["", ""]
