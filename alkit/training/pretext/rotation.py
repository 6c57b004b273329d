"""Rotation: by how much was the image turned? (Gidaris et al., ICLR 2018; PT4AL's pretext task.)"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.config import Experiment
from alkit.training.pretext.base import Scores, Shape, register, square
from alkit.training.pretext.views import WhichView


@register("rotation")
class Rotation(WhichView):
    """Turned by 0°, 90°, 180° and 270°, counter-clockwise.

    Under the quirk `rotation_four_passes` a training step passes four batches one after another, as PT4AL's program
    does: each holds every image once, turned by another angle, in an order drawn for each image.
    """

    @classmethod
    def check(cls, experiment: Experiment, shape: Shape) -> None:
        super().check(experiment, shape)
        square(shape, "rotation")

    @classmethod
    def views_together(cls, experiment: Experiment) -> bool:
        return not experiment.quirk("rotation_four_passes")

    def views(self, images: Tensor) -> Tensor:
        return torch.stack([torch.rot90(images, turns, (2, 3)) for turns in range(self.count)])

    def draw(self, count: int, source: torch.Generator) -> Tensor | None:
        """Numbers (count, 4) whose order is that of an image's four views; None where they pass together."""
        if not self.experiment.quirk("rotation_four_passes"):
            return None
        return torch.rand(count, self.count, generator=source)

    def losses(self, images: Tensor, draws: Tensor | None) -> Scores:
        if draws is None:
            return super().losses(images, None)
        seen, own = self.views(images), torch.arange(len(images), device=images.device)
        losses, correct = torch.zeros(2, len(images), device=images.device)
        for turns in draws.argsort(dim=1).T:
            logits = self.network(self.normalised(seen[turns, own])).float()
            losses = losses + F.cross_entropy(logits, turns, reduction="none") / self.count
            correct = correct + (logits.argmax(1) == turns) / self.count
        return losses, correct
