"""The pictures of one run, for the method notebooks: from its cycle records and its predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from alkit.analysis.plots.reliability import BINS, draw_confidence, draw_reliability
from alkit.analysis.plots.style import drawing, method_style, percent_axis, plain

Records = Sequence[Mapping[str, Any]]


def accuracy_curve(records: Records, method: str = "oo4al", title: str = "Test accuracy") -> Figure:
    """Test accuracy against labelled images, from the cycle records of one run."""
    with drawing() as (fig, axis):
        axis.plot([r["labelled"] for r in records], [r["accuracy"] for r in records], **method_style(method).line())
        axis.set(title=plain(title), xlabel="labelled images", ylabel="accuracy on the test images")
        percent_axis(axis)
    return fig


def calibration_curve(records: Records, title: str = "Calibration") -> Figure:
    """Expected calibration error and overconfidence error against labelled images, of one run."""
    with drawing() as (fig, axis):
        bins = f" ({records[0]['bins']} bins)" if records and records[0].get("bins") else ""
        for key, name, look in (("ece", f"ECE{bins}", "o-"), ("oe", f"overconfidence error{bins}", "s--")):
            axis.plot([r["labelled"] for r in records], [r[key] for r in records], look, label=name,
                      color="#0072B2" if key == "ece" else "#D55E00")  # fmt: skip
        axis.set(title=plain(title), xlabel="labelled images", ylabel="error", ylim=(0, None))
        axis.legend(frameon=False)
    return fig


def reliability(predictions: Mapping[str, np.ndarray], cycle: int = -1, bins: int = BINS, title: str = "") -> Figure:
    """Reliability diagram and confidence histogram of one cycle's predictions of one run.

    `predictions` holds `confidence` and `correct`, both (cycles, n); `cycle` counts from 0, or from the end.
    """
    confidence, correct = predictions["confidence"][cycle], predictions["correct"][cycle]
    number = range(len(predictions["confidence"]))[cycle] + 1
    with drawing(2, 1, width=3.8, height=3.9, sharex=True, gridspec_kw={"height_ratios": [3, 1]}) as (fig, axes):
        name = plain(title or f"Reliability on the test images, cycle {number}")
        draw_reliability(axes[0, 0], confidence, correct, bins, title=name)
        draw_confidence(axes[1, 0], confidence, bins)
        axes[0, 0].set_ylabel("accuracy in the bin")
        axes[1, 0].set(xlabel="confidence (probability of the class named)", ylabel="images")
    return fig
