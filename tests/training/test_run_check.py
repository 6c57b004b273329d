"""What can be known before a run starts is refused before it: the dry run, the command and the learner say the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml
from conftest import TINY
from photographs import photographs
from synthetic_study import write_run

from alkit import ActiveLearner, Experiment, cli
from alkit.data import DATASETS, facts_of, from_arrays, load_for
from alkit.data.identity import pixels_digest
from alkit.data.randomness import generator
from alkit.errors import AlkitError, ConfigError
from alkit.grid import planning
from alkit.grid.plan_check import check_plan
from alkit.models import build_network, feature_width, last_map
from alkit.strategies import hierarchical
from alkit.training.pretext.run import with_pretext

CNN = {"model": "mc_dropout_cnn"}
REFUSED: list[tuple[dict[str, Any], str]] = [
    # images that the set has not
    ({"test_size": 361}, "test_size: 361 is larger than the 360 test images there are"),
    ({"test_class_balance": [0.5] * 10, "test_size": 200}, "test_size: 200 is larger than the 180 test images"),
    ({"test_class_balance": [0.5] * 9}, "test_class_balance: expected 10 fractions, one a class, not 9"),
    ({"class_balance": [0.5] * 11}, "class_balance: expected 10 fractions, one a class, not 11"),
    ({"test_class_balance": [1.5] * 10}, "test_class_balance: expected fractions of at most 1, not 1.5"),
    ({"pool_size": 1438}, "pool_size: 1438 is larger than the 1437 training images there are"),
    ({"initial": 201}, "initial: 201 is larger than the pool of 200 images"),
    ({"budget": 201}, "budget: 201 is larger than the pool of 200 images"),
    ({"cycles": 30}, "cycles: 30 cycles need 310 labels"),
    ({"initial": 9, "initial_balanced": True}, "initial: 9 images leave a class missing"),
    ({"validation_size": 200}, "validation_size: 200 is not smaller than the 200 images"),
    # models that the method, the images or the batches do not suit
    ({"method": "ll4al", **CNN}, "model: 'mc_dropout_cnn' has no stages for a loss module"),
    ({"method": "ta_vaal", **CNN}, "model: 'mc_dropout_cnn' has no stages for a loss module"),
    ({"method": "cmam", "cmam_layer": 3, **CNN}, "cmam_layer: 'mc_dropout_cnn' has 2 layers to fuse after, not 3"),
    ({"method": "mixup", "model": "radial_cnn"}, "model: 'radial_cnn' trains on its ELBO"),
    ({"image_size": 7, **CNN}, "model: 'mc_dropout_cnn' needs images of at least 8×8 pixels, not 7×7"),
    ({"method": "temperature_scaling", **CNN}, "model: 'mc_dropout_cnn' has no one temperature for its samples"),
    ({"batch_size": 1}, "batch_size: 1 image of 8×8 pixels gives batch-norm one number a channel"),
    ({"batch_size": 1, "image_size": 32, "stem": "imagenet"}, "batch_size: 1 image of 32×32 pixels"),
    # pretext tasks that the images do not suit
    ({"method": "pt4al", "pretext": "colorization"}, "pretext: colorization predicts colours, and 'digits' is grey"),
    ({"method": "pt4al", "pretext": "jigsaw", "image_size": 2}, "pretext: jigsaw needs images of at least 4×4 pixels"),
    ({"method": "pt4al_cold_start", "cycles": 201}, "cycles: 200 images cannot make 201 batches"),
    ({"method": "pt4al", "pretext": "rotation", "pretext_batch_size": 1, "protocol": "released"},
     "pretext_batch_size: 1 image of 8×8 pixels"),
    # strategies that cannot choose
    ({"method": "margin", "initial": 0}, "initial: method 'margin' cannot choose before there is a model"),
    ({"method": "typiclust", "initial": 0}, "initial: method 'typiclust' has nothing to choose by"),
    ({"method": "temperature_scaling", "initial": 1}, "initial: method 'temperature_scaling' holds out a part"),
    ({"method": "bald", "dropout": 0.0}, "dropout: method 'bald' asks where samples of the model disagree"),
    ({"method": "bald", "dropout": 0.0, **CNN}, "dropout: method 'bald' asks where samples of the model disagree"),
    ({"method": "bald", "posterior_samples": 1}, "posterior_samples: method 'bald' asks where samples disagree"),
    ({"method": "sbias", "dropout": 0.0}, "dropout: method 'sbias' asks where samples of the model disagree"),
    ({"method": "bait", "bait_form": "full", "width": 64}, "bait_form: the full one takes at most 4096 = classes"),
    ({"cycles": 1, "initial": 0, "budget": 201}, "budget: 201 is larger than the pool of 200 images"),
    ({"device": "cuda:77"}, "device: 'cuda:77' is not there"),
]  # fmt: skip
TAKEN: list[dict[str, Any]] = [
    {"test_class_balance": [0.5] * 10, "test_size": 180},
    {"method": "sbias", "dropout": 0.0, "sbias_score": "entropy"},
    {"method": "bald", "dropout": 0.0, "model": "radial_cnn"},
    {"method": "pt4al", "pretext_batch_size": 1},
    {"method": "pt4al", "pretext": "simsiam", "pretext_batch_size": 1},
    {"batch_size": 1, "image_size": 9},
    {"batch_size": 1, **CNN},
    {"initial": 1},
    {"method": "whole_dataset", "budget": 201},
    {"cycles": 1, "budget": 201},
    {"method": "bait", "bait_form": "full"},
]


def plan_of(tmp_path: Path, **content: Any) -> planning.Plan:
    method = content.pop("method", "random")
    content = {**TINY, "device": "cpu", "methods": [method], **content}
    (tmp_path / "s.yaml").write_text(yaml.safe_dump(content))
    return planning.make_plan(tmp_path / "s.yaml", tmp_path / "out")


@pytest.mark.parametrize(("parameters", "message"), REFUSED, ids=lambda value: str(value)[:60])
def test_the_dry_run_and_the_learner_refuse_alike(parameters: dict[str, Any], message: str, tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **parameters)
    with pytest.raises(AlkitError) as before:
        check_plan(plan)
    assert str(before.value).startswith(f"{tmp_path}/s.yaml: {message}")
    with pytest.raises(AlkitError) as there:
        ActiveLearner(plan.runs[0].experiment, tmp_path / "run")
    assert str(before.value) == f"{tmp_path}/s.yaml: {there.value}"
    assert type(before.value) is type(there.value)
    assert not (tmp_path / "out").exists()
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("parameters", TAKEN, ids=str)
def test_nothing_else_is_refused(parameters: dict[str, Any], tmp_path: Path) -> None:
    plan = plan_of(tmp_path, **parameters)
    assert check_plan(plan) == []
    experiment = plan.runs[0].experiment
    if experiment.method != "pt4al":
        short = experiment.model_copy(update={"cycles": 1, "epochs": 1})
        assert len(list(ActiveLearner(short))) == 1


def test_the_commands_refuse_before_anything_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    plan_of(tmp_path, methods=["random", "ll4al"], **CNN)
    for more in ([], ["--dry-run"]):
        assert cli.main(["run", f"{tmp_path}/s.yaml", "--out", f"{tmp_path}/out", *more]) == 2
        assert f"{tmp_path}/s.yaml: ll4al: model: 'mc_dropout_cnn' has no stages" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_a_pretext_task_is_not_trained_for_a_run_that_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="budget: 201 is larger"):
        with_pretext(Experiment(**{**TINY, "method": "pt4al", "budget": 201}), tmp_path / "pretext")
    assert not (tmp_path / "pretext").exists()


def test_files_that_do_not_belong_are_refused(tmp_path: Path) -> None:
    train, test = load_for(Experiment())
    about = yaml.safe_dump({"images": {"train": "0" * 64, "test": pixels_digest(test)}})
    rows = {"train": np.ones((len(train), 3)), "test": np.ones((len(test), 3))}
    np.savez(tmp_path / "other.npz", **rows, about=np.array(about.replace("\n", "")))
    np.save(tmp_path / "few_train.npy", rows["train"][1:])
    np.save(tmp_path / "few_test.npy", rows["test"])
    (tmp_path / "first.txt").write_text("\n".join(map(str, range(190, 210))))
    (tmp_path / "losses.txt").write_text("".join(f"{i}_a/{i}.png\n" for i in range(7)))
    for parameters, message in [
        ({"features": "few_train.npy", "model": "linear"}, r"few_train.npy: 1,436 rows for the 1,437 training images"),
        ({"features": "few_train.npy"}, "1,436 rows for the 1,437 training images"),
        ({"first_labelled": "first.txt"}, "200 is no place in the pool of 200 images"),
        ({"first_labelled": "no.txt"}, "no.txt: no such file"),
        ({"method": "pt4al", "pretext_losses": "losses.txt"}, "holds 7 losses, the pool has 200 images"),
    ]:
        with pytest.raises(AlkitError, match=message):
            check_plan(plan_of(tmp_path, **parameters))


def test_a_tree_too_large_is_refused_unless_a_subset_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hierarchical, "WARD_LIMIT", 199)
    with pytest.raises(ConfigError, match="a Ward tree over 200 images"):
        check_plan(plan_of(tmp_path, method="hierarchical"))
    check_plan(plan_of(tmp_path, method="hierarchical", subset=179))
    with pytest.raises(ConfigError, match="a Ward tree over 200 images"):
        check_plan(plan_of(tmp_path, method="hierarchical", subset=180))


def test_finished_runs_stay_as_they_are_unless_they_begin_anew(tmp_path: Path) -> None:
    plan = plan_of(tmp_path, method="bald", dropout=0.0, device="cuda:77")
    write_run(plan.runs[0].folder, plan.runs[0].experiment, arrays=False)
    assert check_plan(plan) == []
    with pytest.raises(ConfigError, match="device: 'cuda:77' is not there"):
        check_plan(plan, ["bald"])
    with pytest.raises(ConfigError, match="dropout: method 'bald'"):
        check_plan(plan, ["bald"], here=False)


# --- folders ---------------------------------------------------------------------------------------------------------

FOLDER = {"dataset": "folder", "data_root": "images", "pool_size": None, "test_size": None, "initial": 4, "budget": 4}


@pytest.fixture
def images(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    return photographs(tmp_path / "images", {"a": 10, "b": 10})


@pytest.mark.parametrize(
    ("parameters", "message"),
    [
        ({"test_size": 5}, "test_size: 5 is larger than the 4 test images there are"),
        ({"test_class_balance": [1.0, 0.5, 1.0]}, "test_class_balance: expected 2 fractions"),
        ({"class_balance": [1.0]}, "class_balance: expected 2 fractions"),
        ({"initial": 17}, "initial: 17 is larger than the pool of 16 images"),
        ({"method": "pt4al", "pretext": "jigsaw", "image_size": 3}, "pretext: jigsaw needs images of at least 4×4"),
        ({"image_size": 7, **CNN}, "needs images of at least 8×8 pixels, not 7×7"),
    ],
)
def test_a_folder_is_known_without_decoding_it(
    parameters: dict[str, Any], message: str, images: Path, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match=message):
        check_plan(plan_of(tmp_path, **(FOLDER | parameters)))
    assert not (tmp_path / "cache").exists()


def test_a_broken_image_is_refused_before_a_run_starts(
    images: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (images / "b" / "003.png").write_bytes(b"no image")
    plan_of(tmp_path, **FOLDER)
    for more in ([], ["--dry-run"]):
        assert cli.main(["run", f"{tmp_path}/s.yaml", "--out", f"{tmp_path}/out", *more]) == 2
        assert f"{images}/b/003.png: not an image that can be read" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("grey", [True, False])
def test_colours_are_known_from_the_files_headers(grey: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from PIL import Image

    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    photographs(tmp_path / "images", {"a": 10, "b": 10})
    for path in (tmp_path / "images").rglob("*.png"):
        Image.open(path).convert("L" if grey else "RGB").save(path)
    experiment = Experiment(**{**TINY, **FOLDER, "data_root": str(tmp_path / "images"), "image_size": 12})
    assert facts_of(experiment).shape == load_for(experiment)[0].shape == (1 if grey else 3, 12, 12)
    plan = plan_of(tmp_path, **FOLDER, method="pt4al", pretext="colorization")
    if grey:
        with pytest.raises(ConfigError, match="colorization predicts colours, and 'folder' is grey"):
            check_plan(plan)
    else:
        assert check_plan(plan) == ["images    all 20 files decoded, in 2 classes"]


# --- what is known is what comes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "two_moons"])
@pytest.mark.parametrize("options", [{}, {"image_size": 12, "pool_size": 300, "test_size": 70}, {"dataset_seed": 3}])
def test_facts_are_those_of_the_loaded_images(name: str, options: dict[str, Any]) -> None:
    experiment = Experiment(dataset=name, **options)
    train, test = load_for(experiment)
    facts = facts_of(experiment)
    assert (facts.pool, facts.test, facts.classes) == (len(train), len(test), train.num_classes)
    assert facts.shape == train.shape
    if not options:
        assert test.class_counts.tolist() == list(DATASETS[name].test_counts or ())


def test_every_set_that_needs_no_files_names_its_test_images_a_class() -> None:
    for entry in DATASETS.values():
        if entry.class_counts:
            assert entry.test_counts is not None
            assert len(entry.test_counts) == len(entry.class_counts)
    sizes = {name: DATASETS[name].test_size for name in ("mnist", "fashion_mnist", "svhn", "cifar10", "cifar100")}
    assert sizes == {"mnist": 10_000, "fashion_mnist": 10_000, "svhn": 26_032, "cifar10": 10_000, "cifar100": 10_000}


@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
@pytest.mark.parametrize("side", [7, 8, 9, 16, 31, 33])
def test_the_last_map_and_the_features_are_as_wide_as_said(stem: Any, side: int) -> None:
    experiment = Experiment(stem=stem, width=2)
    network = build_network(experiment, (1, side, side), 3, generator(0)).eval()
    _, embedded, maps = network.backbone.stages(from_arrays("x", np.zeros((2, 1, side, side), np.uint8), [0, 1],
                                                           ["a", "b", "c"]).images.float())  # type: ignore[operator]  # fmt: skip
    assert maps[-1].shape[2:] == last_map((1, side, side), stem)
    assert embedded.shape[1] == feature_width(experiment, (1, side, side), 3)
