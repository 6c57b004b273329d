"""Reliability diagrams: of the images given a confidence, how many are classified correctly?"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes

from alkit import calibration
from alkit.plots.style import percent_axis

Array = npt.NDArray[Any]

FEW = 10
"""Bins of fewer images are drawn pale: their accuracy says little."""


def draw_reliability(axis: Axes, confidence: Array, correct: Array, bins: int = 15, counts: bool = True) -> None:
    """Accuracy a bin of confidence (bars), the diagonal, and how far each bin is from it; counts above the bars."""
    errors = calibration.calibration_errors(confidence, correct, bins)
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
    axis.text(0.03, 0.97, f"ECE {errors.ece:.3f} in {bins} bins\naccuracy {errors.accuracy:.1%}\n{len(confidence)} images",
              transform=axis.transAxes, va="top", fontsize=9)  # fmt: skip
    axis.set(xlim=(0, 1), ylim=(0, 1.08), ylabel="accuracy in the bin")
    percent_axis(axis)


def draw_confidence(axis: Axes, confidence: Array, bins: int = 15) -> None:
    """How many images were given each confidence."""
    axis.hist(np.clip(confidence, 0, 1), bins=list(np.arange(bins + 1) / bins), color="#6b6b6b", rwidth=0.92)
    axis.axvline(float(np.mean(confidence)), color="#D55E00", linewidth=1.4)
    axis.set(xlim=(0, 1), ylabel="images")
