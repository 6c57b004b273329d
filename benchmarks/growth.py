"""Time and peak memory of every strategy as the pool grows, each measured in a process of its own."""

from __future__ import annotations

import argparse
import json
import math
import os
import resource
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import torch

from alkit import Experiment
from alkit.errors import ConfigError
from alkit.strategies import TensorPool, make_strategy

WIDTH, LABELLED, BUDGET, CLASSES, SAMPLES = 512, 1_000, 1_000, 10, 10
METHODS = (
    "margin", "entropy", "ranked_margin", "bald", "sbias", "coreset", "uncertain_gcn", "core_gcn", "badge",
    "typiclust", "probcover", "hierarchical",
)  # fmt: skip


def _pool(experiment: Experiment, count: int) -> TensorPool:
    """A pool of made-up features (count, 512), with logits, or posterior samples, where the method needs them."""
    generator = torch.Generator().manual_seed(0)
    truth = torch.randint(CLASSES, (count + LABELLED,), generator=generator)
    tensors = {}
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
    return TensorPool(
        torch.arange(count), torch.arange(count, count + LABELLED), truth[count:], CLASSES,
        reveal=lambda index: int(truth[index]), **tensors,
    )  # fmt: skip


def measure_one(method: str, count: int) -> dict[str, Any]:
    """Seconds and peak memory, beyond the pool's own tensors, of one query in this process."""
    experiment = Experiment(method=method, budget=BUDGET, posterior_samples=SAMPLES)
    row: dict[str, Any] = {"strategy": method, "n": count, "features_bytes": 4 * count * WIDTH}
    strategy = make_strategy(experiment)
    strategy.query(_pool(experiment, 2 * BUDGET), 10, torch.Generator().manual_seed(0))  # libraries are loaded
    pool = _pool(experiment, count)
    before, began = psutil.Process().memory_info().rss, time.perf_counter()
    try:
        answer = strategy.query(pool, min(BUDGET, count), torch.Generator().manual_seed(0))
    except ConfigError as error:
        return row | {"seconds": None, "peak_bytes": None, "refused": str(error)}
    unit = 1 if sys.platform == "darwin" else 1024
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    assert len(answer.indices) == min(BUDGET, count)
    return row | {
        "seconds": round(time.perf_counter() - began, 4),
        "peak_bytes": max(peak - before, 0),
        "times_features": round(max(peak - before, 0) / row["features_bytes"], 3),
    }


def measure(
    sizes: tuple[int, ...] = (10_000, 100_000, 1_000_000),
    methods: tuple[str, ...] = METHODS,
    threads: int | None = None,
) -> list[dict[str, Any]]:
    """One row a method and size: seconds, peak memory beyond the pool in bytes, or why it was refused."""
    rows = []
    environment = dict(os.environ) | ({"OMP_NUM_THREADS": str(threads)} if threads else {})
    for method in methods:
        for count in sizes:
            command = [sys.executable, "-m", "benchmarks.growth", "--one", method, str(count)]
            done = subprocess.run(
                command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, check=False
            )
            row = {"strategy": method, "n": count, "seconds": None, "peak_bytes": None}
            if done.returncode:
                rows.append(row | {"failed": (done.stderr.strip().splitlines() or ["no word"])[-1]})
            else:
                rows.append(json.loads(done.stdout.splitlines()[-1]))
    return rows


def slopes(rows: list[dict[str, Any]], what: str = "seconds") -> dict[str, float]:
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


def plot(rows: list[dict[str, Any]], path: str | Path) -> None:
    """Seconds and peak memory against the number of candidates, log-log, with the fitted slopes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 4.5), layout="constrained")
    for axes, what, title in zip(
        figure.subplots(1, 2), ("seconds", "peak_bytes"), ("seconds", "peak bytes beyond the pool"), strict=True
    ):
        for name, slope in slopes(rows, what).items():
            points = [(row["n"], row[what]) for row in rows if row["strategy"] == name and row.get(what)]
            axes.plot(*zip(*points, strict=True), marker="o", label=f"{name} ({slope:.2f})")
        axes.set(xscale="log", yscale="log", xlabel="candidates", title=f"{title} (fitted slope)")
        axes.legend(fontsize=7)
    figure.savefig(path)


def table(rows: list[dict[str, Any]]) -> str:
    """The rows as aligned text."""
    lines = [f"{'strategy':16}{'n':>10}{'seconds':>12}{'peak MB':>10}{'× features':>12}"]
    for row in rows:
        if row["seconds"] is None:
            lines.append(f"{row['strategy']:16}{row['n']:>10}  {row.get('refused') or row.get('failed')}")
        else:
            lines.append(
                f"{row['strategy']:16}{row['n']:>10}{row['seconds']:>12.3f}{row['peak_bytes'] / 1e6:>10.0f}"
                f"{row['times_features']:>12.2f}"
            )
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--one", nargs=2, metavar=("METHOD", "N"), help="measure one in this process; prints JSON")
    parser.add_argument("--sizes", type=int, nargs="+", default=[10_000, 100_000, 1_000_000])
    parser.add_argument("--methods", nargs="+", default=list(METHODS))
    options = parser.parse_args()
    if options.one:
        print(json.dumps(measure_one(options.one[0], int(options.one[1]))))
        return
    rows = measure(tuple(options.sizes), tuple(options.methods))
    print(table(rows))
    for name, slope in slopes(rows).items():
        print(f"{name:16} seconds grow as n^{slope:.2f}")


if __name__ == "__main__":
    main()
