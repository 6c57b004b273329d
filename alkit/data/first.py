"""The first labelled images: listed in a file, so that all methods start from the same, or each class equally often."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from alkit.config import Experiment
from alkit.data.identity import query_digest
from alkit.data.randomness import generator
from alkit.errors import DataError


def available_of(experiment: Experiment, pool_size: int) -> tuple[Tensor, Tensor]:
    """Places in a pool of so many images, ascending: those held out to stop early by, and those to be labelled."""
    everything = torch.arange(pool_size)
    held = torch.randperm(pool_size, generator=generator(experiment.seed, "validation"))
    validation = held[: experiment.validation_size].sort().values
    return validation, everything[~torch.isin(everything, validation)]


def first_labelled(experiment: Experiment, available: Tensor) -> Tensor:
    """The places (initial,) int64 that `first_labelled` lists, in its order: see `_listed`.

    Places count from 0 in the pool, after every data option. Raises `DataError` of one line for a file that is missing
    or holds anything else, for places that are not `available`, for doubles, and for another number than `initial`.
    """
    path = Path(str(experiment.first_labelled))
    places = _listed(path)
    if len(places) != experiment.initial:
        raise DataError(f"first_labelled: {path}: lists {len(places)} images, but initial is {experiment.initial}")
    if len(places.unique()) != len(places):
        raise DataError(f"first_labelled: {path}: lists an image twice")
    other = places[~torch.isin(places, available)]
    if len(other):
        raise DataError(f"first_labelled: {path}: {int(other[0])} is no place in the pool of {len(available)} images")
    return places


def first_digest(experiment: Experiment) -> str | None:
    """The checksum of the places that `first_labelled` lists, as a record has of its first query (`query_sha256`).

    None where nothing is listed, and where the file is no longer there: a finished run does not need it.
    """
    if experiment.first_labelled is None or experiment.row.whole_pool or not Path(experiment.first_labelled).exists():
        return None
    return query_digest(_listed(Path(experiment.first_labelled)))


def _listed(path: Path) -> Tensor:
    """The places in a text file with one a line, or in a `.npy`. Raises `DataError` of one line."""
    no_places = DataError(f"first_labelled: {path}: expected whole numbers, one a line: places in the pool")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # numpy's own words about an empty file
            found = (
                np.load(path, allow_pickle=False) if path.suffix == ".npy" else np.loadtxt(path, dtype="i8", ndmin=1)
            )
    except FileNotFoundError:
        raise DataError(f"first_labelled: {path}: no such file") from None
    except Exception:  # numpy raises what it likes
        raise no_places from None
    if not isinstance(found, np.ndarray) or found.ndim != 1 or found.dtype.kind not in "iu":
        raise no_places
    return torch.from_numpy(found.astype(np.int64))


def interleave_classes(order: Tensor, labels: Tensor, num_classes: int) -> Tensor:
    """`order` rearranged so that every prefix holds the classes as equally often as they last."""
    rank = torch.empty(len(order), dtype=torch.int64)
    for label in range(num_classes):
        positions = (labels[order] == label).nonzero().flatten()
        rank[positions] = torch.arange(len(positions))
    return order[torch.argsort(rank, stable=True)]
