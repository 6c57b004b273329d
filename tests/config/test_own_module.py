"""A strategy of one's own, in a module that a study names: in a run, in a grid, and what is said where it is wrong."""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import own_strategy
import pytest
import torch
import yaml
from conftest import TINY
from made_up import made_pool
from torch import Tensor

from alkit import ActiveLearner, Experiment, methods
from alkit.cli import main
from alkit.config.own_module import FOLDERS, import_own, look_in
from alkit.errors import CheckpointError, ConfigError
from alkit.grid import planning
from alkit.methods import METHODS, Method, add_method
from alkit.strategies import Pool, Query, Strategy, base, register, top_query

STUDY = {**TINY, "methods": ["random", "second_guess"], "cycles": 2, "epochs": 1, "strategies": "my_package.my_module"}


@pytest.fixture(autouse=True)
def forgotten(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """What a test adds is gone after it."""
    base.import_all()
    for name in [name for name in sys.modules if name.startswith("my_")]:  # of another file's tests
        del sys.modules[name]
    before = dict(METHODS), dict(base._STRATEGIES), list(methods._ADDED), list(sys.path), set(sys.modules)
    monkeypatch.setenv(FOLDERS, "")
    yield
    for table, old in ((METHODS, before[0]), (base._STRATEGIES, before[1])):
        table.clear()
        table.update(old)  # type: ignore[arg-type]
    methods._ADDED[:], sys.path[:] = before[2], before[3]
    for name in set(sys.modules) - before[4]:
        if name.startswith("my_"):
            del sys.modules[name]


def study_file(folder: Path, **content: Any) -> Path:
    path = folder / "own.yaml"
    path.write_text(yaml.safe_dump({key: value for key, value in (STUDY | content).items() if value is not None}))
    return path


# --- found and run ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("place", ["beside the study", "where the command is given", "PYTHONPATH"])
def test_a_module_is_found_where_its_author_has_it(place: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = {"beside the study": tmp_path / "studies"}.get(place, tmp_path / "code")
    (tmp_path / "studies").mkdir()
    own_strategy.keep(folder)
    if place == "PYTHONPATH":
        monkeypatch.syspath_prepend(str(folder))
    monkeypatch.chdir(folder if place == "where the command is given" else "/")
    plan = planning.make_plan(study_file(tmp_path / "studies"), tmp_path / "out")
    assert [run.experiment.row.title for run in plan.runs] == ["Random", "Second guess"]
    assert planning.notebook_of("second_guess") == planning.NOTEBOOKS / "own_method.ipynb"
    assert planning.run_parameters(plan.runs[1], 1)["strategies"] == "my_package.my_module"


def test_a_file_beside_the_study_never_stands_in_for_a_package(tmp_path: Path) -> None:
    (tmp_path / "yaml.py").write_text("raise SystemExit('the wrong one')")
    own_strategy.keep(tmp_path)
    planning.make_plan(study_file(tmp_path))
    assert sys.path[0] != str(tmp_path)
    assert sys.path[-2:] == [str(tmp_path), os.getcwd()] or str(tmp_path) in sys.path[1:]


def test_an_experiment_of_the_study_file_has_it_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    own_strategy.keep(tmp_path)
    experiment = Experiment.from_yaml(study_file(tmp_path), method="second_guess")
    assert len(list(ActiveLearner(experiment))) == 2
    assert Experiment(**experiment.model_dump()) == experiment


def test_where_a_module_is_may_change_while_its_runs_go_on(tmp_path: Path) -> None:
    own_strategy.keep(tmp_path)
    plan = planning.make_plan(study_file(tmp_path), tmp_path / "out")
    planning.prepare(plan, 1)
    (plan.runs[1].folder / "checkpoint.pt").touch()
    own_strategy.keep(tmp_path, "my_other")
    del base._STRATEGIES["second_guess"]  # as in another process
    planning.prepare(planning.make_plan(study_file(tmp_path, strategies="my_other"), tmp_path / "out"), 1)


def test_a_run_is_not_taken_for_one_of_a_strategy_that_was_changed_since(tmp_path: Path) -> None:
    """As another picture or parameter would be: else a table averages two strategies."""
    file = own_strategy.keep(tmp_path)
    plan = planning.make_plan(study_file(tmp_path), tmp_path / "out")
    planning.prepare(plan, 1)
    for run in plan.runs:
        list(ActiveLearner(run.experiment, run.folder))
    assert list(ActiveLearner(plan.runs[1].experiment, plan.runs[1].folder)), "the same code"
    file.write_text(file.read_text() + "\n# another thought\n")
    del sys.modules["my_package.my_module"], base._STRATEGIES["second_guess"]  # as in another process
    after = planning.make_plan(study_file(tmp_path), tmp_path / "out")
    with pytest.raises(CheckpointError, match=r"other code in my_package\.my_module; begin anew with --rerun second"):
        planning.prepare(after, 1)
    with pytest.raises(CheckpointError, match=r"other code in my_package\.my_module"):
        list(ActiveLearner(after.runs[1].experiment, after.runs[1].folder))
    assert list(ActiveLearner(after.runs[0].experiment, after.runs[0].folder)), "`random` is not of the module"
    planning.prepare(after, 1, ["second_guess"])


# --- refused ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("code", "name", "said"),
    [
        ("", "my_modul", "strategies: no module 'my_modul': not among the installed packages, not on PYTHONPATH, not "),
        ("", "my_mod.py", "strategies: expected the name of a module, such as my_package.my_module, not 'my_mod.py'"),
        ("", "./my_mod", "strategies: expected the name of a module, such as my_package.my_module, not './my_mod'"),
        ("", "", "strategies: expected the name of a module, such as my_package.my_module, not ''"),
        ("import torchvison", "my_mod", "strategies: my_mod: it imports 'torchvison', which is not installed"),
        ("x = 1\ny = 1 / 0", "my_mod", "strategies: my_mod: ZeroDivisionError: division by zero ("),
        ("x = = 1", "my_mod", "strategies: my_mod: SyntaxError: invalid syntax (my_mod.py, line 1)"),
        ("def f(:", "my_mod", "strategies: my_mod: SyntaxError: "),
        ("from alkit.strategies import *\n@register('margin')\nclass A(Strategy): pass", "my_mod",
         "strategies: my_mod: two strategies are called 'margin', in alkit.strategies.uncertainty and my_mod"),
        ("", "my_mod", "method: no method 'second_guess' (`alkit methods` lists them); one of your own needs `strat"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_module_is_said_in_a_line(
    code: str, name: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "my_mod.py").write_text(code + "\n")
    assert main(["run", str(study_file(tmp_path, strategies=name)), "--dry-run", "--out", str(tmp_path / "out")]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"alkit: {tmp_path}/own.yaml: {said}")
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_module_may_be_imported_again_but_not_replace_another(tmp_path: Path) -> None:
    own_strategy.keep(tmp_path, "my_one")
    own_strategy.keep(tmp_path, "my_two")
    look_in(tmp_path)
    import_own("my_one")
    del sys.modules["my_one"]
    import_own("my_one")
    with pytest.raises(
        ConfigError, match="strategies: my_two: two strategies are called 'second_guess', in my_one and"
    ):
        import_own("my_two")


ANSWERS: dict[str, tuple[Any, str]] = {
    "a tensor": (lambda pool: pool.candidates[:10], "query: expected a Query, not a Tensor; `top_query(pool, "),
    "a list": (lambda pool: pool.candidates[:10].tolist(), "query: expected a Query, not a list; `top_query(pool, "),
    "nothing": (lambda pool: None, "query: expected a Query, not a NoneType; "),
    "a pair": (lambda pool: (pool.candidates[:10], pool.logits[:, 0]), "query: expected a Query, not a tuple; "),
    "indices in a list": (lambda pool: Query(pool.candidates[:10].tolist(), pool.logits[:, 0]),
                          "indices: expected a tensor (10,) of whole numbers, not a list"),
    "indices of numpy": (lambda pool: Query(pool.candidates[:10].numpy(), pool.logits[:, 0]),
                         "indices: expected a tensor (10,) of whole numbers, not a ndarray"),
    "indices that are real": (lambda pool: Query(pool.candidates[:10].float(), pool.logits[:, 0]),
                              "indices: expected a tensor (10,) of whole numbers, not of float32"),
    "a mask": (lambda pool: Query(pool.candidates < 50, pool.logits[:, 0]),
               "indices: expected a tensor (10,) of whole numbers, not one of shape (180,)"),
    "too few": (lambda pool: Query(pool.candidates[:3], pool.logits[:, 0]),
                "indices: expected a tensor (10,) of whole numbers, not one of shape (3,)"),
    "utilities of the asked": (lambda pool: Query(pool.candidates[:10], pool.logits[:10, 0]),
                               "utilities: expected a tensor (180,) of numbers, not one of shape (10,)"),
    "utilities of each class": (lambda pool: top_query(pool, pool.logits, 10),
                                "utilities: expected a tensor (180,) of numbers, not one of shape (180, 10)"),
    "utilities in a list": (lambda pool: top_query(pool, pool.logits[:, 0].tolist(), 10),
                            "utilities: expected a tensor (180,) of numbers, not a list"),
    "utilities of numpy": (lambda pool: top_query(pool, np.zeros(180), 10),
                           "utilities: expected a tensor (180,) of numbers, not a ndarray"),
    "positions": (lambda pool: Query(torch.arange(1180, 1190), pool.logits[:, 0]),
                  "indices: 1180 is none of the 180 images to choose from; `pool.candidates[positions]` are images"),
    "an image twice": (lambda pool: Query(pool.candidates[[*range(9), 3]], pool.logits[:, 0]),
                       "indices: image "),
    "masses in a list": (lambda pool: Query(pool.candidates[:10], pool.logits[:, 0], masses=[0.1] * 10),
                         "masses: expected a tensor (10,) of numbers, not a list"),
}  # fmt: skip


def own(tiny: Any, **functions: Any) -> ActiveLearner:
    """A learner whose strategy has these functions."""
    register("my_own")(type("MyOwn", (Strategy,), {"__module__": "my_mod", **functions}))
    add_method(Method("my_own", "My own", "a test", "cross_entropy", "my_own", "a test"))
    return ActiveLearner(tiny(method="my_own", epochs=1))


@pytest.mark.parametrize("answer", list(ANSWERS))
def test_an_answer_of_the_wrong_kind_gets_a_sentence(answer: str, tiny: Any) -> None:
    make, said = ANSWERS[answer]
    with pytest.raises(ConfigError) as refused:
        list(own(tiny, query=lambda self, pool, budget, generator: make(pool)))
    assert str(refused.value).startswith(f"the strategy 'my_own': {said}")


def test_so_do_the_first_labels_and_candidates_of_the_wrong_kind(tiny: Any) -> None:
    with pytest.raises(
        ConfigError, match=r"'my_own': first_query: expected a tensor \(20,\) of whole numbers, not a l"
    ):
        list(own(tiny, first_query=lambda self, unlabelled, count: unlabelled[:count].tolist()))
    with pytest.raises(
        ConfigError, match=r"'my_own': candidates: expected a tensor \(n,\) of whole numbers, not a list"
    ):
        list(own(tiny, candidates=lambda self, unlabelled, cycle, generator: unlabelled.tolist()))
    with pytest.raises(ConfigError, match=r"'my_own': first_query: image 0 is there twice; expected each at most once"):
        list(own(tiny, first_query=lambda self, unlabelled, count: torch.zeros(count, dtype=torch.int64)))
    with pytest.raises(ConfigError, match=r"'my_own': candidates: -1 is none of the 180 images to choose from"):
        list(
            own(
                tiny,
                candidates=lambda self, unlabelled, cycle, generator: unlabelled.clone().index_fill_(
                    0, torch.tensor([0]), -1
                ),
            )
        )


def test_numbers_of_any_real_kind_are_utilities(tiny: Any) -> None:
    def query(self: Strategy, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        kinds: list[Tensor] = [pool.logits[:, 0].double(), pool.logits[:, 0].half(), torch.arange(len(pool.candidates))]
        return [top_query(pool, kind, budget) for kind in kinds][-1]

    assert len(list(own(tiny, query=query))) == 2
    assert top_query(made_pool(), torch.arange(12), 2).indices.tolist() == made_pool().candidates[[11, 10]].tolist()
