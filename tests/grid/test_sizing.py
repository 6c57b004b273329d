"""docs/sizing.md says what scripts/sizing.py counts, and what it counts is so."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from alkit import Experiment
from alkit.grid.estimate import NOTEBOOK, RECORD
from alkit.storage.files import write_npz

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
import sizing  # noqa: E402


def test_the_page_is_up_to_date() -> None:
    text = (ROOT / "docs" / "sizing.md").read_text(encoding="utf-8")
    assert sizing.page(text) == text, "run python scripts/sizing.py"


def test_a_residual_network_has_the_operations_that_its_layers_say() -> None:
    experiment = Experiment(dataset="cifar10", model="resnet18", width=64, subset=10_000, budget=1000, initial=1000)
    train, forward, _ = sizing.flops_an_image(experiment, sizing.images_of(experiment))

    def convolution(channels: int, filters: int, size: int, kernel: int = 3) -> int:
        return 2 * channels * filters * kernel**2 * size**2

    expected = convolution(3, 64, 32) + 2 * 512 * 10
    for stage, (before, filters, size) in enumerate([(64, 64, 32), (64, 128, 16), (128, 256, 8), (256, 512, 4)]):
        expected += convolution(before, filters, size) + 3 * convolution(filters, filters, size)
        expected += convolution(before, filters, size, kernel=1) if stage else 0
    assert forward == expected
    assert train == pytest.approx(3 * forward, rel=0.01)  # the images need no gradient


def test_disk_is_that_of_the_files(tmp_path: Path) -> None:
    experiment = Experiment(dataset="cifar10", model="resnet18", width=64, subset=10_000, budget=1000, initial=1000,
                            cycles=10)  # fmt: skip
    queries = {f"query_{c}": np.zeros(1000, np.int64) for c in range(1, 11)}
    for cycle in range(2, 11):
        queries |= {
            f"candidates_{cycle}": np.zeros(10_000, np.int32),
            f"utilities_{cycle}": np.zeros(10_000, np.float32),
        }
    shape = (10, 10_000)
    predictions = {
        "confidence": np.zeros(shape, np.float32),
        "correct": np.zeros(shape, bool),
        "predicted": np.zeros(shape, np.int16),
        "log_prob_true": np.zeros(shape, np.float32),
        "logits_last": np.zeros((10_000, 10), np.float16),
        "labels": np.zeros(10_000, np.int16),
    }
    for name, arrays in (("queries", queries), ("predictions", predictions)):
        write_npz(tmp_path / name, arrays)
    measured = sum(path.stat().st_size for path in tmp_path.iterdir())
    told = sizing.cost_of(experiment).disk - NOTEBOOK - 10 * RECORD
    assert told == pytest.approx(measured, rel=0.03)


def test_wall_time_is_the_work_shared_out_but_no_less_than_the_longest_run() -> None:
    study = sizing.Sized("x", jobs=(4.0, 2.0), chain=4.0, disk=0, scratch=0)
    assert study.hours(gpus=2, seeds=10) == 30
    assert study.hours(gpus=64, seeds=10) == 4
