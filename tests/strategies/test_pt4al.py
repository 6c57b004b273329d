"""PT4AL: batches of pretext losses, what is bought from them, and the authors' files."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from alkit import ActiveLearner, Experiment, Study
from alkit.data.randomness import generator
from alkit.errors import AlkitError, CheckpointError, ConfigError, DataError
from alkit.storage.loss_files import PretextLosses, as_text, write_pretext
from alkit.strategies import TensorPool, make_strategy
from alkit.strategies.pt4al import class_balanced, confidence, evenly_spaced, pretext_batches
from alkit.training.pretext import read_batches, read_losses, with_pretext, write_batches, write_losses

Make = Callable[..., Experiment]
ROOT = Path(__file__).parents[2]


def losses_file(folder: Path, losses: list[float] | np.ndarray, name: str = "losses.txt") -> str:
    """A file of `LOSS_PATH` lines, in an order of its own, as PT4AL's program writes it."""
    lines = [f"{float(loss)}_./DATA/train/{index % 10}/{index}.png\n" for index, loss in enumerate(losses)]
    (folder / name).write_text("".join(lines[::-1]))
    return str(folder / name)


def falling(count: int) -> list[float]:
    """Losses of which image 0 has the highest, image 1 the next, and so on."""
    return [1 - place / count for place in range(count)]


# --- batches ---------------------------------------------------------------------------------------------------------

LOSSES = st.lists(
    st.one_of(st.floats(0, 10), st.sampled_from([0.0, 1e-05, 4.1e-05, 0.5, 0.9])), min_size=1, max_size=40
)


@given(LOSSES, st.data())
def test_batches_are_the_sorted_losses_cut_into_equal_parts(losses: list[float], data: st.DataObject) -> None:
    count = data.draw(st.integers(1, len(losses)))
    for order in ("numeric", "text"):
        key = str if order == "text" else float
        expected = list(range(len(losses)))
        for i in range(len(losses)):  # insertion sort, highest first: an image moves up past a lower loss only
            at = i
            while at and key(losses[expected[at - 1]]) < key(losses[expected[at]]):  # type: ignore[operator]
                expected[at - 1], expected[at] = expected[at], expected[at - 1]
                at -= 1
        size = len(losses) // count
        batches = pretext_batches(losses, count, order)  # type: ignore[arg-type]
        assert [len(batch) for batch in batches] == [size] * (count - 1) + [len(losses) - size * (count - 1)]
        assert np.concatenate(batches).tolist() == expected
        assert all(batch.dtype == np.int64 for batch in batches)


def test_the_last_batch_takes_the_remainder_and_nothing_is_dropped() -> None:
    batches = pretext_batches(falling(13), 5)
    assert [batch.tolist() for batch in batches] == [[0, 1], [2, 3], [4, 5], [6, 7], [8, 9, 10, 11, 12]]


def test_equal_losses_stand_by_index() -> None:
    for order in ("numeric", "text"):
        assert np.concatenate(pretext_batches([0.5, 0.9, 0.5, 0.9], 2, order)).tolist() == [1, 3, 0, 2]


def test_text_order_puts_the_smallest_losses_first_where_they_have_an_exponent() -> None:
    losses = [0.9, 4.1e-05, 0.30, 0.0001, 9.9e-06]
    assert np.concatenate(pretext_batches(losses, 1)).tolist() == [0, 2, 3, 1, 4]
    assert np.concatenate(pretext_batches(losses, 1, "text")).tolist() == [4, 1, 0, 2, 3]


def test_text_order_sorts_what_stands_in_the_file() -> None:
    assert np.concatenate(pretext_batches([0.5, 0.25], 1, "text", ["0.50", "2.5E-1"])).tolist() == [1, 0]


@pytest.mark.parametrize(
    ("losses", "count", "message"),
    [
        ([0.1, math.nan], 1, "loss of image 1 is not a number"),
        ([0.1, 0.2], 3, "2 images cannot make 3 batches"),
        ([0.1, 0.2], 0, "2 images cannot make 0 batches"),
        ([[0.1]], 1, "expected losses"),
    ],
)
def test_losses_that_make_no_batches_are_refused(losses: list[float], count: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        pretext_batches(losses, count)


def test_the_first_query_is_every_fifth_of_a_batch_five_times_its_size() -> None:
    assert evenly_spaced(np.arange(5000), 1000).tolist() == list(range(0, 5000, 5))


@given(st.integers(1, 60), st.data())
def test_the_first_query_has_exactly_its_size_and_is_evenly_spaced(size: int, data: st.DataObject) -> None:
    count = data.draw(st.integers(1, size))
    chosen = evenly_spaced(np.arange(size), count)
    gaps = np.diff([*chosen.tolist(), size])
    assert len(chosen) == count
    assert chosen[0] == 0
    assert gaps.min() >= size // count
    assert gaps.max() <= -(-size // count)


# --- samplers --------------------------------------------------------------------------------------------------------


def made_logits(count: int = 30, classes: int = 4, seed: int = 0) -> torch.Tensor:
    return torch.randn(count, classes, generator=torch.Generator().manual_seed(seed)) * 3


def ask(experiment: Experiment, logits: torch.Tensor, budget: int) -> list[int]:
    candidates = torch.arange(len(logits))
    pool = TensorPool(candidates, torch.tensor([99]), torch.tensor([0]), logits.shape[1], logits=logits)
    return make_strategy(experiment).query(pool, budget, generator(0, "test")).indices.tolist()


def test_confidence_asks_for_the_lowest_top_1_probability(tiny: Make) -> None:
    logits = made_logits()
    top = [max(math.exp(z) for z in row) / sum(math.exp(z) for z in row) for row in logits.double().tolist()]
    assert ask(tiny(method="pt4al"), logits, 8) == sorted(range(30), key=top.__getitem__)[:8]


def test_normalised_confidence_lies_in_the_narrow_range_it_can_reach() -> None:
    utilities = confidence(torch.tensor([[100.0, 0, 0], [1, 0, 0], [1, 1, 1], [0, 0, 0]]), normalise=True)
    sure = math.e / (math.e + 2)
    assert utilities.tolist() == pytest.approx([1 - sure, 1 - sure, 2 / 3, 2 / 3])


def test_entropy_asks_for_the_highest_entropy(tiny: Make) -> None:
    logits = made_logits()
    spread = [-sum(p * math.log(p) for p in row) for row in logits.double().softmax(1).tolist()]
    asked = ask(tiny(method="pt4al", pt4al_sampler="entropy"), logits, 8)
    assert asked == sorted(range(30), key=spread.__getitem__, reverse=True)[:8]


@pytest.mark.parametrize("budget", [1, 3, 8, 13, 30])
def test_class_balanced_takes_the_first_of_each_class_and_fills_up(budget: int, tiny: Make, tmp_path: Path) -> None:
    logits = made_logits()
    losses = torch.rand(30, generator=torch.Generator().manual_seed(1)).tolist()
    in_order = sorted(range(30), key=losses.__getitem__, reverse=True)
    taken: list[int] = []
    counts = [0] * 4
    for image in in_order:
        predicted = int(logits[image].argmax())
        if counts[predicted] < budget // 4:
            counts[predicted] += 1
            taken.append(image)
    taken += [image for image in in_order if image not in taken][: budget - len(taken)]
    file = losses_file(tmp_path, losses)
    experiment = tiny(method="pt4al", pt4al_sampler="class_balanced", pretext_losses=file)
    assert ask(experiment, logits, budget) == taken


def test_class_balanced_utilities_are_one_a_candidate() -> None:
    utilities = class_balanced(made_logits(7), torch.arange(7), 4)
    assert sorted(utilities.tolist()) == list(range(1, 8))


# --- the cycle -------------------------------------------------------------------------------------------------------


def bought(experiment: Experiment) -> list[list[int]]:
    learner = ActiveLearner(experiment)
    list(learner)
    arrays = learner.query_arrays()
    return [arrays[f"query_{c}"].tolist() for c in range(1, experiment.cycle_count + 1)]


@pytest.mark.parametrize("order", ["numeric", "text"])
def test_a_run_buys_evenly_from_batch_0_then_from_one_batch_a_cycle(order: str, tiny: Make, tmp_path: Path) -> None:
    losses = torch.rand(200, generator=torch.Generator().manual_seed(0)).double() ** 8
    file = losses_file(tmp_path, losses.tolist())
    experiment = tiny(method="pt4al", pt4al_order=order, pretext_losses=file, cycles=4, epochs=1)
    batches = [batch.tolist() for batch in pretext_batches(losses.tolist(), 4, order)]  # type: ignore[arg-type]
    queries = bought(experiment)
    assert queries[0] == [batches[0][k * 50 // 20] for k in range(20)]
    for batch, query in zip(batches[1:], queries[1:], strict=True):
        assert len(query) == 10
        assert set(query) <= set(batch)


def test_candidates_are_what_is_left_of_the_batch_and_no_other(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(method="pt4al", pretext_losses=losses_file(tmp_path, falling(40)), cycles=4, budget=5, subset=6)
    free = torch.tensor([i for i in range(40) if i not in (11, 15)])
    candidates = make_strategy(experiment).candidates(free, 1, generator(0, "test"))
    assert candidates.tolist() == [10, 12, 13, 14, 16, 17, 18, 19]


def test_a_batch_that_is_too_small_is_filled_up_with_what_follows_it(tiny: Make, tmp_path: Path) -> None:
    strategy = make_strategy(
        tiny(method="pt4al", pretext_losses=losses_file(tmp_path, falling(12)), cycles=4, budget=5)
    )
    free = torch.tensor([i for i in range(12) if i not in (3, 6)])
    assert strategy.candidates(free, 1, generator(0, "t")).tolist() == [4, 5, 7, 8, 9]
    assert strategy.candidates(free, 3, generator(0, "t")).tolist() == [0, 1, 9, 10, 11]


def test_validation_images_are_never_bought(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, falling(200))
    experiment = tiny(method="pt4al", pretext_losses=file, validation_size=60, early_stopping=2, cycles=3, epochs=1)
    learner = ActiveLearner(experiment)
    list(learner)
    queries = [query.tolist() for query in learner.state.queries]
    assert [len(query) for query in queries] == [20, 10, 10]
    assert not set(np.concatenate(queries).tolist()) & set(learner.validation.tolist())
    assert set(queries[0]) <= set(range(66))


def test_the_cold_start_trains_once_on_the_first_query(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, falling(200))
    experiment = tiny(method="pt4al_cold_start", pretext_losses=file, cycles=4, epochs=1)
    assert bought(experiment) == [[k * 50 // 20 for k in range(20)]]


@pytest.mark.parametrize(("cycles", "first"), [(10, 100), (4, 150)])
def test_the_released_cold_start_reads_batch_5_or_the_last_of_fewer(
    cycles: int, first: int, tiny: Make, tmp_path: Path
) -> None:
    file = losses_file(tmp_path, falling(200))
    experiment = tiny(
        method="pt4al_cold_start", pretext_losses=file, cycles=cycles, quirks={"cold_start_batch_5": True}
    )
    query = make_strategy(experiment).first_query(torch.arange(200), 20)
    assert query is not None
    size = 200 // cycles
    assert query.tolist() == [first + k * size // 20 for k in range(20)]


# --- losses that cannot be used --------------------------------------------------------------------------------------


def refusal(experiment: Experiment, kind: type[AlkitError] = ConfigError) -> str:
    with pytest.raises(kind) as caught:
        next(iter(ActiveLearner(experiment)))
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_without_losses_it_says_how_to_get_them(tiny: Make) -> None:
    message = refusal(tiny(method="pt4al"))
    assert message.startswith("pretext_losses: 'pt4al' needs the losses of its pretext task")
    assert "notebooks/pretext.ipynb" in message


def test_a_file_that_is_not_there_is_named(tiny: Make) -> None:
    assert refusal(tiny(method="pt4al", pretext_losses="no/where.txt"), DataError) == "no/where.txt: no such file"
    assert refusal(tiny(method="pt4al", pretext_losses="no/where.npz"), DataError) == "no/where.npz: no such file"


def test_losses_of_another_number_of_images_are_refused(tiny: Make, tmp_path: Path) -> None:
    for validation in ({}, {"validation_size": 20, "early_stopping": 1}):
        message = refusal(tiny(method="pt4al", pretext_losses=losses_file(tmp_path, falling(180)), **validation))
        assert message.endswith("holds 180 losses, the pool has 200 images")


def test_losses_of_another_pool_are_refused(tiny: Make, tmp_path: Path) -> None:
    mine = with_pretext(tiny(method="pt4al"), tmp_path)
    other = Experiment(**(mine.model_dump() | {"dataset_seed": 1}))
    assert refusal(other).endswith("is of a pool with dataset_seed = 0, not 1")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("nan_./DATA/train/0/0.png\n", "line 1: expected LOSS_PATH with a finite loss"),
        ("0.5 ./DATA/train/0/0.png\n", "line 1: expected LOSS_PATH with a finite loss"),
        ("0.5_a/0.png\n0.4_a/0.png\n", "line 2: image 0 is there twice"),
        ("0.5_a/0.png\n0.4_a/7.png\n", "line 2: image 7 in a file of 2 lines"),
        ("0.5_a/first.png\n", "line 1: expected a path CLASS/INDEX.png"),
        (f"0.5_a/{'1' * 5000}.png\n", "line 1: expected a path CLASS/INDEX.png"),
        ("", "empty; expected a line LOSS_PATH"),
    ],
)
def test_a_broken_loss_file_is_refused_with_its_line(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "losses.txt").write_text(text)
    with pytest.raises(DataError, match=message):
        read_losses(tmp_path / "losses.txt")


def test_a_broken_npz_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pretext.npz"
    file.write_bytes(b"PK\x03\x04 half a file")
    with pytest.raises(DataError, match=r"not a pretext\.npz of alkit"):
        read_losses(file)
    np.savez(file, losses=np.zeros(3))
    with pytest.raises(DataError, match=r"not a pretext\.npz of alkit"):
        read_losses(file)
    write_pretext(file, PretextLosses(np.array([0.1, np.nan]), ("0.1", "nan")))
    with pytest.raises(DataError, match="the loss of image 1 is not a finite number"):
        read_losses(file)


@pytest.mark.parametrize(
    "change",
    [
        {"text": np.array(["0.1", "0.3"])}, {"text": np.array([["0.1", "0.2"]])}, {"text": np.array([1, 2])},
        {"losses": np.array([0.1 + 1j, 0.2])}, {"description": lambda known: known | {"settings": "rotation"}},
    ],
    ids=lambda change: next(iter(change)),
)  # fmt: skip
def test_an_npz_whose_parts_do_not_go_together_is_refused(change: dict[str, Any], tmp_path: Path) -> None:
    file = tmp_path / "pretext.npz"
    write_pretext(file, PretextLosses(np.array([0.1, 0.2]), ("0.1", "0.2")))
    with np.load(file) as whole:
        parts = dict(whole)
    for name, value in change.items():
        parts[name] = json.dumps(value(json.loads(str(parts[name])))) if callable(value) else value
    np.savez(file, **parts)
    with pytest.raises(DataError, match=r"pretext\.npz"):
        read_losses(file)


def test_an_npz_with_a_flipped_bit_in_its_directory_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "pretext.npz"
    write_pretext(file, PretextLosses(np.array([0.1, 0.2]), ("0.1", "0.2")))
    content = bytearray(file.read_bytes())
    content[content.find(b"PK\x01\x02") + 10] ^= 4  # the method of compression, which zipfile does not know then
    file.write_bytes(content)
    with pytest.raises(DataError, match=r"not a pretext\.npz of alkit \(NotImplementedError\)"):
        read_losses(file)


def test_more_cycles_than_images_are_refused(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, falling(3))
    with pytest.raises(ConfigError, match="cycles: 3 images cannot make 4 batches"):
        make_strategy(tiny(method="pt4al", pretext_losses=file, cycles=4)).batches  # type: ignore[attr-defined]  # noqa: B018


# --- files -----------------------------------------------------------------------------------------------------------


def test_the_published_form_is_read_whatever_the_order_of_its_lines(tmp_path: Path) -> None:
    text = "4.1e-05_./DATA/train/3/2.png\n0.90_./DATA/train/0/0.png\n0.25_./DATA/train/9/1.png\n"
    (tmp_path / "loss.txt").write_text(text)
    (tmp_path / "loss.txt.gz").write_bytes(gzip.compress(text.encode()))
    for name in ("loss.txt", "loss.txt.gz"):
        content = read_losses(tmp_path / name)
        assert content.losses.tolist() == [0.9, 0.25, 4.1e-05]
        assert content.text == ("0.90", "0.25", "4.1e-05")


def test_losses_and_batches_go_out_and_come_back(tmp_path: Path) -> None:
    losses = np.array([0.5, 3e-05, 0.125, 1.0])
    content = PretextLosses(losses, as_text(losses))
    write_losses(tmp_path / "loss.txt", content, [7, 8, 7, 9])
    assert (tmp_path / "loss.txt").read_text().splitlines()[1] == "3e-05_./DATA/train/8/1.png"
    back = read_losses(tmp_path / "loss.txt")
    assert (back.losses.tolist(), back.text) == (losses.tolist(), content.text)
    batches = pretext_batches(losses, 2, "text")
    files = write_batches(tmp_path / "batches", batches, [7, 8, 7, 9])
    assert [file.name for file in files] == ["batch_0.txt", "batch_1.txt"]
    assert files[0].read_text() == "./DATA/train/8/1.png\n./DATA/train/9/3.png\n"
    assert [b.tolist() for b in read_batches(tmp_path / "batches")] == [b.tolist() for b in batches]
    with pytest.raises(DataError, match=r"no file batch_0\.txt"):
        read_batches(tmp_path)


def test_an_npz_gives_back_what_was_written(tmp_path: Path) -> None:
    content = PretextLosses(np.array([0.5, 3e-05]), ("0.5", "3e-05"), {"dataset": "digits"}, 3, 0.75, (0.5, 0.7, 0.75))
    write_pretext(tmp_path / "a.npz", content)
    write_pretext(tmp_path / "b.npz", content)
    assert (tmp_path / "a.npz").read_bytes() == (tmp_path / "b.npz").read_bytes()
    back = read_losses(tmp_path / "a.npz")
    assert back.losses.tolist() == content.losses.tolist()
    assert (back.text, back.settings, back.epoch, back.accuracy, back.history) == (
        content.text, content.settings, 3, 0.75, content.history,
    )  # fmt: skip


def test_a_record_knows_its_losses_by_what_they_are_not_where_they_are(tiny: Make, tmp_path: Path) -> None:
    parameters = {"method": "pt4al", "cycles": 1, "epochs": 1}
    here = losses_file(tmp_path, falling(200), "here.txt")
    records = list(ActiveLearner(tiny(pretext_losses=here, **parameters), tmp_path / "run"))
    there = (tmp_path / "here.txt").rename(tmp_path / "there.txt")
    assert list(ActiveLearner(tiny(pretext_losses=str(there), **parameters), tmp_path / "run")) == records
    others = losses_file(tmp_path, falling(200)[::-1], "others.txt")
    with pytest.raises(CheckpointError, match="holds a run with pretext_losses"):
        list(ActiveLearner(tiny(pretext_losses=others, **parameters), tmp_path / "run"))
    there.unlink()
    assert list(ActiveLearner(tiny(pretext_losses=str(there), **parameters), tmp_path / "run")) == records


# --- the studies -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits_pt4al", "digits_cold_start"])
def test_every_run_of_a_study_on_digits_works_on_tiny_parameters(name: str, tmp_path: Path) -> None:
    study = Study.from_yaml(ROOT / "params" / f"{name}.yaml")
    small = {"pool_size": 300, "test_size": 60, "width": 4, "epochs": 1, "milestones": [1], "pretext_epochs": 1}
    accuracies = {}
    for label in study.labels:
        experiment = with_pretext(study.experiment(label, **small), tmp_path / "pretext")
        records = list(ActiveLearner(experiment))
        assert records[-1]["labelled"] == experiment.labels_needed(300)
        accuracies[label] = records[-1]["accuracy"]
    assert len(list((tmp_path / "pretext").glob("*.npz"))) == 1, "computed once, and shared"
    assert all(0 <= accuracy <= 1 for accuracy in accuracies.values())


@pytest.mark.parametrize("name", ["digits", "fashion_mnist"])
def test_the_studies_show_both_orders_beside_their_controls(name: str) -> None:
    study = Study.from_yaml(ROOT / "params" / f"{name}_pt4al.yaml")
    assert {"random", "entropy", "pt4al", "pt4al_text"} <= set(study.labels)
    assert study.experiment("pt4al_text").pt4al_order == "text"
    assert len(study.seeds) >= 3
    cold = Study.from_yaml(ROOT / "params" / f"{name}_cold_start.yaml")
    assert len(cold.seeds) >= 20
    drawn, chosen = cold.experiment("random_first"), cold.experiment("pt4al_cold_start")
    assert (drawn.method, drawn.cycle_count, drawn.initial) == ("random", 1, chosen.initial)
