"""What tells one set of images from another, and a run that knows its own."""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_images
from photographs import delete, invert, move, photographs
from PIL import Image

from alkit import ActiveLearner, Experiment, notebook
from alkit.analysis import published
from alkit.data import (
    ImageSet,
    digest,
    fingerprint,
    from_arrays,
    identity,
    images_for,
    load_dataset,
    load_for,
)
from alkit.data.pixels import FilePixels, MemmapPixels
from alkit.errors import CheckpointError, ConfigError
from alkit.records import load_runs
from alkit.storage.checkpoint import load_checkpoint, save_checkpoint
from alkit.training.pretext import read_losses, with_pretext

Make = Callable[..., Experiment]
COUNT, SHAPE = 12, (3, 4, 5)


@pytest.fixture
def images() -> ImageSet:
    return made_images(COUNT, SHAPE, 3)


def mapped(images: ImageSet, folder: Path, rows: list[int] | None = None) -> ImageSet:
    """The same images in a file of raw bytes."""
    pixels = images.images.permute(0, 2, 3, 1).contiguous().numpy()
    path = folder / "pixels.bin"
    path.write_bytes(pixels.tobytes())
    found = replace(images, pixels=MemmapPixels(path, pixels.shape))
    return found if rows is None else found.select(torch.tensor(rows))


# --- the digest -----------------------------------------------------------------------------------------------------


def test_the_digest_is_that_of_names_labels_and_pixels_as_defined(images: ImageSet) -> None:
    def sha256(content: bytes) -> str:
        return hashlib.sha256(content).hexdigest()

    parts = {
        "class_names": sha256(b'["class 0", "class 1", "class 2"]'),
        "labels": sha256(b"".join(int(label).to_bytes(8, "little") for label in images.labels)),
        "pixels": sha256(bytes(int(v) for image in images.images for v in image.permute(1, 2, 0).flatten())),
        "shape": [12, 4, 5, 3],
    }  # fmt: skip
    assert digest(images) == sha256(json.dumps(parts, separators=(",", ":"), sort_keys=True).encode())
    other = made_images(4, SHAPE, 3)
    assert fingerprint(images, other) == sha256(f"{digest(images)}{digest(other)}".encode())


def test_a_known_set_has_the_digest_of_its_pixels_among_its_parts() -> None:
    train, _ = load_dataset("digits")
    assert train.identity["pixels"] == hashlib.sha256(train.images.permute(0, 2, 3, 1).contiguous().numpy()).hexdigest()


@pytest.mark.parametrize("change", ["pixel", "label", "order", "name", "shape", "fewer"])
def test_whatever_is_other_gives_another_digest(change: str, images: ImageSet) -> None:
    pixels, labels, names = images.images.clone(), images.labels.clone(), list(images.class_names)
    if change == "pixel":
        pixels[5, 1, 2, 3] ^= 1
    elif change == "label":
        labels[0] = 2
    elif change == "order":
        pixels, labels = pixels.flip(0), labels.flip(0)
    elif change == "name":
        names[0] = "Class 0"
    elif change == "shape":
        pixels = pixels.permute(0, 2, 3, 1).reshape(12, 5, 4, 3).permute(0, 3, 1, 2)
    else:
        pixels, labels = pixels[:-1], labels[:-1]
    assert digest(from_arrays("made_up", pixels, labels, names)) != digest(images)


def test_the_digest_does_not_depend_on_where_the_pixels_are_or_how_they_are_read(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = digest(images)
    rows = [7, 0, 3]
    assert digest(mapped(images, tmp_path)) == wanted
    assert digest(mapped(images, tmp_path, rows)) == digest(images.select(torch.tensor(rows)))
    monkeypatch.setattr(identity, "BLOCK_BYTES", 2 * 4 * 5 * 3 + 1)  # two images at a time
    again = from_arrays("another name", images.images.contiguous(), images.labels, images.class_names)
    assert digest(again) == wanted
    (tmp_path / "b").mkdir()
    assert digest(mapped(images, tmp_path / "b")) == wanted


def test_the_digest_of_a_mapped_file_is_kept_beside_it_until_the_file_changes(
    images: ImageSet, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = digest(mapped(images, tmp_path))
    state = os.stat(tmp_path / "pixels.bin")
    with monkeypatch.context() as patch:
        patch.setattr(identity, "_hashed", lambda _: pytest.fail("read again"))
        assert digest(replace(images, pixels=MemmapPixels(tmp_path / "pixels.bin", (12, 4, 5, 3)))) == first
    inverted = mapped(from_arrays("made_up", 255 - images.images, images.labels, images.class_names), tmp_path)
    os.utime(tmp_path / "pixels.bin", ns=(state.st_atime_ns, state.st_mtime_ns + 1000))
    assert digest(inverted) != first


def test_it_is_computed_once_and_goes_along_to_a_device(images: ImageSet, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[Any] = []
    hashed = identity._hashed
    monkeypatch.setattr(identity, "_hashed", lambda pixels: calls.append(pixels) or hashed(pixels))
    digest(images)
    digest(images)
    assert digest(images.to("cpu")) == digest(images)
    fingerprint(images, images)
    assert len(calls) == 1
    assert digest(images.select(torch.tensor([0]))) != digest(images)


def test_images_decoded_as_they_are_used_are_known_by_the_names_and_sizes_of_their_files(tmp_path: Path) -> None:
    for name, size in (("a.png", 9), ("b.png", 9)):
        Image.new("RGB", (size, size)).save(tmp_path / name)

    def made() -> ImageSet:
        pixels = FilePixels(tmp_path, np.array([b"a.png", b"b.png"]), 8)
        return ImageSet("folder", pixels, torch.tensor([0, 1]), ("a", "b"), (0.5,) * 3, (0.2,) * 3)

    first = made()
    sizes = [(tmp_path / name).stat().st_size for name in ("a.png", "b.png")]
    assert first.identity["files"] == hashlib.sha256(f"a.png\t{sizes[0]}\nb.png\t{sizes[1]}\n".encode()).hexdigest()
    assert "files" in identity.images_record(first, first)["known_by"]
    assert digest(made()) == digest(first)
    (tmp_path / "b.png").write_bytes((tmp_path / "b.png").read_bytes() + b"more")
    assert digest(made()) != digest(first)


# --- what a record says of them -------------------------------------------------------------------------------------


def test_a_difference_is_said_with_both_counts_or_with_what_is_other(images: ImageSet) -> None:
    test = made_images(6, SHAPE, 3, seed=1)
    before = identity.images_record(images, test)
    assert before["train"] == digest(images)
    assert before["counts"] == {"train": 12, "test": 6}
    assert identity.difference(before, json.loads(json.dumps(before))) is None

    fewer = identity.images_record(images.select(torch.arange(11)), test)
    assert (
        identity.difference(before, fewer)
        == "12 training images and 6 test images, not 11 training images and 6 test images"
    )
    inverted = from_arrays("made_up", 255 - images.images, images.labels.flip(0), images.class_names)
    assert identity.difference(before, identity.images_record(inverted, test)) == (
        "12 training images and 6 test images, but other labels and pixels in the training images"
    )
    renamed = [replace(part, class_names=("x", "y", "z")) for part in (images, test)]
    assert identity.difference(before, identity.images_record(*renamed)) == (
        "12 training images and 6 test images, but other class names in the training images and "
        "other class names in the test images"
    )


# --- a run knows its images -----------------------------------------------------------------------------------------


class Killed(Exception):  # noqa: N818
    """Stands for a kill: raised from within the progress report."""


def kill_in(cycle: int) -> Callable[[dict[str, Any]], None]:
    def report(status: dict[str, Any]) -> None:
        if status["cycle"] == cycle:
            raise Killed

    return report


@pytest.fixture
def cats(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of 60 cats and dogs, and a cache of its own."""
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "cache"))
    return photographs(tmp_path / "cats", {"cat": 30, "dog": 30})


@pytest.fixture
def on_folder(tiny: Make) -> Make:
    """`on_folder(folder, …)`: an experiment on the images of that folder."""

    def make(folder: Path, **more: Any) -> Experiment:
        return tiny(**{"dataset": "folder", "data_root": str(folder), "pool_size": None, "test_size": None,
                       "initial": 10, "epochs": 1, "milestones": []} | more)  # fmt: skip

    return make


def run(experiment: Experiment, folder: Path, progress: Any = None) -> dict[str, Any]:
    list(ActiveLearner(experiment, folder, progress))
    content: dict[str, Any] = json.loads((folder / "result.json").read_text())
    return content


def test_a_record_has_the_digests_of_its_pool_and_test_images_after_every_data_option(
    tiny: Make, tmp_path: Path
) -> None:
    experiment = tiny(label_noise=0.5)
    record = run(experiment, tmp_path)
    train, test = load_for(experiment)
    assert record["images"]["train"] == digest(train) != digest(load_for(tiny())[0])
    assert record["images"]["test"] == digest(test)
    assert record["images"]["counts"] == {"train": 200, "test": 60}
    assert record["images"]["parts"]["train"]["pixels"] == load_for(tiny())[0].identity["pixels"]
    frame = load_runs(tmp_path)
    assert set(frame["train_images"]) == {digest(train)}
    assert set(frame["test_images"]) == {digest(test)}


def test_the_images_are_read_for_their_digest_once_a_run(
    tiny: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[Any] = []
    hashed = identity._hashed
    monkeypatch.setattr(identity, "_hashed", lambda pixels: calls.append(pixels) or hashed(pixels))
    learner = ActiveLearner(tiny(), tmp_path)
    list(learner)
    fingerprint(learner.train, learner.test)
    assert len(calls) == 2


def test_a_finished_run_is_not_that_of_another_folder(cats: Path, on_folder: Make, tmp_path: Path) -> None:
    run(on_folder(cats), tmp_path / "run")
    moved = cats.rename(tmp_path / "elsewhere")
    run(on_folder(moved), tmp_path / "run")  # the same images, wherever they are
    birds = photographs(tmp_path / "birds", {"a": 10, "b": 10, "c": 10, "d": 10, "e": 10})
    with pytest.raises(CheckpointError) as error:
        run(on_folder(birds), tmp_path / "run")
    assert str(error.value) == (
        f"{tmp_path / 'run'}: holds a run on other images of 'folder': 48 training images and 12 test images, "
        "not 40 training images and 10 test images; choose another folder"
    )


@pytest.mark.parametrize("change", ["moved to the other class", "inverted", "deleted", "class renamed"])
def test_a_run_broken_off_does_not_go_on_with_other_images(
    change: str, cats: Path, on_folder: Make, tmp_path: Path
) -> None:
    experiment = on_folder(cats, cycles=4)
    with pytest.raises(Killed):
        run(experiment, tmp_path / "run", kill_in(3))
    if change == "moved to the other class":
        move(cats, "cat", "dog", 10)
        said = "48 training images and 12 test images, but other labels and pixels in the training images"
    elif change == "inverted":
        invert(cats)
        said = "but other pixels in the training images and other pixels in the test images"
    elif change == "deleted":
        delete(cats, "dog", 5)
        said = "48 training images and 12 test images, not 44 training images and 11 test images"
    else:
        (cats / "dog").rename(cats / "wolf")
        said = "but other class names in the training images and other class names in the test images"
    before = {path: path.read_bytes() for path in (tmp_path / "run").iterdir()}
    with pytest.raises(CheckpointError) as error:
        run(experiment, tmp_path / "run")
    assert said in str(error.value)
    assert {path: path.read_bytes() for path in (tmp_path / "run").iterdir()} == before


def test_a_record_of_an_older_version_is_read_and_its_images_are_not_known(
    cats: Path, on_folder: Make, tmp_path: Path
) -> None:
    record = run(on_folder(cats), tmp_path)
    del record["images"]
    (tmp_path / "result.json").write_text(json.dumps(record))
    assert run(on_folder(cats), tmp_path)["cycles"] == record["cycles"]
    assert load_runs(tmp_path)["train_images"].isna().all()


def test_a_checkpoint_of_an_older_version_goes_on_with_a_warning(tiny: Make, tmp_path: Path) -> None:
    with pytest.raises(Killed):
        run(tiny(), tmp_path, kill_in(2))
    saved = load_checkpoint(tmp_path / "checkpoint.pt")
    assert saved is not None
    del saved["images"]
    save_checkpoint(tmp_path / "checkpoint.pt", saved)
    with pytest.warns(UserWarning, match="made before runs knew their images"):
        run(tiny(), tmp_path)


def test_pretext_losses_of_other_images_are_not_used(cats: Path, on_folder: Make, tmp_path: Path) -> None:
    experiment = with_pretext(on_folder(cats, method="pt4al"), tmp_path)
    (cats / "dog").rename(cats / "wolf")  # their pixels are the same ones
    run(experiment, tmp_path / "same")
    invert(cats)
    with pytest.raises(ConfigError, match=r"pretext_losses: .* is of other images"):
        run(experiment, tmp_path / "other")
    with pytest.raises(CheckpointError, match="holds pretext losses with pixels = "):
        with_pretext(on_folder(cats, method="pt4al"), tmp_path)


# --- arrays of one's own --------------------------------------------------------------------------------------------


def test_a_run_on_arrays_of_ones_own_is_that_of_a_named_set_with_the_same_images(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(label_noise=0.1, image_size=9)
    named = run(experiment, tmp_path / "named")
    train, test = load_dataset("digits")
    list(ActiveLearner(experiment, tmp_path / "own", train=train, test=test))
    own = json.loads((tmp_path / "own" / "result.json").read_text())
    assert own["images"] == named["images"]
    assert (own["dataset"], own["params"]["dataset"]) == ("own-digits", "own-digits")
    assert [c["query_sha256"] for c in own["cycles"]] == [c["query_sha256"] for c in named["cycles"]]
    assert [c["nll"] for c in own["cycles"]] == [c["nll"] for c in named["cycles"]]


def test_the_example_in_the_documentation_works_as_it_stands(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parents[2] / "docs" / "datasets.md").read_text()
    (code,) = re.findall(r"```python\n(.*?)```", text, re.DOTALL)
    monkeypatch.chdir(tmp_path)
    exec(code, {})
    record = json.loads(Path("outputs/own-spots/margin/seed-0/result.json").read_text())
    assert (record["dataset"], record["images"]["counts"]) == ("own-spots", {"train": 240, "test": 60})


def test_a_run_on_arrays_goes_on_only_with_the_same_arrays(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(pool_size=None, test_size=None, width=4)
    train, test = made_images(80, (1, 8, 8), 4), made_images(40, (1, 8, 8), 4, seed=1)
    with pytest.raises(Killed):
        list(ActiveLearner(experiment, tmp_path, kill_in(2), train=train, test=test))
    with pytest.raises(CheckpointError, match="on other images of 'own-made_up': 80 training images and 40 test"):
        list(ActiveLearner(experiment, tmp_path, train=made_images(80, (1, 8, 8), 4, seed=2), test=test))
    records = list(ActiveLearner(experiment, tmp_path, train=train, test=test))
    assert json.loads((tmp_path / "result.json").read_text())["cycles"] == records


def test_test_images_of_ones_own_are_normalised_as_the_pool_is(tiny: Make) -> None:
    train, test = made_images(80, (1, 8, 8), 4), made_images(40, (1, 8, 8), 4, seed=1)
    _, pool, held_out = images_for(tiny(pool_size=50, test_size=20), train, test)
    assert (len(pool), len(held_out)) == (50, 20)
    assert pool.mean == held_out.mean == train.mean != test.mean


def test_a_notebook_runs_on_arrays_of_ones_own_with_pretext_losses_of_theirs(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(method="pt4al", pool_size=None, test_size=None)
    train, test = made_images(80, (1, 8, 8), 4), made_images(40, (1, 8, 8), 4, seed=1)
    made = notebook.run(experiment, outputs_dir=tmp_path, train=train, test=test)
    folder = tmp_path / "own-made_up" / "pt4al" / "seed-0"
    assert json.loads((folder / "result.json").read_text())["images"]["train"] == digest(train) == digest(made.train)
    (losses,) = (tmp_path / "own-made_up" / "pretext").glob("*.npz")
    assert read_losses(losses).settings["pixels"] == train.identity["pixels"]


def test_images_of_ones_own_compare_with_nothing_published(tiny: Make) -> None:
    sets = set(published.load()["dataset"])
    assert "cifar10" in sets
    assert "folder" not in sets
    for name in sets:
        named = [replace(made_images(60, (3, 8, 8), 3), name=name) for _ in range(2)]
        experiment, *_ = images_for(tiny(dataset=name, pool_size=None, test_size=None), *named)
        assert experiment.dataset == f"own-{name}" not in sets


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"test": None}, "test: expected an ImageSet (alkit.data.from_arrays makes one), not nothing"),
        ({"train": np.zeros(3)}, "train: expected an ImageSet (alkit.data.from_arrays makes one), not a value of"),
        ({"test": made_images(9, (1, 8, 9), 3)}, "test: expected images of (C, H, W) = (1, 8, 8) as in train, not (1,"),
        ({"test": made_images(9, (1, 8, 8), 2)}, "test: expected the 3 class names of train, in the same order"),
        ({"test": made_images(0, (1, 8, 8), 3)}, "test: expected at least one image"),
        ({"train": replace(made_images(9, (1, 8, 8), 3), name="a/b")}, "train: expected a name of letters, digits and"),
        ({"data_root": "here"}, "data_root: the images are given as train and test; no folder is read"),
        ({"test_fraction": 0.5}, "test_fraction: the images are given as train and test; no folder is read"),
        ({"skip_broken": True}, "skip_broken: the images are given as train and test; no folder is read"),
        ({"class_balance": [1.0, 0.5]}, "class_balance: expected 3 fractions, one a class, not 2"),
        ({"pool_size": 99}, "pool_size: 99 is larger than the 60 training images there are"),
    ],
)  # fmt: skip
def test_arrays_and_options_that_do_not_go_together_are_refused_in_one_line(
    change: dict[str, Any], said: str, tiny: Make, tmp_path: Path
) -> None:
    sets = {"train": made_images(60, (1, 8, 8), 3), "test": made_images(9, (1, 8, 8), 3)}
    options = {"pool_size": None, "test_size": None} | {k: v for k, v in change.items() if k not in sets}
    with pytest.raises(ConfigError) as error:
        ActiveLearner(tiny(**options), tmp_path / "run", **sets | {k: v for k, v in change.items() if k in sets})
    assert str(error.value).startswith(said)
    assert not (tmp_path / "run").exists()
