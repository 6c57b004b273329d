"""Signs of life: what a run writes while it is at work, read by whoever asks how far it is. Nothing heavy here."""

from __future__ import annotations

import json
import os
import platform
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil

SILENCE = 30 * 60
"""Seconds without a word after which a run on another machine counts as stopped."""


SIGNS = ("result.json", "failure.json", "progress.json", "run.yaml")
"""Files that a run's folder has one of, from before it begins."""

_NO_RUNS = {"tables", "figures", "models", "logs"}
_SEED_FOLDER = re.compile(r"seed-\d+")


def find_runs(root: str | Path, *names: str) -> Iterator[Path]:
    """The folders at and below `root` that hold one of the files `names`, in the order of their paths; links too."""
    seen = set()
    for folder, below, files in os.walk(root, followlinks=True):
        if (real := os.path.realpath(folder)) in seen:  # a link to what it lies in
            below.clear()
            continue
        seen.add(real)
        below[:] = sorted(name for name in below if name not in _NO_RUNS and not name.startswith("."))
        if any(name in files for name in names):
            yield Path(folder)


def find_studies(root: Path) -> list[Path]:
    """The folders of the studies at and below `root`: those with a study.yaml, and those of runs LABEL/seed-N."""
    found = dict.fromkeys(find_runs(root, "study.yaml"))
    for run in find_runs(root, *SIGNS):
        study = run.parents[1] if _SEED_FOLDER.fullmatch(run.name) and len(run.parts) > 1 else run
        found[study if study.is_relative_to(root) else root] = None
    return sorted(found)


def read_mapping(path: Path) -> dict[str, Any]:
    """A JSON mapping; empty if there is none that can be read."""
    try:
        value = json.loads(path.read_bytes()) if path.is_file() else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def is_alive(progress: dict[str, Any], now: float) -> bool:
    """Whether the process that wrote `progress` is still at work: by its id here, by its silence elsewhere."""
    pid = progress.get("pid")
    here = progress.get("host") == platform.node()
    if here and isinstance(pid, int) and pid > 0 and not (pid < 2**31 and psutil.pid_exists(pid)):
        return False
    return now - seconds(progress.get("updated")) < SILENCE


def seconds(value: object) -> float:
    """A Unix time as written; 0 for what is none, or lies beyond what calendars know."""
    known = isinstance(value, (int, float)) and not isinstance(value, bool) and 0 <= value < 1e11
    return float(value) if known else 0.0  # type: ignore[arg-type]


def one_line(text: str) -> str:
    """Text of a file of unknown origin on one line, without a terminal's control characters."""
    return "".join(c if c.isprintable() else " " for c in text)


def run_images(path: Path) -> dict[str, Any] | None:
    """What a run's folder says of its images: its record, or while there is none its progress; None if nothing."""
    record = path / "result.json"
    images = read_mapping(record if record.exists() else path / "progress.json").get("images")
    return images if image_digests(images) else None


def image_digests(images: object) -> tuple[str, str] | None:
    """The digests of pool and test images in what a record says of them; None where an older version said nothing."""
    train, test = (images.get("train"), images.get("test")) if isinstance(images, dict) else (None, None)
    return (train, test) if isinstance(train, str) and isinstance(test, str) else None
