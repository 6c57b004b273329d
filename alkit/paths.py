"""Paths that other processes are given: absolute, and in text that they can be written in."""

from __future__ import annotations

import os
from pathlib import Path

from alkit.errors import ConfigError

_FOLDERS = {"ALKIT_CACHE": "", "PYTHONPATH": os.pathsep}
"""Variables that name folders, and what stands between two of them."""


def fix_environment() -> None:
    """Make relative folders in this process's environment absolute: runs and summaries work in folders of their own."""
    for name, between in _FOLDERS.items():
        if value := os.environ.get(name):
            folders = value.split(between) if between else [value]
            os.environ[name] = between.join(os.path.abspath(os.path.expanduser(folder)) for folder in folders)


def check_writable_as_text(*paths: str | Path) -> None:
    """Refuse a path that cannot be written in UTF-8, as notebooks and records are; `ConfigError` names it."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{path}: its name is not UTF-8; rename the file or folder") from None


def absolute(path: str | Path) -> Path:
    """`path` with `~` filled in (where there is such a home), counted from the working directory."""
    return Path(os.path.expanduser(path)).absolute()
