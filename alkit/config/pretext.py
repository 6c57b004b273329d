"""Which parameters decide a pretext task's losses. Imports nothing heavy, so that the grid can name files by them."""

from __future__ import annotations

import hashlib
import json
from typing import Any

from alkit.config import Experiment

_POOL = ("image_size", "pool_size", "class_balance", "imbalance_factor", "skip_broken", "test_fraction", "dataset_seed")
_TRAINING = (
    "seed", "pretext", "pretext_epochs", "pretext_batch_size", "pretext_lr", "momentum", "weight_decay", "model",
    "width", "stem", "dropout", "precision",
)  # fmt: skip
_QUIRKS = ("bgr_images", "imagenet_corner_pool", "rotation_four_passes")


def pool_settings(experiment: Experiment) -> dict[str, Any]:
    """What decides which image stands at which place of the pool; losses of another pool are refused."""
    values = experiment.model_dump(mode="json")
    chosen = {"dataset": experiment.dataset, **{name: values[name] for name in _POOL}}
    return chosen | {"imbalance_step": experiment.quirk("imbalance_step")}


def pretext_settings(experiment: Experiment) -> dict[str, Any]:
    """Every parameter that decides the pretext losses of `experiment`: runs that share these share the losses."""
    values = experiment.model_dump(mode="json")
    settings = pool_settings(experiment) | {name: values[name] for name in _TRAINING}
    return settings | {name: experiment.quirk(name) for name in _QUIRKS}


def pretext_key(experiment: Experiment) -> str:
    """A short name for a file of these losses, the same for runs that share them: `rotation-seed-0-1f3a9c2b`."""
    content = json.dumps(pretext_settings(experiment), sort_keys=True)
    return f"{experiment.pretext}-seed-{experiment.seed}-{hashlib.sha256(content.encode()).hexdigest()[:8]}"
