"""One's own images: paths from the study file, a title from its numbers, and what a dry run tells."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY
from photographs import photographs
from synthetic_study import write_run

from alkit import Experiment, Study, dry_run, grid
from alkit.cli import main
from alkit.errors import ConfigError
from alkit.summary.study import title_of

SMALL = {key: TINY[key] for key in ("width", "batch_size", "milestones", "threads", "device")}
OWN = {**SMALL, "methods": ["random"], "dataset": "folder", "initial": 9, "budget": 5, "cycles": 2, "epochs": 1}


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))


def write(path: Path, **content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(content))
    return path


def dry(file: Path, capsys: pytest.CaptureFixture[str], status: int = 0) -> str:
    assert main(["run", str(file), "--dry-run", "--out", str(file.parent / "out")]) == status
    said = capsys.readouterr()
    assert not (file.parent / "out").exists()
    return said.err if status else said.out


# --- paths and titles ------------------------------------------------------------------------------------------------


def test_paths_in_a_study_file_count_from_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = write(tmp_path / "a" / "s.yaml", methods=["random"], data_root="images",
                 variants={"v": {"method": "random", "data_root": "../other"}})  # fmt: skip
    for place in ("/", str(tmp_path), str(tmp_path / "a")):
        monkeypatch.chdir(place)
        study = Study.from_yaml(file)
        assert study.experiment("random").data_root == str(tmp_path / "a" / "images")
        assert Path(str(study.experiment("v").data_root)).resolve() == tmp_path / "other"
        assert Experiment.from_yaml(file).data_root == str(tmp_path / "a" / "images")
    monkeypatch.chdir(tmp_path)
    assert Study.from_yaml("a/s.yaml").experiment("random").data_root == str(tmp_path / "a" / "images")


def test_absolute_paths_and_homes_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    for given, found in (("/data/x", "/data/x"), ("~/x", f"{tmp_path}/home/x")):
        assert Experiment.from_yaml(write(tmp_path / "s.yaml", data_root=given)).data_root == found


def test_a_study_finds_its_images_beside_it_from_anywhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "mine" / "images", {"a": 20, "b": 20})
    monkeypatch.chdir("/")
    said = dry(write(tmp_path / "mine" / "s.yaml", data_root="images", **OWN), capsys)
    assert said.splitlines() == ["images    all 40 files decoded, in 2 classes", "to run    random, seed 0",
                                 f"1 of 1 run to do, in {tmp_path}/mine/out/s"]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ({"initial": 100, "budget": 50, "cycles": 4, "methods": ["random", "margin"], "seeds": [0, 1, 2]},
         "s: from 100 to 250 labels, 2 methods, 3 seeds"),
        ({"initial": 1000, "cycles": 1, "methods": ["random"]}, "s: 1,000 labels, 1 method, 1 seed"),
        ({"title": "Mine", "methods": ["random"]}, "Mine"),
    ],
)  # fmt: skip
def test_a_title_is_made_from_the_numbers(content: dict[str, Any], title: str, tmp_path: Path) -> None:
    write(tmp_path / "study.yaml", study="s", **content)
    assert title_of(tmp_path) == title


# --- images ----------------------------------------------------------------------------------------------------------


def test_a_dry_run_names_a_broken_image(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = photographs(tmp_path / "images", {"a": 20, "b": 20})
    whole = (images / "b" / "007.png").read_bytes()
    (images / "b" / "007.png").write_bytes(whole[: len(whole) // 2])
    said = dry(write(tmp_path / "s.yaml", data_root="images", **OWN), capsys, status=2)
    assert f"{images}/b/007.png: not an image that can be read" in said
    assert said.endswith("; remove it, or set skip_broken: true\n")
    said = dry(write(tmp_path / "s.yaml", data_root="images", skip_broken=True, **OWN), capsys)
    assert said.startswith("images    all 40 files decoded, 1 of them broken and to be skipped, in 2 classes\n")


def test_of_many_images_a_sample_is_decoded(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    photographs(tmp_path / "images", {"a": 20, "b": 21})
    monkeypatch.setattr(dry_run, "SAMPLE", 10)
    said = dry(write(tmp_path / "s.yaml", data_root="images", **OWN), capsys)
    assert said.startswith("images    9 of 41 files decoded, in 2 classes\n")


# --- a large study ---------------------------------------------------------------------------------------------------


def test_a_large_study_is_a_table_with_what_it_needs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    content = {**TINY, "methods": ["random", "margin"], "seeds": list(range(10))}
    said = dry(write(tmp_path / "s.yaml", **content), capsys)
    assert len(said.splitlines()) == 7
    assert "Hours and MB are known when the first run is finished" in said
    plan = grid.make_plan(tmp_path / "s.yaml", tmp_path / "out")
    write_run(plan.runs[0].folder, plan.runs[0].experiment, arrays=False)
    cost = dry_run.cost_of(plan.runs[0])
    assert cost is not None
    # 20 labels, then 30, two epochs each
    assert dry_run.work(plan.runs[0].experiment) == 100
    rows = {line.split()[0]: line.split() for line in dry_run.table(plan, set()).splitlines()}
    assert rows["random"][1:4] == ["1", "9", "2"]
    assert rows["margin"][1:4] == ["0", "10", "2"]
    assert rows["together"][1:3] == ["1", "19"]
    assert float(rows["together"][-1]) == pytest.approx(19 * 100 * cost[1], abs=0.06)
    anew = {line.split()[0]: line.split() for line in dry_run.table(plan, {"random"}).splitlines()}
    assert anew["random"][1:3] == ["0", "10"]


def test_a_study_of_images_that_are_not_there_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = dry(write(tmp_path / "s.yaml", data_root="images", **OWN), capsys, status=2)
    assert f"{tmp_path}/images: no such folder" in said
    with pytest.raises(ConfigError):
        Experiment(data_root=3)
