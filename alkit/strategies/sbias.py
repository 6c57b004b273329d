"""Draw the query from a known proposal, so that the bias it brings is known and can be removed.

On Statistical Bias in Active Learning (Farquhar, Gal & Rainforth, ICLR 2021).
"""

from __future__ import annotations

from itertools import permutations
from typing import Any

import torch
from torch import Tensor

from alkit.data import Facts
from alkit.strategies.base import Pool, Query, Strategy, register
from alkit.strategies.uncertainty import bald, check_disagreement, in_blocks

TINY = torch.finfo(torch.float64).tiny


def pure_weights(masses: Any, pool_size: int) -> Tensor:
    """R_pure: w_m = (1/q_m + M − m)/N, float64 (M,), for the masses q (M,) of M draws, in order, from N pool points.

    q_m is the probability with which the m-th point was drawn from those that were left. The mean of weights × losses
    is an unbiased estimate of the pool's mean loss; `lure_weights` do the same with less variance. Raises `ValueError`
    for more draws than points and for masses outside 0..1 (0 excluded). Farquhar et al., ICLR 2021.
    """
    q, m = _draws(masses, pool_size)
    return (1 / q + len(q) - m) / pool_size


def lure_weights(masses: Any, pool_size: int) -> Tensor:
    """R_lure: w_m = 1 + (N − M)/(N − m)·(1/((N − m + 1)·q_m) − 1), 1 for m = N; float64 (M,), as `pure_weights`."""
    q, m = _draws(masses, pool_size)
    left = (pool_size - m).clamp_min(1)  # m = N comes only with M = N, where the factor before is 0
    return 1 + (pool_size - len(q)) / left * (1 / ((pool_size - m + 1) * q) - 1)


def _draws(masses: Any, pool_size: int) -> tuple[Tensor, Tensor]:
    """The masses and the numbers 1..M of the draws, float64 (M,)."""
    q = torch.as_tensor(masses).double()
    if q.ndim != 1 or len(q) > pool_size:
        raise ValueError(f"masses: expected (M,) with M at most the pool's {pool_size}, not {tuple(q.shape)}")
    if not bool(((q > 0) & (q <= 1 + 1e-9)).all()):
        raise ValueError("masses: expected probabilities above 0")
    return q, torch.arange(1, len(q) + 1, dtype=torch.float64, device=q.device)


def log_proposal(scores: Tensor, kind: str = "softmax", temperature: float = 15_000.0) -> Tensor:
    """log q (n,) float64 for scores (n,) ≥ 0: `softmax` of temperature·score/Σscore, or `proportional` to the score.

    Uniform where all scores are 0. A score of 0 keeps a mass, if a vanishing one, under `proportional`: without it the
    bias could not be removed. Raises `ValueError` for scores that are negative or not finite, and for another `kind`.
    Farquhar et al., ICLR 2021.
    """
    values = scores.double()
    if values.ndim != 1 or len(values) == 0 or not bool((values.isfinite() & (values >= 0)).all()):
        raise ValueError("scores: expected (n,) finite numbers of at least 0")
    share = values / values.max().clamp_min(TINY)  # first by the largest: a sum of large scores may overflow
    share = share / share.sum().clamp_min(TINY)
    if kind == "softmax":
        unnormalised = temperature * share
    elif kind == "proportional":
        unnormalised = share.clamp_min(TINY).log()
    else:
        raise ValueError(f"proposal: expected softmax or proportional, not '{kind}'")
    return unnormalised.log_softmax(0)


def draw_without_replacement(log_q: Tensor, budget: int, generator: torch.Generator) -> tuple[Tensor, Tensor]:
    """Draw `budget` of n points one after another, each from `log_q` (n,) renormalised over the points left.

    Returns positions (budget,) int64 in the order drawn, and the probability (budget,) float64 with which each was
    drawn from those left. As an exponential race, in O(n log n): arrival times E_i/q_i come in the order of such draws.
    Raises `ValueError` for a budget outside 1..n.
    """
    if not 0 < budget <= len(log_q):
        raise ValueError(f"budget: expected 1 to {len(log_q)} points, not {budget}")
    log_q = log_q.double().cpu()
    waits = torch.empty(len(log_q), dtype=torch.float64).exponential_(generator=generator).clamp_min(TINY)
    order = (log_q - waits.log()).argsort(descending=True, stable=True)
    # the mass left at each draw, summed from the end: subtracting from 1 would lose the small ones
    left = log_q[order].flip(0).logcumsumexp(0).flip(0)
    drawn = order[:budget]
    return drawn, (log_q[drawn] - left[:budget]).exp().clamp(TINY, 1.0)


def predictive_entropy(log_probs: Tensor) -> Tensor:
    """Entropy in nats of the mean prediction, for log-probabilities (S, N, C); (N,) float64."""
    mean = torch.zeros(log_probs.shape[1:], dtype=torch.float64, device=log_probs.device)
    for sample in log_probs:
        mean += sample.double().exp()
    entropies: Tensor = torch.special.entr(mean / len(log_probs)).sum(1)
    return entropies.clamp_min(0)


def random_log_proposal(count: int, batch_size: int | None = None) -> Tensor:
    """log q (count,) float64 of random acquisition: uniform over all images.

    With `batch_size`, as the released program has it: a score of 1 a batch, not an image, so uniform over the first
    ⌈count/batch_size⌉ images. The others keep a vanishing mass, which is drawn from only when those are used up.
    """
    scored = count if batch_size is None else -(-count // batch_size)
    q = torch.full((count,), TINY, dtype=torch.float64)
    q[:scored] = 1 / scored
    return q.log()


def estimator_expectations(losses: Tensor, scores: Tensor, draws: int) -> dict[str, float]:
    """Exact expectations over all ordered draws of a tiny pool: the plain mean of the drawn losses, R_pure and R_lure.

    `losses` (N,); draws go by `scores` (N,) renormalised over the points left. `pool` is what they all estimate.
    """
    values, q, size = losses.double(), scores.double(), len(losses)
    result = {"pool": float(values.mean()), "plain": 0.0, "pure": 0.0, "lure": 0.0}
    for order in permutations(range(size), draws):
        left = q.sum() - torch.cat([torch.zeros(1, dtype=q.dtype), q[list(order)].cumsum(0)[:-1]])
        masses = q[list(order)] / left
        if not bool((masses > 0).all()):
            continue
        chance, drawn = float(masses.prod()), values[list(order)]
        result["plain"] += chance * float(drawn.mean())
        result["pure"] += chance * float((pure_weights(masses, size) * drawn).mean())
        result["lure"] += chance * float((lure_weights(masses, size) * drawn).mean())
    return result


@register("sbias")
class StatisticalBias(Strategy):
    """Draws from the proposal of `sbias_score`, one image after another; utilities are the proposal's masses.

    The whole pool is looked at whatever `subset` says: over a random part of it the draws' masses would not be known.
    The model that it looks with is trained without the weights (`ActiveLearner`).
    """

    def check(self, facts: Facts) -> None:
        if self.experiment.sbias_score == "mutual_information":
            check_disagreement(self.experiment)

    def candidates(self, unlabelled: Tensor, cycle: int, generator: torch.Generator) -> Tensor:
        return unlabelled

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        log_q = self._log_proposal(pool).cpu()
        drawn, masses = draw_without_replacement(log_q, budget, generator)
        return Query(pool.candidates[drawn.to(pool.candidates.device)], log_q.exp(), masses)

    def _log_proposal(self, pool: Pool) -> Tensor:
        experiment, kind = self.experiment, self.experiment.sbias_score
        if kind == "random":
            batch = experiment.batch_size if experiment.quirk("random_scores_per_batch") else None
            return random_log_proposal(len(pool.candidates), batch)
        scores = in_blocks(bald if kind == "mutual_information" else predictive_entropy, pool.log_probs, 1)
        return log_proposal(scores, experiment.sbias_proposal, experiment.sbias_temperature)
