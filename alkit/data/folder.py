"""One's own images: `train/CLASS/*` and `test/CLASS/*`, or `CLASS/*` with a split made by seed."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from alkit.data import decode, workers
from alkit.data.cache import cached, create_pixels, fingerprint_of, pixels_of, statistics_of
from alkit.data.depth import Span, scales_of
from alkit.data.imageset import ImageSet
from alkit.data.imbalance import split
from alkit.data.splits import find_splits, folders_in
from alkit.errors import ConfigError, DataError
from alkit.errors.words import as_text
from alkit.storage.paths import absolute

LARGEST_OWN_SIZE = 256
DEFAULT_SIZE = 64
_IGNORED = {"thumbs.db", "desktop.ini"}
_UNLABELLED = {"unlabelled", "unlabeled"}
_NAMED = 20  # skipped files that a record names


@dataclass(frozen=True)
class Listing:
    """The image files of a folder: `names` below `root`, their classes, and which are for the test.

    `labels` (N,) int64; `test` (N,) bool, or None where the split is made by seed. `unused` are splits left aside.
    """

    root: Path
    names: list[str]
    labels: npt.NDArray[np.int64]
    class_names: tuple[str, ...]
    test: npt.NDArray[np.bool_] | None
    unused: tuple[str, ...] = ()

    def indices(self, options: dict[str, Any], kept: npt.NDArray[np.int64] | None = None) -> tuple[Any, Any]:
        """Training and test indices, into `kept` where some files were skipped."""
        labels = self.labels if kept is None else self.labels[kept]
        if self.test is None:
            return split(labels, options["test_fraction"], len(self.class_names), options["dataset_seed"])
        test = self.test if kept is None else self.test[kept]
        return np.flatnonzero(~test), np.flatnonzero(test)

    def check_classes(self, kept: npt.NDArray[np.int64]) -> None:
        """Refuse files `kept` without one of a class, in training or in the test."""
        test = np.zeros(len(self.labels), bool) if self.test is None else self.test
        for what, part in (("a training" if test.any() else "an", ~test), ("a test", test)):
            lost = sorted(set(self.labels[part].tolist()) - set(self.labels[kept][part[kept]].tolist()))
            if lost:
                name = self.class_names[lost[0]]
                raise DataError(f"{self.root}: no file of the class '{name}' can be read as {what} image")


def scan(root: Path, ignore: Sequence[str] = ()) -> Listing:
    """List the folder's images in the order of their names; `DataError` where it is not laid out as expected."""
    if not root.is_dir():
        raise DataError(
            f"{root}: no such folder; expected train/CLASS/*.jpg and test/CLASS/*.jpg in it, or CLASS/*.jpg"
        )
    splits = find_splits(root, folders_in(root))
    train, test = (splits.train, splits.test) if splits else (None, None)
    classes = [path.name for path in folders_in(train or root) if path.name not in ignore]
    dead = [path for path in sorted((train or root).iterdir()) if _is_dead(path)]
    if dead:
        raise DataError(f"{dead[0]}: a link that leads nowhere; expected a folder of images, a class")
    if unlabelled := [name for name in classes if name.casefold() in _UNLABELLED]:
        raise DataError(f"{(train or root) / unlabelled[0]}: images without a label are no class; move them elsewhere")
    if len(classes) < 2:
        raise DataError(f"{train or root}: expected a folder a class, at least two, not {len(classes)}")
    one_class = _OneClass()
    names, labels = _list_classes(root, train or root, classes, one_class)
    missing = sorted(set(range(len(classes))) - set(labels))
    if missing:
        raise DataError(f"{(train or root) / classes[missing[0]]}: no images in this class")
    held_out = None
    if test is not None:
        unknown = [path for path in folders_in(test) if path.name not in classes]
        if unknown:
            raise DataError(f"{unknown[0]}: a class without training images in {train}")
        more, their_labels = _list_classes(root, test, classes, one_class)
        if not more:
            raise DataError(f"{test}: no images; expected test images in a folder a class")
        untested = sorted(set(labels) - set(their_labels))
        if untested:
            raise DataError(f"{test / classes[untested[0]]}: no test images of this class, which {train} has")
        held_out = np.arange(len(names) + len(more)) >= len(names)
        names, labels = names + more, labels + their_labels
    one_class.check_files()
    unused = tuple(folder.name for folder in splits.unused) if splits else ()
    return Listing(root, names, np.array(labels, np.int64), tuple(classes), held_out, unused)


def _list_classes(
    root: Path, folder: Path, classes: Sequence[str], one_class: _OneClass
) -> tuple[list[str], list[int]]:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        found = sorted(_files(str(folder / name), name, one_class))
        names += [path[len(str(root)) + 1 :] for path in found]
        labels += [label] * len(found)
    return names, labels


def _files(folder: str, label: str, one_class: _OneClass) -> list[str]:
    """All files below `folder`, without hidden ones and what file managers leave; a link back up is not followed."""
    found = []
    seen = {os.path.realpath(folder), *map(str, Path(os.path.realpath(folder)).parents)}
    one_class.add_folder(folder, os.path.realpath(folder), label)
    for place, folders, files in os.walk(folder, followlinks=True):
        targets = {name: os.path.realpath(f"{place}/{name}") for name in folders if not name.startswith(".")}
        folders[:] = [name for name, target in targets.items() if target not in seen]
        seen |= set(targets.values())
        for name in folders:
            one_class.add_folder(f"{place}/{name}", targets[name], label)
        images = [f"{place}/{name}" for name in files if _counts(name)]
        one_class.add_files(place, images, label)
        found += images
    return found


def _is_dead(path: Path) -> bool:
    return path.is_symlink() and not os.path.exists(path) and _counts(path.name)


def _counts(name: str) -> bool:
    return not name.startswith(".") and name.lower() not in _IGNORED


class _OneClass:
    """Refuses links that put an image into two classes. Only links are resolved: asking each file would take long."""

    def __init__(self) -> None:
        self._folders: dict[str, tuple[str, str]] = {}  # by real path: the class, and the link that led there if any
        self._through: dict[str, str] = {}  # by path as listed: the same link
        self._links: list[tuple[str, str]] = []  # files that are links, and their classes

    def add_folder(self, path: str, real: str, label: str) -> None:
        link = path if os.path.islink(path) else self._through.get(os.path.dirname(path), "")
        self._through[path] = link
        owner, theirs = self._folders.setdefault(real, (label, link))
        if owner != label:
            raise _two_classes(link or theirs or path, owner if link or not theirs else label)

    def add_files(self, place: str, files: Sequence[str], label: str) -> None:
        with os.scandir(place) as entries:  # knows links without asking for each file
            links = {f"{place}/{entry.name}" for entry in entries if entry.is_symlink()}
        self._links += [(path, label) for path in files if path in links]

    def check_files(self) -> None:
        """To be called when all folders are known."""
        owners: dict[str, str] = {}
        for path, label in self._links:
            real = os.path.realpath(path)
            place, name = os.path.split(real)
            owner = self._folders[place][0] if place in self._folders and _counts(name) else label
            if owner == label:
                owner = owners.setdefault(real, label)
            if owner != label and os.path.exists(real):
                raise _two_classes(path, owner)


def _two_classes(link: str, other: str) -> DataError:
    return DataError(f"{link}: a link into the class '{other}'; expected each image in one class")


# --- loading --------------------------------------------------------------------------------------------------------


def load_folder(root: Path | None, options: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
    """The images of the folder `data_root`, decoded once into the cache.

    All become squares of `image_size` pixels: the shorter side resized, the centre cropped. Without `image_size` it
    is the shorter side the images share if they are all of one size and it is at most 256, else 64. Grey if every
    image is grey, else RGB. A file that is not an image raises `DataError`, or is skipped and noted (`skip_broken`).
    """
    return load_listing("folder", scan_own(root), options)


def count_files(
    scanned: Callable[[Path | None], Listing], root: Path | None, options: dict[str, Any]
) -> tuple[list[int], list[int]]:
    """Training and test images a class, from the files' names, with the split that loading them makes."""
    listing = scanned(root)
    train, test = (
        np.bincount(listing.labels[part], minlength=len(listing.class_names)).tolist()
        for part in listing.indices(options)
    )
    return train, test


def shape_of_folder(root: Path | None, options: dict[str, Any]) -> tuple[int, int, int]:
    """(C, H, W) of the images as `load_folder` decodes them, from the files' headers."""
    listing = scan_own(root)
    looks, _ = look_at([f"{listing.root}/{name}" for name in listing.names], options["skip_broken"])
    size, channels = _form_of(list(looks.values()), options["image_size"], listing.root)
    return channels, size, size


def scan_own(root: Path | None) -> Listing:
    """The images of the folder given, which has no default for one's own."""
    if root is None:
        raise ConfigError("data_root: the data set 'folder' needs the folder that holds the images")
    return scan(absolute(root))


def load_listing(
    name: str,
    listing: Listing,
    options: dict[str, Any],
    statistics: tuple[tuple[float, ...], tuple[float, ...]] | None = None,
    default_size: int | None = None,
) -> tuple[ImageSet, ImageSet]:
    """Training and test set of a listing, through the cache. Statistics are the training images' where not given."""
    size = options["image_size"] or default_size
    params = {"root": str(listing.root), "image_size": size}
    paths = [f"{listing.root}/{each}" for each in listing.names]
    folder, manifest = cached(
        name, params, fingerprint_of(paths, listing.root),
        partial(_write, paths=paths, size=size, skip_broken=options["skip_broken"]),
    )  # fmt: skip
    broken = manifest["broken"]
    if broken and not options["skip_broken"]:
        raise DataError(_advice(broken[0][1]))
    kept = np.setdiff1d(np.arange(len(paths)), [place for place, _ in broken])
    listing.check_classes(kept)
    notes = {"image_size": manifest["shape"][1]} | notes_of(listing, [place for place, _ in broken], manifest["scale"])
    whole = ImageSet(
        name, pixels_of(folder, manifest), torch.from_numpy(listing.labels[kept]),
        tuple(map(as_text, listing.class_names)), (0.0,), (1.0,), "crop_flip", notes,
        files=np.array(listing.names, dtype=np.object_)[kept],
    )  # fmt: skip
    train, test = (whole.select(torch.from_numpy(part)) for part in listing.indices(options, kept))
    mean, std = statistics or statistics_of(train)
    return replace(train, mean=mean, std=std), replace(test, mean=mean, std=std)


def notes_of(listing: Listing, broken: Sequence[int], scale: str) -> dict[str, Any]:
    """What a record says of a listing: the scale of deep images, folders left aside, files skipped (their places)."""
    notes: dict[str, Any] = {"bit_depth": scale} if scale else {}
    if listing.unused:
        notes["folders_not_used"] = list(map(as_text, listing.unused))
    if broken:
        skipped = [as_text(listing.names[place]) for place in broken[:_NAMED]]
        notes |= {"files_skipped": len(broken), "skipped": skipped}
    return notes


def _advice(message: str) -> str:
    return f"{message}; remove it, or set skip_broken: true"


def _write(folder: Path, paths: list[str], size: int | None, skip_broken: bool) -> dict[str, Any]:
    """Decode `paths` into `pixels.bin`; broken ones are left out and listed as (place, message)."""
    with workers.decoders(len(paths)) as run:
        looks, broken = _look(run, paths, skip_broken)
        size, channels = _form_of(list(looks.values()), size, os.path.dirname(paths[0]))
        scales = scales_of(look.span for look in looks.values() if look.span is not None)
        places = list(looks)
        shape = (len(places), size, size, channels)
        out = create_pixels(folder, shape)
        task = {"pixels": str(folder / "pixels.bin"), "shape": shape, "scales": scales}
        found = _checked(run, "decode", [paths[place] for place in places], task, skip_broken)
        undone = {row: message for row, message in found if isinstance(message, str)}
    broken |= {places[row]: message for row, message in undone.items()}
    done = [row for row in range(len(places)) if row not in undone]
    if undone:
        for row, old in enumerate(done):
            out[row] = out[old]
    del out
    os.truncate(folder / "pixels.bin", len(done) * size * size * channels)
    return {
        "shape": [len(done), *shape[1:]], "scale": str(scales),
        "broken": sorted([place, text] for place, text in broken.items()),
    }  # fmt: skip


def _form_of(looks: list[decode.Look], size: int | None, place: str | Path) -> tuple[int, int]:
    """Pixels a side and channels that all images are given; `size` where it is asked for."""
    if not looks:
        raise DataError(f"{place}: no file in it can be read as an image")
    if size is None:
        sizes = {(look.width, look.height) for look in looks}
        width, height = next(iter(sizes))
        size = min(width, height) if len(sizes) == 1 and min(width, height) <= LARGEST_OWN_SIZE else DEFAULT_SIZE
    return size, 1 if all(look.grey for look in looks) else 3


def look_at(paths: Sequence[str], skip_broken: bool) -> tuple[dict[int, decode.Look], dict[int, str]]:
    """What the files' headers tell, by place in `paths`, and the messages of the broken ones, of which one raises."""
    with workers.decoders(len(paths)) as run:
        return _look(run, paths, skip_broken)


def _look(run: workers.Run, paths: Sequence[str], skip_broken: bool) -> tuple[dict[int, decode.Look], dict[int, str]]:
    looks: dict[int, decode.Look] = {}
    broken: dict[int, str] = {}
    for place, found in _checked(run, "look", paths, {}, skip_broken):
        if isinstance(found, str):
            broken[place] = found
        else:
            width, height, grey, span = found
            looks[place] = decode.Look(width, height, grey, span and Span(*span))
    return looks, broken


def _checked(
    run: workers.Run, name: str, paths: Sequence[str], task: dict[str, Any], skip_broken: bool
) -> Iterator[tuple[int, Any]]:
    """(place, what the task gives) of every file; a broken one gives its message, or raises."""
    with tqdm(total=len(paths), desc=f"{name.removesuffix('e')}ing", unit="image", disable=len(paths) < 5000,
              mininterval=2) as bar:  # fmt: skip
        for start, found in run(name, paths, task):
            for place, one in enumerate(found, start):
                if isinstance(one, str) and not skip_broken:
                    raise DataError(_advice(one))
                yield place, one
            bar.update(len(found))
