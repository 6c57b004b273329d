"""The two-layer graph network of Sequential GCN (Caramalau et al., CVPR 2021)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn


class GCN(nn.Module):
    """h = ReLU(A·X·W1 + b1), dropout, logits = A·h·W2 + b2: is a node labelled?

    Weights and biases are drawn uniformly from ±1/√(out features), from `generator` (on the CPU) alone if given.
    """

    def __init__(
        self, in_features: int, hidden: int = 128, dropout: float = 0.3, generator: torch.Generator | None = None
    ) -> None:
        super().__init__()
        self.dropout = dropout

        def uniform(*shape: int) -> nn.Parameter:
            reach = shape[-1] ** -0.5
            return nn.Parameter(torch.empty(shape).uniform_(-reach, reach, generator=generator))

        self.weight1, self.bias1 = uniform(in_features, hidden), uniform(hidden)
        self.weight2, self.bias2 = uniform(hidden, 1), uniform(1)

    def hidden(self, smoothed: Tensor) -> Tensor:
        """h (n, hidden) before dropout, of `smoothed` = A·X (n, D)."""
        return torch.addmm(self.bias1, smoothed, self.weight1).relu_()

    def forward(self, smoothed: Tensor, product: Callable[[Tensor], Tensor], keep: Tensor | None = None) -> Tensor:
        """Logits (n,) for `smoothed` = A·X (n, D) and `product`, which maps H (n, k) to A·H.

        `keep` (n, hidden), bool, says what dropout lets through; None: no dropout, as in evaluation.
        """
        h = self.hidden(smoothed)
        if keep is not None:
            h = h * keep / (1 - self.dropout)
        return (product(h @ self.weight2) + self.bias2)[:, 0]
