"""Weights from files of other people: read as weights only, and fitted into a backbone of this kit."""

from __future__ import annotations

import re
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from alkit.errors import CheckpointError

BACKBONE = "state_dict_backbone"
_STEMS = {3: "cifar", 7: "imagenet"}


def read_weights(path: str | Path) -> dict[str, Tensor]:
    """The backbone's weights in the file `path`, on the CPU: its `state_dict_backbone`, or a state dict on its own.

    The prefix `module.` of DataParallel is taken off, floating-point numbers become float32. Nothing in the file is
    run: one that holds more than tensors and plain values is refused. Raises `CheckpointError` of one line.
    """
    content = _load(Path(path))
    weights = content.get(BACKBONE, content) if isinstance(content, dict) else content
    if not isinstance(weights, dict) or not weights or not all(isinstance(key, str) for key in weights):
        raise CheckpointError(f"{path}: no state dict in it; expected one, or a dictionary with {BACKBONE}")
    if all(key.startswith("module.") for key in weights):
        weights = {key.removeprefix("module."): value for key, value in weights.items()}
    for key, value in weights.items():
        if not isinstance(value, Tensor) or value.layout != torch.strided or value.is_quantized or value.is_complex():
            raise CheckpointError(f"{path}: no state dict: '{key}' is not a tensor of numbers")
    if sum(value.numel() * value.element_size() for value in weights.values()) > Path(path).stat().st_size:
        raise CheckpointError(f"{path}: its tensors are larger than the file")  # of one number repeated
    weights = {key: value.float() if value.is_floating_point() else value for key, value in weights.items()}
    broken = [key for key, value in weights.items() if not bool(value.isfinite().all())]
    if broken:
        raise CheckpointError(f"{path}: '{broken[0]}' holds values that are not numbers")
    return weights


def _load(path: Path) -> Any:
    try:
        stream = path.open("rb")
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror})") from None
    with stream, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return torch.load(stream, map_location="cpu", weights_only=True)
        except Exception as error:  # whatever a broken file makes of torch's reader
            foreign = re.search(r"GLOBAL ([\w.]+)", str(error))
            if foreign:
                raise CheckpointError(
                    f"{path}: refused: it holds {foreign[1]}, not weights alone, and reading that could run a program"
                ) from None
            raise CheckpointError(
                f"{path}: truncated, damaged, or not written by torch.save ({type(error).__name__})"
            ) from None


def architecture_of(weights: dict[str, Tensor], path: str | Path) -> dict[str, Any]:
    """What the shapes tell of a ResNet: `model`, `width`, `stem`, `in_channels`, `num_classes`.

    Raises `CheckpointError` for weights of another architecture.
    """
    first, last = weights.get("conv1.weight"), weights.get("linear.weight")
    for name, found, dimensions in (("conv1.weight", first, 4), ("linear.weight", last, 2)):
        if found is None or found.ndim != dimensions:
            seen = f"it has '{next(iter(weights))}' and no '{name}'" if found is None else f"'{name}' is {_size(found)}"
            raise CheckpointError(f"{path}: not a ResNet-18 or ResNet-10 with the papers' names: {seen}")
    assert first is not None
    assert last is not None
    width, channels, kernel, _ = first.shape
    if kernel not in _STEMS or not width or not len(last):
        raise CheckpointError(f"{path}: not a ResNet-18 or ResNet-10: 'conv1.weight' is {_size(first)}")
    model = "resnet18" if "layer1.1.conv1.weight" in weights else "resnet10"
    return {
        "model": model, "width": width, "stem": _STEMS[kernel], "in_channels": channels, "num_classes": len(last),
    }  # fmt: skip


def fit_weights(backbone: nn.Module, weights: dict[str, Tensor], path: str | Path) -> None:
    """Put `weights` into `backbone`, which may be on the device `meta`: it then gets no others.

    Raises `CheckpointError` naming the first weight that is missing, is left over or has another shape.
    """
    own = backbone.state_dict()
    counters = {key: torch.zeros((), dtype=torch.int64) for key in own if key.endswith("num_batches_tracked")}
    weights = counters | weights  # not needed to evaluate, and not in every file
    what = f"{path}: does not fit the backbone"
    for key, value in own.items():
        if key not in weights:
            raise CheckpointError(f"{what}: '{key}' is missing")
        if weights[key].shape != value.shape:
            raise CheckpointError(f"{what}: '{key}' is {_size(weights[key])}, expected {_size(value)}")
    extra = [key for key in weights if key not in own]
    if extra:
        raise CheckpointError(f"{what}: '{extra[0]}' has no place in it")
    backbone.load_state_dict({key: weights[key].to(value.dtype) for key, value in own.items()}, assign=True)


def _size(tensor: Tensor) -> str:
    return "×".join(map(str, tensor.shape)) or "a single number"
