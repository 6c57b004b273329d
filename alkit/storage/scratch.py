"""Folders for a while. Whoever makes one holds its lock; what a killed process left is removed by the next to come."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from alkit.storage.files import take_lock

_LOCK, _NEW = ".lock", ".new-"


@contextmanager
def scratch_folder(prefix: str, within: str | Path | None = None) -> Iterator[Path]:
    """A new folder PREFIX… in `within` (None: where temporary files go), gone at the end.

    First those of the same prefix are removed whose process has ended without removing them. A folder without a lock
    is nobody's to remove.
    """
    place = Path(tempfile.gettempdir() if within is None else within)
    for left in place.glob(f"{prefix}*"):
        _remove_if_left(left)
    path = Path(tempfile.mkdtemp(prefix=f"{_NEW}{prefix}", dir=place))
    try:
        with (path / _LOCK).open("w") as handle:
            take_lock(handle, 0)  # where files cannot be locked, nobody's folders are removed
            path = path.rename(place / path.name.removeprefix(_NEW))  # only now others look at it
            yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _remove_if_left(folder: Path) -> None:
    with suppress(OSError), (folder / _LOCK).open("r+") as handle:  # another's, gone meanwhile, or in use
        if take_lock(handle, 0):
            shutil.rmtree(folder, ignore_errors=True)
