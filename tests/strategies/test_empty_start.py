"""Strategies that can choose while nothing is labelled and no model is there, and what all answer when none is left."""

import pytest
import torch

from alkit import Experiment
from alkit.methods import METHODS
from alkit.strategies import (
    TensorPool,
    alfa_mix,
    badge,
    bait,
    coreset,
    dcom,
    dropquery,
    herding,
    make_strategy,
    probcover,
    typiclust,
)

CAN = {"max_herding", "uncertainty_herding", "tcm", "dcom"}


def test_these_methods_can_start_empty():
    assert {name for name in METHODS if make_strategy(Experiment(method=name)).starts_empty} >= CAN


@pytest.mark.parametrize("method", sorted(CAN))
@pytest.mark.parametrize("count", [1, 12, 60])
@pytest.mark.parametrize("kind", ["varied", "constant", "zero"])
def test_a_first_query_looks_at_nothing_but_features(method, count, kind):
    features = torch.randn(count, 6, generator=torch.Generator().manual_seed(0)) * (kind == "varied")
    features = features + (kind == "constant")
    none = torch.empty(0, dtype=torch.int64)
    kind_of = {"features": features, "labelled_features": features[:0]}  # all that is there: anything else raises
    pool = TensorPool(torch.arange(count) * 2, none, none, 3, cycle=0, **kind_of)
    budget = min(4, count)
    answer = make_strategy(Experiment(method=method)).query(pool, budget, torch.Generator().manual_seed(1))
    assert len(set(answer.indices.tolist())) == budget
    assert set(answer.indices.tolist()) <= set(pool.candidates.tolist())
    assert answer.utilities.shape == (count,)
    assert bool(answer.utilities.isfinite().all())


def source():
    return torch.Generator().manual_seed(0)


NO, NO_LOGITS, LAST = torch.empty(0, 4), torch.empty(0, 2), torch.ones(4, 2)
PURE = {
    "k_center_greedy": lambda known, labels: coreset.k_center_greedy(NO, known, 0),
    "cover_greedily": lambda known, labels: probcover.cover_greedily(NO, known, 0, 0.5),
    "probcover": lambda known, labels: probcover.probcover(NO, known, 2, 0, source()),
    "dcom": lambda known, labels: dcom.dcom(NO, known, labels, NO_LOGITS, 2, 0, source()),
    "typiclust": lambda known, labels: typiclust.typiclust(NO, known, 0, source()),
    "max_herding": lambda known, labels: herding.max_herding(NO, known, 0),
    "uncertainty_herding": lambda known, labels: herding.uncertainty_herding(NO, known, torch.empty(0), 0),
    "badge": lambda known, labels: badge.badge(NO_LOGITS, NO, 0, source()),
    "bait": lambda known, labels: bait.bait(NO, NO_LOGITS, known, known @ LAST, 0),
    "dropquery": lambda known, labels: dropquery.dropquery(NO, lambda x: x @ LAST, 0, source()),
    "alfa_mix": lambda known, labels: alfa_mix.alfa_mix(NO, lambda x: x @ LAST, known, labels, 2, 0, source()),
}


@pytest.mark.parametrize("name", PURE)
@pytest.mark.parametrize("labelled", [0, 3])
def test_of_no_candidates_none_is_asked(name, labelled):
    answer = PURE[name](torch.randn(labelled, 4, generator=source()), torch.arange(labelled) % 2)
    for part in answer if isinstance(answer, tuple) else (answer,):
        assert part.shape == (0,)
    assert (answer[0] if isinstance(answer, tuple) else answer).dtype == torch.int64
