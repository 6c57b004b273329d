"""Bad parameters are refused before anything starts, in one line that names the key and what was expected."""

from pathlib import Path
from typing import Any

import pytest

from alkit import Experiment, Study
from alkit.errors import ConfigError


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        ({"budgett": 3}, "budgett: unknown parameter; did you mean 'budget'?"),
        ({"budget": "ten"}, "budget: expected a valid integer, not 'ten'"),
        ({"budget": -1}, "budget: expected greater than or equal to 1, not -1"),
        ({"epochs": True}, "epochs: expected a valid integer, not True"),
        ({"epochs": 2.5}, "epochs: expected a valid integer, not 2.5"),
        ({"lr": float("nan")}, "lr: expected a finite number, not nan"),
        ({"device": "mps"}, "device: expected auto, cpu, cuda or cuda:NUMBER, not 'mps'"),
        ({"herding_delta": 1e-20}, "herding_delta: expected greater than or equal to 0.000001, not 1e-20"),
        ({"bait_ridge": 1e-300}, "bait_ridge: expected greater than or equal to 0.000001, not 1e-300"),
        ({"method": "oo4all"}, "method: no method 'oo4all'; did you mean 'oo4al'? (`alkit methods` lists them)"),
        ({"milestones": [3, 2]}, "milestones: expected epochs in ascending order, each once"),
        ({"subset": 3, "budget": 5}, "subset: 3 candidates cannot give a budget of 5"),
        ({"quirks": {"warmstart": True}}, "quirks: no quirk 'warmstart'; did you mean 'warm_start'?"),
        ({"quirks": {"detach_late": True}}, "quirks: 'detach_late' does not apply to method 'random'"),
        ({"early_stopping": 3}, "early_stopping: needs validation_size"),
    ],
)
def test_a_mistake_is_one_line_that_names_the_key(parameters: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError) as caught:
        Experiment(**parameters)
    assert str(caught.value).startswith(line)
    assert "\n" not in str(caught.value)


def test_a_config_error_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="epochs"):
        Experiment(epochs=0)


@pytest.mark.parametrize("text", ["1e-4", "0.0001", "1.0e-4", ".0001"])
def test_numbers_may_be_written_as_yaml_writes_them(text: str, tmp_path: Path) -> None:
    study = tmp_path / "study.yaml"
    study.write_text(f"lr: {text}\n")
    assert Experiment.from_yaml(study).lr == 1e-4
    assert Experiment(lr=text).lr == 1e-4


@pytest.mark.parametrize(
    ("content", "line"),
    [
        ("budget: [1\n", "does not parse at line"),
        ("- 1\n", "expected parameters as 'key: value' lines"),
        ("budget: 3\nbudget: 4\n", "the key 'budget' is given twice"),
        ("methods: [random, rando]\n", "method: no method 'rando'; did you mean 'random'?"),
        ("methods: random\n", "methods: expected a list, such as [random, oo4al], not 'random'"),
        ("seeds: 0-9\n", "seeds: expected a list, such as [0, 1, 2], not '0-9'"),
        ("milestones: 48\n", "milestones: expected a list, such as [48], not 48"),
        ("class_balance: 0.5\n", "class_balance: expected a list, such as [1.0, 0.5, 0.1], not 0.5"),
        ("quirks: [warm_start]\n", "quirks: expected a mapping, such as {warm_start: true}, not ['warm_start']"),
        ("variants: [a]\n", "variants: expected a mapping, such as {pt4al_text: {method: pt4al, pt4al_order: text}},"),
        ("variants: {a: }\n", "variants.a: expected a mapping, not None"),
        ("seeds: [0, 0]\n", "seeds: each seed once"),
        ("seeds: [0, -1]\n", "seeds.1: expected greater than or equal to 0"),
        ("study: ../elsewhere\n", "study: "),
        ("variants: {a/b: {method: random}}\n", "variants.a/b"),
        ("x: !!python/object/apply:os.system [ls]\n", "does not parse"),
        ("budgett: 3\n", "budgett: unknown parameter"),
    ],
)
def test_a_bad_study_file_is_one_line_that_names_the_file(content: str, line: str, tmp_path: Path) -> None:
    path = tmp_path / "study.yaml"
    path.write_text(content)
    with pytest.raises(ConfigError) as caught:
        Study.from_yaml(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert line in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_study_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"none\.yaml: no such file"):
        Experiment.from_yaml(tmp_path / "none.yaml")


def test_a_study_may_switch_a_quirk_that_all_its_methods_have_and_random_has_not(tmp_path: Path) -> None:
    file = tmp_path / "s.yaml"
    file.write_text("methods: [hierarchical]\nquirks: {hsamp_fixed_quota: true}\n")
    assert Study.from_yaml(file).experiment().quirk("hsamp_fixed_quota")
    file.write_text("methods: [hierarchical, random]\nquirks: {hsamp_fixed_quota: true}\n")
    with pytest.raises(ConfigError, match="'hsamp_fixed_quota' does not apply to method 'random'"):
        Study.from_yaml(file)


def test_a_study_gives_each_of_its_runs(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text(
        "methods: [random, oo4al]\nseeds: [3, 4]\nbudget: 7\n"
        "variants: {warm: {method: oo4al, quirks: {warm_start: true}, budget: 8}}\n"
    )
    study = Study.from_yaml(path)
    assert study.study == "mine"
    assert study.labels == ["random", "oo4al", "warm"]
    assert study.experiment("oo4al", seed=4).budget == 7
    warm = study.experiment("warm")
    assert (warm.name, warm.method, warm.budget, warm.seed) == ("warm", "oo4al", 8, 3)
    assert warm.quirk("warm_start")
    assert Experiment.from_yaml(path).method == "random"
    assert Experiment.from_yaml(path, method="oo4al", seed=9).seed == 9


@pytest.mark.parametrize(
    ("parameters", "pool", "line"),
    [
        ({"initial": 101}, 100, "initial: 101 is larger than the pool of 100 images"),
        ({"budget": 101}, 100, "budget: 101 is larger than the pool of 100 images"),
        ({"initial": 60, "budget": 21, "cycles": 3}, 100, "cycles: 3 cycles need 102 labels"),
        ({"initial": 9, "initial_balanced": True}, 100, "initial: 9 images leave a class missing"),
        ({"validation_size": 100}, 100, "validation_size: 100 is not smaller than the 100 images"),
    ],
)
def test_what_the_pool_cannot_give_is_refused(parameters: dict[str, Any], pool: int, line: str) -> None:
    experiment = Experiment(**parameters)
    with pytest.raises(ConfigError, match=r"^" + line):
        experiment.check_pool(pool, num_classes=10)


def test_a_protocol_sets_every_quirk_that_applies_and_one_can_be_set_by_itself() -> None:
    released = Experiment(method="oo4al", protocol="released", quirks={"warm_start": False})
    assert released.quirk_states == {
        "warm_start": False,
        "lr_step_first": True,
        "ece_drops_full_confidence": True,
        "first_cycle_drop_last": True,
        "best_test_checkpoint": True,
        "bgr_images": True,
    }
    assert not any(Experiment(method="oo4al").quirk_states.values())


def test_one_programs_quirks_are_those_seen_in_it() -> None:
    any_program = Experiment(protocol="released")
    oo4al = Experiment(protocol="released", program="OO4AL")
    assert oo4al.quirk("warm_start")
    assert any_program.quirk("ranking_loss_for_all")
    assert not oo4al.quirk("ranking_loss_for_all"), "TA-VAAL's accident, not OO4AL's"
    assert not any(Experiment(program="OO4AL").quirk_states.values()), "corrected has none, whatever the program"
    with pytest.raises(ConfigError, match=r"program: no program 'OO4LA'; did you mean 'OO4AL'"):
        Experiment(protocol="released", program="OO4LA")


def test_bins_are_fifteen_and_the_papers_hundred_under_its_protocol() -> None:
    assert Experiment().ece_bins == 15
    assert Experiment(protocol="released").ece_bins == 100
    assert Experiment(protocol="released", calibration_bins=20).ece_bins == 20
