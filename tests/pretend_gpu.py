"""Tensors that say they are on a GPU, hold numbers, and refuse to be mixed with the host's.

For code that reads its data as it goes, which torch's fake tensors, having no numbers, cannot run.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._pytree import tree_iter, tree_map

GPU, HOST = torch.device("cuda", 0), torch.device("cpu")
INDEXING = ("__getitem__", "__setitem__")  # their indices may be the host's
MOVING = ("to", "copy_", "type_as", "to_dense")
HOSTS_ONLY = ("numpy", "__array__")


class OnGpu(Tensor):
    """A tensor "on the GPU"; its numbers are in `inner`, on the host."""

    inner: Tensor

    @staticmethod
    def __new__(cls, inner: Tensor) -> OnGpu:
        made: Any = Tensor._make_wrapper_subclass(cls, inner.shape, dtype=inner.dtype, device=GPU)
        made.inner = inner
        return made  # type: ignore[no-any-return]

    @classmethod
    def __torch_dispatch__(cls, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        raise RuntimeError(f"{func} reached a GPU that is not there")


class PretendGpu(TorchFunctionMode):
    """Within: what has an input on the GPU, or is made with `device="cuda"`, comes out `OnGpu`."""

    def __init__(self) -> None:
        super().__init__()
        self.mixed: list[str] = []

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs, name = dict(kwargs or {}), getattr(func, "__name__", "")
        tensors = [value for value in tree_iter((args, kwargs)) if isinstance(value, Tensor)]
        ours = [value for value in tensors if isinstance(value, OnGpu)]
        if name == "__get__" and getattr(func, "__self__", None) is Tensor.device:  # type: ignore[comparison-overlap]
            return GPU if ours else func(*args)
        target = kwargs.get("device")
        if name == "to" and len(args) > 1 and isinstance(args[1], (torch.device, str)):
            target, args = args[1], (args[0], HOST, *args[2:])
        there = bool(ours) if target is None else torch.device(target).type == "cuda"
        self._refuse(name, args, kwargs, tensors, ours, there)
        if "device" in kwargs:
            kwargs["device"] = HOST
        plain = tree_map(lambda value: value.inner if isinstance(value, OnGpu) else value, (list(args), kwargs))
        result = func(*plain[0], **plain[1])
        if name == "copy_":
            there = isinstance(args[0], OnGpu)
        if name == "cpu" or not there:
            return result
        known = {id(value.inner): value for value in ours}  # an operation in place gives its argument back
        if name == "__iter__":
            return iter([OnGpu(part) for part in result])
        return tree_map(lambda part: known.get(id(part), on_gpu(part)) if isinstance(part, Tensor) else part, result)

    def _refuse(self, name: str, args: Any, kwargs: Any, tensors: Any, ours: Any, there: bool) -> None:
        """Note what a GPU would refuse."""
        free = name in MOVING or (name in INDEXING and isinstance(args[0], OnGpu))
        if ours and not free and any(not isinstance(value, OnGpu) and value.ndim for value in tensors):
            self.mixed.append(f"{name} of tensors on two devices")
        if ours and name in HOSTS_ONLY:
            self.mixed.append(f"{name} of a tensor that is not on the host")
        source = kwargs.get("generator")
        if source is not None and (getattr(source, "pretended", "cpu") == "cuda") != there:
            self.mixed.append(f"{name} with the generator of another device")


def move(module: torch.nn.Module, device: Any, dtype: torch.dtype | None = None) -> torch.nn.Module:
    """`module.to(device, dtype)`, for a device that is pretended."""
    for part in module.modules():
        for name, weight in part._parameters.items():
            if weight is not None:
                part._parameters[name] = weight.detach().to(device, dtype or weight.dtype)  # type: ignore[assignment]
    return module


class Generator(torch.Generator):
    """torch's generator, which remembers the device asked for and lives on the host."""

    pretended: str

    def __new__(cls, device: Any = "cpu") -> Generator:
        made: Any = super().__new__(cls, "cpu")  # type: ignore[call-arg]
        made.pretended = torch.device(device).type
        return made  # type: ignore[no-any-return]


@contextmanager
def pretend_gpu(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Within: a GPU that is not there. Gives the list of what a real one would have refused."""
    monkeypatch.setattr("alkit.models.steps.RECORD", False)  # a graph is not recorded on a device that is not there
    monkeypatch.setattr(torch, "Generator", Generator)
    monkeypatch.setattr(torch.nn.Module, "to", move)
    with PretendGpu() as mode:
        yield mode.mixed


def on_gpu(value: Any) -> Any:
    """`value`, if it is a tensor, on the pretended GPU."""
    return OnGpu(value) if isinstance(value, Tensor) and not isinstance(value, OnGpu) else value
