"""Folders of small made-up pictures for tests, and what changes them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def photographs(folder: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """A folder of 8×8 pictures, `counts` a class, each class with a brightness of its own."""
    source = np.random.default_rng(seed)
    for place, (name, count) in enumerate(counts.items()):
        (folder / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            pixels = source.integers(0, 60, (8, 8, 3)) + 190 * place // max(1, len(counts) - 1)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / name / f"{number:03}.png")
    return folder


def invert(folder: Path) -> None:
    for path in folder.rglob("*.png"):
        Image.fromarray(255 - np.asarray(Image.open(path))).save(path)


def move(folder: Path, source: str, target: str, count: int) -> None:
    """The first images of one class into another."""
    for number in range(count):
        (folder / source / f"{number:03}.png").rename(folder / target / f"{source}{number}.png")


def delete(folder: Path, name: str, count: int) -> None:
    for number in range(count):
        (folder / name / f"{number:03}.png").unlink()
