"""Decoded sets, kept once as raw bytes that can be memory-mapped.

`CACHE/decoded/NAME-KEY/` holds `pixels.bin` (n, H, W, C) uint8, the index files of whoever wrote it, and
`manifest.json`, written last: what it was made from (parameters, and a fingerprint of the source files) and the
checksum of the pixels. A folder without a manifest that fits is half-written, stale or corrupt, and is made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from filelock import FileLock

from alkit.data.imageset import ImageSet, channel_statistics
from alkit.data.pixels import MemmapPixels, TensorPixels
from alkit.errors import DataError
from alkit.storage.files import sha256, write_json
from alkit.storage.paths import cache_folder

VERSION = 2
IN_MEMORY_BYTES = 2 * 2**30
"""A decoded set larger than this stays in its memory-mapped file."""

Write = Callable[[Path], dict[str, Any]]


def cached(name: str, params: dict[str, Any], fingerprint: str, write: Write) -> tuple[Path, dict[str, Any]]:
    """The folder and manifest of the decoded set that `params` and the source files' `fingerprint` describe.

    Where there is none, `write(folder)` makes it: it writes `pixels.bin` and returns what the manifest should say
    beside the checksum (at least `shape`, (n, H, W, C)). Of processes that start together one writes, the others
    wait. Raises `DataError` where the cache folder cannot be written.
    """
    key = hashlib.sha256(json.dumps([VERSION, params], sort_keys=True).encode()).hexdigest()[:16]
    folder = cache_folder() / "decoded" / f"{name}-{key}"
    manifest = _valid(folder, params, fingerprint)
    if manifest is not None:
        return folder, manifest
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{folder}.lock"):
            manifest = _valid(folder, params, fingerprint)
            return folder, manifest or _build(folder, params, fingerprint, write)
    except OSError as error:
        raise DataError(f"{folder}: the cache cannot be written ({error.strerror or error})") from None


def _build(folder: Path, params: dict[str, Any], fingerprint: str, write: Write) -> dict[str, Any]:
    building = folder.with_name(f"{folder.name}.building")
    for leftover in (folder, building):
        if leftover.exists():
            shutil.rmtree(leftover)
    building.mkdir()
    try:
        manifest = write(building)
        pixels = building / "pixels.bin"
        manifest |= {
            "version": VERSION, "params": params, "fingerprint": fingerprint, "sha256": sha256(pixels),
            "bytes": pixels.stat().st_size, "modified": pixels.stat().st_mtime_ns,
        }  # fmt: skip
        write_json(building / "manifest.json", manifest)
        building.rename(folder)
    except BaseException:
        shutil.rmtree(building, ignore_errors=True)
        raise
    return manifest


def _valid(folder: Path, params: dict[str, Any], fingerprint: str) -> dict[str, Any] | None:
    """The manifest, if the folder holds what was asked for, whole.

    The checksum is computed where the pixels go into memory anyway; for a larger file only if it was touched since.
    """
    try:
        manifest: dict[str, Any] = json.loads((folder / "manifest.json").read_text())
        pixels = folder / "pixels.bin"
        state = pixels.stat()
        wanted = {"version": VERSION, "params": params, "fingerprint": fingerprint, "bytes": state.st_size}
        if {key: manifest.get(key) for key in wanted} != wanted or state.st_size != int(np.prod(manifest["shape"])):
            return None
        untouched = manifest["modified"] == state.st_mtime_ns and state.st_size > IN_MEMORY_BYTES
        return manifest if untouched or sha256(pixels) == manifest["sha256"] else None
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return None


def pixels_of(folder: Path, manifest: dict[str, Any]) -> MemmapPixels | TensorPixels:
    """The cached pixels: in memory where they are few, else mapped."""
    count, height, width, channels = manifest["shape"]
    path, shape = folder / "pixels.bin", (count, height, width, channels)
    if manifest["bytes"] > IN_MEMORY_BYTES:
        return MemmapPixels(path, shape)
    return TensorPixels(torch.from_numpy(np.fromfile(path, np.uint8).reshape(shape)).permute(0, 3, 1, 2))


def create_pixels(folder: Path, shape: tuple[int, int, int, int]) -> npt.NDArray[np.uint8]:
    """A mapped `pixels.bin` of (n, H, W, C) to be filled; `DataError` where the disk has no room for it."""
    needed, free = int(np.prod(shape, dtype=np.int64)), shutil.disk_usage(folder).free
    if needed > free:
        raise DataError(
            f"{folder.parent}: the decoded images need {needed / 2**30:.1f} GiB, {free / 2**30:.1f} GiB are free; "
            "set ALKIT_CACHE to another folder or image_size to a smaller number"
        )
    return np.memmap(folder / "pixels.bin", np.uint8, "w+", shape=shape)


def fingerprint_of(paths: Iterable[Path | str], root: Path) -> str:
    """A hash of the files' names, sizes and times of change."""
    digest = hashlib.sha256()
    for path in paths:
        name = str(path)[len(str(root)) + 1 :]
        try:
            state = os.stat(path)
            known = f"{state.st_size}\0{state.st_mtime_ns}"
        except OSError:  # a dead link: whoever reads it says so
            known = "gone"
        digest.update(f"{name}\0{known}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()


def statistics_of(images: ImageSet, most: int = 20_000) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Channel statistics of a set, from at most `most` of its images, evenly spaced."""
    step = max(1, -(-len(images) // most))
    return channel_statistics(images.take(torch.arange(0, len(images), step)))
