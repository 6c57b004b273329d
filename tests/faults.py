"""Faults for tests: runs that are killed at a chosen moment, and what they leave compared bit for bit.

As a program it is a server that has imported all and runs experiments in forks of itself, so that a run to be killed
costs no start: `Forks` starts it.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import psutil

from alkit.grid.planning import NOTEBOOKS

FILES = ("queries.npz", "predictions.npz")
TRIAL = "ALKIT_TEST_TRIAL"
"""Environment variable that marks every process of one trial."""


# --- what a run leaves ---


def numbers(folder: Path) -> dict[str, Any]:
    """All of result.json but times, and but which commit of the kit made it."""
    result: dict[str, Any] = json.loads((folder / "result.json").read_text())
    for key in ("started", "finished", "code"):
        del result[key]
    del result["environment"]["git_commit"]
    for cycle in result["cycles"]:
        del cycle["seconds"]
    if result["params"]["pretext_losses"]:  # a path; its checksum is compared
        result["params"]["pretext_losses"] = "given"
    return result


def differences(folder: Path, reference: Path) -> list[str]:
    """What differs between two runs that should be the same, by file and key; empty if nothing does."""
    files = [name for name in FILES if (folder / name).read_bytes() != (reference / name).read_bytes()]
    one, other = numbers(folder), numbers(reference)
    return files + [f"result.json: {key}" for key in one | other if one.get(key) != other.get(key)]


def damaged(folder: Path) -> list[str]:
    """Files under their final names that are not whole; empty if a kill left none."""
    from alkit.errors import CheckpointError
    from alkit.storage.checkpoint import _read

    bad = []
    for path in (p for p in folder.rglob("*") if p.is_file() and not p.name.startswith(".")):
        try:
            if path.suffix == ".json":
                json.loads(path.read_text())
            elif path.suffix == ".npz":
                with np.load(path, allow_pickle=False) as file:
                    assert all(file[name] is not None for name in file.files)
            elif path.suffix == ".pt":
                _read(path)
        except FileNotFoundError:
            continue
        except (OSError, ValueError, CheckpointError):
            bad.append(str(path.relative_to(folder)))
    return bad


# --- processes of a trial ---


def processes(trial: str) -> list[psutil.Process]:
    """The living processes that were started, at any remove, with TRIAL=`trial` in their environment."""
    found = []
    for process in psutil.process_iter():
        with suppress(psutil.Error):
            if process.environ().get(TRIAL) == trial and process.status() != psutil.STATUS_ZOMBIE:
                found.append(process)
    return found


def job(process: psutil.Process) -> str | None:
    """`kernel`, `notebook` (papermill) or `snakemake` for a process of `alkit.grid.job`."""
    with suppress(psutil.Error):
        line = [part for part in process.cmdline() if part != "-P"]
        return line[3] if line[1:3] == ["-m", "alkit.grid.job"] and len(line) > 3 else None
    return None


def wait_until(condition: Callable[[], bool], seconds: float, step: float = 0.05) -> bool:
    until = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > until:
            return False
        time.sleep(step)
    return True


def slim_notebook(name: str, folder: Path) -> None:
    """Write `folder`/NAME.ipynb: the kit's notebook up to the cell that runs, without its pictures."""
    content = json.loads((NOTEBOOKS / f"{name}.ipynb").read_text())
    wanted = ("kit-colab", "kit-setup", "kit-parameters", "kit-run")
    content["cells"] = [cell for cell in content["cells"] if cell["id"] in wanted]
    path = folder / f"{name}.ipynb"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content).replace("import notebook, plots", "import notebook"))


COMMAND = """
import sys
from pathlib import Path
from alkit.grid import planning
planning.NOTEBOOKS = Path(sys.argv.pop(1))
from alkit.cli import main
sys.exit(main())
"""


def _hear_interrupts() -> None:
    """Ctrl-C is ignored by what a shell starts in the background, and by its children: the tests may be among them."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class Command:
    """`alkit run` of one label of a study into `out`, with the notebooks beside the study file; can be killed."""

    def __init__(self, study: Path, label: str, out: Path, logs: Path | None = None) -> None:
        self.options = ["run", str(study), "--methods", label, "--out", str(out), "--cores", "1", "--no-summary"]
        self.arguments = [sys.executable, "-c", COMMAND, str(study.parent / "notebooks"), *self.options]
        self.trial, self.log = f"{out}-{os.getpid()}", (logs or out) / "output.txt"
        self.start()

    def start(self) -> None:
        environment = os.environ | {TRIAL: self.trial, "OMP_NUM_THREADS": "1"}
        with self.log.open("ab") as output:
            self.process = subprocess.Popen(self.arguments, stdout=output, stderr=output, env=environment,
                                            preexec_fn=_hear_interrupts)  # fmt: skip

    def ended(self) -> bool:
        return self.process.poll() is not None

    def kill(self, target: str) -> bool:
        """Kill -9 what `target` names (`all`: everything) as soon as it is there; False if the command ended before."""
        while not self.ended():
            living = processes(self.trial)
            own = self.process.pid if target == "alkit" else None
            victims = [p for p in living if target in ("all", job(p)) or p.pid == own]
            for victim in victims:
                victim.kill()
            if victims:
                return True
            time.sleep(0.02)
        return False

    def wait(self) -> tuple[int, int]:
        """The command's exit status, and how many of its processes are left a while after its end."""
        code = self.process.wait(timeout=280)
        wait_until(lambda: not processes(self.trial), 20, 0.1)
        return code, len(processes(self.trial))


# --- runs in this process ---

STUDY: dict[str, Any] = {
    "study": "faults", "methods": ["random"], "dataset": "digits", "initial": 20, "budget": 20, "cycles": 3,
    "width": 4, "epochs": 60, "pool_size": 400, "test_size": 100, "checkpoint_seconds": 0, "threads": 1,
    "device": "cpu",
}  # fmt: skip


def run(experiment: Any, folder: Path, progress: Callable[[dict[str, Any]], None] | None = None) -> None:
    from alkit import ActiveLearner

    list(ActiveLearner(experiment, folder, progress))


def once_in_cycle_2(action: Callable[[], None]) -> Callable[[dict[str, Any]], None]:
    """A progress report that does `action` after the first epoch of cycle 2."""
    left = [action]

    def report(status: dict[str, Any]) -> None:
        if status["cycle"] == 2 and left:
            left.pop()()

    return report


# --- runs in forks ---


class Forks:
    """Runs experiments in processes that can be killed, each a fork of one server."""

    def __init__(self) -> None:
        environment = os.environ | {"OMP_NUM_THREADS": "1"}
        self.server = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )

    def run(
        self, experiment: Any, folder: Path, kill_at: int | None = None, seconds_later: float = 0.0
    ) -> dict[str, Any]:
        """Run in `folder`, ended by a signal at one of its operations on files, or so many seconds after it.

        A moment is told by the run's own steps, so that it comes before the run's end on a busy machine as well.
        Returns `exit`, `seconds`, `operations` (in a run that was not killed) and `error`.
        """
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        order = {"params": experiment.model_dump(), "folder": str(folder), "at": kill_at, "later": seconds_later}
        self.server.stdin.write(json.dumps(order) + "\n")
        self.server.stdin.flush()
        answer: dict[str, Any] = json.loads(self.server.stdout.readline())
        return answer

    def close(self) -> None:
        assert self.server.stdin is not None
        self.server.stdin.close()
        self.server.wait()


def _serve() -> None:
    import torch

    import alkit.learner
    import alkit.training.pretext.run

    torch.set_num_threads(1)
    for line in sys.stdin:
        order = json.loads(line)
        read, write = os.pipe()
        began = time.monotonic()
        child = os.fork()
        if child == 0:
            os.close(read)
            _child(alkit.learner.ActiveLearner, alkit.training.pretext.run.with_pretext, order, write)
        os.close(write)
        status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        with os.fdopen(read) as stream:
            said = stream.read()
        answer = {"exit": status, "seconds": time.monotonic() - began} | (json.loads(said) if said else {})
        print(json.dumps(answer), flush=True)


def _child(learner: Any, with_pretext: Any, order: dict[str, Any], write: int) -> NoReturn:
    from alkit import Experiment
    from alkit.errors import AlkitError

    os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
    operations = _die_at(order["at"], order["later"])
    said: dict[str, Any] = {}
    try:
        list(learner(with_pretext(Experiment(**order["params"]), order["folder"]), order["folder"]))
    except AlkitError as error:
        said["error"] = str(error)
    said["operations"] = next(operations)
    os.write(write, json.dumps(said).encode())
    os._exit(2 if "error" in said else 0)


def _die_at(number: int | None, later: float) -> Iterator[int]:
    """Count the moments before and after each flush, rename and removal of a file; at `number` comes the kill."""
    count = iter(range(1_000_000))

    def moment() -> None:
        if next(count) != number:
            return
        if later:
            signal.setitimer(signal.ITIMER_REAL, later)  # nothing catches SIGALRM: it ends the process where it stands
        else:
            os.kill(os.getpid(), signal.SIGKILL)

    def around(function: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **options: Any) -> Any:
            moment()
            result = function(*arguments, **options)
            moment()
            return result

        return wrapped

    for name in ("fsync", "replace", "unlink"):
        setattr(os, name, around(getattr(os, name)))
    return count


if __name__ == "__main__":
    _serve()
