"""`timm:NAME`: a network of timm, the collection of pretrained image networks (an optional package)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from alkit.errors import ConfigError, DataError
from alkit.training.encoders.base import IMAGENET, Encoder, as_colour, register


@register("timm")
class TimmEncoder(Encoder):
    """The network's pooled features, at its own image size and statistics. Weights from its hub, or from a file."""

    takes = ("image_size",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        try:
            import timm  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError("encoder: timm is not installed; pip install timm") from None
        try:
            self.network = timm.create_model(self.model, pretrained=self.weights is None, num_classes=0)
            if self.weights is not None:
                known = set(self.network.state_dict())
                state = torch.load(self.weights, map_location="cpu", weights_only=True)
                self.network.load_state_dict({k: v for k, v in state.items() if k in known})
        except Exception as error:  # the network, a hub, a file of something else
            lines = str(error).splitlines() or [type(error).__name__]
            raise DataError(f"weights: timm's {self.model or 'model'} could not be had ({lines[0][:200]}); --weights "
                            "FILE takes a state_dict that is here") from None  # fmt: skip
        self.network.eval()
        config = getattr(self.network, "pretrained_cfg", None) or {}
        self.own_size = int(config.get("input_size", (3, 224, 224))[-1])
        self.statistics = (tuple(config.get("mean", IMAGENET[0])), tuple(config.get("std", IMAGENET[1])))

    def embed(self, images: Tensor) -> Tensor:
        rows: Tensor = self.network.to(self.device)(as_colour(images, self.size(self.own_size), *self.statistics))
        return rows

    @property
    def about(self) -> dict[str, Any]:
        return {"image_size": self.size(self.own_size), "weights": "file" if self.weights else "timm pretrained"}
