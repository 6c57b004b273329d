"""What a run on fixed features costs: a linear model on 1,280 numbers an image, ten classes, one core."""

from __future__ import annotations

import time
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch

from alkit import ActiveLearner, Experiment
from alkit.data import ImageSet, from_arrays
from benchmarks.timing import times_row

NUMBERS, CLASSES, POOL, TEST = 1_280, 10, 5_000, 10_000


def write_features(folder: Path) -> tuple[ImageSet, ImageSet]:
    """Images of four pixels, and in the folder a pair of files with features like those of an encoder."""
    middle, sets = torch.randn(CLASSES, NUMBERS, generator=torch.Generator().manual_seed(0)), []
    for seed, (split, count) in enumerate((("train", POOL), ("test", TEST))):
        draw = torch.Generator().manual_seed(seed + 1)
        labels = torch.arange(count) % CLASSES
        rows = (0.2 * middle[labels] + torch.randn(count, NUMBERS, generator=draw)).relu()
        np.save(folder / f"made_{split}.npy", rows.numpy())
        pixels = torch.randint(256, (count, 1, 2, 2), generator=draw, dtype=torch.uint8)
        sets.append(from_arrays("made_up", pixels, labels, [str(c) for c in range(CLASSES)]))
    return sets[0], sets[1]


def run_seconds(folder: Path, train: ImageSet, test: ImageSet, **parameters: Any) -> float:
    """Seconds of a run in this process, from its first label to its last record."""
    experiment = Experiment(
        features=str(folder / "made_train.npy"), model="linear", epochs=100, batch_size=64, lr=0.01, milestones=[80],
        threads=1, device="cpu", **parameters,
    )  # fmt: skip
    learner = ActiveLearner(experiment, train=train, test=test)
    began = time.perf_counter()
    for _ in learner:
        pass
    return time.perf_counter() - began


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """Two rows of seconds: one cycle on 1,000 labels with its evaluation, and ten cycles of `margin`."""
    torch.set_num_threads(1)
    with TemporaryDirectory() as name:
        given = (Path(name), *write_features(Path(name)))
        run_seconds(*given, method="random", initial=10, cycles=1)  # libraries are loaded
        one = [run_seconds(*given, method="random", initial=1_000, cycles=1) for _ in range(repetitions)]
        many = {"method": "margin", "initial": 100, "budget": 100, "cycles": 10}
        ten = [run_seconds(*given, **many) for _ in range(repetitions)]
    return [
        times_row("a cycle of a linear model, 1,000 labels, 10,000 test images", one, "at most 1.5 s"),
        times_row("ten cycles of margin, 100 to 1,000 labels", ten, "at most 20 s"),
    ]
