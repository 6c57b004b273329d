"""`alkit run --dry-run`: all that can be known of a study before it runs, without writing anything."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from typing import Any

from alkit.errors import AlkitError, CheckpointError
from alkit.errors.words import aligned, counted, duration
from alkit.errors.words import size as bytes_text
from alkit.grid import planning, study_check
from alkit.storage.paths import why_not_writable
from alkit.storage.progress import read_mapping

MOST_LINES = 12
"""Runs of which each gets a line; of more there is a table."""


def show(
    plan: planning.Plan,
    rerun: Iterable[str],
    images_of: planning.ImagesOf,
    at_once: int | None = None,
    looked: Iterable[str] = (),
) -> None:
    """Print what the command would do. Raises the `AlkitError` that it would raise.

    `looked` are lines on images that `plan_check.check_plan` looked at. `at_once` runs fit on this machine side by
    side; None where runs go elsewhere, and a time of here says nothing.
    """
    if (why := why_not_writable(plan.folder)) is not None:
        raise CheckpointError(f"{plan.folder}: cannot be written ({why})")
    again = set(rerun)
    stale = study_check.check_folder(plan, again, images_of)
    print(*(f"{line}\n" for line in looked), sep="", end="")
    needs, note = needs_of(plan, again, at_once is not None)
    if len(plan.runs) <= MOST_LINES:
        for run in plan.runs:
            state = "anew" if run.label in again else "finished" if run.finished else "to run"
            print(f"{state:9} {run.name}")
    else:
        print(table(plan, again, needs))
    for path, why in stale.items():
        print(f"anew      {path.relative_to(plan.folder)}: {why}")
    print(f"{len(to_do(plan, again))} of {counted(len(plan.runs), 'run')} to do, in {plan.folder}")
    if needs and at_once is not None:
        print(together(needs, at_once))
    if note:
        print(note)


def to_do(plan: planning.Plan, again: set[str]) -> list[planning.GridRun]:
    return [run for run in plan.runs if not run.finished or run.label in again]


# --- time and disk --------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Need:
    """What the runs of a label that are to do need: how many, and hours and bytes of each."""

    runs: int
    hours: float
    size: float


def needs_of(plan: planning.Plan, again: set[str], here: bool) -> tuple[dict[str, Need], str]:
    """What the runs to do need, by label, and a line if that cannot be told; `PRETEXT` is what they wait for.

    From a finished run of the label where there is one; else, where the runs are made `here`, from a few training
    steps. A run's own processor or GPU is meant, so that several at once need less.
    """
    from alkit.grid.estimate import Rates

    needs, rates, left = {}, Rates(), to_do(plan, again)
    finished = {run.label: cost for run in plan.runs if run.finished and (cost := cost_of(run))}
    try:
        for label in dict.fromkeys(run.label for run in left):
            runs = [run for run in left if run.label == label]
            first = runs[0].experiment
            if label in finished:
                hours, size = finished[label]
            elif here:
                seconds, size = rates.of_run(first)
                hours = seconds / 3600
            else:
                continue
            needs[label] = Need(len(runs), hours, size)
        jobs = {run.pretext: run.experiment for run in left if run.pretext}
        jobs = {key: one for key, one in jobs.items() if not (plan.folder / "pretext" / f"{key}.npz").exists()}
        if here and jobs:
            seconds, size = rates.of_pretext(next(iter(jobs.values())))
            needs[PRETEXT] = Need(len(jobs), seconds / 3600, size)
    except (AlkitError, RuntimeError) as error:  # its GPU, or the memory for a step, is not here
        return {}, f"how long: not known here ({str(error).splitlines()[0]})"
    return needs, ""


PRETEXT = "pretext task"


def together(needs: dict[str, Need], at_once: int) -> str:
    """The line on all runs: shared out over `at_once` places, but no less than the longest of them."""
    hours = sum(need.runs * need.hours for need in needs.values()) / at_once
    longest = max(need.hours for need in needs.values())
    size = bytes_text(sum(need.runs * need.size for need in needs.values()))
    beside = f", {counted(at_once, 'run')} at a time" if at_once > 1 else ""
    return (
        f"about {duration(max(hours, longest))} on this machine{beside}, and {size} of disk "
        "(rough: by finished runs, or by a few training steps timed just now)"
    )


def table(plan: planning.Plan, again: set[str], needs: dict[str, Need]) -> str:
    """A row a label: how many runs are finished and to do, of what length, and what those to do need."""
    rows = [["method", "finished", "to run", "cycles", "labels", "epochs a cycle", "time", "disk"]]
    left = to_do(plan, again)
    for label in plan.labels:
        count = sum(run.label == label for run in left)
        first = next(run for run in plan.runs if run.label == label).experiment
        start, bought = first.first_count, (first.cycle_count - 1) * first.budget
        labels = f"{start:,} to {start + bought:,}" if bought else f"{start:,}"
        if first.row.whole_pool:
            labels = "all"
        known = [needs[label]] if label in needs else []
        rows.append([label, str(sum(run.label == label for run in plan.runs) - count), str(count),
                     str(first.cycle_count), labels, str(first.epochs), *_shown(known)])  # fmt: skip
    if PRETEXT in needs:
        rows.append([PRETEXT, "", str(needs[PRETEXT].runs), "", "", "", *_shown([needs[PRETEXT]])])
    rows.append(["together", str(len(plan.runs) - len(left)), str(len(left)), "", "", "", *_shown(needs.values())])
    return aligned(rows, right=range(1, 8))


def cost_of(run: planning.GridRun) -> tuple[float, float] | None:
    """Hours and bytes of a finished run; None where its record does not tell."""
    cycles: Any = read_mapping(run.folder / "result.json").get("cycles")
    try:
        seconds = sum(sum(cycle["seconds"].values()) for cycle in cycles)
        size = sum(path.stat().st_size for path in run.folder.rglob("*") if path.is_file())
        return seconds / 3600, size
    except (TypeError, KeyError, AttributeError, OSError):
        return None


def _shown(needs: Collection[Need]) -> list[str]:
    """Time and disk of all these; nothing where nothing is known."""
    if not needs:
        return ["", ""]
    hours, size = (sum(need.runs * getattr(need, name) for need in needs) for name in ("hours", "size"))
    return [duration(hours), bytes_text(size)]
