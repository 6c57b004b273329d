"""Reliability diagrams: of the images given a confidence, how many are classified correctly?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.calibration import calibration_errors
from alkit.plots.style import figure, in_style, percent_axis, plain

Array = npt.NDArray[Any]

BINS = 15
"""Bins of a diagram; a run's own ECE has `calibration_bins` of them."""
FEW = 10
"""Bins of fewer images are drawn pale: their accuracy says little."""


def draw_reliability(axis: Axes, confidence: Array, correct: Array, bins: int = BINS, counts: bool = True) -> None:
    """Accuracy a bin of confidence (bars), the diagonal, and how far each bin is from it; counts above the bars."""
    errors = calibration_errors(confidence, correct, bins)
    table = errors.bins
    middle, width = (table.edges[:-1] + table.edges[1:]) / 2, 1 / bins
    used = table.count > 0
    for few, alpha in ((False, 1.0), (True, 0.4)):
        part = used & ((table.count < FEW) == few)
        axis.bar(middle[part], table.accuracy[part], width * 0.92, color="#0072B2", alpha=alpha)
    low = np.minimum(table.accuracy, table.confidence)
    gap = np.abs(table.accuracy - table.confidence)
    axis.bar(middle[used], gap[used], width * 0.92, low[used], fill=False, edgecolor="#D55E00", hatch="////",
             linewidth=0.8)  # fmt: skip
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle=(0, (4, 2)))
    if counts:
        for place, count, top in zip(middle[used], table.count[used], (low + gap)[used], strict=True):
            axis.annotate(
                f"{count}", (place, top), xytext=(0, 2), textcoords="offset points", ha="center", fontsize=7.5
            )
    note = f"ECE {errors.ece:.3f} in {bins} bins\naccuracy {errors.accuracy:.1%}, {len(confidence)} images"
    axis.text(0.02, 0.985, note, transform=axis.transAxes, va="top", fontsize=8.5)
    axis.set(xlim=(0, 1), ylim=(0, 1.36), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1], ylabel="accuracy in the bin")
    percent_axis(axis)


def draw_confidence(axis: Axes, confidence: Array, bins: int = BINS) -> None:
    """How many images were given each confidence."""
    axis.hist(np.clip(confidence, 0, 1), bins=list(np.arange(bins + 1) / bins), color="#6b6b6b", rwidth=0.92)
    axis.axvline(float(np.mean(confidence)), color="#D55E00", linewidth=1.4)
    axis.set(xlim=(0, 1), ylabel="images")


def reliability_by_cycle(predictions: Mapping[str, Mapping[str, Array]], cycles: list[int], bins: int = BINS) -> Figure:
    """A reliability diagram for each label (row) and cycle (column, from 1), over the test images of all its seeds.

    `predictions` maps a label to `confidence` and `correct`, both (cycles, n).
    """
    rows = max(1, len(predictions))
    fig, axes = figure(rows, len(cycles), width=min(10.5, 3.4 * len(cycles) + 0.4), height=2.9 * rows, sharex=True,
                       sharey=True)  # fmt: skip
    with in_style():
        for line, (label, arrays) in zip(axes, predictions.items(), strict=False):
            for axis, cycle in zip(line, cycles, strict=True):
                if cycle <= len(arrays["confidence"]):
                    draw_reliability(axis, arrays["confidence"][cycle - 1], arrays["correct"][cycle - 1], bins)
                    axis.set_title(plain(f"{label}, cycle {cycle}"))
                else:
                    axis.axis("off")
                axis.label_outer()
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
    return fig


def before_and_after(pairs: Mapping[str, tuple[tuple[Array, Array], tuple[Array, Array]]], bins: int = BINS) -> Figure:
    """Confidence before and after temperature scaling, a row a label: diagrams and histograms of both.

    `pairs` maps a label to ((confidence, correct) before, (confidence, correct) after), each (n,).
    """
    rows = max(1, len(pairs))
    fig, axes = figure(rows, 3, width=10.5, height=3.1 * rows, sharex=True)
    with in_style():
        for line, (label, states) in zip(axes, pairs.items(), strict=False):
            for axis, (confidence, correct), when in zip(line, states, ("before", "after"), strict=False):
                draw_reliability(axis, confidence, correct, bins)
                axis.set_title(plain(f"{label}, {when}"))
            edges = list(np.arange(bins + 1) / bins)
            for (confidence, _), when, colour in zip(states, ("before", "after"), ("#0072B2", "#D55E00"), strict=True):
                line[2].hist(np.clip(confidence, 0, 1), bins=edges, histtype="step", color=colour, label=when,
                             linewidth=1.6, linestyle="-" if when == "before" else "--")  # fmt: skip
            line[2].set(title="confidence", ylabel="images")
            line[2].legend(frameon=False, loc="upper left")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
    return fig
