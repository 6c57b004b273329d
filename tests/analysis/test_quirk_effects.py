"""What each quirk changes, measured: runs that differ in one switch alone, compared seed by seed."""

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic_study import write_study
from test_quirks import IDS

from alkit import Experiment, Study
from alkit.analysis import quirk_effects
from alkit.analysis.summary import open_study, tables
from alkit.config.pretext import pretext_key
from alkit.quirks import measured_effects
from alkit.records import load_runs


def test_effects_compare_runs_that_differ_in_one_switch_alone(tmp_path: Path) -> None:
    variants = {
        "warm": {"method": "random", "quirks": {"warm_start": True}},
        "both": {"method": "random", "quirks": {"warm_start": True, "lr_step_first": True}},
        "longer": {"method": "random", "quirks": {"lr_step_first": True}, "epochs": 61},  # no partner
    }
    planted = {"random": 0.0, "warm": 0.03, "both": 0.05, "longer": 0.5, "oo4al": 0.2}
    study = write_study(tmp_path / "planted", planted, variants=variants, noise=1e-4, arrays=False)
    table = quirk_effects.effects(study)
    assert list(zip(table["quirk"], table["measure"], strict=True)) == [
        (quirk, measure) for quirk in ("warm_start", "lr_step_first") for measure in ("accuracy", "area", "ece")
    ]
    found = table[table["measure"] == "accuracy"].set_index("quirk")
    assert found.loc["warm_start", "difference"] == pytest.approx(0.03, abs=1e-3)
    assert found.loc["lr_step_first", "difference"] == pytest.approx(0.02, abs=1e-3)
    runs = load_runs(study)
    last = runs[runs["cycle"] == 5].pivot(index="seed", columns="label", values="accuracy")
    assert found.loc["warm_start", "differences"] == pytest.approx((last["warm"] - last["random"]).tolist())
    assert (found["seeds"] == 5).all()
    assert len(quirk_effects.forest(table).axes) == 3


def test_measured_effects_are_kept_in_the_register_s_file(tmp_path: Path) -> None:
    variants = {"warm": {"method": "random", "quirks": {"warm_start": True}}}
    study = write_study(tmp_path / "planted", {"random": 0.0, "warm": 0.03}, variants=variants, arrays=False)
    file = tmp_path / "effects.csv"
    kept = quirk_effects.keep(quirk_effects.effects(study), file)
    assert quirk_effects.keep(quirk_effects.effects(study), file) == kept  # measured again, not measured twice
    assert [(e.quirk, e.measure) for e in measured_effects(file)] == [
        ("warm_start", measure) for measure in ("accuracy", "area", "ece")
    ]
    assert measured_effects(file)[0].difference == pytest.approx(kept[0].difference, rel=1e-4)
    assert measured_effects(tmp_path / "none.csv") == []
    assert quirk_effects.in_words(measured_effects(file)[0]).endswith("random on digits, 5 seeds")
    more = replace(kept[0], labels="80 / 600")
    assert quirk_effects.in_words(more).endswith("random on digits, 5 seeds, 600 labels against 80")


def test_effects_compare_runs_whose_pretext_losses_the_study_computed_seed_by_seed(tmp_path: Path) -> None:
    quirks = {"normalised_logit_confidence": True}
    variants = {"released": {"method": "pt4al", "quirks": quirks}}
    study = write_study(tmp_path / "planted", {"pt4al": 0.0, "released": 0.03}, variants=variants, arrays=False)
    for file in study.rglob("result.json"):
        record = json.loads(file.read_text())
        given = Experiment(**record["params"])
        record["params"]["pretext_losses"] = f"/somewhere/pretext/{pretext_key(given)}.npz"
        file.write_text(json.dumps(record))
    assert quirk_effects.effects(study)["seeds"].tolist() == [5, 5, 5]
    other = next(study.glob("released/seed-0/result.json"))
    other.write_text(other.read_text().replace("/somewhere/pretext/", "/elsewhere/other-"))
    assert quirk_effects.effects(study)["seeds"].tolist() == [4, 4, 4], "losses from elsewhere do not compare"


def test_a_folder_without_anything_to_compare_says_why(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert not len(quirk_effects.effects(tmp_path / "empty"))
    assert quirk_effects.why_nothing(tmp_path / "empty").startswith("no finished run is there")
    one = write_study(tmp_path / "one", {"random": 0.0}, seeds=1, arrays=False)
    assert quirk_effects.why_nothing(one).startswith("of 1 finished run no two")


def test_a_run_that_emptied_the_pool_has_its_area_and_its_effect(tmp_path: Path) -> None:
    variants = {"warm": {"method": "random", "quirks": {"warm_start": True}}}
    study = write_study(tmp_path / "planted", {"random": 0.0, "warm": 0.03}, variants=variants, arrays=False)
    for file in study.glob("warm/*/result.json"):
        record = json.loads(file.read_text())
        for cycle in record["cycles"][2:]:
            cycle["labelled"] = 600
        file.write_text(json.dumps(record))
    table = quirk_effects.effects(study)
    assert set(table["labels"]) == {"100 / 600"}
    assert np.isfinite(table["difference"]).all()
    assert np.isfinite(tables.per_run(open_study(study))["area"]).all()


def test_runs_of_one_cycle_have_no_area_to_compare(tmp_path: Path) -> None:
    variants = {"warm": {"method": "random", "quirks": {"warm_start": True}}}
    study = write_study(tmp_path / "planted", {"random": 0.0, "warm": 0.03}, variants=variants, arrays=False, cycles=1)
    assert quirk_effects.effects(study)["measure"].tolist() == ["accuracy", "ece"]


def test_the_register_s_table_has_a_row_a_quirk() -> None:
    table = quirk_effects.register_table()
    assert sorted(table.index) == sorted(IDS)
    assert not table.isna().any().any()
    assert table.loc["cold_start_batch_5", "applies to"] == "pt4al_cold_start"
    assert table.loc["imbalance_step", "applies to"] == "every method on cifar10_lt"


def test_the_quirk_study_measures_every_quirk_that_digits_can_show() -> None:
    study = Study.from_yaml(Path(__file__).parents[2] / "params" / "quirks.yaml")
    baselines = [study.experiment(label) for label in study.labels]
    switched = set()
    for label in study.labels:
        experiment = study.experiment(label)
        on = {name for name, state in experiment.quirk_states.items() if state}
        assert len(on) <= 1
        without = experiment.model_copy(update={"quirks": {}, "label": None})
        assert any(other.model_copy(update={"label": None}) == without for other in baselines), f"{label}: no partner"
        switched |= on
    assert set(IDS) - switched == {"bgr_images", "imagenet_corner_pool", "imbalance_step"}
