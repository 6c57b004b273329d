"""LL4AL: query the images whose loss the loss module predicts to be highest (Yoo & Kweon, CVPR 2019)."""

from __future__ import annotations

import torch

from alkit.strategies.base import Pool, Query, Strategy, register, top_query


@register("predicted_loss")
class PredictedLoss(Strategy):
    """The candidates of highest predicted loss."""

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        return top_query(pool, pool.predicted_loss, budget)
