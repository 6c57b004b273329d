"""BAIT: the images that make the Fisher information of the last layer small (Ash et al., NeurIPS 2021)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from alkit.data import Facts
from alkit.errors import ConfigError
from alkit.models import feature_width
from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.coreset import check_features

Form = Literal["binary", "full"]
LARGEST_FISHER = 4096  # rows of the full form's Fisher matrix: C·D
DOUBLE = 1 << 24  # features of so many numbers are held in float64
BLOCK = 1 << 22  # numbers in a temporary matrix


@dataclass(frozen=True)
class _Rows:
    """V_x = s_x ⊗ z_x of n images, r rows of q·D numbers each, never formed: s (n, r, q) float64, z (n, D)."""

    s: Tensor
    z: Tensor

    @classmethod
    def of(cls, features: Tensor, logits: Tensor, form: Form) -> _Rows:
        p = logits.to(features.device).double().softmax(1)
        if form == "binary":  # the two rows √π_j·(1[j = 0] − p(1))·z are multiples of z: one row of their joint length
            top, index = p.max(1)
            rest = p.scatter(1, index[:, None], 0).sum(1)  # 1 − p(1), exact where p(1) rounds to 1
            return cls((top * rest).sqrt()[:, None, None], features)
        return cls(
            p.sqrt()[:, :, None] * (torch.eye(p.shape[1], dtype=p.dtype, device=p.device) - p[:, None, :]), features
        )

    def __getitem__(self, which: Tensor) -> _Rows:
        return _Rows(self.s[which], self.z[which])

    def scaled(self, factor: float) -> _Rows:
        return _Rows(self.s * factor, self.z)

    def double(self) -> _Rows:
        return _Rows(self.s, self.z.to(self.s.dtype))

    def times(self, matrix: Tensor) -> Tensor:
        """V_x·matrix of every image, (n, r, k), for a matrix (q·D, k)."""
        q, k = self.s.shape[2], matrix.shape[1]
        columns = matrix.view(q, -1, k).permute(1, 0, 2).reshape(-1, q * k).to(self.z.dtype)
        result = []
        size = max(BLOCK // columns.shape[1], 1)
        for s, z in zip(self.s.split(size), self.z.split(size), strict=True):
            result.append(s @ (z @ columns).to(s.dtype).view(-1, q, k))
        return torch.cat(result)

    def matrix(self) -> Tensor:
        """V of every image, (n, r, q·D): for a few."""
        return (self.s[..., None] * self.z[:, None, None, :].to(self.s.dtype)).flatten(2)

    def fisher(self) -> Tensor:
        """Σ VᵀV, (q·D, q·D)."""
        width = self.s.shape[2] * self.z.shape[1]
        total = torch.zeros(width, width, dtype=self.s.dtype, device=self.s.device)
        size = max(BLOCK // (self.s.shape[1] * width), 1)
        for s, z in zip(self.s.split(size), self.z.split(size), strict=True):
            rows = _Rows(s, z).matrix().flatten(0, 1)
            total.addmm_(rows.T, rows)
        return total


class _Exchange:
    """Gains of images that are added to, or with `sign` −1 removed from, the inverse M of the Fisher information.

    G = V·M·Vᵀ and H = V·M·F·M·Vᵀ of every image, (n, r, r), follow M by what one image changes, so a pick costs one
    product of z with a few columns.
    """

    def __init__(self, rows: _Rows, inverse: Tensor, fisher: Tensor, sign: int) -> None:
        self.rows, self.inverse, self.fisher, self.sign = rows, inverse, fisher, sign
        self.g, self.h = self._quadratic(inverse), self._quadratic(inverse @ fisher @ inverse)
        self.eye = sign * torch.eye(self.g.shape[1], dtype=self.g.dtype, device=self.g.device)
        self.open = torch.ones(len(self.g), dtype=torch.bool, device=self.g.device)

    def _quadratic(self, middle: Tensor) -> Tensor:
        """V·middle·Vᵀ of every image, (n, r, r)."""
        result = []
        for start in range(0, len(self.rows.s), max(BLOCK // len(middle), 1)):
            part = slice(start, start + max(BLOCK // len(middle), 1))
            some = _Rows(self.rows.s[part], self.rows.z[part])
            v = some.matrix()
            result.append((v.flatten(0, 1) @ middle).view_as(v) @ v.mT)
        return torch.cat(result)

    def gains(self) -> Tensor:
        """sign·tr(H·(sign·I + G)⁻¹) of every image: how much the trace of M·F falls, or rises."""
        traces: Tensor = torch.linalg.solve(self.eye + self.g, self.h).diagonal(dim1=1, dim2=2).sum(1)
        return self.sign * traces

    def take(self) -> Tensor:
        """Take the image of the largest gain (to be removed: the smallest loss), the lowest on a tie."""
        gains = self.gains()
        key = torch.where(self.open, self.sign * gains, -torch.inf)
        best = key.amax()
        chosen = (key >= best - 1e-12 * best.abs()).nonzero()[0]
        self.open = self.open.index_fill(0, chosen, False)
        v = self.rows[chosen].matrix()[0]
        u = self.inverse @ v.T
        fu = self.fisher @ u
        mfu = self.inverse @ fu
        k = torch.linalg.inv(self.eye + v @ u)
        a, b = self.rows.times(torch.cat([u, mfu], 1)).split(u.shape[1], 2)
        ak = a @ k
        cross = ak @ b.mT
        self.g = self.g - ak @ a.mT
        self.h = self.h - cross - cross.mT + ak @ (u.T @ fu) @ ak.mT
        self.inverse = self.inverse - u @ k @ u.T
        return chosen


@torch.no_grad()
def bait(
    features: Tensor,
    logits: Tensor,
    labelled_features: Tensor,
    labelled_logits: Tensor,
    budget: int,
    form: Form = "binary",
    ridge: float = 1.0,
) -> Tensor:
    """Positions (budget,) int64, in the order they were added, into `features` (n, D) with `logits` (n, C).

    With B the budget and m `labelled_features` (m may be 0): an image's V has the rows √p_j·(e_j − p) ⊗ z of C·D
    numbers (`form` "full"), or for the two outcomes "the predicted class" and "another" the rows
    √π_j·(1[j = 0] − p(1))·z of D numbers ("binary", Huseljic et al., 2024). F is the mean of VᵀV over candidates and
    labelled images, F_L over the labelled. From M = (ridge·I + F_L·m/(m + B))⁻¹, with V·√(B/(m + B)), 2B candidates are
    added one by one, each the one of largest tr(V M F M Vᵀ (I + V M Vᵀ)⁻¹), and then all but B taken away again, each
    the one of least −tr(V M F M Vᵀ (−I + V M Vᵀ)⁻¹); M follows by Woodbury's identity. Ties go to the lowest position.

    Time O(n·D) a pick (full: O(n·D·C²)), memory linear in n; the Fisher matrix has D² numbers (full: (C·D)²).
    Raises `ValueError` for values that are not finite, a budget outside 0..n, a `ridge` of 0 or less, another form, and
    for the full form of more than 4,096 = C·D. Ash et al., NeurIPS 2021.
    """
    count, known = len(features), len(labelled_features)
    if len(logits) != count or len(labelled_logits) != known or not 0 <= budget <= count:
        raise ValueError(f"budget: expected 0 to {count} candidates with as many logits, not {budget}")
    if form not in ("binary", "full"):
        raise ValueError(f"form: expected binary or full, not {form!r}")
    if not ridge > 0:
        raise ValueError(f"ridge: expected a number above 0, not {ridge}")
    if form == "full":
        check_full(logits.shape[1], features.shape[1])
    check_features(features, labelled_features)
    check_features(logits, labelled_logits)
    if not budget:
        return torch.empty(0, dtype=torch.int64, device=features.device)
    z = features.double() if features.numel() <= DOUBLE else features
    pool = _Rows.of(z, logits, form)
    fisher, start = (
        pool.fisher(),
        ridge * torch.eye(pool.s.shape[2] * z.shape[1], dtype=pool.s.dtype, device=pool.s.device),
    )
    if known:
        of_labelled = _Rows.of(labelled_features.to(z), labelled_logits, form).fisher()
        fisher, start = fisher + of_labelled, start + of_labelled / (known + budget)
    fisher = fisher / (count + known)
    pool = pool.scaled((budget / (known + budget)) ** 0.5)
    forward = _Exchange(pool, torch.linalg.inv(start), fisher, 1)
    added = torch.cat([forward.take() for _ in range(min(2 * budget, count))])
    backward = _Exchange(pool[added].double(), forward.inverse, fisher, -1)
    for _ in range(len(added) - budget):
        backward.take()
    return added[backward.open]


def check_full(classes: int, width: int) -> None:
    """Refuse, by a `ValueError`, a Fisher matrix of more than `LARGEST_FISHER` rows."""
    if classes * width > LARGEST_FISHER:
        size = f"{classes} classes × {width} features"
        raise ValueError(f"form: the full one takes at most {LARGEST_FISHER} = classes × features, not {size}")


@register("bait")
class Bait(Strategy):
    """Least Fisher information left, on the current model's last layer. A candidate's utility is p(1)·(1 − p(1))·‖z‖²:
    what it adds to the information of the binary form."""

    def check(self, facts: Facts) -> None:
        if self.experiment.bait_form == "full":
            try:
                check_full(facts.classes, feature_width(self.experiment, facts.shape, facts.classes))
            except ValueError as error:
                raise ConfigError(f"bait_{error}") from None

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        e, features, logits = self.experiment, pool.model_features, pool.logits
        positions = bait(
            features, logits, pool.labelled_model_features, pool.labelled_logits, budget, e.bait_form, e.bait_ridge
        )
        top = logits.double().softmax(1).amax(1)
        utilities = top * (1 - top) * features.norm(dim=1).double().square()  # no copy of the features
        return Query(pool.candidates[positions.to(pool.candidates.device)], utilities)
