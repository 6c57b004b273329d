"""`alkit status`: how far every run of a study is, read from what the runs leave; nothing heavy is imported."""

from __future__ import annotations

import json
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alkit.config import Study
from alkit.errors import AlkitError, CheckpointError
from alkit.errors.words import aligned, counted
from alkit.storage.progress import SIGNS, find_runs, image_digests, is_alive, one_line, read_mapping, seconds


def status_table(folder: str | Path, now: float | None = None) -> str:
    """A line a run: state, cycle, epoch, accuracy so far and the age of the last sign of life.

    Raises `CheckpointError` if `folder` does not exist or holds no run.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise CheckpointError(f"{folder}: no such folder")
    now = time.time() if now is None else now
    found = [(path, state_of(path, now)) for path in run_folders(folder)]
    if not found:
        raise no_runs(folder)
    rows = [["run", "state", "cycle", "epoch", "accuracy %", "age", "note"]]
    for path, state in with_other_images(found):
        rows.append([str(path.relative_to(folder)), *(state[key] for key in
                     ("state", "cycle", "epoch", "accuracy", "age", "note"))])  # fmt: skip
    counts = Counter(state["state"] for _, state in found)
    total = ", ".join(f"{number} {name}" for name, number in counts.most_common())
    return f"{aligned(rows, right=range(2, 6))}\n{counted(len(found), 'run')}: {total}"


def no_runs(folder: str | Path) -> CheckpointError:
    """What is said of a folder without runs."""
    return CheckpointError(f"{folder}: no runs in it; expected a study's folder, such as outputs/digits")


def with_other_images(found: list[tuple[Path, dict[str, str]]]) -> Iterator[tuple[Path, dict[str, str]]]:
    """The runs, with a note at those that did not have the images of their label's first run."""
    first: dict[Path, tuple[str, str]] = {}  # by label's folder
    for path, state in found:
        images = state["images"]
        name, wanted = first.setdefault(path.parent, (path.name, images)) if images else ("", images)
        if images != wanted:
            note = f"other images than {name}: not to be averaged"
            state = state | {"note": "; ".join(filter(None, (state["note"], note)))}
        yield path, state


def run_folders(folder: Path) -> Iterator[Path]:
    """The runs of the studies at and below `folder`, begun or not, in the order of the study files."""
    known: dict[Path, None] = {}
    for place in find_runs(folder, "study.yaml"):
        try:
            study = Study.from_yaml(place / "study.yaml", check=False)
        except AlkitError:
            continue
        known |= {place / label / f"seed-{seed}": None for label in study.labels for seed in study.seeds}
    yield from known | dict.fromkeys(find_runs(folder, *SIGNS))


def state_of(path: Path, now: float) -> dict[str, str]:
    """What became of one run, as text; `images` are the digests of those it had, where it says so."""
    shown = {"state": "waiting", "cycle": "", "epoch": "", "accuracy": "", "age": "", "note": "", "images": ""}
    record, progress = path / "result.json", read_mapping(path / "progress.json")
    if record.exists():
        return shown | _finished(record, now)
    failure = read_mapping(path / "failure.json")
    updated = seconds(progress.get("updated"))
    if progress:
        shown |= {
            "cycle": f"{_whole(progress.get('cycle'))}/{_whole(progress.get('cycles'))}",
            "epoch": f"{_whole(progress.get('epoch'))}/{_whole(progress.get('epochs'))}",
            "age": _age(now - updated), "images": _images(progress),
        }  # fmt: skip
        if isinstance(progress.get("accuracy"), float):
            shown["accuracy"] = f"{100 * progress['accuracy']:.2f}"
    if failure and seconds(failure.get("time")) >= updated - 1:
        cell = f"cell {failure['cell']}: " if failure.get("cell") else ""
        return shown | {"state": "failed", "note": one_line(f"{cell}{failure.get('error', '')}"),
                        "age": _age(now - seconds(failure.get("time")))}  # fmt: skip
    if progress:
        alive = is_alive(progress, now)
        return shown | {"state": one_line(str(progress.get("state", "running")))[:40] if alive else "stopped"}
    return shown


def _finished(record: Path, now: float) -> dict[str, str]:
    try:
        content = json.loads(record.read_bytes())
        last = content["cycles"][-1]
        cycle, accuracy = _whole(last["cycle"]), float(last["accuracy"])
        if 0 <= accuracy <= 1:
            return {"state": "finished", "cycle": f"{cycle}/{cycle}", "accuracy": f"{100 * accuracy:.2f}",
                    "age": _age(now - record.stat().st_mtime), "images": _images(content)}  # fmt: skip
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError, RecursionError):
        pass
    return {"state": "failed", "note": "result.json is not a record of alkit"}


def _images(content: dict[str, Any]) -> str:
    return "/".join(image_digests(content.get("images")) or ())


def _age(seconds: float) -> str:
    seconds = max(0, int(seconds))
    for size, unit in ((86_400, "d"), (3600, "h"), (60, "min")):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _whole(value: object) -> str:
    return str(value) if isinstance(value, int) and abs(value) < 10**9 else "?"
