"""Decoding by processes: the same pixels, and none of them left behind, however it ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from PIL import Image
from test_data_folder import fill, imagenet_like, own_cache, picture  # noqa: F401 (own_cache is a fixture)

from alkit.data import load_dataset, workers
from alkit.errors import DataError
from alkit.storage.paths import cache_folder


@pytest.fixture
def by_processes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three processes, for any number of files."""
    monkeypatch.setattr(workers, "MANY", 1)
    monkeypatch.setattr(workers, "_BLOCK", 3)
    monkeypatch.setattr(workers, "worker_count", lambda: 3)


@pytest.fixture(autouse=True)
def others(monkeypatch: pytest.MonkeyPatch) -> None:
    """What other tests left behind in this process is not looked at."""
    monkeypatch.setattr(f"{__name__}.OTHERS", {child.pid for child in psutil.Process().children(recursive=True)})


OTHERS: set[int] = set()


def children() -> list[psutil.Process]:
    return [child for child in psutil.Process().children(recursive=True) if child.pid not in OTHERS]


def odd_folder(root: Path) -> Path:
    fill(root, count=8, width=30)
    picture(7, mode="L").save(root / "train" / "ant" / "grey.png")
    Image.fromarray(np.full((20, 20), 4095, np.uint16)).save(root / "train" / "bee" / "deep.png")
    (root / "train" / "ant" / "3.png").write_bytes(b"no image")
    content = (root / "test" / "bee" / "5.png").read_bytes()
    (root / "test" / "bee" / "5.png").write_bytes(content[:200])  # its header is whole
    return root


def test_processes_give_what_threads_give(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    root = odd_folder(tmp_path / "set")
    by_threads = load_dataset("folder", root, skip_broken=True)
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "other"))
    request.getfixturevalue("by_processes")
    for ours, theirs in zip(load_dataset("folder", root, skip_broken=True), by_threads, strict=True):
        assert torch.equal(ours.images, theirs.images)
        assert torch.equal(ours.labels, theirs.labels)
        assert ours.notes == theirs.notes
    assert theirs.notes["skipped"] == ["train/ant/3.png", "test/bee/5.png"]
    assert not children()


def test_the_first_broken_file_is_named_and_nothing_is_left(tmp_path: Path, by_processes: None) -> None:
    before = psutil.Process().num_fds()
    root = odd_folder(tmp_path / "set")
    with pytest.raises(DataError, match=r"train/ant/3\.png: not an image .*skip_broken: true"):
        load_dataset("folder", root)
    (root / "train" / "ant" / "3.png").unlink()
    with pytest.raises(DataError, match=r"test/bee/5\.png: not an image .*skip_broken: true"):
        load_dataset("folder", root)
    assert not children()
    assert psutil.Process().num_fds() <= before + 1
    assert [path.suffix for path in (cache_folder() / "decoded").iterdir()] == [".lock"]


def test_names_that_are_no_text_go_to_the_processes_too(tmp_path: Path, by_processes: None) -> None:
    root = fill(tmp_path / "set")
    os.rename(root / "train" / "ant" / "0.png", os.fsencode(root / "train" / "ant") + b"/\xff \xe9\n.png")
    assert len(load_dataset("folder", root)[0]) == 12


def test_imagenets_headers_are_looked_at_by_processes(tmp_path: Path, by_processes: None) -> None:
    root = imagenet_like(tmp_path)
    (root / "train" / "n02" / "n02_1.JPEG").write_bytes(b"nothing")
    train, _ = load_dataset("imagenet", root, image_size=16, skip_broken=True)
    assert train.class_counts.tolist() == [5, 4]
    assert train.notes["skipped"] == ["train/n02/n02_1.JPEG"]


def test_a_process_that_is_killed_is_one_clear_line(tmp_path: Path, by_processes: None) -> None:
    paths = [tmp_path / f"{i}.png" for i in range(12)]
    for i, path in enumerate(paths):
        picture(i).save(path)
    with workers.decoders(12) as run:
        assert sum(len(found) for _, found in run("look", [str(path) for path in paths], {})) == 12
        for child in children():
            child.kill()
        with pytest.raises(
            DataError, match=r"0\.png: the process that decoded it ended \(killed, or no memory left\?\)"
        ):
            list(run("look", [str(path) for path in paths], {}))
    assert not children()


def test_a_process_that_decodes_does_not_import_torch() -> None:
    subprocess.run(
        [sys.executable, "-c", "import sys, alkit.data.workers; assert 'torch' not in sys.modules"], check=True
    )


PROGRAM = """
import signal, sys, time
from alkit.data import load_dataset, workers
workers.MANY, workers.worker_count = 1, lambda: 2
signal.signal(signal.SIGINT, signal.default_int_handler)  # a test run in the background hands on that it is ignored
if sys.argv[2] == "load":  # at the top of a program, that protects nothing with `if __name__ == "__main__"`
    print("loading", len(load_dataset("folder", sys.argv[1])[0]))
else:
    import psutil
    with workers.decoders(5000) as run:
        print(*(child.pid for child in psutil.Process().children(recursive=True)), flush=True)
        time.sleep(60)
"""


def test_a_program_needs_no_protected_main(tmp_path: Path) -> None:
    command = [sys.executable, "-c", PROGRAM, str(fill(tmp_path / "set")), "load"]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "loading 12\n"
    file = tmp_path / "program.py"
    file.write_text(PROGRAM)
    command[1:3] = [str(file)]
    assert subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout == "loading 12\n"


@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_the_one_that_asks(tmp_path: Path, end: signal.Signals) -> None:
    command = [sys.executable, "-c", PROGRAM, str(tmp_path), "wait"]
    process = subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    pids = [int(pid) for pid in process.stdout.readline().split()]
    assert pids
    if end == signal.SIGINT:
        os.killpg(process.pid, end)  # as Ctrl-C in a terminal does
    else:
        process.send_signal(end)
    process.wait(timeout=20)
    process.stdout.close()
    until = time.monotonic() + 20
    while any(psutil.pid_exists(pid) and psutil.Process(pid).status() != psutil.STATUS_ZOMBIE for pid in pids):
        assert time.monotonic() < until, "a process is left"
        time.sleep(0.05)


def test_work_is_shared_out_among_the_processes(tmp_path: Path, by_processes: None) -> None:
    paths = []
    for i in range(30):
        paths.append(tmp_path / f"{i}.png")
        picture(i, width=400, height=400).save(paths[-1])
    with workers.decoders(30) as run:
        found = list(run("look", [str(path) for path in paths], {}))
        assert [start for start, _ in found] == list(range(0, 30, 3)), "in order"
        assert len(children()) == 3
