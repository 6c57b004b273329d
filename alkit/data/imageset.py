"""ImageSet: the images and labels of one split, wherever the pixels live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from alkit.data import augment


class Pixels(Protocol):
    """Where pixels live: in memory (on the device), in a memory-mapped file, or in image files to decode.

    `shape` is (N, C, H, W). `take` returns uint8 (B, C, H, W) for int64 `indices` (B,); `crops` are the
    random-resized-crop draws (B, 5) of `augment.draw`, used only by pixels that decode files (`decodes` is true).
    `prefetch` is how many batches are worth preparing ahead in threads: 0 where pixels are already on the device.
    """

    shape: tuple[int, int, int, int]
    decodes: bool
    prefetch: int

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor: ...

    def to(self, device: torch.device) -> Pixels: ...

    def select(self, indices: Tensor) -> Pixels: ...


@dataclass(frozen=True, eq=False)
class TensorPixels:
    """Pixels in one uint8 tensor (N, C, H, W), on the host or on the device."""

    images: Tensor
    decodes: bool = False
    prefetch: int = 0

    @property
    def shape(self) -> tuple[int, int, int, int]:  # type: ignore[override]
        n, c, h, w = self.images.shape
        return n, c, h, w

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        return self.images.index_select(0, indices)

    def to(self, device: torch.device) -> TensorPixels:
        return replace(self, images=self.images.to(device))

    def select(self, indices: Tensor) -> TensorPixels:
        return replace(self, images=self.images.index_select(0, indices.to(self.images.device)))


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images (N, C, H, W) uint8 with labels (N,) int64.

    `mean` and `std` are the channel statistics that images are normalised with, for pixels in 0..1.
    `augmentation` is what `augmentation: auto` means for this set. `notes` go into a run's record
    (files skipped, labels replaced). `device` is where batches come out.
    """

    name: str
    pixels: Pixels
    labels: Tensor
    class_names: tuple[str, ...]
    mean: tuple[float, ...]
    std: tuple[float, ...]
    augmentation: str = "none"
    notes: dict[str, Any] = field(default_factory=dict)
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def num_classes(self) -> int:
        return len(self.class_names)

    @property
    def shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self.pixels.shape[1:]

    @property
    def images(self) -> Tensor:
        """All pixels, uint8 (N, C, H, W): for small sets and pictures of them."""
        return self.take(torch.arange(len(self), device=self.device))

    @property
    def class_counts(self) -> Tensor:
        """Images a class, int64 (C,)."""
        return torch.bincount(self.labels.cpu(), minlength=self.num_classes)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with its labels, and its pixels where they fit, on `device`."""
        device = torch.device(device)
        return replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), device=device)

    def select(self, indices: Tensor) -> ImageSet:
        """The subset `indices`, in that order."""
        chosen = indices.to(self.labels.device)
        return replace(self, pixels=self.pixels.select(indices), labels=self.labels.index_select(0, chosen))

    def resized(self, size: int) -> ImageSet:
        """The same set with images of `size` × `size` pixels: the shorter side resized, then the centre cropped."""
        if self.shape[1:] == (size, size):
            return self
        return replace(self, pixels=TensorPixels(augment.resize_centre(self.images, size)))

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        """The images `indices` (B,) as uint8 (B, C, H, W) on the device."""
        return self.pixels.take(indices, crops).to(self.device, non_blocking=True)

    def stream(
        self, batches: Sequence[Tensor], kind: str = "none", draws: Sequence[Tensor] | None = None
    ) -> Iterator[Tensor]:
        """For each batch of indices, its images after augmentation `kind` with `draws`, uint8 on the device."""
        for number, indices in enumerate(batches):
            drawn = draws[number] if draws is not None else None
            if self.pixels.decodes:
                yield self.take(indices, drawn)
            else:
                images = self.take(indices)
                yield augment.apply(images, kind, drawn) if drawn is not None else images

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images (B, C, H, W) as numbers with the set's mean 0 and deviation 1 in each channel."""
        return images.to(dtype).mul_(self._scale.to(images.device, dtype)).add_(self._shift.to(images.device, dtype))

    @property
    def _scale(self) -> Tensor:
        return torch.tensor([1 / (255 * s) for s in self.std]).view(1, -1, 1, 1)

    @property
    def _shift(self) -> Tensor:
        return torch.tensor([-m / s for m, s in zip(self.mean, self.std, strict=True)]).view(1, -1, 1, 1)


def from_arrays(
    name: str,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor,
    class_names: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augmentation: str = "none",
) -> ImageSet:
    """An ImageSet from uint8 images (N, C, H, W) and labels (N,); statistics are computed where not given."""
    pixels = torch.as_tensor(images)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or len(pixels) != len(labels):
        raise ValueError("expected uint8 images (N, C, H, W) and as many labels")
    if mean is None or std is None:
        mean, std = channel_statistics(pixels)
    return ImageSet(
        name, TensorPixels(pixels.contiguous()), torch.as_tensor(labels, dtype=torch.int64),
        tuple(class_names), tuple(mean), tuple(std), augmentation,
    )  # fmt: skip


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of uint8 images (N, C, H, W), for pixels in 0..1."""
    channels = images.transpose(0, 1).flatten(1).double() / 255
    return tuple(channels.mean(1).tolist()), tuple(channels.std(1, correction=0).clamp_min(1e-6).tolist())
