"""What is known of an experiment's images without decoding any, for what is refused before a run starts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from alkit.config import Experiment
from alkit.data.imageset import ImageSet
from alkit.data.registry import check_both, load_for, pool_counts, set_options, set_root, test_steps

Shape = tuple[int, int, int]


@dataclass(frozen=True)
class Facts:
    """Images in the pool and for the test, after every data option; classes; and (C, H, W) of what a network sees."""

    pool: int
    test: int
    classes: int
    find_shape: Callable[[], Shape]

    @cached_property
    def shape(self) -> Shape:
        """(C, H, W) of the images, or of features (D, 1, 1). Asked of every file's header where only those know."""
        return self.find_shape()

    @classmethod
    def of(cls, experiment: Experiment, train: ImageSet, test: ImageSet) -> Facts:
        """The facts of images that are there."""
        numbers = (len(train), len(test), train.num_classes)
        return cls(*numbers, lambda: (train.on_features() if experiment.on_features else train).shape)


def facts_of(experiment: Experiment) -> Facts:
    """The facts of the images that an experiment will have. Raises what loading them raises for options and folders.

    Files that `skip_broken` will skip are still counted. Only fixed features need the images themselves, since a file
    of features is known to belong to them by their pixels.
    """
    entry, options = set_options(experiment)
    train, test = entry.class_counts, entry.test_counts
    if entry.count is not None:
        train, test = map(tuple, entry.count(set_root(experiment), options))
    if experiment.features is not None or train is None or test is None:
        return Facts.of(experiment, *load_for(experiment))
    pool, held = sum(pool_counts(train, options)), sum(test_steps(test, options)[-1])
    check_both(entry.name, pool, held)
    return Facts(pool, held, len(train), lambda: _shape_of(experiment))


def _shape_of(experiment: Experiment) -> Shape:
    entry, options = set_options(experiment)
    if entry.look is not None:
        return entry.look(set_root(experiment), options)
    if entry.shape is None:
        return load_for(experiment)[0].shape
    channels, height, width = entry.shape
    side = options["image_size"]
    return (channels, side, side) if side else (channels, height, width)


def pool_facts(experiment: Experiment) -> tuple[int, int]:
    """(images in the pool, classes), as `facts_of` tells them."""
    facts = facts_of(experiment)
    return facts.pool, facts.classes
