"""Colorization: what colours does the grey picture have? (Zhang et al., ECCV 2016, reduced to a coarse grid.)"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alkit.config import Experiment
from alkit.errors import ConfigError
from alkit.training.pretext.base import PretextTask, Scores, Shape, register

GRID = 4
_LUMA = (0.299, 0.587, 0.114)  # ITU-R BT.601
_CB = (-0.168736, -0.331264, 0.5)
_CR = (0.5, -0.418688, -0.081312)
_UNIT = 0.1
"""A colour difference counted as 1: about its deviation in photographs."""


@register("colorization")
class Colorization(PretextTask):
    """From the brightness of an image predict the mean colour of each cell of a 4×4 grid.

    The network sees the luma alone; it predicts the two colour differences Cb and Cr of each cell. The loss of an
    image is the mean squared error in units of 0.1. Grey images are refused: they have no colour to predict. There is
    no accuracy, so the last epoch is kept.
    """

    measured = False

    @classmethod
    def check(cls, experiment: Experiment, shape: Shape) -> None:
        super().check(experiment, shape)
        if shape[0] != 3:
            raise ConfigError(
                f"pretext: colorization predicts colours, and '{experiment.dataset}' is grey; "
                "expected rotation, jigsaw or simsiam"
            )

    def build(self) -> nn.Module:
        return self.backbone(2 * GRID * GRID, channels=1)

    def losses(self, images: Tensor, draws: Tensor | None) -> Scores:
        luma, colours = _split(images)
        mean, std = (sum(w * v for w, v in zip(_LUMA, s, strict=True)) for s in (self.data.mean, self.data.std))
        seen = ((luma - mean) / std).contiguous(memory_format=torch.channels_last)
        wanted = F.adaptive_avg_pool2d(colours, GRID).flatten(1) / _UNIT
        losses = (self.network(seen).float() - wanted).square().mean(1)
        return losses, torch.full_like(losses, torch.nan)


def _split(images: Tensor) -> tuple[Tensor, Tensor]:
    """uint8 RGB images (B, 3, H, W) as luma (B, 1, H, W) in 0..1 and colour differences (B, 2, H, W) in ±0.5."""
    # a sum of three planes, not a matrix product: autocast would round that to bfloat16
    values = images.float() / 255
    planes = [sum(values[:, c] * row[c] for c in range(3)) for row in (_LUMA, _CB, _CR)]
    return torch.stack(planes[:1], 1), torch.stack(planes[1:], 1)  # type: ignore[arg-type]
