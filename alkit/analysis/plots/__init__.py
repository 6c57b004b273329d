"""Figures of runs and of studies. Every function returns a matplotlib Figure; none knows how a run is made.

Text from records is shown as it stands, fonts are legible at the size shown, and a method looks the same everywhere.
"""

from __future__ import annotations

from alkit.analysis.plots.comparisons import attribution_bars, forest, penalty_heatmap, win_matrix
from alkit.analysis.plots.curves import MOST_TOGETHER, curves
from alkit.analysis.plots.dataset import augmented, class_counts, class_profile, class_samples, points, samples
from alkit.analysis.plots.queries import (
    asked_on_the_plane,
    class_histogram,
    embedding,
    overlap_heatmap,
    query_grid,
    query_rows,
    redundancy_curves,
)
from alkit.analysis.plots.reliability import BINS, before_and_after, calibration_note, reliability_by_cycle
from alkit.analysis.plots.run import accuracy_curve, calibration_curve, reliability
from alkit.analysis.plots.style import COLUMN, WIDTH, Style, method_style, styles

__all__ = [
    "BINS",
    "COLUMN",
    "MOST_TOGETHER",
    "WIDTH",
    "Style",
    "accuracy_curve",
    "asked_on_the_plane",
    "attribution_bars",
    "augmented",
    "before_and_after",
    "calibration_curve",
    "calibration_note",
    "class_counts",
    "class_histogram",
    "class_profile",
    "class_samples",
    "curves",
    "embedding",
    "forest",
    "method_style",
    "overlap_heatmap",
    "penalty_heatmap",
    "points",
    "query_grid",
    "query_rows",
    "redundancy_curves",
    "reliability",
    "reliability_by_cycle",
    "samples",
    "styles",
    "win_matrix",
]
