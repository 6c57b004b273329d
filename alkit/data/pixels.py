"""Where pixels live: in memory or on the device, in a memory-mapped file, or in image files to be decoded."""

from __future__ import annotations

import mmap
import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Protocol

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alkit.data import decode
from alkit.data.depth import Scales
from alkit.data.workers import decoding_threads


class Pixels(Protocol):
    """Where pixels live: in memory (on the device), in a memory-mapped file, or in image files to decode.

    `shape` is (N, C, H, W). `take` returns uint8 (B, C, H, W) for int64 `indices` (B,); `crops` are the
    random-resized-crop draws (B, k) of `augment.draw`, used only by pixels that decode files (`decodes` is true).
    `prefetch` is how many batches are worth preparing ahead in threads: 0 where pixels are already on the device.
    """

    @property
    def shape(self) -> tuple[int, int, int, int]: ...

    @property
    def decodes(self) -> bool: ...

    @property
    def prefetch(self) -> int: ...

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor: ...

    def to(self, device: torch.device) -> Pixels: ...

    def select(self, indices: Tensor) -> Pixels: ...


@dataclass(frozen=True, eq=False)
class TensorPixels:
    """Pixels in one uint8 tensor (N, C, H, W), on the host or on the device; fastest in channels-last memory."""

    images: Tensor
    decodes: bool = False
    prefetch: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:
        n, c, h, w = self.images.shape
        return n, c, h, w

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        # as (N, H, W, C), so that each image is one run of bytes and the batch stays channels-last
        rows = self.images.permute(0, 2, 3, 1).index_select(0, indices.to(self.images.device))
        return rows.permute(0, 3, 1, 2)

    def to(self, device: torch.device) -> TensorPixels:
        return replace(self, images=self.images.to(device))

    def select(self, indices: Tensor) -> TensorPixels:
        return replace(self, images=self.take(indices))


@dataclass(frozen=True, eq=False)
class MemmapPixels:
    """Pixels in a file of raw bytes (n, H, W, C), of which only what a batch takes is read.

    `rows` (N,) int64 are the images of the file that belong to the set, in its order; None for all.
    """

    path: Path
    file_shape: tuple[int, int, int, int]
    rows: npt.NDArray[np.int64] | None = None
    decodes: bool = False
    prefetch: int = 4

    @property
    def shape(self) -> tuple[int, int, int, int]:
        count, height, width, channels = self.file_shape
        return (count if self.rows is None else len(self.rows)), channels, height, width

    @cached_property
    def array(self) -> npt.NDArray[np.uint8]:
        """The whole file, mapped: (n, H, W, C)."""
        array = np.memmap(self.path, np.uint8, "r", shape=self.file_shape)
        if isinstance(array.base, mmap.mmap):
            array.base.madvise(mmap.MADV_RANDOM)  # else each image brings in ten times its size of neighbours
        return array

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        chosen = indices.cpu().numpy()
        if self.rows is not None:
            chosen = self.rows[chosen]
        _ask_for(self.array, chosen)
        return torch.from_numpy(self.array[chosen]).permute(0, 3, 1, 2)

    def to(self, device: torch.device) -> MemmapPixels:
        return self

    def select(self, indices: Tensor) -> MemmapPixels:
        chosen = indices.cpu().numpy()
        return replace(self, rows=chosen if self.rows is None else self.rows[chosen])


def _ask_for(array: npt.NDArray[np.uint8], rows: npt.NDArray[np.int64]) -> None:
    """Have the system read all `rows` of a mapped array at once, neighbours as one run, not one by one as touched."""
    if not isinstance(array.base, mmap.mmap) or not len(rows):
        return
    size = int(np.prod(array.shape[1:]))
    ordered = np.unique(rows % len(array))
    cuts = np.flatnonzero(np.diff(ordered) > 1)
    starts = ordered[np.append(0, cuts + 1)] * size // mmap.PAGESIZE * mmap.PAGESIZE
    ends = (ordered[np.append(cuts, -1)] + 1) * size
    for start, end in zip(starts.tolist(), ends.tolist(), strict=True):
        array.base.madvise(mmap.MADV_WILLNEED, start, end - start)


@dataclass(frozen=True, eq=False)
class FilePixels:
    """Pixels in image files, decoded when a batch asks for them, by a pool of threads.

    `names` (N,) are paths below `root` as bytes. Without `crops` an image's shorter side is resized to `size`·256/224
    and the centre `size` × `size` is taken; with them (in training) a random-resized crop is, mirrored by half, that
    depends on the draws alone. `scales` are the data set's for images of more than 8 bits.
    """

    root: Path
    names: npt.NDArray[np.bytes_]
    size: int
    channels: int = 3
    decodes: bool = True
    prefetch: int = 3
    scales: Scales | None = None

    @property
    def shape(self) -> tuple[int, int, int, int]:
        return len(self.names), self.channels, self.size, self.size

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        names = self.names[indices.cpu().numpy()]
        drawn = [None] * len(names) if crops is None else crops.cpu().double().tolist()
        out = np.empty((len(names), self.size, self.size, self.channels), np.uint8)

        def one(place: int) -> None:
            path = self.root / os.fsdecode(names[place])
            out[place] = decode.decode_for_batch(path, self.size, self.channels, drawn[place], self.scales)

        list(decoding_threads().map(one, range(len(names))))
        return torch.from_numpy(out).permute(0, 3, 1, 2)

    def to(self, device: torch.device) -> FilePixels:
        return self

    def select(self, indices: Tensor) -> FilePixels:
        return replace(self, names=self.names[indices.cpu().numpy()])


def prefetched(
    pixels: Pixels, batches: Sequence[Tensor], crops: Sequence[Tensor | None], pin: bool = False
) -> Iterator[Tensor]:
    """`pixels.take` of each batch, in order, up to `pixels.prefetch` batches ahead of the consumer."""
    if not pixels.prefetch:
        for indices, drawn in zip(batches, crops, strict=True):
            yield pixels.take(indices, drawn)
        return

    def take(indices: Tensor, drawn: Tensor | None) -> Tensor:
        images = pixels.take(indices, drawn)
        return images.pin_memory() if pin else images

    jobs = (
        (indices.cpu(), None if drawn is None else drawn.cpu()) for indices, drawn in zip(batches, crops, strict=True)
    )
    waiting: deque[Future[Tensor]] = deque()
    with ThreadPoolExecutor(min(2, pixels.prefetch), thread_name_prefix="alkit-batch") as pool:
        try:
            for job in jobs:
                waiting.append(pool.submit(take, *job))
                if len(waiting) > pixels.prefetch:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
