"""Short runs for what is run as it stands: in processes of their own an Experiment trains a small network little."""

from __future__ import annotations

from pathlib import Path
from typing import Any

SHORT: dict[str, Any] = {"epochs": 2, "milestones": [1], "width": 4}
"""What an Experiment has where it is not told otherwise."""


def keep(folder: Path) -> str:
    """Write a module into `folder` that every Python with it on PYTHONPATH imports first; returns the folder's name."""
    (folder / "sitecustomize.py").write_text(
        "import alkit.config as c\n"
        "_init = c.Experiment.__init__\n"
        f"c.Experiment.__init__ = lambda self, **v: _init(self, **({SHORT!r} | v))\n"
    )
    return str(folder)
