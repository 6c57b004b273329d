"""Images of more than 8 bits: their full values, and the one scale on which all of a data set become 0..255."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image

Values = npt.NDArray[np.float64]
_DEPTHS = (8, 10, 12, 14, 16, 24, 32)
_OTHER_END = {"B": "L", "L": "B", "N": "B" if sys.byteorder == "little" else "L"}


class Span(NamedTuple):
    """The smallest and the largest value of an image, or of many, and whether all are whole numbers by type."""

    low: float
    high: float
    whole: bool


class Scale(NamedTuple):
    """Values `low` to `high` become 0..255; with `bits`, whole numbers from 0 keep their upper 8 bits."""

    low: float
    high: float
    bits: int | None = None

    def __str__(self) -> str:
        depth = "" if self.bits is None else f"{self.bits} bits: "
        return f"{depth}values {self.low:g} to {self.high:g} become 0 to 255"


class Scales(NamedTuple):
    """The scale of a data set's images of whole numbers, and that of its images of fractions, where it has such."""

    whole: Scale | None = None
    fractions: Scale | None = None

    def __str__(self) -> str:
        return "; ".join(str(scale) for scale in self if scale is not None)


def scales_of(spans: Iterable[Span]) -> Scales:
    """One scale for all images of a data set, from their spans."""
    found = list(spans)
    return Scales(*(_scale([span for span in found if span.whole == whole]) for whole in (True, False)))


def _scale(spans: list[Span]) -> Scale | None:
    """Numbers from 0 have the usual depth that holds the largest, fractions up to 1 are parts of white.

    Where some lie below 0, or beyond every depth, the smallest is black and the largest white.
    """
    if not spans:
        return None
    low, high, whole = min(span.low for span in spans), max(span.high for span in spans), spans[0].whole
    if low >= 0 and high <= 1 and not whole:
        return Scale(0.0, 1.0)
    bits = next((depth for depth in _DEPTHS if high < 2**depth), None)
    if low < 0 or bits is None:
        return Scale(low, high if high > low else low + 1)
    return Scale(0.0, 2.0**bits - 1, bits if whole else None)


def rawmode(image: Image.Image) -> str:
    """How the file of an image that was opened, and not yet loaded, holds its pixels: `RGB;16B`, or an empty string."""
    tiles = getattr(image, "tile", None)
    arguments = tiles[0][3] if tiles else ""
    first = arguments[0] if isinstance(arguments, tuple) and arguments else arguments
    return first if isinstance(first, str) else ""


def is_deep(image: Image.Image) -> bool:
    """Whether an opened image, not yet loaded, has more than 8 bits a channel."""
    return image.mode in ("I", "F") or image.mode.startswith("I;16") or ";16" in rawmode(image)


def values_of(image: Image.Image, path: Path, raw: str) -> tuple[Values, Values | None]:
    """The values (H, W) or (H, W, 3) of a deep image, and its transparency (H, W) in 0..255 if it has one.

    Pillow keeps the high bytes of 16-bit colours; the low ones are read as if the file had the other byte order.
    """
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        return np.asarray(image).astype(np.float64), None
    with Image.open(path) as again:
        # grey with transparency: its four bytes, as they are
        _read_as(again, "RGBA" if raw.startswith("LA") else f"{raw[:-1]}{_OTHER_END[raw[-1]]}")
        low = np.asarray(again).astype(np.float64)
    if raw.startswith("LA"):
        return low[..., 0] * 256 + low[..., 1], low[..., 2]
    high = np.asarray(image).astype(np.float64)
    return (high * 256 + low)[..., :3], high[..., 3] if high.shape[2] == 4 else None


def _read_as(image: Image.Image, raw: str) -> None:
    image.tile = [  # type: ignore[attr-defined]
        (codec, extents, offset, (raw, *arguments[1:]) if isinstance(arguments, tuple) else raw)
        for codec, extents, offset, arguments in image.tile  # type: ignore[attr-defined]
    ]
    image.load()


def span_of(values: Values, whole: bool) -> Span:
    """The span of an image's values; what is no number does not count."""
    finite = values[np.isfinite(values)]
    return Span(float(finite.min()), float(finite.max()), whole) if finite.size else Span(0.0, 0.0, whole)


def eight_bit(values: Values, scale: Scale) -> npt.NDArray[np.uint8]:
    """Values on a scale as bytes; what is no number is black, what lies outside is cut."""
    known = np.nan_to_num(values, nan=scale.low, posinf=scale.high, neginf=scale.low)
    if scale.bits is not None:
        found = np.floor(known / 2.0 ** (scale.bits - 8))
    else:
        found = np.round((known - scale.low) * (255 / (scale.high - scale.low)))
    return np.clip(found, 0, 255).astype(np.uint8)


def flattened(image: Image.Image, path: Path, scales: Scales | None) -> Image.Image:
    """A deep image just opened as 8-bit grey, RGB or RGBA on the data set's scale (null: on its own)."""
    whole, raw = image.mode != "F", rawmode(image)  # before anything loads the image
    values, transparency = values_of(image, path, raw)
    scale = (scales or scales_of([span_of(values, whole)]))[0 if whole else 1]
    bytes_ = eight_bit(values, scale or Scale(0.0, 1.0))
    if transparency is not None:
        colours = bytes_ if bytes_.ndim == 3 else np.repeat(bytes_[..., None], 3, axis=2)
        bytes_ = np.dstack([colours, transparency.astype(np.uint8)])
    flat = Image.fromarray(bytes_)
    flat.getexif().update(image.getexif())
    return flat
