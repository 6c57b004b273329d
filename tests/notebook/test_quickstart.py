"""The quickstart runs anywhere in the repository, and what it teaches about one's own strategy holds."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nbformat
import pytest
import short
import torch

from alkit import Experiment, notebook
from alkit.analysis.plots import method_style
from alkit.errors import ConfigError
from alkit.learner import ActiveLearner
from alkit.methods import _ADDED, METHODS, Method, add_method
from alkit.strategies import Pool, Query, Strategy, register, top_query
from alkit.strategies.base import _STRATEGIES, import_all

ROOT = Path(__file__).parents[2]
QUICKSTART = ROOT / "notebooks" / "quickstart.ipynb"


@pytest.fixture(autouse=True)
def the_table_as_it_was() -> Iterator[None]:
    import_all()  # what is imported during a test would be missing after it
    methods, added, strategies = dict(METHODS), list(_ADDED), dict(_STRATEGIES)
    yield
    for now, before in ((METHODS, methods), (_STRATEGIES, strategies)):
        now.clear()
        now.update(before)
    _ADDED[:] = added


def row(**changes: Any) -> Method:
    values = {"id": "mine", "title": "Mine", "paper": "a test", "objective": "cmam", "strategy": "mine", "summary": ""}
    return Method(**(values | changes))


def define(strategy: str = "mine", module: str = "__main__", last: bool = False) -> type[Strategy]:
    """A strategy that asks for the first candidates (or the last), as a cell of a notebook would define it."""

    class Mine(Strategy):
        def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
            places = torch.arange(len(pool.candidates))
            return top_query(pool, (places if last else -places).double(), budget)

    Mine.__module__ = module
    return register(strategy)(Mine)


def test_a_strategy_of_ones_own_runs_under_its_own_name(tiny: Any) -> None:
    define()
    add_method(row())
    learner = ActiveLearner(tiny(method="mine"))
    records = list(learner)
    queries = learner.query_arrays()
    assert len(records) == 2
    candidates = sorted(set(range(200)) - set(queries["query_1"].tolist()))
    assert queries["query_2"].tolist() == candidates[:10]


def test_a_cell_that_defines_a_strategy_can_be_run_again_with_a_change(tiny: Any) -> None:
    for last in (False, True):
        define(last=last)
        add_method(row(summary=str(last)))
    assert METHODS["mine"].summary == "True"
    learner = ActiveLearner(tiny(method="mine"))
    assert len(list(learner)) == 2
    queries = learner.query_arrays()
    candidates = sorted(set(range(200)) - set(queries["query_1"].tolist()))
    assert queries["query_2"].tolist() == candidates[:-11:-1]


def test_a_method_of_ones_own_has_a_colour_that_no_row_of_the_kit_has() -> None:
    of_the_kit = {method_style(name).colour for name in METHODS}
    for name in ("mine", "mine_too"):
        add_method(row(id=name))
    first, second = method_style("mine"), method_style("mine_too")
    assert {first.colour, second.colour}.isdisjoint(of_the_kit)
    assert first != second


def test_a_row_of_the_kits_own_table_cannot_be_replaced() -> None:
    before = METHODS["oo4al"]
    with pytest.raises(ConfigError, match="'oo4al' is a row of the kit's own table"):
        add_method(row(id="oo4al"))
    assert METHODS["oo4al"] is before


@pytest.mark.parametrize("name", ["margin", "coreset", "vaal"])
def test_a_strategy_of_the_kit_cannot_be_replaced(name: str) -> None:
    with pytest.raises(ValueError, match=f"two strategies are called '{name}'"):
        define(name)


def test_two_strategies_of_one_name_in_modules_are_refused() -> None:
    define(module="a.module")
    with pytest.raises(ValueError, match="two strategies are called 'mine'"):
        define(module="another.module")


def test_an_objective_that_does_not_exist_is_refused_with_the_nearest() -> None:
    with pytest.raises(ConfigError, match="no objective 'cmamm'; did you mean 'cmam'"):
        add_method(row(objective="cmamm"))
    assert "mine" not in METHODS


def test_a_row_whose_strategy_was_never_registered_is_refused_in_one_line(tiny: Any) -> None:
    add_method(row(strategy="margn"))
    with pytest.raises(ConfigError, match="a strategy 'margn' that is not registered; did you mean 'margin'"):
        ActiveLearner(tiny(method="mine"))


def test_runs_become_a_table_of_a_row_a_run_and_cycle(tiny: Any) -> None:
    runs = [notebook.run(tiny(method=m, seed=s)) for m in ("random", "margin") for s in (0, 3)]
    table = notebook.table(runs)
    assert list(zip(table.label, table.seed, table.cycle, strict=True)) == [
        (m, s, c) for m in ("random", "margin") for s in (0, 3) for c in (1, 2)
    ]
    assert table.accuracy.tolist() == [r["accuracy"] for run in runs for r in run.records]


def test_outputs_dir_counts_from_the_repository_root(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(ROOT / "notebooks" / "methods")
    assert notebook.outputs("outputs") == ROOT / "outputs"
    assert notebook.outputs(tmp_path) == tmp_path
    monkeypatch.chdir(tmp_path)
    assert notebook.outputs("outputs") == tmp_path / "outputs"


def test_outputs_dir_keeps_a_run_in_a_folder_of_its_own_and_reads_it_back(tiny: Any, tmp_path: Path) -> None:
    first = notebook.run(tiny(method="margin", seed=2), outputs_dir=tmp_path)
    record = tmp_path / "digits" / "margin" / "seed-2" / "result.json"
    stamp = record.stat().st_mtime_ns
    again = notebook.run(tiny(method="margin", seed=2), outputs_dir=tmp_path)
    assert record.stat().st_mtime_ns == stamp
    assert again.records == json.loads(record.read_text())["cycles"] == first.records
    assert again.last_query.tolist() == first.last_query.tolist()


def test_the_quickstart_runs_from_a_fresh_kernel_in_any_folder_of_the_repository(tmp_path: Path) -> None:
    """One seed and few epochs: what differs from the real one is put in by papermill and an environment of defaults."""
    executed = tmp_path / "quickstart.ipynb"
    subprocess.run(
        [sys.executable, "-m", "papermill", str(QUICKSTART), str(executed), "-k", "python3", "--log-level", "ERROR",
         "-y", "{seeds: [0]}", "-p", "outputs_dir", str(tmp_path / "kept")],
        check=True, cwd=ROOT / "workflow", capture_output=True,
        env=os.environ | {"PYTHONPATH": short.keep(tmp_path), "OMP_NUM_THREADS": "1"},
    )  # fmt: skip
    cells = [cell for cell in nbformat.read(executed, as_version=4).cells if cell.cell_type == "code"]
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [o for o in outputs if o.output_type == "error" or o.get("name") == "stderr"]
    pictures = [cell.id for cell in cells if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert pictures == ["data", "random-curve", "reliability", "oo4al-query", "compare", "own-compare"]
    kept = sorted(str(p.parent.relative_to(tmp_path / "kept")) for p in (tmp_path / "kept").rglob("result.json"))
    assert kept == ["digits/oo4al/seed-0", "digits/random/seed-0"], "a strategy that may change leaves no record"


def test_the_quickstart_is_short_and_its_strategy_a_dozen_lines() -> None:
    cells = [c for c in nbformat.read(QUICKSTART, as_version=4).cells if c.cell_type == "code"]
    own = [c for c in cells if not c.id.startswith("kit-")]
    assert len(own) <= 12
    strategy = next(c for c in own if c.id == "own")
    definition = strategy.source.split("add_method(")[0].split("@register")[1]
    assert len(definition.strip().splitlines()) <= 12
    assert all(not c.outputs and c.execution_count is None for c in cells)
    assert Experiment(method="random") == Experiment()
