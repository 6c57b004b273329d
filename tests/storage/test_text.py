"""Names and titles in any script and any encoding: a run of them ends, and so does its summary."""

from __future__ import annotations

import io
import os
import sys
from pathlib import Path

import pytest
import torch
import yaml
from conftest import TINY
from photographs import photographs

from alkit import Study
from alkit.analysis.summary import build
from alkit.cli import main
from alkit.config.study_yaml import read_yaml
from alkit.data import load_dataset
from alkit.data.imageset import from_arrays
from alkit.errors import ConfigError
from alkit.errors.words import as_text
from alkit.grid import planning
from alkit.learner import ActiveLearner
from alkit.records import read_run

LATIN = os.fsdecode(b"caf\xe9")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))


def test_a_study_of_such_names_ends_with_its_summary(tmp_path: Path) -> None:
    images = photographs(tmp_path / "images", {LATIN: 40, "日本語": 40, "🙂": 40})
    file = tmp_path / "s.yaml"
    small = {key: TINY[key] for key in ("width", "batch_size", "milestones", "threads", "device")}
    file.write_text(
        yaml.safe_dump({**small, "methods": ["margin"], "cycles": 2, "epochs": 1, "initial": 9, "budget": 5,
                        "dataset": "folder", "data_root": str(images)}) + 'title: "of three \\ud83d\\ude42"\n'
    )  # fmt: skip
    (run,) = (plan := planning.make_plan(file, tmp_path / "out")).runs
    planning.prepare(plan, 1)
    assert len(list(ActiveLearner(run.experiment, run.folder))) == 2
    assert read_run(run.folder)["class_names"] == ["caf\\xe9", "日本語", "🙂"]
    page = build(plan.folder).read_text(encoding="utf-8")
    assert "of three 🙂" in page
    assert "Traceback" not in page


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("plain", "plain"),
        ("日本語 🙂 é", "日本語 🙂 é"),
        (LATIN, "caf\\xe9"),
        ("\ud83d half", "\\ud83d half"),
        (3, "3"),
    ],
)
def test_a_name_is_text_that_can_be_written_and_names_stay_apart(name: object, text: str) -> None:
    assert as_text(name) == text
    as_text(name).encode()


def test_every_way_to_class_names_spells_them_out(tmp_path: Path) -> None:
    train, test = load_dataset("folder", photographs(tmp_path / "images", {LATIN: 5, os.fsdecode(b"caf\xe8"): 5}))
    assert train.class_names == test.class_names == ("caf\\xe8", "caf\\xe9")
    own = from_arrays("own", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.tensor([0, 1, 0, 1]), [LATIN, "b"])
    assert own.class_names == ("caf\\xe9", "b")


@pytest.mark.parametrize("text", ['"\\ud83d\\ude00"', '"\\U0001f600"', "😀"])
def test_an_emoji_in_a_study_file_is_one_however_it_is_written(text: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"title: {text}\nmethods: [random]\n", encoding="utf-8")
    assert Study.from_yaml(tmp_path / "s.yaml").title == "😀"


@pytest.mark.parametrize("line", ['title: "\\ud83d"', '"\\ude00": 1', 'x: ["\\ude00\\ud83d"]'])
def test_half_a_sign_is_refused_with_its_place(line: str, tmp_path: Path) -> None:
    (tmp_path / "s.yaml").write_text(f"{line}\n")
    with pytest.raises(ConfigError, match=r"does not parse at line 1, column \d+: an escape such as .* half of a sign"):
        read_yaml(tmp_path / "s.yaml")


def test_images_at_a_path_that_is_no_text_are_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A notebook could not be given it."""
    photographs(tmp_path / LATIN, {"a": 4, "b": 4})
    plan = {"methods": ["random"], "dataset": "folder", "data_root": "images"}
    (tmp_path / LATIN / "s.yaml").write_text(yaml.safe_dump(plan))
    os.chdir(tmp_path / LATIN)
    try:
        assert main(["run", "s.yaml", "--dry-run", "--out", str(tmp_path / "out")]) == 2
    finally:
        os.chdir("/")
    assert "caf\\udce9/images: its name is not UTF-8" in capsys.readouterr().err


def test_a_terminal_that_lacks_a_sign_does_not_end_a_command(monkeypatch: pytest.MonkeyPatch) -> None:
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, encoding="ascii"))
    assert main(["methods"]) == 0
    print("×", flush=True)
    assert written.getvalue().endswith(b"\\xd7\n")
