"""The same learner on digits, on 60,000 images in memory and on 1.28 million in a mapped file: memory, and gathering.

The large set is as many images as ImageNet has, at 64×64: a file of 14.7 GiB, sparse, so that it takes no disk and no
time to write. Its pages are zeros that the system makes when they are first touched, as it would read them from a disk.
Each learner runs in a process of its own, whose peak is taken apart: what is its own, and the pages of mapped files,
which the system takes back when others need the memory.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from alkit import ActiveLearner, Experiment
from alkit.data import DATASETS, ImageSet
from alkit.data.imageset import from_arrays
from alkit.data.pixels import MemmapPixels
from alkit.data.registry import DatasetEntry
from benchmarks.timing import compare

IMAGENET, SMALL, SIZE = 1_281_167, 60_000, 64
GIB = 2**30
RUN: dict[str, Any] = {
    "method": "margin", "initial": 256, "budget": 256, "subset": 2048, "cycles": 2, "epochs": 1, "width": 8,
    "milestones": [], "threads": 1, "device": "cpu",
}  # fmt: skip


def mapped(folder: Path, count: int, name: str) -> ImageSet:
    """A sparse file of `count` colour images of 64×64 as a mapped set."""
    path = folder / f"{name}.bin"
    with path.open("ab") as file:
        file.truncate(count * 3 * SIZE * SIZE)
    labels = torch.arange(count) % 1000
    pixels = MemmapPixels(path, (count, SIZE, SIZE, 3))
    names = tuple(str(number) for number in range(1000))
    return ImageSet("mapped", pixels, labels, names, (0.5,) * 3, (0.25,) * 3, "crop_flip")


def in_memory(count: int, size: int = SIZE) -> ImageSet:
    """As many random colour images in memory."""
    source = np.random.default_rng(0)
    pixels = source.integers(0, 256, (count, 3, size, size), dtype=np.uint8)
    names = [str(number) for number in range(10)]
    return from_arrays("memory", pixels, np.arange(count) % 10, names, (0.5,) * 3, (0.25,) * 3, "crop_flip")


SETS: dict[str, tuple[str, Any]] = {
    "digits": ("1,437 digits of 8×8", None),
    "memory": (f"{SMALL:,} images of 32×32 in memory", lambda folder: (in_memory(SMALL, 32), in_memory(1000, 32))),
    "mapped": (
        f"{IMAGENET:,} images of 64×64, mapped",
        lambda folder: (mapped(folder, IMAGENET, "train"), mapped(folder, 1000, "test")),
    ),
}


def measure_one(name: str, folder: Path) -> dict[str, Any]:
    """Run the learner on the set `name` in this process: seconds, and the peak of its memory, in bytes."""
    load = SETS[name][1]
    if load is not None:
        DATASETS[name] = DatasetEntry(name, name, lambda root, options: load(folder), "made up")
    peak, done = {"RssAnon": 0, "RssFile": 0, "VmRSS": 0}, threading.Event()

    def watch() -> None:
        while not done.wait(0.01):
            for line in Path("/proc/self/status").read_text().splitlines():
                key, _, value = line.partition(":")
                if key in peak:
                    peak[key] = max(peak[key], 1024 * int(value.split()[0]))

    watcher = threading.Thread(target=watch, daemon=True)
    watcher.start()
    time.sleep(0.1)
    idle = dict(peak)
    began, worked = time.perf_counter(), time.process_time()
    learner = ActiveLearner(Experiment(dataset=name, **RUN))
    records = list(learner)
    seconds, processor = time.perf_counter() - began, time.process_time() - worked
    done.set()
    watcher.join()
    assert [record["labelled"] for record in records] == [256, 512]
    return {
        "images": len(learner.train), "seconds": round(seconds, 2), "processor_seconds": round(processor, 2),
        "own_bytes": peak["RssAnon"], "mapped_bytes": peak["RssFile"], "peak_bytes": peak["VmRSS"],
        "idle_bytes": idle["VmRSS"], "idle_mapped_bytes": idle["RssFile"],
        "pixels_bytes": int(np.prod(learner.train.pixels.shape)),
    }  # fmt: skip


def memory(repetitions: int = 1) -> list[dict[str, Any]]:
    """A row a set: the memory of its own that the learner takes at most, in GiB."""
    rows = []
    for name, (title, _) in SETS.items():
        found = []
        for _ in range(repetitions):
            with tempfile.TemporaryDirectory() as folder:
                command = [sys.executable, "-m", "benchmarks.data", name, folder]
                environment = os.environ | {"OMP_NUM_THREADS": "1"}
                done = subprocess.run(command, capture_output=True, text=True, check=True, env=environment)
                found.append(json.loads(done.stdout.splitlines()[-1]))
        own = sorted(each["own_bytes"] / GIB for each in found)
        pixels = f"{found[0]['pixels_bytes'] / GIB:.2g} GiB of pixels"
        rows.append(
            {
                "name": f"learner's peak memory, {title}", "against": pixels, "ratio": round(median(own), 3),
                "low": round(own[0], 3), "high": round(own[-1], 3), "unit": "GiB", "repetitions": repetitions,
                "target": "at most 2" if name == "mapped" else "", **found[0],
            }
        )  # fmt: skip
    return rows


def gathering(repetitions: int = 5, batches: int = 50, size: int = 128) -> list[dict[str, Any]]:
    """Random batches of 128 images of 64×64: from the mapped file, once seen and never seen, against memory."""
    small = in_memory(10_000)
    rows = []
    with tempfile.TemporaryDirectory() as folder:
        large = mapped(Path(folder), IMAGENET, "train")
        source = torch.Generator().manual_seed(0)
        places = torch.randint(len(small), (batches, size), generator=source)
        seen = torch.randint(len(large), (batches, size), generator=source)

        def take(images: ImageSet, chosen: torch.Tensor) -> None:
            for indices in chosen:
                images.take(indices)

        def fresh() -> None:
            take(large, torch.randint(len(large), (batches, size), generator=source))

        for what, ours in (("pages touched before", lambda: take(large, seen)), ("pages never touched", fresh)):
            found = compare(
                f"gathering {size} of {IMAGENET:,} mapped images, {what}", ours, "from memory",
                lambda: take(small, places), repetitions,
            )  # fmt: skip
            each = {"ours": found.ours, "reference": found.reference}
            milliseconds = {f"{key}_ms_a_batch": round(1000 * median(took) / batches, 3) for key, took in each.items()}
            rows.append(found.row() | milliseconds)
    return rows


def measure(repetitions: int = 5) -> list[dict[str, Any]]:
    """Every row of this file."""
    return [*gathering(repetitions), *memory(min(repetitions, 2))]


if __name__ == "__main__":
    print(json.dumps(measure_one(sys.argv[1], Path(sys.argv[2]))))
