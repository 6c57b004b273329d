"""Residual networks with the parts that active learning asks for: features, stages, and a place to mix.

The names of the weights are those of the papers' released checkpoints.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch.nn.functional as F
from torch import Tensor, nn

from alkit.models.dropout import Dropout

Stem = Literal["cifar", "imagenet"]
Pooling = Literal["global", "corner"]


class Pointwise(nn.Conv2d):
    """A 1×1 convolution with a stride, as one without a stride on the pixels it looks at."""

    def forward(self, x: Tensor) -> Tensor:
        # oneDNN (uxlfoundation/oneDNN 6035): with fewer than 16 channels, channels last, a stride makes its backward
        # pass write past its workspace
        if x.device.type == "cpu" and self.in_channels < 16:
            return F.conv2d(x[:, :, :: self.stride[0], :: self.stride[1]], self.weight)
        return super().forward(x)


class BasicBlock(nn.Module):
    """Two 3×3 convolutions beside a shortcut (He et al., CVPR 2016)."""

    def __init__(self, in_channels: int, channels: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(in_channels, channels, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.shortcut = nn.Sequential()
        if stride != 1 or in_channels != channels:
            self.shortcut = nn.Sequential(
                Pointwise(in_channels, channels, 1, stride, bias=False), nn.BatchNorm2d(channels)
            )

    def forward(self, x: Tensor) -> Tensor:
        out = F.relu(self.bn1(self.conv1(x)), inplace=True)
        return F.relu(self.bn2(self.conv2(out)) + self.shortcut(x), inplace=True)


class ResNet(nn.Module):
    """Stem, four stages of basic blocks, pooling, linear. Images (B, C, H, W) to logits (B, num_classes).

    `pooling="corner"` is the quirk `imagenet_corner_pool`: a 4×4 average of the last map's corner.
    """

    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential
    layer4: nn.Sequential

    def __init__(
        self,
        num_classes: int,
        in_channels: int = 3,
        width: int = 64,
        stem: Stem = "cifar",
        blocks: Sequence[int] = (2, 2, 2, 2),
        dropout: float = 0.0,
        pooling: Pooling = "global",
    ) -> None:
        super().__init__()
        self.stage_channels = [width * 2**stage for stage in range(4)]
        self.feature_dim = self.stage_channels[-1]
        self.pooling = pooling
        if stem == "imagenet":
            self.conv1 = nn.Conv2d(in_channels, width, 7, 2, 3, bias=False)
            self.pool: nn.Module = nn.MaxPool2d(3, 2, 1)
        else:
            self.conv1 = nn.Conv2d(in_channels, width, 3, 1, 1, bias=False)
            self.pool = nn.Identity()
        self.bn1 = nn.BatchNorm2d(width)
        channels = width
        for stage, (count, out) in enumerate(zip(blocks, self.stage_channels, strict=True)):
            layers = []
            for block in range(count):
                layers.append(BasicBlock(channels, out, 2 if stage and not block else 1))
                channels = out
            setattr(self, f"layer{stage + 1}", nn.Sequential(*layers))
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(channels, num_classes)

    def stem(self, x: Tensor) -> Tensor:
        """Images to the input of the first stage."""
        out: Tensor = self.pool(F.relu(self.bn1(self.conv1(x)), inplace=True))
        return out

    def lower(self, x: Tensor, layer: int) -> Tensor:
        """Stem and stages 1..`layer`; the images themselves for layer 0."""
        if layer == 0:
            return x
        x = self.stem(x)
        for stage in range(1, layer + 1):
            x = getattr(self, f"layer{stage}")(x)
        return x

    def upper(self, h: Tensor, layer: int) -> Tensor:
        """From the output of stage `layer` (the images for 0) to logits (B, num_classes)."""
        if layer == 0:
            h = self.stem(h)
        for stage in range(layer + 1, 5):
            h = getattr(self, f"layer{stage}")(h)
        return self.classify(self.flatten(h))

    def flatten(self, h: Tensor) -> Tensor:
        """The last map (B, D, h, w) to penultimate features (B, D)."""
        if self.pooling == "corner" and min(h.shape[2:]) >= 4:
            return F.avg_pool2d(h, 4)[:, :, 0, 0]
        return h.mean((2, 3))

    def classify(self, features: Tensor) -> Tensor:
        """Penultimate features (B, D) to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits

    def stages(self, x: Tensor) -> tuple[Tensor, Tensor, list[Tensor]]:
        """Logits (B, num_classes), features (B, D) and the four stages' maps."""
        h = self.stem(x)
        maps = []
        for stage in range(1, 5):
            h = getattr(self, f"layer{stage}")(h)
            maps.append(h)
        features = self.flatten(h)
        return self.classify(features), features, maps

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate features (B, D)."""
        return self.stages(x)[1]

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(x, 0)


def last_map(image_shape: tuple[int, int, int], stem: Stem = "cifar") -> tuple[int, int]:
    """(height, width) of the last stage's map for images (C, H, W): every halving rounds up."""
    halvings = 5 if stem == "imagenet" else 3
    height, width = (-(-side // 2**halvings) for side in image_shape[1:])
    return height, width


def resnet18(
    num_classes: int,
    in_channels: int = 3,
    width: int = 64,
    stem: Stem = "cifar",
    dropout: float = 0.0,
    pooling: Pooling = "global",
) -> ResNet:
    """ResNet-18: two blocks a stage; the papers' backbone at width 64."""
    return ResNet(num_classes, in_channels, width, stem, (2, 2, 2, 2), dropout, pooling)


def resnet10(
    num_classes: int,
    in_channels: int = 3,
    width: int = 16,
    stem: Stem = "cifar",
    dropout: float = 0.0,
    pooling: Pooling = "global",
) -> ResNet:
    """One block a stage: the small variant of the demo and the scaled protocols."""
    return ResNet(num_classes, in_channels, width, stem, (1, 1, 1, 1), dropout, pooling)
