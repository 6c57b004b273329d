"""ProbCover: cover most of the feature space with balls of one radius (Yehuda et al., NeurIPS 2022)."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import squared_distances, unit_rows
from alkit.strategies.k_means import k_means

MOST_COVERED = 10_000  # points whose coverage is counted: beyond, an evenly spaced part of the candidates
CHUNK = {"cpu": 1 << 16}  # words of a temporary copy, so that it stays in cache
LARGE_CHUNK = 1 << 26  # on a GPU, where a call costs more than the memory


def blocks(rows: Tensor, width: int) -> list[Tensor]:
    """`rows` cut so that a block's distances to `width` points are a few million numbers."""
    return list(rows.split(max((1 << 22) // max(width, 1), 1)))


def purity_radius(points: Tensor, pseudo_labels: Tensor, purity: float) -> float:
    """The squared radius of the largest balls of which at least a part `purity` hold one pseudo-label only.

    A ball is around each of `points` (n, D), whose `pseudo_labels` are (n,); it holds what lies within its radius,
    edge included. Infinity where all labels are the same.
    """
    nearest = []
    for rows, labels in zip(blocks(points, len(points)), blocks(pseudo_labels, len(points)), strict=True):
        distance = squared_distances(rows, points).double()
        nearest.append(distance.masked_fill_(labels[:, None] == pseudo_labels, math.inf).amin(1))
    ordered = torch.cat(nearest).sort().values
    impure = min(math.floor((1 - purity) * len(points) + 1e-9), len(points) - 1)
    return float(ordered[impure]) * (1 - 1e-5)  # at the distance itself one ball too many would be impure


def nothing(points: Tensor) -> tuple[Tensor, Tensor]:
    """The answer where there are no candidates to choose from: no positions (0,) int64, and no utilities (0,)."""
    return torch.empty(0, dtype=torch.int64, device=points.device), points.new_zeros(0)


@torch.no_grad()
def cover_greedily(
    candidates: Tensor, covering: Tensor, budget: int, squared_radius: float, clusters: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) of the candidates (n, D) whose balls cover most, and what each covers at first, (n,).

    `covering` (m, D) have balls already. Each pick is the candidate whose ball holds the most candidates that no ball
    holds yet, the lowest on a tie; when all are covered, the covering begins again. Of more than `MOST_COVERED`
    candidates an evenly spaced part is what has to be covered; `clusters` (of that part) change the time and not the
    picks. Time is O(n·D) a covered point at first, and O(n) a pick and word of 64 points that it covers; memory is
    linear in n and m.
    """
    count = len(candidates)
    if not count:
        return nothing(candidates)
    points = Points.of(candidates)
    targets = points[:: -(-count // MOST_COVERED)]
    if clusters is not None:  # then what a ball holds lies in few words
        targets = points.of(targets.x[clusters.argsort()])
    open_ = torch.ones(len(targets.x), dtype=torch.bool, device=candidates.device)
    for rows in blocks(covering, len(targets.x)):
        open_ &= ~Points.of(rows).reach(targets, squared_radius).any(0)
    balls = Balls.of(points, targets, squared_radius)
    first = degree = balls.hold(open_)
    whole: Tensor | None = None
    free = torch.ones(count, dtype=torch.bool, device=candidates.device)
    chosen: list[Tensor] = []
    while len(chosen) < budget:
        if not bool(open_.any()):
            whole = balls.hold(torch.ones_like(open_)) if whole is None else whole
            degree, open_ = whole, torch.ones_like(open_)
        pick = torch.where(free, degree, -1).argmax()[None]
        chosen.append(pick)
        free.index_fill_(0, pick, False)
        new = open_ & balls.held_by(pick)
        if not bool(new.any()):  # what is open is out of reach of the candidates that are left
            new = open_
        open_ = open_ & ~new
        if bool(open_.any()):
            degree = degree - balls.hold(new)
    return torch.cat(chosen) if chosen else torch.empty(0, dtype=torch.int64, device=candidates.device), first


@dataclass(frozen=True)
class Points:
    """Points x (n, D), and half their squared lengths (n,), which every distance needs."""

    x: Tensor
    half: Tensor

    @classmethod
    def of(cls, x: Tensor) -> Points:
        return cls(x, x.square().sum(1) / 2)

    def __getitem__(self, which: slice) -> Points:
        return Points(self.x[which], self.half[which])

    def reach(self, others: Points, squared_radius: float) -> Tensor:
        """Whether each of `others` (k) lies within the radius of each point, (n, k)."""
        half = self.half[:, None]
        distance = 2 * (torch.addmm(others.half, self.x, others.x.T, alpha=-1).add_(half))
        noise = 8 * math.sqrt(self.x.shape[1] + 1) * torch.finfo(distance.dtype).eps * 2 * half
        return (distance <= squared_radius) | (distance <= noise)  # duplicates lie at distance 0


@dataclass(frozen=True)
class Balls:
    """Which of `count` targets each of n balls holds: bit t % 64 of word t // 64, `words` (⌈count / 64⌉, n) int64."""

    words: Tensor
    count: int

    @classmethod
    def of(cls, points: Points, targets: Points, squared_radius: float) -> Balls:
        count, n = len(targets.x), len(points.x)
        words = torch.zeros(-(-count // 64), n, dtype=torch.int64, device=points.x.device)
        size = max((1 << 22 if words.device.type == "cpu" else LARGE_CHUNK) // max(count, 64), 1)
        for start in range(0, n, size):
            part = slice(start, start + size)
            words[:, part] = _packed(points[part].reach(targets, squared_radius)).T
        return cls(words, count)

    def held_by(self, ball: Tensor) -> Tensor:
        """What the ball at `ball` (1,) holds, (count,) bool."""
        column = self.words.index_select(1, ball)
        return ((column >> torch.arange(64, device=column.device)) & 1).bool().flatten()[: self.count]

    def hold(self, which: Tensor) -> Tensor:
        """How many of the targets `which` (count,) bool each ball holds, (n,) int64."""
        mask = _packed(which[None])[0][:, None]
        used = mask[:, 0].nonzero().flatten()
        held = torch.zeros(self.words.shape[1], dtype=torch.int64, device=which.device)
        for rows in used.split(31):  # 31 words with up to 8 ones a byte: their sum does not overflow a byte
            size = max(CHUNK.get(which.device.type, LARGE_CHUNK) // max(len(rows), 1), 1)
            for words, out in zip(self.words.split(size, 1), held.split(size), strict=True):
                ones = _ones_in_bytes(words.index_select(0, rows).bitwise_and_(mask[rows])).sum(0)
                out += ones.view(torch.uint8).view(-1, 8).sum(1)
        return held


def _packed(bits: Tensor) -> Tensor:
    """Bits (n, k) bool in words (n, ⌈k / 64⌉) int64: of each 64 the first is the lowest bit."""
    padded = torch.nn.functional.pad(bits.to(torch.uint8), (0, -bits.shape[1] % 64))
    weights = 2 ** torch.arange(8, dtype=torch.uint8, device=bits.device)
    in_bytes = (padded.view(len(bits), -1, 8) * weights).sum(2, dtype=torch.uint8)
    return in_bytes.view(torch.int64)


def _ones_in_bytes(words: Tensor) -> Tensor:
    """The number of ones of each byte of `words`, int64, in its place. Overwrites `words`."""
    words -= (words >> 1) & 0x5555555555555555
    pairs = (words >> 2).bitwise_and_(0x3333333333333333)
    words.bitwise_and_(0x3333333333333333).add_(pairs)
    return words.add_(words >> 4).bitwise_and_(0x0F0F0F0F0F0F0F0F)


def probcover(
    candidates: Tensor,
    labelled: Tensor,
    num_classes: int,
    budget: int,
    generator: torch.Generator,
    purity: float = 0.95,
) -> tuple[Tensor, Tensor]:
    """Positions (budget,) int64 into `candidates` (n, D), in query order, and what each one's ball covers, (n,).

    All features are L2-normalised. The radius is the largest at which a part `purity` of the candidates' balls hold
    one cluster of k-means (`num_classes` clusters) only; the balls around the `labelled` images (m, D) cover what
    they hold. Of more than 10,000 candidates, an evenly spaced part is clustered and covered; memory is linear in n.
    Raises `ValueError` for features that are not finite and a budget outside 0..n. Yehuda et al., NeurIPS 2022.
    """
    count = len(candidates)
    if not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates, not {budget}")
    points = unit_rows(candidates, labelled)
    if not count:
        return nothing(points)
    some = points[:count][:: -(-count // MOST_COVERED)]
    clusters = k_means(some, num_classes, generator)
    return cover_greedily(points[:count], points[count:], budget, purity_radius(some, clusters, purity), clusters)


@register("probcover")
class ProbCover(Strategy):
    """Greedy maximum coverage. A candidate's utility is how much its ball covers beyond the labelled images' balls."""

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        positions, held = probcover(
            pool.features, pool.labelled_features, pool.num_classes, budget, generator, self.experiment.probcover_purity
        )
        return Query(pool.candidates[positions.to(pool.candidates.device)], held.float())
