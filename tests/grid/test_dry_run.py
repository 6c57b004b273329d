"""One's own images: paths from the study file, a title from its numbers, and what a dry run tells."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from conftest import TINY
from photographs import photographs
from synthetic_study import write_run

from alkit import Experiment, Study
from alkit.analysis.summary.web import title_of
from alkit.cli import main
from alkit.errors import ConfigError
from alkit.grid import dry_run, estimate, plan_check, planning

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
    assert said.splitlines()[:3] == ["images    all 40 files decoded, in 2 classes", "to run    random, seed 0",
                                     f"1 of 1 run to do, in {tmp_path}/mine/out/s"]  # fmt: skip
    assert re.fullmatch(r"about 1 min on this machine.*, and \d+ MB of disk \(rough: .*\)", said.splitlines()[3])


@pytest.mark.parametrize(
    ("content", "title"),
    [
        ({"initial": 100, "budget": 50, "cycles": 4, "methods": ["random", "margin"], "seeds": [0, 1, 2]},
         "s: from 100 to 250 labels, 2 methods, 3 seeds"),
        ({"initial": 1000, "cycles": 1, "methods": ["random"]}, "s: 1,000 labels, 1 method, 1 seed"),
        ({"initial": 0, "budget": 20, "cycles": 4, "methods": ["random"]}, "s: from 20 to 80 labels, 1 method, 1 seed"),
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
    monkeypatch.setattr(plan_check, "SAMPLE", 10)
    said = dry(write(tmp_path / "s.yaml", data_root="images", **OWN), capsys)
    assert said.startswith("images    9 of 41 files decoded, in 2 classes of 20 to 21 files\n")


# --- a large study ---------------------------------------------------------------------------------------------------


def large(tmp_path: Path, **more: Any) -> Path:
    return write(tmp_path / "s.yaml", **{**TINY, "methods": ["random", "margin"], "seeds": list(range(10)), **more})


def timed(monkeypatch: pytest.MonkeyPatch, train: float, forward: float) -> None:
    """Seconds to train on an image, and to pass one, in place of this machine's."""
    monkeypatch.setattr(estimate, "_timed", lambda *_: (train, forward))


def rows_of(said: str) -> dict[str, list[str]]:
    return {line.split("  ")[0]: re.split(r"  +", line) for line in said.splitlines()}


def test_a_large_study_is_a_table_with_what_it_needs_before_any_run(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 0.036, 0.0)
    said = dry(large(tmp_path, cycles=2, initial=20, budget=10, epochs=20), capsys)
    rows = rows_of(said)
    # 50 labels × 20 epochs × 0.036 s and 10 s to start: 46 s a run, of which there are ten a method
    assert rows["random"][1:-1] == ["0", "10", "2", "20 to 30", "20", "8 min"]
    assert rows["together"][1:-1] == ["0", "20", "16 min"]
    assert re.search(r"^about (8|16) min on this machine", said, re.MULTILINE)


def test_a_finished_run_tells_more_than_timed_steps(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 3600.0, 0.0)
    plan = planning.make_plan(large(tmp_path), tmp_path / "out")
    write_run(plan.runs[0].folder, plan.runs[0].experiment, arrays=False)
    cost = dry_run.cost_of(plan.runs[0])
    assert cost is not None
    needs, _ = dry_run.needs_of(plan, set(), here=True)
    assert needs["random"] == dry_run.Need(9, *cost)
    assert needs["margin"].hours > 50, "no run of it has finished: by steps"
    rows = rows_of(dry_run.table(plan, set(), needs))
    assert (rows["random"][1:3], rows["margin"][1:3]) == (["1", "9"], ["0", "10"])
    assert rows_of(dry_run.table(plan, {"random"}, needs))["random"][1:3] == ["0", "10"]
    assert dry_run.needs_of(plan, set(), here=False)[0].keys() == {"random"}, "runs on a cluster are not timed here"


def test_what_a_run_waits_for_is_counted_and_a_gpu_that_is_not_here_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    timed(monkeypatch, 1e-3, 0.0)
    plan = planning.make_plan(large(tmp_path, methods=["pt4al"], pretext_epochs=2), tmp_path / "out")
    needs, _ = dry_run.needs_of(plan, set(), here=True)
    pool = estimate.facts_of(plan.runs[0].experiment).pool
    assert needs[dry_run.PRETEXT].runs == 10
    assert needs[dry_run.PRETEXT].hours == pytest.approx((10 + 4 * pool * 2 * 1e-3) / 3600)
    monkeypatch.undo()
    plan = planning.make_plan(large(tmp_path, device="cuda:7"), tmp_path / "out")
    assert dry_run.needs_of(plan, set(), here=True)[1].startswith("how long: not known here (device: 'cuda:7' is not")


@pytest.mark.parametrize("more", [{}, {"method": "vaal", "vae_width": 8}, {"model": "mc_dropout_cnn"}])
def test_real_steps_are_timed_in_a_moment(more: dict[str, Any]) -> None:
    seconds, size = estimate.Rates().of_run(Experiment(**{**SMALL, "cycles": 2, "epochs": 1, "vae_epochs": 1, **more}))
    assert estimate.START < seconds < estimate.START + 600
    assert size > estimate.NOTEBOOK


def test_all_runs_together_are_shared_out_but_take_no_less_than_the_longest() -> None:
    needs = {"a": dry_run.Need(4, 1.0, 1e6), "b": dry_run.Need(1, 3.0, 1e6)}
    said = [dry_run.together(needs, at_once) for at_once in (1, 2, 7)]
    assert [line.split(" on ")[0] for line in said] == ["about 7 h", "about 3.5 h", "about 3 h"]
    assert "7 runs at a time, and 5 MB of disk" in said[2]


def test_a_study_of_images_that_are_not_there_says_where_it_looked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    said = dry(write(tmp_path / "s.yaml", data_root="images", **OWN), capsys, status=2)
    assert f"{tmp_path}/images: no such folder" in said
    with pytest.raises(ConfigError):
        Experiment(data_root=3)
