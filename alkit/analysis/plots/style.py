"""One colour, marker and line a method, the same in every figure of the kit; told apart in grey and without red-green.

A method's place in `alkit.methods` decides its style, so new methods go to the end of the table. Eight colours (from
the palettes of Okabe & Ito and of Tol, made for colour-blind readers) × line styles × markers keep all rows apart.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from typing import Any

import matplotlib.pyplot as plt
from matplotlib import font_manager
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from alkit.methods import METHODS, added_methods

plt.draw_if_interactive()  # loads the backend now: loaded in an rc_context, a notebook shows its first figure only

WIDTH = 7.0
"""Inches of a full-width figure: the two columns of a journal (178 mm), which no figure exceeds."""
COLUMN = 3.5
"""Inches of one column of a journal (89 mm)."""
DPI = 140
"""Pixels an inch on a screen: a full-width figure is 980 pixels wide."""
SMALL = 7.0
"""Points of the smallest letters: what a journal still prints."""

Dash = str | tuple[int, tuple[float, ...]]

_COLOURS = ("#332288", "#009E73", "#AA4499", "#0072B2", "#56B4E9", "#E69F00", "#882255", "#D55E00")
_OWN_COLOURS = ("#117733", "#CC6677", "#999933")
_DASHES: tuple[Dash, ...] = ("-", (0, (5, 1.5)), (0, (5, 1.5, 1, 1.5)), (0, (2, 0.8)))
_MARKERS = ("s", "^", "v", "D", "p", "X", "<", "P", "h", ">", "*")
_VARIANT_DASHES: tuple[Dash, ...] = ((0, (1, 1)), (0, (3, 1, 1, 1, 1, 1)), (0, (8, 2)), (0, (2, 2)))
_FONT = {
    "font.size": 8, "axes.titlesize": 8.5, "axes.labelsize": 8, "xtick.labelsize": 7.5, "ytick.labelsize": 7.5,
    "legend.fontsize": 7.5, "legend.title_fontsize": SMALL, "figure.titlesize": 9.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.color": "#dddddd", "grid.linewidth": 0.5,
    "axes.axisbelow": True, "axes.linewidth": 0.7, "xtick.major.width": 0.7, "ytick.major.width": 0.7,
    "xtick.major.size": 2.5, "ytick.major.size": 2.5, "lines.linewidth": 1.2, "lines.markersize": 4,
    "hatch.linewidth": 0.6, "pdf.fonttype": 42, "figure.constrained_layout.h_pad": 0.03,
}  # fmt: skip
"""Of every figure; its letters are embedded as letters, as journals ask for."""
_MORE_LETTERS = (
    "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK TC", "Noto Sans CJK KR", "Noto Sans JP", "Noto Sans SC",
    "Source Han Sans", "Source Han Sans SC", "Hiragino Sans", "PingFang SC", "Apple SD Gothic Neo", "Microsoft YaHei",
    "Yu Gothic", "Malgun Gothic", "SimHei", "IPAexGothic", "IPAGothic", "TakaoGothic", "WenQuanYi Zen Hei",
    "WenQuanYi Micro Hei", "Droid Sans Fallback", "Noto Sans Devanagari", "Noto Sans Bengali", "Noto Sans Thai",
    "Noto Sans Hebrew", "Noto Sans Symbols", "Noto Sans Symbols2", "Noto Emoji", "Arial Unicode MS",
)  # fmt: skip
"""Fonts that have what DejaVu Sans has not: a class may be named in any script."""


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
            "color": self.colour, "marker": self.marker, "linestyle": self.dash, "linewidth": 1.3, "markersize": 4.5,
            "markerfacecolor": "white" if self.hollow else self.colour, "markeredgecolor": self.colour,
            "markeredgewidth": 0.9,
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

    A variant has its method's marker, hollow, with a colour and a line of its own, taken from its name; should two
    labels of a study fall on the same colour, the later name takes the next free one while there is one.
    """
    found = {label: method_style(method) for label, method in labels.items() if label == method}
    for label in sorted(set(labels) - set(found)):
        base, start = method_style(labels[label]), _digest(label)
        colours = [colour for colour in (*_COLOURS, *_OWN_COLOURS) if colour != base.colour]
        colours = colours[start % len(colours) :] + colours[: start % len(colours)]
        taken = {style.colour for style in found.values()}
        colours.sort(key=lambda colour: colour in taken)  # stable: free ones first
        choices = (
            Style(colour, marker, dash, hollow=True)
            for marker in (base.marker, *_MARKERS)
            for dash in _VARIANT_DASHES[start % 4 :] + _VARIANT_DASHES[: start % 4]
            for colour in colours
        )
        found[label] = next(choice for choice in choices if choice not in found.values())
    return {label: found[label] for label in labels}


def height_for(labels: int, least: float) -> float:
    """Height of a picture, in inches, whose legend beside it names so many `labels`: `least`, or what they need."""
    return max(least, 0.9 + 0.16 * labels)


def figure(
    rows: int = 1, columns: int = 1, width: float = 4.5, height: float = 2.9, **options: Any
) -> tuple[Figure, Any]:
    """A figure of `rows` × `columns` axes in the kit's fonts; the axes are an array (rows, columns).

    Inches and points are those of a journal; a screen shows it larger (`DPI`).
    """
    with in_style():
        fig, axes = plt.subplots(
            rows, columns, figsize=(width, height), dpi=DPI, squeeze=False, layout="constrained", **options
        )
        return fig, axes


@contextmanager
def drawing(*grid: int, **options: Any) -> Iterator[tuple[Figure, Any]]:
    """A `figure` to be drawn on in the kit's fonts, and its axes, as many as the `grid`; without one its only axes."""
    with in_style():
        fig, axes = figure(*grid, **options)
        yield fig, axes if grid else axes[0, 0]


def in_style() -> Any:
    """A context in which text and axes made later have the kit's fonts too, and figures are saved with them."""
    return plt.rc_context(_FONT | {"font.family": families()})


@cache
def families() -> list[str]:
    """The fonts of the kit's figures, each for the letters that those before it have not."""
    manager = font_manager.fontManager
    for path in set(font_manager.findSystemFonts()) - {font.fname for font in manager.ttflist}:
        with suppress(Exception):  # not every file is a font that matplotlib can read
            manager.addfont(path)  # installed after matplotlib made its list, which it never makes again
    installed = {font.name for font in manager.ttflist}
    return ["DejaVu Sans", *(name for name in _MORE_LETTERS if name in installed)]


def without_letters(texts: Iterable[str]) -> str:
    """The letters of `texts` that none of the fonts has: a figure shows a box for each of them."""
    missing = {letter for text in texts for letter in text if letter.isprintable()}
    for name in families():
        if not missing:
            break
        font = font_manager.get_font(font_manager.findfont(name))
        missing = {letter for letter in missing if not font.get_char_index(ord(letter))}
    return "".join(sorted(missing))


def plain(text: object) -> str:
    """Text from a record as matplotlib shows it letter for letter: no mathematics, no line breaks, not too long."""
    words = " ".join(str(text).split())
    return (words if len(words) <= 60 else words[:57] + "…").replace("$", r"\$")


def in_two_lines(label: str, width: int) -> str:
    """A label that is longer than `width` letters in two lines, broken behind a point or an underscore."""
    if len(label) <= width:
        return plain(label)
    breaks = [place + 1 for place, letter in enumerate(label[:-1]) if letter in "._"] or [len(label) // 2]
    at = min(breaks, key=lambda place: (label[place - 1] != ".", abs(place - len(label) / 2)))
    return f"{plain(label[:at])}\n{plain(label[at:])}"


def percent_axis(axis: Axes, which: str = "y") -> None:
    """Fractions shown as percentages."""
    from matplotlib.ticker import FuncFormatter

    formatter = FuncFormatter(lambda value, _: f"{100 * value:g}%")
    (axis.yaxis if which == "y" else axis.xaxis).set_major_formatter(formatter)


def _digest(name: str) -> int:
    return int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "big")
