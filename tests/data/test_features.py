"""Fixed features: a row belongs to its image whatever is left out; heads on them; an empty start, or a given one."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from photographs import photographs

from alkit import ActiveLearner, Experiment, cli
from alkit.data import digest, from_arrays, images_for, load_dataset, load_features, load_for
from alkit.data.features import save_features
from alkit.data.identity import pixels_digest
from alkit.errors import ConfigError, DataError
from alkit.methods import METHODS
from alkit.strategies import Pool, Query, Strategy
from alkit.strategies.base import import_all, make_strategy

Make = Callable[..., Experiment]
EMPTY = ["random", "coreset", "typiclust", "probcover", "max_herding", "uncertainty_herding", "tcm", "dcom"]


def pixels_of(images: Any) -> np.ndarray:
    """Features of an image from which it can be known again: its pixels."""
    return (images.images.flatten(1).numpy() / 255).astype(np.float16)  # type: ignore[no-any-return]


@pytest.fixture(scope="session")
def file(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A file of features of digits: the pixels themselves."""
    path = tmp_path_factory.mktemp("features") / "digits.npz"
    train, test = load_dataset("digits")
    images = {"train": pixels_digest(train), "test": pixels_digest(test)}
    save_features(path, pixels_of(train), pixels_of(test), {"encoder": "pixels", "dataset": "digits"}, images)
    return str(path)


# --- files -----------------------------------------------------------------------------------------------------------


def test_what_is_written_is_read(file: str) -> None:
    features = load_features(file)
    assert features.train.shape == (1437, 64)
    assert features.train.dtype == torch.float32
    assert features.about == {"encoder": "pixels", "dataset": "digits"}
    assert features.images["train"] == pixels_digest(load_dataset("digits")[0])


@pytest.mark.parametrize(
    "options",
    [
        {}, {"pool_size": 150}, {"test_size": 50}, {"class_balance": [1.0, 0.5] * 5}, {"imbalance_factor": 10.0},
        {"label_noise": 0.2}, {"test_class_balance": [0.5] * 10}
    ],
    ids=str,
)  # fmt: skip
def test_a_row_belongs_to_its_image_whatever_is_left_out(options: dict[str, Any], file: str) -> None:
    for images in load_for(Experiment(features=file, **options)):
        assert images.features is not None
        assert torch.equal(images.features, torch.from_numpy(pixels_of(images)).float())


def test_rows_follow_subsets_and_arrays_of_ones_own(file: str, tmp_path: Path) -> None:
    train, test = load_for(Experiment(features=file))
    chosen = torch.tensor([5, 3, 900])
    part = train.select(chosen).features
    assert part is not None
    assert torch.equal(part, torch.from_numpy(pixels_of(train.select(chosen))).float())
    own = [from_arrays("mine", i.images, i.labels, i.class_names) for i in (train, test)]
    for name, images in zip(("train", "test"), own, strict=True):
        np.save(tmp_path / f"mine_{name}.npy", pixels_of(images))
    experiment = Experiment(features=str(tmp_path / "mine_train.npy"), pool_size=200)
    _, pool, _ = images_for(experiment, *own)
    assert pool.features is not None
    assert torch.equal(pool.features, torch.from_numpy(pixels_of(pool)).float())


def test_runs_with_other_features_have_other_images(file: str, tmp_path: Path) -> None:
    train, _ = load_for(Experiment(features=file))
    assert digest(train) != digest(load_dataset("digits")[0])
    assert digest(train.on_features()) == digest(train)
    assert train.notes["features"]["encoder"] == "pixels"


def refused(path: Path | str) -> str:
    with pytest.raises(DataError) as error:
        load_for(Experiment(features=str(path)))
    assert "\n" not in str(error.value)
    return str(error.value)


def test_what_is_no_file_of_features_is_refused_in_one_line(file: str, tmp_path: Path) -> None:
    train, test = (pixels_of(images) for images in load_dataset("digits"))
    assert refused(tmp_path / "none.npz").endswith("none.npz: no such file")
    (tmp_path / "text.npz").write_text("features")
    assert "not a whole file of plain arrays" in refused(tmp_path / "text.npz")
    np.savez(tmp_path / "other.npz", a=train)
    assert "expected a file of `alkit features`" in refused(tmp_path / "other.npz")
    np.save(tmp_path / "a_train.npy", train)
    assert "a_test.npy: no such file" in refused(tmp_path / "a_train.npy")
    np.save(tmp_path / "a_test.npy", test[:-1])
    assert "359 rows for the 360 test images of digits" in refused(tmp_path / "a_train.npy")
    broken = train.copy()
    broken[17, 3] = np.nan
    np.save(tmp_path / "a_train.npy", broken)
    assert "row 17 has numbers that are not finite" in refused(tmp_path / "a_train.npy")
    np.save(tmp_path / "a_train.npy", train[:, 0])
    assert "expected a matrix of numbers, a row an image" in refused(tmp_path / "a_train.npy")
    np.save(tmp_path / "features.npy", train)
    assert "expected a name with 'train' in it" in refused(tmp_path / "features.npy")


def test_features_of_another_set_are_refused(file: str, tmp_path: Path) -> None:
    train, test = load_dataset("digits")
    images = {"train": "0" * 64, "test": pixels_digest(test)}
    save_features(
        tmp_path / "x.npz", pixels_of(train), pixels_of(test), {"encoder": "pixels", "dataset": "mnist"}, images
    )
    assert "made of other train images than digits has now (mnist when it was made)" in refused(tmp_path / "x.npz")


# --- models on features ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["linear", "mlp"])
@pytest.mark.parametrize("method", ["random", "margin", "badge", "coreset", "bald", "mixup", "temperature_scaling"])
def test_a_head_is_trained_on_features_and_ends_in_the_same_bytes_when_it_stops_on_the_way(
    model: str, method: str, file: str, tiny: Make, tmp_path: Path
) -> None:
    experiment = tiny(method=method, model=model, features=file, lr=0.1, width=32, initial=60, epochs=12, milestones=[],
                      checkpoint_seconds=0.0)  # fmt: skip
    whole = list(ActiveLearner(experiment, tmp_path / "whole"))
    assert whole[-1]["accuracy"] > 0.3
    learner = ActiveLearner(experiment, tmp_path / "parts")
    next(iter(learner))
    list(ActiveLearner(experiment, tmp_path / "parts"))
    for name in ("queries.npz", "predictions.npz"):
        assert (tmp_path / "parts" / name).read_bytes() == (tmp_path / "whole" / name).read_bytes()
    record = json.loads((tmp_path / "whole" / "result.json").read_text())
    assert record["data"]["features"]["encoder"] == "pixels"
    assert record["images"]["parts"]["train"]["features"]


def test_a_linear_head_is_a_linear_layer_on_the_features(file: str, tiny: Make) -> None:
    learner = ActiveLearner(tiny(model="linear", features=file))
    next(iter(learner))
    network: Any = learner.network
    rows = learner.train.features
    assert rows is not None
    expected = rows @ network.backbone.linear.weight.T + network.backbone.linear.bias
    torch.testing.assert_close(network.eval()(rows[:, :, None, None]), expected)


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"model": "linear", "features": None}, "model: 'linear' needs features"),
        ({"query_features": "fixed", "features": None}, "query_features: 'fixed' needs features"),
        ({"model": "mlp", "method": "vaal"}, "method: 'vaal' needs images, which model 'mlp' has not"),
        ({"model": "mlp", "method": "pt4al"}, "method: 'pt4al' needs images"),
        ({"model": "linear", "method": "ll4al"}, "needs stages for a loss module"),
        ({"model": "linear", "method": "cmam"}, "cmam_layer: model 'linear' can fuse after layer 0 to 0, not 1"),
        ({"model": "linear", "augmentation": "crop_flip"}, "augmentation: features are no images"),
    ],
)
def test_what_features_cannot_give_is_refused_in_one_line(
    parameters: dict[str, Any], line: str, file: str, tiny: Make
) -> None:
    with pytest.raises(ConfigError, match=line):
        tiny(**({"features": file} | parameters))


class Spy(Strategy):
    """Notes the pool that it is given."""

    starts_empty = True
    seen: list[Pool]

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        self.seen.append(pool)
        return Query(pool.candidates[:budget], torch.zeros(len(pool.candidates)))


@pytest.mark.parametrize(("query_features", "fixed"), [(None, True), ("fixed", True), ("model", False)])
def test_strategies_select_on_fixed_features_unless_told_otherwise(
    query_features: str | None, fixed: bool, file: str, tiny: Make
) -> None:
    learner = ActiveLearner(tiny(features=file, query_features=query_features, width=4))
    spy = Spy(learner.experiment)
    spy.seen = []
    learner.strategy = spy
    next(iter(learner))
    pool, rows = spy.seen[0], learner.train.features
    assert rows is not None
    assert pool.model_features.shape == (len(pool.candidates), 32)
    for found, indices, own in (
        (pool.features, pool.candidates, pool.model_features),
        (pool.labelled_features, pool.labelled, pool.labelled_model_features),
    ):
        assert torch.equal(found, rows[indices] if fixed else own)
    torch.testing.assert_close(pool.classify(pool.model_features), pool.logits)
    assert pool.labelled_logits.shape == (len(pool.labelled), 10)


# --- the first labels ------------------------------------------------------------------------------------------------


def test_exactly_these_strategies_start_from_nothing() -> None:
    import_all()
    found = [name for name in METHODS if make_strategy(Experiment(method=name)).starts_empty and not (
        METHODS[name].whole_pool or METHODS[name].objective != "cross_entropy")]  # fmt: skip
    assert set(EMPTY) == set(found)


@pytest.mark.parametrize("method", EMPTY)
def test_from_no_labels_the_strategy_makes_the_first_query_of_budget_images(
    method: str, file: str, tiny: Make, tmp_path: Path
) -> None:
    experiment = tiny(method=method, model="linear", features=file, initial=0, budget=8, cycles=3)
    learner = ActiveLearner(experiment, tmp_path)
    assert [record["labelled"] for record in learner] == [8, 16, 24]
    queries = learner.query_arrays()
    assert set(queries) >= {"query_1", "query_2", "query_3", "candidates_1", "utilities_1", "candidates_3"}
    assert len(queries["candidates_1"]) == 200
    assert len(queries["candidates_3"]) == 184
    bought = np.concatenate([queries[f"query_{c}"] for c in (1, 2, 3)])
    assert len(set(bought.tolist())) == 24


def test_who_cannot_choose_without_a_model_says_so(file: str, tiny: Make) -> None:
    for method in ("margin", "badge", "bald"):
        with pytest.raises(ConfigError, match=f"initial: method '{method}' cannot choose before there is a model"):
            ActiveLearner(tiny(method=method, features=file, initial=0))
    with pytest.raises(ConfigError, match="'typiclust' has nothing to choose by before there is a model"):
        ActiveLearner(tiny(method="typiclust", initial=0))
    list(ActiveLearner(tiny(method="random", initial=0, epochs=1)))


def test_all_methods_start_from_the_images_of_a_list(tiny: Make, tmp_path: Path) -> None:
    places = [7, 3, 150, 42]
    (tmp_path / "first.txt").write_text("\n".join(map(str, places)))
    np.save(tmp_path / "first.npy", np.array(places, dtype=np.int32))
    for method, name in (("random", "first.txt"), ("margin", "first.npy")):
        learner = ActiveLearner(tiny(method=method, initial=4, epochs=1, first_labelled=str(tmp_path / name)))
        next(iter(learner))
        assert learner.state.queries[0].tolist() == places


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("1\n2\n3", "lists 3 images, but initial is 4"), ("1\n2\n3\n3", "lists an image twice"),
        ("1\n2\n3\n200", "200 is no place in the pool of 200 images"), ("a\nb", "expected whole numbers, one a line"),
        ("1.5\n2\n3\n4", "expected whole numbers"), (None, "no such file"), ("", "lists 0 images, but initial is 4"),
    ],
)  # fmt: skip
def test_a_list_that_cannot_be_is_refused(content: str | None, line: str, tiny: Make, tmp_path: Path) -> None:
    path = tmp_path / "first.txt"
    if content is not None:
        path.write_text(content)
    with pytest.raises(DataError, match=line):
        list(ActiveLearner(tiny(initial=4, first_labelled=str(path))))


def test_a_list_of_several_arrays_is_refused(tiny: Make, tmp_path: Path) -> None:
    with (tmp_path / "first.npy").open("wb") as stream:
        np.savez(stream, places=np.arange(4))
    with pytest.raises(DataError, match="expected whole numbers, one a line"):
        list(ActiveLearner(tiny(initial=4, first_labelled=str(tmp_path / "first.npy"))))


def test_a_parameter_of_an_encoder_that_is_no_yaml_is_taken_as_text(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, "--encoder", "simsiam", "-p", "image_size", "[1") == 2
    assert "image_size" in capsys.readouterr().err


# --- encoders --------------------------------------------------------------------------------------------------------


def command(folder: Path, *arguments: str) -> int:
    before = Path.cwd()
    os.chdir(folder)
    try:
        return cli.main(["features", "digits", "--device", "cpu", *arguments])
    finally:
        os.chdir(before)


def test_alkit_features_makes_a_file_that_a_run_takes(tmp_path: Path, tiny: Make) -> None:
    assert command(tmp_path, "--encoder", "pixels") == 0
    features = load_features(tmp_path / "digits-pixels.npz")
    train, test = load_dataset("digits")
    for found, images in ((features.train, train), (features.test, test)):
        assert torch.equal(found, torch.from_numpy(pixels_of(images)).float())
    assert features.about["kept_as"] == "float16"
    assert not list(tmp_path.glob(".*"))
    list(ActiveLearner(tiny(model="linear", features=str(tmp_path / "digits-pixels.npz"))))
    killed_after_its_file = tmp_path / ".digits-pixels.npz.part"
    killed_after_its_file.mkdir()
    (killed_after_its_file / "train.npy").write_bytes(b"rows")
    assert command(tmp_path, "--encoder", "pixels") == 2, "what is there is not overwritten"
    assert not killed_after_its_file.exists()


def test_features_of_a_study_are_of_its_images_as_they_are_decoded_there(
    tmp_path: Path, tiny: Make, capsys: pytest.CaptureFixture[str]
) -> None:
    photographs(tmp_path / "photos", {"cat": 12, "dog": 8})
    own = {"dataset": "folder", "data_root": "photos", "image_size": 6, "test_fraction": 0.5, "features": "own.npz"}
    (tmp_path / "own.yaml").write_text(json.dumps(own | {"model": "linear", "pool_size": 8}))
    assert cli.main(["features", str(tmp_path / "own.yaml"), "--encoder", "pixels"]) == 0
    assert "own.npz: 108 numbers for each of 10 training and 10 test images" in capsys.readouterr().out
    given = {**own, "data_root": str(tmp_path / "photos"), "features": str(tmp_path / "own.npz")}
    for images in load_for(Experiment(**given, pool_size=8)):
        assert images.features is not None
        assert torch.equal(images.features, torch.from_numpy(pixels_of(images)).float())
    with pytest.raises(DataError, match=r"than folder has now \(folder of 6×6 pixels, now 8×8, when it was made\)"):
        load_for(Experiment(**given | {"image_size": 8}))


def test_what_was_interrupted_goes_on_to_the_same_bytes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from alkit.training.encoders.simsiam import SimSiamEncoder

    options = (
        "--encoder",
        "simsiam",
        "-p",
        "pretext_epochs",
        "6",
        "-p",
        "width",
        "4",
        "-p",
        "pretext_batch_size",
        "512",
    )
    assert command(tmp_path, *options, "--out", "whole.npz") == 0
    embed, calls = SimSiamEncoder.embed, [0]

    def broken(self: SimSiamEncoder, images: torch.Tensor) -> torch.Tensor:
        calls[0] += 1
        if calls[0] == 10:
            raise KeyboardInterrupt
        return embed(self, images)

    monkeypatch.setattr(SimSiamEncoder, "embed", broken)
    assert command(tmp_path, *options, "--out", "parts.npz") == 130
    assert not (tmp_path / "parts.npz").exists()
    trained: list[int] = []
    method = "alkit.training.pretext.simsiam.SimSiam.train_epoch"
    monkeypatch.setattr(method, lambda self, epoch: trained.append(epoch) or 0.0)
    assert command(tmp_path, *options, "--out", "parts.npz") == 0
    assert trained == [], "its training was kept"
    assert (tmp_path / "parts.npz").read_bytes() == (tmp_path / "whole.npz").read_bytes()
    assert load_features(tmp_path / "parts.npz").about["pretext_epochs"] == 6


def test_numbers_too_large_for_how_a_file_keeps_them_make_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    from alkit.training.encoders.pixels import PixelEncoder

    embed = PixelEncoder.embed
    monkeypatch.setattr(PixelEncoder, "embed", lambda self, images: 1e5 * embed(self, images) + 1e5)
    assert command(tmp_path, "--encoder", "pixels") == 2
    assert "gives numbers that are not finite in float16, from image 0 on" in capsys.readouterr().err
    assert not list(tmp_path.glob("*.npz"))


def test_a_network_of_torchvision_gives_the_input_of_its_last_layer(tmp_path: Path) -> None:
    from torchvision import models

    torch.manual_seed(0)
    network = models.resnet18(num_classes=1000).eval()
    torch.save(network.state_dict(), tmp_path / "w.pth")
    from alkit.training.encoders import encoder_named
    from alkit.training.encoders.base import IMAGENET, as_colour

    encoder = encoder_named("torchvision:resnet18", tmp_path / "w.pth", {"image_size": 32})
    images = torch.randint(0, 256, (3, 1, 8, 8)).to(torch.uint8)
    with torch.no_grad():
        rows, seen = encoder.embed(images), as_colour(images, 32, *IMAGENET)
        torch.testing.assert_close(network.fc(rows), network(seen))
    assert seen.shape == (3, 3, 32, 32)


@pytest.mark.parametrize(
    ("arguments", "line"),
    [
        (["--encoder", "simsam"], "no encoder 'simsam'; did you mean 'simsiam'?"),
        (["--encoder", "torchvision:resnet"], "torchvision has no model 'resnet'"),
        (["--encoder", "timm:x"], "timm"),
        (["--encoder", "pixels", "--out", "x.txt"], "expected the name of a file that ends in .npz"),
        (["--encoder", "pixels", "--weights", "none.pth"], "weights: none.pth: no such file"),
        (["--encoder", "simsiam", "-p", "depth", "3"], "depth: no option of simsiam; expected model, width"),
        (["--encoder", "pixels", "-p", "image_size", "16"], "image_size: no option of pixels; it has none"),
        (["--encoder", "torchvision:resnet18", "-p", "image_size", "big"], "expected a number of pixels, not 'big'"),
    ],
)
def test_what_cannot_be_encoded_is_refused_in_one_line(
    arguments: list[str], line: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command(tmp_path, *arguments) == 2
    said = capsys.readouterr().err
    assert line in said
    assert len(said.strip().splitlines()) == 1
    assert list(tmp_path.iterdir()) == []
