"""What was asked for: the images themselves, their classes, and how much methods' queries have in common."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patheffects import withStroke

from alkit.analysis.plots.comparisons import matrix_figure
from alkit.analysis.plots.curves import MOST_TOGETHER, fences
from alkit.analysis.plots.style import drawing, height_for, in_two_lines, percent_axis, plain, styles
from alkit.data import ImageSet


def query_grid(
    train: ImageSet, indices: Sequence[int] | np.ndarray, title: str = "", columns: int = 10, limit: int = 100
) -> Figure:
    """The images `indices` of `train`, in that order, each under its class name; at most `limit` of them."""
    chosen = np.asarray(indices, dtype=np.int64)[:limit]
    columns = max(1, min(columns, len(chosen)))
    rows = max(1, -(-len(chosen) // columns))
    with drawing(rows, columns, width=min(7.0, 0.7 * columns + 0.14), height=0.84 * rows + 0.28) as (fig, axes):
        for axis in axes.flat:
            axis.axis("off")
        if len(chosen):
            draw_images(axes.flat, train, chosen)
        fig.suptitle(plain(title))
    return fig


def query_rows(
    train: ImageSet, queries: Mapping[str, np.ndarray[Any, Any]], title: str = "", columns: int = 10
) -> Figure:
    """The first images of each label's query, a row a label, under their class names."""
    rows = max(1, len(queries))
    with drawing(rows, columns, width=7.0, height=0.854 * rows + 0.28) as (fig, axes):
        for line, (label, indices) in zip(axes, queries.items(), strict=False):
            draw_images(line, train, np.asarray(indices)[:columns])
            line[0].set_ylabel(in_two_lines(label, 24), rotation=0, ha="right", va="center", fontsize=7.5)
        without_frames(axes)
        fig.suptitle(plain(title))
    return fig


def draw_images(axes: Iterable[Axes], images: ImageSet, indices: np.ndarray[Any, Any], named: bool = True) -> None:
    """The images `indices` (n,) on as many axes, each under its class name if they are `named`."""
    chosen = torch.as_tensor(indices, dtype=torch.int64)
    pictures = as_pictures(images.take(chosen.to(images.device)))
    for axis, picture, label in zip(axes, pictures, images.labels.cpu()[chosen].tolist(), strict=False):
        draw_picture(axis, picture)
        if named:
            axis.set_title(plain(images.class_names[label])[:14], fontsize=7, pad=2)


def draw_picture(axis: Axes, picture: np.ndarray[Any, Any]) -> None:
    """One of `as_pictures`, pixel by pixel."""
    axis.imshow(picture, cmap="gray", vmin=0, vmax=255, interpolation="nearest")


def without_frames(axes: Any) -> None:
    """Leave of all `axes` what was drawn on them, and their names."""
    for axis in axes.flat:
        axis.set(xticks=[], yticks=[])
        axis.grid(False)
        axis.spines[:].set_visible(False)


def as_pictures(images: torch.Tensor) -> np.ndarray[Any, Any]:
    """uint8 images (N, C, H, W) as matplotlib shows them: (N, H, W) grey or (N, H, W, 3)."""
    values = images.cpu().numpy()
    return values[:, 0] if values.shape[1] != 3 else values.transpose(0, 2, 3, 1)


def class_histogram(shares: pd.DataFrame, methods: Mapping[str, str], chosen: int = 30) -> Figure:
    """Share of each class among what each label bought, beside the pool's own share.

    `shares` has a row a class and a column a label, and the column `pool` if it is known. Of more than `chosen` classes
    those are shown whose shares differ most from the pool's.
    """
    known = [label for label in shares.columns if label != "pool"]
    if len(shares) > chosen:
        base = shares["pool"] if "pool" in shares else shares[known].mean(axis=1)
        shares = shares.loc[shares[known].sub(base, axis=0).abs().max(axis=1).nlargest(chosen).index].sort_index()
    if len(known) > MOST_TOGETHER:
        return _class_matrix(shares)
    places = np.arange(len(shares))
    with drawing(width=7.0, height=height_for(len(known) + 1, 3.22)) as (fig, axis):
        if "pool" in shares:
            axis.bar(places, shares["pool"], 0.92, color="#dddddd", label="pool")
        shifts = np.linspace(-0.3, 0.3, len(known)) if len(known) > 1 else [0.0]
        looks = styles({label: methods[label] for label in known})
        for (label, style), shift in zip(looks.items(), shifts, strict=True):
            face = "white" if style.hollow else style.colour
            axis.plot(places + shift, shares[label], linestyle="none", label=plain(label), marker=style.marker,
                      color=style.colour, markerfacecolor=face, markersize=4)  # fmt: skip
        names = [plain(name)[:18] for name in shares.index]
        axis.set_xticks(places, names)
        if len(names) > 10 or max(map(len, names), default=0) > 8:
            axis.tick_params("x", rotation=45)
            for text in axis.get_xticklabels():
                text.set(ha="right", rotation_mode="anchor")
        axis.set(ylabel="share of the images", ylim=(0, None), title="Classes of what was bought")
        percent_axis(axis)
        axis.legend(frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5))
    return fig


def _class_matrix(shares: pd.DataFrame) -> Figure:
    """The shares of many labels as shaded cells, in percent: a row a label, a column a class."""
    matrix = 100 * shares.T
    matrix.columns = pd.Index([str(name)[:18] for name in matrix.columns])
    most, height = float(np.nanmax(matrix.to_numpy())), 1.2 + 0.19 * len(matrix)
    return matrix_figure(matrix, "Classes of what was bought, percent of the images", most, "{:.0f}", height)


def overlap_heatmap(matrix: pd.DataFrame) -> Figure:
    """Jaccard overlap of what labels bought: images in common over images in either."""
    values = matrix.to_numpy(dtype=np.float64)[~np.eye(len(matrix), dtype=bool)]
    values = values[~np.isnan(values)]
    most = max((value for value in values if value <= fences(values)[1]), default=0.0)  # one cell flattens no others
    return matrix_figure(matrix, "Overlap of what was bought (Jaccard)", max(0.1, float(most)))


def redundancy_curves(table: pd.DataFrame, methods: Mapping[str, str], space: str) -> Figure:
    """Mean distance of a queried image to the nearest other one of its query, by cycle; higher is less redundant.

    `table` has the columns `label`, `cycle` and `distance`, a row a seed and cycle; `space` names what it is
    measured in.
    """
    with drawing(width=6.3, height=height_for(table["label"].nunique(), 3.08)) as (fig, axis):
        for label, style in styles(methods).items():
            part = table[table["label"] == label]
            means = part.groupby("cycle")["distance"].mean()
            if len(means):
                axis.plot(means.index, means, label=plain(label), **style.line())
                axis.scatter(part["cycle"], part["distance"], color=style.colour, s=5, alpha=0.55, linewidth=0)
        axis.set(xlabel="bought for cycle", ylabel=f"distance ({plain(space)})",
                 title="Distance to the nearest other image of the same query")  # fmt: skip
        axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
        axis.legend(title="mean over seeds\npoints: single runs", frameon=False, loc="center left",
                    bbox_to_anchor=(1.01, 0.5), alignment="left", handlelength=3.2)  # fmt: skip
    return fig


def embedding(
    points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], queries: Mapping[str, np.ndarray[Any, Any]],
    methods: Mapping[str, str], title: str, names: Sequence[str] = (),
) -> Figure:  # fmt: skip
    """The pool as points (n, 2), shaded by class (n,), and, a panel each, labels' queries (positions in `points`).

    `names` of the classes, if there are at most twelve, are written where the classes are.
    """
    columns = 2 if len(queries) == 4 else min(3, max(1, len(queries)))
    rows = max(1, -(-len(queries) // columns))
    looks = styles({label: methods[label] for label in queries})
    with drawing(rows, columns, width=min(7.0, 2.45 * columns), height=2.45 * rows + 0.28) as (fig, axes):
        for axis, (label, chosen) in zip(axes.flat, queries.items(), strict=False):
            axis.scatter(points[:, 0], points[:, 1], c=labels, cmap="tab10" if labels.max() < 10 else "tab20", s=3,
                         alpha=0.3, linewidth=0)  # fmt: skip
            look = looks[label]
            face, edge = ("white", look.colour) if look.hollow else (look.colour, "black")
            axis.scatter(points[chosen, 0], points[chosen, 1], color=face, s=20 if len(chosen) <= 50 else 13,
                         linewidth=0.4, marker=look.marker, edgecolor=edge, zorder=3)  # fmt: skip
            if 0 < len(names) <= 12:
                _name_classes(axis, points, labels, names)
            axis.set_title(plain(f"{label}: {len(chosen)} images"))
            axis.spines[:].set_visible(True)
            axis.spines[:].set_color("#bbbbbb")
        for axis in axes.flat:
            axis.set(xticks=[], yticks=[])
        for axis in list(axes.flat)[len(queries) :]:
            axis.axis("off")
        fig.suptitle(plain(title))
    return fig


def _name_classes(axis: Axes, points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], names: Sequence[str]) -> None:
    """Each class's name where its points (n, 2) are, moved up or down, within the panel, from names it would touch."""
    (left, right), (bottom, top) = axis.get_xlim(), axis.get_ylim()
    letter, line = (right - left) / 38, (top - bottom) / 16  # a letter's width and a line's height in such a panel
    free = np.arange(bottom + line / 2, top - line / 2, line / 4)
    placed: list[tuple[float, float, int]] = []
    for place in np.unique(labels):
        name = plain(names[place])[:14]
        x, y = np.nan_to_num(np.median(points[labels == place], axis=0))
        beside = [other for at, other, letters in placed if abs(x - at) < letter * (len(name) + letters) / 2]
        open_ = [spot for spot in (y, *free) if all(abs(spot - other) >= line for other in beside)] or [y]
        y = min(open_, key=lambda spot: abs(spot - y))
        placed.append((x, y, len(name)))
        axis.text(x, y, name, fontsize=7, ha="center", va="center", zorder=4,
                  path_effects=[withStroke(linewidth=1.8, foreground="white")])  # fmt: skip


def asked_on_the_plane(
    points: np.ndarray[Any, Any], labels: np.ndarray[Any, Any], names: Sequence[str], labelled: np.ndarray[Any, Any],
    asked: np.ndarray[Any, Any], candidates: np.ndarray[Any, Any], utilities: np.ndarray[Any, Any], title: str,
) -> Figure:  # fmt: skip
    """What was asked among points (N, 2) of a plane: left the classes, right the utilities of the candidates (n,).

    `labelled` and `asked` are positions in `points`; what was asked is numbered in its order.
    """
    from scipy.stats import rankdata  # a run's own plots do without scipy

    with drawing(1, 2, width=6.6, height=2.9) as (fig, axes):
        left, right = axes[0]
        for label, name in enumerate(names):
            mine = labels == label
            left.scatter(*points[mine].T, s=4, alpha=0.35, linewidth=0, color=f"C{label}", label=plain(name))
        place = rankdata(utilities)  # by rank: one extreme utility would leave the rest one colour
        shown = right.scatter(*points[candidates].T, c=place, s=5, cmap="viridis", linewidth=0)
        bar = fig.colorbar(shown, ax=right, ticks=[place.min(), place.max()] if np.ptp(place) else [])
        bar.ax.set_yticklabels(["least", "most"] if np.ptp(place) else [])
        bar.set_label("utility, by rank" if np.ptp(place) else "all utilities are the same")
        for axis in (left, right):
            axis.scatter(*points[labelled].T, s=34, marker="s", color="white", edgecolor="black", linewidth=0.9,
                         label="had a label", zorder=3)  # fmt: skip
            axis.scatter(*points[asked].T, s=46, marker="o", color="#d62728", edgecolor="white", linewidth=0.6,
                         label="asked", zorder=4)  # fmt: skip
            for number, (x, y) in enumerate(points[asked], 1):
                axis.text(x, y, str(number), fontsize=5, color="white", ha="center", va="center", zorder=5)
            axis.set(xticks=[], yticks=[], aspect="equal")
        handles, texts = left.get_legend_handles_labels()
        fig.legend(handles, texts, frameon=False, loc="outside lower center", ncols=4, markerscale=1.2)
        fig.suptitle(plain(title))
    return fig
