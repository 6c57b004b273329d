"""Numbers and names as a sentence says them: "1 seed", "both seeds", "a, b and c"."""

from __future__ import annotations

import math
import re
import reprlib
import textwrap
from collections.abc import Iterable, Sequence


def as_text(name: object) -> str:
    """A name as text that can be written; bytes of another encoding in a file's name are spelt out: `caf\\xe9`."""
    spelt = re.sub("[\udc80-\udcff]", lambda sign: f"\\x{ord(sign[0]) - 0xDC00:02x}", str(name))
    return spelt.encode("utf-8", "backslashreplace").decode()


def counted(n: int, noun: str, plural: str | None = None) -> str:
    """`1 seed`, `2 seeds`, `no seeds`; `plural` where it is not the noun with an s."""
    return f"{n or 'no'} {noun if n == 1 else plural or f'{noun}s'}"


def every(n: int, noun: str, plural: str | None = None) -> str:
    """`the one seed`, `both seeds`, `all 3 seeds`."""
    many = plural or f"{noun}s"
    return f"the one {noun}" if n == 1 else f"both {many}" if n == 2 else f"all {n} {many}"


def listed(names: Sequence[object], most: int = 8) -> str:
    """`a`, `a and b`, `a, b and c`; of more than `most` the first, and how many more."""
    texts = [str(name) for name in names]
    if len(texts) > most:
        texts = [*texts[: most - 1], f"{len(texts) - most + 1} more"]
    return " and ".join(part for part in (", ".join(texts[:-1]), *texts[-1:]) if part)


def digits_beside_zero(ends: Sequence[float], digits: int = 1) -> int:
    """Digits after the point, `digits` or up to two more, with which no end of an interval reads as the 0 it is not."""
    return next((n for n in (digits, digits + 1) if all(round(end, n) or not end for end in ends)), digits + 2)


def shown(value: object) -> str:
    """A value as Python writes it, cut short: aliases make values that are far longer than their file."""
    short = reprlib.Repr()
    short.maxlevel, short.maxstring, short.maxother = 2, 60, 60
    try:
        return short.repr(value)
    except ValueError:  # a whole number of thousands of digits
        return f"a value of type {type(value).__name__}"


def duration(hours: float) -> str:
    """Hours as minutes below one, as days from two days on, as years from two years on: `25 min`, `1.9 h`."""
    for unit, name in ((24 * 365, "years"), (24, "days")):
        if hours >= 2 * unit:
            return f"{_short(hours / unit)} {name}"
    return f"{_short(hours)} h" if hours >= 1 else f"{math.ceil(60 * hours)} min"


def size(number: float) -> str:
    """Bytes as `30 MB`, `2.4 GB`, `1.1 TB`."""
    for unit, name in ((1e12, "TB"), (1e9, "GB")):
        if number >= unit:
            return f"{_short(number / unit)} {name}"
    return f"{number / 1e6:,.0f} MB"


def _short(value: float) -> str:
    return f"{value:,.0f}" if value >= 10 else f"{value:.2g}"


def aligned(rows: list[list[str]], right: Iterable[int] = (), width: int = 120) -> str:
    """Rows of text as columns, the first row underlined; the last column is wrapped so that lines fit `width`."""
    from_right, last = set(right), len(rows[0]) - 1
    widths = [max(len(part) for row in rows for part in row[i].split("\n")) for i in range(last + 1)]
    widths[last] = min(widths[last], max(20, width - sum(widths[:last]) - 2 * last))
    lines = []
    for row in [rows[0], ["-" * size for size in widths], *rows[1:]]:
        wrapped = [line for part in row[last].split("\n") for line in textwrap.wrap(part, widths[last]) or [""]]
        for number, part in enumerate(wrapped):
            cells = [*row[:last], part] if number == 0 else [""] * last + [part]
            pairs = enumerate(zip(cells, widths, strict=True))
            lines.append("  ".join(c.rjust(w) if i in from_right else c.ljust(w) for i, (c, w) in pairs).rstrip())
    return "\n".join(lines)
