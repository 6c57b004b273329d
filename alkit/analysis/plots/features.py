"""What an encoder sees: the images that lie nearest to each other in its features."""

from __future__ import annotations

import torch
from matplotlib.figure import Figure
from torch import Tensor

from alkit.analysis.plots.queries import as_pictures, draw_picture, without_frames
from alkit.analysis.plots.style import drawing, plain
from alkit.data import ImageSet

SAME, OTHER = "#0072B2", "#D55E00"


def neighbours(images: ImageSet, nearest: Tensor, title: str = "") -> Figure:
    """A row an image: itself, then its neighbours, nearest first; names of another class than its own stand out.

    `nearest` (rows, columns) are positions in `images`, each row beginning with the image that it is about.
    """
    rows, columns = nearest.shape
    with drawing(rows, columns, width=0.72 * columns, height=0.86 * rows + 0.5) as (fig, axes):
        without_frames(axes)
        for line, places in zip(axes, nearest.cpu(), strict=True):
            pictures = as_pictures(images.take(places.to(images.device)))
            labels = images.labels.cpu()[places].tolist()
            for column, (axis, picture, label) in enumerate(zip(line, pictures, labels, strict=True)):
                draw_picture(axis, picture)
                name = plain(images.class_names[label])[:11]
                look = "black" if not column else SAME if label == labels[0] else OTHER
                axis.set_title(name if label == labels[0] else f"({name})", fontsize=7, pad=2, color=look)
            line[0].spines[:].set_visible(True)
        fig.suptitle(plain(title))
    return fig


def nearest_to(rows: Tensor, places: Tensor, count: int) -> Tensor:
    """Positions (P, 1 + count): each of `places` (P,), then the `count` rows (N, D) of the highest cosine with it."""
    unit = torch.nn.functional.normalize(rows.float(), dim=1)
    likeness = unit[places] @ unit.T
    likeness[torch.arange(len(places)), places] = 2.0  # itself first, whatever its twins are
    return likeness.topk(1 + count, dim=1).indices
