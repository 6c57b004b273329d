"""Time and peak memory of every strategy as the pool grows, each measured in a process of its own."""

from __future__ import annotations

import ctypes
import json
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import torch

from alkit import Experiment
from alkit.errors import ConfigError
from alkit.strategies import TensorPool, make_strategy

SIZES = (10_000, 100_000, 1_000_000)
WIDTH, LABELLED, BUDGET, CLASSES, SAMPLES = 512, 1_000, 1_000, 10, 10
METHODS = (
    "margin", "entropy", "ranked_margin", "bald", "sbias", "coreset", "uncertain_gcn", "core_gcn", "badge",
    "typiclust", "probcover", "hierarchical", "max_herding", "uncertainty_herding", "dropquery", "alfa_mix", "bait",
    "tcm", "dcom",
)  # fmt: skip


def _pool(experiment: Experiment, count: int) -> TensorPool:
    """A pool of made-up features (count, 512), with logits, or posterior samples, where the method needs them."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (count + LABELLED,), generator=generator)
    tensors: dict[str, Any] = {}
    if "posterior" in experiment.row.needs:
        tensors["log_probs"] = torch.empty(SAMPLES, count, CLASSES)
        for sample in tensors["log_probs"]:
            sample.copy_(torch.randn(count, CLASSES, generator=generator).log_softmax(1))
    else:
        tensors["logits"] = torch.randn(count, CLASSES, generator=generator)
    tensors["features"] = torch.randn(count, WIDTH, generator=generator)
    tensors["labelled_features"] = torch.randn(LABELLED, WIDTH, generator=generator)
    for features, labels in [(tensors["features"], truth[:count]), (tensors["labelled_features"], truth[count:])]:
        middle = torch.randn(CLASSES, WIDTH, generator=torch.Generator().manual_seed(1))
        for rows, some in zip(features.split(4096), labels.split(4096), strict=True):
            rows.add_(middle[some]).relu_()
    weight = torch.randn(WIDTH, CLASSES, generator=generator) / WIDTH
    tensors["model_features"], tensors["labelled_model_features"] = tensors["features"], tensors["labelled_features"]
    tensors["labelled_logits"] = tensors["labelled_features"] @ weight
    return TensorPool(
        torch.arange(count), torch.arange(count, count + LABELLED), truth[count:], CLASSES,
        reveal=lambda index: int(truth[index]), classify=lambda features: features @ weight, **tensors,
    )  # fmt: skip


def _of_candidates(pool: TensorPool, kept: torch.Tensor) -> TensorPool:
    """The pool of the candidates at `kept` alone, for strategies that look at a part of many (the herdings)."""
    if len(kept) == len(pool.candidates):
        return pool
    features = pool.features[kept]
    return TensorPool(
        kept, pool.labelled, pool.labels, CLASSES, logits=pool.logits[kept], features=features,
        labelled_features=pool.labelled_features, model_features=features,
        labelled_model_features=pool.labelled_features,
    )  # fmt: skip


def forget_peak() -> None:
    """Let `peak_memory` begin from now, where the system can (Linux)."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")


def peak_memory() -> int:
    """Most bytes of memory this process held: since `forget_peak` on Linux, elsewhere since it began."""
    with suppress(OSError):
        status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
        return int(status["VmHWM"].split()[0]) * 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)


def measure_one(method: str, count: int) -> dict[str, Any]:
    """Seconds and peak memory, beyond the pool's own tensors, of one query in this process."""
    experiment = Experiment(method=method, budget=BUDGET, posterior_samples=SAMPLES)
    row: dict[str, Any] = {"strategy": method, "n": count, "features_bytes": 4 * count * WIDTH}
    strategy = make_strategy(experiment)
    strategy.query(_pool(experiment, 2 * BUDGET), 10, torch.Generator().manual_seed(0))  # libraries are loaded
    pool = _pool(experiment, count)
    with suppress(AttributeError, OSError, TypeError):  # memory that was freed and kept would hide what the query takes
        ctypes.CDLL(None).malloc_trim(0)
    forget_peak()
    before, began, worked = psutil.Process().memory_info().rss, time.perf_counter(), time.process_time()
    try:
        kept = strategy.candidates(torch.arange(count), 1, torch.Generator().manual_seed(0))
        pool = _of_candidates(pool, kept)
        answer = strategy.query(pool, min(BUDGET, count), torch.Generator().manual_seed(0))
    except ConfigError as error:
        return row | {"seconds": None, "cpu_seconds": None, "peak_bytes": None, "refused": str(error)}
    wall, worked = time.perf_counter() - began, time.process_time() - worked
    peak = peak_memory()
    assert len(answer.indices) == min(BUDGET, count)
    return row | {
        "seconds": round(wall, 4),
        "cpu_seconds": round(worked, 4),
        "peak_bytes": max(peak - before, 0),
        "times_features": round(max(peak - before, 0) / row["features_bytes"], 3),
    }


def measure(
    sizes: Iterable[int] = SIZES,
    methods: Iterable[str] = METHODS,
    known: Iterable[dict[str, Any]] = (),
    keep: Callable[[list[dict[str, Any]]], None] = lambda rows: None,
) -> list[dict[str, Any]]:
    """One row a method and size: seconds, peak memory beyond the pool in bytes, or why it was refused.

    One thread, so that the seconds of the processor mean the same on a machine that is not idle. What `known` has is
    not measured again; `keep` is called with all rows after each.
    """
    rows = [row for row in known if not row.get("failed")]
    for method in methods:
        for count in sizes:
            if any((row["strategy"], row["n"]) == (method, count) for row in rows):
                continue
            done = subprocess.run(
                [sys.executable, "-m", "benchmarks.growth", method, str(count)],
                env=dict(os.environ) | {"OMP_NUM_THREADS": "1"}, cwd=Path(__file__).parents[1],
                capture_output=True, text=True, check=False,
            )  # fmt: skip
            if done.returncode:
                why = f"exit status {done.returncode}: {(done.stderr.strip().splitlines() or [''])[-1]}"
                rows.append({"strategy": method, "n": count, "seconds": None, "peak_bytes": None, "failed": why})
            else:
                rows.append(json.loads(done.stdout.splitlines()[-1]))
            keep(rows)
    return sorted(rows, key=lambda row: (METHODS.index(row["strategy"]), row["n"]))


def slopes(rows: list[dict[str, Any]], what: str = "cpu_seconds") -> dict[str, float]:
    """The slope of log(`what`) on log(n) for each strategy with two sizes or more: 1 is linear."""
    result = {}
    for name in dict.fromkeys(row["strategy"] for row in rows):
        points = [
            (math.log(row["n"]), math.log(row[what])) for row in rows if row["strategy"] == name and row.get(what)
        ]
        if len(points) > 1:
            x, y = (sum(values) / len(points) for values in zip(*points, strict=True))
            result[name] = sum((a - x) * (b - y) for a, b in points) / sum((a - x) ** 2 for a, _ in points)
    return result


COLOURS = ("#332288", "#0072B2", "#56B4E9", "#009E73", "#999933", "#E69F00", "#D55E00", "#AA4499", "#882255", "#117733",
           "#CC6677", "#7a7a7a")  # fmt: skip
MARKERS = ("o", "s", "^", "D", "v", "P", "X")


def plot(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Seconds and peak memory against the number of candidates, log-log; one legend with the slopes of both."""
    import matplotlib.pyplot as plt

    from alkit.analysis.plots.style import WIDTH, figure, in_style

    fig, panels = figure(1, 2, width=WIDTH, height=3.8)
    measures = (("cpu_seconds", 1.0, "seconds of one core"), ("peak_bytes", 1e6, "MB beyond the pool, at its peak"))
    names = list(dict.fromkeys(row["strategy"] for row in rows))
    found = [slopes(rows, what) for what, _, _ in measures]
    with in_style():
        for axis, (what, unit, title) in zip(panels[0], measures, strict=True):
            for number, name in enumerate(names):
                points = [(row["n"], row[what] / unit) for row in rows if row["strategy"] == name and row.get(what)]
                grown = " / ".join(f"{slope[name]:.2f}" if name in slope else "–" for slope in found)
                if points:
                    axis.plot(*zip(*points, strict=True), label=f"{name}  {grown}", linewidth=1.1, markersize=3.5,
                              color=COLOURS[number % 12], marker=MARKERS[number % 7],
                              linestyle=("-", "--", ":")[number // 12 % 3])  # fmt: skip
            axis.set(xscale="log", yscale="log", xlabel="candidates (512 features each)", ylabel=title)
        features = sorted({(row["n"], row["features_bytes"] / 1e6) for row in rows if "features_bytes" in row})
        if features:
            panels[0, 1].plot(*zip(*features, strict=True), color="black", linestyle=(0, (1, 2)), label="the features")
        handles, texts = panels[0, 1].get_legend_handles_labels()
        fig.legend(handles, texts, title="exponent of n: seconds / memory (–: one size only)", frameon=False,
                   loc="outside lower center", ncols=3, handlelength=2.6)  # fmt: skip
    fig.savefig(path, dpi=180)
    plt.close(fig)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [f"{'strategy':16}{'candidates':>12}{'core seconds':>14}{'peak MB':>10}{'× features':>12}"]
    for row in rows:
        if row["seconds"] is None:
            lines.append(f"{row['strategy']:16}{row['n']:>12,}  {row.get('refused') or row.get('failed')}")
        else:
            lines.append(
                f"{row['strategy']:16}{row['n']:>12,}{row['cpu_seconds']:>14.2f}{row['peak_bytes'] / 1e6:>10.0f}"
                f"{row['times_features']:>12.2f}"
            )
    lines += [f"{name:16}seconds grow as n^{slope:.2f}" for name, slope in slopes(rows).items()]
    return "\n".join(lines)


def markdown(rows: list[dict[str, Any]]) -> str:
    """One line a strategy: seconds of one core and memory beyond the pool at the largest size, and the slope."""
    found = slopes(rows)
    lines = ["| strategy | candidates | core seconds | memory, × features | slope |", "| --- | --- | --- | --- | --- |"]
    for name in found:
        row = [row for row in rows if row["strategy"] == name and row["seconds"] is not None][-1]
        lines.append(
            f"| {name} | {row['n']:,} | {row['cpu_seconds']:.1f} | {row['times_features']:.2f} | {found[name]:.2f} |"
        )
    return "\n".join(lines)


if __name__ == "__main__":
    print(json.dumps(measure_one(sys.argv[1], int(sys.argv[2]))))
