"""Jigsaw: how were the four quarters of the image rearranged? (Noroozi & Favaro, ECCV 2016.)"""

from __future__ import annotations

import torch
from torch import Tensor

from alkit.config import Experiment
from alkit.errors import ConfigError
from alkit.training.pretext.base import Shape, register
from alkit.training.pretext.views import WhichView

PERMUTATIONS = ((0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0))
"""Which quarter stands top left, top right, bottom left, bottom right. Of the 24 arrangements these four differ from
each other in every place, which is how the paper chooses its subset; and they cost no more than four rotations."""


@register("jigsaw")
class Jigsaw(WhichView):
    """Quarters as they are, columns swapped, rows swapped, both. An odd last row or column is left out."""

    @classmethod
    def check(cls, experiment: Experiment, shape: Shape) -> None:
        super().check(experiment, shape)
        _, height, width = shape
        if min(height, width) < 4:
            raise ConfigError(f"pretext: jigsaw needs images of at least 4×4 pixels, not {height}×{width}")

    def views(self, images: Tensor) -> Tensor:
        height, width = images.shape[2] // 2, images.shape[3] // 2
        quarters = [
            images[:, :, row * height : (row + 1) * height, column * width : (column + 1) * width]
            for row in range(2)
            for column in range(2)
        ]
        return torch.stack([_together([quarters[q] for q in order]) for order in PERMUTATIONS])


def _together(quarters: list[Tensor]) -> Tensor:
    return torch.cat([torch.cat(quarters[:2], 3), torch.cat(quarters[2:], 3)], 2)
