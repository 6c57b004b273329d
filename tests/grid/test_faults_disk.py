"""A disk that is full or read-only, a folder that goes away, checkpoints that are damaged."""

from __future__ import annotations

import fcntl
import os
import resource
import shutil
import subprocess
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import yaml
from conftest import TINY
from faults import (
    STUDY,
    Command,
    damaged,
    differences,
    once_in_cycle_2,
    run,
    slim_notebook,
    wait_until,
)
from test_learner import Killed, killed_after

from alkit import Experiment
from alkit.cli import main
from alkit.errors import CheckpointError
from alkit.grid import planning, runner

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


# --- the disk ---


@contextmanager
def mounted(folder: Path, *options: str) -> Iterator[Path]:
    """A file system of its own at `folder`."""
    if os.geteuid() != 0:
        pytest.skip("only root can mount a file system; the limit on file sizes is tested all the same")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", *options, "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", str(folder)], check=True)


def fill(folder: Path) -> Path:
    """A file that takes all the room that is left."""
    path = folder / "filler"
    with path.open("wb", buffering=0) as stream:
        for size in (65_536, 4096, 1):
            try:
                while True:
                    stream.write(bytes(size))
            except OSError:
                continue
    return path


@pytest.mark.parametrize("keep_models", [False, True])
def test_a_disk_that_fills_up_stops_the_run_in_one_line_and_room_lets_it_go_on(
    keep_models: bool, tiny: Make, experiment: Experiment, whole: Path, tmp_path: Path
) -> None:
    keeping = Experiment(**(experiment.model_dump() | {"keep_models": keep_models}))
    with mounted(tmp_path / "disk", "-o", "size=3m") as disk:
        with pytest.raises(CheckpointError, match=r"cannot be written \(No space left on device\)"):
            run(keeping, disk / "run", once_in_cycle_2(lambda: fill(disk) and None))
        (disk / "filler").unlink()
        run(keeping, disk / "run")
        assert [d for d in differences(disk / "run", whole) if d != "result.json: params"] == []
        assert not list((disk / "run").glob("*.tmp"))


def test_a_file_larger_than_allowed_stops_the_run_in_one_line(
    experiment: Experiment, whole: Path, tmp_path: Path
) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def limit() -> None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))

    try:
        with pytest.raises(
            CheckpointError, match=r"cannot be written \(File too large\); the checkpoint before is kept"
        ):
            run(experiment, tmp_path / "cut", once_in_cycle_2(limit))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    run(experiment, tmp_path / "cut")
    assert differences(tmp_path / "cut", whole) == []


def test_alkit_run_on_a_full_disk_says_so_in_one_line(
    study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-o", "size=1m") as disk:
        fill(disk)
        assert main(["run", str(study), "--out", str(disk)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "No space left on device" in error


@pytest.mark.slow
def test_a_disk_that_fills_up_during_alkit_run_is_named_and_room_lets_it_go_on(study: Path, tmp_path: Path) -> None:
    (tmp_path / "log").mkdir()
    with mounted(tmp_path / "disk", "-o", "size=3m") as disk:
        command = Command(study, "random", disk, tmp_path / "log")
        folder = disk / "faults" / "random" / "seed-0"
        assert wait_until((folder / "checkpoint.pt").exists, 120)
        filler = fill(disk)
        assert command.wait() == (1, 0), command.log.read_text()
        assert "its process ended without a word (the disk is full)" in command.log.read_text()
        assert not damaged(folder)
        filler.unlink()
        command.start()
        assert command.wait() == (0, 0), command.log.read_text()
        run(planning.make_plan(study, disk).runs[0].experiment, tmp_path / "whole")
        assert differences(folder, tmp_path / "whole") == []


def test_a_read_only_folder_is_refused_before_training(
    experiment: Experiment, study: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with mounted(tmp_path / "disk", "-o", "ro") as disk:
        with pytest.raises(CheckpointError, match="cannot be written"):
            run(experiment, disk / "run", lambda _: pytest.fail("trained"))
        assert main(["run", str(study), "--out", str(disk)]) == 2
        error = capsys.readouterr().err
        assert error.count("\n") == 1
        assert "cannot be written (Read-only file system)" in error


def test_a_finished_run_can_be_read_in_a_read_only_folder(experiment: Experiment, whole: Path, tmp_path: Path) -> None:
    with mounted(tmp_path / "disk") as disk:
        shutil.copytree(whole, disk / "run")
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        run(experiment, disk / "run", lambda _: pytest.fail("trained"))


# --- the folder ---


def test_a_folder_removed_during_the_run_is_made_again(experiment: Experiment, whole: Path, tmp_path: Path) -> None:
    folder = tmp_path / "cut"
    run(experiment, folder, once_in_cycle_2(lambda: shutil.rmtree(folder)))
    assert differences(folder, whole) == []
    with pytest.raises(Killed):
        run(experiment, tmp_path / "again", killed_after(6))
    shutil.rmtree(tmp_path / "again")  # and while nothing runs
    run(experiment, tmp_path / "again")
    assert differences(tmp_path / "again", whole) == []


def test_a_study_removed_while_it_runs_is_said_in_one_line(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(runner, "watch", lambda plan, *_: shutil.rmtree(plan.folder))
    assert main(["run", str(study), "--out", str(tmp_path), "--no-summary"]) == 2
    assert capsys.readouterr().err == (
        f"alkit: {tmp_path / 'faults'}: removed while its runs were at work; the command begins them anew\n"
    )


def test_a_folder_that_another_process_has_taken_over_is_left_to_it(experiment: Experiment, tmp_path: Path) -> None:
    folder, other = tmp_path / "cut", []

    def take_over() -> None:
        shutil.rmtree(folder)
        folder.mkdir()
        other.append((folder / ".lock").open("w"))
        fcntl.flock(other[0], fcntl.LOCK_EX)

    with pytest.raises(CheckpointError, match="another process is running this experiment there"):
        run(experiment, folder, once_in_cycle_2(take_over))
    assert [path.name for path in folder.iterdir()] == [".lock"]
    other[0].close()


def damage(path: Path, how: str) -> None:
    content = bytearray(path.read_bytes())
    if how == "flipped":
        content[len(content) // 2] ^= 16
    path.write_bytes({"truncated": content[: len(content) // 3], "flipped": content, "empty": b""}[how])


@pytest.mark.parametrize("how", ["truncated", "flipped", "empty"])
def test_a_damaged_checkpoint_is_noticed_and_the_run_ends_in_the_same_bytes(
    how: str, experiment: Experiment, whole: Path, tmp_path: Path
) -> None:
    for files in (["checkpoint.pt"], ["checkpoint.pt", "checkpoint.previous.pt"]):
        folder = tmp_path / str(len(files))
        with pytest.raises(Killed):
            run(experiment, folder, killed_after(8))
        for name in files:
            damage(folder / name, how)
        with pytest.warns(UserWarning, match=r"checkpoint\.pt: truncated or damaged") as warned:
            run(experiment, folder)
        then = ["going on from the checkpoint before", "beginning anew"][: len(files)]
        said = [str(warning.message) for warning in warned]
        assert [text.split("; ")[1] for text in said if "damaged" in text] == then
        assert differences(folder, whole) == []
