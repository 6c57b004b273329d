"""What a run costs before it trains: the import, and a run of the grid from its start to its first training step."""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from alkit.grid import NOTEBOOKS
from benchmarks.timing import times_row

IMPORT = """
import time, torch
wall, worked = time.perf_counter(), time.process_time()
import alkit
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


def import_seconds() -> tuple[float, float]:
    """Seconds, and seconds of the processor, that `import alkit` takes in a new process that has torch."""
    done = subprocess.run([sys.executable, "-c", IMPORT], capture_output=True, text=True, check=True)
    wall, worked = map(float, done.stdout.split())
    return wall, worked


def first_step_seconds() -> float:
    """Seconds from the start of a run's process, as the grid starts it, until its first epoch, of one step, is over."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "run.yaml").write_text(PARAMETERS)
        command = [
            sys.executable, "-m", "alkit.job", "notebook", str(NOTEBOOKS / "methods" / "random.ipynb"),
            str(folder / "run.ipynb"), "-f", str(folder / "run.yaml"), "-r", "out_dir", name,
        ]  # fmt: skip
        began = time.perf_counter()
        run = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        while not (folder / "progress.json").exists():
            if run.poll() is not None:
                raise RuntimeError(f"the run ended before it trained: {run.communicate()[1].decode()[-500:]}")
            time.sleep(0.005)
        took = time.perf_counter() - began
        run.communicate()
    return took


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """Rows of seconds: the import beyond torch, and a run from its start to its first training step."""
    import_seconds()
    imports = [import_seconds() for _ in range(repetitions)]
    first_step_seconds()
    starts = [first_step_seconds() for _ in range(repetitions)]
    worked = [round(both[1], 5) for both in imports]
    return [
        times_row("import alkit, beyond torch", [both[0] for both in imports], "at most 0.3 s", cpu_seconds=worked),
        times_row("a run, from process start to its first training step", starts, "at most 5 s"),
    ]
