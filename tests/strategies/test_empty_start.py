"""Strategies that can choose while nothing is labelled and no model is there."""

import pytest
import torch

from alkit import Experiment
from alkit.methods import METHODS
from alkit.strategies import TensorPool, make_strategy

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
