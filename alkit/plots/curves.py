"""Curves of a study: a measure against labels, mean and interval over seeds, every method in its own style."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.plots.style import Style, figure, height_for, in_style, percent_axis, plain, styles
from alkit.words import counted

NAMES = {
    "accuracy": ("accuracy", "Accuracy on the test images"),
    "nll": ("NLL (nats)", "Negative log-likelihood, lower is better"),
    "ece": ("ECE", "Expected calibration error, lower is better"),
    "gap": ("mean confidence − accuracy", "Signed gap: above 0 overconfident, below 0 underconfident"),
    "oe": ("OE", "Overconfidence error, lower is better"),
    "brier": ("Brier score", "Brier score, lower is better"),
    "ace": ("adaptive ECE", "Adaptive calibration error, lower is better"),
}
"""What a measure is called on an axis and in a title."""
IN_BINS = ("ece", "oe", "ace")
"""Measures that depend on a number of bins, which then is said."""
FEW_SEEDS = 10
"""Up to this many seeds the single runs are shown as points too."""


def summarise(frame: pd.DataFrame, metric: str) -> pd.DataFrame:
    """Mean, interval (`statistics.mean_interval`) and seeds of `metric`, a row a label and number of labels."""
    from alkit.statistics import mean_interval  # imports scipy; a run's own plots do without

    rows = []
    for label, runs in frame.groupby("label", sort=False):
        for labelled, part in runs.groupby("labelled", sort=True):
            values = part[metric].dropna().to_numpy(dtype=np.float64)
            if len(values):
                rows.append((label, labelled, values.mean(), *mean_interval(values), len(values)))
    return pd.DataFrame.from_records(rows, columns=["label", "labelled", "mean", "low", "high", "seeds"])


def curves(
    frame: pd.DataFrame, metric: str = "accuracy", published: pd.DataFrame | None = None, title: str = ""
) -> Figure:
    """`metric` of every label of a study against labelled images.

    `frame` is what `records.load_runs` gave; the legend has its labels in the order of its rows. Runs on the whole
    pool are a horizontal line above the others' curves, or points if there are no others. `published` has the columns
    `method`, `labelled` and `accuracy`, and is drawn dashed in its method's colour.
    """
    fig, axes = figure(width=9.6, height=height_for(frame["label"].nunique(), 5.2))
    axis = axes[0, 0]
    with in_style():
        drawn, seeds = draw_curves(axis, frame, metric)
        if published is not None and metric == "accuracy" and len(published):
            draw_published(axis, published, drawn)
        name = NAMES[metric][0] + (_bins(frame) if metric in IN_BINS else "")
        axis.set(title=plain(title or NAMES[metric][1]), xlabel="labelled images", ylabel=name)
        few, many = min(seeds, default=0), max(seeds, default=0)
        note = f"mean over {counted(many, 'seed') if few == many else f'{few} to {many} seeds'}"
        if many > 1:
            note += f"\nbars: {interval_note(seeds)}"
            note += "\npoints: single runs" if few <= FEW_SEEDS else ""
            beside = frame["label"].nunique() > 1 and frame["labelled"].nunique() > 1
            note += "\n(beside their curve, to be told apart)" if beside else ""
        if axis.has_data():
            axis.legend(title=note, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5),
                        alignment="left", title_fontsize=9, handlelength=3.2)  # fmt: skip
        if metric == "accuracy":
            percent_axis(axis)
    return fig


def _bins(frame: pd.DataFrame) -> str:
    found = sorted({int(bins) for bins in frame["bins"].dropna()}) if "bins" in frame else []
    return f" ({' or '.join(map(str, found))} bins)" if found else ""


def draw_curves(axis: Axes, frame: pd.DataFrame, metric: str) -> tuple[dict[str, Style], list[int]]:
    """All curves of `frame` on `axis`; returns the styles drawn and the numbers of seeds."""
    methods = dict(zip(frame["label"].astype(str), frame["method"].astype(str), strict=True))
    looks, table = styles(methods), summarise(frame, metric)
    active = [label for label in looks if methods[label] != "whole_dataset"] or list(looks)  # or nothing lies below
    shifts = _side_by_side(axis, table[table["label"].isin(active)], active)
    alone = table.loc[table["label"].isin(active), "labelled"].nunique() == 1  # no curves: points side by side
    for label, style in looks.items():
        part, runs = table[table["label"] == label], frame[frame["label"] == label]
        if not len(part):
            continue
        if label not in active:
            _upper_line(axis, label, part, style)
            continue
        places = part["labelled"] + shifts[label]
        heads = places if alone else part["labelled"]
        axis.plot(heads, part["mean"], label=plain(label), zorder=3, **style.line())
        axis.vlines(places, part["low"], part["high"], color=style.colour, linewidth=1.6, alpha=0.65, zorder=2)
        if part["low"].notna().any() and not alone:
            axis.plot(places, part["mean"], linestyle="none", marker=style.marker, color=style.colour, markersize=3.5)
        if 1 < part["seeds"].min() <= FEW_SEEDS:
            axis.scatter(runs["labelled"] + shifts[label], runs[metric], color=style.colour, s=11, alpha=0.75,
                         linewidth=0, zorder=2)  # fmt: skip
    return looks, table["seeds"].tolist()


def _side_by_side(axis: Axes, table: pd.DataFrame, labels: list[str]) -> dict[str, float]:
    """How far beside its curve each label's interval stands, so that intervals do not cover each other.

    The curves stay where they are: set to the left, one would look as if it needed fewer labels.
    """
    points = sorted(set(table["labelled"]))
    if 1 <= len(points) <= 10:
        axis.set_xticks(points)
    gap = 0.3 * min(np.diff(points)) if len(points) > 1 else 0.05 * max(points, default=0)
    middle = (len(labels) - 1) / 2
    return {label: gap * (place - middle) / max(1, len(labels) - 1) for place, label in enumerate(labels)}


def _upper_line(axis: Axes, label: str, part: pd.DataFrame, style: Style) -> None:
    for row in part.itertuples():
        axis.axhline(row.mean, color=style.colour, linestyle=style.dash, linewidth=1.4, zorder=2,  # type: ignore[arg-type]
                     label=plain(f"{label} ({row.labelled} labels)"))  # fmt: skip
        if not np.isnan(float(row.low)):  # type: ignore[arg-type]
            axis.axhspan(row.low, row.high, color=style.colour, alpha=0.08, linewidth=0)  # type: ignore[arg-type]


def interval_note(seeds: Sequence[int]) -> str:
    """What the intervals over these numbers of seeds are, in the words of a legend."""
    kinds = {min(n, 3) for n in seeds if n > 1}
    student, two = "95% interval (Student's t)", "range of two seeds"
    return f"{student};\n{two} where there are two" if len(kinds) > 1 else two if kinds == {2} else student


def draw_published(axis: Axes, published: pd.DataFrame, drawn: Mapping[str, Style]) -> None:
    """Published curves, dashed, within the range of labels that the study has."""
    left, right = axis.get_xlim()
    for (name, source), cells in published.dropna(subset=["labelled"]).groupby(["method", "source"], sort=False):
        method, part = str(name), cells[cells["labelled"].between(left, right)].sort_values("labelled")
        if method in drawn and len(part):
            axis.plot(
                part["labelled"], part["accuracy"], color=drawn[method].colour, linestyle=(0, (2, 2)), linewidth=1.2,
                marker="_", markersize=9, zorder=2, label=plain(f"{method}, published: {str(source).split(',')[0]}"),
            )  # fmt: skip


def attribution_bars(parts: pd.DataFrame) -> Figure:
    """Training's and selection's part of a gap at each number of labels, from `statistics.attribution`.

    Bars are means over seeds of the mean of both orders, lines their intervals, points the total gap.
    """
    from alkit.statistics import mean_interval  # imports scipy; a run's own plots do without

    fig, axes = figure(width=8.4, height=4.4)
    axis = axes[0, 0]
    groups = list(parts.groupby("labelled"))
    places = np.arange(len(groups))
    looks = {"training_part": ("training", "#E69F00", "", -0.2), "selection_part": ("selection", "#0072B2", "///", 0.2)}
    with in_style():
        for part, (name, colour, hatch, shift) in looks.items():
            means = np.array([rows[part].mean() for _, rows in groups])
            ends = np.array([mean_interval(rows[part].to_numpy()) for _, rows in groups])
            axis.bar(places + shift, means, 0.38, color=colour, hatch=hatch, edgecolor="white", label=name)
            axis.vlines(places + shift, ends[:, 0], ends[:, 1], color="black", linewidth=1.4)
        axis.plot(places, [rows["total"].mean() for _, rows in groups], "D", color="black", label="both: the whole gap")
        axis.axhline(0, color="black", linewidth=0.8)
        axis.set_xticks(places, [f"{labelled}" for labelled, _ in groups])
        axis.set(
            xlabel="labelled images",
            ylabel="gap in accuracy (percentage points)",
            title="What training and selection add to random",
        )
        percent_axis(axis)
        kinds = interval_note([len(rows) for _, rows in groups])
        axis.legend(title=f"lines: {kinds}", title_fontsize=9, frameon=False, loc="center left",
                    bbox_to_anchor=(1.01, 0.5), alignment="left")  # fmt: skip
    return fig


def penalty_heatmap(matrix: pd.DataFrame) -> Figure:
    """How often a row beats a column: `statistics.penalty_matrix`, perhaps with a row of means."""
    fig, axes = figure(width=min(10.5, 3.4 + 0.55 * matrix.shape[1]), height=min(10.5, 2.4 + 0.42 * len(matrix)))
    with in_style():
        draw_matrix(axes[0, 0], matrix, "{:.2f}", vmax=max(1.0, float(np.nan_to_num(matrix.to_numpy()).max())))
        axes[0, 0].set(title="Row beats column at this share of budgets")
    return fig


def draw_matrix(axis: Axes, matrix: pd.DataFrame, form: str, vmax: float) -> None:
    """A matrix as shaded cells with their numbers; a row with itself, and what is not known, is left white."""
    values = matrix.to_numpy(dtype=np.float64)
    itself = np.array([[row == column for column in matrix.columns] for row in matrix.index], dtype=bool)
    axis.imshow(np.ma.masked_where(itself | np.isnan(values), values), cmap="Blues", vmin=0, vmax=vmax, aspect="auto")
    many = matrix.shape[1] > 14
    for i, j in zip(*np.nonzero(~itself), strict=True):
        text = "–" if np.isnan(values[i, j]) else form.format(values[i, j])
        if many:
            text = text.removeprefix("0") if float(values[i, j] or 0) else "·"
        axis.text(j, i, text, ha="center", va="center", fontsize=7.5 if many else 9,
                  color="white" if values[i, j] > 0.6 * vmax else "black")  # fmt: skip
    names = [plain(label) for label in matrix.columns]
    axis.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axis.set_yticks(range(values.shape[0]), [plain(label) for label in matrix.index])
    axis.grid(False)


__all__ = ["attribution_bars", "curves", "draw_matrix", "penalty_heatmap", "summarise"]
