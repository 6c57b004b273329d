"""MaxHerding and uncertainty herding: cover the candidates by a kernel (Bae et al., ECCV 2024 and ICLR 2025)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from alkit.calibration import calibration_errors
from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import squared_distances, unit_rows
from alkit.strategies.uncertainty import margin

MOST_CANDIDATES = 35_000  # beyond, so many are drawn at random, as the authors do
BLOCK = 1 << 21  # kernel values that are alive at once, on a CPU so that they stay near it
LARGE_BLOCK = 1 << 27
FEWEST = 32  # candidates whose gain is brought up to date at once
CONTESTED = 64  # candidates that float32 cannot tell apart, compared in float64 at once
NOTHING = 1e-30  # a kernel value that adds nothing to a gain
TEMPERATURES = tuple(number / 10 for number in range(10, 200))


def _kernel(rows: Tensor, columns: Tensor, delta: float) -> Tensor:
    """k(a, b) = exp(−‖a − b‖²/δ²) for rows (r, D) and columns (c, D), (r, c)."""
    squared = torch.addmm(columns.square().sum(1), rows, columns.T, alpha=-2).add_(rows.square().sum(1)[:, None])
    return squared.clamp_min_(0).mul_(-1 / delta**2).exp_()


class _Herd:
    """The state of one greedy choice: n points that are to be covered and may be chosen.

    The gain of x is G(x) = Σ_n w(n)·max(0, k(n, x) − cover(n)). It only falls as `cover` grows, so an old one is an
    upper bound, and only the candidates with the highest bounds are brought up to date before each pick. `gain` is G
    under `since`, the cover of the last time all gains were computed; what a candidate has lost since comes from the
    points alone whose cover has grown. `exact` is the last gain by float64, and infinite before the first.
    """

    def __init__(self, points: Tensor, labelled: Tensor, weight: Tensor, delta: float) -> None:
        self.points, self.delta = points, delta
        self.block = BLOCK if points.device.type == "cpu" else LARGE_BLOCK
        self.weight = weight.to(points.device, torch.float64)
        # a point that rounding puts just below its cover may lie above
        self.least = math.exp(-max(1e-4, 16 * torch.finfo(points.dtype).eps / delta**2))
        self.everything = torch.arange(len(points), device=points.device)
        self.cover = points.new_zeros(len(points), dtype=torch.float64)
        for columns in labelled.split(1024) if len(labelled) else ():
            self._raise(self.everything, columns)
        self.gain = self._from_nothing()
        self.since = self.cover.clone()
        self.bound = self.gain.clone()
        self.exact = torch.full_like(self.gain, torch.inf)
        self.free = torch.ones(len(points), dtype=torch.bool, device=points.device)
        largest = max(float(self.gain.amax()), float(self.weight.amax())) if len(points) else 0.0
        # what rounding leaves of equals
        self.tie = max(1e-12, 64 * torch.finfo(torch.float64).eps / delta**2) * largest
        self.noise = self._noise()

    def _noise(self) -> float:
        """How far rounding may move a gain, where `gain` was summed from nothing."""
        largest = float(self.gain.amax()) if len(self.gain) else 0.0
        return max(self.tie, 4 * torch.finfo(self.points.dtype).eps * max(1, 1 / self.delta**2) * (1 + largest))

    def _size(self, columns: Tensor) -> int:
        """How many points at once meet `columns`: neither their kernel nor their rows are more than a block."""
        return max(self.block // max(len(columns), self.points.shape[1], 1), 1)

    def _sum(self, rows: Tensor, columns: Tensor, *covers: Tensor, dtype: torch.dtype | None = None) -> Tensor:
        """Σ over the points at `rows` of w·max(0, k − cover) for each of `columns`, (c,) float64.

        With two covers, the second's sum less the first's.
        """
        total = torch.zeros(len(columns), dtype=torch.float64, device=columns.device)
        first = covers[0]
        width = max(min(len(columns), self.block // 1024), 1)
        for place in range(0, len(columns), width):
            these = self.points[columns[place : place + width]].to(dtype or self.points.dtype)
            for some in rows.split(self._size(these)):
                k = _kernel(self.points[some].to(these), these, self.delta)
                value = (k - first[some, None].to(k)).clamp_min_(0)
                if len(covers) > 1:
                    value = k.sub_(covers[1][some, None].to(k)).clamp_min_(0).sub_(value)
                total[place : place + width] += (self.weight[some].to(k) @ value).double()
        return total

    def _from_nothing(self) -> Tensor:
        """G of every candidate, (n,) float64. k is symmetric: a block above the diagonal serves the one below."""
        total = torch.zeros(len(self.points), dtype=torch.float64, device=self.points.device)
        size = math.isqrt(self.block)
        cover, weight = self.cover.to(self.points), self.weight.to(self.points)
        parts = [slice(start, start + size) for start in range(0, len(self.points), size)]
        for number, rows in enumerate(parts):
            for columns in parts[number:]:
                k = _kernel(self.points[rows], self.points[columns], self.delta)
                if columns != rows:
                    total[rows] += ((k - cover[columns]).clamp_min_(0) @ weight[columns]).double()
                total[columns] += (weight[rows] @ k.sub_(cover[rows, None]).clamp_min_(0)).double()
        return total

    def refresh(self, columns: Tensor) -> Tensor:
        """The gains now of the candidates at `columns`, (c,) float64."""
        return self.gain[columns] + self._sum(self._grown(), columns, self.since, self.cover)

    def _grown(self) -> Tensor:
        """The points (r,) int64 whose cover has grown since all gains were computed."""
        return (self.cover > self.since + self.noise / (4 * len(self.cover))).nonzero().flatten()

    def _refresh_all(self) -> None:
        grown = self._grown()
        if 2 * len(grown) > len(self.cover):  # from nothing, so that rounding does not add up
            self.gain = self._from_nothing()
            self.noise = self._noise()
        else:
            self.gain = self.gain + self._sum(grown, self.everything, self.since, self.cover)
        self.since = self.cover.clone()

    def _raise(self, rows: Tensor, columns: Tensor) -> None:
        """Let `columns` (c, D) cover the points at `rows`, by float64."""
        columns = columns.double()
        for some in rows.split(self._size(columns)):
            k = _kernel(self.points[some].double(), columns, self.delta).amax(1)
            self.cover[some] = torch.maximum(self.cover[some], k)

    def _near(self, columns: Tensor) -> Tensor:
        """The points (r,) int64 that one of `columns` (c, D) may cover further."""
        near = [
            _kernel(points, columns, self.delta).amax(1) >= self.least * cover.clamp_min(NOTHING)
            for points, cover in zip(
                self.points.split(self._size(columns)), self.cover.split(self._size(columns)), strict=True
            )
        ]
        return torch.cat(near).nonzero().flatten()

    def _exactly(self, positions: Tensor) -> Tensor:
        """The gains now of the candidates at `positions`, (c,), with kernels in float64."""
        return self._sum(self._near(self.points[positions]), positions, self.cover, dtype=torch.float64)

    def _largest(self, positions: Tensor) -> Tensor:
        """The one (1,) of the candidates at `positions` with the largest gain by float64, the lowest on a tie.

        An exact gain only falls, too: where thousands are contested, what it was at an earlier pick rules most out.
        """
        fresh, size = torch.zeros_like(positions, dtype=torch.bool), CONTESTED
        while True:
            bound = self.exact[positions]
            tied = bound >= bound.amax() - self.tie
            first = tied.nonzero()[0]
            if bool(fresh[first]):
                return positions[first]
            stale = (~fresh).nonzero().flatten()
            if len(stale) > size:  # in this order, for then the first of those that tie is among them
                stale = stale[bound.masked_fill(tied, torch.inf)[stale].argsort(descending=True, stable=True)[:size]]
            self.exact[positions[stale]] = self._exactly(positions[stale])
            fresh[stale], size = True, size * 2

    def pick(self) -> Tensor:
        """The position (1,) of the candidate of largest gain, the lowest on a tie; it is chosen from now on."""
        fresh = torch.zeros_like(self.free)
        size, done = FEWEST, 0
        while True:
            best = torch.where(fresh, self.bound, -torch.inf).amax()
            contested = self.free & (self.bound >= best - 2 * self.noise)
            stale = (contested & ~fresh).nonzero().flatten()
            if not len(stale):
                break
            if done + size > len(self.points) // 8:  # then all at once is cheaper
                self._refresh_all()
                self.bound = torch.where(self.free, self.gain, -torch.inf)
                fresh.fill_(True)
                continue
            if len(stale) > size:
                stale = stale[self.bound[stale].topk(size).indices]
            self.bound[stale] = self.refresh(stale)
            fresh[stale] = True
            size, done = size * 2, done + size
        positions = contested.nonzero().flatten()
        chosen = self._largest(positions) if len(positions) > 1 else positions
        self.bound.index_fill_(0, chosen, -torch.inf)
        self.free.index_fill_(0, chosen, False)
        self._raise(self._near(self.points[chosen]), self.points[chosen])
        self.cover.index_fill_(0, chosen, 1)
        return chosen


def _herd(points: Tensor, labelled: Tensor, weight: Tensor, budget: int, delta: float) -> tuple[Tensor, Tensor]:
    """Positions (budget,) of the points chosen, and the mean gain (n,) of each before the first choice."""
    if not 0 <= budget <= len(points):
        raise ValueError(f"budget: expected 0 to {len(points)} candidates, not {budget}")
    if not delta > 0:
        raise ValueError(f"delta: expected a number above 0, not {delta}")
    herd = _Herd(points, labelled, weight, delta)
    first = herd.gain / max(len(points), 1)
    picks = [herd.pick() for _ in range(budget)]
    return torch.cat(picks) if picks else torch.empty(0, dtype=torch.int64, device=points.device), first


@torch.no_grad()
def max_herding(candidates: Tensor, labelled: Tensor, budget: int, delta: float = 1.0) -> Tensor:
    """Positions (budget,) int64 into `candidates` (n, D), in query order, given `labelled` (m, D); m may be 0.

    All rows are L2-normalised. With k(a, b) = exp(−‖a − b‖²/δ²), each pick is the candidate x of largest mean over
    all candidates n of max(0, k(n, x) − max over l labelled or picked of k(n, l)), the lowest position on a tie. What
    is subtracted belongs to the point that is covered, n. No matrix of n × n is held; gains that differ by float32's
    rounding are compared in float64, where they tie within 1e-12 of the largest first one (1.4e-14/δ² if that is more).
    Raises `ValueError` for features that are not finite, widths that differ, a
    budget outside 0..n and a `delta` of 0 or less. Bae et al., ECCV 2024.
    """
    points = unit_rows(candidates, labelled)
    count = len(candidates)
    return _herd(points[:count], points[count:], points.new_ones(count), budget, delta)[0]


@torch.no_grad()
def uncertainty_herding(
    candidates: Tensor, labelled: Tensor, uncertainty: Tensor, budget: int, delta: float | None = None
) -> Tensor:
    """`max_herding` in which each candidate counts as much as its `uncertainty` (n,), 0 or more.

    Each pick has the largest mean over n of uncertainty(n)·max(0, k(n, x) − max over l of k(n, l)). `delta` None is
    the smallest distance above 0 between two labelled images (`nearest_labelled`). Raises `ValueError` as
    `max_herding` does, and for uncertainties below 0 or not finite. Bae et al., ICLR 2025.
    """
    if uncertainty.shape != (len(candidates),) or not bool((uncertainty.isfinite() & (uncertainty >= 0)).all()):
        raise ValueError(f"uncertainty: expected ({len(candidates)},) finite numbers of 0 or more")
    points = unit_rows(candidates, labelled)
    count = len(candidates)
    delta = nearest_labelled(points[count:]) if delta is None else delta
    return _herd(points[:count], points[count:], uncertainty, budget, delta)[0]


def nearest_labelled(points: Tensor) -> float:
    """The smallest distance above 0 between two of `points` (m, D); 1 if there is none."""
    least = torch.inf
    for rows in points.split(max(BLOCK // max(len(points), 1), 1)) if len(points) else ():
        squared = squared_distances(rows, points)
        least = min(least, float(squared.masked_fill_(squared <= 0, torch.inf).amin()))
    return least**0.5 if least < torch.inf else 1.0


def least_ece_temperature(logits: Tensor, labels: Tensor) -> float:
    """The T of 1.0, 1.1, …, 19.9 at which logits (m, C) / T have the least ECE on labels (m,); the lowest on a tie."""
    if not len(logits):
        return 1.0
    correct = logits.argmax(1) == labels.to(logits.device)

    def error(temperature: float) -> float:
        confidence = (logits.double() / temperature).softmax(1).amax(1)
        return calibration_errors(confidence.clamp_max(1), correct, bins=15).ece

    return min(TEMPERATURES, key=error)


def held_out_temperature(features: Tensor, labels: Tensor, num_classes: int, generator: torch.Generator) -> float:
    """The T of `least_ece_temperature` for a last layer trained on a random 70% of features (m, D) with labels (m,).

    The other 30% tell T. The authors train their whole model again, which is a last layer on fixed features; here it
    is the last layer whatever the model. 1 where the labels are too few to leave any out.
    """
    order = torch.randperm(len(features), generator=generator).to(features.device)
    train, held = order.tensor_split([round(0.7 * len(order))])
    if not len(train) or not len(held):
        return 1.0
    x = features.double()
    x = x / x[train].norm(dim=1).mean().clamp_min(torch.finfo(x.dtype).tiny) * 10
    y = labels.to(features.device)
    with torch.enable_grad():
        weight = x.new_zeros(x.shape[1], num_classes, requires_grad=True)
        bias = x.new_zeros(num_classes, requires_grad=True)
        solver = torch.optim.LBFGS([weight, bias], max_iter=100, line_search_fn="strong_wolfe")

        def loss() -> Tensor:
            solver.zero_grad()
            value: Tensor = torch.nn.functional.cross_entropy(x[train] @ weight + bias, y[train])
            value = value + weight.square().sum() / (2 * len(train))
            value.backward()  # type: ignore[no-untyped-call]
            return value

        solver.step(loss)  # type: ignore[no-untyped-call]
    with torch.no_grad():
        return least_ece_temperature(x[held] @ weight + bias, y[held])


class _Herding(Strategy):
    """Of more than 35,000 candidates so many are drawn at random: the record has which, as its `candidates`."""

    starts_empty = True

    def candidates(self, unlabelled: Tensor, cycle: int, generator: torch.Generator) -> Tensor:
        found = super().candidates(unlabelled, cycle, generator)
        if len(found) <= MOST_CANDIDATES:
            return found
        return found[torch.randperm(len(found), generator=generator)[:MOST_CANDIDATES].sort().values]

    def choose(self, pool: Pool, weight: Tensor | None, delta: float | None, budget: int) -> Query:
        empty = not len(pool.labelled)
        points = unit_rows(pool.features, pool.features[:0] if empty else pool.labelled_features)
        count = len(pool.candidates)
        weight = points.new_ones(count) if weight is None else weight
        delta = nearest_labelled(points[count:]) if delta is None else delta
        positions, gains = _herd(points[:count], points[count:], weight, budget, delta)
        return Query(pool.candidates[positions.to(pool.candidates.device)], gains)


@register("max_herding")
class MaxHerding(_Herding):
    """Cover by a kernel. A candidate's utility is its mean gain beyond the labelled images, before the query."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        return self.choose(pool, None, self.experiment.herding_delta, budget)


@register("uncertainty_herding")
class UncertaintyHerding(_Herding):
    """Cover what is uncertain. A candidate's utility is its mean weighted gain beyond the labelled images."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        if not len(pool.labelled):
            return self.choose(pool, None, 1.0, budget)
        features = pool.labelled_model_features
        temperature = held_out_temperature(features, pool.labels, pool.num_classes, generator)
        return self.choose(pool, 1 + margin(pool.logits / temperature), None, budget)
