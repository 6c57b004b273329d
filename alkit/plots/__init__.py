"""Figures of runs and of studies. Every function returns a matplotlib Figure; none knows how a run is made.

Text from records is shown as it stands, fonts are legible at the size shown, and a method looks the same everywhere.
"""

from __future__ import annotations

from alkit.plots.queries import query_grid
from alkit.plots.run import accuracy_curve, calibration_curve, reliability
from alkit.plots.style import Style, method_style, styles

__all__ = [
    "Style",
    "accuracy_curve",
    "calibration_curve",
    "method_style",
    "query_grid",
    "reliability",
    "styles",
]
