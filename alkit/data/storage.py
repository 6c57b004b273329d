"""Where data sets and decoded caches lie on this machine."""

from __future__ import annotations

import os
import sys
from pathlib import Path


def cache_folder() -> Path:
    """The folder for what can be made again: `$ALKIT_CACHE`, or `alkit` in the system's cache folder."""
    if "ALKIT_CACHE" in os.environ:
        return Path(os.environ["ALKIT_CACHE"]).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "alkit"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "alkit"


def data_folder(root: Path | None) -> Path:
    """The folder that holds a data set: `root`, or `data` in the cache folder."""
    return root.expanduser() if root is not None else cache_folder() / "data"
