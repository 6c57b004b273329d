"""BADGE: k-means++ on the gradients of the last layer (Ash et al., ICLR 2020)."""

from __future__ import annotations

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import check_features


def gradient_factors(logits: Tensor, features: Tensor) -> tuple[Tensor, Tensor]:
    """Factors r (n, C) and x (n, D) of the gradient embeddings g = r ⊗ x (n, C·D), for logits (n, C).

    g is the gradient of the cross-entropy with the predicted class ŷ as the label: r = softmax(logits) − e_ŷ.
    x is `features`, all divided by one number, so that no square overflows.
    Raises `ValueError` for logits or features that are not finite.
    """
    check_features(logits)
    check_features(features)
    x = features.to(torch.promote_types(features.dtype, torch.float32))
    largest = x.abs().amax() if x.numel() else x.new_zeros(())
    if not 1e-6 < float(largest) < 1e6:
        x = x / largest.clamp_min(torch.finfo(x.dtype).tiny)
    r = logits.to(x.device, torch.float64).softmax(1)
    r.scatter_add_(1, logits.argmax(1, keepdim=True).to(r.device), -torch.ones_like(r[:, :1]))
    return r.to(x.dtype), x


@torch.no_grad()
def badge(logits: Tensor, features: Tensor, budget: int, generator: torch.Generator) -> Tensor:
    """Positions (budget,) int64, in query order, for logits (n, C) and features (n, D), by k-means++ on g = r ⊗ x.

    The first is the embedding of largest norm; each next one is drawn with probability ∝ its squared distance to the
    nearest one drawn, and where all those are 0 the lowest position is taken. ‖g − g'‖² = ‖r‖²‖x‖² + ‖r'‖²‖x'‖² −
    2(r·r')(x·x'), so the (n, C·D) embeddings are never formed: memory is linear in n. `generator` is on the CPU.
    Raises `ValueError` for values that are not finite and a budget outside 0..n. Ash et al., ICLR 2020.
    """
    if len(logits) != len(features) or not 0 <= budget <= len(features):
        raise ValueError(f"budget: expected 0 to {len(features)} candidates with as many logits, not {budget}")
    r, x = gradient_factors(logits, features)
    source = torch.Generator(x.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    norms = r.square().sum(1) * x.square().sum(1)
    noise = 64 * torch.finfo(x.dtype).eps
    nearest, key = torch.full_like(norms, torch.inf), norms
    chosen: list[Tensor] = []
    while len(chosen) < budget:
        pick = key.argmax()[None]
        chosen.append(pick)
        inner = (r @ r[pick][0]) * (x @ x[pick][0])
        total = norms + norms[pick]
        distance = total - 2 * inner
        nearest = torch.minimum(nearest, torch.where(distance <= noise * total, 0, distance))
        nearest.index_fill_(0, pick, -1)
        race = torch.empty_like(nearest).exponential_(generator=source)  # the largest weight/Exp(1) is a draw ∝ weight
        key = torch.where(nearest > 0, nearest / race, nearest)
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64, device=x.device)


@register("badge")
class Badge(Strategy):
    """k-means++ on the gradient embeddings of the model's last layer. A candidate's utility is the norm of its own."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        features = pool.model_features  # what the last layer takes, whatever features others select on
        positions = badge(pool.logits, features, budget, generator)
        r, x = gradient_factors(pool.logits, features)
        return Query(pool.candidates[positions.to(pool.candidates.device)], r.norm(dim=1) * x.norm(dim=1))
