"""Where data sets and decoded caches lie on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from alkit.storage.paths import absolute, home


def cache_folder() -> Path:
    """The folder for what can be made again: `$ALKIT_CACHE`, or `alkit` in the system's cache folder."""
    if os.environ.get("ALKIT_CACHE"):
        return absolute(os.environ["ALKIT_CACHE"])
    if sys.platform == "darwin":
        return home() / "Library" / "Caches" / "alkit"
    given = Path(os.environ.get("XDG_CACHE_HOME", ""))
    return (given if given.is_absolute() else home() / ".cache") / "alkit"  # relative is to be ignored, says XDG


def data_folder(root: Path | None) -> Path:
    """The folder that holds a data set: `root`, or `data` in the cache folder."""
    return absolute(root) if root is not None else cache_folder() / "data"
