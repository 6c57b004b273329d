"""k-means: scikit-learn's on the CPU; on a GPU Lloyd's algorithm there, so that no feature leaves it."""

from __future__ import annotations

import warnings

import torch
from torch import Tensor

from alkit.strategies.coreset import squared_distances

ROUNDS = 50
BLOCK = 1 << 26  # distances that are alive at once


def k_means(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """The cluster (n,) int64 of each of `points` (n, D), on their device.

    On the CPU more than 50 clusters, or more than 50,000 points, are found by mini-batches. Memory is linear in n.
    """
    clusters = min(clusters, len(points))
    if clusters <= 1:
        return torch.zeros(len(points), dtype=torch.int64, device=points.device)
    if points.device.type != "cpu":
        return lloyd(points, first_centres(points, clusters, generator))[0]
    return _by_scikit_learn(points, clusters, generator)


def _by_scikit_learn(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    from sklearn.cluster import KMeans, MiniBatchKMeans
    from sklearn.exceptions import ConvergenceWarning

    seed = int(torch.randint(2**31, (1,), generator=generator))
    few = clusters <= 50 and len(points) <= 50_000
    method = (
        KMeans(clusters, n_init=1, random_state=seed)
        if few
        else MiniBatchKMeans(clusters, n_init=1, random_state=seed, batch_size=max(4096, 4 * clusters))
    )
    with warnings.catch_warnings():  # fewer different points than clusters: some stay empty
        warnings.simplefilter("ignore", ConvergenceWarning)
        found = method.fit_predict(points.detach().numpy())
    return torch.from_numpy(found).to(torch.int64)


def first_centres(points: Tensor, clusters: int, generator: torch.Generator) -> Tensor:
    """`clusters` of the `points` (n, D) by k-means++: each is drawn with probability ∝ its squared distance to the
    nearest one drawn (Arthur & Vassilvitskii, SODA 2007); where all are 0, the lowest. `generator` is on the CPU."""
    source = torch.Generator(points.device).manual_seed(int(torch.randint(2**62, (1,), generator=generator)))
    weight = points.new_ones(len(points))
    nearest = torch.full_like(weight, torch.inf)
    chosen: list[Tensor] = []
    for _ in range(clusters):
        race = torch.empty_like(weight).exponential_(generator=source)  # the largest weight/Exp(1) is a draw ∝ weight
        pick = (weight / race).argmax()[None]
        chosen.append(pick)
        nearest = torch.minimum(nearest, squared_distances(points, points[pick])[:, 0])
        weight = nearest
    return points[torch.cat(chosen)]


def lloyd(points: Tensor, centres: Tensor, rounds: int = ROUNDS) -> tuple[Tensor, Tensor]:
    """Clusters (n,) int64 and centres (k, D) by Lloyd's algorithm from `centres`, until no point changes its cluster.

    A point is in the cluster of its nearest centre, the lowest on a tie; a cluster without points keeps its centre.
    Memory is linear in n.
    """
    cluster = torch.full((len(points),), -1, dtype=torch.int64, device=points.device)
    blocks = points.split(max(BLOCK // len(centres), 1))
    number = torch.arange(len(centres), device=points.device)
    for _ in range(rounds):
        sums, sizes = torch.zeros_like(centres), points.new_zeros(len(centres))
        found = []
        for rows in blocks:
            nearest = squared_distances(rows, centres).argmin(1)
            belongs = (nearest[:, None] == number).to(rows.dtype)  # a product, for sums by index have no fixed order
            sums.addmm_(belongs.T, rows)
            sizes.add_(belongs.sum(0))
            found.append(nearest)
        before, cluster = cluster, torch.cat(found)
        if torch.equal(before, cluster):
            break
        centres = torch.where(sizes[:, None] > 0, sums / sizes.clamp_min(1)[:, None], centres)
    return cluster, centres
