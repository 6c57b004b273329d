"""What an encoder is, and the loop that makes a file of features: with progress, and resumable."""

from __future__ import annotations

import json
import shutil
from abc import ABC, abstractmethod
from collections.abc import Callable
from contextlib import nullcontext, suppress
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from alkit.data import ImageSet
from alkit.data.features import SPLITS, save_features
from alkit.data.identity import pixels_digest
from alkit.errors import ConfigError, DataError, nearest
from alkit.errors.words import shown
from alkit.storage.files import write_json

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
BATCH = 128


class Encoder(ABC):
    """Turns images into rows of numbers. `model` is what stands after the colon of `--encoder NAME:MODEL`, else empty.

    `fit` is called once with the training images, without their labels, by encoders that learn; `embed` then gives
    uint8 images (B, C, H, W) their rows (B, D). `about` is what the file says of how it was made.
    """

    name: str
    takes: tuple[str, ...] = ()
    """Its options: the names that `-p` may set."""

    def __init__(self, model: str = "", weights: Path | None = None, options: dict[str, Any] | None = None) -> None:
        self.model, self.weights, self.options = model, weights, dict(options or {})
        self.device = torch.device("cpu")
        if unknown := sorted(set(self.options) - set(self.takes)):
            known = f"expected {', '.join(self.takes)}" if self.takes else "it has none"
            raise ConfigError(f"{unknown[0]}: no option of {self.name}; {known}")
        self.size(1)  # refused before any weights are fetched

    @abstractmethod
    def embed(self, images: Tensor) -> Tensor:
        """Rows (B, D) of uint8 images (B, C, H, W)."""

    def fit(self, train: ImageSet, folder: Path) -> None:  # noqa: B027 - most encoders come trained
        """Learn from the training images, leaving checkpoints in `folder`, and going on from one that is there."""

    @property
    def about(self) -> dict[str, Any]:
        """How the features are made, as JSON holds it."""
        return {}

    def size(self, default: int) -> int:
        """The option `image_size`, or the encoder's own. Raises `ConfigError` for anything but a number of pixels."""
        size = self.options.get("image_size", default)
        if type(size) is not int or size < 1:
            raise ConfigError(f"image_size: expected a number of pixels, not {shown(size)}")
        return size


_ENCODERS: dict[str, type[Encoder]] = {}


def register(name: str) -> Callable[[type[Encoder]], type[Encoder]]:
    """Class decorator: the encoder that `--encoder name` asks for."""

    def add(encoder: type[Encoder]) -> type[Encoder]:
        encoder.name = name
        _ENCODERS[name] = encoder
        return encoder

    return add


def encoder_named(text: str, weights: Path | None = None, options: dict[str, Any] | None = None) -> Encoder:
    """The encoder `NAME` or `NAME:MODEL`. Raises `ConfigError` where there is none, or its package is missing."""
    for module in iter_modules(import_module("alkit.training.encoders").__path__):
        import_module(f"alkit.training.encoders.{module.name}")
    name, _, model = text.partition(":")
    if name not in _ENCODERS:
        raise ConfigError(f"encoder: no encoder '{name}'{nearest(name, _ENCODERS)}; known: {', '.join(_ENCODERS)}")
    if weights is not None and not weights.is_file():
        raise ConfigError(f"weights: {weights}: no such file")
    return _ENCODERS[name](model, weights, options)


def as_colour(images: Tensor, size: int, mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 images (B, C, H, W) as an ImageNet network takes them: three channels, resized to `size`, normalised."""
    colour = images if images.shape[1] == 3 else images[:, :1].expand(-1, 3, -1, -1)
    scaled = colour.float() / 255
    if tuple(scaled.shape[2:]) != (size, size):
        scaled = F.interpolate(scaled, (size, size), mode="bilinear", antialias=True, align_corners=False)
    shift, scale = (torch.tensor(values, device=images.device).view(1, 3, 1, 1) for values in (mean, std))
    return ((scaled - shift) / scale).contiguous(memory_format=torch.channels_last)


def make_features(
    encoder: Encoder, train: ImageSet, test: ImageSet, out: Path, dataset: str, precision: str = "float16",
    bfloat16: bool = False, device: torch.device | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Make the file `out` of the features of both splits; returns what it says of how it was made.

    Rows are kept in a folder beside `out` as they come, so that the same call goes on after an interruption; it goes
    when the file is whole. `precision` is `float16` or `float32`, of what is kept; `bfloat16` computes in that.
    """
    encoder.device = device or torch.device("cpu")
    images = {name: pixels_digest(part) for name, part in zip(SPLITS, (train, test), strict=True)}
    scratch = _scratch(out)
    about = {"dataset": dataset, "image_shape": list(train.shape),
             "encoder": f"{encoder.name}:{encoder.model}".rstrip(":"), "kept_as": precision,
             "computed_in": "bfloat16" if bfloat16 else "float32", **encoder.about}  # fmt: skip
    _begin(scratch, about | {"images": images})
    encoder.fit(train, scratch)
    rows = {name: _rows(encoder, part, scratch / f"{name}.npy", precision, bfloat16)
            for name, part in zip(SPLITS, (train, test), strict=True)}  # fmt: skip
    about |= {"numbers": int(rows["train"].shape[1])}
    save_features(out, rows["train"], rows["test"], about, images)
    shutil.rmtree(scratch)
    return about


def refuse_made(out: Path) -> None:
    """Raise `ConfigError` if there is a file `out`; what a call left that was killed just after it goes."""
    if out.exists():
        shutil.rmtree(_scratch(out), ignore_errors=True)
        raise ConfigError(f"out: {out} is there already; remove it, or give another --out")


def _scratch(out: Path) -> Path:
    return out.with_name(f".{out.name}.part")


def _begin(scratch: Path, about: dict[str, Any]) -> None:
    """The scratch folder, emptied if it holds the rows of something else."""
    try:
        scratch.mkdir(parents=True, exist_ok=True)
        before = None
        with suppress(OSError, ValueError):
            before = json.loads((scratch / "about.json").read_text())
        if before != json.loads(json.dumps(about)):
            for path in scratch.iterdir():
                path.unlink()
            write_json(scratch / "about.json", about)
    except OSError as error:
        raise DataError(f"{scratch}: cannot be written ({error.strerror})") from None


@torch.no_grad()
def _rows(encoder: Encoder, images: ImageSet, path: Path, precision: str, bfloat16: bool) -> np.ndarray:
    """The rows of one split, from where `path` and its count of done rows left off."""
    from tqdm.auto import tqdm

    count, kept, rows, done = len(images), path.with_suffix(".done"), None, 0
    with suppress(OSError, ValueError):
        rows, done = np.load(path, mmap_mode="r+"), int(kept.read_text())
    with tqdm(total=count, initial=done, desc=f"{images.name}, {path.stem}", unit="image", mininterval=1) as bar:
        for start in range(done, count, BATCH):
            batch = images.take(torch.arange(start, min(start + BATCH, count))).to(encoder.device)
            with torch.autocast(encoder.device.type, torch.bfloat16) if bfloat16 else nullcontext():
                found = encoder.embed(batch).float().cpu().numpy()
            with np.errstate(over="ignore"):
                found = found.astype(precision)
            if not np.isfinite(found).all():
                raise DataError(f"encoder: {encoder.name} gives numbers that are not finite in {precision}, from image "
                                f"{start} on")  # fmt: skip
            if rows is None:
                rows = np.lib.format.open_memmap(path, "w+", np.dtype(precision), (count, found.shape[1]))
            rows[start : start + len(found)] = found
            bar.update(len(found))
            if start // BATCH % 8 == 7:
                rows.flush()
                kept.write_text(str(start + len(found)))
    assert rows is not None
    rows.flush()
    kept.write_text(str(count))
    return np.asarray(rows)
