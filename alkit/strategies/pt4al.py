"""PT4AL: batches ordered by a pretext task's losses, then a sampler within one batch a cycle (Yi et al., ECCV 2022)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.config import Experiment
from alkit.config.pretext import pool_settings
from alkit.data import Facts, ImageSet
from alkit.data.identity import pixels_digest
from alkit.errors import ConfigError
from alkit.storage.loss_files import as_text, read_losses
from alkit.strategies.base import Pool, Query, Strategy, register, top_query
from alkit.strategies.uncertainty import entropy, least_confidence

Indices = npt.NDArray[np.int64]
Order = Literal["numeric", "text"]


def loss_order(losses: Any, order: Order = "numeric", text: Sequence[str] | None = None) -> Indices:
    """The images (N,) by their pretext losses (N,), highest first; ties by lowest index.

    `text` order compares the losses as text, as the released program does (quirk `string_sorted_losses`): as `text`
    (N) where given, the lines of a file, else as Python's `str` writes them. Raises `ValueError` for a loss that is
    not a number.
    """
    values = np.asarray(losses, dtype=np.float64)
    if values.ndim != 1:
        raise ValueError(f"expected losses (N,), not {values.shape}")
    if np.isnan(values).any():
        raise ValueError(f"the loss of image {int(np.isnan(values).argmax())} is not a number")
    if order == "numeric":
        return np.argsort(-values, kind="stable").astype(np.int64)
    if order != "text":
        raise ValueError(f"expected order 'numeric' or 'text', not {order!r}")
    written = as_text(values.tolist()) if text is None else text
    if len(written) != len(values):
        raise ValueError(f"{len(written)} texts for {len(values)} losses")
    # Python's sort keeps equal elements in their order also where it is reversed
    return np.array(sorted(range(len(values)), key=written.__getitem__, reverse=True), dtype=np.int64)


def pretext_batches(
    losses: Any, num_batches: int, order: Order = "numeric", text: Sequence[str] | None = None
) -> list[Indices]:
    """Cut the images, highest pretext loss (N,) first, into `num_batches` equal batches of int64 indices.

    The last batch takes the remainder; nothing is dropped or repeated. `order` and `text` as in `loss_order`. Raises
    `ValueError` for fewer images than batches. Yi et al., PT4AL (ECCV 2022).
    """
    ordered = loss_order(losses, order, text)
    if not 1 <= num_batches <= len(ordered):
        raise ValueError(f"{len(ordered)} images cannot make {num_batches} batches")
    size = len(ordered) // num_batches
    return np.split(ordered, range(size, size * num_batches, size))


def evenly_spaced(batch: Indices, count: int) -> Indices:
    """`count` items of `batch` (B,), evenly spaced over its order: item ⌊k·B/count⌋ for k = 0 … count − 1."""
    if count > len(batch):
        raise ValueError(f"{len(batch)} items cannot give {count}")
    return batch[np.arange(count) * len(batch) // max(count, 1)]


def confidence(logits: Tensor, normalise: bool = False) -> Tensor:
    """Utilities (N,): 1 − the top-1 confidence of logits (N, C).

    `normalise` takes the softmax of L2-normalised logits (quirk `normalised_logit_confidence`): the confidence of C
    classes then lies between 1/C and e/(e + C − 1), whatever the network is sure of.
    """
    return least_confidence(F.normalize(logits.double(), dim=1) if normalise else logits)


def class_balanced(logits: Tensor, ranks: Tensor, budget: int) -> Tensor:
    """Utilities (N,) that ask for the first ⌊budget/C⌋ images of each predicted class, then for the rest in turn.

    `ranks` (N,) say which image comes first. Within both parts images come in that order.
    """
    predicted, quota = logits.argmax(1), budget // logits.shape[1]
    order = torch.argsort(ranks, stable=True)
    within = F.one_hot(predicted[order], logits.shape[1]).cumsum(0).gather(1, predicted[order, None])[:, 0]
    asked = torch.cat([order[within <= quota], order[within > quota]])
    utilities = torch.empty(len(asked), dtype=torch.float64, device=logits.device)
    utilities[asked] = torch.arange(len(asked), 0, -1, dtype=torch.float64, device=logits.device)
    return utilities


@register("pt4al")
class Pt4al(Strategy):
    """The first query evenly over batch 0; the query of cycle i from what is left of batch i, and no other.

    There are as many batches as cycles, made of the losses in `pretext_losses`; `subset` plays no part. Should a batch
    hold fewer images than are to be bought (a large budget, validation images), the images that follow it in the order
    of losses are added, up to the number needed.
    """

    def check(self, facts: Facts) -> None:
        e = self.experiment
        if facts.pool < e.cycles:
            raise ConfigError(f"cycles: {facts.pool} images cannot make {e.cycles} batches")
        if e.pretext_losses is not None and Path(e.pretext_losses).is_file():  # a finished run no longer needs it
            self._check_length(facts.pool)

    def first_query(self, unlabelled: Tensor, count: int) -> Tensor | None:
        return torch.from_numpy(evenly_spaced(self._left(self._first_batch, unlabelled, count), count))

    def candidates(self, unlabelled: Tensor, cycle: int, generator: torch.Generator) -> Tensor:
        return torch.from_numpy(self._left(cycle, unlabelled, self.experiment.quota)).sort().values

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        sampler = self.experiment.pt4al_sampler
        if sampler == "entropy":
            utilities = entropy(pool.logits)
        elif sampler == "class_balanced":
            ranks = torch.from_numpy(self._rank)[pool.candidates.cpu()].to(pool.logits.device)
            utilities = class_balanced(pool.logits, ranks, budget)
        else:
            utilities = confidence(pool.logits, self.experiment.quirk("normalised_logit_confidence"))
        return top_query(pool, utilities, budget)

    @cached_property
    def batches(self) -> list[Indices]:
        """The pool in batches, highest pretext loss first."""
        content, experiment = losses_of(self.experiment), self.experiment
        if len(content) < experiment.cycles:
            raise ConfigError(f"cycles: {len(content)} images cannot make {experiment.cycles} batches")
        return pretext_batches(content.losses, experiment.cycles, order_of(experiment), content.text)

    @property
    def _first_batch(self) -> int:
        """Batch 0; under the quirk `cold_start_batch_5` batch 5, or the last of fewer."""
        return min(5, len(self.batches) - 1) if self.experiment.quirk("cold_start_batch_5") else 0

    @cached_property
    def _rank(self) -> Indices:
        """The place (N,) of each image in the order of losses."""
        ordered = np.concatenate(self.batches)
        rank = np.empty_like(ordered)
        rank[ordered] = np.arange(len(ordered))
        return rank

    def _left(self, number: int, unlabelled: Tensor, needed: int) -> Indices:
        """What is left of batch `number`, in its order; filled up to `needed` from the batches after it, and around."""
        free = np.zeros(len(self._rank), dtype=bool)
        free[unlabelled.cpu().numpy()] = True
        number = min(number, len(self.batches) - 1)
        left = self.batches[number][free[self.batches[number]]]
        if len(left) < needed:
            following = np.concatenate([*self.batches[number + 1 :], *self.batches[:number]])
            left = np.concatenate([left, following[free[following]][: needed - len(left)]])
        return left

    def _check_length(self, pool_size: int) -> None:
        found = sum(len(batch) for batch in self.batches)
        if found != pool_size:
            raise ConfigError(
                f"pretext_losses: {self.experiment.pretext_losses} holds {found} losses, "
                f"the pool has {pool_size} images"
            )


def order_of(experiment: Experiment) -> Order:
    """`pt4al_order`, or `text` under the quirk `string_sorted_losses`."""
    return "text" if experiment.quirk("string_sorted_losses") else experiment.pt4al_order


def losses_of(experiment: Experiment) -> Any:
    """The `PretextLosses` that the experiment names.

    Raises `ConfigError` where it names none, or those of another pool; `DataError` for a file that cannot be read.
    """
    if experiment.pretext_losses is None:
        raise ConfigError(
            f"pretext_losses: '{experiment.method}' needs the losses of its pretext task (`alkit run` computes them "
            "for a study and alkit.notebook.run for a single run; by hand: papermill notebooks/pretext.ipynb "
            "LOG.ipynb -p out_file pretext.npz)"
        )
    content = read_losses(experiment.pretext_losses)
    for name, wanted in pool_settings(experiment).items():
        if content.settings and content.settings.get(name) != wanted:
            raise ConfigError(
                f"pretext_losses: {experiment.pretext_losses} is of a pool with {name} = "
                f"{content.settings.get(name)!r}, not {wanted!r}"
            )
    return content


def check_losses(experiment: Experiment, train: ImageSet) -> None:
    """Refuse losses of other images than the pool `train`, with a `ConfigError`; else as `losses_of`.

    Losses in text files, and of versions that did not know their images, are taken as they are.
    """
    known, found = losses_of(experiment).settings.get("pixels"), pixels_digest(train)
    if known not in (None, found):
        raise ConfigError(
            f"pretext_losses: {experiment.pretext_losses} is of other images (the SHA-256 of their pixels is {known}, "
            f"of the pool's {found})"
        )


__all__ = [
    "Pt4al", "check_losses", "class_balanced", "confidence", "evenly_spaced", "loss_order", "losses_of", "order_of",
    "pretext_batches",
]  # fmt: skip
