"""The smallest things that people trip over: one image, a number as a name, numpy's integers, what a kill leaves."""

from __future__ import annotations

import fcntl
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY
from synthetic_study import write_run

from alkit import ActiveLearner, Experiment, Study, notebook
from alkit.analysis.summary import build, paper
from alkit.data import from_arrays
from alkit.errors import ConfigError, DataError
from alkit.grid import planning
from alkit.grid.execute import execute
from alkit.records import load_runs
from alkit.storage.scratch import scratch_folder
from alkit.training.pretext import run_pretext

Make = Callable[..., Experiment]

# --- one image -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("holdout", [0.01, 0.5, 0.99])
@pytest.mark.parametrize("budget", [1, 2, 10])
def test_a_part_is_held_out_of_every_query_but_never_all_of_it(holdout: float, budget: int, tiny: Make) -> None:
    learner = ActiveLearner(tiny(method="temperature_scaling", ts_holdout=holdout, budget=budget))
    records = list(learner)
    assert [record["labelled"] for record in records] == [20, 20 + budget]
    train, held = learner._split_labelled()
    assert held is not None
    parts = [min(max(1, round(size * holdout)), size - 1) for size in (20, budget)]
    assert (len(held), len(train)) == (sum(parts), 20 + budget - sum(parts))
    assert not set(held.tolist()) & set(train.tolist())
    assert all(np.isfinite(record["temperature"]) for record in records)


# --- what Python has at hand -----------------------------------------------------------------------------------------


def test_numpys_numbers_paths_and_tuples_are_taken_as_a_study_file_would_say_them() -> None:
    given: dict[str, Any] = {
        "seed": np.int64(3), "lr": np.float32(0.5), "initial_balanced": np.bool_(True), "milestones": (1, 2),
        "class_balance": np.full(10, 0.5), "data_root": Path("a/b"), "quirks": {"lr_step_first": np.bool_(True)},
    }  # fmt: skip
    experiment = Experiment(**given)
    assert experiment == Experiment(seed=3, lr=0.5, initial_balanced=True, milestones=[1, 2], class_balance=[0.5] * 10,
                                    data_root="a/b", quirks={"lr_step_first": True})  # fmt: skip
    assert type(experiment.seed) is int
    assert Experiment(**yaml.safe_load(yaml.safe_dump(experiment.model_dump()))) == experiment
    assert Study(study="s", methods=("random",), seeds=np.arange(2)).seeds == [0, 1]
    assert Study(study="s", methods=["random"], seeds=range(3)).seeds == [0, 1, 2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seed": np.float64(1.5)}, "seed: "), ({"seed": np.array([1])}, "seed: "), ({"seed": True}, "seed: "),
        ({"lr": np.array(["x"])}, "lr: "), ({"milestones": (2, 1)}, "milestones: expected epochs in ascending order"),
        ({"data_root": 3}, "data_root: "),
    ],
)  # fmt: skip
def test_other_types_are_still_refused_by_name(given: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Experiment(**given)


# --- names -----------------------------------------------------------------------------------------------------------


def test_a_number_as_a_folders_name_is_refused_before_anything_is_trained(tiny: Make, tmp_path: Path) -> None:
    line = r"^out_dir: expected the name of a file or folder, not 2024; papermill takes it as text with -r out_dir$"
    for call in (lambda: notebook.run(tiny(), 2024), lambda: ActiveLearner(tiny(), 2024)):  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match=line):
            call()
    with pytest.raises(ConfigError, match=r"^outputs_dir: expected the name of a file or folder, not 7; papermill"):
        notebook.run(tiny(), None, 7)  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match=r"^out_file: .*, not \['x'\]$"):
        run_pretext(tiny(method="pt4al"), ["x"])  # type: ignore[arg-type]


def study(tmp_path: Path, **content: Any) -> Path:
    file = tmp_path / "s.yaml"
    file.write_text(yaml.safe_dump({"methods": ["random"], **TINY, **content}))
    return file


@pytest.mark.parametrize("name", [
    "summary.html", "Summary.HTML", "study.yaml", "summary.ipynb", "pretext", "logs", "tables", "figures", "paper",
    "models",
])  # fmt: skip
def test_a_variant_cannot_have_the_name_of_what_a_studys_folder_holds(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=f"variants: '{name}' is the name of a file or folder of every study"):
        planning.make_plan(study(tmp_path, variants={name: {"method": "margin"}}), tmp_path / "out")
    with pytest.raises(ConfigError, match=f"study: '{name}' is the name of a file or folder of every study"):
        planning.make_plan(study(tmp_path, study=name), tmp_path / "out")


@pytest.mark.parametrize("name", [".snakemake", ".alkit.lock", "a/b", "..", ""])
def test_hidden_names_and_paths_are_no_names(name: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="variants"):
        planning.make_plan(study(tmp_path, variants={name: {"method": "margin"}}), tmp_path / "out")


def test_a_variants_own_seed_is_refused_not_ignored(tmp_path: Path) -> None:
    with pytest.raises(
        ConfigError, match="variants: 'other' has a seed of its own; expected the study's seeds for all"
    ):
        Study.from_yaml(study(tmp_path, variants={"other": {"method": "margin", "seed": 7}}))


def test_labels_beyond_the_classes_are_refused() -> None:
    images = np.zeros((3, 1, 8, 8), np.uint8)
    for labels in ([0, 1, 2], [0, -1, 1]):
        with pytest.raises(DataError, match="labels: expected 0 to 1 with 2 class names"):
            from_arrays("x", images, labels, ["a", "b"])


# --- two studies of one name -----------------------------------------------------------------------------------------


def test_studies_of_the_same_name_in_different_folders_are_kept_apart(tiny: Make, tmp_path: Path) -> None:
    for place in ("a/s", "b/s", "b/other"):
        for seed in (0, 1):
            write_run(tmp_path / place / "random" / f"seed-{seed}", tiny(seed=seed), arrays=False)
    frame = load_runs(tmp_path)
    assert frame.attrs["problems"] == ()
    assert frame.groupby("study")["path"].nunique().to_dict() == {"a/s": 2, "b/s": 2, "other": 2}
    assert set(load_runs(tmp_path / "b")["study"]) == {"s", "other"}


# --- what a kill leaves ----------------------------------------------------------------------------------------------


def test_the_folder_of_a_process_that_was_killed_is_removed_by_the_next(tmp_path: Path) -> None:
    code = (
        "import sys, time\nfrom alkit.storage.scratch import scratch_folder\n"
        "with scratch_folder('x-', sys.argv[1]) as folder:\n    print(folder, flush=True)\n    time.sleep(60)"
    )
    with subprocess.Popen([sys.executable, "-c", code, tmp_path], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        left = Path(process.stdout.readline().strip())
        with scratch_folder("x-", tmp_path) as own:
            assert sorted(tmp_path.iterdir()) == sorted([left, own])
        assert left.is_dir(), "its process lives"
        process.send_signal(signal.SIGKILL)
    assert left.is_dir()
    (tmp_path / "x-mine").mkdir()  # nobody's lock: somebody's own folder
    with scratch_folder("x-", tmp_path) as own:
        assert sorted(tmp_path.iterdir()) == sorted([own, tmp_path / "x-mine"])
    assert list(tmp_path.iterdir()) == [tmp_path / "x-mine"]


def leave(prefix: str, folder: Path) -> Path:
    """What a killed process left in `folder`."""
    left = folder / f"{prefix}left"
    left.mkdir(parents=True)
    (left / ".lock").touch()
    return left


def test_a_summary_a_paper_and_a_job_clean_up_after_killed_ones(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tmp_path / "s"
    write_run(folder / "random" / "seed-0", tiny())
    lefts = [leave(".summary-", folder), leave(".paper-", folder), leave("alkit-job-", tmp_path / "tmp")]
    held = leave("alkit-job-alive-", tmp_path / "tmp")
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path / "tmp"))
    with (held / ".lock").open("r+") as handle:
        fcntl.flock(handle, fcntl.LOCK_EX)
        monkeypatch.setattr("papermill.execute_notebook", lambda *_, **__: None)
        execute("in.ipynb", "out.ipynb", {})
        with pytest.raises(FileNotFoundError):  # papermill wrote nothing
            build(folder)
        paper.write(folder)
        assert held.is_dir()
    assert not [left for left in lefts if left.exists()]
    assert not [path.name for path in folder.iterdir() if path.name.startswith(".")]
