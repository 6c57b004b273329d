"""Many image files at once: by threads where they are few, by processes where they are many.

A small image is decoded so soon that threads only wait for Python's lock. The processes are forks of one that was
started anew and runs nothing else: a fork of this process, with its threads, can hang. They import no torch, need no
protected `__main__`, and end with the process that asks them, however that ends: each reads its work from a pipe.
"""

from __future__ import annotations

import contextlib
import json
import os
import queue
import signal
import subprocess
import sys
from collections.abc import Callable, Generator, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from alkit.data import decode
from alkit.data.depth import Scale, Scales
from alkit.errors import DataError

MANY = 2000
"""Files from which processes are worth their start, a third of a second."""
_BLOCK = 128  # files handed out at a time
_START = (
    "import json, sys; sys.path[:] = json.loads(sys.argv[1]); from alkit.data.workers import serve; "
    "serve(json.loads(sys.argv[2]))"
)

Task = dict[str, Any]
Run = Callable[[str, Sequence[str], Task], Generator[tuple[int, list[Any]]]]
"""(task, files, what goes with every block) to (first file, what the task gives for each of the block), in order."""


def look_block(task: Task) -> list[Any]:
    """A `Look` of each of the task's paths, or the message why there is none."""
    found: list[Any] = []
    for path in task["paths"]:
        try:
            found.append(decode.look(Path(path)))
        except decode.ImageFileError as error:
            found.append(str(error))
    return found


def decode_block(task: Task) -> list[Any]:
    """Decode the task's paths into its file of pixels from `row` on; None for each, or the message why not."""
    scales = Scales(*(scale and Scale(*scale) for scale in task["scales"]))
    pixels = np.memmap(task["pixels"], np.uint8, "r+", shape=tuple(task["shape"]))
    _, size, _, channels = pixels.shape
    found: list[Any] = []
    for row, path in enumerate(task["paths"], task["row"]):
        try:
            pixels[row] = decode.decode(Path(path), size, channels, scales)
            found.append(None)
        except decode.ImageFileError as error:
            found.append(str(error))
    return found


_TASKS = {"look": look_block, "decode": decode_block}


@contextlib.contextmanager
def decoders(files: int, count: int, threads: ThreadPoolExecutor) -> Iterator[Run]:
    """What runs tasks over `files` files: `count` processes where they are many, else `threads`."""
    if files < MANY or count < 2 or not hasattr(os, "fork"):
        yield partial(_in_blocks, threads, lambda task: _TASKS[task["task"]](task), max(1, min(16, files // count)))
        return
    count = min(count, -(-files // _BLOCK))
    process, pipes = _started(count)
    idle: queue.SimpleQueue[tuple[BinaryIO, BinaryIO]] = queue.SimpleQueue()
    for pair in pipes:
        idle.put(pair)

    def ask(task: Task) -> list[Any]:
        send, receive = pair = idle.get()
        try:
            send.write(json.dumps(task).encode() + b"\n")
            send.flush()
            answer = receive.readline()
        except (BrokenPipeError, ValueError):  # it ended, or we did
            answer = b""
        idle.put(pair)
        if not answer:
            raise DataError(f"{task['paths'][0]}: the process that decoded it ended (killed, or no memory left?)")
        found: list[Any] = json.loads(answer)
        return found

    askers = ThreadPoolExecutor(count, thread_name_prefix="alkit-ask")
    try:
        yield partial(_in_blocks, askers, ask, _BLOCK)
    finally:
        askers.shutdown(cancel_futures=True)
        for pair in pipes:
            for pipe in pair:
                with contextlib.suppress(OSError):
                    pipe.close()
        process.wait()


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


def _started(count: int) -> tuple[subprocess.Popen[bytes], list[tuple[BinaryIO, BinaryIO]]]:
    """The process that forks `count` others, and the pipes to and from each of them."""
    theirs: list[tuple[int, int]] = []
    ours: list[tuple[BinaryIO, BinaryIO]] = []
    for _ in range(count):
        (work, send), (receive, answer) = os.pipe(), os.pipe()
        theirs.append((work, answer))
        ours.append((os.fdopen(send, "wb"), os.fdopen(receive, "rb")))
    environment = os.environ | {"OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}
    command = [sys.executable, "-c", _START, json.dumps(sys.path), json.dumps(theirs)]
    ends = [end for pair in theirs for end in pair]
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL, env=environment, pass_fds=ends)
    for end in ends:
        os.close(end)
    return process, ours


def serve(pipes: list[tuple[int, int]]) -> None:
    """Fork a process for each (pipe to read work from, pipe to write answers to), and wait for all of them."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the process that asks; these end with their pipes
    ends = {end for pair in pipes for end in pair}
    for work, answer in pipes:
        if os.fork() == 0:
            for end in ends - {work, answer}:
                os.close(end)
            with contextlib.suppress(BrokenPipeError):
                _answer_all(work, answer)
            os._exit(0)
    for end in ends:
        os.close(end)
    with contextlib.suppress(ChildProcessError):
        while True:
            os.wait()


def _answer_all(work: int, answer: int) -> None:
    with os.fdopen(work, "rb") as lines, os.fdopen(answer, "wb") as out:
        for line in lines:
            task = json.loads(line)
            out.write(json.dumps(_TASKS[task["task"]](task)).encode() + b"\n")
            out.flush()
