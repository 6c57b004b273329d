"""CoreSet: cover the feature space by k-center greedy (Sener & Savarese, ICLR 2018)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register

SMALLEST_BLOCK, LARGEST_BLOCK = 64, 2048
CHUNK = 1 << 21  # numbers in a temporary matrix
ROWS = 1024  # of features in a temporary copy


def check_features(*parts: Tensor) -> None:
    """Raise `ValueError` unless all are finite matrices (·, D) of one width."""
    for features in parts:
        if features.ndim != 2 or features.shape[1] != parts[0].shape[1]:
            raise ValueError(f"expected features (·, {parts[0].shape[-1]}), not {tuple(features.shape)}")
        low, high = features.aminmax() if features.numel() else (torch.zeros(()), torch.zeros(()))
        if not bool(torch.isfinite(low + high)):  # a NaN anywhere becomes both
            raise ValueError("a feature is not a finite number")


def unit_rows(*parts: Tensor) -> Tensor:
    """The rows of all `parts` (·, D) on top of each other, each divided by its length; a row of zeros stays."""
    check_features(*parts)
    dtype = torch.promote_types(parts[0].dtype, torch.float32)
    rows = torch.cat([part.to(parts[0].device, dtype) for part in parts])
    least = torch.finfo(dtype).tiny
    for some in rows.split(ROWS):  # in place, so that there is one copy; first by the largest, against overflow
        some /= some.abs().amax(1, keepdim=True).clamp_min(least)
        some /= some.norm(dim=1, keepdim=True).clamp_min(least)
    return rows


def k_center_greedy(candidates: Tensor, centers: Tensor, budget: int) -> Tensor:
    """Positions (budget,) int64 into `candidates` (n, D), in query order, by greedy k-center from `centers` (m, D).

    Each pick is the candidate farthest (Euclidean) from its nearest center, and becomes a center; ties go to the
    lowest position, and without centers (m = 0) so does the first pick. Distances are compared in float64, so the
    picks are those of the full distance matrix wherever two candidates are not tied to rounding. Memory is O(D) a
    row; no n×m or n×n matrix is formed.

    Raises `ValueError` for features that are not finite or whose widths differ, and for a budget outside 0..n.
    Sener & Savarese, ICLR 2018 (Gonzalez, 1985).
    """
    return farthest_first(candidates, centers, budget)[0]


@torch.no_grad()
def farthest_first(candidates: Tensor, centers: Tensor, budget: int) -> tuple[Tensor, Tensor]:
    """`k_center_greedy`, and each candidate's distance (n,) to its nearest center before the first pick."""
    check_features(candidates, centers)
    if not 0 <= budget <= len(candidates):
        raise ValueError(f"budget: expected 0 to {len(candidates)} candidates, not {budget}")
    cover = _Cover(candidates, centers.to(candidates.device), budget)
    distances = (cover.bound - cover.margin).clamp_min_(0).sqrt_()
    block = SMALLEST_BLOCK * 4
    while len(cover.picks) < budget:
        size = min(block, budget - len(cover.picks) + SMALLEST_BLOCK)
        found = cover.pick_from_block(size)
        stale = cover.screened < len(cover.picks)
        if found * 2 >= size or (not found and not stale):
            block = min(block * 2, LARGEST_BLOCK)
        elif found * 8 < size and stale and len(cover.picks) < budget:
            cover.screen()
            block = max(block // 2, SMALLEST_BLOCK)
    return cover.picks[:budget], distances


class _Cover:
    """The state of one greedy cover.

    `bound` (n,) is an upper bound of each candidate's squared distance to its nearest center, from float32 products
    with a margin for their rounding, and it may miss recent picks. Most candidates never come near the top, so only
    blocks of the highest bounds are measured in float64, and picks are taken from a block for as long as the
    farthest of it is beyond every bound outside.
    """

    def __init__(self, candidates: Tensor, centers: Tensor, budget: int) -> None:
        self.points, self.centers = candidates, centers
        device, count = candidates.device, len(candidates)
        self.origin = origin_of(candidates)
        # A GPU's float32 products may be TF32, and a CPU's bfloat16 where less precision was asked for.
        exact = device.type != "cpu" or torch.get_float32_matmul_precision() != "highest"
        self.dtype = torch.float64 if exact or candidates.dtype == torch.float64 else torch.float32
        self.picks = torch.empty(0, dtype=torch.int64, device=device)
        self.screened = 0  # picks that every bound knows
        self.bound = torch.full((count,), torch.inf, dtype=torch.float64, device=device)
        self.measured = self.bound.clone()  # squared distances in float64 to the centers and the first `known` picks
        self.known = torch.full((count,), -1, device=device)  # −1: not measured
        reach = max(_largest_norm(part, self.origin) for part in (candidates, centers))
        if 4 * reach * reach > torch.finfo(self.dtype).max:
            self.dtype = torch.float64
        self.margin = 16 * math.sqrt(candidates.shape[1] + 1) * torch.finfo(self.dtype).eps * reach * reach
        self._lower(self.bound, self.points, centers, self.dtype, self.margin)

    def screen(self) -> None:
        """Let every bound know every pick."""
        self._lower(self.bound, self.points, self.points[self.picks[self.screened :]], self.dtype, self.margin)
        self.screened = len(self.picks)
        self.bound[self.picks] = -1

    def pick_from_block(self, size: int) -> int:
        """Pick from the `size` candidates of highest bound while that is certain; returns how many were picked."""
        block = self._highest(size)
        value = self._measure(block)
        rest = self.bound.index_fill(0, block, -2.0)
        first_outside = rest.argmax()
        outside = rest[first_outside]
        rows = self.points[block].double() - self.origin
        between = squared_distances(rows, rows)
        chosen, certain = [], []
        for step in range(1, min(len(block), len(self.points) - len(self.picks)) + 1):
            place = value.argmax()  # the first of equals
            top = value[place]
            certain.append((top > outside) | ((top == outside) & (block[place] < first_outside)))
            chosen.append(place)
            value = torch.minimum(value, between.index_select(0, place[None])[0]).index_fill_(0, place, -1.0)
            if step % SMALLEST_BLOCK == 0 and not bool(certain[-1]):  # the only word from the device
                break
        found = int(torch.stack(certain).long().cumprod(0).sum())
        if found:
            picked = block[torch.stack(chosen[:found])]
            self.picks = torch.cat([self.picks, picked])
            self.bound[picked] = -1
        return found

    def _highest(self, size: int) -> Tensor:
        """The `size` candidates of highest bound, ascending; of equals, the lowest."""
        size = min(size, len(self.bound))
        least = self.bound.topk(size).values[-1]
        above = (self.bound > least).nonzero().flatten()
        tied = (self.bound == least).nonzero().flatten()
        return torch.cat([above, tied[: size - len(above)]]).sort().values

    def _measure(self, block: Tensor) -> Tensor:
        """Squared distances of the block's candidates in float64; picked ones are −1."""
        fresh = block[self.known[block] < 0]
        self._lower_some(fresh, self.centers)
        self.known[fresh] = 0
        oldest = int(self.known[block].min())
        behind = block[self.known[block] < len(self.picks)]
        self._lower_some(behind, self.points[self.picks[oldest:]])
        self.known[block] = len(self.picks)
        self.bound[block] = torch.where(self.bound[block] < 0, -1.0, self.measured[block])
        return self.bound[block]

    def _lower_some(self, which: Tensor, centers: Tensor) -> None:
        if len(which) and len(centers):
            values = self.measured[which]
            self._lower(values, self.points[which], centers, torch.float64, 0.0)
            self.measured[which] = values

    def _lower(self, best: Tensor, points: Tensor, centers: Tensor, dtype: torch.dtype, margin: float) -> None:
        """Lower `best` (n,), in place, to the squared distance to the nearest of `centers`, plus `margin`."""
        width = max(points.shape[1], 1)
        for few in centers.split(1024) if len(centers) else ():
            some = (few.double() - self.origin).to(dtype)
            size = max(CHUNK // max(len(few), width), 1)
            for start in range(0, len(points), size):
                part = slice(start, start + size)
                rows = (points[part].double() - self.origin).to(dtype)
                near = _nearest(rows, some).double() + margin
                best[part] = torch.minimum(best[part], near)


def origin_of(points: Tensor) -> Tensor:
    """A point (D,) float64 amid `points`: distances from there lose no digits to a common offset.

    It is rounded to a power of two well below the spread, which keeps integer features integer (and their ties ties).
    """
    if not points.numel():
        return torch.zeros(points.shape[1], dtype=torch.float64, device=points.device)
    low, high = points.amin(0).double(), points.amax(0).double()
    spread = (high - low).max()
    grid = torch.exp2(torch.floor(torch.log2(torch.where(spread > 0, spread, 1.0))) - 2)
    return torch.where(spread > 0, ((low + high) / 2 / grid).round() * grid, low)


def _largest_norm(points: Tensor, origin: Tensor) -> float:
    """The largest distance of a row of `points` from `origin`."""
    norms = [(part.double() - origin).norm(dim=1).max() for part in points.split(ROWS) if len(part)]
    return float(torch.stack(norms).max()) if norms else 0.0


def _nearest(rows: Tensor, centers: Tensor) -> Tensor:
    """Squared distance (n,) of each row to the nearest of `centers` (k, D), by ‖x‖² − 2x·c + ‖c‖²."""
    reach = rows.square().sum(1)
    near = torch.addmm(centers.square().sum(1), rows, centers.T, alpha=-2).amin(1) + reach
    return _floor(near, reach, rows.shape[1])


def squared_distances(rows: Tensor, others: Tensor) -> Tensor:
    """All squared distances (n, k), by ‖x‖² − 2x·c + ‖c‖²."""
    reach = rows.square().sum(1)[:, None]
    near = torch.addmm(others.square().sum(1), rows, others.T, alpha=-2).add_(reach)
    return _floor(near, reach, rows.shape[1])


def _floor(squared: Tensor, reach: Tensor, width: int) -> Tensor:
    """`squared` with what is only rounding made 0, so that duplicates lie at distance 0."""
    noise = 8 * math.sqrt(width + 1) * torch.finfo(squared.dtype).eps * reach
    return squared.masked_fill_(squared <= noise, 0)


@register("coreset")
class CoreSet(Strategy):
    """k-center greedy from the labelled images, on fixed features where there are such, else the penultimate ones.

    A candidate's utility is its distance to the nearest labelled image, before the query.
    """

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        positions, distances = farthest_first(pool.features, pool.labelled_features, budget)
        return Query(pool.candidates[positions.to(pool.candidates.device)], finite(distances))


def finite(utilities: Tensor) -> Tensor:
    """`utilities` with infinite ones (nothing is labelled) made 0."""
    return utilities.nan_to_num(nan=0.0, posinf=0.0, neginf=0.0)
