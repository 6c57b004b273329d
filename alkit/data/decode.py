"""From an image file to uint8 pixels, whatever kind of image it is."""

from __future__ import annotations

import math
import struct
import warnings
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageOps, UnidentifiedImageError

from alkit.errors import DataError

Bytes = npt.NDArray[np.uint8]

_BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, OverflowError,
           Image.DecompressionBombError)  # fmt: skip
_GREY = {"1", "L", "LA", "La", "I", "F", "I;16", "I;16B", "I;16L", "I;16N"}


class ImageFileError(DataError):
    """A file that cannot be read as an image; the message begins with its name."""


def _refused(path: Path, error: BaseException) -> ImageFileError:
    if isinstance(error, UnidentifiedImageError):
        error = ValueError("in no format that is known")
    reason = " ".join(str(error).replace(str(path), "it").split()) or type(error).__name__
    return ImageFileError(f"{path}: not an image that can be read ({reason[:120]})")


def look(path: Path) -> tuple[int, int, bool]:
    """(width, height, is grey) from a file's header, as it will be after its EXIF orientation."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                width, height = image.size
                if image.getexif().get(0x0112, 1) in (5, 6, 7, 8):
                    width, height = height, width
                return width, height, image.mode in _GREY
    except _BROKEN as error:
        raise _refused(path, error) from None


def decode(path: Path, size: int, channels: int) -> Bytes:
    """The image as (size, size, channels): turned as its EXIF says, shorter side resized, centre cropped.

    16-bit values keep their high byte; what is transparent is laid on white. Raises `ImageFileError`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                _draft(image, size)
                image.load()
                flat = to_mode(ImageOps.exif_transpose(image), channels)
            return _pixels(_centre(flat, size, size), channels)
    except _BROKEN as error:
        raise _refused(path, error) from None


def decode_for_batch(path: Path, size: int, channels: int, draws: Sequence[float] | None) -> Bytes:
    """The image as (size, size, channels): the centre of it, or the random-resized crop of `draws` (5 numbers in 0..1).

    As the usual ImageNet pipelines do, the EXIF orientation is not applied. Raises `ImageFileError`.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path) as image:
                whole = image.size
                if draws is None:
                    resized = round(size * 256 / 224)
                    _draft(image, resized)
                    return _pixels(_centre(to_mode(image, channels), resized, size), channels)
                left, top, width, height = crop_box(*whole, draws)
                _draft(image, math.ceil(size * max(1.0, min(whole) / min(width, height))))
                across, down = image.size[0] / whole[0], image.size[1] / whole[1]
                box = (left * across, top * down, (left + width) * across, (top + height) * down)
                cropped = to_mode(image, channels).resize((size, size), Image.Resampling.BILINEAR, box)
                pixels = _pixels(cropped, channels)
                return pixels[:, ::-1] if draws[2] < 0.5 else pixels
    except _BROKEN as error:
        raise _refused(path, error) from None


def crop_box(width: int, height: int, draws: Sequence[float]) -> tuple[float, float, float, float]:
    """(left, top, width, height) of a crop of 8% to 100% of the area at an aspect of 3/4 to 4/3, kept in the image.

    `draws` are row offset, column offset, flip (unused here), area and aspect, each uniform in 0..1.
    """
    area = (0.08 + 0.92 * draws[3]) * width * height
    aspect = math.exp((2 * draws[4] - 1) * math.log(4 / 3))
    across = min(math.sqrt(area * aspect), float(width))
    down = min(math.sqrt(area / aspect), float(height))
    return draws[1] * (width - across), draws[0] * (height - down), across, down


def to_mode(image: Image.Image, channels: int) -> Image.Image:
    """Any image as 8-bit grey (`channels` 1) or RGB (3)."""
    wanted = "L" if channels == 1 else "RGB"
    if image.mode in ("I", "F") or image.mode.startswith("I;16"):
        image = _eight_bit(image)
    if image.mode in ("LA", "La", "RGBA", "RGBa", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = Image.alpha_composite(Image.new("RGBA", image.size, "white"), image)
    if image.mode not in ("L", "RGB"):
        image = image.convert("RGB")
    return image if image.mode == wanted else image.convert(wanted)


def _eight_bit(image: Image.Image) -> Image.Image:
    """16-bit grey keeps its high byte; floating-point grey in 0..1 is scaled, else cut to 0..255."""
    values = np.asarray(image).astype(np.float64)
    if image.mode == "F":
        values = np.nan_to_num(values)
        values = values * 255 if values.max(initial=0) <= 1 else values
    elif image.mode.startswith("I;16") or values.max(initial=0) > 255:
        values = values // 256
    return Image.fromarray(np.clip(values, 0, 255).round().astype(np.uint8))


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
    if target != image.size:
        image = image.resize(target, Image.Resampling.BILINEAR)
    left, top = (target[0] - size) // 2, (target[1] - size) // 2
    return image.crop((left, top, left + size, top + size))


def _pixels(image: Image.Image, channels: int) -> Bytes:
    return np.asarray(image).reshape(image.height, image.width, channels)
