"""Randomness inside networks, always from an explicit generator."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn


class Stochastic(nn.Module):
    """A layer that draws random numbers: in training, and in evaluation while `sampling`.

    `generator` lives on the layer's device; `set_generator` sets it for a whole model. Drawing without one raises
    `RuntimeError`.
    """

    generator: torch.Generator | None
    sampling: bool

    def __init__(self) -> None:
        super().__init__()
        self.generator = None
        self.sampling = False

    @property
    def drawing(self) -> bool:
        """Whether the layer is random now."""
        return self.training or self.sampling

    def source(self) -> torch.Generator:
        """The generator to draw from."""
        if self.generator is None:
            raise RuntimeError(
                f"{type(self).__name__} draws random numbers: call set_generator(model, generator) first"
            )
        return self.generator

    def reset(self) -> None:
        """Forget what the current posterior sample fixed, so that the next forward pass draws anew."""

    def __getstate__(self) -> dict[str, object]:
        return {**self.__dict__, "generator": None}  # a generator cannot be copied or pickled


class Dropout(Stochastic):
    """Zero each number with probability `p` and divide the others by 1 − p (Srivastava et al., JMLR 2014)."""

    def __init__(self, p: float = 0.5) -> None:
        super().__init__()
        if not 0 <= p < 1:
            raise ValueError(f"p: expected a probability below 1, not {p}")
        self.p = p

    def mask(self, x: Tensor) -> Tensor:
        """A mask of the shape of `x`: 0 with probability p, else 1 / (1 − p)."""
        uniform = torch.rand(x.shape, generator=self.source(), device=x.device)
        return (uniform >= self.p).to(x.dtype) / (1 - self.p)

    def forward(self, x: Tensor) -> Tensor:
        return x * self.mask(x) if self.drawing and self.p > 0 else x

    def extra_repr(self) -> str:
        return f"p={self.p}"


class ConsistentDropout(Dropout):
    """Dropout whose mask, while `sampling`, is drawn once and shared by all images of all batches.

    In training every image has a mask of its own (Kirsch et al., NeurIPS 2019; Farquhar et al., ICLR 2021).
    """

    shared: Tensor | None

    def __init__(self, p: float = 0.5) -> None:
        super().__init__(p)
        self.shared = None

    def reset(self) -> None:
        self.shared = None

    def mask(self, x: Tensor) -> Tensor:
        if self.training or not self.sampling:
            return super().mask(x)
        if self.shared is None:
            self.shared = super().mask(x[:1])
        return self.shared


def is_random(model: nn.Module) -> bool:
    """Whether `model` draws random numbers in training."""
    return any(isinstance(module, Stochastic) and getattr(module, "p", 1.0) > 0 for module in model.modules())


def masks_each_image(model: nn.Module) -> bool:
    """Whether a posterior sample of `model` has a mask of its own for each image, so that batches decide the masks."""
    return any(type(module) is Dropout and module.p > 0 for module in model.modules())


def set_generator(model: nn.Module, generator: torch.Generator | None) -> None:
    """Have every random layer of `model` draw from `generator`, one on the model's device."""
    for module in model.modules():
        if isinstance(module, Stochastic):
            module.generator = generator


@contextmanager
def sampling(model: nn.Module, generator: torch.Generator) -> Iterator[None]:
    """Within: the random layers of `model` draw from `generator` in evaluation mode too, as one posterior sample."""
    layers = [module for module in model.modules() if isinstance(module, Stochastic)]
    before = [(layer.generator, layer.sampling) for layer in layers]
    try:
        for layer in layers:
            layer.generator, layer.sampling = generator, True
            layer.reset()
        yield
    finally:
        for layer, (source, active) in zip(layers, before, strict=True):
            layer.generator, layer.sampling = source, active
            layer.reset()
