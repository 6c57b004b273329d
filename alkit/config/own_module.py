"""Strategies and methods of one's own: a module that a study names as `strategies: my_package.my_module`.

Whoever reads an `Experiment` with `strategies` imports that module, in every process of a grid. It is looked for where
Python looks, and then in the folders that `look_in` was told of: a file there never stands in for a package.
"""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from hashlib import sha256
from pathlib import Path

from alkit.errors import AlkitError, ConfigError

FOLDERS = "ALKIT_MODULES"
"""The variable that tells started processes where else to look."""
_DIGEST = "__alkit_sha256__"
"""Where a module keeps the digest of its file, as it was imported."""


def look_in(*folders: Path) -> None:
    """Look for modules of one's own in `folders` too, in this process and in those that it starts."""
    known = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    known += [text for folder in folders if (text := str(folder.absolute())) not in known and os.pathsep not in text]
    os.environ[FOLDERS] = os.pathsep.join(known)


def own_sha256(name: str | None, method: str) -> str | None:
    """The SHA-256 of the module `name` as it was imported, where `method` is one that a module added; else None.

    Other modules that it imports are not looked at.
    """
    from alkit.methods import added_methods

    digest: str | None = getattr(sys.modules.get(name or ""), _DIGEST, None)
    return digest if method in added_methods() else None


def import_own(name: str) -> None:
    """Import the module `name`, so that its strategies and methods are known.

    Raises `ConfigError` of one line where it is not found, or fails.
    """
    if not all(part.isidentifier() for part in name.split(".")) or name.endswith(".py"):
        raise ConfigError(f"strategies: expected the name of a module, such as my_package.my_module, not {name!r}")
    more = [folder for folder in os.environ.get(FOLDERS, "").split(os.pathsep) if folder]
    sys.path += [folder for folder in more if folder not in sys.path]
    importlib.invalidate_caches()  # a module that was written a moment ago
    try:
        module = importlib.import_module(name)
        if not hasattr(module, _DIGEST) and module.__file__ is not None:
            setattr(module, _DIGEST, sha256(Path(module.__file__).read_bytes()).hexdigest())
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise ConfigError(f"strategies: {name}: it imports '{error.name}', which is not installed") from None
        raise ConfigError(
            f"strategies: no module '{name}': not among the installed packages, not on PYTHONPATH"
            f"{''.join(f', not in {folder}' for folder in dict.fromkeys(more))}"
        ) from None
    except AlkitError as error:
        raise ConfigError(f"strategies: {name}: {error}") from None
    except Exception as error:  # whatever its code does
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = "" if isinstance(error, SyntaxError) else f" ({last.filename}, line {last.lineno})"  # its text says so
        raise ConfigError(f"strategies: {name}: {type(error).__name__}: {error}{where}") from None
