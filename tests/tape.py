"""A CUDA graph's stand-in on the CPU: it records what a step does to tensors, and does exactly that again.

As on the card, nothing of Python runs in a replay: every tensor has its place, and a number that Python gave is burnt
in. So a step that is replayed wrongly on a card is replayed wrongly here.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten


class _Tape(TorchDispatchMode):
    """Notes every operation: the function, what it was given, and the tensors that it made."""

    def __init__(self) -> None:
        super().__init__()
        self.operations: list[tuple[Any, Any, Any, Any]] = []

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.operations.append((func, args, kwargs or {}, result))
        return result

    def play(self) -> None:
        """All operations again; what an operation made lies in the same place as before."""
        with torch.no_grad():
            for func, args, kwargs, made in self.operations:
                again = func(*args, **kwargs)
                returns = func._schema.returns
                for old, new, known in zip(
                    _tensors(made), _tensors(again), returns * len(_tensors(made)), strict=False
                ):
                    if known.alias_info is None and old.data_ptr() != new.data_ptr():
                        old.detach().copy_(new)


def _tensors(value: Any) -> list[torch.Tensor]:
    return [leaf for leaf in tree_flatten(value)[0] if isinstance(leaf, torch.Tensor)]


class TapeRecorder:
    """Records steps as `alkit.models.steps.CudaGraphs` does: one is called on the tape once, and its traces are undone.

    `recorded` and `replayed` count. A CUDA graph is recorded without being run; a step on the tape runs, so what it
    changed is put back. `changes` are those tensors: weights, statistics, the optimizer's state, counters, generators.
    """

    def __init__(self, tensors: Callable[[], list[torch.Tensor]], generators: list[torch.Generator]) -> None:
        self._tensors, self._generators = tensors, generators
        self.warmed = self.recorded = self.replayed = self.forgotten = 0

    def warm(self, call: Callable[[], None]) -> None:
        self.warmed += 1
        call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        self.recorded += 1
        before = [(tensor, tensor.detach().clone()) for tensor in self._tensors()]
        states = [generator.get_state() for generator in self._generators]
        tape = _Tape()
        with tape:
            call()
        for tensor, value in before:
            tensor.detach().copy_(value)
        for generator, state in zip(self._generators, states, strict=True):
            generator.set_state(state)

        def replay() -> None:
            self.replayed += 1
            tape.play()

        return replay

    def forget(self) -> None:
        self.forgotten += 1
