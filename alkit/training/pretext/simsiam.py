"""SimSiam: are two random views of an image mapped to the same place? (Chen & He, CVPR 2021.)"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alkit.config import Experiment
from alkit.data import augment
from alkit.data.crop import TRIES
from alkit.data.randomness import generator
from alkit.training.pretext.base import PretextTask, Scores, register

PAIRS = 4
"""Pairs of views that an image's recorded loss is averaged over."""
_COLUMNS = 5 + 2 * TRIES  # brightness, contrast, and a random-resized crop with its flip


class _Siamese(nn.Module):
    """Backbone, projection and prediction: images (B, C, H, W) to projections and predictions, both (B, D)."""

    def __init__(self, backbone: Any) -> None:
        super().__init__()
        width = backbone.feature_dim
        self.backbone = backbone
        self.project = nn.Sequential(
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width), nn.ReLU(inplace=True),
            nn.Linear(width, width, bias=False), nn.BatchNorm1d(width, affine=False),
        )  # fmt: skip
        narrow = max(1, width // 4)
        self.predict = nn.Sequential(
            nn.Linear(width, narrow, bias=False), nn.BatchNorm1d(narrow), nn.ReLU(inplace=True),
            nn.Linear(narrow, width),
        )  # fmt: skip
        backbone.linear.requires_grad_(False)  # the features are used, not the classes

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        projected = self.project(self.backbone.embed(images))
        return projected, self.predict(projected)


@register("simsiam")
class SimSiam(PretextTask):
    """The negative cosine similarity of each view's prediction and the other's projection, which gets no gradient.

    Views are random-resized crops, mirrored by half, with other brightness and contrast. The loss of an image is the
    mean over 4 pairs of views drawn once, the same in every epoch. There is no accuracy, and a collapsed network has
    the lowest loss, so the last epoch is kept.
    """

    measured = False

    @classmethod
    def views_together(cls, experiment: Experiment) -> bool:
        return True

    def build(self) -> nn.Module:
        return _Siamese(self.backbone(1))

    def draw(self, count: int, source: torch.Generator) -> Tensor:
        return torch.rand(count, 2, _COLUMNS, generator=source)

    def losses(self, images: Tensor, draws: Tensor | None) -> Scores:
        assert draws is not None
        seen = torch.cat([view(images, draws[:, which]) for which in range(2)])
        projected, predicted = (values.float() for values in self.network(self.normalised(seen)))
        other = projected.detach().roll(len(images), 0)
        losses = -F.cosine_similarity(predicted, other).view(2, -1).mean(0)
        return losses, torch.full_like(losses, torch.nan)

    def score_losses(self, images: Tensor) -> Scores:
        # the same views for every image: one image's loss then does not depend on which ones stand beside it
        source = generator(self.experiment.seed, "pretext", self.name, "score")
        draws = torch.rand(PAIRS, 1, 2, _COLUMNS, generator=source).to(images.device).expand(-1, len(images), -1, -1)
        losses = torch.stack([self.losses(images, pair)[0] for pair in draws]).mean(0)
        return losses, torch.full_like(losses, torch.nan)


def view(images: Tensor, draws: Tensor) -> Tensor:
    """uint8 images (B, C, H, W), each cropped, mirrored, brightened and stretched as its row of `draws` (B, k) says."""
    cropped = augment.resized_crop_flip(images, draws[:, 2:]).float()
    brightness, contrast = (0.6 + 0.8 * draws[:, column, None, None, None] for column in (0, 1))
    brighter = cropped * brightness
    middle = brighter.mean((1, 2, 3), keepdim=True)
    return ((brighter - middle) * contrast + middle).round().clamp(0, 255).to(torch.uint8)
