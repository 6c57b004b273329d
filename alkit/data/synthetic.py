"""Sets that need no files: the digits that come with scikit-learn, and two moons."""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from alkit.data.identity import Sha256, check
from alkit.data.imageset import ImageSet, from_arrays
from alkit.data.imbalance import split
from alkit.data.randomness import numpy_generator

DIGITS_SHA256 = {
    "whole": Sha256(
        "b41ca9fd335466eee997366c2e6f6bbe0a1b4582afe091fc4eba35f4a254182f",
        "8ba4f891220f5e4c9c819638d1602d74b83618f167043c6da52a2a247841ddf0",
    )
}
MOONS_SIZE = 8
_MOONS_RANGE = ((-1.5, 2.5), (-1.0, 1.5))  # the points' x and y that lie on the picture


def load_digits(root: Path | None, options: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
    """1,797 handwritten digits of 8×8 pixels; a fifth is for the test, by class, drawn by `dataset_seed`."""
    (file,) = digits_files(root)
    rows = np.loadtxt(file, delimiter=",")  # (1797, 65): 64 pixels of 0..16 and the label
    images = np.round(rows[:, :64].reshape(-1, 1, 8, 8) * (255 / 16)).astype(np.uint8)
    labels = rows[:, 64].astype(np.int64)
    check("digits", "whole set's", DIGITS_SHA256["whole"], images, labels, file)
    train, test = split(labels, 0.2, 10, options["dataset_seed"])
    names = [str(name) for name in range(10)]
    first = from_arrays("digits", images[train], labels[train], names)
    return first, from_arrays("digits", images[test], labels[test], names, first.mean, first.std)


def digits_files(root: Path | None) -> list[Path]:
    """Where scikit-learn keeps the digits. Importing it to read them takes a second."""
    package = find_spec("sklearn")
    return [Path(str(package and package.origin)).parent / "datasets" / "data" / "digits.csv.gz"]


def load_two_moons(root: Path | None, options: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
    """2,000 + 1,000 points of two interleaved half circles, each drawn as a spot on an 8×8 grey picture.

    The picture is what an image model can take; `moon_points` reads the points back from the pictures.
    """
    parts = []
    for purpose, count in (("train", 2000), ("test", 1000)):
        points, labels = two_moons(count, options["dataset_seed"], purpose)
        parts.append((render(points), labels))
    (images, labels), (test_images, test_labels) = parts
    train = from_arrays("two_moons", images, labels, ["upper", "lower"])
    return train, from_arrays("two_moons", test_images, test_labels, ["upper", "lower"], train.mean, train.std)


def two_moons(count: int, seed: int, purpose: str) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.int64]]:
    """Points (count, 2) and their moons (count,), half of them each, with Gaussian noise of 0.1."""
    source = numpy_generator(seed, "two moons", purpose)
    labels = np.arange(count) % 2
    angle = source.uniform(0, np.pi, count)
    upper = np.stack([np.cos(angle), np.sin(angle)], 1)
    lower = np.stack([1 - np.cos(angle), 0.5 - np.sin(angle)], 1)
    points = np.where(labels[:, None] == 0, upper, lower) + source.normal(0, 0.1, (count, 2))
    return points, labels.astype(np.int64)


def render(points: npt.NDArray[np.float64], size: int = MOONS_SIZE) -> npt.NDArray[np.uint8]:
    """Points (N, 2) as grey pictures (N, 1, size, size): a Gaussian spot of one pixel's deviation at each point."""
    place = np.empty_like(points)
    for axis, (low, high) in enumerate(_MOONS_RANGE):
        place[:, axis] = (points[:, axis] - low) / (high - low) * (size - 1)
    grid = np.arange(size)
    x = np.exp(-0.5 * (grid - place[:, :1]) ** 2)
    y = np.exp(-0.5 * (grid[::-1] - place[:, 1:]) ** 2)  # the first row is the top
    return np.round(255 * y[:, :, None] * x[:, None, :]).astype(np.uint8)[:, None]


def moon_points(images: npt.NDArray[np.uint8]) -> npt.NDArray[np.float64]:
    """The points (N, 2) that `render` drew as `images` (N, 1, size, size), to within a few hundredths.

    Neighbouring pixels of a Gaussian spot of deviation 1 differ by a factor exp(place − k − ½), which gives the place.
    """
    size = images.shape[-1]
    rows = images[:, 0].astype(np.float64)
    points = np.empty((len(images), 2))
    for axis, profile in enumerate((rows.sum(1), rows.sum(2)[:, ::-1])):
        pair = np.clip(np.argmax(profile[:, :-1] + profile[:, 1:], 1), 0, size - 2)
        each = np.arange(len(images))
        ratio = np.log((profile[each, pair + 1] + 0.5) / (profile[each, pair] + 0.5))
        low, high = _MOONS_RANGE[axis]
        points[:, axis] = low + (pair + 0.5 + ratio) / (size - 1) * (high - low)
    return points
