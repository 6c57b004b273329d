"""Killed at any moment, and started again: the same bytes as if nothing had happened.

`--kills 50` kills a whole study's command at 50 random moments, not at a few; `--kills-csv FILE` keeps a line a kill.
"""

from __future__ import annotations

import csv
import random
import shutil
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from faults import Command, Forks, damaged, differences, run, slim_notebook, wait_until

from alkit import Experiment
from alkit.grid import planning
from alkit.grid.runner import read_mapping
from alkit.training.pretext.run import with_pretext

Make = Callable[..., Experiment]

STATEFUL: dict[str, dict[str, Any]] = {
    "oo4al_warm_start": {"method": "oo4al", "quirks": {"warm_start": True}},
    "early_stopping": {"method": "ranked_margin", "early_stopping": 2, "validation_size": 20, "epochs": 8, "lr": 0.2},
    "best_epoch": {"method": "pt4al", "pretext_epochs": 4, "quirks": {"best_test_checkpoint": True}},
    "ll4al": {"method": "ll4al"},
    "vaal": {"method": "vaal", "vae_epochs": 2},
    "hierarchical": {"method": "hierarchical"},
    "sbias": {"method": "sbias", "optimizer": "adam", "lr": 0.001},
    "temperature_scaling": {"method": "temperature_scaling", "subset": 50},
}
RETRIED = ("kernel", "notebook")
"""What Snakemake tries once more by itself; `notebook` is papermill's process."""
TARGETS = (*RETRIED, "snakemake", "alkit", "all")
CHAIN: dict[str, Any] = {
    "study": "kills", "methods": ["random", "pt4al", "vaal", "hierarchical"], "seeds": [0],
    "variants": {
        "warm_start": {"method": "oo4al", "quirks": {"warm_start": True}},
        "early_stopping": {"method": "margin", "early_stopping": 3, "validation_size": 20},
        "sbias": {"method": "sbias", "optimizer": "adam", "lr": 0.001},
    },
    "dataset": "digits", "initial": 20, "budget": 20, "cycles": 3, "model": "resnet10", "width": 4, "epochs": 12,
    "batch_size": 32, "milestones": [9], "pool_size": 500, "test_size": 200, "posterior_samples": 8, "vae_epochs": 3,
    "vae_width": 4, "vae_latent": 4, "pretext_epochs": 8, "checkpoint_seconds": 0, "threads": 1, "device": "cpu",
}  # fmt: skip
LABELS = ("pt4al", "warm_start", "sbias", "early_stopping", "vaal", "hierarchical", "random")


# --- one run, killed from without and from within ---


@pytest.fixture(scope="module")
def forks() -> Iterator[Forks]:
    server = Forks()
    yield server
    server.close()


@pytest.mark.parametrize("name", STATEFUL)
def test_a_run_killed_at_random_moments_ends_in_the_same_bytes(
    name: str, tiny: Make, forks: Forks, tmp_path: Path
) -> None:
    experiment = tiny(**{"cycles": 3, "epochs": 4, "checkpoint_seconds": 0.0} | STATEFUL[name])
    whole = forks.run(experiment, tmp_path / "whole")
    assert whole["exit"] == 0, whole
    source, apart = random.Random(name), whole["seconds"] / whole["operations"]
    for share in (0.5, 0.3):  # kills of the same run, the second after it went on from the first
        moment = int(source.uniform(0.05, share) * whole["operations"])
        answer = forks.run(experiment, tmp_path / "cut", moment, seconds_later=source.uniform(0.001, apart))
        assert answer["exit"] == -signal.SIGALRM
        assert not damaged(tmp_path / "cut")
    assert forks.run(experiment, tmp_path / "cut")["exit"] == 0
    assert differences(tmp_path / "cut", tmp_path / "whole") == []
    assert not [path.name for path in (tmp_path / "cut").iterdir() if path.suffix in (".tmp", ".pt")]


def test_a_run_killed_around_any_operation_on_its_files_ends_in_the_same_bytes(
    tiny: Make, forks: Forks, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    experiment = tiny(method="oo4al", checkpoint_seconds=0.0, keep_models=True)
    count = forks.run(experiment, tmp_path / "whole")["operations"]
    assert count > 40
    # all of them with --all; else the last ten, of the record itself, and some of the rest
    every = request.config.getoption("--all")
    chosen = range(count) if every else [*random.Random(0).sample(range(count - 10), 3), *range(count - 10, count)]
    for moment in chosen:
        folder = tmp_path / f"cut {moment}"
        forks.run(experiment, folder, kill_at=moment)
        assert not damaged(folder), moment
        assert forks.run(experiment, folder)["exit"] == 0
        assert differences(folder, tmp_path / "whole") == [], moment
        assert not list(folder.glob("*.pt"))


# --- the whole command: alkit run, Snakemake, papermill, kernel ---

START = 8.0
"""Seconds of a command beside its run, about: of four processes that import what they need."""
IN_A_ROW = 3
"""Kills of one run, each at a moment after it went on from the one before."""
FEW = [(1, IN_A_ROW)]
"""Without --kills: the command, everything, and the kernel."""


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    if "trial" in metafunc.fixturenames:
        count = metafunc.config.getoption("--kills")
        trials = [(i, min(IN_A_ROW, count - i * IN_A_ROW)) for i in range(-(-count // IN_A_ROW))] if count else FEW
        metafunc.parametrize("trial", trials, ids=lambda trial: f"{trial[0]}-{LABELS[trial[0] % len(LABELS)]}")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study file beside notebooks that run the method and draw nothing."""
    folder = tmp_path_factory.mktemp("study")
    (folder / "kills.yaml").write_text(yaml.safe_dump(CHAIN))
    for name in ["pretext", *(f"methods/{method}" for method in [*CHAIN["methods"], "oo4al", "margin", "sbias"])]:
        slim_notebook(name, folder / "notebooks")
    return folder / "kills.yaml"


Reference = Callable[[str], tuple[Path, float]]


@pytest.fixture(scope="module")
def undisturbed(study: Path, tmp_path_factory: pytest.TempPathFactory) -> Reference:
    """`undisturbed(label)`: the folder of a run in this process that nothing happened to, and a command's seconds."""
    made: dict[str, tuple[Path, float]] = {}

    def reference(label: str) -> tuple[Path, float]:
        if label not in made:
            (planned,) = planning.make_plan(study, tmp_path_factory.mktemp(label), [label]).runs
            began = time.monotonic()
            run(with_pretext(planned.experiment, planned.folder.parent), planned.folder)
            made[label] = planned.folder, START + time.monotonic() - began
        return made[label]

    return reference


@pytest.mark.timeout(900)  # four starts of the whole command
def test_a_study_killed_at_random_moments_ends_in_the_same_bytes(
    trial: tuple[int, int], study: Path, undisturbed: Reference, tmp_path: Path, request: pytest.FixtureRequest
) -> None:
    number, kills = trial
    label, source = LABELS[number % len(LABELS)], random.Random(number)
    reference, seconds = undisturbed(label)
    command, rows = Command(study, label, tmp_path), list[dict[str, Any]]()
    folder = tmp_path / "kills" / label / "seed-0"
    while len(rows) < kills:
        target = TARGETS[(number * IN_A_ROW + len(rows)) % len(TARGETS)]
        row = kill_once(command, target, folder, source, seconds)
        if row is not None:
            rows.append({"trial": number, "run": label} | row | {"half_written": len(damaged(tmp_path / "kills"))})
        elif command.process.returncode == 0:  # faster than the moment: begun anew
            assert differences(folder, reference) == []
            shutil.rmtree(tmp_path / "kills")
        if row is None or target not in RETRIED:
            code, left = command.wait()
            if row is not None:
                rows[-1] |= {"exit": code, "orphans": left}
            command.start()
    code, left = command.wait()
    if code:
        command.start()
        code, left = command.wait()
    differs = differences(folder, reference) if code == 0 else ["nothing came out"]
    _keep(request.config.getoption("--kills-csv"), rows, {"left_processes": left, "bytes_equal": not differs})
    assert code == 0, command.log.read_text()
    assert differs == []
    assert left == 0
    assert not any(row["half_written"] or row.get("orphans") for row in rows), rows
    assert not [path.name for path in folder.iterdir() if path.suffix in (".tmp", ".pt")]


def kill_once(
    command: Command, target: str, folder: Path, source: random.Random, seconds: float
) -> dict[str, Any] | None:
    """Kill `target` at a moment drawn from `source`; None if the command ended before.

    Half of the moments lie in the few seconds of training, half anywhere in the life of the command.
    """
    began, training = time.monotonic(), source.random() < 0.5
    if training:
        wait_until(lambda: command.ended() or (folder / "progress.json").exists(), 300, 0.02)
    wait_until(command.ended, source.random() * seconds * (0.2 if training else 0.9), 0.02)
    if not command.kill(target):
        return None
    progress = read_mapping(folder / "progress.json")
    return {
        "killed": target, "after_seconds": f"{time.monotonic() - began:.2f}",
        "state": progress.get("state", "starting"), "cycle": progress.get("cycle", ""),
        "epoch": progress.get("epoch", ""),
    }  # fmt: skip


def _keep(path: str | None, rows: list[dict[str, Any]], end: dict[str, Any]) -> None:
    """Append a line a kill to the table of kills."""
    if path is None:
        return
    columns = ["trial", "run", "killed", "after_seconds", "state", "cycle", "epoch", "exit", "half_written", "orphans"]
    new = not Path(path).exists()
    with open(path, "a", newline="") as stream:
        writer = csv.DictWriter(stream, [*columns, *end], lineterminator="\n")
        if new:
            writer.writeheader()
        writer.writerows(row | end for row in rows)
