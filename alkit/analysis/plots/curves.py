"""Curves of a study: a measure against labels, mean and interval over seeds, every method in its own style."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from alkit.analysis.plots.style import (
    COLUMN,
    SMALL,
    WIDTH,
    Style,
    figure,
    height_for,
    in_style,
    in_two_lines,
    percent_axis,
    plain,
    styles,
)
from alkit.errors.words import counted

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
"""Up to this many seeds the single runs are shown too."""
MOST_TOGETHER = 8
"""Labels whose curves one pair of axes can hold; more have a panel each."""
BASELINE = "random"
MOST_BANDS = 4
"""Labels whose intervals can lie over each other as bands; of more they stand side by side at the curves' end."""
GREY, DARK = "#cfcfcf", "#3d3d3d"


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
    frame: pd.DataFrame, metric: str = "accuracy", published: pd.DataFrame | None = None, title: str = "",
    beside: Mapping[str, str] | None = None, width: float = WIDTH,
) -> Figure:  # fmt: skip
    """`metric` of every label of a study against labelled images; `title` by default says what the metric is.

    `frame` is what `records.load_runs` gave; the legend has its labels in the order of its rows. Of more than
    `MOST_TOGETHER` labels each has a panel, the others grey behind it and dashed the label that `beside` names for it
    (`random`, if it names none). Runs on the whole pool are a horizontal line above the others' curves; labels that all
    have one number of images are rows of points. `published` has the columns `method`, `source`, `labelled` and
    `accuracy`, and is drawn dashed in its method's colour.
    """
    table = summarise(frame, metric)
    known = published if published is not None and metric == "accuracy" else pd.DataFrame(columns=["labelled"])
    study = _Curves(frame, metric, table, known, title or NAMES[metric][1])
    with in_style():
        if study.active and table.loc[table["label"].isin(study.active), "labelled"].nunique() == 1:
            return _rows_of_points(study, width)
        if len(study.looks) > MOST_TOGETHER:
            return _panels(study, beside)
        return _together(study, width)


class _Curves:
    """What the curves of one figure are drawn from, and the part of it that is in view."""

    def __init__(
        self, frame: pd.DataFrame, metric: str, table: pd.DataFrame, published: pd.DataFrame, title: str
    ) -> None:
        self.title = plain(title)
        self.frame, self.metric, self.table, self.published = frame, metric, table, published
        self.methods = dict(zip(frame["label"].astype(str), frame["method"].astype(str), strict=True))
        self.looks = styles(self.methods)
        self.active = [label for label in self.looks if self.methods[label] != "whole_dataset"] or list(self.looks)
        means = table[table["label"].isin(self.active)]
        last = means.groupby("label")["labelled"].max()
        self.right = float(last[last <= 3 * last.median()].max()) if len(last) else 0.0
        inside = table[(table["labelled"] <= self.right) | ~table["label"].isin(self.active)]
        self.bands = len(self.active) <= MOST_BANDS or len(self.looks) > MOST_TOGETHER
        known = [inside["mean"].to_numpy(dtype=np.float64)]
        if self.few:
            known.append(frame.loc[frame["labelled"].isin(inside["labelled"]), metric].to_numpy(dtype=np.float64))
        self.low, self.high = fences(np.concatenate(known))

    def limits(self) -> tuple[float, float]:
        """What the axis of the measure shows: means, single runs and intervals, as far as they are no strays."""
        ends = self.table if self.bands else self.ends()
        numbers = [self.table["mean"].to_numpy(dtype=np.float64)]
        numbers += [ends[name].to_numpy(dtype=np.float64) for name in ("low", "high")]
        if self.few:
            numbers.append(self.frame[self.metric].to_numpy(dtype=np.float64))
        values = np.concatenate(numbers)
        values = values[(values >= self.low) & (values <= self.high)]
        if self.metric != "gap":  # an interval may go below 0, where none of these measures can be
            values = values.clip(0, 1 if self.metric == "accuracy" else None)
        if not len(values):
            return 0.0, 1.0
        margin = 0.05 * max(float(np.ptp(values)), 1e-3)
        return float(values.min()) - margin, float(values.max()) + margin

    @property
    def few(self) -> bool:
        return 1 < self.table["seeds"].min() <= FEW_SEEDS if len(self.table) else False

    def outside(self) -> str:
        """The means that are not in view, in words; nothing where all are."""
        beyond = self.table[
            ~self.table["mean"].between(self.low, self.high)
            | ((self.table["labelled"] > self.right) & self.table["label"].isin(self.active))
        ]
        said = [f"{plain(row.label)}, {row.labelled:,} labels: {shown(float(row.mean), self.metric)}"  # type: ignore[arg-type]
                for row in beyond.itertuples()]  # fmt: skip
        single = int((~self.frame[self.metric].dropna().between(self.low, self.high)).sum()) if self.few else 0
        said += [f"{counted(single, 'point')} of single runs"] if single else []
        return "outside the picture: " + listed_briefly(said) if said else ""

    def note(self) -> str:
        """How many seeds, what the bands are, and what the thin lines."""
        few, many = (int(self.table["seeds"].min()), int(self.table["seeds"].max())) if len(self.table) else (0, 0)
        note = f"mean over {counted(many, 'seed') if few == many else f'{few} to {many} seeds'}"
        if many > 1:
            where = "bands: " if self.bands else "bars at the end:\n"
            note += f"\n{where}{interval_note(self.table['seeds'].tolist())}"
            note += "\nthin lines: single runs" if self.few else ""
        return note

    def name(self) -> str:
        return NAMES[self.metric][0] + (_bins(self.frame) if self.metric in IN_BINS else "")

    def draw(self, axis: Axes, label: str, style: Style) -> None:
        """One label's curve: its mean, thin its single runs, as a band the interval of the mean."""
        part, runs = self.table[self.table["label"] == label], self.frame[self.frame["label"] == label]
        if label in self.active:  # a line to a point out of view would lead nowhere
            part, runs = (points[points["labelled"] <= self.right] for points in (part, runs))
        if not len(part):
            return
        if label not in self.active:
            _upper_line(axis, label, part, style)
            return
        axis.plot(part["labelled"], part["mean"], label=plain(label), zorder=3, **style.line())
        if self.bands:
            axis.fill_between(part["labelled"], part["low"], part["high"], color=style.colour, alpha=0.1, linewidth=0)
        if self.few:
            for _, run in runs.groupby("path" if "path" in runs else "seed", sort=False):
                run = run.sort_values("labelled")
                axis.plot(run["labelled"], run[self.metric], color=style.colour, linewidth=0.5, alpha=0.55, zorder=2)

    def ends(self) -> pd.DataFrame:
        """The last point in view of each curve."""
        part = self.table[self.table["label"].isin(self.active) & (self.table["labelled"] <= self.right)]
        return part.loc[part.groupby("label", sort=False)["labelled"].idxmax()]

    def draw_ends(self, axis: Axes) -> None:
        """The intervals of the last means, side by side on an axis of their own; the means are at their curves."""
        for place, row in enumerate(self.ends().to_dict("records")):
            axis.vlines(place, row["low"], row["high"], color=self.looks[row["label"]].colour, linewidth=1.8)
        axis.set(xticks=[], xlim=(-0.8, len(self.ends()) - 0.2), xlabel="at the end")
        axis.grid(False, axis="x")
        axis.tick_params(left=False, labelleft=False)
        axis.spines["left"].set_visible(False)

    def frame_axis(self, axis: Axes, most_ticks: int = 10) -> None:
        """Limits and ticks of an axis, once everything is drawn: each number of labels, where these are not many."""
        places = sorted({int(x) for x in self.table.loc[self.table["label"].isin(self.active), "labelled"]
                         if x <= self.right})  # fmt: skip
        if len(places) > 1:
            margin = 0.04 * (places[-1] - places[0])
            axis.set_xlim(places[0] - margin, places[-1] + margin)
            if len(places) <= most_ticks and min(np.diff(places)) > 0.08 * (places[-1] - places[0]):
                axis.set_xticks(places)
            else:
                axis.locator_params("x", nbins=min(most_ticks, 8))
        axis.set_ylim(*self.limits())
        if self.metric == "accuracy":
            percent_axis(axis)


def _together(study: _Curves, width: float) -> Figure:
    below = width <= COLUMN  # no room for a legend at the side
    strip = 0 if study.bands or not study.active else 0.035 * len(study.active)
    ratios = {"width_ratios": [1, strip], "wspace": 0} if strip else None
    height = height_for(len(study.looks), 3.2 if below else 3.4)
    fig, axes = figure(1, 2 if strip else 1, width=width, height=height, sharey=True, gridspec_kw=ratios)
    axis = axes[0, 0]
    for label, style in study.looks.items():
        study.draw(axis, label, style)
    study.frame_axis(axis)
    if len(study.published):
        draw_published(axis, study.published, study.looks)
    axis.set(title=study.title, xlabel="labelled images", ylabel=study.name())
    note, outside = study.note(), study.outside()
    if outside:
        fig.supxlabel(_wrapped(outside, width), fontsize=SMALL)
    if strip:
        study.draw_ends(axes[0, 1])
    handles, names = axis.get_legend_handles_labels()
    if axis.has_data() and below:
        fig.legend(
            handles,
            names,
            title=note.replace(":\n", ": ").replace("\n", "; "),
            loc="outside lower center",
            ncols=2,
            frameon=False,
            handlelength=3,
        )
    elif axis.has_data():
        axes[0, -1].legend(handles, names, title=note, frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5),
                           alignment="left", handlelength=3.2)  # fmt: skip
    return fig


def _panels(study: _Curves, beside: Mapping[str, str] | None) -> Figure:
    """A panel a label, the others grey behind it."""
    compared = {label: (beside or {}).get(label, BASELINE) for label in study.looks}
    shown_labels = [label for label in study.active if not beside or label in beside]
    columns = 5 if max(map(len, shown_labels), default=0) <= 20 else 4
    rows = -(-len(shown_labels) // columns)
    fig, axes = figure(rows, columns, width=WIDTH, height=0.75 + 1.12 * rows, sharex=True, sharey=True)
    means = dict(iter(study.table.groupby("label", sort=False)))
    for axis, label in zip(axes.flat, shown_labels, strict=False):
        others = [means[other][["labelled", "mean"]].to_numpy(dtype=np.float64) for other in study.active
                  if other in means and other not in (label, compared[label])]  # fmt: skip
        axis.add_collection(LineCollection(others, colors=GREY, linewidths=0.5, zorder=1), autolim=False)
        if compared[label] in means and compared[label] != label:
            part = means[compared[label]]
            axis.plot(part["labelled"], part["mean"], color=DARK, linewidth=1.1, linestyle=(0, (4, 1.5)), zorder=2.5)
        study.draw(axis, label, study.looks[label])
        for line in axis.get_lines():
            line.set_markersize(3)
        for whole in set(study.looks) - set(study.active):
            _upper_line(axis, whole, means[whole], study.looks[whole])
        study.frame_axis(axis, most_ticks=3)
        if len(study.published):
            draw_published(axis, study.published, {label: study.looks[label]})
        axis.set_title(in_two_lines(label, 20 if columns == 5 else 24), fontsize=7.5, pad=2)
    for axis in axes.flat[len(shown_labels) :]:
        axis.axis("off")
    for axis in axes.flat:
        axis.locator_params("y", nbins=4)
    dashed = "the same without the switch" if beside else BASELINE
    mean, *more = study.note().split("\n")
    lines = [f"{mean}; dashed: {dashed}; grey: all others", *more]
    if set(study.looks) - set(study.active):
        lines.append("black line: the whole pool")
    fig.suptitle(f"{study.title}\n{_wrapped('; '.join(lines), WIDTH)}", fontsize=8, linespacing=1.2)
    outside = study.outside()
    fig.supxlabel("labelled images" + (f"\n{_wrapped(outside, WIDTH)}" if outside else ""), fontsize=SMALL + 0.5)
    fig.supylabel(study.name(), fontsize=8)
    return fig


def _rows_of_points(study: _Curves, width: float) -> Figure:
    """Labels that all have one number of images: a row a label, its mean, interval and single runs."""
    labels = list(study.looks)
    fig, axes = figure(width=min(width, 6.0), height=1.0 + 0.24 * len(labels))
    axis = axes[0, 0]
    for place, (label, style) in enumerate(study.looks.items()):
        part, runs = study.table[study.table["label"] == label], study.frame[study.frame["label"] == label]
        if study.few:
            axis.plot(runs[study.metric], np.full(len(runs), place + 0.22), "|", color=style.colour, markersize=4)
        axis.hlines([place] * len(part), part["low"], part["high"], color=style.colour, linewidth=1.2)
        axis.plot(part["mean"], [place] * len(part), **(style.line() | {"linestyle": "none"}))
    numbers = study.table.groupby("label")["labelled"].max()
    same = numbers.nunique() == 1
    names = [plain(label) if same or label not in numbers else f"{plain(label)} ({numbers[label]:,} labels)"
             for label in labels]  # fmt: skip
    axis.set_yticks(range(len(labels)), names)
    axis.set_ylim(len(labels) - 0.5, -0.5)
    axis.set_xlim(*study.limits())
    at = f", {counted(int(numbers.iloc[0]), 'label')}" if same and len(numbers) else ""
    note = (
        study.note()
        .replace("bands", "lines")
        .replace("bars at the end:\n", "lines: ")
        .replace("thin lines: single", "small strokes: single")
        .replace("\n", "; ")
    )
    axis.set(title=study.title + at, xlabel=f"{study.name()}\n{note}")
    if study.metric == "accuracy":
        percent_axis(axis, "x")
    outside = study.outside()
    if outside:
        fig.supxlabel(_wrapped(outside, width), fontsize=SMALL)
    return fig


def fences(values: np.ndarray) -> tuple[float, float]:
    """Between what two numbers (n,) values are no strays: three times the distance of the quartiles beyond them."""
    values = values[~np.isnan(values)]
    if len(values) < 4:
        return -np.inf, np.inf
    first, third = np.quantile(values, [0.25, 0.75])
    reach = 3 * (third - first) if third > first else np.inf
    return float(first - reach), float(third + reach)


def shown(value: float, metric: str) -> str:
    """A number of a measure as a sentence has it."""
    return f"{100 * value:.1f}%" if metric == "accuracy" else f"{value:.3g}"


def listed_briefly(said: Sequence[str], most: int = 4) -> str:
    """The first of `said`, and how many more there are."""
    return "; ".join([*said[:most], *([f"{len(said) - most} more"] if len(said) > most else [])])


def _wrapped(text: str, width: float) -> str:
    return "\n".join(textwrap.wrap(text, int(16 * width)))


def _bins(frame: pd.DataFrame) -> str:
    found = sorted({int(bins) for bins in frame["bins"].dropna()}) if "bins" in frame else []
    return f" ({' or '.join(map(str, found))} bins)" if found else ""


def _upper_line(axis: Axes, label: str, part: pd.DataFrame, style: Style) -> None:
    for row in part.itertuples():
        axis.axhline(row.mean, color=style.colour, linestyle=style.dash, linewidth=1.0, zorder=2,  # type: ignore[arg-type]
                     label=plain(f"{label} ({row.labelled:,} labels)"))  # fmt: skip
        if not np.isnan(float(row.low)):  # type: ignore[arg-type]
            axis.axhspan(row.low, row.high, color=style.colour, alpha=0.08, linewidth=0)  # type: ignore[arg-type]


def interval_note(seeds: Sequence[int]) -> str:
    """What the intervals over these numbers of seeds are, in the words of a legend."""
    kinds = {min(n, 3) for n in seeds if n > 1}
    student, two = "95% interval (Student's t)", "range of two seeds"
    return f"{student};\n{two} where there are two" if len(kinds) > 1 else two if kinds == {2} else student


SOURCES = (((2, 2), "_"), ((1, 1.2), "x"), ((5, 1.5, 1, 1.5), "+"), ((3, 1), "1"), ((6, 2), "2"), ((1, 3), "3"),
           ((4, 1, 1, 1, 1, 1), "4"), ((8, 1.5), "|"))  # fmt: skip
"""Dashes and marker of each source of published numbers, in the order of their first number."""


def draw_published(axis: Axes, published: pd.DataFrame, drawn: Mapping[str, Style]) -> None:
    """Published curves in their method's colour and their source's dashes, within the study's range of labels.

    A source is named up to its first comma, where that tells it from the others.
    """
    left, right = axis.get_xlim()
    known = published[published["labelled"].between(left, right) & published["method"].isin(list(drawn))]
    sources = [str(source) for source in known["source"].unique()]
    short = [source.split(",")[0] for source in sources]
    names = {full: brief if short.count(brief) == 1 else full for full, brief in zip(sources, short, strict=True)}
    looks = dict(zip(sources, SOURCES * len(sources), strict=False))
    for (method, source), cells in known.groupby(["method", "source"], sort=False):
        part, (dashes, marker) = cells.sort_values("labelled"), looks[str(source)]
        axis.plot(
            part["labelled"], part["accuracy"], color=drawn[str(method)].colour, linestyle=(0, dashes), linewidth=0.9,
            marker=marker, markersize=5, zorder=2, label=plain(f"{method}, published: {names[str(source)]}"),
        )  # fmt: skip
