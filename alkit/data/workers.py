"""Many image files at once: by threads where they are few, by processes where they are many.

A small image is decoded so soon that threads only wait for Python's lock. The processes are started anew, since a fork
of this one, with its threads, can hang. They import no torch, need no protected `__main__`, and end with the process
that asks them, however that ends: each reads its work from a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, partial
from pathlib import Path
from typing import Any

import numpy as np

from alkit.data import decode
from alkit.data.depth import Scale, Scales
from alkit.errors import DataError

MANY = 2000
"""Files from which processes are worth their start, a third of a second."""
_BLOCK = 128  # files handed out at a time
_START = "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from alkit.data.workers import serve; serve()"

Task = dict[str, Any]
Run = Callable[[str, Sequence[str], Task], Generator[tuple[int, list[Any]]]]
"""(task, files, what goes with every block) to (first file, what the task gives for each of the block), in order."""


def core_count() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def worker_count() -> int:
    """Threads or processes that decode: as many as there are cores, at most 32."""
    return min(32, core_count())


@lru_cache(maxsize=1)
def _threads(process: int) -> ThreadPoolExecutor:
    return ThreadPoolExecutor(worker_count(), thread_name_prefix="alkit-decode")


def decoding_threads() -> ThreadPoolExecutor:
    """The process's pool of decoding threads (a forked child makes its own: threads do not survive a fork)."""
    return _threads(os.getpid())


def _look(task: Task) -> Callable[[int, Path], Any]:
    """A `Look` of each file."""
    return lambda row, path: decode.look(path)


def _decode(task: Task) -> Callable[[int, Path], Any]:
    """Each file decoded into its row of the task's file of pixels."""
    scales = Scales(*(scale and Scale(*scale) for scale in task["scales"]))
    pixels = np.memmap(task["pixels"], np.uint8, "r+", shape=tuple(task["shape"]))
    _, size, _, channels = pixels.shape

    def one(row: int, path: Path) -> None:
        pixels[row] = decode.decode(path, size, channels, scales)

    return one


def _done(task: Task) -> list[Any]:
    """What the task gives for each of its paths, or the message why it gives nothing."""
    one, found = {"look": _look, "decode": _decode}[task["task"]](task), []
    for row, path in enumerate(task["paths"], task["row"]):
        try:
            found.append(one(row, Path(path)))
        except decode.ImageFileError as error:
            found.append(str(error))
    return found


@contextlib.contextmanager
def decoders(files: int) -> Iterator[Run]:
    """What runs tasks over `files` files: processes where they are many, else threads."""
    count = worker_count()
    if files < MANY or count < 2:
        yield partial(_in_blocks, decoding_threads(), _done, max(1, min(16, files // count)))
        return
    processes = [_started() for _ in range(min(count, -(-files // _BLOCK)))]
    idle: queue.SimpleQueue[subprocess.Popen[bytes]] = queue.SimpleQueue()
    for process in processes:
        idle.put(process)

    def ask(task: Task) -> list[Any]:
        process = idle.get()
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            process.stdin.write(json.dumps(task).encode() + b"\n")
            process.stdin.flush()
            answer = process.stdout.readline()
        except (BrokenPipeError, ValueError):  # it ended, or we did
            answer = b""
        idle.put(process)
        if not answer:
            raise DataError(f"{task['paths'][0]}: the process that decoded it ended (killed, or no memory left?)")
        found: list[Any] = json.loads(answer)
        return found

    askers = ThreadPoolExecutor(len(processes), thread_name_prefix="alkit-ask")
    try:
        yield partial(_in_blocks, askers, ask, _BLOCK)
    finally:
        askers.shutdown(cancel_futures=True)
        for process in processes:
            process.communicate()  # closes its pipes and waits for its end


def _in_blocks(
    pool: ThreadPoolExecutor,
    do: Callable[[Task], list[Any]],
    step: int,
    name: str,
    paths: Sequence[str],
    common: Task,
) -> Generator[tuple[int, list[Any]]]:
    starts = range(0, len(paths), step)
    tasks = [{**common, "task": name, "row": start, "paths": paths[start : start + step]} for start in starts]
    yield from zip(starts, pool.map(do, tasks), strict=True)


def _started() -> subprocess.Popen[bytes]:
    """A process that runs `serve`, in a group of its own: Ctrl-C is for the one that asks."""
    command = [sys.executable, "-c", _START, json.dumps(sys.path)]
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment, process_group=0)


def serve() -> None:
    """Answer every line of work until there is no more."""
    for line in sys.stdin.buffer:
        sys.stdout.buffer.write(json.dumps(_done(json.loads(line))).encode() + b"\n")
        sys.stdout.buffer.flush()
