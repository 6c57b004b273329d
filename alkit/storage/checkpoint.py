"""Checkpoints that are whole or not there: written to a temporary name, checked by their SHA-256 when read."""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import warnings
from pathlib import Path
from typing import Any

import torch

from alkit.errors import CheckpointError
from alkit.storage.files import atomic_write

_MAGIC = b"alkit-checkpoint-1 "


def save_checkpoint(path: Path, state: dict[str, Any]) -> None:
    """Write `state` (tensors and plain values) to `path`; the one that stood there becomes `previous(path)`."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    payload = buffer.getbuffer()
    try:
        with atomic_write(path.with_suffix(".new.pt")) as stream:
            stream.write(_MAGIC + hashlib.sha256(payload).hexdigest().encode() + b"\n")
            stream.write(payload)
        with contextlib.suppress(FileNotFoundError):
            os.replace(path, previous(path))
        os.replace(path.with_suffix(".new.pt"), path)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be written ({error.strerror}); the checkpoint before is kept") from None


def previous(path: Path) -> Path:
    """Where the checkpoint before the one at `path` is kept."""
    return path.with_suffix(".previous.pt")


def load_checkpoint(path: Path) -> dict[str, Any] | None:
    """The newest whole checkpoint at `path`; with a warning the one before it, or None if that is not whole either."""
    there = [file for file in (path.with_suffix(".new.pt"), path, previous(path)) if file.exists()]
    for candidate in there:
        try:
            return _read(candidate)
        except CheckpointError as error:
            then = "beginning anew" if candidate == there[-1] else "going on from the checkpoint before"
            warnings.warn(f"{error}; {then}", stacklevel=2)
    return None


def _read(path: Path) -> dict[str, Any]:
    try:
        content = path.read_bytes()
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    head, _, payload = content.partition(b"\n")
    if head != _MAGIC + hashlib.sha256(payload).hexdigest().encode():
        raise CheckpointError(f"{path}: truncated or damaged (its checksum does not hold)")
    try:
        state = torch.load(io.BytesIO(payload), map_location="cpu", weights_only=True)
    except Exception:  # whole, but not what save_checkpoint writes; torch and its unpickler raise what they like
        state = None
    if not isinstance(state, dict):
        raise CheckpointError(f"{path}: not a checkpoint of alkit")
    return state


def remove_checkpoints(path: Path) -> None:
    """Remove the checkpoint at `path` and the one before it."""
    for candidate in (path.with_suffix(".new.pt"), path, previous(path)):
        candidate.unlink(missing_ok=True)
