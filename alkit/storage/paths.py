"""Where things lie on this machine, and paths that other processes are given: absolute, in text that can be written."""

from __future__ import annotations

import getpass
import os
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alkit.errors import ConfigError

_FOLDERS = {"ALKIT_CACHE": "", "PYTHONPATH": os.pathsep}
"""Variables that name folders, and what stands between two of them."""


def fix_environment() -> None:
    """Make relative folders in this process's environment absolute: runs and summaries work in folders of their own."""
    for name, between in _FOLDERS.items():
        if value := os.environ.get(name):
            folders = value.split(between) if between else [value]
            os.environ[name] = between.join(os.path.abspath(os.path.expanduser(folder)) for folder in folders)


def name_user() -> None:
    """Give a user whom the system has no name for, as in many containers, a name: Snakemake asks for it, and fails."""
    try:
        getpass.getuser()
    except (KeyError, OSError):
        os.environ["LOGNAME"] = f"user-{os.getuid()}"


def home() -> Path:
    """The home folder; the root where the system knows of none, as containers do it."""
    found = os.path.expanduser("~")
    return Path(found if found != "~" else "/")


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


def why_not_writable(folder: Path) -> str | None:
    """Why nothing can be written in `folder`, or made where it is not there yet; None where it can."""
    there = folder
    while not os.path.lexists(there) and there != there.parent:
        there = there.parent
    try:
        with tempfile.TemporaryFile(dir=there):
            return None
    except OSError as error:
        return error.strerror or str(error)


@contextmanager
def environment(ours: Mapping[str, str]) -> Iterator[None]:
    """Within: these variables, for this process and those that it starts."""
    before = dict(os.environ)
    os.environ.update(ours)
    try:
        yield
    finally:
        os.environ.clear()
        os.environ.update(before)


@contextmanager
def substitute_home() -> Iterator[None]:
    """Where the home folder cannot be written, others' programs are given another, as long as this lasts.

    Snakemake, matplotlib and Jupyter all keep something there, and fail or complain without it. What the kit itself
    keeps (`ALKIT_CACHE`) stays where it was.
    """
    kept = Path(os.environ.get("XDG_CACHE_HOME") or home() / ".cache")
    if os.path.expanduser("~") != "~" and why_not_writable(kept) is None:
        yield
        return
    with tempfile.TemporaryDirectory(prefix="alkit-home-", ignore_cleanup_errors=True) as folder:
        ours = {"ALKIT_CACHE": str(cache_folder()), "XDG_CACHE_HOME": folder}
        for name in ("MPLCONFIGDIR", "XDG_CONFIG_HOME", "XDG_DATA_HOME", "IPYTHONDIR", "JUPYTER_CONFIG_DIR"):
            ours[name] = os.environ.get(name) or str(Path(folder) / name.lower())
            os.makedirs(ours[name], exist_ok=True)
        if os.path.expanduser("~") == "~":
            ours["HOME"] = folder
        with environment(ours):
            yield


def check_writable_as_text(*paths: str | Path) -> None:
    """Refuse a path that cannot be written in UTF-8, as notebooks and records are; `ConfigError` names it."""
    for path in paths:
        try:
            str(path).encode()
        except UnicodeEncodeError:
            raise ConfigError(f"{path}: its name is not UTF-8; rename the file or folder") from None


def named(path: object, parameter: str) -> Path | None:
    """A path that was given as the parameter, `~` as the home folder; None for none.

    Raises `ConfigError` for what is no name: papermill's `-p out_dir 2024` gives a number, and of `007` only 7.
    """
    if path is None or isinstance(path, str | os.PathLike):
        return None if path is None else Path(os.path.expanduser(path))  # type: ignore[arg-type]
    number = isinstance(path, int | float)
    how = f"; papermill takes it as text with -r {parameter}" if number else ""
    raise ConfigError(f"{parameter}: expected the name of a file or folder, not {path!r}{how}")


def counted_from(folder: Path, parameters: dict[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """`parameters` with the relative paths among them, which have these `names`, counted from `folder`."""
    paths = {name: value for name in names if isinstance(value := parameters.get(name), str)}
    return parameters | {name: str(absolute(folder / os.path.expanduser(path))) for name, path in paths.items()}


def absolute(path: str | Path) -> Path:
    """`path` with `~` filled in (where there is such a home), counted from the working directory."""
    return Path(os.path.expanduser(path)).absolute()
