"""ALFA-Mix: what changes its class when mixed a little with a labelled class (Parvaneh et al., CVPR 2022)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import check_features
from alkit.strategies.dropquery import fill_up, nearest_to_centres

STRENGTH = 0.2  # ε·√D
NUMBERS = 1 << 23  # of mixed features that are alive at once


def anchors(labelled_features: Tensor, labels: Tensor, num_classes: int) -> tuple[Tensor, Tensor]:
    """The mean feature of each class that has labels, (c, D), and those classes (c,), from features (m, D)."""
    labels = labels.to(labelled_features.device)
    member = (labels[:, None] == torch.arange(num_classes, device=labels.device)).to(labelled_features.dtype)
    classes = (member.sum(0) > 0).nonzero().flatten()
    return (member.T @ labelled_features)[classes] / member.sum(0)[classes, None], classes


def loss_gradient(features: Tensor, classify: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor]:
    """The gradient (n, D) of each row's cross-entropy with its own predicted class, and that class (n,)."""
    with torch.enable_grad():
        leaf = features.detach().requires_grad_()
        logits = classify(leaf)
        own = logits.argmax(1)
        loss = torch.nn.functional.cross_entropy(logits, own, reduction="sum")
        (gradient,) = torch.autograd.grad(loss, leaf)
    return gradient, own


@torch.no_grad()
def flips(
    features: Tensor, centres: Tensor, classify: Callable[[Tensor], Tensor], strength: float = STRENGTH
) -> Tensor:
    """With how many of the anchors `centres` (c, D) features (n, D) change their class, (n,) int64.

    For an anchor a: α = ε·‖a − z‖·g/‖g‖ ⊘ (a − z), elementwise, ε = strength/√D, and the class is that of
    α⊙a + (1 − α)⊙z = z + ε·‖a − z‖·g/‖g‖. Where a feature of a and z is the same, nothing of it is mixed.
    """
    check_features(features, centres)
    epsilon = strength / features.shape[1] ** 0.5
    counts = []
    for z in features.split(max(NUMBERS // max(features.shape[1] * max(len(centres), 1), 1), 1)):
        gradient, own = loss_gradient(z, classify)
        direction = gradient / gradient.norm(dim=1, keepdim=True).clamp_min(torch.finfo(z.dtype).tiny)
        between = centres[:, None] - z  # (c, k, D)
        step = epsilon * between.norm(dim=2, keepdim=True) * direction
        mixed = z + step.masked_fill_(between == 0, 0)
        found = classify(mixed.flatten(0, 1)).argmax(1).view(len(centres), len(z))
        counts.append((found != own).sum(0))
    return torch.cat(counts)


@torch.no_grad()
def alfa_mix(
    features: Tensor,
    classify: Callable[[Tensor], Tensor],
    labelled_features: Tensor,
    labels: Tensor,
    num_classes: int,
    budget: int,
    generator: torch.Generator,
    strength: float = STRENGTH,
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) int64 into `features` (n, D), and with how many anchors each candidate flips, (n,).

    An anchor is the mean of the `labelled_features` (m, D) of one class of `labels` (m,); `classify` is the last layer,
    (·, D) → (·, C). Candidates that flip with any anchor (`flips`) are clustered by k-means into `budget` clusters,
    and of each the member nearest its centre is asked for, the largest cluster first; too few are filled up at random.
    Raises `ValueError` for features that are not finite and a budget outside 0..n. Parvaneh et al., CVPR 2022.
    """
    count = len(features)
    if not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates, not {budget}")
    check_features(features, labelled_features)
    flipped = flips(features, anchors(labelled_features, labels, num_classes)[0], classify, strength)
    unsure = (flipped > 0).nonzero().flatten()
    picks = unsure[:0]
    if budget and len(unsure):
        picks = unsure[nearest_to_centres(features[unsure], budget, generator)][:budget]
    return fill_up(picks, torch.zeros_like(flipped), budget, generator), flipped


@register("alfa_mix")
class AlfaMix(Strategy):
    """The flipping ones, one a cluster. A candidate's utility is with how many classes it flips."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        positions, flipped = alfa_mix(
            pool.model_features, pool.classify, pool.labelled_model_features, pool.labels, pool.num_classes, budget,
            generator, self.experiment.alfa_strength,
        )  # fmt: skip
        return Query(pool.candidates[positions.to(pool.candidates.device)], flipped.float())
