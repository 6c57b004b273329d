"""The named data sets: one entry each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alkit.data.imageset import ImageSet, from_arrays
from alkit.errors import ConfigError, nearest


@dataclass(frozen=True)
class DatasetEntry:
    """One data set: how to load it, and what is known of it before it is loaded."""

    name: str
    title: str
    load: Callable[..., tuple[ImageSet, ImageSet]]
    train_size: int | None = None
    num_classes: int | None = None


def _load_digits(root: Path | None = None, **options: Any) -> tuple[ImageSet, ImageSet]:
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split

    digits = load_digits()
    images = np.round(digits.images * (255 / 16)).astype(np.uint8)[:, None]
    train, test = train_test_split(np.arange(len(images)), test_size=0.2, stratify=digits.target, random_state=0)
    names = [str(label) for label in digits.target_names]
    first = from_arrays("digits", images[train], digits.target[train], names, augmentation="none")
    second = from_arrays("digits", images[test], digits.target[test], names, first.mean, first.std)
    return first, second


DATASETS = {"digits": DatasetEntry("digits", "Handwritten digits, 8×8 grey (scikit-learn)", _load_digits, 1437, 10)}


def load_dataset(name: str, root: str | Path | None = None, **options: Any) -> tuple[ImageSet, ImageSet]:
    """The training and test images of the data set `name`."""
    if name not in DATASETS:
        raise ConfigError(f"dataset: no data set '{name}'{nearest(name, DATASETS)} (`alkit datasets` lists them)")
    return DATASETS[name].load(Path(root) if root else None, **options)


__all__ = ["DATASETS", "DatasetEntry", "load_dataset"]
