"""DropQuery: what a head with dropout changes its mind about, one image a cluster (Gupte et al., TMLR 2024)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import check_features, unit_rows
from alkit.strategies.k_means import k_means

PASSES, DROPOUT = 3, 0.75
ENOUGH = 25  # candidates a query, or the threshold falls
ROWS = 1 << 22  # numbers of dropped features that are alive at once


@torch.no_grad()
def disagreement(
    features: Tensor,
    classify: Callable[[Tensor], Tensor],
    generator: torch.Generator,
    passes: int = PASSES,
    dropout: float = DROPOUT,
) -> Tensor:
    """In how many of `passes` the class of features (n, D) under dropout is not their class without, (n,) int64.

    `classify` is the last layer, (n, D) → logits (n, C). A dropped feature is 0, the others are divided by
    1 − `dropout`. `generator` is on the CPU.
    """
    check_features(features)
    source = torch.Generator(features.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    counts = []
    for rows in features.split(max(ROWS // max(features.shape[1], 1), 1)):
        clean = classify(rows).argmax(1)
        count = torch.zeros_like(clean)
        for _ in range(passes):
            kept = torch.rand(rows.shape, generator=source, device=rows.device) >= dropout
            count += classify(rows * kept / (1 - dropout)).argmax(1) != clean
        counts.append(count)
    return torch.cat(counts)


def nearest_to_centres(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """Positions (≤ clusters,) int64: of each cluster of k-means the point nearest its mean, largest cluster first.

    Ties go to the lowest position; fewer than `clusters` where fewer of the points (n, D) differ.
    """
    cluster = k_means(points, clusters, generator)
    sizes = torch.bincount(cluster)
    number = torch.arange(len(sizes), device=points.device)
    sums = torch.zeros(len(sizes), points.shape[1], dtype=points.dtype, device=points.device)
    for rows, some in zip(points.split(4096), cluster.split(4096), strict=True):
        sums.addmm_((some[:, None] == number).to(points.dtype).T, rows)  # a product: sums by index have no fixed order
    means = sums / sizes.clamp_min(1)[:, None].to(points.dtype)
    distance = (points - means[cluster]).square().sum(1)
    order = distance.argsort(stable=True)
    order = order[cluster[order].argsort(stable=True)]  # by cluster, and in it by distance
    firsts = order[(sizes.cumsum(0) - sizes)[sizes > 0]]
    return firsts[sizes[sizes > 0].argsort(descending=True, stable=True)]


@torch.no_grad()
def dropquery(
    features: Tensor,
    classify: Callable[[Tensor], Tensor],
    budget: int,
    generator: torch.Generator,
    passes: int = PASSES,
    dropout: float = DROPOUT,
    model_features: Tensor | None = None,
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) int64 into `features` (n, D), and in how many passes each candidate's class changed, (n,).

    Candidates whose class under dropout differs from the clean one in more than half of the `passes` are clustered,
    by k-means on their L2-normalised features, into `budget` clusters, and of each the member nearest its centre is
    asked for, the largest cluster first. While there are fewer than 25·budget of them, the threshold falls by one
    pass, at last to all candidates. Where fewer than `budget` of them differ, the rest are drawn from the others at
    random, those that changed most first. `classify` takes `model_features` (n, D'), which are `features` unless given.
    Raises `ValueError` for features that are not finite and a budget outside 0..n. Gupte et al., TMLR 2024.
    """
    check_features(features)
    count = len(features)
    if not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates, not {budget}")
    changed = disagreement(features if model_features is None else model_features, classify, generator, passes, dropout)
    changed = changed.to(features.device)
    threshold = passes // 2 + 1
    while threshold > 0 and int((changed >= threshold).sum()) < ENOUGH * budget:
        threshold -= 1
    unsure = (changed >= threshold).nonzero().flatten()
    if not budget:
        return unsure[:0], changed
    picks = unsure[nearest_to_centres(unit_rows(features[unsure]), budget, generator)][:budget]
    return fill_up(picks, changed, budget, generator), changed


def fill_up(picks: Tensor, value: Tensor, budget: int, generator: torch.Generator) -> Tensor:
    """`picks`, and after them others of the (n,) candidates: the highest `value` first, in a random order."""
    if len(picks) >= budget:
        return picks
    shuffled = torch.randperm(len(value), generator=generator).to(picks.device)
    order = shuffled[value[shuffled].argsort(descending=True, stable=True)]
    return torch.cat([picks, order[~torch.isin(order, picks)]])[:budget]


@register("dropquery")
class DropQuery(Strategy):
    """The unsure ones under dropout, one a cluster. A candidate's utility is in how many passes its class changed."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        e = self.experiment
        positions, changed = dropquery(
            pool.features, pool.classify, budget, generator, e.dropquery_passes, e.dropquery_dropout,
            pool.model_features,
        )  # fmt: skip
        return Query(pool.candidates[positions.to(pool.candidates.device)], changed.float())
