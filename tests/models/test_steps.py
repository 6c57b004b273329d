"""A recorded step is the eager step: the same code, the same bits, recorded anew when a number in it changes."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from tape import TapeRecorder
from test_training import METHOD_OF, images, trainer

from alkit import ActiveLearner, Experiment
from alkit.errors import TrainingError
from alkit.methods import METHODS
from alkit.models import steps
from alkit.models.steps import WARM, Draws, StepLoop
from alkit.objectives import OBJECTIVES
from alkit.strategies.graph import SimilarityGraph, train_gcn
from alkit.training.devices import deterministic
from alkit.training.loop import Trainer
from alkit.training.pretext.base import PretextTask, make_task
from alkit.training.pretext.run import with_pretext

Make = Callable[..., Experiment]


# --- the loop alone --------------------------------------------------------------------------------------------------


class Called:
    """A recorder that records nothing, and notes what it was asked."""

    def __init__(self) -> None:
        self.asked: list[str] = []

    def warm(self, call: Callable[[], None]) -> None:
        self.asked.append("warm")
        call()

    def record(self, call: Callable[[], None]) -> Callable[[], None]:
        self.asked.append("record")

        def replay() -> None:
            self.asked.append("replay")
            call()

        return replay

    def forget(self) -> None:
        self.asked.append("forget")


def adding(seen: list[list[int]]) -> Any:
    def step(row: Any, images: Any) -> torch.Tensor:
        seen.append(row["images"].tolist())
        total: torch.Tensor = row["images"].sum().float() + row["lam"]
        return total

    return step


def epoch_of(sizes: list[int], start: int = 0) -> Draws:
    return Draws(
        sizes, {"images": torch.arange(start, start + sum(sizes))}, {"lam": torch.arange(len(sizes)) / 10}
    )  # fmt: skip


@pytest.mark.parametrize("sizes", [[2, 2, 2], [2, 2, 1], [3], [2, 3], [1, 2, 1]])
def test_each_step_sees_its_own_row_and_leaves_its_loss_in_its_own_slot(sizes: list[int]) -> None:
    seen: list[list[int]] = []
    losses = StepLoop(torch.device("cpu")).run(adding(seen), epoch_of(sizes))
    rows = [part.tolist() for part in torch.arange(sum(sizes)).split(sizes)]
    assert seen == rows
    assert losses.tolist() == pytest.approx([sum(row) + step / 10 for step, row in enumerate(rows)])


def test_a_step_is_called_some_times_recorded_once_and_then_replayed() -> None:
    recorder = Called()
    loop, step = StepLoop(torch.device("cpu"), recorder), adding([])
    loop.run(step, epoch_of([2] * 6))
    assert recorder.asked == ["warm"] * WARM + ["record"] + ["replay"] * (6 - WARM)
    recorder.asked.clear()
    assert loop.run(step, epoch_of([2] * 6, 50)).tolist() == pytest.approx([101 + 4.1 * step for step in range(6)])
    assert recorder.asked == ["replay"] * 6, "the next epoch goes on with the recording"


def test_it_is_recorded_anew_when_a_burnt_in_value_changes_and_the_last_batch_has_its_own() -> None:
    recorder = Called()
    loop, step = StepLoop(torch.device("cpu"), recorder), adding([])
    for rate in (0.1, 0.1, 0.1, 0.01, 0.01, 0.01):
        loop.run(step, epoch_of([2, 2, 2, 2, 1]), burnt_in=rate)
    assert recorder.asked.count("record") == 4, "two rates, two sizes"
    loop.forget()
    loop.run(step, epoch_of([2, 2, 2, 2, 1]), burnt_in=0.01)
    assert recorder.asked.count("record") == 5
    loop.run(step, epoch_of([3, 3]), burnt_in=0.01)
    assert recorder.asked[-2:] == ["warm", "warm"], "other sizes are another step"


def test_images_that_come_from_files_are_not_recorded() -> None:
    recorder, seen = Called(), list[Any]()

    def step(row: Any, images: torch.Tensor) -> torch.Tensor:
        seen.append(images)
        return images.sum()

    stream: Iterator[torch.Tensor] = (torch.full((2,), float(step)) for step in range(5))
    losses = StepLoop(torch.device("cpu"), recorder).run(step, epoch_of([2] * 5), stream=stream)
    assert losses.tolist() == [0, 2, 4, 6, 8]
    assert recorder.asked == []


def test_nothing_is_recorded_off_cuda() -> None:
    assert steps.recorder_for(torch.device("cpu")) is None


@pytest.mark.parametrize("record", [True, False])
def test_on_a_card_everything_is_recorded_or_nothing(record: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(steps, "RECORD", record)
    monkeypatch.setattr(steps, "CudaGraphs", lambda device, generators: "recorder")
    for generators in ([], [torch.Generator()]):
        assert (steps.recorder_for(torch.device("cuda"), generators) is not None) is record


def test_recordings_go_with_their_training_and_wait_for_no_collection(tiny: Make) -> None:
    """Each holds memory of the card: a run of ten cycles would fill it with those of the cycles before."""
    loop, recorder = trainer(tiny(epochs=10, batch_size=8, milestones=[]), images()), Called()
    loop._loop._recorder = recorder
    for _ in range(2):
        loop.train_epoch()
    kept = weakref.ref(loop._loop)
    assert "forget" not in recorder.asked
    loop.end()
    assert recorder.asked[-1] == "forget"
    assert all(place.replay is None for place in loop._loop._places)
    gc.disable()
    try:
        del loop
        assert kept() is None
    finally:
        gc.enable()


# --- the trainings ---------------------------------------------------------------------------------------------------

CASES: dict[str, dict[str, Any]] = {objective: {"method": METHOD_OF[objective]} for objective in sorted(OBJECTIVES)} | {
    "involution": {"method": "cmam", "cmam_pairing": "involution"},
    "bfloat16": {"method": "cmam", "precision": "bfloat16"},
    "adam": {"optimizer": "adam", "lr": 0.001},
    "dropout": {"method": "bald", "dropout": 0.5},
    "mc dropout": {"method": "bald", "model": "mc_dropout_cnn"},
    "radial": {"method": "sbias", "model": "radial_cnn", "training_samples": 2},
    "resized crops": {"augmentation": "resized_crop_flip"},
    "no crops": {"augmentation": "none"},
}


def changing(loop: Trainer | PretextTask) -> list[torch.Tensor]:
    """Everything that a step changes."""
    kept = [value for state in loop.optimizer.state.values() for value in state.values() if torch.is_tensor(value)]
    places = [tensor for place in loop._loop._places for tensor in (place.losses, place.counter)]
    return [*loop.network.parameters(), *loop.network.buffers(), *kept, *places]


def on_tape(loop: Trainer | PretextTask) -> TapeRecorder:
    """Have the loop record its steps on the CPU."""
    recorder = TapeRecorder(lambda: changing(loop), [loop._dropout])
    loop._loop._recorder = recorder
    return recorder


def same_bits(ours: torch.nn.Module, expected: torch.nn.Module) -> bool:
    """Weights and running statistics."""
    theirs = expected.state_dict()
    return all(torch.equal(value, theirs[name]) for name, value in ours.state_dict().items())


@pytest.mark.parametrize("case", CASES)
def test_a_recorded_training_ends_in_the_same_bits(case: str, tiny: Make) -> None:
    """Weights, running statistics and losses after four epochs, in which the rate falls and the module is detached."""
    experiment = tiny(**({"epochs": 4, "milestones": [2], "batch_size": 8} | CASES[case]))
    eager, recorded = (trainer(experiment, images()) for _ in range(2))
    recorder = on_tape(recorded)
    assert [recorded.train_epoch() for _ in range(4)] == [eager.train_epoch() for _ in range(4)]
    assert same_bits(recorded.network, eager.network)
    assert recorder.replayed > recorder.recorded >= 2, "it was replayed, and recorded again when the rate fell"


def test_a_tape_that_is_not_recorded_anew_is_noticed(tiny: Make) -> None:
    """The tape burns numbers in, as a card does: were the rate not in `burnt_in`, the test above would fail."""
    experiment = tiny(epochs=4, milestones=[2], batch_size=8)
    eager, recorded = (trainer(experiment, images()) for _ in range(2))
    on_tape(recorded)
    run = recorded._loop.run
    recorded._loop.run = lambda step, draws, burnt_in, stream: run(step, draws, None, stream)  # type: ignore[method-assign]
    for _ in range(4):
        recorded.train_epoch(), eager.train_epoch()
    assert not same_bits(recorded.network, eager.network)


def test_a_recorded_training_stops_and_goes_on_with_the_same_bits(tiny: Make) -> None:
    experiment = tiny(epochs=6, milestones=[5], batch_size=8)
    whole, first, second = (trainer(experiment, images()) for _ in range(3))
    for loop, epochs in ((whole, 6), (first, 3)):
        on_tape(loop)
        for _ in range(epochs):
            loop.train_epoch()
    on_tape(second)
    second.train_epoch()  # something else, recorded before the state of another is loaded
    second.load_state_dict(first.state_dict())
    while not second.finished:
        second.train_epoch()
    assert second.losses == whole.losses
    assert same_bits(second.network, whole.network)


@pytest.mark.parametrize("pretext", ["rotation", "jigsaw", "colorization", "simsiam"])
def test_a_recorded_pretext_task_ends_in_the_same_bits(pretext: str, tiny: Make) -> None:
    experiment = tiny(method="pt4al", pretext=pretext, pretext_batch_size=8)
    eager, recorded = (make_task(experiment, images(channels=3)) for _ in range(2))
    recorder = on_tape(recorded)
    assert [recorded.train_epoch(epoch) for epoch in range(3)] == [eager.train_epoch(epoch) for epoch in range(3)]
    assert same_bits(recorded.network, eager.network)
    assert recorder.replayed


# --- on a card -------------------------------------------------------------------------------------------------------


@pytest.fixture
def record(monkeypatch: pytest.MonkeyPatch) -> Callable[[bool], None]:
    return lambda flag: monkeypatch.setattr(steps, "RECORD", flag)


def both_ways(make: Callable[[], Any], record: Callable[[bool], None]) -> list[Any]:
    made = []
    for flag in (True, False):
        record(flag)
        made.append(make())
    return made


def epochs(loop: Any, count: int) -> list[float]:
    """The losses of so many epochs, trained as a run trains."""
    with deterministic():
        return [
            loop.train_epoch(epoch) if isinstance(loop, PretextTask) else loop.train_epoch() for epoch in range(count)
        ]


@pytest.mark.cuda
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("case", CASES)
def test_on_a_card_a_recorded_training_ends_in_the_same_bits(
    case: str, precision: str, tiny: Make, record: Callable[[bool], None]
) -> None:
    options = {"epochs": 5, "milestones": [3], "batch_size": 8, "precision": precision} | CASES[case]
    data = images(200, channels=3, size=32).to("cuda")
    recorded, eager = both_ways(lambda: trainer(tiny(**options), data, 195), record)
    assert recorded._loop._recorder is not None
    assert eager._loop._recorder is None
    assert epochs(recorded, 5) == epochs(eager, 5)
    assert same_bits(recorded.network, eager.network)


@pytest.mark.cuda
@pytest.mark.parametrize("pretext", ["rotation", "jigsaw", "colorization", "simsiam"])
def test_on_a_card_a_recorded_pretext_task_ends_in_the_same_bits(
    pretext: str, tiny: Make, record: Callable[[bool], None]
) -> None:
    experiment = tiny(method="pt4al", pretext=pretext, pretext_batch_size=16)
    data = images(120, channels=3, size=32).to("cuda")
    recorded, eager = both_ways(lambda: make_task(experiment, data), record)
    assert epochs(recorded, 3) == epochs(eager, 3)
    assert same_bits(recorded.network, eager.network)


@pytest.mark.cuda
def test_on_a_card_a_recorded_graph_network_ends_in_the_same_bits(record: Callable[[bool], None]) -> None:
    features = torch.randn(300, 16, generator=torch.Generator().manual_seed(0)).cuda()
    known = torch.arange(300) < 40

    def train() -> torch.nn.Module:
        graph = SimilarityGraph.of(features)
        return train_gcn(graph, known, torch.Generator().manual_seed(1), hidden=8, steps=30)[0]

    with deterministic():
        assert same_bits(*both_ways(train, record))


@pytest.mark.cuda
def test_on_a_card_what_cannot_be_recorded_is_said_in_one_line(record: Callable[[bool], None]) -> None:
    record(True)
    device = torch.device("cuda", 0)

    def step(row: Any, images: Any) -> torch.Tensor:
        loss: torch.Tensor = row["images"].sum().float()
        return loss + float(loss)  # the host reads the device

    with pytest.raises(TrainingError, match=r"a step could not be recorded \(.*\); ALKIT_RECORD=0 trains without"):
        StepLoop(device, steps.recorder_for(device)).run(
            step, Draws([2] * 5, {"images": torch.arange(10, device=device)})
        )


@pytest.mark.cuda
@pytest.mark.parametrize("method", [row for row in METHODS if row != "whole_dataset"])
def test_on_a_card_a_method_ends_in_the_same_numbers_recorded_and_eager(
    method: str, tiny: Make, record: Callable[[bool], None], tmp_path: Path
) -> None:
    experiment = tiny(method=method, device="cuda", epochs=4, milestones=[3], batch_size=8, gcn_steps=12)

    def run() -> list[bytes]:
        folder = tmp_path / str(steps.RECORD)
        list(ActiveLearner(with_pretext(experiment, folder), folder / method / "seed-0"))
        return [(folder / method / "seed-0" / name).read_bytes() for name in ("queries.npz", "predictions.npz")]

    recorded, eager = both_ways(run, record)
    assert recorded == eager
