"""Where a random-resized crop lies, by torchvision's rule. Imports nothing heavy: decoding processes use it too."""

from __future__ import annotations

import math
from collections.abc import Sequence

AREA = (0.08, 1.0)
"""Least and largest part of the image's area."""

ASPECT = 4 / 3
"""The largest aspect, width over height; the least is 1 over it."""

TRIES = 10


def crop_box(width: int, height: int, draws: Sequence[float]) -> tuple[int, int, int, int]:
    """(left, top, width, height) of a crop of 8% to 100% of the area at an aspect of 3/4 to 4/3 (RandomResizedCrop).

    `draws` are uniform in 0..1: row offset, column offset, flip (unused here), then area and aspect of each try. The
    first that fits is taken; where none does the largest centred box within the aspects.
    """
    (low, high), ratio = AREA, ASPECT
    for area, aspect in zip(draws[3::2], draws[4::2], strict=True):
        target, slant = (low + (high - low) * area) * width * height, math.exp((2 * aspect - 1) * math.log(ratio))
        across, down = round(math.sqrt(target * slant)), round(math.sqrt(target / slant))
        if 0 < across <= width and 0 < down <= height:
            top, left = (min(int(u * (r + 1)), r) for u, r in ((draws[0], height - down), (draws[1], width - across)))
            return left, top, across, down
    across, down = fallback(width, height)
    return (width - across) // 2, (height - down) // 2, across, down


def fallback(width: int, height: int) -> tuple[int, int]:
    """Width and height of the largest box of an image whose aspect is within 3/4 to 4/3."""
    if width < height / ASPECT:
        return width, round(width * ASPECT)
    if width > height * ASPECT:
        return round(height * ASPECT), height
    return width, height
