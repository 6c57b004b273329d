"""`torchvision:NAME`: a network of torchvision with its ImageNet weights, without its last layer."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from alkit.errors import ConfigError, DataError, nearest
from alkit.training.encoders.base import IMAGENET, Encoder, as_colour, register


@register("torchvision")
class TorchvisionEncoder(Encoder):
    """The input of the network's last linear layer. Weights from torchvision's hub, or from a file (`--weights`)."""

    takes = ("image_size",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        from torchvision import models

        known = models.list_models(module=models)
        if self.model not in known:
            raise ConfigError(f"encoder: torchvision has no model '{self.model}'{nearest(self.model, known)}; expected "
                              "e.g. torchvision:resnet18")  # fmt: skip
        try:
            network = models.get_model(self.model, weights=None if self.weights else "DEFAULT")
            if self.weights is not None:
                network.load_state_dict(torch.load(self.weights, map_location="cpu", weights_only=True))
        except Exception as error:  # the network, a hub, a file of something else
            lines = str(error).splitlines() or [type(error).__name__]
            raise DataError(f"weights: torchvision's {self.model} could not be had ({lines[0][:200]}); --weights FILE "
                            "takes a state_dict that is here") from None  # fmt: skip
        self.network = without_last(network).eval()

    def embed(self, images: Tensor) -> Tensor:
        rows: Tensor = self.network.to(self.device)(as_colour(images, self.size(224), *IMAGENET))
        return rows.flatten(1)

    @property
    def about(self) -> dict[str, Any]:
        return {"image_size": self.size(224), "weights": "file" if self.weights else "torchvision DEFAULT"}


def without_last(network: nn.Module) -> nn.Module:
    """The network with its last linear layer, wherever it is, replaced by nothing."""
    name, _ = [(name, layer) for name, layer in network.named_modules() if isinstance(layer, nn.Linear)][-1]
    holder, _, last = name.rpartition(".")
    setattr(network.get_submodule(holder), last, nn.Identity())
    return network
