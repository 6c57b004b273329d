"""What a run knows between two epochs, and the arrays that are kept of it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor


@dataclass
class State:
    """All that a run knows at the end of an epoch: index arrays, records, and the training under way."""

    queries: list[Tensor] = field(default_factory=list)  # what each cycle bought; the first is the first labelled set
    masses: list[Tensor | None] = field(default_factory=list)
    utilities: list[Tensor] = field(default_factory=list)
    candidates: list[Tensor] = field(default_factory=list)
    left: Tensor | None = None  # the pool, with repeats, under random_with_replacement; else it is what is not bought
    records: list[dict[str, Any]] = field(default_factory=list)
    predictions: list[dict[str, Tensor]] = field(default_factory=list)
    carried: dict[str, Any] | None = None  # weights for the next cycle, under the quirk warm_start
    training: dict[str, Any] | None = None  # of the cycle under way
    chooser: dict[str, Any] | None = None  # the trained model that makes this cycle's query, where it is another one
    carried_chooser: dict[str, Any] | None = None  # its weights for the next cycle, under the quirk warm_start
    started: str = ""
    code: list[str] = field(default_factory=list)  # the versions of the kit that the run was made with

    @property
    def labelled(self) -> Tensor:
        """(m,) int64 in the order bought."""
        return torch.cat(self.queries) if self.queries else torch.empty(0, dtype=torch.int64)

    def query_arrays(self) -> dict[str, np.ndarray]:
        """`query_c` (what cycle c bought), and where a strategy chose it (c ≥ 2; with `initial: 0` from 1 on)
        `candidates_c`, `utilities_c` and, where drawn, `masses_c`."""
        arrays = {f"query_{c}": query.numpy() for c, query in enumerate(self.queries, 1)}
        first = 1 + len(self.queries) - len(self.candidates)
        for c, (candidates, utilities) in enumerate(zip(self.candidates, self.utilities, strict=True), first):
            arrays[f"candidates_{c}"], arrays[f"utilities_{c}"] = candidates.numpy(), utilities.numpy()
        arrays |= {f"masses_{c}": m.numpy() for c, m in enumerate(self.masses, 1) if m is not None}
        return arrays

    def prediction_arrays(self) -> dict[str, np.ndarray]:
        """Test predictions a cycle, stacked (cycles, n), and `logits_last` (n, C) of the last cycle."""
        done = self.predictions
        stacked = {k: torch.stack([p[k] for p in done]).numpy() for k in done[0] if k != "logits_last"}
        return stacked | {"logits_last": done[-1]["logits_last"].numpy()}


def pool_after(unlabelled: Tensor, candidates: Tensor, returned: Tensor) -> Tensor:
    """The pool (k,), ascending, with repeats: `unlabelled` with `returned` in place of its part `candidates`."""
    size = int(unlabelled.max()) + 1
    count = [torch.bincount(part, minlength=size) for part in (unlabelled, candidates, returned)]
    return torch.arange(size).repeat_interleave(count[0] - count[1] + count[2])
