"""Methods beside each other: forests of differences, who is above whom, and what a gap is made of."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.analysis.plots.curves import fences, interval_note
from alkit.analysis.plots.style import SMALL, WIDTH, drawing, plain

ABOVE, BELOW, NEITHER = "#0072B2", "#D55E00", "#7a7a7a"
"""Colours of what is shown to be above, shown to be below, and not shown."""


def forest(panels: Sequence[tuple[str, pd.DataFrame]], note: str = "", width: float = WIDTH) -> Figure:
    """Differences with their intervals, a line a comparison, in a panel a measure: (title, table).

    A table has the columns `name`, `difference`, `low`, `high` (fractions; drawn in points), `shown` (whether the test
    shows it: filled, else hollow), `n` (seeds) and `singles` (the differences of the seeds). Lines are in the order of
    the first table. An interval that would flatten the others ends in an arrow; beside one panel stand its numbers.
    """
    names = list(dict.fromkeys(name for _, table in panels for name in table["name"]))
    outside = 0
    with drawing(1, len(panels), width=width, height=0.95 + 0.185 * max(len(names), 1), sharey=True) as (fig, axes):
        for axis, (measure, table) in zip(axes[0], panels, strict=True):
            axis.axvline(0, color="black", linewidth=0.8)
            low, high = _reach(table)
            for row in table.to_dict("records"):
                outside += _line(axis, names.index(row["name"]), row, low, high)
                if len(panels) == 1:
                    axis.annotate(in_numbers(row), (1.01, names.index(row["name"])), fontsize=SMALL, va="center",
                                  xycoords=axis.get_yaxis_transform(), annotation_clip=False)  # fmt: skip
            axis.set(title=measure, xlabel="points", xlim=(low, high), ylim=(len(names) - 0.4, -0.6))
            axis.locator_params("x", nbins=6)
        axes[0, 0].set_yticks(range(len(names)), [plain(name) for name in names])
        counts = [int(n) for _, table in panels for n in table["n"]]
        said = f"squares: mean difference (filled: shown); lines: {interval_note(counts)}; dots: single seeds"
        said += f" ({outside} more outside)" if outside else ""
        fig.supxlabel("\n".join(filter(None, (said.replace("\n", " "), note))), fontsize=SMALL)
    return fig


def in_numbers(row: Any) -> str:
    """`+6.2 (−0.4 to 12.8)`, in points."""
    mean, low, high = (round(100 * row[name], 1) + 0.0 for name in ("difference", "low", "high"))  # no −0.0
    return (f"{mean:+.1f}" if np.isnan(low) else f"{mean:+.1f} ({low:.1f} to {high:.1f})").replace("-", "−")


def _reach(table: pd.DataFrame) -> tuple[float, float]:
    """What the axis of a forest shows, in points: every mean, and intervals as far as they are no strays.

    No stray is what leaves the means, with 0, at least a third of the axis.
    """
    means = np.append(100 * table["difference"].to_numpy(dtype=np.float64), 0.0)
    ends = 100 * table[["low", "high"]].to_numpy(dtype=np.float64).ravel()
    ends = ends[~np.isnan(ends)]
    least, most = fences(ends)
    least, most = min(least, means.min() - np.ptp(means)), max(most, means.max() + np.ptp(means))
    values = np.concatenate([means, ends[(ends >= least) & (ends <= most)]])
    margin = 0.05 * max(float(np.ptp(values)), 0.1)
    return float(values.min()) - margin, float(values.max()) + margin


def _line(axis: Axes, place: int, row: Any, low: float, high: float) -> int:
    """Draw one comparison; returns how many of its single seeds lie outside of the axis."""
    mean, ends = 100 * row["difference"], (100 * row["low"], 100 * row["high"])
    colour = NEITHER if not row["shown"] else ABOVE if mean > 0 else BELOW
    singles = 100 * np.asarray(row["singles"], dtype=np.float64)
    axis.plot(singles, np.full(len(singles), place + 0.24), ".", color="#9a9a9a", markersize=2.2)
    if np.isfinite(ends).all():
        left, right = max(ends[0], low), min(ends[1], high)
        axis.plot([left, right], [place, place], color=colour, linewidth=1.2)
        for marker, cut, end in (("<", ends[0] < low, left), (">", ends[1] > high, right)):
            if cut:
                axis.plot(end, place, marker, color=colour, markersize=3, clip_on=False)
    axis.plot(mean, place, "s", color=colour, markersize=3.8, markerfacecolor=colour if row["shown"] else "white")
    return int(((singles < low) | (singles > high)).sum())


def win_matrix(table: pd.DataFrame, labels: Sequence[str]) -> Figure:
    """Who is above whom: the mean difference of row − column in points, coloured where the test shows it.

    `table` has a row a pair: `a`, `b`, `difference` (a fraction) and `shown`.
    """
    names = [label for label in labels if label in {*table["a"], *table["b"]}]
    place = {name: number for number, name in enumerate(names)}
    values = np.full((len(names), len(names)), np.nan)
    seen = np.zeros(values.shape, dtype=bool)
    for row in table.itertuples():
        i, j = place[str(row.a)], place[str(row.b)]
        values[i, j], values[j, i] = 100 * float(row.difference), -100 * float(row.difference)  # type: ignore[arg-type]
        seen[i, j] = seen[j, i] = bool(row.shown)
    digits = 1 if 0 < len(names) <= MOST_NUMBERED and np.nanmax(np.abs(values), initial=0) < 9.95 else 0
    longest = max(map(len, names), default=0)
    edge = min(0.32, (WIDTH - 0.1 - 0.055 * longest) / max(len(names), 1))
    width = min(WIDTH, 0.3 + 0.055 * longest + edge * len(names))
    with drawing(width=width, height=0.9 + 0.05 * longest + 0.19 * len(names)) as (fig, axis):
        axis.imshow(_shades(values, seen), aspect="auto")
        for i, j in zip(*np.nonzero(~np.isnan(values)), strict=True):
            said = f"{values[i, j]:+.{digits}f}"
            axis.text(j, i, said.replace("-", "−") if float(said) else "0", ha="center", va="center", fontsize=SMALL,
                      color="white" if seen[i, j] else "#6b6b6b")  # fmt: skip
        axis.set_xticks(range(len(names)), [plain(name) for name in names], rotation=90)
        axis.set_yticks(range(len(names)), [plain(name) for name in names])
        axis.tick_params(length=0)
        axis.grid(False)
        axis.spines[:].set_visible(False)
        _title(axis, "Row − column, points; dark blue: shown to be above, orange: shown to be below", 7.5)
    return fig


def _title(axis: Axes, text: str, size: float = 8.5) -> None:
    """A title over a matrix and the names beside it, which may be wider than the matrix; in lines that have room."""
    letters = int(axis.figure.bbox.width / axis.figure.dpi * 72 / (0.6 * size))
    axis.set_title(textwrap.fill(text, letters), loc="right", fontsize=size)


def _shades(values: npt.NDArray[np.float64], seen: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    """The colour of each cell (rows, columns, 3): strong where a difference is shown, a tint of its sign elsewhere."""
    from matplotlib.colors import to_rgb

    picture = np.ones((*values.shape, 3))
    for sign, strong in ((1, ABOVE), (-1, BELOW)):
        side = sign * np.nan_to_num(values) > 0
        picture[side] = 1 - 0.1 * (1 - np.array(to_rgb(strong)))
        picture[side & seen] = to_rgb(strong)
    return picture


def attribution_bars(parts: pd.DataFrame) -> Figure:
    """Training's and selection's part of a gap at each number of labels, from `statistics.attribution`.

    Bars are means over seeds of the mean of both orders, lines their intervals, points the total gap.
    """
    from alkit.statistics import mean_interval  # imports scipy; a run's own plots do without

    groups = list(parts.groupby("labelled"))
    places = np.arange(len(groups))
    looks = {"training_part": ("training", "#E69F00", "", -0.2), "selection_part": ("selection", "#0072B2", "///", 0.2)}
    with drawing(width=6.0, height=3.0) as (fig, axis):
        for part, (name, colour, hatch, shift) in looks.items():
            means = np.array([100 * rows[part].mean() for _, rows in groups])
            ends = np.array([mean_interval(100 * rows[part].to_numpy()) for _, rows in groups])
            axis.bar(places + shift, means, 0.38, color=colour, hatch=hatch, edgecolor="white", label=name)
            axis.vlines(places + shift, ends[:, 0], ends[:, 1], color="black", linewidth=0.9)
        total = [100 * rows["total"].mean() for _, rows in groups]
        axis.plot(places, total, "D", color="black", label="both: the whole gap")
        axis.axhline(0, color="black", linewidth=0.7)
        axis.set_xticks(places, [f"{labelled:,}" for labelled, _ in groups])
        axis.set(xlabel="labelled images", ylabel="points of accuracy above random",
                 title="What training and selection add to random")  # fmt: skip
        kinds = interval_note([len(rows) for _, rows in groups])
        axis.legend(title=f"lines: {kinds}", frameon=False, loc="center left", bbox_to_anchor=(1.01, 0.5),
                    alignment="left")  # fmt: skip
    return fig


def penalty_heatmap(matrix: pd.DataFrame) -> Figure:
    """How often a row beats a column: `statistics.penalty_matrix`, perhaps with a row of means."""
    most = max(1.0, float(np.nan_to_num(matrix.to_numpy()).max()))
    return matrix_figure(matrix, "Row beats column at this share of budgets", most)


MOST_NUMBERED = 24


def matrix_figure(
    matrix: pd.DataFrame, title: str, vmax: float, form: str = "{:.2f}", height: float | None = None
) -> Figure:
    """A matrix as cells shaded up to `vmax`, with their numbers in the `form`; `height` in inches.

    A row with itself, and what is not known, is left white.
    """
    names = max((len(str(name)) for name in matrix.index), default=0)
    width = min(WIDTH, max(3.4, 0.6 + 0.055 * names + 0.42 * matrix.shape[1]))
    with drawing(width=width, height=height or min(WIDTH, 1.4 + 0.25 * len(matrix))) as (fig, axis):
        _draw_matrix(axis, matrix, form, vmax)
        _title(axis, title)
    return fig


def _draw_matrix(axis: Axes, matrix: pd.DataFrame, form: str, vmax: float) -> None:
    """The cells, numbers and names of a matrix.

    Above `MOST_NUMBERED` columns the numbers could not be read: a bar beside it says what the shades mean.
    """
    values = matrix.to_numpy(dtype=np.float64)
    itself = np.array([[row == column for column in matrix.columns] for row in matrix.index], dtype=bool)
    shades = np.ma.masked_where(itself | np.isnan(values), values)
    image = axis.imshow(shades, cmap="Blues", vmin=0, vmax=vmax, aspect="auto")
    many, numbered = matrix.shape[1] > 14, matrix.shape[1] <= MOST_NUMBERED
    if not numbered:
        axis.figure.colorbar(
            image, ax=axis, fraction=0.04, pad=0.02, extend="max" if shades.max() > vmax else "neither"
        )
    for i, j in zip(*np.nonzero(~itself & numbered), strict=True):
        text = "–" if np.isnan(values[i, j]) else form.format(values[i, j])
        if many:
            text = text.removeprefix("0") if float(values[i, j] or 0) else "·"
        axis.text(j, i, text, ha="center", va="center", fontsize=SMALL if many else 7.5,
                  color="white" if values[i, j] > 0.6 * vmax else "black")  # fmt: skip
    names = [plain(label) for label in matrix.columns]
    size = None if numbered else SMALL
    axis.set_xticks(range(len(names)), names, rotation=45 if numbered else 90, ha="right", rotation_mode="anchor",
                    va="top" if numbered else "center", fontsize=size)  # fmt: skip
    axis.set_yticks(range(values.shape[0]), [plain(label) for label in matrix.index], fontsize=size)
    axis.grid(False)
