"""Interleaved timing: what is compared runs in turn, so that a busy machine slows both."""

from __future__ import annotations

import gc
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any


@dataclass
class Comparison:
    """Seconds of `ours` and `reference` over repetitions; `ratio` is reference over ours, so above 1 is faster."""

    name: str
    reference_name: str
    ours: list[float]
    reference: list[float]
    target: str = ""
    details: dict[str, Any] = field(default_factory=dict)

    @property
    def ratios(self) -> list[float]:
        return [r / o for r, o in zip(self.reference, self.ours, strict=True)]

    def row(self) -> dict[str, Any]:
        """The comparison as one flat row of the table."""
        return {
            "name": self.name,
            "against": self.reference_name,
            "ratio": round(statistics.median(self.ratios), 3),
            "low": round(min(self.ratios), 3),
            "high": round(max(self.ratios), 3),
            "repetitions": len(self.ratios),
            "ours_seconds": round(statistics.median(self.ours), 5),
            "reference_seconds": round(statistics.median(self.reference), 5),
            "target": self.target,
            **self.details,
        }


def seconds(function: Callable[[], Any]) -> float:
    """Wall time of one call."""
    began = time.perf_counter()
    function()
    return time.perf_counter() - began


def compare(
    name: str,
    ours: Callable[[], Any],
    reference_name: str,
    reference: Callable[[], Any],
    repetitions: int = 5,
    target: str = "",
    **details: Any,
) -> Comparison:
    """Call both in turn `repetitions` times, after one call each that does not count."""
    ours()
    reference()
    result = Comparison(name, reference_name, [], [], target, details)
    gc.collect()
    for number in range(repetitions):
        order = [("ours", ours), ("reference", reference)]
        for kind, function in order if number % 2 == 0 else reversed(order):
            getattr(result, kind).append(seconds(function))
    return result


def table(rows: list[dict[str, Any]]) -> str:
    """The comparisons as aligned text."""
    head = ["measurement", "against", "ratio", "spread", "target"]
    body = [
        [r["name"], r["against"], f"{r['ratio']:.2f}", f"{r['low']:.2f} to {r['high']:.2f}", r["target"]] for r in rows
    ]
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body])
    return "\n".join(lines)
