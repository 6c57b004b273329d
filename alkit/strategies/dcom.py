"""DCoM: coverage while little is covered, uncertainty after (Mishal & Weinshall, 2024)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import squared_distances, unit_rows
from alkit.strategies.k_means import k_means
from alkit.strategies.probcover import MOST_COVERED, Balls, Points, blocks, nothing, purity_radius
from alkit.strategies.uncertainty import margin

RADII = tuple(number / 20 for number in range(1, 23))  # 0.05, 0.1, …, 1.1: those a labelled image's ball may have
STEEPNESS, CENTRE = 50.0, 0.8  # k and a


def competence(coverage: float, steepness: float = STEEPNESS, centre: float = CENTRE) -> float:
    """c = (1 + e^(−k(1 − a))) / (1 + e^(−k(coverage − a))), 0 to 1 for a `coverage` of 0 to 1."""
    return (1 + math.exp(-steepness * (1 - centre))) / (1 + math.exp(-steepness * (coverage - centre)))


def pure_radii(centres: Tensor, labels: Tensor, points: Tensor, classes: Tensor, purity: float) -> Tensor:
    """For each of `centres` (m, D) the largest of `RADII` whose ball is pure, (m,); the smallest if none is.

    A ball is pure where at least a part `purity` of the `points` (n, D) within it, edge excluded, have the centre's
    label by `classes` (n,); an empty one is not.
    """
    radii = torch.tensor(RADII, dtype=points.dtype, device=points.device)
    result = [radii[:0]]
    for rows, own in zip(blocks(centres, len(points)), blocks(labels, len(points)), strict=True):
        distance = squared_distances(rows, points).sqrt()
        same = own[:, None] == classes
        best = torch.zeros(len(rows), dtype=torch.int64, device=points.device)
        for place, radius in enumerate(RADII):
            inside = distance < radius
            count = inside.sum(1)
            pure = ((inside & same).sum(1) >= purity * count - 1e-9) & (count > 0)
            best = torch.where(pure, place, best)
        result.append(radii[best])
    return torch.cat(result)


def covered(points: Tensor, centres: Tensor, radii: Tensor) -> Tensor:
    """Which of `points` (n, D) lie within the ball, edge excluded, of one of `centres` (m, D) with `radii` (m,)."""
    within = torch.zeros(len(points), dtype=torch.bool, device=points.device)
    for rows, radius in zip(blocks(centres, len(points)), blocks(radii, len(points)), strict=True):
        within |= (squared_distances(rows, points) < radius.square()[:, None]).any(0)
    return within


@torch.no_grad()
def dcom(
    candidates: Tensor,
    labelled: Tensor,
    labels: Tensor,
    logits: Tensor | None,
    num_classes: int,
    budget: int,
    generator: torch.Generator,
    purity: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) int64 into `candidates` (n, D), in query order, and each one's first score (n,).

    Each pick has the largest c·m + (1 − c)·d, the lowest position on a tie: m is 1 − (p(1) − p(2)) of `logits` (n, C),
    d the number of images not yet covered within the mean radius of the labelled images' balls; both are scaled to
    0..1. c (`competence`) grows with the part of all images that those balls cover. The ball of each `labelled` image
    (m, D) is the largest that is pure by its label of `labels` (m,) and the model's predictions, to a part
    0.4 + 0.2·coverage, coverage here by balls of ProbCover's radius (`purity`). While nothing is labelled this is
    ProbCover, and `logits` may be None.

    All features are L2-normalised. Of more than 10,000 images an evenly spaced part is covered; memory is linear in n.
    The authors keep the radius that an image had when it was bought; here all are measured with the present model.
    Raises `ValueError` for features that are not finite and a budget outside 0..n. Mishal & Weinshall, 2024.
    """
    count = len(candidates)
    if not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates, not {budget}")
    points = unit_rows(candidates, labelled)
    if not count:
        return nothing(points)
    some = torch.arange(0, len(points), -(-len(points) // MOST_COVERED), device=points.device)
    targets, known = points[some], points[count:]
    clusters = k_means(targets, num_classes, generator)
    radius = min(purity_radius(targets, clusters, purity) ** 0.5, RADII[-1])
    open_ = torch.ones(len(targets), dtype=torch.bool, device=points.device)
    share, unsure = 0.0, torch.zeros(count, dtype=torch.float64, device=points.device)
    if len(known) and logits is not None:
        truth = labels.to(points.device)
        classes = torch.cat([logits.argmax(1).to(points.device), truth])[some]
        first = float(covered(targets, known, torch.full_like(known[:, 0], radius)).double().mean())
        radii = pure_radii(known, truth, targets, classes, 0.4 + 0.2 * first)
        open_ = ~covered(targets, known, radii)
        radius, share = float(radii.mean()), 1 - float(open_.double().mean())
        unsure = _scaled(margin(logits).to(points.device).double())
    return _mixed(points[:count], targets, open_, radius, competence(share), unsure, budget)


def _scaled(values: Tensor) -> Tensor:
    """`values` (n,) moved and stretched to 0..1; zeros where all are the same."""
    low, high = values.aminmax()
    return (values - low) / torch.where(high > low, high - low, 1)


def _mixed(
    points: Tensor, targets: Tensor, open_: Tensor, radius: float, c: float, unsure: Tensor, budget: int
) -> tuple[Tensor, Tensor]:
    """Greedily the largest c·unsure + (1 − c)·density, density counted over the `targets` that are `open_`."""
    # ProbCover's balls hold their edge, these do not: a radius a rounding smaller
    balls = Balls.of(Points.of(points), Points.of(targets), radius**2 * (1 - 1e-6))
    degree, free = balls.hold(open_), torch.ones(len(points), dtype=torch.bool, device=points.device)
    first: Tensor | None = None
    chosen: list[Tensor] = []
    while len(chosen) < budget:
        score = c * unsure + (1 - c) * degree / degree.amax().clamp_min(1)  # labelled images count 0: the least
        first = score if first is None else first
        pick = torch.where(free, score, -torch.inf).argmax()[None]
        chosen.append(pick)
        free.index_fill_(0, pick, False)
        new = open_ & balls.held_by(pick)
        open_ = open_ & ~new
        degree = degree - balls.hold(new)
    positions = torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64, device=points.device)
    return positions, torch.zeros(len(points), device=points.device) if first is None else first


@register("dcom")
class DCoM(Strategy):
    """Coverage and margin, mixed by how much is covered. A candidate's utility is its score at the first pick."""

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        empty = not len(pool.labelled)
        positions, scores = dcom(
            pool.features, pool.features[:0] if empty else pool.labelled_features, pool.labels,
            None if empty else pool.logits, pool.num_classes, budget, generator, self.experiment.probcover_purity,
        )  # fmt: skip
        return Query(pool.candidates[positions.to(pool.candidates.device)], scores)
