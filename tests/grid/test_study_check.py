"""A study's folder holds runs of one study, on the images of now: whatever is not is refused before a run starts."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY
from photographs import delete, invert, move, photographs
from synthetic_study import write_run

from alkit import ActiveLearner, Experiment, cli
from alkit.data.own import images_now
from alkit.errors import AlkitError, CheckpointError
from alkit.grid import planning, study_check
from alkit.grid.status import status_table
from alkit.storage.loss_files import PretextLosses, write_pretext
from alkit.training.pretext import run_pretext

MakePlan = Callable[..., planning.Plan]
SMALL = TINY | {"dataset": "folder", "pool_size": None, "test_size": None, "initial": 10, "epochs": 1, "milestones": []}


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 60 cats and dogs, and a cache of its own."""
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    return photographs(tmp_path / "cats", {"cat": 30, "dog": 30})


@pytest.fixture
def plan(tmp_path: Path) -> MakePlan:
    """`plan(methods=["margin"], …)`: the plan of a study file with these keys, in tmp_path/out/s."""

    def make(only: list[str] | None = None, seeds_only: list[int] | None = None, **content: Any) -> planning.Plan:
        file = tmp_path / "study.yaml"
        file.write_text(yaml.safe_dump({"study": "s", "methods": ["random"], **TINY, **content}))
        return planning.make_plan(file, tmp_path / "out", only, seeds_only)

    return make


@pytest.fixture
def on(plan: MakePlan) -> MakePlan:
    """`on(folder, …)`: the plan of a study of this folder's images."""
    return lambda folder, *only, **more: plan(*only, **(SMALL | {"data_root": str(folder)} | more))


def prepare(plan: planning.Plan, rerun: list[str] | None = None, images_of: planning.ImagesOf = images_now) -> None:
    planning.prepare(plan, 1, rerun or [], images_of)


def finish(plan: planning.Plan) -> None:
    """Run the plan, in this process."""
    prepare(plan)
    for run in plan.runs:
        losses = None
        if run.pretext:
            losses = plan.folder / "pretext" / f"{run.pretext}.npz"
            run_pretext(run.experiment, losses)
        given = {"pretext_losses": None if losses is None else str(losses)}
        list(ActiveLearner(Experiment(**run.experiment.model_dump() | given), run.folder))


def break_off(plan: planning.Plan, cycle: int) -> None:
    """Run the plan up to this cycle's training."""

    class Killed(Exception):  # noqa: N818
        pass

    def report(status: dict[str, Any]) -> None:
        if status["cycle"] == cycle:
            raise Killed

    prepare(plan)
    for run in plan.runs:
        with pytest.raises(Killed):
            list(ActiveLearner(run.experiment, run.folder, report))


def refusal(plan: planning.Plan, rerun: list[str] | None = None) -> str:
    """What the study is refused with, before anything was written."""
    before = {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()}
    with pytest.raises(CheckpointError) as error:
        prepare(plan, rerun)
    assert {path: path.read_bytes() for path in plan.folder.rglob("*") if path.is_file()} == before
    return str(error.value)


# --- images ---------------------------------------------------------------------------------------------------------


def test_a_finished_study_is_not_that_of_another_folder(
    cats: Path, on: MakePlan, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    finish(on(cats))
    birds = photographs(tmp_path / "birds", dict.fromkeys("abcde", 10))
    assert refusal(on(birds)) == (
        f"{tmp_path}/out/s/random/seed-0: holds a run on other images of 'folder': 48 training images and 12 test "
        "images, not 40 training images and 10 test images; give another --out or a study name of its own, or begin "
        "anew with --rerun random"
    )
    for more in ([], ["--dry-run"]):
        assert cli.main(["run", str(tmp_path / "study.yaml"), "--out", str(tmp_path / "out"), *more]) == 2
        assert "holds a run on other images of 'folder'" in capsys.readouterr().err
    prepare(on(birds), rerun=["random"])
    assert not (tmp_path / "out/s/random/seed-0/result.json").exists()


def test_a_study_of_a_named_set_does_not_go_on_with_other_features(plan: MakePlan, tmp_path: Path) -> None:
    files = [tmp_path / "f_train.npy", tmp_path / "f_test.npy"]

    def write(seed: int) -> None:
        for file, images in zip(files, (1437, 360), strict=True):
            np.save(file, np.random.default_rng(seed).normal(size=(images, 4)).astype(np.float32))

    write(0)
    study = {"model": "linear", "features": str(files[0]), "cycles": 1}
    finish(plan(**study))
    prepare(plan(methods=["random", "margin"], **study))
    write(1)
    assert "but other features in the training images and other features in the test images" in refusal(
        plan(methods=["random", "margin"], **study)
    )


@pytest.mark.parametrize("whole", [True, False])
def test_a_study_does_not_go_on_from_another_list_of_first_images(whole: bool, plan: MakePlan, tmp_path: Path) -> None:
    first = tmp_path / "first.txt"
    first.write_text("\n".join(map(str, range(20))))
    study = {"methods": ["random", "whole_dataset"], "first_labelled": str(first), "cycles": 2, "epochs": 1}
    if whole:
        finish(plan(**study))
        assert plan(**study).runs[0].finished
    else:
        break_off(plan(["random"], **study), 2)
    first.write_text("\n".join(map(str, range(30, 50))))
    words = "holds a run with other images in first_labelled"
    if whole:
        assert words in refusal(plan(**study))
        prepare(plan(**study), rerun=["random"])
    else:
        with pytest.raises(CheckpointError, match=words):
            finish(plan(**study))
    first.unlink()
    prepare(plan(["whole_dataset"], **study))


def test_the_same_images_elsewhere_are_the_same_study(cats: Path, on: MakePlan, tmp_path: Path) -> None:
    finish(on(cats))
    prepare(on(cats.rename(tmp_path / "elsewhere")))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda folder: move(folder, "cat", "dog", 10), "but other labels and pixels in the training images"),
        (invert, "but other pixels in the training images and other pixels in the test images"),
    ],
)
def test_a_study_broken_off_does_not_go_on_with_other_images(
    change: Callable[[Path], None], said: str, cats: Path, on: MakePlan
) -> None:
    break_off(on(cats, cycles=4), 3)
    prepare(on(cats, cycles=4))
    change(cats)
    assert said in refusal(on(cats, cycles=4))


def test_a_seed_is_not_added_to_runs_on_other_images(cats: Path, on: MakePlan) -> None:
    finish(on(cats, seeds=[0, 1]))
    delete(cats, "dog", 5)
    said = "48 training images and 12 test images, not 44 training images and 11 test images"
    assert said in refusal(on(cats, None, [0, 1, 2]))
    assert refusal(on(cats, None, [2], seeds=[0, 1])).endswith(
        f"{said}, and would be counted in this study; give another --out or a study name of its own, or remove that run"
    )
    assert said in refusal(on(cats, ["margin"])), "tests would compare them"
    assert "--rerun random" in refusal(on(cats, methods=["random", "margin"]), rerun=["margin"])


def test_images_are_looked_at_once_a_study_and_only_where_something_has_begun(cats: Path, on: MakePlan) -> None:
    looked: list[str] = []

    def look(experiment: Experiment) -> dict[str, Any] | None:
        looked.append(experiment.name)
        return images_now(experiment)

    made = on(cats, methods=["random", "margin"], seeds=[0, 1])
    prepare(made, images_of=look)
    assert not looked
    finish(made)
    prepare(made, images_of=look)
    assert len(looked) == 1


def test_a_named_set_is_known_by_its_digest_and_not_looked_at(tiny: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alkit.data.own.load_for", lambda _: pytest.fail("loaded"))
    assert images_now(tiny()) is None


def test_runs_of_older_versions_whose_images_are_not_known_go_on(cats: Path, on: MakePlan) -> None:
    made = on(cats)
    finish(made)
    record = made.runs[0].folder / "result.json"
    record.write_text(json.dumps({k: v for k, v in json.loads(record.read_text()).items() if k != "images"}))
    invert(cats)
    prepare(on(cats))


def test_begun_anew_on_other_images_a_method_gets_pretext_losses_of_those(
    cats: Path, on: MakePlan, capsys: pytest.CaptureFixture[str]
) -> None:
    made = on(cats, methods=["pt4al"])
    finish(made)
    (losses,) = (made.folder / "pretext").glob("*.npz")
    prepare(on(cats, methods=["pt4al"]), rerun=["pt4al"])
    assert losses.exists(), "the images are the same"
    finish(made)
    invert(cats)
    prepare(on(cats, methods=["pt4al"]), rerun=["pt4al"])
    assert not losses.exists()
    assert "the pretext losses of other images; they are computed anew" in capsys.readouterr().err


def test_damaged_pretext_losses_of_a_study_are_made_again(plan: MakePlan, capsys: pytest.CaptureFixture[str]) -> None:
    study = {"methods": ["pt4al"], "cycles": 1, "epochs": 1}
    made = plan(**study)
    finish(made)
    (losses,) = (made.folder / "pretext").glob("*.npz")
    whole = losses.read_bytes()
    losses.write_bytes(whole[:900])
    (made.runs[0].folder / "result.json").unlink()
    finish(plan(**study))
    assert losses.read_bytes() == whole
    assert "damaged pretext losses; they are computed anew" in capsys.readouterr().err


@pytest.mark.parametrize("trouble", ["unreadable", "another version"])
def test_pretext_losses_that_may_be_whole_are_never_removed(
    trouble: str, plan: MakePlan, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = plan(methods=["pt4al"], cycles=1, epochs=1)
    (key,) = made.pretext_jobs
    losses = made.folder / "pretext" / f"{key}.npz"
    if trouble == "unreadable":
        losses.mkdir(parents=True)
    else:
        write_pretext(losses, PretextLosses(np.array([0.1]), ("0.1",)))
        monkeypatch.setattr("alkit.storage.loss_files.VERSION", 2)
    assert study_check.check_folder(made) == {}
    assert losses.exists()


def test_status_says_where_runs_of_a_label_had_other_images(cats: Path, on: MakePlan, tmp_path: Path) -> None:
    finish(on(cats, seeds=[0]))
    assert "other images" not in status_table(tmp_path / "out" / "s")
    invert(cats)
    with pytest.raises(AlkitError):
        finish(on(cats, seeds=[0, 1]))
    (experiment,) = (run.experiment for run in on(cats, seeds=[1]).runs)
    list(ActiveLearner(experiment, tmp_path / "out/s/random/seed-1"))  # by hand
    rows = status_table(tmp_path / "out" / "s").splitlines()
    assert [row.endswith("other images than seed-0: not to be averaged") for row in rows[2:4]] == [False, True]


# --- two studies of one name -----------------------------------------------------------------------------------------


def write(plan: planning.Plan) -> None:
    """Records as the runs would leave them."""
    prepare(plan)
    for run in plan.runs:
        write_run(run.folder, run.experiment, arrays=False)


def test_a_second_study_of_the_same_name_is_refused(plan: MakePlan, tmp_path: Path) -> None:
    write(plan(methods=["random", "margin"]))
    assert refusal(plan(methods=["oo4al", "entropy"], test_size=50)) == (
        f"{tmp_path}/out/s/margin/seed-0: lies in this study's folder with test_size = 60, not 50: of another study "
        "of the same name? give another --out or a study name of its own, or remove that run"
    )
    assert "seed-0: lies in this study's folder with epochs = 2, not 3" in refusal(plan(seeds=[1], epochs=3))


def test_labels_and_seeds_may_come_and_go(plan: MakePlan) -> None:
    write(plan(methods=["random", "margin"], seeds=[0, 1]))
    write(plan(["entropy"]))
    write(plan(methods=["random", "oo4al"], seeds=[2]))
    prepare(plan(methods=["random"], title="Another title"))


def test_a_variant_that_is_no_longer_named_keeps_its_own_parameters(plan: MakePlan) -> None:
    write(plan(variants={"wide": {"method": "random", "width": 8}}))
    prepare(plan(methods=["random", "margin"]))


def test_a_renamed_variant_is_not_counted_beside_its_old_self(plan: MakePlan, tmp_path: Path) -> None:
    write(plan(variants={"wide": {"method": "random", "width": 8}}))
    assert refusal(plan(variants={"broad": {"method": "random", "width": 8}})) == (
        f"{tmp_path}/out/s/wide/seed-0: a run of 'wide', which the study does not name, with the parameters of "
        "'broad': renamed? It would be counted beside it; call it 'wide' again, or remove its folder"
    )
    prepare(plan(variants={"wide": {"method": "random", "width": 8}, "broad": {"method": "random", "width": 8}}))
