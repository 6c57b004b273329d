"""Heads: what is trained on fixed features in place of a network of images."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from alkit.models.dropout import Dropout


class Head(nn.Module):
    """A linear layer on features (B, D, 1, 1) or (B, D), after one hidden layer of `hidden` ReLUs if that is not 0.

    To logits (B, num_classes). Its penultimate features are the input of its last layer: for a linear head the fixed
    features themselves. Training may fuse features (CMaM) at layer 0, the input, or at layer 1, the hidden layer.
    """

    def __init__(self, num_classes: int, inputs: int, hidden: int = 0, dropout: float = 0.0) -> None:
        super().__init__()
        self.hidden = nn.Linear(inputs, hidden) if hidden else None
        self.feature_dim = hidden or inputs
        self.dropout = Dropout(dropout)
        self.linear = nn.Linear(self.feature_dim, num_classes)

    def lower(self, x: Tensor, layer: int) -> Tensor:
        """The features themselves for layer 0, the hidden layer's output for layer 1 (a linear head has none)."""
        x = x.flatten(1)
        return F.relu(self.hidden(x)) if layer and self.hidden is not None else x

    def upper(self, h: Tensor, layer: int) -> Tensor:
        """From the output of `lower(x, layer)` to logits (B, num_classes)."""
        return self.classify(h if layer else self.embed(h))

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate features (B, feature_dim)."""
        return self.lower(x, 1)

    def classify(self, features: Tensor) -> Tensor:
        """Penultimate features to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.dropout(features))
        return logits

    def forward(self, x: Tensor) -> Tensor:
        return self.classify(self.embed(x))
