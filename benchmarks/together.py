"""Several seeds of one small run trained at once, as one model vectorised over its weights, against one by one."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.func import functional_call, grad, stack_module_state, vmap

from alkit.models import resnet10
from benchmarks.timing import compare

SEEDS, BATCH, SIZE, STEPS = 8, 32, 8, 5


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """One row: forward and backward of 8 seeds of the demo's network, the same arithmetic in one pass or in eight."""
    models = [resnet10(10, in_channels=1, width=16).train() for _ in range(SEEDS)]
    source = torch.Generator().manual_seed(0)
    images = torch.randn(SEEDS, BATCH, 1, SIZE, SIZE, generator=source)
    labels = torch.randint(10, (SEEDS, BATCH), generator=source)
    weights, statistics = stack_module_state(models)  # type: ignore[arg-type]
    model = models[0]

    def loss(own: dict[str, Tensor], running: dict[str, Tensor], x: Tensor, y: Tensor) -> Tensor:
        return F.cross_entropy(functional_call(model, (own, running), (x,)), y)

    gradients = vmap(grad(loss))

    def together() -> None:
        for _ in range(STEPS):
            gradients(weights, statistics, images, labels)

    def in_turn() -> None:
        for _ in range(STEPS):
            for each, x, y in zip(models, images, labels, strict=True):
                F.cross_entropy(each(x), y).backward()
                each.zero_grad(set_to_none=True)

    same = torch.allclose(
        gradients(weights, statistics, images, labels)["linear.weight"][1], _gradient(models[1], images[1], labels[1]),
        rtol=1e-3, atol=1e-5,
    )  # fmt: skip
    result = compare(f"{SEEDS} seeds trained at once", together, "one after another", in_turn, repetitions)
    return [result.row() | {"same_answer": same}]


def _gradient(model: Any, images: Tensor, labels: Tensor) -> Tensor:
    F.cross_entropy(model(images), labels).backward()
    gradient: Tensor = model.linear.weight.grad.clone()
    model.zero_grad(set_to_none=True)
    return gradient
