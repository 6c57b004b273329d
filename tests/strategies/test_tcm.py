"""TCM (Doucet et al., 2024): TypiClust for the first `tcm_switch` queries, margin after."""

from __future__ import annotations

import pytest
import torch

from alkit import Experiment
from alkit.strategies import TensorPool, make_strategy

N, M, C = 60, 12, 4


def pool(cycle: int, labelled: int) -> TensorPool:
    draw = torch.Generator().manual_seed(7)
    features = torch.randn(N + M, 5, generator=draw)
    return TensorPool(
        torch.arange(N), torch.arange(N, N + labelled), torch.arange(labelled) % C, C, cycle=cycle,
        features=features[:N], labelled_features=features[N : N + labelled], logits=torch.randn(N, C, generator=draw),
    )  # fmt: skip


def asked(method: str, given: TensorPool, **parameters: object) -> list[int]:
    strategy = make_strategy(Experiment(method=method, **parameters))
    return strategy.query(given, 6, torch.Generator().manual_seed(3)).indices.tolist()


def by_margin(given: TensorPool) -> list[int]:
    """The six smallest differences of the two highest probabilities, by sorting in plain Python."""
    differences = []
    for row in given.logits.double().softmax(1).tolist():
        first, second = sorted(row)[:-3:-1]
        differences.append(first - second)
    return sorted(range(N), key=lambda k: differences[k])[:6]


@pytest.mark.parametrize("switch", [1, 3])
@pytest.mark.parametrize("initial", [0, 12])
def test_the_first_queries_are_typiclust_s_and_those_after_are_margin_s(initial: int, switch: int) -> None:
    first = 1 if initial else 0  # cycle of the first query: before any model, or after the first training
    for number in range(1, switch + 3):
        given = pool(first + number - 1, M if initial else (number > 1) * M)
        found = asked("tcm", given, initial=initial, tcm_switch=switch)
        typical, close = asked("typiclust", given), by_margin(given)
        assert set(typical) != set(close)
        assert found == (typical if number <= switch else close), f"query {number}"
