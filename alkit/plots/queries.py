"""What was asked for: the images themselves, their classes, and how much methods' queries have in common."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from matplotlib.figure import Figure

from alkit.data import ImageSet
from alkit.plots.style import figure, in_style, plain


def query_grid(
    train: ImageSet, indices: Sequence[int] | np.ndarray, title: str = "", columns: int = 10, limit: int = 100
) -> Figure:
    """The images `indices` of `train`, in that order, each under its class name; at most `limit` of them."""
    chosen = np.asarray(indices, dtype=np.int64)[:limit]
    columns = max(1, min(columns, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    fig, axes = figure(rows, columns, width=min(10.0, 1.0 * columns + 0.2), height=1.25 * rows + 0.4)
    for axis in axes.flat:
        axis.axis("off")
    with in_style():
        if len(chosen):
            pictures = as_pictures(train.take(torch.as_tensor(chosen, device=train.device)))
            labels = train.labels.cpu().numpy()[chosen]
            for axis, picture, label in zip(axes.flat, pictures, labels, strict=False):
                axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")
                axis.set_title(plain(train.class_names[label])[:14], fontsize=8, pad=2)
        fig.suptitle(plain(title))
    return fig


def as_pictures(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """uint8 images (N, C, H, W) as matplotlib shows them: (N, H, W) grey or (N, H, W, 3)."""
    values = images.cpu().numpy()
    return values[:, 0] if values.shape[1] != 3 else values.transpose(0, 2, 3, 1)
