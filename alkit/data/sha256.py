"""What a named data set is: its pixels and labels, whichever archive they came in."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt

from alkit.errors import DataError


@dataclass(frozen=True)
class Sha256:
    """SHA-256 of the pixels, uint8 (N, H, W, C), and of the labels, uint8 (N,), of images in their published order."""

    pixels: str
    labels: str


def sha256_of(array: npt.NDArray[np.generic]) -> str:
    """The hexadecimal SHA-256 of an array's values as bytes, row by row."""
    return hashlib.sha256(np.ascontiguousarray(array.astype(np.uint8, copy=False)).data).hexdigest()


def check(
    name: str, part: str, known: Sha256, pixels: npt.NDArray[np.uint8], labels: npt.NDArray[np.generic], where: Path
) -> None:
    """Refuse images uint8 (N, H, W, C) or labels (N,) that are not those of the data set `name`, with a `DataError`."""
    for what, wanted, found in (("pixels", known.pixels, pixels), ("labels", known.labels, labels)):
        if (digest := sha256_of(found)) != wanted:
            raise DataError(
                f"{where}: not {name}: the SHA-256 of the {part} {what} is {digest}, expected {wanted}; "
                "a copy with other pixels or labels (compressed, resized, in another order) is `dataset: folder`, "
                "and compares with nothing published"
            )
