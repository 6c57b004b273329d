"""Backbones, the networks that some methods train beside them, and the recorded step that trains any of them.

Comes in: sizes and a generator. Goes out: modules of torch. They know neither data sets nor methods.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from importlib import import_module
from typing import TYPE_CHECKING, Any, TypeVar

import torch
from torch import nn

from alkit.config import Experiment
from alkit.errors import ConfigError
from alkit.models.resnet import ResNet, last_map, resnet10, resnet18

if TYPE_CHECKING:
    from alkit.data import Facts
    from alkit.models.graph import GCN
    from alkit.models.lossnet import LossNet
    from alkit.models.vaal import VAE, Discriminator

__all__ = [
    "GCN",
    "VAE",
    "Discriminator",
    "LossNet",
    "Network",
    "ResNet",
    "build_network",
    "check_network",
    "check_single",
    "feature_width",
    "resnet10",
    "resnet18",
    "seeded",
]

_HOMES = {"GCN": "graph", "LossNet": "lossnet", "VAE": "vaal", "Discriminator": "vaal"}
Model = TypeVar("Model", bound=nn.Module)


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(import_module(f"alkit.models.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'alkit.models' has no attribute '{name}'")


def seeded(make: Callable[[], Model], generator: torch.Generator) -> Model:
    """`make()` with initial weights that depend on `generator` (on the CPU) alone; no global state is changed."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
        return make()


class Network(nn.Module):
    """What a cycle trains: the backbone, and the loss module where the method has one."""

    def __init__(self, backbone: nn.Module, loss_module: nn.Module | None = None) -> None:
        super().__init__()
        self.backbone = backbone
        self.loss_module = loss_module

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.backbone(images)
        return logits


def build_backbone(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> nn.Module:
    """The experiment's backbone for images (C, H, W); weights from torch's global generator (see `seeded`)."""
    channels = image_shape[0]
    if experiment.model in ("resnet18", "resnet10"):
        make: Any = resnet18 if experiment.model == "resnet18" else resnet10
        dropout = experiment.dropout if experiment.dropout is not None else 0.5 * ("posterior" in experiment.row.needs)
        pooling = "corner" if experiment.quirk("imagenet_corner_pool") else "global"
        return make(num_classes, channels, experiment.width, experiment.stem, dropout, pooling)  # type: ignore[no-any-return]
    if experiment.on_features:
        from alkit.models.head import Head

        dropout = experiment.dropout if experiment.dropout is not None else 0.5 * ("posterior" in experiment.row.needs)
        return Head(num_classes, channels, experiment.width if experiment.model == "mlp" else 0, dropout)
    from alkit.models import bayesian

    return bayesian.build(experiment, image_shape, num_classes)


def check_network(experiment: Experiment, facts: Facts) -> None:
    """Raise `ConfigError` where the model cannot be had for these images, or trained in batches of one."""
    if experiment.model.startswith("resnet"):
        if experiment.batch_size == 1:
            check_single("batch_size", experiment, facts.shape)
    elif not experiment.on_features:
        from alkit.models import bayesian

        bayesian.check(experiment, facts.shape)


def check_single(name: str, experiment: Experiment, image_shape: tuple[int, int, int]) -> None:
    """Raise `ConfigError` about the parameter `name`, a batch of 1, where batch-norm would have one number a channel.

    With one number there is no deviation to divide by.
    """
    if experiment.model.startswith("resnet") and math.prod(last_map(image_shape, experiment.stem)) == 1:
        raise ConfigError(
            f"{name}: 1 image of {image_shape[1]}×{image_shape[2]} pixels gives batch-norm one number a channel; "
            "expected at least 2"
        )


def feature_width(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> int:
    """Penultimate features of the experiment's backbone."""
    with torch.device("meta"):
        return int(build_backbone(experiment, image_shape, num_classes).feature_dim)  # type: ignore[arg-type]


def build_network(
    experiment: Experiment,
    image_shape: tuple[int, int, int],
    num_classes: int,
    generator: torch.Generator,
    with_loss_module: bool = False,
) -> Network:
    """A fresh network for the experiment, on the CPU, its weights drawn from `generator` alone."""

    def make() -> Network:
        backbone: Any = build_backbone(experiment, image_shape, num_classes)
        if not with_loss_module:
            return Network(backbone)
        from alkit.models.lossnet import CORNER, LossNet

        windows = CORNER if experiment.quirk("imagenet_corner_pool") else None
        return Network(backbone, LossNet(backbone.stage_channels, windows=windows))

    return seeded(make, generator)
