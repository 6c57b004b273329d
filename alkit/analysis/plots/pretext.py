"""The pictures of pretext losses: what is hard, what is in each batch, and what sorting them as text does."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from alkit.analysis.plots.style import drawing, method_style, percent_axis, plain

Numbers = npt.NDArray[np.float64]
Batches = Sequence[npt.NDArray[np.int64]]

_LINES = (("#0072B2", "o-"), ("#D55E00", "s--"), ("#009E73", "^:"))


def loss_histogram(losses: Numbers, title: str = "Pretext loss of every image") -> Figure:
    """Histogram of the losses (N,), on a logarithmic axis where none is negative; zeros stand with the lowest."""
    logarithmic = bool(losses.min() >= 0 < losses.max())
    if logarithmic:
        losses = losses.clip(losses[losses > 0].min())
    low, high = float(losses.min()), float(losses.max())
    bins = np.geomspace(low, high, 60) if logarithmic else np.linspace(low, high + 1e-9, 60)
    with drawing(width=5.25) as (fig, axis):
        axis.hist(losses, bins=list(bins), color="#56B4E9", edgecolor="white", linewidth=0.4)
        if logarithmic:
            axis.set_xscale("log")
        middle = float(np.median(losses))
        axis.axvline(middle, color="black", linestyle="--", linewidth=0.9, label=f"median {middle:.3g}")
        axis.set(title=plain(title), xlabel="pretext loss", ylabel="images")
        axis.legend(frameon=False)
    return fig


def class_mix(orders: Mapping[str, Batches], labels: npt.NDArray[np.int64], names: Sequence[str]) -> Figure:
    """Share of each class in each batch, a panel an order: {name: batches}; labels (N,) of the pool."""
    shares = [_shares(batches, labels, len(names)) for batches in orders.values()]
    top = max(float(share.max()) for share in shares)
    width, height = 7.0 if len(orders) > 1 else 4.55, 0.42 + 0.238 * max(6, len(names))
    with drawing(1, len(orders), width=width, height=height) as (fig, axes):
        for axis, name, share in zip(axes.flat, orders, shares, strict=True):
            image = axis.imshow(share.T, cmap="viridis", vmin=0, vmax=top, aspect="auto")
            axis.set_yticks(range(len(names)), [plain(n)[:14] for n in names] if len(names) <= 40 else None)
            axis.set_xticks(range(share.shape[0]))
            axis.set(title=plain(name), xlabel="batch")
            axis.grid(False)
        fig.colorbar(image, ax=axes, label="share of the batch")
    return fig


def _shares(batches: Batches, labels: npt.NDArray[np.int64], classes: int) -> Numbers:
    return np.stack([np.bincount(labels[batch], minlength=classes) / len(batch) for batch in batches])


def orders_compared(losses: Numbers, orders: Mapping[str, Batches]) -> Figure:
    """Median pretext loss of each batch, a line an order, and how much of a batch the first two orders share."""
    with drawing(1, 2, width=7.0) as (fig, axes):
        for (name, batches), (colour, look) in zip(orders.items(), _LINES, strict=False):
            middle = [float(np.median(losses[batch])) for batch in batches]
            axes[0, 0].plot(range(len(batches)), middle, look, color=colour, label=plain(name))
        if losses.min() >= 0:
            axes[0, 0].set_yscale("log", nonpositive="clip")
        axes[0, 0].set(title="Median pretext loss", xlabel="batch", ylabel="pretext loss")
        axes[0, 0].legend(frameon=False)
        first, second = list(orders.values())[:2]
        common = [len(np.intersect1d(a, b)) / len(a) for a, b in zip(first, second, strict=True)]
        axes[0, 1].bar(range(len(common)), common, color="#bbbbbb")
        axes[0, 1].set(title="Images that a batch has in both orders", xlabel="batch", ylim=(0, 1))
        percent_axis(axes[0, 1])
        for axis in axes.flat:
            axis.xaxis.get_major_locator().set_params(integer=True, min_n_ticks=1)
    return fig


def against_supervised(losses: Numbers, supervised: Numbers, correlation: float, groups: int = 20) -> Figure:
    """Mean supervised loss of images grouped by pretext loss, hardest first; `correlation` is that of the ranks."""
    parts = np.array_split(np.argsort(-losses, kind="stable"), min(groups, len(losses)))
    with drawing(width=5.25) as (fig, axis):
        means = np.array([supervised[part].mean() for part in parts])
        errors = np.array([1.96 * supervised[part].std() / np.sqrt(len(part)) for part in parts])
        places = (np.arange(len(parts)) + 0.5) / len(parts)
        axis.errorbar(places, means, errors, fmt="o-", color="#0072B2", capsize=3, label="mean, 95% interval")
        axis.set(
            title=f"Hard to turn, hard to name? Rank correlation {correlation:.2f}",
            xlabel="images by pretext loss, highest first", ylabel="loss of the supervised model", ylim=(0, None),
        )  # fmt: skip
        percent_axis(axis, "x")
        axis.legend(frameon=False)
    return fig


def bought_by_rank(batches: Batches, queries: Mapping[str, npt.NDArray[np.int64]], method: str = "pt4al") -> Figure:
    """Where in the order of pretext losses each query's images stand; the bands are the batches."""
    ordered = np.concatenate(list(batches))
    rank = np.empty(len(ordered), dtype=np.int64)
    rank[ordered] = np.arange(len(ordered))
    edges = np.cumsum([0, *(len(batch) for batch in batches)])
    with drawing(width=7.0, height=0.7 + 0.35 * max(2, len(queries))) as (fig, axis):
        for number in range(0, len(batches), 2):
            axis.axvspan(edges[number], edges[number + 1], color="#eeeeee", zorder=0)
        for line, indices in enumerate(queries.values()):
            axis.plot(rank[indices], np.full(len(indices), line), "|", color=method_style(method).colour, markersize=7)
        axis.set_yticks(range(len(queries)), [plain(name) for name in queries])
        axis.set(xlabel="images by pretext loss, highest first", xlim=(-len(ordered) / 200, len(ordered)),
                 ylim=(len(queries) - 0.5, -0.5),
                 title="Bought images in the order of pretext losses; bands are batches")  # fmt: skip
        axis.grid(False)
    return fig
