"""MNIST, Fashion-MNIST, SVHN and CIFAR-100: torchvision knows where they are and what their checksums are."""

from __future__ import annotations

import gzip
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alkit.data.download import Archive, fetch_archives, find_or_bring
from alkit.data.identity import Sha256, check
from alkit.data.imageset import ImageSet, from_arrays
from alkit.errors import DataError
from alkit.storage.paths import data_folder

CIFAR100_STATISTICS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
SVHN_STATISTICS = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))

_DIGITS = tuple(str(digit) for digit in range(10))
FASHION_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")

MNIST_SHA256 = {
    "training": Sha256(
        "741c988805d008ac6e4c904b69001ba184c24b2c540a4ef403f4c71b676cf757",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
    ),
    "test": Sha256(
        "6d87418db22cc8025d05968bec9bd5c3932904b23485740db143a061a2c9d161",
        "ddeff807876a9661a1110d45c266c86239a3a1b7d37da0c3716a7a683c852ff5",
    ),
}
FASHION_MNIST_SHA256 = {
    "training": Sha256(
        "2e487a6c89124f78f2d7521542223cafe96f7123c3ca13d447772ac6ecbb3012",
        "657fbd221bfc9f4198cc14b5619cc33ec57c58dd0e47af4d99d6650759e869a7",
    ),
    "test": Sha256(
        "c867c93ff95360594e8ec3287995350b824dd110b11595c0e13d5423f621867a",
        "3d0e6c6ea990b53b6f8f500a41cac93881d981b315f84578b7d915342ade01e9",
    ),
}

Pair = tuple[ImageSet, ImageSet]


# --- idx files: MNIST and Fashion-MNIST -----------------------------------------------------------------------------


@dataclass(frozen=True)
class IdxSet:
    """70,000 pictures of 28×28 grey pixels in four files, which torchvision's data set `source` names."""

    source: str
    name: str
    class_names: tuple[str, ...]
    sha256: dict[str, Sha256]
    statistics: tuple[tuple[float, ...], tuple[float, ...]]
    augmentation: str

    def archives(self) -> list[Archive]:
        """The four files that the home page hands out."""
        from torchvision import datasets

        found = getattr(datasets, self.source)
        return [
            Archive(f"{self.source}/raw/{file}", tuple(f"{mirror}{file}" for mirror in found.mirrors), md5)
            for file, md5 in found.resources
        ]

    def files(self, root: Path | None) -> list[Path]:
        """The four idx files that the images would be read from; none where one is missing."""
        folder = data_folder(root)
        folders = [folder, folder / self.source / "raw"]
        if self.source == "FashionMNIST" and root is None:
            folders.append(DEBIAN_FASHION)
        found = [_find_idx(folders, file) for file in _IDX_FILES]
        return [path for path in found if path is not None] if None not in found else []

    def load(self, root: Path | None, options: dict[str, Any]) -> Pair:
        """Training and test images; Fashion-MNIST is also read where Debian's dataset-fashion-mnist puts it."""
        folder, archives = data_folder(root), self.archives()
        bring = partial(fetch_archives, archives, folder)
        paths, reason = find_or_bring(self.name, folder, partial(self.files, root), bring)
        if not paths:
            places = [folder, folder / self.source / "raw"]
            gone = next((a for a in archives if _find_idx(places, Path(a.name).stem) is None), archives[0])
            raise DataError(
                f"{folder / gone.name}: missing and could not be downloaded ({reason}); {_idx_hint(gone, folder)}"
                + ("; or install Debian's package dataset-fashion-mnist" if self.source == "FashionMNIST" else "")
            )
        arrays = [read_idx(path, _idx_hint(archive, folder)) for path, archive in zip(paths, archives, strict=True)]
        sets = []
        for place, part in ((0, "training"), (2, "test")):
            images, labels = arrays[place : place + 2]
            most = len(self.class_names) - 1
            if images.ndim != 3 or labels.shape != images.shape[:1] or int(labels.max(initial=0)) > most:
                raise DataError(
                    f"{paths[place + 1]}: does not fit its images; expected {len(images)} labels "
                    f"0..{most}; {_idx_hint(archives[place + 1], folder)}"
                )
            check(self.name, part, self.sha256[part], images, labels, paths[place])
            sets.append(from_arrays(self.name, images[:, None], labels, self.class_names, *self.statistics,
                                    self.augmentation))  # fmt: skip
        return sets[0], sets[1]


MNIST = IdxSet("MNIST", "mnist", _DIGITS, MNIST_SHA256, ((0.1307,), (0.3081,)), "crop")
FASHION_MNIST = IdxSet(
    "FashionMNIST", "fashion_mnist", FASHION_NAMES, FASHION_MNIST_SHA256, ((0.2860,), (0.3530,)), "crop_flip"
)


def _idx_hint(archive: Archive, folder: Path) -> str:
    return f"expected {Path(archive.name).name} (md5 {archive.md5} from {archive.urls[0]}) in {folder / archive.name}"


def _find_idx(folders: Sequence[Path], file: str) -> Path | None:
    """Where `file`, plain or gzipped, lies (`train-images.idx3-ubyte` too); None if in none of `folders`."""
    spellings = (file, file.replace("-idx", ".idx"))
    candidates = [folder / f"{each}{end}" for folder in folders for each in spellings for end in ("", ".gz")]
    return next((path for path in candidates if path.is_file()), None)


def read_idx(path: str | Path, hint: str = "expected an idx file of bytes") -> npt.NDArray[np.uint8]:
    """The uint8 array in an idx file, plain or gzipped; `DataError` that ends in `hint` where it is broken."""
    path = Path(path)
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read ({error}); {hint}") from None
    rank = content[3] if len(content) > 3 else 0
    start = 4 + 4 * rank
    if content[:3] != b"\x00\x00\x08" or len(content) < start or not rank:
        raise DataError(f"{path}: not an idx file of bytes; {hint}")
    shape = [int(size) for size in np.frombuffer(content, ">u4", rank, 4)]
    wanted = start + int(np.prod(shape, dtype=np.int64))
    if len(content) != wanted:
        raise DataError(f"{path}: {len(content)} bytes instead of {wanted}; {hint}")
    return np.frombuffer(content, np.uint8, offset=start).reshape(shape).copy()


# --- CIFAR and SVHN -------------------------------------------------------------------------------------------------


def load_cifar100(root: Path | None, options: dict[str, Any]) -> Pair:
    """60,000 photographs of 32×32 pixels in 100 classes."""
    from torchvision.datasets import CIFAR100

    folder = data_folder(root)
    _ensure("cifar100", folder, _cifar100_files(folder), cifar100_archives(), lambda: CIFAR100(folder, download=True))
    # pickles, but of known checksums
    train, test = (CIFAR100(folder, train=part) for part in (True, False))
    sets = [
        from_arrays("cifar100", part.data.transpose(0, 3, 1, 2), part.targets, train.classes, *CIFAR100_STATISTICS,
                    "crop_flip")
        for part in (train, test)
    ]  # fmt: skip
    return sets[0], sets[1]


def cifar100_archives() -> list[Archive]:
    """What the home page hands out: the pickles."""
    from torchvision.datasets import CIFAR100

    return [Archive(CIFAR100.filename, (CIFAR100.url,), CIFAR100.tgz_md5)]


def _cifar100_files(folder: Path) -> list[tuple[Path, str]]:
    from torchvision.datasets import CIFAR100

    listed = [*CIFAR100.train_list, *CIFAR100.test_list, [CIFAR100.meta["filename"], CIFAR100.meta["md5"]]]
    return [(folder / CIFAR100.base_folder / file, md5) for file, md5 in listed]


def cifar100_files(root: Path | None) -> list[Path]:
    """The files that the images would be read from; none where one is missing."""
    return _all_there([path for path, _ in _cifar100_files(data_folder(root))])


def load_svhn(root: Path | None, options: dict[str, Any]) -> Pair:
    """99,289 house numbers of 32×32 pixels, their middle digit the class (the 73,257 + 26,032 of train and test)."""
    from torchvision.datasets import SVHN

    folder = data_folder(root)
    archives = svhn_archives()
    _ensure("svhn", folder, [(folder / archive.name, archive.md5) for archive in archives], archives)
    sets = []
    for part in ("train", "test"):
        found = SVHN(folder, part)
        sets.append(from_arrays("svhn", found.data, found.labels, _DIGITS, *SVHN_STATISTICS, "crop"))
    return sets[0], sets[1]


def svhn_archives() -> list[Archive]:
    """The two files that the home page hands out."""
    from torchvision.datasets import SVHN

    listed = [SVHN.split_list[part] for part in ("train", "test")]
    return [Archive(file, (url,), md5) for url, file, md5 in listed]


def svhn_files(root: Path | None) -> list[Path]:
    """The files that the images would be read from; none where one is missing."""
    return _all_there([data_folder(root) / archive.name for archive in svhn_archives()])


# --- files and their checksums --------------------------------------------------------------------------------------


def _all_there(paths: list[Path]) -> list[Path]:
    return paths if all(path.is_file() for path in paths) else []


def _ensure(
    name: str,
    folder: Path,
    files: Sequence[tuple[Path, str]],
    archives: Sequence[Archive],
    unpack: Callable[[], Any] = lambda: None,
) -> None:
    """Download where a file is missing or broken; `DataError` that says what to put where if one still is."""

    def bring() -> None:
        fetch_archives(archives, folder)
        unpack()

    whole, reason = find_or_bring(name, folder, lambda: _first_bad(files) is None, bring)
    if not whole:
        bad = _first_bad(files) or files[0][0]
        archive = next((each for each in archives if folder / each.name == bad), archives[0])
        state = "is broken" if bad.exists() else "is missing"
        raise DataError(
            f"{bad}: {state} and could not be downloaded ({reason}); download {archive.urls[0]} (md5 {archive.md5}) "
            f"by hand and put it at {folder / archive.name}"
        )


def _first_bad(files: Sequence[tuple[Path, str]]) -> Path | None:
    """The first of `files` that is missing or whose md5 is not the one expected."""
    from torchvision.datasets.utils import check_integrity

    return next((path for path, md5 in files if not check_integrity(path, md5)), None)
