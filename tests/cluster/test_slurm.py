"""The grid on a real Slurm: a job pre-empted half way, one killed; both come back and lose nothing."""

from __future__ import annotations

import json
import os
import re
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
import yaml
from slurm_here import SlurmHere, why_not

from alkit import Experiment
from alkit.grid.planning import PROFILES, ROOT
from alkit.learner import ActiveLearner

STUDY = {
    "study": "cluster",
    "methods": ["random", "oo4al"],
    "seeds": [0],
    "dataset": "digits",
    "pool_size": 200,
    "test_size": 60,
    "initial": 20,
    "budget": 10,
    "cycles": 5,
    "model": "resnet10",
    "width": 4,
    "epochs": 40,
    "batch_size": 16,
    "milestones": [30],
    "checkpoint_seconds": 0,
    "threads": 1,
    "device": "cpu",
}
EVIDENCE = os.environ.get("ALKIT_SLURM_LOG")  # a folder: keep the logs of this run there

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(900)]


@pytest.fixture
def slurm() -> Iterator[SlurmHere]:
    if reason := why_not():
        pytest.skip(f"no Slurm can be set up here: {reason}")
    with SlurmHere() as here:
        yield here


def quick_profile(folder: Path) -> Path:
    """The profile for Slurm as it is, but looking more often, and with memory for a machine that is no cluster."""
    settings = yaml.safe_load((PROFILES / "slurm" / "config.yaml").read_text())
    settings |= {"slurm-init-seconds-before-status-checks": 2, "latency-wait": 10}
    for needs in settings["set-resources"].values():
        needs["mem_mb"] = 1000
    folder.mkdir()
    (folder / "config.yaml").write_text(yaml.safe_dump(settings))
    return folder


class Grid:
    """`alkit run` on the cluster, and what is known of its runs from outside."""

    def __init__(self, slurm: SlurmHere, folder: Path) -> None:
        self.slurm, self.folder = slurm, folder / "out" / "cluster"
        (folder / "study.yaml").write_text(yaml.safe_dump(STUDY))
        command = [sys.executable, "-m", "alkit", "run", folder / "study.yaml", "--out", folder / "out", "--profile",
                   quick_profile(folder / "profile"), "--no-summary"]  # fmt: skip
        self.log = folder / "alkit.log"
        with self.log.open("wb") as log:
            self.process = subprocess.Popen(command, stdout=log, stderr=log)

    def until(self, true: Callable[[], Any], what: str, patience: float = 240.0) -> Any:
        until = time.monotonic() + patience
        while not (found := true()):
            if time.monotonic() > until or self.process.poll() is not None:
                raise AssertionError(f"{what}: not seen\n{self.log.read_text()}\n{self.slurm.logs()}")
            time.sleep(0.3)
        return found

    def half_way(self) -> dict[Path, str]:
        """Runs in their second cycle or later that are not finished, and the job of each."""
        found = {}
        for progress in sorted(self.folder.glob("*/seed-*/progress.json")):
            state = json.loads(progress.read_text())
            if state["cycle"] >= 2 and state["state"] == "training" and not (progress.parent / "result.json").exists():
                with suppress(OSError, KeyError):  # a process that has ended
                    found[progress.parent] = job_of(state["pid"])
        return found


def job_of(pid: int) -> str:
    """The number of the job that a process belongs to."""
    environment = dict(item.partition("=")[::2] for item in Path(f"/proc/{pid}/environ").read_text().split("\0"))
    return environment["SLURM_JOB_ID"]


def test_the_grid_survives_a_killed_and_a_preempted_job(slurm: SlurmHere, tmp_path: Path) -> None:
    grid = Grid(slurm, tmp_path)
    disturbed: dict[Path, float] = {}
    try:
        runs = grid.until(grid.half_way, "a run half way")
        slurm.ask("sbatch", "--partition=high", "--gpus=2", "--mem=500", f"--output={tmp_path}/urgent", "--wrap=true")
        job = next(iter(runs.values()))
        grid.until(lambda: restarts(slurm, job), "a job is pre-empted and waits again")
        disturbed |= dict.fromkeys(runs, time.time())
        killed, job = grid.until(lambda: next(iter(grid.half_way().items()), None), "a run half way again")
        slurm.ask("scancel", "--signal=KILL", "--full", job)
        disturbed.setdefault(killed, time.time())
        grid.until(lambda: "RUNNING" not in state(slurm, job), "the killed job has ended")
        grid.process.wait(600)
    finally:
        keep_evidence(slurm, grid)
        grid.process.terminate()
        grid.process.wait()
    assert grid.process.returncode == 0, grid.log.read_text() + slurm.logs()
    assert len(list(grid.folder.glob("*/seed-*/result.json"))) == 2
    for run, when in disturbed.items():
        undisturbed = tmp_path / "local" / run.parent.name / run.name
        for _ in ActiveLearner(Experiment.from_yaml(run / "run.yaml"), undisturbed):
            pass
        for name in ("queries.npz", "predictions.npz"):
            assert (run / name).read_bytes() == (undisturbed / name).read_bytes(), f"{run}/{name}"
        assert numbers(run) == numbers(undisturbed)
        started = json.loads((run / "result.json").read_text())["started"]
        assert datetime.fromisoformat(started).timestamp() < when, "it went on, it did not begin anew"


def state(slurm: SlurmHere, job: str) -> str:
    return slurm.ask("squeue", "--noheader", "--states=all", "--format=%T", f"--jobs={job}")


def restarts(slurm: SlurmHere, job: str) -> int:
    """How often Slurm has put a job back into the queue."""
    found = re.search(r"\bRestarts=(\d+)", slurm.ask("scontrol", "show", "job", job))
    return int(found[1]) if found else 0


def numbers(folder: Path) -> list[dict[str, Any]]:
    """A record's cycles without the times."""
    cycles = json.loads((folder / "result.json").read_text())["cycles"]
    return [{key: value for key, value in cycle.items() if key != "seconds"} for cycle in cycles]


def keep_evidence(slurm: SlurmHere, grid: Grid) -> None:
    """The logs of a real run, without names of places and machines."""
    if EVIDENCE is None:
        return
    out = Path(EVIDENCE)
    out.mkdir(parents=True, exist_ok=True)
    sources = {"slurmctld.log": slurm.folder / "slurmctld.log", "jobs.txt": slurm.folder / "completed.txt",
               "snakemake.log": next(grid.folder.glob("logs/snakemake-*.log")), "alkit.log": grid.log}  # fmt: skip
    host = socket.gethostname().partition(".")[0]
    for name, source in sources.items():
        text = source.read_text(errors="replace").replace("\r", "\n")
        for path, word in ((grid.folder, "STUDY"), (slurm.folder, "SLURM"), (ROOT, "alkit"), (Path.home(), "HOME")):
            text = text.replace(str(path), word)
        text = re.sub(rf"\b{re.escape(host)}\b", "node", text)
        text = re.sub(r"^.*(?:Command:|Platform:|Host:|User:|sbatch call).*\n", "", text, flags=re.MULTILINE)
        (out / name).write_text(re.sub(r"/(?:tmp|root|home|work)/\S*", "PATH", text))


def test_without_slurm_the_reason_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("slurm_here.PATH", "/nowhere")
    assert "munged is not installed" in str(why_not())
