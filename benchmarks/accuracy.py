"""What the faster ways cost in accuracy: read from the records of studies, differences paired by seed.

alkit run params/fashion_mnist_precision.yaml
alkit run params/fashion_mnist_pairing.yaml
alkit run params/fashion_mnist_pairing_long.yaml
alkit run params/cifar10_pairing.yaml
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from alkit.records import load_runs, read_run
from alkit.statistics import paired_test

OUTPUTS = Path(__file__).parents[1] / "outputs"
NO_COST = "0 within the interval, narrower than 1"
NO_WORSE = "the interval reaches 0"
COMPARISONS = (
    ("fashion_mnist_precision", "Fashion-MNIST", "bfloat16", "float32", NO_COST),
    ("fashion_mnist_pairing", "Fashion-MNIST", "involution", "permutation", NO_WORSE),
    ("fashion_mnist_pairing_long", "Fashion-MNIST", "involution", "permutation", NO_WORSE),
    ("cifar10_pairing", "CIFAR-10", "involution", "permutation", NO_WORSE),
)


def measure(repetitions: int = 5, folder: Path = OUTPUTS) -> list[dict[str, Any]]:
    """Mean difference in test accuracy, in percentage points, with Student's 95% interval: one row a study."""
    rows = []
    for study, data, ours, reference, target in COMPARISONS:
        frame = load_runs(folder / study) if (folder / study).exists() else []
        if not len(frame):
            raise SystemExit(f"{folder / study}: no records; first: alkit run params/{study}.yaml --out {folder}")
        epochs = read_run(frame["path"].iloc[0])["params"]["epochs"]
        values = frame.sort_values("cycle").groupby(["label", "seed"])["accuracy"].last()
        test = paired_test(values[ours], values[reference])
        low, high = (100 * bound for bound in test.interval)
        rows.append(
            {
                "name": f"accuracy, {ours}, {data}, {epochs} epochs", "against": f"{reference}, {test.n} seeds",
                "ratio": round(100 * test.mean_difference, 3), "low": round(low, 3), "high": round(high, 3),
                "unit": "points", "repetitions": test.n, "target": target,
                "reached": high >= 0 and (target == NO_WORSE or (low <= 0 and high - low < 1)), "p": round(test.p, 3),
                **{name: (100 * values[name]).round(2).tolist() for name in (ours, reference)},
            }
        )  # fmt: skip
    return rows
