"""ImageSet: the images and labels of one split, wherever the pixels live."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from alkit.data import augment
from alkit.data.identity import Identity, identity
from alkit.data.pixels import Pixels, TensorPixels, prefetched
from alkit.errors import DataError
from alkit.errors.words import as_text, counted

__all__ = ["ImageSet", "Pixels", "TensorPixels", "channel_statistics", "from_arrays"]


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Images (N, C, H, W) uint8 with labels (N,) int64.

    `mean` and `std` are the channel statistics that images are normalised with, for pixels in 0..1.
    `augmentation` is what `augmentation: auto` means for this set. `notes` go into a run's record
    (files skipped, labels replaced). `device` is where batches come out. `features` (N, D) float32 are fixed features
    of the images, where there are some (`alkit.data.features`); `files` (N,) the names of their files below
    `data_root`, where they were read from files.
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
    features: Tensor | None = None
    files: npt.NDArray[np.object_] | None = None

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

    @cached_property
    def identity(self) -> Identity:
        """What tells this set from every other: see `alkit.data.digest`. Computed when first asked for."""
        return identity(self)

    def to(self, device: torch.device | str) -> ImageSet:
        """The same set with its labels, and its pixels where they fit, on `device`."""
        device = torch.device(device)
        features = None if self.features is None else self.features.to(device)
        moved = replace(self, pixels=self.pixels.to(device), labels=self.labels.to(device), device=device,
                        features=features)  # fmt: skip
        if "identity" in vars(self):  # else it would be read back from the device
            vars(moved)["identity"] = self.identity
        return moved

    def select(self, indices: Tensor) -> ImageSet:
        """The subset `indices`, in that order."""
        chosen = indices.to(self.labels.device)
        features = None if self.features is None else self.features.index_select(0, chosen)
        files = None if self.files is None else self.files[indices.cpu().numpy()]
        return replace(self, pixels=self.pixels.select(indices), labels=self.labels.index_select(0, chosen),
                       features=features, files=files)  # fmt: skip

    def on_features(self) -> ImageSet:
        """The same set with its fixed features as its images, float32 (N, D, 1, 1): what a head is trained on."""
        assert self.features is not None
        identity = self.identity  # of the images
        changed = replace(self, pixels=TensorPixels(self.features[:, :, None, None]), augmentation="none")
        vars(changed)["identity"] = identity
        return changed

    def resized(self, size: int) -> ImageSet:
        """The same set with images of `size` × `size` pixels: the shorter side resized, then the centre cropped."""
        if self.shape[1:] == (size, size):
            return self
        return replace(self, pixels=TensorPixels(augment.resize_centre(self.images, size)))

    def take(self, indices: Tensor, crops: Tensor | None = None) -> Tensor:
        """The images `indices` (B,) as uint8 (B, C, H, W) on the device."""
        return self.pixels.take(indices, crops).to(self.device, non_blocking=True)

    @property
    def resident(self) -> bool:
        """Whether the pixels lie in the device's memory, so that a batch is picked there."""
        return not self.pixels.prefetch

    def augmented(self, images: Tensor, kind: str, draws: Tensor | None) -> Tensor:
        """uint8 images (B, C, H, W) after augmentation `kind` with `draws` (B, k); as they are without draws."""
        return images if draws is None or kind == "none" else augment.apply(images, kind, draws)

    def stream(
        self, batches: Sequence[Tensor], kind: str = "none", draws: Sequence[Tensor] | None = None
    ) -> Iterator[Tensor]:
        """For each batch of indices, its images after augmentation `kind` with `draws`, uint8 on the device.

        Batches come in their order, prepared ahead by threads where pixels are not in memory; an error while one is
        prepared is raised when its turn comes.
        """
        drawn = draws if draws is not None and kind != "none" else [None] * len(batches)
        decoding = self.pixels.decodes and kind == "resized_crop_flip"  # then the crop is part of decoding
        crops = drawn if decoding else [None] * len(batches)
        taken = prefetched(self.pixels, batches, crops, pin=self.device.type == "cuda")
        for images, chosen in zip(taken, drawn, strict=True):
            ready = images.to(self.device, non_blocking=True)
            yield self.augmented(ready, kind, None if decoding else chosen)

    def normalise(self, images: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """uint8 images (B, C, H, W) as numbers with the set's mean 0 and deviation 1 in each channel.

        The memory layout of `images` is kept; fixed features are as they are.
        """
        if images.is_floating_point():
            return images.to(dtype)
        values = images.to(dtype)
        _, channels, _, width = images.shape
        if channels > 1 and images.is_contiguous(memory_format=torch.channels_last):
            # whole rows at once: broadcasting over three channels is several times slower
            scale, shift = self._affine(images, dtype, width)
            flat = values.permute(0, 2, 3, 1).view(-1, width * channels)
        else:
            scale, shift = (each.view(-1, 1, 1) for each in self._affine(images, dtype, 1))
            flat = values
        flat.mul_(scale).add_(shift)
        return values

    def _affine(self, images: Tensor, dtype: torch.dtype, repeats: int) -> tuple[Tensor, Tensor]:
        build = _affine if type(images) is Tensor and not torch.compiler.is_compiling() else _affine.__wrapped__
        return build(self.mean, self.std, images.device, dtype, repeats)


@lru_cache(maxsize=64)
def _affine(
    mean: tuple[float, ...], std: tuple[float, ...], device: torch.device, dtype: torch.dtype, repeats: int
) -> tuple[Tensor, Tensor]:
    """Scale and shift (repeats·C,) that normalise pixels in 0..255, the channels repeated."""
    with torch.inference_mode(False):
        scale = torch.tensor([1 / (255 * s) for s in std], dtype=dtype, device=device)
        shift = torch.tensor([-m / s for m, s in zip(mean, std, strict=True)], dtype=dtype, device=device)
        return scale.repeat(repeats), shift.repeat(repeats)


def from_arrays(
    name: str,
    images: np.ndarray | Tensor,
    labels: np.ndarray | Tensor | Sequence[int],
    class_names: Sequence[str],
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    augmentation: str = "none",
) -> ImageSet:
    """An ImageSet from uint8 images (N, C, H, W), values 0..255, and labels (N,) that count from 0 in `class_names`.

    Channel statistics (`mean` and `std`, for pixels in 0..1) are computed where not given. Raises `DataError` of one
    line for arrays that are not these.
    """
    pixels, whole = _as_pixels(images), _as_labels(labels, len(class_names))
    if len(pixels) != len(whole):
        raise DataError(f"labels: expected {len(pixels):,}, one an image, not {len(whole):,}")
    for which, values in (("mean", mean), ("std", std)):
        if values is not None and len(values) != pixels.shape[1]:
            raise DataError(f"{which}: expected {counted(pixels.shape[1], 'number')}, one a channel, not {len(values)}")
    if mean is None or std is None:
        mean, std = channel_statistics(pixels)
    return ImageSet(
        name, TensorPixels(pixels.contiguous(memory_format=torch.channels_last)),
        whole, tuple(map(as_text, class_names)), tuple(mean), tuple(std), augmentation,
    )  # fmt: skip


def _as_pixels(images: np.ndarray | Tensor) -> Tensor:
    try:
        pixels = torch.as_tensor(images)
    except (TypeError, ValueError, RuntimeError):
        pixels = None
    if pixels is None or pixels.dtype != torch.uint8 or pixels.ndim != 4:
        given = f"{images.dtype} {tuple(images.shape)}" if hasattr(images, "dtype") else type(images).__name__
        raise DataError(f"images: expected uint8 (N, C, H, W) with values 0..255, not {given}")
    if pixels.shape[1] not in (1, 3) and pixels.shape[3] in (1, 3):
        raise DataError(
            f"images: expected (N, C, H, W), not {tuple(pixels.shape)} with the channels last: "
            "images.transpose(0, 3, 1, 2) puts them second"
        )
    if 0 in pixels.shape[1:]:
        raise DataError(f"images: expected at least one channel and pixel, not {tuple(pixels.shape)}")
    return pixels


def _as_labels(labels: np.ndarray | Tensor | Sequence[int], classes: int) -> Tensor:
    """Labels as int64 (N,); of floats only whole numbers are labels, and NaN is none."""
    try:
        found = torch.as_tensor(labels)
        whole = found.to(torch.int64)
    except (TypeError, ValueError, RuntimeError, OverflowError):
        raise DataError("labels: expected whole numbers (N,)") from None
    if found.ndim != 1 or found.dtype == torch.bool or found.is_complex() or bool((whole != found).any()):
        given = str(found.dtype).removeprefix("torch.")
        raise DataError(f"labels: expected whole numbers (N,), not {given} {tuple(found.shape)}")
    if len(whole) and not 0 <= int(whole.min()) <= int(whole.max()) < classes:
        raise DataError(
            f"labels: expected 0 to {classes - 1} with {counted(classes, 'class name')}, "
            f"not {int(whole.min())} to {int(whole.max())}"
        )
    return whole


def channel_statistics(images: Tensor) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and deviation of each channel of uint8 images (N, C, H, W), for pixels in 0..1.

    From a histogram of each channel: exact, and without a copy of the images as numbers.
    """
    counts = torch.stack(
        [
            sum(
                (torch.bincount(block[:, channel].flatten(), minlength=256) for block in images.split(4096)),
                torch.zeros(256, dtype=torch.int64, device=images.device),
            )
            for channel in range(images.shape[1])
        ]
    ).double()
    share = (counts / counts.sum(1, keepdim=True)).cpu()
    values = torch.arange(256, dtype=torch.float64) / 255
    mean = share @ values
    std = (share * (values - mean[:, None]).square()).sum(1).sqrt().clamp_min(1e-6)
    return tuple(mean.tolist()), tuple(std.tolist())
