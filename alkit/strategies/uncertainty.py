"""Scores from one forward pass: how uncertain the model is of each candidate.

All are computed and returned in float64, and raise `ValueError` for tensors of another shape.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alkit.errors import ConfigError
from alkit.strategies.base import Pool, Query, Strategy, register, top_query

if TYPE_CHECKING:
    from alkit.config import Experiment
    from alkit.data import Facts

BLOCK = 1 << 18  # numbers of a block: its float64 copies stay in cache


def in_blocks(score: Callable[[Tensor], Tensor], outputs: Tensor, candidates: int = 0) -> Tensor:
    """`score` of `outputs`, a block of candidates (the dimension `candidates`) at a time: little memory is taken."""
    size = max(BLOCK // max(outputs.shape[-1], 1), 1)
    return torch.cat([score(part) for part in outputs.split(size, candidates)])


def _sorted_probabilities(logits: Tensor) -> Tensor:
    """Probabilities (N, C), each row descending."""
    if logits.ndim != 2 or logits.shape[1] < 1:
        raise ValueError(f"expected logits (N, C), not {tuple(logits.shape)}")
    ordered: Tensor = logits.double().softmax(1).sort(1, descending=True).values
    return ordered


def least_confidence(logits: Tensor) -> Tensor:
    """1 − p(1) for logits (N, C); utilities (N,) in 0..1. Lewis & Gale, 1994."""
    return 1 - _sorted_probabilities(logits)[:, 0]


def margin(logits: Tensor) -> Tensor:
    """−(p(1) − p(2)) for logits (N, C); utilities (N,) in −1..0; 0 where there is one class. Scheffer et al., 2001."""
    p = _sorted_probabilities(logits)
    gap: Tensor = p[:, 1] - p[:, 0] if p.shape[1] > 1 else torch.zeros_like(p[:, 0])
    return gap


def entropy(logits: Tensor) -> Tensor:
    """−Σ p log p in nats for logits (N, C), with 0·log 0 = 0; utilities (N,) in 0..log C. Shannon, 1948."""
    p = _sorted_probabilities(logits)
    summed: Tensor = torch.special.entr(p).sum(1)
    return summed


def ranked_margin(logits: Tensor) -> Tensor:
    """RankedMS: −Σ_{i<C} (p(i) − p(i+1)) / i over descending p, for logits (N, C); utilities (N,) in −1..0.

    Every gap between neighbours counts, the first most. OO4AL (Hwang et al., 2024).
    """
    p = _sorted_probabilities(logits)
    ranks = torch.arange(1, p.shape[1], device=p.device, dtype=p.dtype)
    summed: Tensor = ((p[:, :-1] - p[:, 1:]) / ranks).sum(1)
    return -summed


def bald(log_probs: Tensor) -> Tensor:
    """H[mean_s p_s] − mean_s H[p_s] in nats, clipped at 0, for log-probabilities (S, N, C); utilities (N,).

    The mutual information between an image's label and the model's posterior. Houlsby et al., 2011.
    """
    if log_probs.ndim != 3:
        raise ValueError(f"expected log-probabilities (S, N, C), not {tuple(log_probs.shape)}")
    mean = torch.zeros(log_probs.shape[1:], dtype=torch.float64, device=log_probs.device)
    expected = torch.zeros(log_probs.shape[1], dtype=torch.float64, device=log_probs.device)
    for sample in log_probs:  # one sample at a time: memory of (N, C), whatever S is
        p = sample.double().exp()
        mean += p
        expected += torch.special.entr(p).sum(1)
    count = len(log_probs)
    information: Tensor = torch.special.entr(mean / count).sum(1) - expected / count
    return information.clamp_min(0)


SCORES = {
    "least_confidence": least_confidence,
    "margin": margin,
    "entropy": entropy,
    "ranked_margin": ranked_margin,
}


@register(*SCORES)
class Uncertainty(Strategy):
    """The candidates of highest score."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        return top_query(pool, in_blocks(SCORES[self.experiment.row.strategy], pool.logits), budget)


@register("bald")
class Bald(Strategy):
    """The candidates on which posterior samples disagree most."""

    def check(self, facts: Facts) -> None:
        check_disagreement(self.experiment)

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        return top_query(pool, in_blocks(bald, pool.log_probs, 1), budget)


def check_disagreement(experiment: Experiment) -> None:
    """Refuse a posterior whose samples are all alike: every candidate would then tie, and the first ones be asked."""
    if experiment.posterior_samples < 2:
        raise ConfigError(
            f"posterior_samples: method '{experiment.method}' asks where samples disagree; expected at least 2, not 1"
        )
    if experiment.dropout == 0 and experiment.model != "radial_cnn":
        raise ConfigError(
            f"dropout: method '{experiment.method}' asks where samples of the model disagree, and with dropout 0 they "
            "are all alike; expected above 0, or null"
        )


def random_utilities(count: int, generator: torch.Generator) -> Tensor:
    """One uniform number a candidate, (count,): the highest are a uniform draw without replacement."""
    return torch.rand(count, generator=generator, dtype=torch.float64)


@register("random")
class Random(Strategy):
    """A uniform draw.

    The quirk `random_with_replacement` draws as many times as there are candidates, with repeats, and asks for the
    last `budget` draws. The other draws are what goes back into the pool, labelled images among them; candidates that
    were never drawn leave it.
    """

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        count = len(pool.candidates)
        if not self.experiment.quirk("random_with_replacement"):
            return top_query(pool, random_utilities(count, generator), budget)
        drawn = torch.randint(count, (count,), generator=generator)
        seen = torch.bincount(drawn, minlength=count)
        return Query(pool.candidates[drawn[-budget:]], seen.double(), returned=pool.candidates[drawn[:-budget]])


@register("calibrated")
class Calibrated(Strategy):
    """Temperature scaling: the pool's logits are already divided by T; `ts_selection` names the score."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        name = self.experiment.ts_selection
        if name == "random":
            return top_query(pool, random_utilities(len(pool.candidates), generator), budget)
        return top_query(pool, in_blocks(SCORES[name], pool.logits), budget)
