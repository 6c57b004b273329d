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
"""Bars of a diagram."""
FEW = 10
"""Bins of fewer images are drawn pale: their accuracy says little."""


def draw_reliability(
    axis: Axes,
    confidence: Array,
    correct: Array,
    bins: int = BINS,
    counts: bool = True,
    title: str = "",
    note: str | None = None,
) -> None:
    """Accuracy a bin of confidence (bars), the diagonal, and how far each bin is from it; counts along the top.

    `note` is written over it: what a table says of these images, or else the ECE of these bars.
    """
    errors = calibration_errors(confidence, correct, bins)
    table = errors.bins
    middle, width = (table.edges[:-1] + table.edges[1:]) / 2, 1 / bins
    used = table.count > 0
    for few, alpha in ((False, 1.0), (True, 0.4)):
        part = used & ((table.count < FEW) == few)
        axis.bar(middle[part], table.accuracy[part], width * 0.92, color="#0072B2", alpha=alpha)
    low = np.minimum(table.accuracy, table.confidence)
    gap = np.abs(table.accuracy - table.confidence)
    axis.bar(middle[used], gap[used], width * 0.92, low[used], facecolor="#F3C9AE", alpha=0.75, edgecolor="#A84A00",
             hatch="///", linewidth=0.8)  # fmt: skip
    axis.plot([0, 1], [0, 1], color="black", linewidth=1, linestyle=(0, (4, 2)))
    if counts:
        for place, count in zip(middle[used], table.count[used], strict=True):
            axis.text(place, 1.03, f"{count}", rotation=90, ha="center", va="bottom", fontsize=7.5)
    below = calibration_note(errors.ece, errors.gap, bins) if note is None else note
    axis.set_title(f"{title}\n{below}" if title else below, fontsize=9)
    axis.set(xlim=(0, 1), ylim=(0, 1.3 if counts else 1.02), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    percent_axis(axis)


def calibration_note(ece: float, gap: float, bins: int | str) -> str:
    """What is written over a diagram: the error, its bins, and the mean confidence less the accuracy."""
    gap_too = "" if np.isnan(gap) else f"\ngap {gap:+.3f}".replace("-", "−")  # older records have none
    return f"ECE {ece:.3f} ({bins} bins){gap_too}"


def draw_confidence(axis: Axes, confidence: Array, bins: int = BINS) -> None:
    """How many images were given each confidence, and the mean confidence."""
    axis.hist(np.clip(confidence, 0, 1), bins=list(np.arange(bins + 1) / bins), color="#6b6b6b", rwidth=0.92)
    axis.axvline(float(np.mean(confidence)), color="#D55E00", linewidth=1.6, linestyle=(0, (3, 1.5)))
    axis.set(xlim=(0, 1))


def reliability_by_cycle(
    predictions: Mapping[str, Mapping[str, Array]],
    cycles: list[int],
    bins: int = BINS,
    notes: Mapping[tuple[str, int], str] | None = None,
) -> Figure:
    """Diagram and confidence histogram of each label (row) and cycle (column, from 1), over the images of its seeds.

    `predictions` maps a label to `confidence` and `correct`, both (cycles, n); `notes` a label and cycle to what is
    written over its diagram.
    """
    rows = max(1, len(predictions))
    fig, axes = figure(2 * rows, len(cycles), width=min(10.5, 2.3 * len(cycles) + 0.6), height=2.75 * rows + 0.3,
                       sharex=True, sharey="row", gridspec_kw={"height_ratios": [3, 1] * rows})  # fmt: skip
    with in_style():
        for row, (label, arrays) in enumerate(predictions.items()):
            for column, cycle in enumerate(cycles):
                above, below = axes[2 * row, column], axes[2 * row + 1, column]
                if cycle > len(arrays["confidence"]):
                    above.axis("off")
                    below.axis("off")
                    continue
                confidence, correct = arrays["confidence"][cycle - 1], arrays["correct"][cycle - 1]
                note = (notes or {}).get((label, cycle))
                draw_reliability(above, confidence, correct, bins, title=plain(f"{label}, cycle {cycle}"), note=note)
                draw_confidence(below, confidence, bins)
                above.tick_params(labelbottom=False)
                below.tick_params(labelbottom=True)
            axes[2 * row, 0].set_ylabel("accuracy")
            axes[2 * row + 1, 0].set_ylabel("images")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
    return fig


def before_and_after(
    pairs: Mapping[str, tuple[tuple[Array, Array], tuple[Array, Array]]],
    bins: int = BINS,
    notes: Mapping[str, tuple[str, str]] | None = None,
) -> Figure:
    """Confidence before and after temperature scaling, a row a label: diagrams and histograms of both.

    `pairs` maps a label to ((confidence, correct) before, (confidence, correct) after), each (n,), `notes` to what is
    written over the two.
    """
    rows = max(1, len(pairs))
    fig, axes = figure(rows, 3, width=10.5, height=2.6 * rows + 0.3)
    with in_style():
        for line, (label, states) in zip(axes, pairs.items(), strict=False):
            said = (notes or {}).get(label, (None, None))
            for axis, (confidence, correct), when, note in zip(line, states, ("before", "after"), said, strict=False):
                draw_reliability(axis, confidence, correct, bins, title=plain(f"{label}, {when}"), note=note)
            line[0].set_ylabel("accuracy")
            edges = list(np.arange(bins + 1) / bins)
            for (confidence, _), when, colour in zip(states, ("before", "after"), ("#0072B2", "#D55E00"), strict=True):
                line[2].hist(np.clip(confidence, 0, 1), bins=edges, histtype="step", color=colour, label=when,
                             linewidth=1.6, linestyle="-" if when == "before" else "--")  # fmt: skip
            line[2].set(ylabel="images", xlim=(0, 1))
            line[2].legend(frameon=False, loc="upper left")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
    return fig
