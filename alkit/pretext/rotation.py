"""Rotation: by how much was the image turned? (Gidaris et al., ICLR 2018; PT4AL's pretext task.)"""

from __future__ import annotations

import torch
from torch import Tensor

from alkit.data import ImageSet
from alkit.pretext.base import register, square
from alkit.pretext.views import WhichView


@register("rotation")
class Rotation(WhichView):
    """Turned by 0°, 90°, 180° and 270°, counter-clockwise."""

    def check(self, data: ImageSet) -> None:
        square(data, "rotation")

    def views(self, images: Tensor) -> Tensor:
        return torch.stack([torch.rot90(images, turns, (2, 3)) for turns in range(self.count)])
