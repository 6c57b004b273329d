"""Fixed features: one row of numbers an image, made once by an encoder that saw no labels.

A file belongs to one set of images, whose digests it holds, and its rows follow every data option as the images do.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from alkit.data.identity import pixels_digest
from alkit.errors import DataError
from alkit.storage.files import write_npz

if TYPE_CHECKING:
    from alkit.data.imageset import ImageSet

SPLITS = ("train", "test")


@dataclass(frozen=True)
class Features:
    """Features of the training images (N, D) and of the test images (M, D), float32.

    `about` says how they were made: `encoder`, and whatever the encoder adds; `images` are the digests of the images
    (`train`, `test`) that they were made of, empty where that is not known (a pair of `.npy` files of one's own).
    """

    train: Tensor
    test: Tensor
    about: dict[str, Any] = field(default_factory=dict)
    images: dict[str, str] = field(default_factory=dict)


def load_features(path: str | Path) -> Features:
    """The features in a file that `alkit features` made (`.npz`), or in a pair of `.npy` files of one's own.

    Of a pair, `path` is the training images' matrix, `NAME_train.npy`; the test images' is `NAME_test.npy` beside it.
    Raises `DataError` of one line for what is missing, broken, not a matrix of numbers, or not finite.
    """
    path = Path(path)
    if path.suffix == ".npy":
        if "train" not in path.name:
            raise DataError(f"features: {path}: expected a name with 'train' in it; the test images' matrix lies "
                            "beside it, with 'test' in its place")  # fmt: skip
        other = path.with_name(path.name.replace("train", "test"))
        train, test = (_matrix(_read(file), str(file)) for file in (path, other))
        return Features(train, test, {"encoder": "one's own"})
    content = _read(path)
    if not isinstance(content, dict) or not {"train", "test", "about"} <= content.keys():
        raise DataError(
            f"features: {path}: expected a file of `alkit features`, or NAME_train.npy beside NAME_test.npy"
        )
    try:
        about = json.loads(str(content["about"]))
        made_of = about.pop("images", {})
        images = {name: str(made_of[name]) for name in SPLITS if made_of}
    except (ValueError, KeyError, TypeError, AttributeError):
        raise DataError(f"features: {path}: does not say how it was made") from None
    found = {name: _matrix(content[name], f"{path}, {name}") for name in SPLITS}
    if found["train"].shape[1] != found["test"].shape[1]:
        raise DataError(f"features: {path}: {found['train'].shape[1]} numbers a training image and "
                        f"{found['test'].shape[1]} a test image")  # fmt: skip
    return Features(found["train"], found["test"], about, images)


def save_features(path: str | Path, train: np.ndarray, test: np.ndarray, about: dict[str, Any],
                  images: dict[str, str]) -> None:  # fmt: skip
    """Write a file that `load_features` reads, the same bytes for the same content, under its name when it is whole."""
    text = json.dumps(about | {"images": images}, sort_keys=True)
    write_npz(path, {"train": train, "test": test, "about": np.array(text)})


def attach(path: str | Path, train: ImageSet, test: ImageSet) -> tuple[ImageSet, ImageSet]:
    """The named set's images, before any data option, each with its row of the features in `path`.

    Raises `DataError` of one line where the file's rows are of other images, or not as many.
    """
    features = load_features(path)
    counts = {"train": (len(train), len(features.train)), "test": (len(test), len(features.test))}
    for name, (wanted, found) in counts.items():
        if wanted != found:
            said = "training" if name == "train" else "test"
            raise DataError(f"features: {path}: {found:,} rows for the {wanted:,} {said} images of {train.name}")
    for name, images in (("train", train), ("test", test)):
        if features.images and features.images[name] != pixels_digest(images):
            made_of, at = str(features.about.get("dataset", "another set")), features.about.get("image_shape")
            if isinstance(at, list) and at != list(images.shape):
                made_of += f" of {at[2]}×{at[1]} pixels, now {images.shape[2]}×{images.shape[1]},"
            before = "" if made_of == train.name else f" ({made_of} when it was made)"
            raise DataError(f"features: {path}: made of other {name} images than {train.name} has now{before}; remove "
                            "it, and `alkit features` makes a new one")  # fmt: skip
    note = {"encoder": str(features.about.get("encoder", "")), "numbers": int(features.train.shape[1]),
            "sha256": features_digest(features.train)}  # fmt: skip
    train = replace(train, features=features.train, notes={**train.notes, "features": note})
    return train, replace(test, features=features.test)


def features_digest(rows: Tensor) -> str:
    """The hexadecimal SHA-256 of features (N, D), as float32 little-endian."""
    return hashlib.sha256(rows.cpu().numpy().astype("<f4").tobytes()).hexdigest()


def _read(path: Path) -> Any:
    """The array of a `.npy` file, or the arrays of an `.npz`; never unpickling."""
    try:
        loaded = np.load(path, allow_pickle=False)
        return {name: loaded[name] for name in loaded.files} if hasattr(loaded, "files") else loaded
    except FileNotFoundError:
        raise DataError(f"features: {path}: no such file") from None
    except Exception as error:  # a damaged header makes zipfile and its decompressors raise what they like
        raise DataError(f"features: {path}: not a whole file of plain arrays ({type(error).__name__})") from None


def _matrix(values: Any, what: str) -> Tensor:
    array = np.asarray(values)
    if array.ndim != 2 or array.dtype.kind not in "fiu" or 0 in array.shape:
        raise DataError(f"features: {what}: expected a matrix of numbers, a row an image, not {array.dtype} "
                        f"{array.shape}")  # fmt: skip
    with np.errstate(over="ignore"):  # infinity is refused below
        rows = torch.from_numpy(array.astype(np.float32))
    broken = (~rows.isfinite()).any(1).nonzero().flatten()
    if len(broken):
        raise DataError(f"features: {what}: row {int(broken[0]):,} has numbers that are not finite")
    return rows
