"""Pretext tasks: what an image's own structure teaches without labels, as one loss per image (PT4AL)."""

from importlib import import_module
from typing import Any

_HOMES = {
    "PretextLosses": "alkit.storage.loss_files",
    "read_losses": "alkit.storage.loss_files",
    "read_batches": "alkit.storage.loss_files",
    "write_losses": "alkit.storage.loss_files",
    "write_batches": "alkit.storage.loss_files",
    "pretext_key": "alkit.config.pretext",
    "pretext_settings": "alkit.config.pretext",
    "PretextTask": "alkit.training.pretext.base",
    "make_task": "alkit.training.pretext.base",
    "run_pretext": "alkit.training.pretext.run",
    "with_pretext": "alkit.training.pretext.run",
    "supervised_losses": "alkit.training.pretext.supervised",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: reading a file of losses needs no torch."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'alkit.training.pretext' has no attribute '{name}'")
