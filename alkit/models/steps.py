"""The training step, written once and run in two ways: called for each batch, or recorded once and replayed.

All that a step reads lies in tensors that keep their place from epoch to epoch: the epoch's draws, a row a step, and
a counter that says which row is next. So the device finds its own way through an epoch. On CUDA a step is some
hundreds of small kernels, and telling the card of each takes longer than the kernel; recorded as a CUDA graph they
are told of once.
"""

from __future__ import annotations

import gc
import os
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Protocol

import torch
from torch import Tensor

from alkit.errors import TrainingError

RECORD = os.environ.get("ALKIT_RECORD") != "0"
"""Whether steps are recorded on CUDA."""

WARM = 2
"""Steps that are called before one is recorded: libraries load kernels and optimizers make their state in the first."""

Row = Mapping[str, Tensor]
Step = Callable[[Row, Tensor | None], Tensor]
"""Trains on one row of the epoch's draws and returns the loss (); the images are given where they cannot be picked on
the device, else None."""


@dataclass(frozen=True)
class Draws:
    """What an epoch's steps read, on the device.

    `sizes` are the images of each step. `each` holds tensors with an entry an image (sum of sizes, …), `once` tensors
    with an entry a step (steps, …).
    """

    sizes: Sequence[int]
    each: Mapping[str, Tensor] = field(default_factory=dict)
    once: Mapping[str, Tensor] = field(default_factory=dict)

    def batches(self, name: str) -> list[Tensor]:
        """The tensor `name` of `each`, cut into steps."""
        return list(self.each[name].split(list(self.sizes)))

    def groups(self) -> Iterator[dict[str, Tensor]]:
        """Steps of one size after another as one dictionary: tensors (steps, size, …) and (steps, …)."""
        step = image = 0
        for size, same in groupby(self.sizes):
            steps = len(list(same))
            rows = {name: part[image : image + steps * size].unflatten(0, (steps, size)) for name, part in
                    self.each.items()}  # fmt: skip
            yield rows | {name: part[step : step + steps] for name, part in self.once.items()}
            step, image = step + steps, image + steps * size


class Recorder(Protocol):
    """How steps are recorded: `warm` calls one where it will be recorded, `record` returns what repeats one, `forget`
    is told that recordings were dropped."""

    def warm(self, call: Callable[[], None]) -> None: ...

    def record(self, call: Callable[[], None]) -> Callable[[], None]: ...

    def forget(self) -> None: ...


class StepLoop:
    """Runs a step over the rows of an epoch; `recorder` None: by calling it.

    It does not keep the step, which keeps the loop: else the recordings would wait for the collection of garbage, and
    their memory with them.
    """

    def __init__(self, device: torch.device, recorder: Recorder | None = None) -> None:
        self._device, self._recorder = device, recorder
        self._places: list[_Place] = []
        self._burnt_in: Hashable = None

    def forget(self) -> None:
        """Drop all recordings: a tensor that the step uses has been replaced by another, or there is no more to do."""
        recorded = any(place.replay is not None for place in self._places)
        for place in self._places:
            place.replay, place.calls = None, 0
        if recorded and self._recorder is not None:
            self._recorder.forget()

    def run(
        self, step: Step, draws: Draws, burnt_in: Hashable = None, stream: Iterator[Tensor] | None = None
    ) -> Tensor:
        """One epoch; the loss of each step (steps,), on the device.

        `step` is the same in every epoch, and `burnt_in` the values that it takes from Python: when they change it is
        recorded anew. Steps of another size (an epoch's last) have a recording of their own. `stream` gives each
        step's images, if need be.
        """
        if burnt_in != self._burnt_in:
            self.forget()
            self._burnt_in = burnt_in
        count = _steps_of_groups(draws)
        for number, (rows, steps) in enumerate(zip(draws.groups(), count, strict=True)):
            place = self._place(number, rows, steps)
            for _ in range(steps):
                self._advance(step, place, None if stream is None else next(stream))
        return torch.cat([place.losses for place in self._places[: len(count)]])

    def _place(self, number: int, rows: dict[str, Tensor], steps: int) -> _Place:
        """Where group `number` of the epoch stands, with its rows copied in."""
        while len(self._places) <= number:
            self._places.append(_Place())
        place = self._places[number]
        if not place.take(rows, steps):
            self._places[number] = place = _Place.of(rows, steps, self._device)
        return place

    def _advance(self, step: Step, place: _Place, images: Tensor | None) -> None:
        def call() -> None:
            place.note(step(place.row(), images))

        if self._recorder is None or images is not None:
            call()
        elif place.replay is not None:
            place.replay()
        elif place.calls < WARM:
            self._recorder.warm(call)
            place.calls += 1
        else:
            place.replay = self._recorder.record(call)
            place.replay()


@dataclass(eq=False)
class _Place:
    """Rows of equal steps, where a recorded step finds them, and the recording."""

    tensors: dict[str, Tensor] = field(default_factory=dict)
    losses: Tensor = field(default_factory=lambda: torch.empty(0))
    order: Tensor = field(default_factory=lambda: torch.empty(0))
    counter: Tensor = field(default_factory=lambda: torch.empty(0))
    replay: Callable[[], None] | None = None
    calls: int = 0

    @classmethod
    def of(cls, rows: dict[str, Tensor], steps: int, device: torch.device) -> _Place:
        return cls(
            {name: part.clone() for name, part in rows.items()}, torch.zeros(steps, device=device),
            torch.arange(steps, device=device), torch.zeros(1, dtype=torch.int64, device=device),
        )  # fmt: skip

    def take(self, rows: dict[str, Tensor], steps: int) -> bool:
        """Copy in the rows of the next epoch; False if they are of another shape."""
        if len(self.losses) != steps or {n: p.shape for n, p in rows.items()} != {
            n: p.shape for n, p in self.tensors.items()
        }:
            return False
        for name, part in rows.items():
            self.tensors[name].copy_(part)
        self.counter.zero_()
        return True

    def row(self) -> dict[str, Tensor]:
        """This step's entry of every tensor; which one, the device knows."""
        return {name: part.index_select(0, self.counter).squeeze(0) for name, part in self.tensors.items()}

    def note(self, loss: Tensor) -> None:
        """Put the loss into this step's slot, and go on to the next step."""
        torch.where(self.order == self.counter, loss.detach(), self.losses, out=self.losses)
        self.counter.add_(1)


def _steps_of_groups(draws: Draws) -> list[int]:
    return [len(list(same)) for _, same in groupby(draws.sizes)]


def recorder_for(device: torch.device, generators: Sequence[torch.Generator] = ()) -> Recorder | None:
    """What records steps on `device`, or None where they are called: off CUDA, or where `RECORD` says so.

    `generators` are those on the device that the steps draw from: their state then moves on with every replay.
    """
    return CudaGraphs(device, generators) if RECORD and device.type == "cuda" else None


class CudaGraphs:
    """Records steps as CUDA graphs, each with memory of its own."""

    def __init__(self, device: torch.device, generators: Sequence[torch.Generator] = ()) -> None:
        self._device, self._generators = device, list(generators)
        self._stream = torch.cuda.Stream(device)

    def warm(self, call: Callable[[], None]) -> None:
        """Call the step, for good, on the stream it will be recorded on: libraries keep workspaces a stream."""
        current = torch.cuda.current_stream(self._device)
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream):
            call()
        current.wait_stream(self._stream)

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        """The step as a graph, not yet run. Raises `TrainingError` where it cannot be recorded."""
        graph = torch.cuda.CUDAGraph()
        for generator in self._generators:
            graph.register_generator_state(generator)
        try:
            self._capture(graph, call)
        except RuntimeError as error:
            if out_of_memory(error):
                raise
            reason = str(error.__context__ or error).strip().splitlines()[0]
            raise TrainingError(f"a step could not be recorded ({reason}); ALKIT_RECORD=0 trains without") from error
        return graph.replay

    def forget(self) -> None:
        """Give the memory of dropped recordings back to the card: other processes may need it."""
        torch.cuda.empty_cache()

    def _capture(self, graph: torch.cuda.CUDAGraph, call: Callable[[], None]) -> None:
        """As `torch.cuda.graph`, but without its collection of garbage, which takes longer than a small epoch."""
        self._stream.wait_stream(torch.cuda.current_stream(self._device))
        collecting = gc.isenabled()
        gc.disable()  # a tensor freed now would be freed within the recording
        try:
            with torch.cuda.stream(self._stream):
                # of this thread alone: another one may be preparing a picture or a file
                graph.capture_begin(capture_error_mode="thread_local")
                try:
                    call()
                finally:
                    graph.capture_end()
        finally:
            if collecting:
                gc.enable()
        # a recording sets its generators' seeds on that stream: a replay here must not be overtaken by it
        torch.cuda.current_stream(self._device).wait_stream(self._stream)


def out_of_memory(error: BaseException | None) -> bool:
    """Whether the device, or the machine itself, had no memory left; the CPU's allocator has no error of its own."""
    if error is None:
        return False
    here = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator" in str(error)
    return here or out_of_memory(error.__context__)  # while recording, leaving the recording raises one more
