"""Tasks that show an image in four ways and ask which one it is."""

from __future__ import annotations

from abc import abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alkit.config import Experiment
from alkit.training.pretext.base import PretextTask, Scores


class WhichView(PretextTask):
    """The loss of an image is the mean cross-entropy over its views; a batch holds all views of its images.

    `views` of images (B, C, H, W) are (V, B, C, H, W), and the v-th one's class is v.
    """

    count = 4

    @classmethod
    def views_together(cls, experiment: Experiment) -> bool:
        return True

    @abstractmethod
    def views(self, images: Tensor) -> Tensor:
        """All views (V, B, C, H', W') of images (B, C, H, W) of any type."""

    def build(self) -> nn.Module:
        return self.backbone(self.count)

    def losses(self, images: Tensor, draws: Tensor | None) -> Scores:
        seen = self.views(images).flatten(0, 1)
        which = torch.arange(self.count, device=images.device).repeat_interleave(len(images))
        logits = self.network(self.normalised(seen)).float()
        losses = F.cross_entropy(logits, which, reduction="none").view(self.count, -1)
        correct = (logits.argmax(1) == which).float().view(self.count, -1)
        return losses.mean(0), correct.mean(0)
