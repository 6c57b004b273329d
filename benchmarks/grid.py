"""The demo's 18 runs two at a time, against one after another. For a machine with two idle cores."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from benchmarks.timing import compare

STUDY = Path(__file__).parents[1] / "params" / "digits.yaml"


def run_study(cores: int, study: Path = STUDY) -> None:
    """All runs of the study in a folder of their own, without the summary."""
    with tempfile.TemporaryDirectory() as out:
        command = [
            sys.executable, "-m", "alkit", "run", str(study), "--cores", str(cores), "--out", out, "--no-summary"
        ]  # fmt: skip
        subprocess.run(command, check=True, capture_output=True)


def measure(repetitions: int = 5, study: Path = STUDY) -> list[dict[str, Any]]:
    """One row: how many times faster two cores finish the study. At most 60% of the time is at least 1.67 times."""
    result = compare(
        "the demo's 18 runs, 2 cores", lambda: run_study(2, study), "1 core", lambda: run_study(1, study),
        repetitions, "at least 1.67", warm_up=False,
    )  # fmt: skip
    part = [round(ours / one, 3) for ours, one in zip(result.ours, result.reference, strict=True)]
    return [result.row() | {"part_of_the_time": part}]
