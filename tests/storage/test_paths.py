"""Paths are names of files, whatever signs they have in them, and count from where a person expects."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import nbformat
import pytest
import torch
import yaml
from conftest import TINY
from nbformat.v4 import new_code_cell

from alkit import ActiveLearner, Experiment
from alkit.analysis.evaluation import evaluate
from alkit.analysis.summary import build
from alkit.cli import main
from alkit.errors import ConfigError
from alkit.grid import planning, runner
from alkit.records import read_run
from alkit.storage.checkpoint_files import find_checkpoints
from alkit.storage.files import atomic_write
from alkit.storage.paths import cache_folder, data_folder

ODD = """jürgen's {x} "a\\b" $HOME; touch y #%s {"""
SMALL = {"pool_size": 200, "test_size": 60}


def study_file(path: Path, **content: object) -> Path:
    path.write_text(yaml.safe_dump({**TINY, "methods": ["random"], "cycles": 1, "epochs": 1, **content}))
    return path


# --- where the kit is ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("what", ["kit", "out"])
def test_a_path_that_no_notebook_can_name_is_refused(
    what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    latin = tmp_path / os.fsdecode(b"caf\xe9")
    if what == "kit":
        monkeypatch.setattr(planning, "ROOT", latin)
    out = latin if what == "out" else tmp_path / "out"
    assert main(["run", str(study_file(tmp_path / "s.yaml")), "--out", str(out)]) == 2
    assert capsys.readouterr().err == f"alkit: {tmp_path}/caf\\udce9{'/s' * (what == 'out')}: its name is not UTF-8; " \
        "rename the file or folder\n"  # fmt: skip
    assert not out.exists()


def test_what_a_cluster_cannot_be_told_is_refused(tmp_path: Path) -> None:
    """Snakemake writes paths into the scripts of a cluster's jobs as Python would, not as a shell reads them."""
    file = study_file(tmp_path / "s.yaml")
    for name in ("plain", "a b", "jürgen", "{x}"):
        runner.check_cluster(planning.make_plan(file, tmp_path / name))
    for name in ("a\\b", "$HOME", "it's", '"', "`x`"):
        with pytest.raises(ConfigError, match="signs that Snakemake cannot pass to a cluster's jobs"):
            runner.check_cluster(planning.make_plan(file, tmp_path / name))


# --- from where a path counts ----------------------------------------------------------------------------------------


def test_a_relative_cache_is_one_folder_for_a_command_and_all_that_it_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("ALKIT_CACHE", "cache")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(["mine", "/theirs"]))
    main(["methods"])
    assert os.environ["ALKIT_CACHE"] == str(tmp_path / "cache")
    assert os.environ["PYTHONPATH"] == f"{tmp_path}/mine{os.pathsep}/theirs", "runs are started in other folders"
    monkeypatch.chdir("/")
    assert cache_folder() == tmp_path / "cache"


def test_a_cache_that_is_not_named_is_at_its_usual_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "linux")
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("ALKIT_CACHE", "")
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_folder() == tmp_path / ".cache" / "alkit", "XDG: a relative path is to be ignored"
    monkeypatch.setenv("ALKIT_CACHE", "~/mine")
    assert cache_folder() == tmp_path / "mine"


def test_a_tilde_is_the_home_folder_and_one_of_nobody_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert data_folder(Path("~/images")) == tmp_path / "images"
    assert data_folder(Path("~nobody-here/images")) == tmp_path / "~nobody-here" / "images"
    assert main(["run", str(study_file(tmp_path / "s.yaml")), "--out=~/out", "--dry-run"]) == 0
    assert planning.make_plan(tmp_path / "s.yaml", "~/out").folder == tmp_path / "out" / "s"


def test_a_summarys_images_are_where_the_command_was_given(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    import papermill

    asked = {}

    def look(*_: object, **__: object) -> None:
        asked.update(_[2])
        raise KeyboardInterrupt

    monkeypatch.setattr(papermill, "execute_notebook", look)
    monkeypatch.chdir(tmp_path)
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "study.yaml").write_text("methods: [random]\n")
    main(["summary", "study", "--data-root", "images"])
    assert asked["data_root"] == str(tmp_path / "images")


def test_a_summary_names_the_folder_that_it_is_in(tmp_path: Path) -> None:
    """Whatever signs the folder's name has, which notebooks and cells write in their own ways."""
    cells = [
        new_code_cell("study_dir, out_dir, data_root = '', '', None", metadata={"tags": ["parameters"]}),
        new_code_cell("from pathlib import Path\nprint(out_dir, [out_dir])\nPath(out_dir, 'here').touch()"),
    ]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), tmp_path / "n.ipynb")
    study = tmp_path / ODD
    (study / "random" / "seed-0").mkdir(parents=True)
    (study / "random" / "seed-0" / "result.json").write_text("{}")
    build(study, tmp_path / "n.ipynb")
    made = nbformat.read(study / "summary.ipynb", as_version=4)
    assert made.cells[2].outputs[0].text == f"{study} {[str(study)]}\n"
    assert ".summary-" not in (study / "summary.ipynb").read_text() + (study / "summary.html").read_text()


# --- checkpoints -----------------------------------------------------------------------------------------------------


@pytest.fixture
def kept(tmp_path: Path) -> Path:
    """The folder of a finished run that kept its models."""
    folder = tmp_path / "random" / "seed-3"
    list(ActiveLearner(Experiment(**(TINY | {"seed": 3, "keep_models": True, "cycles": 1, "epochs": 1})), folder))
    return folder


def test_a_runs_checkpoints_are_evaluated_as_its_run_did_from_wherever_they_are_named(
    kept: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    record = read_run(kept)["cycles"][0]
    for place, pattern in (("models", "*.pth"), (".", "models/*.pth"), ("..", "seed-*/models/*cycle{cycle}.pth"),
                           ("models", "../../seed-3/models/*.pth")):  # fmt: skip
        monkeypatch.chdir(kept / place)
        (row,) = evaluate(pattern, "digits").frame.to_dict("records")
        assert (row["label"], row["seed"], row["images"]) == ("random", 3, TINY["test_size"]), (place, pattern)
        assert row["accuracy"] == pytest.approx(record["accuracy"], abs=1e-6)


def test_the_papers_layout_is_known_from_within_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "cifar10" / "Init100_S400_B50" / "Seed-7"
    folder.mkdir(parents=True)
    (folder / "active_resnet10_cifar10_cycle2.pth").touch()
    (folder / "active_resnet10_cifar10_cycle0.pth").touch()
    monkeypatch.chdir(folder)
    assert [(file.seed, file.cycle, file.labelled) for file in find_checkpoints("*.pth")] == [(7, 0, 100), (7, 2, 200)]


@pytest.mark.parametrize("folder", ["run[1]", "a*b?", "{x}", "{seed} [!a]", "[", "[^a]"])
@pytest.mark.parametrize("name", ["best[1].pth", "{cycle}.pth", "plain.pth"])
def test_what_is_there_as_it_is_written_is_taken_as_it_is_written(folder: str, name: str, tmp_path: Path) -> None:
    (tmp_path / folder).mkdir()
    (tmp_path / folder / name).touch()
    for pattern in (f"{folder}/{name}", f"{folder}/*.pth"):
        assert [file.path for file in find_checkpoints(tmp_path / pattern)] == [tmp_path / folder / name]


def test_brackets_are_a_choice_of_signs_where_that_finds_files_else_themselves(tmp_path: Path) -> None:
    (tmp_path / "a[1]_cycle3.pth").touch()
    assert [file.cycle for file in find_checkpoints(tmp_path / "a[1]_cycle*.pth")] == [3]
    (tmp_path / "a1_cycle4.pth").touch()
    assert [file.cycle for file in find_checkpoints(tmp_path / "a[1]_cycle*.pth")] == [4]
    assert [file.cycle for file in find_checkpoints(tmp_path / "a[!2]_cycle*.pth")] == [4]


def test_what_two_kinds_are_called_is_their_path_from_here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("a_cycle1.pth", "b_cycle1.pth"):
        with atomic_write(tmp_path / "x" / name) as stream:
            torch.save({}, stream)
    monkeypatch.chdir(tmp_path)
    assert [file.label for file in find_checkpoints("*/*.pth")] == ["x/a_cycle{cycle}.pth", "x/b_cycle{cycle}.pth"]
