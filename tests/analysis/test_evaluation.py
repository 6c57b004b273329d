"""`alkit evaluate`: what a run's record says of its checkpoints, and nothing but weights from any file."""

from __future__ import annotations

import io
import json
import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from made_up import made_images
from photographs import invert, photographs

from alkit import ActiveLearner, Experiment
from alkit.analysis import evaluation
from alkit.analysis.evaluation import as_text, evaluate
from alkit.calibration import calibration_errors
from alkit.cli import main
from alkit.data import load_dataset
from alkit.errors import AlkitError, CheckpointError, ConfigError
from alkit.models import resnet10, resnet18
from alkit.records import MEASURES, read_run
from alkit.storage.checkpoint_files import find_checkpoints
from alkit.storage.weights import architecture_of, read_weights

Make = Callable[..., Experiment]
SMALL = {"pool_size": 200, "test_size": 60}
NAME = "active_resnet10_digits_cycle{}.pth"


def weights_of(seed: int = 0, **options: Any) -> dict[str, torch.Tensor]:
    """A network for digits, by default a small one."""
    torch.manual_seed(seed)
    make = resnet18 if options.pop("model", "resnet10") == "resnet18" else resnet10
    return make(**({"num_classes": 10, "in_channels": 1, "width": 4} | options)).state_dict()


def save(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    torch.save(content, path)
    return path


def released(folder: Path, dataset: str, cycles: range, seeds: int = 2, layout: str = "Init100_S400_B50") -> Path:
    """Checkpoints of random weights in the first paper's layout, for colour images."""
    for seed in range(seeds):
        for cycle in cycles:
            weights = weights_of(10 * seed + cycle, in_channels=3)
            name = f"active_resnet10_{dataset}_cycle{cycle}.pth"
            save(folder / dataset / layout / f"Seed-{seed}" / name, {"cycle": cycle, "state_dict_backbone": weights})
    return folder / dataset / layout


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """Every data set is 40 made-up colour images of 10 classes."""
    images = made_images(40, (3, 8, 8), 10)
    monkeypatch.setattr(evaluation, "load_for", lambda _: (images, images))


# --- a run's own checkpoints -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "options",
    [
        {"method": "random"},
        {"method": "temperature_scaling"},
        {"method": "bald", "model": "mc_dropout_cnn"},
        {"method": "oo4al", "protocol": "released", "model": "resnet18", "calibration_bins": 15},
    ],
    ids=["random", "with a temperature", "with a posterior", "as released"],
)
def test_the_numbers_are_those_of_the_runs_record(options: dict[str, Any], tiny: Make, tmp_path: Path) -> None:
    for seed in (0, 4):
        experiment = tiny(seed=seed, keep_models=True, **options)
        list(ActiveLearner(experiment, tmp_path / experiment.name / f"seed-{seed}"))
    found = evaluate(tmp_path / "*" / "seed-{seed}" / "models" / "*_cycle{cycle}.pth", "digits").frame
    assert [(row.seed, row.cycle) for row in found.itertuples()] == [(0, 1), (4, 1), (0, 2), (4, 2)]
    for row in found.to_dict("records"):
        cycle = read_run(Path(row["file"]).parents[1])["cycles"][row["cycle"] - 1]
        assert {key: row[key] for key in (*MEASURES, "labelled")} == {
            key: cycle[key] for key in (*MEASURES, "labelled")
        }


def test_without_a_record_the_weights_tell_the_network(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(keep_models=True, model="resnet18", width=6)
    list(ActiveLearner(experiment, tmp_path / "seed-0"))
    record = read_run(tmp_path / "seed-0")["cycles"]
    (tmp_path / "seed-0" / "result.json").unlink()
    found = evaluate(tmp_path / "seed-*" / "models" / "*.pth", "digits", parameters=SMALL).frame
    for measure in MEASURES:
        assert found[measure].to_numpy() == pytest.approx([cycle[measure] for cycle in record], abs=1e-6)
    assert found["labelled"].isna().all()


@pytest.mark.parametrize("model", ["linear", "mlp"])
def test_a_run_on_features_is_measured_on_features(model: str, tiny: Make, tmp_path: Path) -> None:
    train, test = load_dataset("digits")
    for split, images in (("train", train), ("test", test)):
        np.save(tmp_path / f"f_{split}.npy", images.images.flatten(1).numpy().astype(np.float32) / 16)
    experiment = tiny(features=str(tmp_path / "f_train.npy"), model=model, keep_models=True)
    record = list(ActiveLearner(experiment, tmp_path / "run"))
    found = evaluate(tmp_path / "run" / "models" / "*.pth", "digits").frame
    for measure in MEASURES:
        assert found[measure].to_numpy() == pytest.approx([cycle[measure] for cycle in record], abs=1e-6)


def test_a_run_on_other_images_is_not_evaluated_as_if_it_were_on_these(tiny: Make, tmp_path: Path) -> None:
    list(ActiveLearner(tiny(keep_models=True, cycles=1), tmp_path))
    with pytest.raises(CheckpointError, match=r"cycle1\.pth: of a run on 'digits', not 'two_moons'"):
        evaluate(tmp_path / "models" / "*.pth", "two_moons")


def test_a_run_is_not_measured_on_test_images_that_changed_since(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    folder = photographs(tmp_path / "cats", {"cat": 30, "dog": 30})
    experiment = tiny(dataset="folder", data_root=str(folder), pool_size=None, test_size=None, keep_models=True)
    list(ActiveLearner(experiment, tmp_path / "run"))
    models = tmp_path / "run" / "models" / "*.pth"
    found = evaluate(models, "folder").frame
    invert(folder)
    with pytest.raises(CheckpointError, match=r"cycle1\.pth: its run was tested on other images of 'folder' than"):
        evaluate(models, "folder")
    assert evaluate(models, "folder", data_root=folder).frame["nll"].tolist() != found["nll"].tolist()


# --- the papers' layout ----------------------------------------------------------------------------------------------


def test_a_glob_and_places_for_seed_and_cycle_mean_the_same(tmp_path: Path) -> None:
    folder = released(tmp_path / "jobs", "cifar10", range(3))
    (folder / "Seed-0" / "active_resnet10_cifar10_cycle_last.pth").touch()
    placed = find_checkpoints(f"{folder}/Seed-{{seed}}/active_resnet10_cifar10_cycle{{cycle}}.pth")
    assert placed == find_checkpoints(f"{folder}/Seed-*/active_resnet10_cifar10_cycle[0-9].pth")
    assert placed == find_checkpoints(f"{tmp_path}/**/Seed-{{seed}}/*_cycle{{cycle}}.pth")
    assert [(file.cycle, file.seed, file.labelled) for file in placed] == [
        (0, 0, 100), (0, 1, 100), (1, 0, 150), (1, 1, 150), (2, 0, 200), (2, 1, 200),
    ]  # fmt: skip
    assert {file.label for file in placed} == {"Init100_S400_B50"}


def test_labels_count_from_the_first_cycle_there_is(tmp_path: Path) -> None:
    """The papers' program calls it 0, a run of this kit 1."""
    theirs = released(tmp_path / "theirs", "cifar10", range(10), seeds=1)
    ours = released(tmp_path / "ours", "cifar10", range(1, 11), seeds=1)
    for folder, last in ((theirs, 9), (ours, 10)):
        (file,) = find_checkpoints(folder / "Seed-*" / f"*cycle{last}.pth")
        assert (file.cycle, file.labelled) == (last, 550)


@pytest.mark.parametrize(
    ("dataset", "layout", "unit", "published"),
    [("cifar10", "Init1000_S10000_B1000", 1e-3, [0.551, 0.712]), ("cifar10_step", "Init100_S1000_B100", 1e-2, None)],
)
def test_the_papers_units_and_the_published_accuracy(
    dataset: str, layout: str, unit: float, published: list[float] | None, made_up: None, tmp_path: Path
) -> None:
    found = evaluate(f"{released(tmp_path, dataset, range(2), layout=layout)}/Seed-*/*.pth", dataset)
    table = found.table
    assert table["oe_scaled"].to_numpy() == pytest.approx(table["oe"].to_numpy() / unit)
    assert f"OE, {unit:g}".replace("0.001", "1e-3").replace("0.01", "1e-2") in as_text(found)
    if published is not None:
        assert table["published"].tolist() == pytest.approx(published)
        assert "published is oo4al in OO4AL, figure" in as_text(found)
        assert "model resnet10, theirs resnet18; width 4, theirs 64" in as_text(found)


def test_mean_and_deviation_are_over_seeds(made_up: None, tmp_path: Path) -> None:
    found = evaluate(f"{released(tmp_path, 'cifar10', range(2), seeds=3)}/Seed-*/*.pth", "cifar10")
    for cycle, row in enumerate(found.table.itertuples()):
        values = found.frame.loc[found.frame["cycle"] == cycle, "accuracy"].to_numpy()
        assert row.seeds == len(values) == 3
        assert [row.accuracy, row.accuracy_deviation] == pytest.approx([values.mean(), values.std(ddof=1)])
    assert "±" in as_text(found)


def test_one_seed_has_no_deviation(made_up: None, tmp_path: Path) -> None:
    found = evaluate(f"{released(tmp_path, 'cifar10', range(2), seeds=1)}/Seed-*/*.pth", "cifar10")
    assert found.table["accuracy_deviation"].isna().all()
    assert "±" not in as_text(found)


def test_the_released_protocol_leaves_out_a_confidence_of_one(made_up: None, tmp_path: Path) -> None:
    weights = weights_of(in_channels=3)
    weights["linear.weight"] *= 1000  # some images get a confidence of 1, not all
    save(tmp_path / "Seed-0" / "x_cycle0.pth", weights)
    for protocol, dropped, bins in (("corrected", False, 15), ("released", True, 100)):
        found = evaluate(tmp_path / "Seed-0" / "*.pth", "cifar10", parameters={"protocol": protocol})
        ((confidence, correct),) = found.predictions.values()
        assert 0 < np.mean(confidence == 1) < 1
        assert found.frame["oe"].iloc[0] == pytest.approx(
            calibration_errors(confidence, correct, bins, dropped).oe, abs=1e-6
        )
        assert ("exactly 1 is left out" in as_text(found)) == dropped
        assert f"ECE and OE in {bins} bins" in as_text(found)


def test_imagenet_checkpoints_pool_the_corner_they_were_trained_with(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    images = made_images(20, (3, 40, 40), 10)
    monkeypatch.setattr(evaluation, "load_for", lambda _: (images, images))
    pattern = f"{released(tmp_path, 'imagenet', range(1), seeds=1)}/Seed-*/*.pth"
    as_trained, whole = (
        evaluate(pattern, "imagenet", parameters={"quirks": {"imagenet_corner_pool": pools}}) for pools in (True, False)
    )
    default = evaluate(pattern, "imagenet")
    assert default.frame["nll"].tolist() == as_trained.frame["nll"].tolist() != whole.frame["nll"].tolist()
    assert "pooled at its corner" in as_text(default)


# --- what a file may hold --------------------------------------------------------------------------------------------


def test_a_state_dict_on_its_own_and_one_of_dataparallel_give_the_same(tmp_path: Path) -> None:
    weights = weights_of()
    wrapped = {f"module.{key}": value for key, value in weights.items()}
    save(tmp_path / "a" / NAME.format(1), {"state_dict_backbone": weights})
    save(tmp_path / "b" / NAME.format(1), weights)
    save(tmp_path / "c" / NAME.format(1), {"cycle": 1, "state_dict_backbone": wrapped})
    save(tmp_path / "d" / NAME.format(1), {key: value for key, value in wrapped.items() if "batches" not in key})
    found = evaluate(tmp_path / "?" / "*.pth", "digits", parameters=SMALL).frame
    assert found["label"].tolist() == ["a", "b", "c", "d"]
    assert found["nll"].nunique() == 1


@pytest.mark.parametrize("model", ["resnet18", "resnet10"])
@pytest.mark.parametrize(("width", "stem", "channels"), [(4, "cifar", 1), (6, "imagenet", 3)])
def test_shapes_tell_the_architecture(model: str, width: int, stem: str, channels: int, tmp_path: Path) -> None:
    given: dict[str, Any] = {"model": model, "width": width, "stem": stem, "in_channels": channels, "num_classes": 7}
    path = save(tmp_path / "w.pth", weights_of(**given))
    assert architecture_of(read_weights(path), path) == given


def test_a_file_without_seed_and_cycle_can_be_evaluated_too(tmp_path: Path) -> None:
    save(tmp_path / "best.pth", weights_of())
    found = evaluate(tmp_path / "best.pth", "digits", parameters=SMALL)
    assert found.table["seeds"].tolist() == [1]
    assert found.table[["cycle", "labelled"]].isna().all(axis=None)
    assert "–" in as_text(found)


class Hostile:
    """Runs a program when it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return os.mkdir, (str(self.path),)


def in_bytes(content: Any) -> bytes:
    stream = io.BytesIO()
    torch.save(content, stream)
    return stream.getvalue()


def broken_files(mark: Path) -> dict[str, tuple[bytes, str]]:
    """Files that are not weights of a network for digits, and what is said of each."""
    good = weights_of()
    whole = in_bytes({"state_dict_backbone": good})
    other_names = {key.replace("linear", "fc"): value for key, value in good.items()}
    deeper = weights_of(model="resnet18") | {"layer1.2.conv1.weight": torch.zeros(4, 4, 3, 3)}
    shorter = {key: value for key, value in good.items() if key != "layer3.0.bn2.bias"}
    wider = good | {"layer2.0.conv1.weight": torch.zeros(16, 4, 3, 3)}
    repeated = good | {"conv1.weight": torch.zeros(1).expand(10**6, 10**6, 3, 3)}
    return {
        "hostile": (in_bytes({"state_dict_backbone": good, "more": Hostile(mark)}), "refused: it holds posix.mkdir"),
        "pickle": (pickle.dumps(Hostile(mark), protocol=2), "refused|not written by torch.save"),
        "module": (in_bytes(resnet10(10, 1, 4)), "refused: it holds alkit.models.resnet.ResNet"),
        "truncated": (whole[: len(whole) // 2], "truncated, damaged"),
        "almost whole": (whole[:-40], "truncated, damaged"),
        "empty": (b"", "truncated, damaged"),
        "a page": (b"<html>404</html>", "truncated, damaged, or not written by torch.save"),
        "a list": (in_bytes([1, 2]), "no state dict in it"),
        "settings": (in_bytes({"epochs": 3}), "'epochs' is not a tensor"),
        "nothing": (in_bytes({}), "no state dict in it"),
        "other names": (in_bytes(other_names), "not a ResNet-18 or ResNet-10 with the papers' names: .*'linear"),
        "another stem": (in_bytes(good | {"conv1.weight": torch.zeros(4, 1, 5, 5)}), "'conv1.weight' is 4×1×5×5"),
        "deeper": (in_bytes(deeper), "'layer1.2.conv1.weight' has no place in it"),
        "shorter": (in_bytes(shorter), "'layer3.0.bn2.bias' is missing"),
        "wider": (in_bytes(wider), "'layer2.0.conv1.weight' is 16×4×3×3, expected 8×4×3×3"),
        "repeated": (in_bytes(repeated), "larger than the file"),
        "not numbers": (in_bytes(good | {"bn1.bias": torch.full((4,), torch.nan)}), "'bn1.bias' holds values that are"),
        "too large": (in_bytes({key: value * 1e30 for key, value in good.items()}), "outputs are not numbers"),
        "classes": (in_bytes(weights_of(num_classes=7)), "has 7 classes, the data set 'digits' 10"),
        "colour": (in_bytes(weights_of(in_channels=3)), "for images of 3 channels, those of 'digits' have 1"),
    }  # fmt: skip


BROKEN = list(broken_files(Path()))


@pytest.mark.parametrize("kind", BROKEN)
def test_what_is_not_the_weights_is_one_line_with_the_files_name(kind: str, tmp_path: Path) -> None:
    content, message = broken_files(tmp_path / "hacked")[kind]
    path = tmp_path / "Seed-0" / NAME.format(1)
    path.parent.mkdir()
    path.write_bytes(content)
    with pytest.raises(AlkitError, match=message) as caught:
        evaluate(tmp_path / "Seed-*" / "*.pth", "digits", parameters=SMALL)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "hacked").exists()


def test_every_file_is_checked_before_the_first_is_evaluated(tmp_path: Path) -> None:
    save(tmp_path / "Seed-0" / NAME.format(1), weights_of())
    save(tmp_path / "Seed-1" / NAME.format(1), weights_of(num_classes=3))
    with pytest.raises(CheckpointError, match=r"Seed-1.*has 3 classes"):
        evaluate(
            tmp_path / "Seed-*" / "*.pth", "digits", parameters=SMALL, progress=lambda *_: pytest.fail("evaluated")
        )


# --- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_the_table_and_leaves_it_as_csv(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for seed in (0, 1):
        for cycle in (1, 2):
            save(tmp_path / "random" / f"seed-{seed}" / "models" / NAME.format(cycle), weights_of(seed + 5 * cycle))
    pattern = f"{tmp_path}/random/seed-{{seed}}/models/active_resnet10_digits_cycle{{cycle}}.pth"
    out = tmp_path / "new" / "table.csv"
    assert main(["evaluate", pattern, "--dataset", "digits", "-p", "test_size", "60", "--out", str(out)]) == 0
    said = capsys.readouterr()
    assert said.out.splitlines()[0].split("  ")[0] == "cycle"
    assert "60 test images" in said.out
    assert said.err.splitlines()[0].startswith("1/4: random, seed 0, cycle 1: accuracy ")
    table = pd.read_csv(out)
    assert table[["cycle", "seeds"]].to_numpy().tolist() == [[1, 2], [2, 2]]
    found = evaluate(pattern, "digits", parameters={"test_size": 60}).table
    assert table["oe_deviation"].to_numpy() == pytest.approx(found["oe_deviation"].to_numpy())
    assert [path.name for path in out.parent.iterdir()] == ["table.csv"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["{folder}/no*.pth"], "no such file"),
        (["{folder}/Seed-{{trial}}/*.pth"], "pattern: {trial} is not known; expected {seed} or {cycle}"),
        (["{folder}/*.pth", "-p", "imagesize", "8"], "imagesize: not a parameter of an evaluation; did you mean"),
        (["{folder}/*.pth", "-p", "lr", "8"], "lr: not a parameter of an evaluation"),
        (["{folder}/*.pth", "-p", "test_size", "many"], "test_size: expected a valid integer"),
        (["{folder}/*.pth", "-p", "test_size", "9999"], "test_size: 9999 is larger than the 360 test images"),
        (["{folder}/*.pth", "--dataset", "digitz"], "no data set 'digitz'; did you mean 'digits'"),
        (["{folder}/*.pth", "--out", "{folder}"], "not a file that can be written"),
    ],
)
def test_a_mistake_is_one_line_and_status_2(
    arguments: list[str], message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    save(tmp_path / "a_cycle1.pth", weights_of())
    out = tmp_path / "out.csv"
    given = ["evaluate", "--dataset", "digits", "--out", str(out), *(a.format(folder=tmp_path) for a in arguments)]
    assert main(given) == 2
    said = capsys.readouterr()
    assert message in said.err
    assert said.err.startswith("alkit: ")
    assert said.err.count("\n") == 1
    assert (said.out, out.exists()) == ("", False)


def test_two_files_of_one_seed_and_cycle_are_refused(tmp_path: Path) -> None:
    save(tmp_path / "Seed-0" / "x_cycle1.pth", weights_of())
    save(tmp_path / "Seed-0" / "x_cycle01.pth", weights_of())
    with pytest.raises(CheckpointError, match="the same seed and cycle as"):
        evaluate(tmp_path / "Seed-*" / "*.pth", "digits")


def test_the_record_of_a_foreign_version_is_named(tiny: Make, tmp_path: Path) -> None:
    list(ActiveLearner(tiny(keep_models=True, cycles=1), tmp_path))
    record = json.loads((tmp_path / "result.json").read_text())
    record["params"]["of_tomorrow"] = 1
    (tmp_path / "result.json").write_text(json.dumps(record))
    with pytest.raises((CheckpointError, ConfigError), match=r"result\.json: of_tomorrow: unknown parameter"):
        evaluate(tmp_path / "models" / "*.pth", "digits")
