"""One colour, marker and line a method, the same in every figure of the kit; told apart in grey and without red-green.

A method's place in `alkit.methods` decides its style, so new methods go to the end of the table. Eight colours (from
the palettes of Okabe & Ito and of Tol, made for colour-blind readers) × line styles × markers keep all rows apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import matplotlib.pyplot as plt
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.methods import METHODS, added_methods

plt.draw_if_interactive()  # loads the backend now: loaded in an rc_context, a notebook shows its first figure only

DPI = 110
WIDTH = 10.0
"""Inches of a full-width figure; no figure is wider than 11."""

Dash = str | tuple[int, tuple[float, ...]]

_COLOURS = ("#332288", "#009E73", "#AA4499", "#0072B2", "#56B4E9", "#E69F00", "#882255", "#D55E00")
_OWN_COLOURS = ("#117733", "#CC6677", "#999933")
_DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)))
_MARKERS = ("s", "^", "v", "D", "p", "X", "<", "P", "h", ">", "*")
_VARIANT_DASHES: tuple[Dash, ...] = ((0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 2)))
_FONT = {
    "font.size": 10.5, "axes.titlesize": 11.5, "axes.labelsize": 10.5, "xtick.labelsize": 9.5, "ytick.labelsize": 9.5,
    "legend.fontsize": 9.5, "figure.titlesize": 13, "axes.spines.top": False, "axes.spines.right": False,
    "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.7, "axes.axisbelow": True,
}  # fmt: skip


@dataclass(frozen=True)
class Style:
    """How a method is drawn; `hollow` markers are those of variants."""

    colour: str
    marker: str
    dash: Dash
    hollow: bool = False

    def line(self) -> dict[str, Any]:
        """Keyword arguments of `Axes.plot`."""
        return {
            "color": self.colour, "marker": self.marker, "linestyle": self.dash, "linewidth": 1.8, "markersize": 6.5,
            "markerfacecolor": "white" if self.hollow else self.colour, "markeredgecolor": self.colour,
        }  # fmt: skip


def method_style(method: str) -> Style:
    """The style of a row of the methods table; a method that is not in it gets one from its name."""
    if method == "random":
        return Style("#6b6b6b", "o", "-")
    if method == "whole_dataset":
        return Style("#000000", "o", (0, (4, 2)))
    if method in added_methods():
        place = added_methods().index(method)
        return Style(_OWN_COLOURS[place % len(_OWN_COLOURS)], _MARKERS[-1 - place % len(_MARKERS)], "-")
    others = [name for name in METHODS if name not in ("random", "whole_dataset")]
    place = others.index(method) if method in others else _digest(method)
    colour = _COLOURS[place % len(_COLOURS)]
    return Style(colour, _MARKERS[place % len(_MARKERS)], _DASHES[place // len(_COLOURS) % len(_DASHES)])


def styles(labels: Mapping[str, str]) -> dict[str, Style]:
    """The style of each label, given its method: {label: method}.

    A variant has its method's colour with a hollow marker and a line of its own, taken from its name; should two
    variants of a study fall on the same style, the later name takes the next free one.
    """
    found = {label: method_style(method) for label, method in labels.items() if label == method}
    for label in sorted(set(labels) - set(found)):
        colour, start = method_style(labels[label]).colour, _digest(label)
        choices = [
            Style(colour, _MARKERS[(start + step) % len(_MARKERS)], _VARIANT_DASHES[(start + step) % 4], hollow=True)
            for step in range(len(_MARKERS) * 4)
        ]
        found[label] = next((choice for choice in choices if choice not in found.values()), choices[0])
    return {label: found[label] for label in labels}


def height_for(labels: int, least: float) -> float:
    """Height of a picture, in inches, whose legend beside it names so many `labels`: `least`, or what they need."""
    return max(least, 1.4 + 0.21 * labels)


def figure(
    rows: int = 1, columns: int = 1, width: float = 6.5, height: float = 4.2, **options: Any
) -> tuple[Figure, Any]:
    """A figure of `rows` × `columns` axes in the kit's fonts; the axes are an array (rows, columns)."""
    with plt.rc_context(_FONT):
        fig, axes = plt.subplots(
            rows, columns, figsize=(width, height), dpi=DPI, squeeze=False, layout="constrained", **options
        )
        return fig, axes


def in_style() -> Any:
    """A context in which text and axes made later have the kit's fonts too."""
    return plt.rc_context(_FONT)


def plain(text: object) -> str:
    """Text from a record as matplotlib shows it letter for letter: no mathematics, no line breaks, not too long."""
    words = " ".join(str(text).split())
    return (words if len(words) <= 60 else words[:57] + "…").replace("$", r"\$")


def percent_axis(axis: Axes, which: str = "y") -> None:
    """Fractions shown as percentages."""
    from matplotlib.ticker import FuncFormatter

    formatter = FuncFormatter(lambda value, _: f"{100 * value:g}%")
    (axis.yaxis if which == "y" else axis.xaxis).set_major_formatter(formatter)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
