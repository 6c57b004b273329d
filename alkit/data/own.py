"""Images of one's own, as arrays, in place of a named data set."""

from __future__ import annotations

import re
from dataclasses import replace
from typing import Any

from alkit.config import Experiment
from alkit.data.identity import images_record
from alkit.data.imageset import ImageSet
from alkit.data.registry import as_released, get_entry, load_for, prepare, profiled, with_features
from alkit.errors import ConfigError

OF_FILES = ("data_root", "skip_broken", "test_fraction")
"""Data options that only mean something where images are read from files."""


def images_for(
    experiment: Experiment, train: ImageSet | None = None, test: ImageSet | None = None
) -> tuple[Experiment, ImageSet, ImageSet]:
    """An experiment with its training and test images: those of its data set, or one's own, `train` and `test`.

    To one's own images `pool_size`, `test_size`, `class_balance`, `test_class_balance`, `imbalance_factor`,
    `label_noise`, `image_size` and `dataset_seed` do what they do to a named set; `data_root`, `skip_broken` and
    `test_fraction` are about files and are refused. Test images are normalised with the pool's channel statistics.
    The experiment that comes back has `own-NAME` as its `dataset`, NAME being the pool's: whatever that is, it is
    compared with nothing published.

    Raises `ConfigError` of one line for sets that do not go together, and for options that they cannot give.
    """
    if train is None and test is None:
        return experiment, *load_for(experiment)
    pool, held_out = _checked(train, test)
    experiment = own_experiment(experiment, pool, held_out)
    pool, held_out = pool.to("cpu"), replace(held_out.to("cpu"), mean=pool.mean, std=pool.std)
    pool, held_out = with_features(experiment, pool, held_out)
    return experiment, *as_released(experiment, *prepare(pool, held_out, profiled(experiment, {})))


def images_now(experiment: Experiment) -> dict[str, Any] | None:
    """What a record would say of the images that an experiment has now; None for a named set without features.

    Those are known by their digest, or their files', before they are used: only folders and features change.
    """
    if get_entry(experiment.dataset).count is None and experiment.features is None:
        return None
    return images_record(*load_for(experiment))


def own_experiment(experiment: Experiment, train: ImageSet | None, test: ImageSet | None) -> Experiment:
    """The experiment on images of one's own, its `dataset` named after them. Raises as `images_for` does."""
    train, _ = _checked(train, test)
    for option in OF_FILES:
        if getattr(experiment, option) != Experiment.model_fields[option].default:
            raise ConfigError(f"{option}: the images are given as train and test; no folder is read")
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}", train.name):
        raise ConfigError(f"train: expected a name of letters, digits and _ . + -, not {train.name!r}")
    return Experiment(**(experiment.model_dump() | {"dataset": f"own-{train.name}"}))


def _checked(train: ImageSet | None, test: ImageSet | None) -> tuple[ImageSet, ImageSet]:
    for split, images in (("train", train), ("test", test)):
        if not isinstance(images, ImageSet):
            given = "nothing" if images is None else f"a value of type {type(images).__name__}"
            raise ConfigError(f"{split}: expected an ImageSet (alkit.data.from_arrays makes one), not {given}")
        if not len(images):
            raise ConfigError(f"{split}: expected at least one image")
    assert train is not None
    assert test is not None
    if test.shape != train.shape:
        raise ConfigError(f"test: expected images of (C, H, W) = {train.shape} as in train, not {test.shape}")
    if test.class_names != train.class_names:
        raise ConfigError(f"test: expected the {len(train.class_names)} class names of train, in the same order")
    return train, test
