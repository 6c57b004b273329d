"""TypiClust: the most typical image of each cluster that has no label yet (Hacohen et al., ICML 2022)."""

from __future__ import annotations

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import squared_distances, unit_rows
from alkit.strategies.k_means import k_means

SMALLEST_CLUSTER = 5  # smaller ones are asked last: their density says little
LARGEST_CLUSTER = 20_000  # members among which neighbours are looked for


def typicality(points: Tensor, neighbours: int, generator: torch.Generator) -> Tensor:
    """1 / (mean distance to the nearest `neighbours`), (n,) for the members (n, D) of one cluster.

    Memory is linear in n. In a cluster of more than `LARGEST_CLUSTER` members the neighbours are looked for among so
    many of them, drawn at random.
    """
    count = len(points)
    others = torch.arange(count)
    if count > LARGEST_CLUSTER:
        others = torch.randperm(count, generator=generator)[:LARGEST_CLUSTER].sort().values
    others = others.to(points.device)
    neighbours = min(neighbours, count - 1)
    if neighbours < 1:
        return torch.ones(count, dtype=points.dtype, device=points.device)
    result = []
    among, size = points[others], max((1 << 22) // len(others), 1)
    for rows in torch.arange(count, device=points.device).split(size):
        distance = squared_distances(points[rows], among)
        distance.masked_fill_(rows[:, None] == others, torch.inf)  # nobody is its own neighbour
        near = distance.topk(min(neighbours, len(others) - 1), largest=False).values
        result.append(1 / (near.sqrt().mean(1) + 1e-5))
    return torch.cat(result)


@torch.no_grad()
def typiclust(
    candidates: Tensor,
    labelled: Tensor,
    budget: int,
    generator: torch.Generator,
    neighbours: int = 20,
    max_clusters: int = 500,
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) int64 into `candidates` (n, D), in query order, and each candidate's typicality (n,).

    The L2-normalised candidates and `labelled` images (m, D) are clustered into min(m + budget, max_clusters). The
    clusters take turns, those with the fewest labelled images first, larger ones before smaller, those with fewer
    than five members last; each gives its most typical candidate that is not yet asked for. Typicality is
    1 / (mean distance to the nearest min(neighbours, size/2) members of the cluster without a label).
    Raises `ValueError` for features that are not finite and a budget outside 0..n. Hacohen et al., ICML 2022.
    """
    count = len(candidates)
    if not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates, not {budget}")
    points = unit_rows(candidates, labelled)
    cluster = k_means(points, min(len(labelled) + budget, max_clusters), generator)
    clusters = int(cluster.max()) + 1 if len(cluster) else 0
    values = torch.zeros(count, dtype=points.dtype, device=points.device)
    queues, sizes = [], torch.bincount(cluster, minlength=clusters).tolist()
    covered = torch.bincount(cluster[count:], minlength=clusters).tolist()
    for place in range(clusters):
        members = (cluster[:count] == place).nonzero().flatten()
        values[members] = typicality(points[members], max(min(neighbours, len(members) // 2), 1), generator)
        queues.append(members[values[members].argsort(descending=True, stable=True)].tolist()[::-1])
    order = sorted(range(clusters), key=lambda c: (sizes[c] < SMALLEST_CLUSTER, covered[c], -sizes[c], c))
    chosen: list[int] = []
    while len(chosen) < budget:
        chosen += [queues[place].pop() for place in order if queues[place]]
    return torch.tensor(chosen[:budget], dtype=torch.int64, device=points.device), values


@register("typiclust")
class TypiClust(Strategy):
    """The most typical candidates of the clusters with the fewest labels. A candidate's utility is its typicality."""

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        e = self.experiment
        positions, values = typiclust(
            pool.features, pool.labelled_features, budget, generator, e.typiclust_neighbours, e.typiclust_max_clusters
        )
        return Query(pool.candidates[positions.to(pool.candidates.device)], values)
