"""Faults beyond the disk: changed parameters and code, a wrong clock, no memory, a loss that is no number, Ctrl-C."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import TINY
from faults import (
    STUDY,
    TRIAL,
    Command,
    differences,
    job,
    once_in_cycle_2,
    processes,
    run,
    slim_notebook,
    wait_until,
)
from test_learner import Killed, killed_after

from alkit import ActiveLearner, Experiment
from alkit.cli import main
from alkit.errors import CheckpointError, TrainingError
from alkit.grid import planning
from alkit.grid.status import state_of
from alkit.storage.checkpoint import load_checkpoint
from alkit.training import devices
from alkit.training.loop import Trainer, predict

Make = Callable[..., Experiment]


@pytest.fixture(scope="module")
def experiment() -> Experiment:
    return Experiment(**(TINY | {"method": "oo4al", "cycles": 3, "epochs": 3, "checkpoint_seconds": 0.0}))


@pytest.fixture(scope="module")
def whole(experiment: Experiment, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a run that nothing happened to."""
    folder = tmp_path_factory.mktemp("whole")
    run(experiment, folder)
    return folder


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("study")
    (folder / "faults.yaml").write_text(yaml.safe_dump(STUDY))
    slim_notebook("methods/random", folder / "notebooks")
    return folder / "faults.yaml"


# --- the study's folder ---


def files_of(folder: Path) -> list[tuple[Path, int]]:
    return sorted((p, p.stat().st_mtime_ns) for p in folder.rglob("*") if p.is_file() and "lock" not in p.name)


def test_a_changed_parameter_is_refused_by_name_unless_it_is_to_begin_anew(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    plan = planning.make_plan(study, tmp_path)
    planning.prepare(plan, 1)
    begun = plan.runs[0]
    with pytest.raises(Killed):
        run(begun.experiment, begun.folder, killed_after(5))
    changed = study.with_name("changed.yaml")
    changed.write_text(yaml.safe_dump(STUDY | {"budget": 10}))
    before = files_of(tmp_path)
    assert main(["run", str(changed), "--out", str(tmp_path)]) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "holds a run with budget = 20, not 10" in error
    assert "--rerun random" in error
    assert files_of(tmp_path) == before
    planning.prepare(planning.make_plan(changed, tmp_path), 1, rerun=["random"])
    assert not list(begun.folder.glob("*.pt"))


def test_a_run_whose_parameters_were_removed_is_still_refused_by_its_checkpoint(study: Path, tmp_path: Path) -> None:
    plan = planning.make_plan(study, tmp_path)
    begun = plan.runs[0]
    with pytest.raises(Killed):
        run(begun.experiment, begun.folder, killed_after(5))
    planning.prepare(plan, 1)  # no run.yaml is there: nothing to refuse by
    with pytest.raises(CheckpointError, match="holds a run with budget = 20, not 10"):
        run(Experiment(**(begun.experiment.model_dump() | {"budget": 10})), begun.folder)


def test_another_version_of_the_kit_is_recorded_with_a_warning(
    experiment: Experiment, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(devices, "git_commit", lambda: "a" * 40)
    with pytest.raises(Killed):
        run(experiment, tmp_path / "cut", killed_after(6))
    monkeypatch.setattr(devices, "git_commit", lambda: "b" * 40)
    with pytest.warns(UserWarning, match=rf"begun with another version of the kit \({'a' * 40}\)"):
        run(experiment, tmp_path / "cut")
    assert json.loads((tmp_path / "cut" / "result.json").read_text())["code"] == ["a" * 40, "b" * 40]
    assert differences(tmp_path / "cut", whole) == []


def test_two_commands_a_clock_set_back_and_being_stopped(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One study through the whole command; each step would cost a start of its own."""
    long = study.with_name("long.yaml")  # so that it is still at work when it is stopped, however slow the rest is
    long.write_text(yaml.safe_dump(STUDY | {"epochs": 120}))
    study = long
    folder = tmp_path / "faults" / "random" / "seed-0"
    command = Command(study, "random", tmp_path)
    assert wait_until((tmp_path / "faults" / "study.yaml").exists, 120)
    assert main(command.options) == 2
    assert f"in use by alkit run, process {command.process.pid} on " in capsys.readouterr().err
    for number in (signal.SIGINT, signal.SIGTERM):
        assert wait_until((folder / "progress.json").exists, 120)
        assert not command.ended(), command.log.read_text()
        began = time.monotonic()
        command.process.send_signal(number)
        assert command.process.wait(timeout=60) == 130
        assert time.monotonic() - began < 5 * max(1.0, os.getloadavg()[0] / (os.cpu_count() or 1))  # of a free core
        assert wait_until(lambda: not processes(command.trial), 5)
        assert command.log.read_text().endswith("stopped. The same command goes on from the last checkpoints.\n")
        (folder / "progress.json").unlink()
        command.start()
    assert command.wait() == (0, 0), command.log.read_text()
    run(planning.make_plan(study, tmp_path).runs[0].experiment, tmp_path / "whole")
    assert differences(folder, tmp_path / "whole") == []

    record = json.loads((folder / "result.json").read_text())
    record["environment"]["git_commit"] = "c" * 40
    (folder / "result.json").write_text(json.dumps(record))
    tomorrow = time.time() + 86_400
    for path in tmp_path.rglob("*"):  # what was written before the clock was set back
        os.utime(path, (tomorrow, tomorrow))
    assert main(command.options) == 0
    assert "with another version of the kit (cccccccccccc;" in capsys.readouterr().err
    assert (folder / "result.json").stat().st_mtime == tomorrow  # it was not run again
    assert state_of(folder, time.time())["state"] == "finished"


def test_a_clock_set_back_during_the_run_changes_nothing(
    experiment: Experiment, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def set_back() -> None:
        monkeypatch.setattr(time, "time", lambda: 1_000_000_000.0)

    with pytest.raises(Killed):
        run(experiment, tmp_path / "cut", killed_after(4))
    run(experiment, tmp_path / "cut", once_in_cycle_2(set_back))
    assert differences(tmp_path / "cut", whole) == []


# --- training ---


def test_a_loss_that_is_no_number_stops_the_run_and_keeps_the_cycle_before(
    experiment: Experiment, whole: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Make
) -> None:
    with pytest.raises(TrainingError, match=r"not a number in cycle 1, epoch 1, batch \d \(learning rate 1e\+30\)"):
        run(tiny(lr=1e30), tmp_path / "large")
    steps = Trainer._steps

    def not_a_number(self: Trainer, rate: float) -> torch.Tensor:
        losses = steps(self, rate)
        if (self.cycle, self.epoch) == (2, 1):
            losses[-1] = torch.nan
        return losses

    monkeypatch.setattr(Trainer, "_steps", not_a_number)
    with pytest.raises(TrainingError, match=r"not a number in cycle 2, epoch 2, batch 2 \(learning rate 0\.005\)"):
        run(experiment, tmp_path / "cut")
    saved = load_checkpoint(tmp_path / "cut" / "checkpoint.pt")
    assert saved is not None
    assert [record["cycle"] for record in saved["state"]["records"]] == [1]
    monkeypatch.undo()
    run(experiment, tmp_path / "cut")
    assert differences(tmp_path / "cut", whole) == []


def no_memory(*_: Any) -> torch.Tensor:
    return torch.empty(2**60)  # a real refusal of the allocator


def test_no_memory_for_training_is_one_clear_line(
    experiment: Experiment, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules["alkit.training.loop"].OBJECTIVES, "cmam", no_memory)
    with pytest.raises(TrainingError, match="out of memory in cycle 1, epoch 1, with 16 images a batch; a smaller"):
        run(experiment, tmp_path)


def test_no_memory_for_evaluation_halves_the_batch(tiny: Make) -> None:
    learner = ActiveLearner(tiny())
    sizes: list[int] = []

    class Hungry(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            sizes.append(len(images))
            return images.mean((1, 2, 3))[:, None] if len(images) <= 8 else no_memory()

    logits = predict(Hungry(), learner.test, batch_size=32)
    assert sizes[:3] == [32, 16, 8]
    assert torch.equal(logits, predict(Hungry(), learner.test, batch_size=8))


def test_other_errors_while_evaluating_are_not_taken_for_a_lack_of_memory(tiny: Make) -> None:
    class Broken(torch.nn.Module):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            raise RuntimeError("shapes do not fit")

    with pytest.raises(RuntimeError, match="shapes do not fit"):
        predict(Broken(), ActiveLearner(tiny()).test)


def test_ctrl_c_lets_go_of_the_folder(experiment: Experiment, whole: Path, tmp_path: Path) -> None:
    def interrupt() -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(experiment, tmp_path / "cut", once_in_cycle_2(interrupt))
    run(experiment, tmp_path / "cut")
    assert differences(tmp_path / "cut", whole) == []


# --- processes ---


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux lets another process than the first adopt orphans")
def test_a_kernel_ends_with_papermill_even_if_it_was_only_starting(study: Path, tmp_path: Path) -> None:
    adopt = ctypes.CDLL(None).prctl
    assert adopt(36, 1, 0, 0, 0) == 0  # PR_SET_CHILD_SUBREAPER: as a desktop session, or a container's first process
    try:
        (tmp_path / "run.yaml").write_text("{}\n")
        process = subprocess.Popen(
            [sys.executable, "-m", "alkit.grid.job", "notebook", str(study.parent / "notebooks/methods/random.ipynb"),
             str(tmp_path / "run.ipynb"), "-f", str(tmp_path / "run.yaml")],
            env=os.environ | {TRIAL: str(tmp_path)}, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        assert wait_until(lambda: any(job(p) == "kernel" for p in processes(str(tmp_path))), 60, 0.01)
        process.kill()
        process.wait()
        assert wait_until(lambda: not processes(str(tmp_path)), 10)
    finally:
        adopt(36, 0, 0, 0, 0)
