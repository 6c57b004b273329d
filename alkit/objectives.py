"""What a batch is trained on.

The functions are the definitions; `OBJECTIVES` names them for the methods table. All random numbers of an epoch are
drawn at once (`draw_lambdas`, `draw_partners`), so a step neither draws nor reads anything back from the device.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alkit.config import Experiment


def cross_entropy(model: nn.Module, images: Tensor, labels: Tensor) -> Tensor:
    """Mean cross-entropy of images (B, C, H, W) with labels (B,)."""
    return F.cross_entropy(model(images).float(), labels)


def mixed_cross_entropy(logits: Tensor, labels: Tensor, partners: Tensor, weight: Tensor | float) -> Tensor:
    """weight·CE(labels) + (1 − weight)·CE(partners), mean over the batch; logits (B, C), labels and partners (B,)."""
    log_probs = F.log_softmax(logits.float(), dim=1)
    own = log_probs.gather(1, labels[:, None])
    other = log_probs.gather(1, partners[:, None])
    return -(weight * own + (1 - weight) * other).mean()


def mixup(model: nn.Module, images: Tensor, labels: Tensor, lam: Tensor | float, permutation: Tensor) -> Tensor:
    """Cross-entropy of λx + (1−λ)x[π] against both labels (Zhang et al., ICLR 2018). `lam` is a scalar."""
    mixed = lam * images + (1 - lam) * images[permutation]
    return mixed_cross_entropy(model(mixed), labels, labels[permutation], lam)


def cmam(
    model: Any,
    images: Tensor,
    labels: Tensor,
    lam1: Tensor | float,
    lam2: Tensor | float,
    permutation: Tensor,
    layer: int,
    involution: bool = False,
) -> Tensor:
    """Cross-Mix-and-Mix (OO4AL): mix two images both ways, then fuse the two mixtures' features.

    Images (B, C, H, W), labels and π (B,), λ scalars; the mean loss of the batch in nats.
    x1 = λ1·x + (1−λ1)·x[π] and x2 = (1−λ1)·x + λ1·x[π] pass stages 1..layer as two batches; their features are fused
    as λ2·h1 + (1−λ2)·h2 and pass the remaining stages once. Layer 0 fuses the images. The label x[π] weighs what is
    left of λ1λ2 + (1−λ1)(1−λ2), so two cross-entropies serve for the paper's four.

    `involution` promises that π is its own inverse: then x2 = x1[π], and the lower stages run once.
    """
    mixed = lam1 * images + (1 - lam1) * images[permutation]
    first = model.lower(mixed, layer)
    second = first[permutation] if involution else model.lower((1 - lam1) * images + lam1 * images[permutation], layer)
    fused = lam2 * first + (1 - lam2) * second
    own_weight = lam1 * lam2 + (1 - lam1) * (1 - lam2)
    return mixed_cross_entropy(model.upper(fused, layer), labels, labels[permutation], own_weight)


def ranking_loss(predicted: Tensor, target: Tensor, margin: float = 1.0, bce: bool = False) -> Tensor:
    """How often, and by how much, `predicted` (B,) orders pairs otherwise than `target` (B,) (Yoo & Kweon, CVPR 2019).

    The first is paired with the last, the second with the last but one, …; an odd batch leaves its middle image out.
    Mean over pairs of max(0, margin − sign·(ℓ̂_i − ℓ̂_j)), sign +1 where target_i > target_j, else −1. 0 without a pair.

    `bce` is the quirk `ranking_bce`: the mean binary cross-entropy of sigmoid(ℓ̂_i − ℓ̂_j), 1 where target_i > target_j,
    else 0.
    """
    half = len(predicted) // 2
    if half == 0:
        return predicted.sum() * 0.0
    difference = predicted[:half] - predicted.flip(0)[:half]
    higher = target[:half] > target.flip(0)[:half]
    if bce:
        return F.binary_cross_entropy_with_logits(difference, higher.to(difference.dtype))
    sign = torch.where(higher, 1.0, -1.0)
    return (margin - sign * difference).clamp_min(0).mean()


def loss_prediction(
    model: Any,
    loss_module: nn.Module,
    images: Tensor,
    labels: Tensor,
    weight: float = 1.0,
    margin: float = 1.0,
    detach: bool = False,
    bce: bool = False,
) -> Tensor:
    """LL4AL: mean cross-entropy + weight × ranking loss of the predicted losses, whose target is detached.

    Images (B, C, H, W), labels (B,). Yoo & Kweon, CVPR 2019.
    With `detach` the module sees detached maps, and no longer shapes the backbone; for `bce` see `ranking_loss`.
    """
    logits, _, maps = model.stages(images)
    losses = F.cross_entropy(logits.float(), labels, reduction="none")
    if detach:
        maps = [stage.detach() for stage in maps]
    predicted = loss_module(maps).float()
    return losses.mean() + weight * ranking_loss(predicted, losses.detach(), margin, bce)


def weighted(model: nn.Module, images: Tensor, labels: Tensor, weights: Tensor, mean_reduced: bool = False) -> Tensor:
    """Mean of weights (B,) × each image's own cross-entropy (Farquhar et al., ICLR 2021).

    `mean_reduced` is the quirk `mean_reduced_weights`: the weights multiply an already averaged loss.
    """
    losses = F.cross_entropy(model(images).float(), labels, reduction="none")
    return (weights * losses.mean()).mean() if mean_reduced else (weights * losses).mean()


# --- what the training loop calls ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Batch:
    """One step's input: images (B, C, H, W), labels (B,), weights (B,), and this step's row of the epoch's draws."""

    images: Tensor
    labels: Tensor
    weights: Tensor
    lam: Tensor  # (2,)
    permutation: Tensor  # (B,)
    detach: bool
    dataset_size: int


Loss = Callable[[Experiment, Any, Batch], Tensor]


def _elbo(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    """What a radial network is trained on, whether its losses are weighted or not (the weights are then 1)."""
    from alkit.models.bayesian import elbo

    return elbo(
        network.backbone, batch.images, batch.labels, batch.weights, experiment.training_samples, None,
        batch.dataset_size, experiment.quirk("mean_reduced_weights"),
    )  # fmt: skip


def _cross_entropy(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    if experiment.model == "radial_cnn":
        return _elbo(experiment, network, batch)
    return cross_entropy(network.backbone, batch.images, batch.labels)


def _mixup(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    return mixup(network.backbone, batch.images, batch.labels, batch.lam[0], batch.permutation)


def _cmam(experiment: Experiment, network: Any, batch: Batch, layer: int | None = None) -> Tensor:
    return cmam(
        network.backbone, batch.images, batch.labels, batch.lam[0], batch.lam[1], batch.permutation,
        experiment.cmam_layer if layer is None else layer, experiment.cmam_pairing == "involution",
    )  # fmt: skip


def _cmam_input(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    return _cmam(experiment, network, batch, layer=0)


def _loss_prediction(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    return loss_prediction(
        network.backbone, network.loss_module, batch.images, batch.labels,
        experiment.ll_weight, experiment.ll_margin, batch.detach, experiment.quirk("ranking_bce"),
    )  # fmt: skip


def _weighted(experiment: Experiment, network: Any, batch: Batch) -> Tensor:
    if experiment.model == "radial_cnn":
        return _elbo(experiment, network, batch)
    return weighted(
        network.backbone, batch.images, batch.labels, batch.weights, experiment.quirk("mean_reduced_weights")
    )


OBJECTIVES: dict[str, Loss] = {
    "cross_entropy": _cross_entropy,
    "mixup": _mixup,
    "cmam": _cmam,
    "cmam_input": _cmam_input,
    "loss_prediction": _loss_prediction,
    "weighted": _weighted,
}

MIXING = {"mixup", "cmam", "cmam_input"}


def objective_of(experiment: Experiment) -> str:
    """The objective's name: the method's, or loss prediction where the quirk `ranking_loss_for_all` asks for it."""
    return "loss_prediction" if experiment.quirk("ranking_loss_for_all") else experiment.row.objective


def draw_lambdas(alpha: float, count: int, generator: torch.Generator) -> Tensor:
    """`count` pairs of independent Beta(alpha, alpha) numbers, (count, 2) float32, by inversion of uniform ones."""
    from scipy.special import betaincinv  # half a second, and most methods draw none

    uniform = torch.rand(count, 2, generator=generator, dtype=torch.float64).numpy()
    return torch.from_numpy(np.asarray(betaincinv(alpha, alpha, uniform))).float()


def draw_partners(size: int, pairing: str, generator: torch.Generator) -> Tensor:
    """A random permutation of `size` images, (size,) int64; for `involution` one that is its own inverse.

    Under either, an image's partner is any of the `size` images, itself among them, with the same probability: an
    involution leaves one image of an odd batch alone, and as often two as none of an even one.
    """
    order = torch.randperm(size, generator=generator)
    if pairing == "permutation":
        return order
    alone = 1 if size % 2 else 2 * int(torch.randint(2, (1,), generator=generator))
    one, other = order[: size - alone].view(2, -1)
    partners = torch.arange(size)
    partners[one], partners[other] = other, one
    return partners
