"""The contract that every method of the table keeps. A new row of the table is tested by being there."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import own_strategy
import pytest
import torch
from made_up import made_images, made_pool

from alkit import ActiveLearner, Experiment, methods
from alkit.config.own_module import FOLDERS, import_own, look_in
from alkit.data import ImageSet
from alkit.data.randomness import generator
from alkit.data.registry import DATASETS, DatasetEntry
from alkit.methods import METHODS
from alkit.strategies import Query, TensorPool, base, make_strategy
from alkit.training.pretext import with_pretext

Make = Callable[..., Experiment]

OWN = "second_guess"
every_method = pytest.mark.parametrize("method", [*METHODS, pytest.param(OWN, id=f"{OWN}, as the documentation shows")])
SHAPES = {"8x8 grey": (1, 8, 8), "28x28 grey": (1, 28, 28), "32x32 colour": (3, 32, 32), "64x64 colour": (3, 64, 64)}
FAST = {"pool_size": None, "test_size": None, "epochs": 1, "batch_size": 8, "dataset": "made_up"}


@pytest.fixture(autouse=True)
def own_strategy_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> None:
    """The strategy of docs/own_strategy.md, kept as a module as that page tells people to keep it."""
    if getattr(request.node, "callspec", None) is not None and request.node.callspec.params.get("method") == OWN:
        own_strategy.keep(tmp_path / "modules")
        monkeypatch.setenv(FOLDERS, "")
        monkeypatch.setattr(sys, "path", [*sys.path])
        monkeypatch.setattr(methods, "_ADDED", [])
        tables: list[dict[str, Any]] = [METHODS, base._STRATEGIES]
        for table in tables:
            monkeypatch.setitem(table, OWN, None)
            del table[OWN]
        look_in(tmp_path / "modules")
        monkeypatch.delitem(sys.modules, "my_package", raising=False)
        monkeypatch.delitem(sys.modules, "my_package.my_module", raising=False)
        import_own("my_package.my_module")


# --- what the methods are given --------------------------------------------------------------------------------------


@pytest.fixture
def made_up(monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """`made_up(shape, classes, pool)` makes the data set 'made_up'."""

    def make(shape: tuple[int, int, int] = (1, 8, 8), classes: int = 3, pool: int = 40) -> None:
        def load(root: Path | None, options: dict[str, Any]) -> tuple[ImageSet, ImageSet]:
            return made_images(pool, shape, classes), made_images(6, shape, classes, seed=1)

        monkeypatch.setitem(DATASETS, "made_up", DatasetEntry("made_up", "made up", load, "these tests"))

    return make


def ask(experiment: Experiment, pool: TensorPool, budget: int, seed: int = 0) -> Query:
    return make_strategy(experiment).query(pool, budget, generator(seed, "contract"))


def assert_keeps_the_contract(answer: Query, pool: TensorPool, budget: int) -> None:
    asked = answer.indices.tolist()
    assert answer.indices.dtype == torch.int64
    assert len(asked) == budget, "exact budget"
    assert len(set(asked)) == budget, "no duplicate"
    assert set(asked) <= set(pool.candidates.tolist()), "only candidates"
    assert not set(asked) & set(pool.labelled.tolist()), "only unlabelled"
    assert answer.utilities.shape == pool.candidates.shape
    assert bool(answer.utilities.isfinite().all())
    if answer.masses is not None:
        assert answer.masses.shape == (budget,)
        assert bool(((answer.masses > 0) & (answer.masses <= 1)).all())


# --- the strategy by itself ------------------------------------------------------------------------------------------


@every_method
@pytest.mark.parametrize(
    "pool",
    [
        pytest.param({}, id="usual"),
        pytest.param({"scale": 0.0}, id="constant utilities"),
        pytest.param({"classes": 1}, id="a single class"),
        pytest.param({"classes": 2}, id="two classes"),
        pytest.param({"scale": 1e38}, id="saturated logits"),
        pytest.param({"classes": 12}, id="more classes than labels"),
        pytest.param({"labelled": 1}, id="one label"),
    ],
)
def test_a_query_is_exact_distinct_and_of_candidates(method: str, pool: dict[str, Any], tiny: Make) -> None:
    given = made_pool(**pool)
    assert_keeps_the_contract(ask(tiny(method=method), given, 4), given, 4)


@every_method
@pytest.mark.parametrize("count", [12, 1])
def test_a_budget_of_the_whole_pool_asks_for_all_of_it(method: str, count: int, tiny: Make) -> None:
    given = made_pool(candidates=count)
    answer = ask(tiny(method=method), given, count)
    assert_keeps_the_contract(answer, given, count)
    assert sorted(answer.indices.tolist()) == given.candidates.tolist()


@every_method
def test_the_same_generator_gives_the_same_query_whatever_the_global_one(method: str, tiny: Make) -> None:
    torch.manual_seed(1)
    np.random.seed(1)
    first = ask(tiny(method=method), made_pool(), 4)
    torch.manual_seed(2)
    np.random.seed(2)
    again = ask(tiny(method=method), made_pool(), 4)
    assert torch.equal(first.indices, again.indices)
    assert torch.equal(first.utilities, again.utilities)


@every_method
def test_where_the_method_is_random_another_generator_gives_another_query(method: str, tiny: Make) -> None:
    """Random is what draws from its generator; a sharp proposal shows it only where the model cannot tell."""
    strategy = make_strategy(tiny(method=method))
    drew, seen = False, set()
    for scale in (0.0, 0.3):
        for seed in range(6):
            source = generator(seed, "contract")
            before = source.get_state()
            answer = strategy.query(made_pool(scale=scale, labelled=30), 4, source)
            drew = drew or not torch.equal(before, source.get_state())
            seen.add((scale, tuple(answer.indices.tolist()), tuple(answer.utilities.tolist())))
    assert (len(seen) > 2) == drew


# --- the method in the learner ---------------------------------------------------------------------------------------


Run = Callable[[Experiment], tuple[list[dict[str, Any]], dict[str, np.ndarray]]]


@pytest.fixture
def run(tmp_path: Path) -> Run:
    """`run(experiment)`: its records and what it bought; a pretext task is trained first where there is one."""

    def make(experiment: Experiment) -> tuple[list[dict[str, Any]], dict[str, np.ndarray]]:
        learner = ActiveLearner(with_pretext(experiment, tmp_path))
        return list(learner), learner.query_arrays()

    return make


def assert_buys_each_image_once(experiment: Experiment, queries: dict[str, np.ndarray], pool: int) -> None:
    sizes = [len(queries[f"query_{c}"]) for c in range(1, experiment.cycle_count + 1)]
    bought = np.concatenate([queries[f"query_{c}"] for c in range(1, experiment.cycle_count + 1)])
    if experiment.row.whole_pool:
        assert sizes == [pool]
    else:
        assert sizes == [experiment.initial, *[experiment.budget] * (experiment.cycle_count - 1)]
    assert len(np.unique(bought)) == len(bought)
    assert bought.min() >= 0
    assert bought.max() < pool


@every_method
@pytest.mark.parametrize("shape", list(SHAPES))
def test_every_method_takes_every_shape_of_image(method: str, shape: str, tiny: Make, made_up: Any, run: Run) -> None:
    made_up(SHAPES[shape])
    experiment = tiny(method=method, initial=9, budget=5, **FAST)
    records, queries = run(experiment)
    assert len(records) == experiment.cycle_count
    assert all(np.isfinite([r["nll"], r["ece"], r["train_loss"]]).all() for r in records)
    assert_buys_each_image_once(experiment, queries, 40)


@every_method
@pytest.mark.parametrize("classes", [1, 2])
def test_every_method_takes_one_class_and_two(method: str, classes: int, tiny: Make, made_up: Any, run: Run) -> None:
    made_up(classes=classes)
    experiment = tiny(method=method, initial=9, budget=5, **FAST)
    records, queries = run(experiment)
    assert records[-1]["class_counts"] == np.bincount(
        np.concatenate([queries[f"query_{c}"] for c in range(1, len(records) + 1)]) % classes, minlength=classes
    ).tolist()  # fmt: skip
    assert_buys_each_image_once(experiment, queries, 40)


@every_method
def test_the_last_query_may_empty_the_pool(method: str, tiny: Make, made_up: Any, run: Run) -> None:
    made_up(pool=20)
    experiment = tiny(method=method, initial=10, budget=10, **FAST)
    records, queries = run(experiment)
    assert_buys_each_image_once(experiment, queries, 20)
    if not experiment.row.single_cycle:
        assert sum(records[-1]["class_counts"]) == 20


@every_method
def test_the_same_seed_gives_the_same_run_and_another_seed_another(
    method: str, tiny: Make, made_up: Any, run: Run
) -> None:
    made_up()
    first, again, other = (run(tiny(method=method, initial=9, budget=5, seed=seed, **FAST)) for seed in (3, 3, 4))
    for name, values in first[1].items():
        np.testing.assert_array_equal(values, again[1][name])
    assert [r["nll"] for r in first[0]] == [r["nll"] for r in again[0]]
    assert [r["nll"] for r in first[0]] != [r["nll"] for r in other[0]]
    if not METHODS[method].whole_pool:
        assert any(not np.array_equal(first[1][name], other[1][name]) for name in first[1] if name.startswith("query"))
