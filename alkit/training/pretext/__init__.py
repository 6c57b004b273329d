"""Pretext tasks: what an image's own structure teaches without labels, as one loss per image (PT4AL)."""

from importlib import import_module
from typing import Any

_HOMES = {
    "PretextLosses": "exchange",
    "read_losses": "exchange",
    "read_batches": "exchange",
    "write_losses": "exchange",
    "write_batches": "exchange",
    "pretext_key": "settings",
    "pretext_settings": "settings",
    "PretextTask": "base",
    "make_task": "base",
    "run_pretext": "run",
    "with_pretext": "run",
    "supervised_losses": "supervised",
}

__all__ = sorted(_HOMES)


def __getattr__(name: str) -> Any:
    """Import what is asked for when it is asked for: reading a file of losses needs no torch."""
    if name in _HOMES:
        return getattr(import_module(f"alkit.pretext.{_HOMES[name]}"), name)
    raise AttributeError(f"module 'alkit.pretext' has no attribute '{name}'")
