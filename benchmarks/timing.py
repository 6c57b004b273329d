"""Interleaved timing: what is compared runs in turn, so that a busy machine slows both."""

from __future__ import annotations

import gc
import re
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

_clock = {"now": time.perf_counter}


def use_processor_time() -> None:
    """Count the seconds that the processor worked for this process, which other programs' load does not lengthen.

    With one thread these are the seconds that pass on an idle machine.
    """
    _clock["now"] = time.process_time


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
        """The comparison as one flat row of the table: median, lowest and highest ratio, and every repetition."""
        return {
            "name": self.name,
            "against": self.reference_name,
            "ratio": round(statistics.median(self.ratios), 3),
            "low": round(min(self.ratios), 3),
            "high": round(max(self.ratios), 3),
            "repetitions": len(self.ratios),
            "ours_seconds": [round(value, 5) for value in self.ours],
            "reference_seconds": [round(value, 5) for value in self.reference],
            "target": self.target,
            **self.details,
        }


def times_row(name: str, seconds: list[float], target: str, **details: Any) -> dict[str, Any]:
    """A row of the table for one thing's seconds, compared with nothing."""
    return {
        "name": name,
        "against": "",
        "ratio": round(statistics.median(seconds), 3),
        "low": round(min(seconds), 3),
        "high": round(max(seconds), 3),
        "unit": "s",
        "repetitions": len(seconds),
        "ours_seconds": [round(value, 5) for value in seconds],
        "target": target,
        **details,
    }


def seconds(function: Callable[[], Any]) -> float:
    """The time of one call, without Python's search for cyclic garbage, as in `timeit`: it may fall into any call."""
    gc.collect()
    gc.disable()
    try:
        began = _clock["now"]()
        function()
        return _clock["now"]() - began
    finally:
        gc.enable()


def compare(
    name: str,
    ours: Callable[[], Any],
    reference_name: str,
    reference: Callable[[], Any],
    repetitions: int = 5,
    target: str = "",
    warm_up: bool = True,
    **details: Any,
) -> Comparison:
    """Call both in turn `repetitions` times, after one call each that does not count."""
    if warm_up:
        ours()
        reference()
    result = Comparison(name, reference_name, [], [], target, details)
    for number in range(repetitions):
        order = [("ours", ours), ("reference", reference)]
        for kind, function in order if number % 2 == 0 else reversed(order):
            getattr(result, kind).append(seconds(function))
    return result


def reached(row: dict[str, Any]) -> bool | None:
    """Whether the median reaches the target ("at least 3", "at most 5 s") and the answers agree; None without one."""
    if "reached" in row:
        return bool(row["reached"])
    match = re.search(r"(at least|at most) ([\d.]+)", row.get("target", ""))
    if match is None:
        return None
    bound = float(match[2])
    good = row["ratio"] >= bound if match[1] == "at least" else row["ratio"] <= bound
    return bool(good and row.get("same_answer", True))


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    head = ["measurement", "against", "result", "spread", "target", "reached"]
    body = []
    for row in rows:
        unit = row.get("unit", "×")
        body.append(
            [
                row["name"], row["against"], f"{row['ratio']:.2f} {unit}", f"{row['low']:.2f} to {row['high']:.2f}",
                row.get("target", ""), {True: "yes", False: "NO", None: ""}[reached(row)],
            ]
        )  # fmt: skip
    widths = [max(len(line[i]) for line in [head, *body]) for i in range(len(head))]
    lines = ("  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)) for line in [head, *body])
    return "\n".join(line.rstrip() for line in lines)


def markdown(rows: list[dict[str, Any]]) -> str:
    """The rows as a table for a README."""
    lines = ["| measurement | against | result | spread | asked for |", "| --- | --- | --- | --- | --- |"]
    for row in rows:
        unit = row.get("unit", "×")
        lines.append(
            f"| {row['name']} | {row['against']} | **{row['ratio']:.2f}** {unit} "
            f"| {row['low']:.2f} to {row['high']:.2f} | {row.get('target', '')} |"
        )
    return "\n".join(lines)
