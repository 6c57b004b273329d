"""What all tests share: tiny experiments, and one thread."""

from __future__ import annotations

import os
from contextlib import suppress
from io import BytesIO

os.environ.setdefault("OMP_NUM_THREADS", "1")

from typing import Any

import pytest
import torch

from alkit import Experiment
from alkit.grid.execute import import_papermill

torch.set_num_threads(1)
with suppress(ImportError):  # on a machine without Jupyter the tests of the card need none
    import_papermill()  # before a test imports it in the slow way

TINY: dict[str, Any] = {
    "dataset": "digits",
    "pool_size": 200,
    "test_size": 60,
    "initial": 20,
    "budget": 10,
    "cycles": 2,
    "model": "resnet10",
    "width": 4,
    "epochs": 2,
    "batch_size": 16,
    "milestones": [1],
    "posterior_samples": 4,
    "training_samples": 2,
    "vae_epochs": 1,
    "vae_width": 4,
    "vae_latent": 4,
    "gcn_steps": 3,
    "gcn_hidden": 8,
    "pretext_epochs": 1,
    "threads": 1,
    "device": "cpu",
}


@pytest.fixture
def tiny() -> Any:
    """`tiny(method="oo4al", …)`: an experiment of seconds on 200 digits."""

    def make(**overrides: Any) -> Experiment:
        return Experiment(**(TINY | overrides))

    return make


@pytest.fixture
def undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    """Figures are made and saved as ever, but a dot stands for each: where only the text is looked at."""
    from matplotlib.figure import Figure
    from PIL import Image

    Image.new("RGB", (1, 1)).save(dot := BytesIO(), "png")
    monkeypatch.setattr(Figure, "savefig", lambda self, file, **_: file.write(dot.getvalue()))


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--all", action="store_true", help="also run the tests that take minutes")
    parser.addoption("--kills", type=int, metavar="N", help="kill a study's command at N random moments, not a few")
    parser.addoption("--kills-csv", metavar="FILE", help="append a line about each of these kills to FILE")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    for item in items:
        if "slow" in item.keywords and not config.getoption("--all"):
            item.add_marker(pytest.mark.skip(reason="takes minutes: run with --all"))
        if "cuda" in item.keywords and not torch.cuda.is_available():
            item.add_marker(pytest.mark.skip(reason="needs a CUDA card"))
