"""What a run costs before it trains: the import, and a run of the grid from its start to its first training step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import psutil

from alkit.grid.planning import NOTEBOOKS
from benchmarks.timing import times_row

IMPORT = """
import time, torch
wall, worked = time.perf_counter(), time.process_time()
{statement}
print(time.perf_counter() - wall, time.process_time() - worked)
"""
PARAMETERS = """
method: random
dataset: digits
initial: 20
cycles: 1
epochs: 1
milestones: []
threads: 1
device: cpu
"""


def import_seconds(statement: str = "import alkit") -> tuple[float, float]:
    """Seconds, and seconds of the processor, that an import takes in a new process that has torch."""
    done = subprocess.run(
        [sys.executable, "-c", IMPORT.format(statement=statement)], capture_output=True, text=True, check=True
    )
    wall, worked = map(float, done.stdout.split())
    return wall, worked


def first_step_seconds() -> tuple[float, float]:
    """Seconds from the start of a run's process, as the grid starts it, until its first epoch, of one step, is over.

    And the seconds that the processor worked for it and its kernel until then.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(PARAMETERS)
        command = [
            sys.executable, "-m", "alkit.grid.job", "notebook", str(NOTEBOOKS / "methods" / "random.ipynb"),
            str(folder / "run.ipynb"), "-f", str(folder / "run.yaml"), "-r", "out_dir", name,
        ]  # fmt: skip
        began = time.perf_counter()
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (folder / "progress.json").exists():
            if run.poll() is not None:
                raise RuntimeError(f"the run ended before it trained: {run.communicate()[1].decode()[-500:]}")
            time.sleep(0.005)
        took = time.perf_counter() - began
        worked = processor_seconds(psutil.Process(run.pid))
        run.communicate()
    return took, worked


def processor_seconds(process: psutil.Process) -> float:
    """What the processor worked so far for a process and those that it started and that still run."""
    times = [each.cpu_times() for each in (process, *process.children(recursive=True))]
    return float(sum(each.user + each.system + each.children_user + each.children_system for each in times))


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """Rows of seconds: the import beyond torch, and a run from its start to its first training step."""
    rows = []
    for statement, target in (("import alkit", "at most 0.3 s"), ("from alkit import ActiveLearner, Experiment", "")):
        import_seconds(statement)
        imports = list(zip(*(import_seconds(statement) for _ in range(repetitions)), strict=True))
        rows.append(_row(f"{statement}, beyond torch", imports, target))
    first_step_seconds()
    starts = list(zip(*(first_step_seconds() for _ in range(repetitions)), strict=True))
    return [*rows, _row("a run, from process start to its first training step", starts, "at most 5 s")]


def _row(name: str, both: list[tuple[float, ...]], target: str) -> dict[str, Any]:
    passed, worked = both
    return times_row(name, list(passed), target, cpu_seconds=[round(value, 3) for value in worked])
