"""The trivial baseline: an image's pixels themselves."""

from __future__ import annotations

from torch import Tensor

from alkit.training.encoders.base import Encoder, register


@register("pixels")
class PixelEncoder(Encoder):
    """Pixels in 0..1, (B, C·H·W): what any encoder must be better than."""

    def embed(self, images: Tensor) -> Tensor:
        return images.flatten(1).float() / 255
