"""What tells one set of images from another: a digest of class names, labels and pixels, computed once."""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from tqdm.auto import tqdm

from alkit.data.pixels import FilePixels, MemmapPixels, Pixels, TensorPixels
from alkit.data.workers import decoding_threads
from alkit.errors import DataError
from alkit.storage.files import write_text

if TYPE_CHECKING:
    from alkit.data.imageset import ImageSet

BLOCK_BYTES = 2**26
"""How much of a set is read at a time."""
_FILES = 1000  # asked for at a time
PIXELS, FILES, FEATURES = "pixels", "files", "features"
_SPLITS = (("train", "training"), ("test", "test"))
_WORDS = {"class_names": "class names", "labels": "labels", "shape": "shape of images", PIXELS: "pixels",
          FILES: "files", FEATURES: "features"}  # fmt: skip

Identity = dict[str, Any]


def digest(images: ImageSet) -> str:
    """The hexadecimal SHA-256 of one split: of its class names, labels and pixels, in their order.

    Computed once (0.2 seconds for 60,000 images of 32×32) and kept on the object and on its copies on a device; take
    it before the images go to one. Images that are decoded from their files as they are used are not all decoded for
    this: of them it is the names and sizes of the files, with labels and class names. To compute it without this
    package, see `identity`.
    """
    return str(images.identity["sha256"])


def fingerprint(train: ImageSet, test: ImageSet) -> str:
    """The hexadecimal SHA-256 of a pool and its test images: of their two digests as text, joined."""
    return _sha256((digest(train) + digest(test)).encode())


def pixels_digest(images: ImageSet) -> str:
    """The hexadecimal SHA-256 of the pixels of one split alone (of its files' names and sizes: see `digest`)."""
    identity = images.identity
    return str(identity.get(PIXELS) or identity[FILES])


def query_digest(images: torch.Tensor | npt.NDArray[np.int64]) -> str:
    """The hexadecimal SHA-256 of places in the pool (n,) in their order, as int64 little-endian: `query_sha256`."""
    return _sha256(np.asarray(images).astype("<i8").tobytes())


def identity(images: ImageSet) -> Identity:
    """The digest of one split (`sha256`), the SHA-256 of each of the `parts` that it is made of, and their `count`.

    `class_names` is of the names as a JSON list, `labels` of int64 little-endian, `pixels` of uint8 (N, H, W, C),
    `shape` is (N, H, W, C) itself; `sha256` is of the JSON of these, keys sorted, without spaces. For images that are
    decoded as they are used `files` stands for `pixels`: of a line `NAME TAB BYTES` a file. Where the images have
    fixed features, `features` is of them as float32 little-endian.
    """
    count, channels, height, width = images.pixels.shape
    content = FILES if images.pixels.decodes else PIXELS
    parts: dict[str, Any] = {
        "class_names": _sha256(json.dumps(list(images.class_names)).encode()),
        "labels": _sha256(images.labels.cpu().numpy().astype("<i8").tobytes()),
        "shape": [count, height, width, channels],
        content: _of_files(images.pixels) if isinstance(images.pixels, FilePixels) else _of_pixels(images.pixels),
    }
    if images.features is not None:
        from alkit.data.features import features_digest

        parts[FEATURES] = features_digest(images.features)
    whole = _sha256(json.dumps(parts, sort_keys=True, separators=(",", ":")).encode())
    return {"sha256": whole, "count": count, **parts}


def images_record(train: ImageSet, test: ImageSet) -> dict[str, Any]:
    """What a run's record, checkpoint and progress say of its images: a digest a split, the counts, and the parts."""
    splits = {"train": train.identity, "test": test.identity}
    known_by = "names and sizes of the files" if train.pixels.decodes else "pixels"
    return {
        **{name: identity["sha256"] for name, identity in splits.items()},
        "counts": {name: identity["count"] for name, identity in splits.items()},
        "known_by": f"{known_by}, labels and class names, by SHA-256",
        "parts": {name: {k: v for k, v in identity.items() if k in _WORDS} for name, identity in splits.items()},
    }


def difference(before: dict[str, Any], now: dict[str, Any]) -> str | None:
    """In words, how the images of two records differ (`before` had …, not …); None where they are the same.

    Both counts where they differ; where there are as many, which of pixels, labels and class names are others.
    """
    if all(before.get(name) == now.get(name) for name, _ in _SPLITS):
        return None
    counts = [_counts(record) for record in (before, now)]
    if counts[0] != counts[1]:
        return f"{counts[0]}, not {counts[1]}"
    changed = [f"other {what} in the {said} images" for name, said in _SPLITS if (what := _changed(name, before, now))]
    return f"{counts[0]}, but {' and '.join(changed) or 'not the same ones'}"


def is_of(record: dict[str, Any], train: ImageSet) -> bool:
    """Whether these are the training images that a run's record is of, whatever features it gave them."""
    parts = _below(_below(record, "parts"), "train")
    if not parts:
        return bool(record.get("train") == digest(train))
    names = _WORDS.keys() - {FEATURES}
    return all(parts.get(name) == train.identity.get(name) for name in names)


def _changed(split: str, before: dict[str, Any], now: dict[str, Any]) -> str:
    old, new = (_below(_below(record, "parts"), split) for record in (before, now))
    return " and ".join(word for key, word in _WORDS.items() if old.get(key) != new.get(key))


def _counts(record: dict[str, Any]) -> str:
    counts = _below(record, "counts")
    return " and ".join(f"{counts.get(name, '?')} {said} images" for name, said in _SPLITS)


def _below(content: dict[str, Any], key: str) -> dict[str, Any]:
    """The mapping at `key` of a file of unknown origin; an empty one where there is none."""
    value = content.get(key)
    return value if isinstance(value, dict) else {}


# --- named sets -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Sha256:
    """SHA-256 of the pixels, uint8 (N, H, W, C), and of the labels, uint8 (N,), of images in their published order."""

    pixels: str
    labels: str


def sha256_of(array: npt.NDArray[np.generic]) -> str:
    """The hexadecimal SHA-256 of an array's values as bytes, row by row."""
    return _sha256(np.ascontiguousarray(array.astype(np.uint8, copy=False)).data)


def check(
    name: str, part: str, known: Sha256, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic], where: Path
) -> None:
    """Refuse images uint8 (N, H, W, C) or labels (N,) that are not those of the data set `name`, with a `DataError`."""
    for what, wanted, found in (("pixels", known.pixels, pixels), ("labels", known.labels, labels)):
        if (computed := sha256_of(found)) != wanted:
            raise DataError(
                f"{where}: not {name}: the SHA-256 of the {part} {what} is {computed}, expected {wanted}; "
                "a copy with other pixels or labels (compressed, resized, in another order) is `dataset: folder`, "
                "and compares with nothing published"
            )


# --- hashing --------------------------------------------------------------------------------------------------------


def _sha256(content: bytes | memoryview) -> str:
    return hashlib.sha256(content).hexdigest()


def _of_files(pixels: FilePixels) -> str:
    """SHA-256 of the files' names and sizes, asked for by threads: over a network each takes its time."""
    root = os.fsencode(pixels.root)

    def lines(start: int) -> bytes:
        try:
            names = [bytes(name) for name in pixels.names[start : start + _FILES]]
            return b"".join(b"%b\t%d\n" % (name, os.stat(os.path.join(root, name)).st_size) for name in names)
        except OSError as error:
            raise DataError(f"{os.fsdecode(error.filename)}: cannot be read ({error.strerror})") from None

    found = hashlib.sha256()
    for block in decoding_threads().map(lines, range(0, len(pixels.names), _FILES)):
        found.update(block)
    return found.hexdigest()


def _of_pixels(pixels: Pixels) -> str:
    """SHA-256 of uint8 (N, H, W, C); of a file that is too large for memory it is kept beside the file."""
    if not isinstance(pixels, MemmapPixels):
        return _hashed(pixels)
    rows = b"all" if pixels.rows is None else pixels.rows.astype("<i8").tobytes()
    kept = pixels.path.with_name(f"pixels-{_sha256(rows)[:16]}.sha256")
    with suppress(OSError, ValueError):
        state, known = pixels.path.stat(), json.loads(kept.read_text())
        if known["of"] == [state.st_size, state.st_mtime_ns]:
            return str(known["sha256"])
    found = _hashed(pixels)
    with suppress(OSError):  # a cache that cannot be written costs time, no more
        state = pixels.path.stat()
        write_text(kept, json.dumps({"of": [state.st_size, state.st_mtime_ns], "sha256": found}))
    return found


def _hashed(pixels: Pixels) -> str:
    """SHA-256 of uint8 (N, H, W, C), a block at a time; what lies in memory in that order is not copied."""
    count, *shape = pixels.shape
    size, found = int(np.prod(shape)), hashlib.sha256()
    step = max(1, BLOCK_BYTES // max(1, size))
    with tqdm(total=count, desc="knowing the images", unit="image", disable=count * size < 2**31, mininterval=2) as bar:
        for start in range(0, count, step):
            stop = min(count, start + step)
            if isinstance(pixels, TensorPixels):
                block = pixels.images[start:stop]
            else:
                block = pixels.take(torch.arange(start, stop))
            found.update(np.ascontiguousarray(block.permute(0, 2, 3, 1).cpu().numpy()).data)
            bar.update(len(block))
    return found.hexdigest()
