"""From an image file to uint8 pixels, whatever kind of image it is."""

from __future__ import annotations

import math
import os
import stat
import struct
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from alkit.data import depth
from alkit.data.crop import crop_box
from alkit.data.depth import Scales, Span
from alkit.errors import DataError

Bytes = npt.NDArray[np.uint8]

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, OverflowError,
           Image.DecompressionBombError)  # fmt: skip
_LARGEST = 2**27
"""Pixels that resizing may make; with a box Pillow rounds otherwise, so smaller images are resized whole."""
_GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


class ImageFileError(DataError):
    """A file that cannot be read as an image; the message begins with its name."""


@contextmanager
def _opened(path: Path) -> Iterator[Image.Image]:
    """The image, opened and not yet loaded; within, what a broken file makes of it is an `ImageFileError`."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            if not stat.S_ISREG(os.stat(path).st_mode):  # to open a pipe would wait for whoever writes into it
                raise OSError("a pipe or a device, not a file")
            with Image.open(path) as image:
                yield image
    except _BROKEN as error:
        said = "in no format that is known" if isinstance(error, UnidentifiedImageError) else str(error)
        reason = " ".join(said.replace(str(path), "it").split()) or type(error).__name__
        raise ImageFileError(f"{path}: not an image that can be read ({reason[:120]})") from None


class Look(NamedTuple):
    """An image's size as it will be after its EXIF orientation, whether it is grey, and the span of a deep one."""

    width: int
    height: int
    grey: bool
    span: Span | None = None


def look(path: Path) -> Look:
    """What a file's header tells; of an image of more than 8 bits also the span of its values."""
    with _opened(path) as image:
        width, height = image.size
        grey, span = image.mode in _GREY, None
        if depth.is_deep(image):
            whole, raw = image.mode != "F", depth.rawmode(image)
            grey = grey or raw.startswith("LA")
            span = depth.span_of(depth.values_of(image, path, raw)[0], whole)
        if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
            width, height = height, width
        return Look(width, height, grey, span)


def decode(path: Path, size: int, channels: int, scales: Scales | None = None) -> Bytes:
    """The image as (size, size, channels): turned as its EXIF says, shorter side resized, centre cropped.

    An image of more than 8 bits is put on the data set's `scales` (null: on its own); what is transparent is laid on
    white. Raises `ImageFileError`.
    """
    with _opened(path) as image:
        _draft(image, size)
        whole = _eight_bit(image, path, scales)
        flat = to_mode(ImageOps.exif_transpose(whole), channels)
        return _pixels(_centre(flat, size, size), channels)


def decode_for_batch(
    path: Path, size: int, channels: int, draws: Sequence[float] | None, scales: Scales | None = None
) -> Bytes:
    """The image as (size, size, channels): the centre of it, or the random-resized crop of `draws` (in 0..1).

    As the usual ImageNet pipelines do, the EXIF orientation is not applied. `scales` are those of images of more than 8
    bits. Raises `ImageFileError`.
    """
    with _opened(path) as image:
        whole = image.size
        if draws is None:
            resized = round(size * 256 / 224)
            _draft(image, resized)
            flat = to_mode(_eight_bit(image, path, scales), channels)
            return _pixels(_centre(flat, resized, size), channels)
        left, top, width, height = crop_box(*whole, draws)
        _draft(image, math.ceil(size * max(1.0, min(whole) / min(width, height))))
        across, down = image.size[0] / whole[0], image.size[1] / whole[1]
        box = (left * across, top * down, (left + width) * across, (top + height) * down)
        flat = to_mode(_eight_bit(image, path, scales), channels)
        pixels = _pixels(flat.resize((size, size), Image.Resampling.BILINEAR, box), channels)
        return pixels[:, ::-1] if draws[2] < 0.5 else pixels


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Any image of 8 bits as grey (`channels` 1) or RGB (3)."""
    wanted = "L" if channels == 1 else "RGB"
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _eight_bit(image: Image.Image, path: Path, scales: Scales | None) -> Image.Image:
    """An image just opened, loaded, with 8 bits a channel."""
    if depth.is_deep(image):
        return depth.flattened(image, path, scales)
    image.load()
    return image


def _draft(image: Image.Image, size: int) -> None:
    """Let the JPEG decoder itself shrink by a power of two while the shorter side stays at least twice `size`."""
    if image.format == "JPEG":
        scale = 2 * size / min(image.size)
        image.draft(None, (math.ceil(image.size[0] * scale), math.ceil(image.size[1] * scale)))


def _centre(image: Image.Image, resized: int, size: int) -> Image.Image:
    """The shorter side resized to `resized`, then the centre `size` × `size`."""
    width, height = image.size
    scale = resized / min(width, height)
    target = (max(resized, round(width * scale)), max(resized, round(height * scale)))
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    if math.prod(target) > _LARGEST:  # a line of a million pixels: only what is kept is resized
        across, down = width / target[0], height / target[1]
        box = (left * across, top * down, (left + size) * across, (top + size) * down)
        return image.resize((size, size), Image.Resampling.BILINEAR, box)
    if target != image.size:
        image = image.resize(target, Image.Resampling.BILINEAR)
    return image.crop((left, top, left + size, top + size))


def _pixels(image: Image.Image, channels: int) -> Bytes:
    return np.asarray(image).reshape(image.height, image.width, channels)
