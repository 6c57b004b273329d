"""What tells one set of images from another, and a run that knows its own."""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_up import made_images
from PIL import Image

from alkit.data import ImageSet, digest, fingerprint, from_arrays, identity, load_dataset
from alkit.data.pixels import FilePixels, MemmapPixels

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
