"""Made-up images and pools for tests: small, of any shape, and as degenerate as one likes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from alkit.data import ImageSet, from_arrays
from alkit.data.identity import Sha256, sha256_of
from alkit.strategies import TensorPool


def made_images(count: int, shape: tuple[int, int, int], classes: int, seed: int = 0) -> ImageSet:
    """Noise whose brightness tells the class."""
    source = np.random.default_rng(seed)
    labels = np.arange(count) % classes
    images = source.integers(0, 100, (count, *shape)) + (labels * 150 // classes)[:, None, None, None]
    return from_arrays("made_up", images.astype(np.uint8), labels, [f"class {c}" for c in range(classes)])


def made_pool(
    candidates: int = 12, labelled: int = 6, classes: int = 3, seed: int = 0, scale: float = 1.0, cycle: int = 1
) -> TensorPool:
    """A pool of tensors; `scale` 0 makes every image look the same to the model, 1e38 saturates it."""
    source = torch.Generator().manual_seed(seed)
    order = torch.randperm(candidates + labelled, generator=source)
    images = made_images(candidates + labelled, (1, 8, 8), classes)

    def numbers(*shape: int) -> Tensor:
        if scale > 1:
            return (torch.randint(-1, 2, shape, generator=source) * scale).float()
        return torch.randn(*shape, generator=source) * scale

    weight = torch.randn(8, classes, generator=torch.Generator().manual_seed(seed + 1))
    model = [torch.randn(count, 8, generator=source).abs() for count in (candidates, labelled)]
    classes_of_labelled = images.labels[order[candidates:]] % 8
    model[1] += torch.nn.functional.one_hot(classes_of_labelled, 8)  # a last layer can learn from it
    pool = TensorPool(
        order[:candidates].sort().values, order[candidates:], images.labels[order[candidates:]], classes, cycle,
        lambda index: int(images.labels[index]),
        logits=numbers(candidates, classes), log_probs=numbers(4, candidates, classes).log_softmax(2),
        predicted_loss=numbers(candidates), labelled_predicted_loss=numbers(labelled),
        features=torch.randn(candidates, 8, generator=source).abs() * min(scale, 1),
        labelled_features=torch.randn(labelled, 8, generator=source).abs() * min(scale, 1), images=images,
        model_features=model[0] * min(scale, 1), labelled_model_features=model[1] * min(scale, 1),
        labelled_logits=numbers(labelled, classes),
        weight=weight, classify=lambda features: features @ pool._get("weight"),
    )  # fmt: skip
    return pool


def make_known(
    patch: pytest.MonkeyPatch, known: dict[str, Sha256], **parts: tuple[np.ndarray[Any, Any], np.ndarray[Any, Any]]
) -> None:
    """Let a named set be known by these made-up pixels (N, H, W, C) and labels, part by part, during a test."""
    for part, (pixels, labels) in parts.items():
        patch.setitem(known, part, Sha256(sha256_of(pixels), sha256_of(labels)))
