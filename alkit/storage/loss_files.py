"""Losses and batches as files: `pretext.npz`, and the plain text in which PT4AL's authors published theirs.

A published loss file has a line `LOSS_PATH` for each image, PATH being `./DATA/train/CLASS/INDEX.png` with the image's
place in the training set as INDEX. A published batch file has one PATH a line, the first to be looked at first.
"""

from __future__ import annotations

import gzip
import io
import json
import math
import re
import zlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
import numpy.typing as npt

from alkit.errors import DataError
from alkit.storage.files import write_npz, write_text

Losses = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]

VERSION = 1
_INDEX = re.compile(r"\d{1,18}")


class DamagedLossesError(DataError):
    """A `pretext.npz` could be read, but its content is not whole."""


@dataclass(frozen=True, eq=False)
class PretextLosses:
    """The loss (N,) of every image of a pool, in the pool's order.

    `text` are the losses as they are written in the file (N,), for the order `text` sorts what stands there. A file
    of alkit's also says what they were computed from (`settings`), the epoch that was chosen (from 1), its measure
    (`accuracy` of rotations or tiles; NaN where a task has none), and the measure of every epoch (`history`).
    """

    losses: Losses
    text: tuple[str, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    epoch: int = 0
    accuracy: float = math.nan
    history: tuple[float, ...] = ()

    def __len__(self) -> int:
        return len(self.losses)


def as_text(losses: Iterable[float]) -> tuple[str, ...]:
    """The losses as Python's `str` writes them, which is what the released program wrote."""
    return tuple(str(float(loss)) for loss in losses)


def read_losses(path: str | Path) -> PretextLosses:
    """The losses in a `pretext.npz`, or in a text file (or its .gz) of `LOSS_PATH` lines.

    Raises `DataError` of one line for a file that is missing, of another form or incomplete, or holds a loss that is
    not a finite number.
    """
    path = Path(path)
    if path.suffix == ".npz":
        return _read_npz(path)
    return _parse_losses(path, _lines(path))


def write_pretext(path: str | Path, content: PretextLosses) -> None:
    """Write a `pretext.npz`, atomically. Its bytes depend on the content alone."""
    description = {
        "version": VERSION,
        "settings": content.settings,
        "epoch": content.epoch,
        "accuracy": None if math.isnan(content.accuracy) else content.accuracy,
        "history": list(content.history),
    }
    write_npz(
        path,
        {
            "losses": content.losses.astype(np.float64),
            "index": np.arange(len(content), dtype=np.int64),
            "text": np.array(content.text, dtype=np.str_),
            "description": np.array(json.dumps(description, sort_keys=True)),
        },
    )


def write_losses(path: str | Path, content: PretextLosses, labels: Sequence[int] | Indices) -> None:
    """Write a line `LOSS_PATH` for each image, in the pool's order, as PT4AL's program reads it."""
    paths = image_paths(range(len(content)), labels)
    write_text(path, "".join(f"{text}_{name}\n" for text, name in zip(content.text, paths, strict=True)))


def write_batches(folder: str | Path, batches: Sequence[Indices], labels: Sequence[int] | Indices) -> list[Path]:
    """Write each batch to `folder`/batch_i.txt, one path a line, as PT4AL's program reads it; returns the files."""
    written = []
    for number, batch in enumerate(batches):
        written.append(Path(folder) / f"batch_{number}.txt")
        write_text(written[-1], "".join(f"{name}\n" for name in image_paths(batch, labels)))
    return written


def read_batches(folder: str | Path) -> list[Indices]:
    """The batches in `folder`/batch_0.txt, batch_1.txt, …, each as the images' places (n,) in the order of its lines.

    Raises `DataError` where there is none or one is of another form.
    """
    batches: list[Indices] = []
    while (path := Path(folder) / f"batch_{len(batches)}.txt").exists():
        batches.append(np.array([_place(path, n, line) for n, line in enumerate(_lines(path), 1)], dtype=np.int64))
    if not batches:
        raise DataError(f"{folder}: no file batch_0.txt; expected batch_0.txt, batch_1.txt, … with one path a line")
    return batches


def image_paths(indices: Iterable[int], labels: Sequence[int] | Indices) -> list[str]:
    """`./DATA/train/CLASS/INDEX.png` for each index, where PT4AL's program keeps its images."""
    return [f"./DATA/train/{int(labels[int(i)])}/{int(i)}.png" for i in indices]


# --- reading ---------------------------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    """The lines of a text file that are not empty."""
    try:
        raw = path.read_bytes()
        text = (gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw).decode()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise DataError(f"{path}: cannot be read as text ({type(error).__name__})") from None
    return [line for line in text.splitlines() if line.strip()]


def _parse_losses(path: Path, lines: Sequence[str]) -> PretextLosses:
    if not lines:
        raise DataError(f"{path}: empty; expected a line LOSS_PATH for each image")
    count = len(lines)
    losses, texts = np.full(count, np.nan), [""] * count
    for number, line in enumerate(lines, 1):
        text, separator, name = line.strip().partition("_")
        try:
            loss = float(text) if separator else math.nan
        except ValueError:
            loss = math.nan
        if not math.isfinite(loss):
            raise DataError(f"{path}, line {number}: expected LOSS_PATH with a finite loss, not {line[:60]!r}")
        place = _place(path, number, name)
        if place >= count:
            raise DataError(
                f"{path}, line {number}: image {place} in a file of {count} lines; expected 0 to {count - 1}"
            )
        if texts[place]:
            raise DataError(f"{path}, line {number}: image {place} is there twice")
        losses[place], texts[place] = loss, text
    return PretextLosses(losses, tuple(texts))


def _place(path: Path, number: int, name: str) -> int:
    stem = PurePosixPath(name.strip().replace("\\", "/")).stem
    if not _INDEX.fullmatch(stem):
        raise DataError(f"{path}, line {number}: expected a path CLASS/INDEX.png, not {name[:60]!r}")
    return int(stem)


def _read_npz(path: Path) -> PretextLosses:
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:  # the file may well be whole
        raise DataError(f"{path}: cannot be read ({error.strerror})") from None
    try:
        with np.load(io.BytesIO(raw), allow_pickle=False) as file:
            losses, index, text = file["losses"].astype(np.float64, casting="safe"), file["index"], file["text"]
            description = json.loads(str(file["description"]))
        if description["version"] != VERSION:
            raise DataError(f"{path}: written by another version of alkit ({description['version']}, not {VERSION})")
        if not isinstance(description["settings"], dict) or not np.array_equal(
            text.astype(np.float64), losses, equal_nan=True
        ):
            raise DamagedLossesError(f"{path}: expected settings, and the text of each loss beside it")
        accuracy = description["accuracy"]
        content = PretextLosses(
            losses, tuple(text.tolist()), description["settings"], description["epoch"],
            math.nan if accuracy is None else accuracy, tuple(description["history"]),
        )  # fmt: skip
    except DataError:
        raise
    except Exception as error:  # a damaged header makes zipfile and its decompressors raise what they like
        raise DamagedLossesError(f"{path}: not a pretext.npz of alkit ({type(error).__name__})") from None
    if losses.ndim != 1 or len(text) != len(losses) or not np.array_equal(index, np.arange(len(losses))):
        raise DamagedLossesError(f"{path}: expected one loss for each image, in the pool's order")
    broken = np.flatnonzero(~np.isfinite(losses))
    if len(broken):
        raise DamagedLossesError(f"{path}: the loss of image {broken[0]} is not a finite number")
    return content
