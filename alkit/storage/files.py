"""Writing files so that a reader never sees half of one."""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, BinaryIO

import numpy as np


@contextmanager
def atomic_write(path: str | Path) -> Iterator[BinaryIO]:
    """Open a temporary file beside `path`; on success flush it to disk and rename it to `path`.

    An exception, or a kill at any moment, leaves whatever stood at `path` untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.", suffix=".tmp")
    try:
        with os.fdopen(handle, "wb") as stream:
            yield stream
            stream.flush()
            os.fsync(stream.fileno())
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)  # mkstemp makes the file private
        os.replace(temporary, path)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)
        raise


def write_json(path: str | Path, value: Any) -> None:
    """Write `value` as indented JSON, atomically."""
    with atomic_write(path) as stream:
        stream.write((json.dumps(value, indent=1) + "\n").encode())


def write_text(path: str | Path, text: str) -> None:
    """Write `text` as UTF-8, atomically."""
    with atomic_write(path) as stream:
        stream.write(text.encode())


def write_npz(path: str | Path, arrays: dict[str, np.ndarray]) -> None:
    """Write arrays as an uncompressed npz whose bytes depend on the arrays alone, atomically."""
    with atomic_write(path) as stream:
        np.savez(stream, allow_pickle=False, **arrays)  # type: ignore[arg-type]


def for_papermill(path: str | Path) -> str:
    """A path as papermill takes it: braces would be names of parameters to fill in."""
    return str(path).replace("{", "{{").replace("}", "}}")


def sha256(path: str | Path) -> str:
    """The hexadecimal SHA-256 of a file."""
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, "sha256").hexdigest()


def clean_temporary(folder: str | Path) -> None:
    """Remove what a killed `atomic_write` left in `folder`."""
    for leftover in Path(folder).glob(".*.tmp"):
        leftover.unlink(missing_ok=True)


def take_lock(handle: IO[Any], patience: float) -> bool:
    """Lock an open file for this process, waiting so many seconds for whoever has it; whether that was granted.

    The system lets go of it however the process ends, so no lock is ever stale.
    """
    until = time.monotonic() + patience
    while True:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except OSError:
            if time.monotonic() >= until:
                return False
            time.sleep(0.1)
