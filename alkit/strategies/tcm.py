"""TCM: TypiClust while labels are few, margin after (Doucet et al., 2024)."""

from __future__ import annotations

import torch

from alkit.strategies.base import Pool, Query, Strategy, register, top_query
from alkit.strategies.typiclust import TypiClust
from alkit.strategies.uncertainty import in_blocks, margin


@register("tcm")
class TCM(Strategy):
    """TypiClust's query for the first `tcm_switch` queries, from nothing or from a first labelled set; then margin's.

    Utilities are theirs: typicality, then −(p(1) − p(2)).
    """

    starts_empty = True

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        before = 0 if self.experiment.initial else 1  # with no first labels, a query is made before cycle 1
        if pool.cycle + before <= self.experiment.tcm_switch:
            return TypiClust(self.experiment).query(pool, budget, generator)
        return top_query(pool, in_blocks(margin, pool.logits), budget)
