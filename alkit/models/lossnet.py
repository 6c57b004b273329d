"""LossNet: a small module beside the backbone that predicts each image's loss (Yoo & Kweon, CVPR 2019)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

CORNER = (32, 16, 8, 4)
"""The windows of the released module: whole maps of 32×32 images, a corner of larger ones."""


class LossNet(nn.Module):
    """The four stages' maps (B, channels[i], h_i, w_i) to predicted losses (B,).

    Each map is averaged over its area and passes a linear layer to `hidden` and a ReLU; the four are joined and pass a
    linear layer to one number, which only ranks: it is not on the scale of a loss. With `windows`, one number a stage,
    only a map's first window of so many pixels a side is averaged (quirk `imagenet_corner_pool`: `CORNER`).
    """

    def __init__(self, channels: Sequence[int], hidden: int = 128, windows: Sequence[int] | None = None) -> None:
        super().__init__()
        self.windows = [None] * len(channels) if windows is None else list(windows)
        if not channels:
            raise ValueError("channels: expected one number a stage")
        self.branches = nn.ModuleList(nn.Linear(count, hidden) for count in channels)
        self.linear = nn.Linear(len(channels) * hidden, 1)

    def forward(self, maps: Sequence[Tensor]) -> Tensor:
        if len(maps) != len(self.branches):
            raise ValueError(f"expected {len(self.branches)} stages' maps, not {len(maps)}")
        parts = [stage[:, :, :side, :side] for side, stage in zip(self.windows, maps, strict=True)]
        joined = [F.relu(branch(part.mean((2, 3)))) for branch, part in zip(self.branches, parts, strict=True)]
        predicted: Tensor = self.linear(torch.cat(joined, 1)).squeeze(1)
        return predicted
