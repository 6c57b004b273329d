"""Which folders of a data set are its splits, however they are spelt."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from alkit.errors import DataError

_WORDS = {
    "train": ("train", "training", "trn", "train_task12"),
    "test": ("test", "testing", "tst", "evaluation", "eval", "holdout"),
    "validation": ("validation", "val", "valid", "validating", "dev"),
}
_KIND = {word: kind for kind, words in _WORDS.items() for word in words}
_ENDINGS = re.compile(r"[-_ .]*(set|data|dataset|split|images|imgs|folder|dir)$")
_IGNORED_FOLDERS = {"__macosx", "@eadir"}
_EXPECTED = "expected train/CLASS/*.jpg and test/CLASS/*.jpg (or validation/) in it, or CLASS/*.jpg"


@dataclass(frozen=True)
class Splits:
    """The folders of a data set's splits: `train`, `test` (None where a split is to be made), and those not used."""

    train: Path
    test: Path | None
    unused: tuple[Path, ...] = ()


def find_splits(root: Path, folders: Sequence[Path]) -> Splits | None:
    """The splits among the `folders` in `root`; None where they are classes.

    A folder is a split by its name (any usual spelling: `Train`, `training`, `train_set`, `val`, `Valid`, `TEST` …) if
    its classes are folders in it; a folder of images called `train` is a class, of trains. Where there is a test set
    beside a validation set, the validation set is not used. Raises `DataError` for a folder that looks like a split
    and cannot be taken as one.
    """
    kinds = {folder: kind for folder in folders if (kind := split_kind(folder.name)) is not None}
    deep = {folder for folder in kinds if folders_in(folder)}
    trains = [folder for folder in kinds if kinds[folder] == "train" and folder in deep]
    held = [folder for folder in kinds if kinds[folder] in ("test", "validation")]
    alike = [folder for folder in kinds if kinds[folder] == "alike"]
    flat = [folder for folder in kinds if kinds[folder] == "train" and folder not in deep]
    if not trains:
        strays = [folder for folder in (*held, *alike) if folder in deep] or (flat and held and [*flat, *held])
        if strays:
            raise DataError(f"{strays[0]}: looks like a split, but there is no train/CLASS/ beside it; {_EXPECTED}")
        return None
    for doubled in (trains, [f for f in held if kinds[f] == "test"], [f for f in held if kinds[f] == "validation"]):
        if len(doubled) > 1:
            raise DataError(f"{doubled[1]}: a split of the same kind as {doubled[0].name}/ beside it; which is meant?")
    if alike:
        raise DataError(
            f"{alike[0]}: looks like a split, but is none that is known; call it train, validation or test, "
            "or move it out of the folder"
        )
    with os.scandir(root) as entries:
        flat_names = sorted(each.name for each in entries if not is_folder(each))
    for name in flat_names:
        if split_kind(name) in ("test", "validation"):  # else a part of the training images would stand in for it
            raise DataError(f"{root / name}: not a folder; expected {name}/CLASS/*.jpg, or nothing of this name")
    # a test set without classes (a competition's) cannot be tested on where there is another one
    held.sort(key=lambda folder: (folder not in deep, kinds[folder] != "test"))
    return Splits(trains[0], held[0] if held else None, tuple(held[1:]))


def folders_in(folder: Path) -> list[Path]:
    """The folders in `folder` by name, without hidden ones and what file managers leave."""
    with os.scandir(folder) as entries:
        names = [each.name for each in entries if is_folder(each) and not each.name.startswith(".")]
    return [folder / name for name in sorted(names) if name.lower() not in _IGNORED_FOLDERS]


def is_folder(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder or a link to one; a link to itself is none."""
    return os.path.isdir(entry) if entry.is_symlink() else entry.is_dir()


def split_kind(name: str) -> str | None:
    """`train`, `test` or `validation`; `alike` for a name with one of their words in it; None for any other name."""
    word = name.casefold()
    for stem in (word, _ENDINGS.sub("", word)):
        if stem in _KIND:
            return _KIND[stem]
    parts = re.findall(r"[A-Z]*[a-z]+|[A-Z]+", name)  # seg_train, train2017, MyTest
    return "alike" if any(part.lower() in _KIND for part in parts) else None


def training_folder(root: Path) -> Path | None:
    """The folder in `root` that is called as training images are; None where there is none."""
    folders = folders_in(root) if root.is_dir() else []
    return next((folder for folder in folders if split_kind(folder.name) == "train"), None)
