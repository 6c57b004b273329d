"""Runs that were given some minutes stop at a checkpoint, and go on to the same bytes."""

from __future__ import annotations

import os
import runpy
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alkit import ActiveLearner, Experiment
from alkit.cli import main
from alkit.errors import DataError, OutOfTimeError
from alkit.training import deadline
from alkit.training.pretext.run import run_pretext

ROOT = Path(__file__).parents[2]
Make = Callable[..., Experiment]


def test_without_a_deadline_or_with_nonsense_the_time_is_never_over(monkeypatch: pytest.MonkeyPatch) -> None:
    for value, over in (("", False), ("soon", False), ("1e18", False), ("0", True)):
        monkeypatch.setenv(deadline.UNTIL, value)
        assert deadline.passed() is over
    monkeypatch.delenv(deadline.UNTIL)
    assert not deadline.passed()


def test_a_run_whose_time_is_over_stops_after_its_epoch_and_goes_on_to_the_same_bytes(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    experiment = tiny(epochs=3)
    list(ActiveLearner(experiment, tmp_path / "whole"))
    monkeypatch.setenv(deadline.UNTIL, "0")
    for cycle, epoch in ((1, 1), (1, 2), (2, 1), (2, 2)):
        with pytest.raises(
            OutOfTimeError, match=f"in cycle {cycle} after epoch {epoch}; started again, the run goes on"
        ):
            list(ActiveLearner(experiment, tmp_path / "parts"))
    list(ActiveLearner(experiment, tmp_path / "parts"))
    for name in ("queries.npz", "predictions.npz"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()


def test_a_pretext_task_stops_too(tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    experiment = tiny(method="pt4al", pretext_epochs=2)
    whole = run_pretext(experiment, tmp_path / "whole.npz")
    monkeypatch.setenv(deadline.UNTIL, "0")
    with pytest.raises(OutOfTimeError, match="in epoch 1 of the pretext task"):
        run_pretext(experiment, tmp_path / "parts.npz")
    assert np.array_equal(run_pretext(experiment, tmp_path / "parts.npz").losses, whole.losses)


@pytest.fixture
def without_jupyter(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """The environment of a process that finds neither Jupyter nor Snakemake, as on a borrowed machine."""
    folder = tmp_path_factory.mktemp("without")
    for name in ("papermill", "nbclient", "nbformat", "nbconvert", "ipykernel", "ipywidgets", "IPython", "snakemake"):
        (folder / f"{name}.py").write_text(f"raise ImportError('no {name} here')\n")
    return os.environ | {"PYTHONPATH": str(folder)}


def test_the_tests_of_a_card_need_no_jupyter(without_jupyter: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "--collect-only", "-m", "cuda", "-p", "no:cacheprovider"]
    files = ["tests/models/test_steps.py", "tests/strategies/test_k_means.py"]  # as docs/gpu.md has them
    done = subprocess.run(
        [*command, *files], cwd=ROOT, env=without_jupyter, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout
    assert "test_on_a_card_a_recorded_graph_network_ends_in_the_same_bits" in done.stdout


def test_the_plan_for_a_borrowed_gpu_works_without_snakemake_and_leaves_what_alkit_run_goes_on_with(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], without_jupyter: dict[str, str]
) -> None:
    def hour(*arguments: str) -> str:
        command = [sys.executable, "scripts/gpu_hour.py", "--out", str(tmp_path), "--device", "cpu", *arguments]
        done = subprocess.run(command, cwd=ROOT, env=without_jupyter, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "0 of 2 runs finished; the same command goes on" in hour("--minutes", "0", "params/tiny.yaml")
    out = hour("--minutes", "5", "--runs", "2", "params/tiny.yaml")
    assert "tiny: oo4al, seed 0: " in out
    assert "2 of 2 runs finished; nothing is left" in out
    assert hour("--minutes", "5", "params/tiny.yaml").endswith("nothing is left\n")
    assert main(["run", str(ROOT / "params" / "tiny.yaml"), "--out", str(tmp_path), "--dry-run"]) == 0
    assert "0 of 2 runs to do" in capsys.readouterr().out


def test_the_plan_for_a_borrowed_gpu_says_once_and_first_that_images_are_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def bring(experiment: Any) -> None:  # of CIFAR-10 sizes and shape are known without its images
        if experiment.dataset == "cifar10":
            raise DataError("no CIFAR-10 here and it could not be downloaded")

    monkeypatch.setattr("alkit.data.load_for", bring)
    (tmp_path / "mine.yaml").write_text("study: mine\ndataset: cifar10\n")
    main_of = runpy.run_path(str(ROOT / "scripts" / "gpu_hour.py"))["main"]
    arguments = ["--minutes", "1", "--out", str(tmp_path / "out"), "params/tiny.yaml", str(tmp_path / "mine.yaml")]
    monkeypatch.setattr(sys, "argv", ["gpu_hour.py", *arguments])
    monkeypatch.setenv("ALKIT_UNTIL", "")
    monkeypatch.chdir(ROOT)
    assert main_of() == 2
    said = capsys.readouterr()
    assert said.err == "gpu_hour: no CIFAR-10 here and it could not be downloaded\n"
    assert "to do" not in said.out
    assert not (tmp_path / "out").exists()


def test_in_the_plan_for_a_borrowed_gpu_no_run_waits_for_a_pretext_task_while_others_could_work(tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text("study: s\nmethods: [random, pt4al, margin, pt4al_cold_start]\nseeds: [3, 1]\n")
    plan_of = runpy.run_path(str(ROOT / "scripts" / "gpu_hour.py"))["plan_of"]
    _, jobs = plan_of(str(tmp_path / "s.yaml"), tmp_path, "cpu")
    methods = ["pt4al", "random", "margin", "pt4al_cold_start"]  # the first makes the losses, the last needs them
    assert [job[0] for job in jobs] == [f"s: {method}, seed {seed}" for seed in (3, 1) for method in methods]


def test_alkit_run_stops_after_its_minutes_and_the_same_command_goes_on(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "s.yaml").write_text(
        "study: s\nmethods: [random, margin]\nseeds: [0]\ndataset: digits\npool_size: 300\ntest_size: 60\ninitial: 20\n"
        "budget: 10\ncycles: 2\nwidth: 4\nepochs: 20000\nmilestones: []\nthreads: 1\ncheckpoint_seconds: 1000\n"
    )

    command = ["run", str(tmp_path / "s.yaml"), "--out", str(tmp_path / "out"), "--cores", "1", "--no-summary"]
    assert main([*command, "--minutes", "0.35"]) == 1
    said = capsys.readouterr().err
    assert "stopped after 0.35 minutes with " in said
    assert "the same command goes on" in said
    assert "failed" not in said
    left = [path.name for path in (tmp_path / "out" / "s").glob("*/seed-0/*")]
    assert {"checkpoint.pt", "result.json"} & set(left), left
    for wrong in ("0", "-1", "soon", "inf"):
        with pytest.raises(SystemExit):
            main([*command, "--minutes", wrong])
        assert "expected a number of minutes above 0" in capsys.readouterr().err
    if not torch.cuda.is_available():
        assert main([*command, "--runs-per-gpu", "3"]) == 2
        assert "no CUDA GPU is here" in capsys.readouterr().err


def test_without_a_cuda_gpu_a_run_takes_the_cpu_also_where_apples_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no float64, which strategies and measures count in."""
    from alkit.training.devices import choose_device

    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert choose_device("auto") == torch.device("cpu")


def test_runs_on_one_gpu_spread_over_its_places(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from alkit.training import devices

    monkeypatch.setattr("tempfile.gettempdir", lambda: str(tmp_path))
    monkeypatch.setenv(devices.RUNS_PER_GPU, "2")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    claimed = []
    for _ in range(5):
        monkeypatch.setattr(devices, "_held", {})  # another process
        claimed.append((devices._claim(2), dict(devices._held)))
    assert [index for index, _ in claimed] == [0, 1, 0, 1, 0], (
        "each GPU once, then each again; then the first is shared"
    )


def test_without_mps_runs_take_turns_and_it_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from alkit.training import sharing

    monkeypatch.setenv("PATH", str(tmp_path))
    with sharing.mps() as (environment, words):
        assert environment == {}
        assert "take turns" in words
    program = tmp_path / sharing.PROGRAM
    program.write_text("#!/bin/sh\necho not allowed here >&2\nexit 1\n")
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{tmp_path}:/bin:/usr/bin")
    with sharing.mps() as (environment, words):
        assert environment == {}
        assert words == "MPS cannot be used here (not allowed here): runs on one GPU take turns"
