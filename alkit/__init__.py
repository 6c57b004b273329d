"""alkit: reproducible deep active learning, notebook first."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from alkit import calibration, data, models, objectives, records, statistics, strategies
    from alkit.analysis import plots
    from alkit.config import Experiment, Study
    from alkit.data import ImageSet, load_dataset
    from alkit.learner import ActiveLearner

__version__ = "0.1.0"

_HOMES = {
    "Experiment": "alkit.config",
    "Study": "alkit.config",
    "ImageSet": "alkit.data",
    "load_dataset": "alkit.data",
    "ActiveLearner": "alkit.learner",
}
_MODULES = {name: f"alkit.{name}" for name in ("calibration", "data", "models", "objectives", "records", "statistics",
                                              "strategies")} | {"plots": "alkit.analysis.plots"}  # fmt: skip

__all__ = [
    "ActiveLearner",
    "Experiment",
    "ImageSet",
    "Study",
    "calibration",
    "data",
    "load_dataset",
    "models",
    "objectives",
    "plots",
    "records",
    "statistics",
    "strategies",
]


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: the command line must start without torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    if name in _MODULES:
        return import_module(_MODULES[name])
    raise AttributeError(f"module 'alkit' has no attribute '{name}'")
