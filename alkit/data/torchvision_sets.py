"""MNIST, Fashion-MNIST, SVHN and the CIFARs: torchvision knows where they are and what their checksums are."""

from __future__ import annotations

import contextlib
import gzip
import socket
import zlib
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alkit.data.imageset import ImageSet, from_arrays
from alkit.data.storage import data_folder
from alkit.errors import DataError

CIFAR10_STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
CIFAR100_STATISTICS = ((0.5071, 0.4867, 0.4408), (0.2675, 0.2565, 0.2761))
MNIST_STATISTICS = ((0.1307,), (0.3081,))
FASHION_MNIST_STATISTICS = ((0.2860,), (0.3530,))
SVHN_STATISTICS = ((0.4377, 0.4438, 0.4728), (0.1980, 0.2010, 0.1970))

FASHION_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker", "Bag", "Boot")
CIFAR10_NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
DEBIAN_FASHION = Path("/usr/share/datasets/fashion-mnist")
_IDX_FILES = ("train-images-idx3-ubyte", "train-labels-idx1-ubyte", "t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte")
_NETWORK_SECONDS = 30.0

Pair = tuple[ImageSet, ImageSet]


# --- idx files: MNIST and Fashion-MNIST -----------------------------------------------------------------------------


def load_mnist(root: Path | None, options: dict[str, Any]) -> Pair:
    """70,000 handwritten digits of 28×28 grey pixels."""
    from torchvision.datasets import MNIST

    names = [str(digit) for digit in range(10)]
    return _load_idx("mnist", MNIST, data_folder(root), [], names, MNIST_STATISTICS, "crop")


def load_fashion_mnist(root: Path | None, options: dict[str, Any]) -> Pair:
    """70,000 pictures of clothes, 28×28 grey pixels; also read where Debian's dataset-fashion-mnist puts them."""
    from torchvision.datasets import FashionMNIST

    elsewhere = [] if root is not None else [DEBIAN_FASHION]
    folder = data_folder(root)
    return _load_idx(
        "fashion_mnist", FashionMNIST, folder, elsewhere, FASHION_NAMES, FASHION_MNIST_STATISTICS, "crop_flip"
    )


def _load_idx(
    name: str,
    source: Any,
    root: Path,
    elsewhere: Sequence[Path],
    names: Sequence[str],
    statistics: tuple[tuple[float, ...], tuple[float, ...]],
    augmentation: str,
) -> Pair:
    raw = root / source.__name__ / "raw"
    sums = {file.removesuffix(".gz"): md5 for file, md5 in source.resources}
    folders = [root, raw, *elsewhere]
    reason = ""
    if any(_find_idx(folders, file) is None for file in _IDX_FILES):
        with downloading(root, name) as problems:
            source(root, download=True)
        reason = f" ({problems[0]})" if problems else ""
    arrays: list[npt.NDArray[np.uint8]] = []
    for file in _IDX_FILES:
        hint = f"expected {file}.gz (md5 {sums[file]} from {source.mirrors[0]}) in {raw}"
        path = _find_idx(folders, file)
        if path is None:
            raise DataError(f"{raw / file}: missing and could not be downloaded{reason}; {hint}")
        arrays.append(read_idx(path, hint))
    sets = []
    for part in (0, 2):
        images, labels = arrays[part : part + 2]
        if images.ndim != 3 or labels.shape != images.shape[:1] or int(labels.max(initial=0)) >= len(names):
            raise DataError(
                f"{_find_idx(folders, _IDX_FILES[part + 1])}: does not fit its images; expected {len(images)} labels "
                f"0..{len(names) - 1}, md5 {sums[_IDX_FILES[part + 1]]}"
            )
        sets.append(from_arrays(name, images[:, None], labels, names, *statistics, augmentation))
    return sets[0], sets[1]


def _find_idx(folders: Sequence[Path], file: str) -> Path | None:
    """Where `file`, plain or gzipped, lies; None if in none of `folders`."""
    candidates = [folder / each for folder in folders for each in (file, f"{file}.gz")]
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


def load_cifar10(root: Path | None, options: dict[str, Any], name: str = "cifar10") -> Pair:
    """60,000 photographs of 32×32 pixels in 10 classes."""
    from torchvision.datasets import CIFAR10

    return _load_cifar(name, CIFAR10, data_folder(root), CIFAR10_STATISTICS)


def load_cifar100(root: Path | None, options: dict[str, Any]) -> Pair:
    """60,000 photographs of 32×32 pixels in 100 classes."""
    from torchvision.datasets import CIFAR100

    return _load_cifar("cifar100", CIFAR100, data_folder(root), CIFAR100_STATISTICS)


def _load_cifar(name: str, source: Any, root: Path, statistics: tuple[tuple[float, ...], tuple[float, ...]]) -> Pair:
    folder = root / source.base_folder
    meta = [source.meta["filename"], source.meta["md5"]]
    files = [(folder / file, md5) for file, md5 in [*source.train_list, *source.test_list, meta]]
    archive = (root / source.filename, source.tgz_md5, source.url)
    _ensure(name, files, lambda: source(root, train=True, download=True), archive)
    train, test = (source(root, train=part) for part in (True, False))  # pickles, but of known checksums
    sets = [
        from_arrays(name, part.data.transpose(0, 3, 1, 2), part.targets, train.classes, *statistics, "crop_flip")
        for part in (train, test)
    ]
    return sets[0], sets[1]


def load_svhn(root: Path | None, options: dict[str, Any]) -> Pair:
    """99,289 house numbers of 32×32 pixels, their middle digit the class (the 73,257 + 26,032 of train and test)."""
    from torchvision.datasets import SVHN

    folder = data_folder(root)
    for part in ("train", "test"):
        url, file, md5 = SVHN.split_list[part]
        path = folder / file
        _ensure("svhn", [(path, md5)], partial(SVHN, folder, part, download=True), (path, md5, url))
    sets = []
    for part in ("train", "test"):
        found = SVHN(folder, part)
        names = [str(digit) for digit in range(10)]
        sets.append(from_arrays("svhn", found.data, found.labels, names, *SVHN_STATISTICS, "crop"))
    return sets[0], sets[1]


# --- files and their checksums --------------------------------------------------------------------------------------


def _ensure(
    name: str, files: Sequence[tuple[Path, str]], download: Callable[[], Any], archive: tuple[Path, str, str]
) -> None:
    """Download where a file is missing or broken; `DataError` that says what to put where if one still is."""
    if _first_bad(files) is None:
        return
    path, md5, url = archive
    with downloading(path.parent, name) as problems:
        if _first_bad(files) is not None:
            download()
    reason = f" ({problems[0]})" if problems else ""
    bad = _first_bad(files)
    if bad is not None:
        state = "is broken" if bad.exists() else "is missing"
        raise DataError(
            f"{bad}: {state} and could not be downloaded{reason}; download {url} (md5 {md5}) "
            f"by hand and put it at {path}"
        )


def _first_bad(files: Sequence[tuple[Path, str]]) -> Path | None:
    """The first of `files` that is missing or whose md5 is not the one expected."""
    from torchvision.datasets.utils import check_integrity

    return next((path for path, md5 in files if not check_integrity(path, md5)), None)


@contextlib.contextmanager
def downloading(root: Path, name: str) -> Iterator[list[str]]:
    """Hold the folder's lock, so that two processes download once; what goes wrong is noted, not raised."""
    from filelock import FileLock

    problems: list[str] = []
    before = socket.getdefaulttimeout()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{name}.lock"):
            socket.setdefaulttimeout(_NETWORK_SECONDS)
            yield problems
    except (OSError, RuntimeError, EOFError) as error:  # no network, no space, a checksum that differs, half an archive
        problems.append(" ".join(str(error).split())[:160])
    finally:
        socket.setdefaulttimeout(before)
