"""Reliability diagrams: of the images given a confidence, how many are classified correctly?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.analysis.plots.style import SMALL, WIDTH, drawing, in_two_lines, percent_axis, plain
from alkit.calibration import calibration_errors

Array = npt.NDArray[Any]

BINS = 15
"""Bars of a diagram."""
FEW = 10
"""Bins of fewer images are drawn pale: their accuracy says little."""


def draw_reliability(
    axis: Axes, confidence: Array, correct: Array, bins: int = BINS, title: str = "", note: str | None = None
) -> None:
    """Accuracy a bin of confidence (bars), the diagonal, and how far each bin is from it.

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
             hatch="/////", linewidth=0.5)  # fmt: skip
    axis.plot([0, 1], [0, 1], color="black", linewidth=0.7, linestyle=(0, (4, 2)))
    below = calibration_note(errors.ece, errors.gap, bins) if note is None else note
    axis.set_title(f"{title}\n{below}" if title else below, fontsize=7.5, linespacing=1.05)
    axis.set(xlim=(0, 1), ylim=(0, 1.02), yticks=[0, 0.2, 0.4, 0.6, 0.8, 1])
    percent_axis(axis)


def calibration_note(ece: float, gap: float, bins: int | str) -> str:
    """What is written over a diagram: the error, its bins, and the mean confidence less the accuracy."""
    gap_too = "" if np.isnan(gap) else f"\ngap {gap:+.3f}".replace("-", "−")  # older records have none
    return f"ECE {ece:.3f} ({bins} bins){gap_too}"


def draw_confidence(axis: Axes, confidence: Array, bins: int = BINS, counts: bool = True) -> None:
    """How many images were given each confidence, with their number above (`counts`), and the mean confidence."""
    found, edges, _ = axis.hist(np.clip(confidence, 0, 1), bins=list(np.arange(bins + 1) / bins), color="#6b6b6b",
                                rwidth=0.92)  # fmt: skip
    axis.axvline(float(np.mean(confidence)), color="#D55E00", linewidth=1.1, linestyle=(0, (3, 1.5)))
    axis.set(xlim=(0, 1))
    axis.locator_params("y", nbins=3)
    if counts:
        heights = np.asarray(found)
        axis.set_ylim(0, 1.35 * max(1.0, float(heights.max())))
        _number(axis, edges, heights)


def _number(axis: Axes, edges: Array, heights: Array) -> None:
    """Each bar's count above it, a line higher where it would touch the count of the bar before."""
    points = 40 / axis.get_ylim()[1]  # a histogram under a diagram is about 40 points high
    before, high = "", 0.0
    for left, width, count in zip(edges, np.diff(edges), heights, strict=False):
        text = briefly(int(count)) if count else ""
        level = count * points + 0.5
        if len(before) + len(text) > 4 and before and abs(level - high) < 8:
            level = high + 8
        if text:
            axis.annotate(text, (left + width / 2, count), (0, level - count * points), ha="center", va="bottom",
                          textcoords="offset points", fontsize=SMALL)  # fmt: skip
        before, high = text, level


def briefly(count: int) -> str:
    """A count in few letters, so that those of neighbouring bars do not touch: `950`, `1k`, `34k`."""
    return str(count) if count < 1000 else f"{round(count / 1000)}k"


def reliability_by_cycle(
    predictions: Mapping[str, Mapping[str, Array]],
    cycles: list[int],
    bins: int = BINS,
    notes: Mapping[tuple[str, int], str] | None = None,
    columns: int = 2,
) -> Figure:
    """Diagram and confidence histogram of each label and cycle (from 1), over the images of its seeds.

    Of several cycles a row a label and a column a cycle; of one, `columns` labels a row, of two with the images of
    each bin.
    `predictions` maps a label to `confidence` and `correct`, both (cycles, n); `notes` a label and cycle to what is
    written over its diagram.
    """
    one = len(cycles) == 1
    counts = one and columns < 3
    columns = min(columns, max(1, len(predictions))) if one else len(cycles)
    rows = -(-max(1, len(predictions)) // columns) if one else max(1, len(predictions))
    drawn = set()
    width, height = 3.5 * columns if one else 1.35 * columns + 0.4, (2.5 if counts else 2.0) * rows + 0.2
    with drawing(2 * rows, columns, width=min(WIDTH, width), height=height, sharex=True, sharey=False if one else "row",
                 gridspec_kw={"height_ratios": [2 if one else 3, 1] * rows}) as (fig, axes):  # fmt: skip
        for row, (label, arrays) in enumerate(predictions.items()):
            for column, cycle in enumerate(cycles):
                if cycle > len(arrays["confidence"]):
                    continue
                place = divmod(row, columns) if one else (row, column)
                above, below = axes[2 * place[0], place[1]], axes[2 * place[0] + 1, place[1]]
                drawn |= {above, below}
                confidence, correct = arrays["confidence"][cycle - 1], arrays["correct"][cycle - 1]
                note = (notes or {}).get((label, cycle))
                title = (
                    in_two_lines(label, 44 if counts else 30) if one else in_two_lines(f"{label}, cycle {cycle}", 26)
                )
                draw_reliability(above, confidence, correct, bins, title=title, note=note)
                draw_confidence(below, confidence, bins, counts=counts)
                above.tick_params(labelbottom=False)
                below.tick_params(labelbottom=True)
                if place[1] == 0:
                    above.set_ylabel("accuracy")
                    below.set_ylabel("images")
        for axis in axes.flat:
            if axis not in drawn:
                axis.axis("off")
        fig.supxlabel("confidence", fontsize=8)
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
    with drawing(rows, 3, width=WIDTH, height=1.9 * rows + 0.2) as (fig, axes):
        for line, (label, states) in zip(axes, pairs.items(), strict=False):
            said = (notes or {}).get(label, (None, None))
            for axis, (confidence, correct), when, note in zip(line, states, ("before", "after"), said, strict=False):
                draw_reliability(axis, confidence, correct, bins, title=plain(f"{label}, {when}"), note=note)
            line[0].set_ylabel("accuracy")
            edges = list(np.arange(bins + 1) / bins)
            for (confidence, _), when, colour in zip(states, ("before", "after"), ("#0072B2", "#D55E00"), strict=True):
                line[2].hist(np.clip(confidence, 0, 1), bins=edges, histtype="step", color=colour, label=when,
                             linewidth=1.1, linestyle="-" if when == "before" else "--")  # fmt: skip
            line[2].set(ylabel="images", xlim=(0, 1))
            line[2].legend(frameon=False, loc="upper left")
        for axis in axes[-1]:
            axis.set_xlabel("confidence")
    return fig
