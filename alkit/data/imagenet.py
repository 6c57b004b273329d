"""ImageNet decoded from its files, its 64×64 version mapped from one file, and Caltech-101."""

from __future__ import annotations

import os
import zipfile
import zlib
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from alkit.data.cache import cached, create_pixels, fingerprint_of, pixels_of
from alkit.data.depth import scales_of
from alkit.data.download import Archive, fetch_archives, find_or_bring
from alkit.data.folder import Listing, count_files, load_listing, look_at, notes_of, scan
from alkit.data.imageset import ImageSet
from alkit.data.pixels import FilePixels
from alkit.data.splits import training_folder
from alkit.errors import ConfigError, DataError
from alkit.storage.paths import data_folder

IMAGENET_STATISTICS = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
Pair = tuple[ImageSet, ImageSet]
Counts = tuple[list[int], list[int]]

# --- ImageNet at 224 ------------------------------------------------------------------------------------------------


def load_imagenet(root: Path | None, options: dict[str, Any]) -> Pair:
    """ImageNet (ILSVRC 2012), decoded from `train/n*/` and `val/n*/` as batches ask for them.

    OO4AL's folders `train_task12/` and `validation/` are understood too. `image_size` is 224 by default.
    `skip_broken` looks at every file's header once, which takes minutes.
    """
    listing = scan_imagenet("imagenet", root)
    size = options["image_size"] or 224
    kept = np.arange(len(listing.names))
    # a JPEG has 8 bits: of the others the data set's scale has to be known
    looked = kept if options["skip_broken"] else [p for p in kept if not _is_jpeg(listing.names[p])]
    looks, broken = look_at([f"{listing.root}/{listing.names[place]}" for place in looked], options["skip_broken"])
    gone = [int(looked[place]) for place in broken]
    kept = np.setdiff1d(kept, gone)
    listing.check_classes(kept)
    scales = scales_of(look.span for look in looks.values() if look.span is not None)
    names = np.array([os.fsencode(name) for name in listing.names])[kept]
    whole = ImageSet(
        "imagenet", FilePixels(listing.root, names, size, scales=scales), torch.from_numpy(listing.labels[kept]),
        listing.class_names, *IMAGENET_STATISTICS, "resized_crop_flip", notes_of(listing, gone, str(scales)),
    )  # fmt: skip
    train, test = (whole.select(torch.from_numpy(part)) for part in listing.indices(options, kept))
    return train, test


def scan_imagenet(name: str, root: Path | None) -> Listing:
    """The files in `root`, or in `root/name`; `DataError` that says how they should lie."""
    place = _place(root, name)
    if training_folder(place) is None:
        files = f"{_TRAIN_PARTS[0]} to {_TRAIN_PARTS[-1]} and {_TEST_PART}, or " if name == "imagenet64" else ""
        raise DataError(
            f"{place}: no {name} here; expected {files}train/CLASS/*.JPEG and val/CLASS/*.JPEG (or train_task12/ and "
            f"validation/) in it, or in {name}/ below it; `data_root` names another folder"
        )
    listing = scan(place)
    if listing.test is None:
        raise DataError(
            f"{place}: expected train/CLASS/*.JPEG and val/CLASS/*.JPEG (or train_task12/ and validation/); "
            "the images of val.tar have to be sorted into folders of their classes first"
        )
    return listing


def _place(root: Path | None, name: str) -> Path:
    """The folder `name` in `root` where there is one, else `root`."""
    folder = data_folder(root).absolute()
    return folder / name if (folder / name).is_dir() else folder


def imagenet_files(name: str, root: Path | None) -> list[Path]:
    """The folder that holds `imagenet` or `imagenet64`, where it is."""
    base = data_folder(root).absolute()
    places = [base / name] if root is None else [base / name, base]
    parts = name == "imagenet64"
    return [place for place in places if training_folder(place) or (parts and (place / _TEST_PART).exists())][:1]


def _is_jpeg(name: str) -> bool:
    return name.lower().endswith((".jpg", ".jpeg"))


# --- ImageNet at 64 -------------------------------------------------------------------------------------------------

_SIDE = 64
_TRAIN_PARTS = [f"train_data_batch_{part}.npz" for part in range(1, 11)]
_TEST_PART = "val_data.npz"
_ROW = 3 * _SIDE * _SIDE


def load_imagenet64(root: Path | None, options: dict[str, Any]) -> Pair:
    """Downsampled ImageNet (Chrabaszcz et al., 2017), mapped from the cache, never in memory as a whole.

    Reads the npz files `train_data_batch_1.npz` … `val_data.npz`, or folders of images as `imagenet` does.
    """
    _check_side(options)
    folder = _place(root, "imagenet64")
    if not (folder / _TEST_PART).exists():
        return load_listing("imagenet64", scan_imagenet("imagenet64", folder), options, IMAGENET_STATISTICS, _SIDE)
    sets = []
    for split, files in (("train", _present(folder)), ("test", [folder / _TEST_PART])):
        place, manifest = cached(
            f"imagenet64-{split}", {"root": str(folder), "files": [file.name for file in files]},
            fingerprint_of(files, folder), partial(_write_npz, files=files),
        )  # fmt: skip
        labels = np.load(place / "labels.npy", allow_pickle=False)
        names = tuple(str(number) for number in range(1000))
        sets.append(
            ImageSet("imagenet64", pixels_of(place, manifest), torch.from_numpy(labels), names,
                     *IMAGENET_STATISTICS, "crop_flip")
        )  # fmt: skip
    return sets[0], sets[1]


def count_imagenet64(root: Path | None, options: dict[str, Any]) -> Counts:
    """Training and test images a class, from the labels alone."""
    _check_side(options)
    folder = _place(root, "imagenet64")
    if not (folder / _TEST_PART).exists():
        return count_files(partial(scan_imagenet, "imagenet64"), folder, options)
    train, test = (
        np.bincount(np.concatenate([_labels(file) for file in files]), minlength=1000).tolist()
        for files in (_present(folder), [folder / _TEST_PART])
    )
    return train, test


def _check_side(options: dict[str, Any]) -> None:
    if options["image_size"] not in (None, _SIDE):
        raise ConfigError(f"image_size: imagenet64 has images of 64 × 64, not {options['image_size']}")


def _present(folder: Path) -> list[Path]:
    missing = [name for name in _TRAIN_PARTS if not (folder / name).exists()]
    if missing:
        raise DataError(f"{folder / missing[0]}: missing; expected {_TRAIN_PARTS[0]} to {_TRAIN_PARTS[-1]} beside it")
    return [folder / name for name in _TRAIN_PARTS]


def _read(file: Path, name: str) -> npt.NDArray[Any]:
    """An array of one npz file."""
    try:
        with np.load(file, allow_pickle=False) as content:
            return np.asarray(content[name])
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise DataError(f"{file}: cannot be read ({error}); expected 'data' and 'labels' without pickles") from None


def _labels(file: Path) -> npt.NDArray[np.int64]:
    """Labels (n,) 0..999 of one file, in which they are 1..1000."""
    labels = _read(file, "labels").astype(np.int64).ravel() - 1
    if len(labels) and not 0 <= labels.min() <= labels.max() < 1000:
        raise DataError(f"{file}: expected labels 1..1000, not {labels.min() + 1}..{labels.max() + 1}")
    return labels


def _write_npz(target: Path, files: list[Path]) -> dict[str, Any]:
    """Copy the images of npz files into one file of (n, 64, 64, 3), one after the other: each is 1.6 GB."""
    labels = [_labels(file) for file in files]
    total = sum(map(len, labels))
    out = create_pixels(target, (total, _SIDE, _SIDE, 3))
    row = 0
    with tqdm(total=total, desc="unpacking", unit="image", disable=total < 5000, mininterval=2) as bar:
        for file, expected in zip(files, labels, strict=True):
            data = _read(file, "data")
            if data.dtype != np.uint8 or data.size != len(expected) * _ROW:
                raise DataError(f"{file}: expected 'data' of bytes ({len(expected)}, {_ROW}), one row a label, "
                                f"not {data.dtype} {data.shape}")  # fmt: skip
            out[row : row + len(expected)] = data.reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)
            row += len(expected)
            bar.update(len(expected))
    np.save(target / "labels.npy", np.concatenate(labels))
    return {"shape": [total, _SIDE, _SIDE, 3]}


# --- Caltech-101 ----------------------------------------------------------------------------------------------------

CALTECH_SIZE = 64


def load_caltech101(root: Path | None, options: dict[str, Any]) -> Pair:
    """8,677 photographs in 101 classes, without the background class; a part of each class is for the test, by seed.

    `image_size` is 64 by default.
    """
    return load_listing("caltech101", scan_caltech(root), options, None, CALTECH_SIZE)


def caltech_archives() -> list[Archive]:
    """The archive of the home page."""
    url = "https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip"
    return [Archive("caltech101/caltech-101.zip", (url,), "3138e1922a9193bfa496528edbbc45d0")]


def caltech_files(root: Path | None) -> list[Path]:
    """The folder of the classes, where it is."""
    base = data_folder(root).absolute()
    candidates = [base / "caltech101" / "101_ObjectCategories", base / "101_ObjectCategories"]
    return [path for path in candidates if path.is_dir()][:1]


def scan_caltech(root: Path | None) -> Listing:
    """The files of the classes, downloaded where they are missing; `DataError` where that cannot be."""
    base = data_folder(root).absolute()
    (archive,) = caltech_archives()
    bring = partial(_bring_caltech, base)
    found, reason = find_or_bring("caltech101", base, partial(caltech_files, root), bring)
    if not found:
        raise DataError(
            f"{base / 'caltech101' / '101_ObjectCategories'}: missing and could not be downloaded ({reason}); download "
            f"{archive.urls[0]} (md5 {archive.md5}) by hand and unpack 101_ObjectCategories there"
        )
    return scan(found[0], ignore=("BACKGROUND_Google",))


def _bring_caltech(base: Path) -> None:
    from torchvision.datasets import Caltech101

    fetch_archives(caltech_archives(), base)
    Caltech101(base, download=True)  # finds the archive and unpacks what is in it
