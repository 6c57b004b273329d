"""Reading records: all that are whole, none that are not, and what is missing."""

from __future__ import annotations

import json
import os
import platform
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_study import write_run, write_study

from alkit import Experiment, records
from alkit.errors import CheckpointError


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "plain", {"random": 0.0, "oo4al": 0.02}, seeds=2, cycles=3)


def quietly(folder: Path) -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", records.RecordWarning)
        return records.load_runs(folder)


def test_one_row_a_run_and_cycle_with_the_numbers_of_the_files(study: Path) -> None:
    frame = records.load_runs(study)
    assert tuple(frame.columns) == records.COLUMNS
    assert len(frame) == 2 * 2 * 3
    for row in frame.itertuples():
        cycle = json.loads(Path(row.path, "result.json").read_text())["cycles"][row.cycle - 1]
        assert row.accuracy == cycle["accuracy"]
        assert row.train_seconds == cycle["seconds"]["train"]
        assert (row.label, f"seed-{row.seed}") == Path(row.path).parts[-2:]
    assert set(frame["study"]) == {"plain"}
    assert frame.attrs["problems"] == ()


def test_outputs_a_study_and_one_run_can_be_read(study: Path) -> None:
    write_study(study.parent / "other", {"random": 0.0}, seeds=1, cycles=3)
    assert set(records.load_runs(study.parent)["study"]) == {"plain", "other"}
    assert len(records.load_runs(study / "oo4al" / "seed-1")) == 3


def test_an_empty_study_is_an_empty_frame_and_a_missing_one_an_error(tmp_path: Path) -> None:
    assert len(records.load_runs(tmp_path)) == 0
    with pytest.raises(CheckpointError, match="no such folder"):
        records.load_runs(tmp_path / "nowhere")


BROKEN = {
    "half": b'{"schema": 1, "dataset": "dig',
    "empty": b"",
    "binary": b"\xff\xfe\x00",
    "foreign": b'{"accuracy": 0.5}',
    "a list": b"[1, 2]",
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_is_named_and_the_others_are_read(study: Path, name: str) -> None:
    (study / "random" / "seed-0" / "result.json").write_bytes(BROKEN[name])
    with pytest.warns(records.RecordWarning, match="1 record"):
        frame = records.load_runs(study)
    assert len(frame) == 3 * 3
    ((path, reason),) = frame.attrs["problems"]
    assert path == str(study / "random" / "seed-0")
    assert "\n" not in reason


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"schema": 2}, "schema 2"),
        ({"seed": "0"}, "seed"),
        ({"label": None}, "label"),
        ({"cycles": []}, "no cycles"),
        ({"quirks": ["warm_start"]}, "'quirks' is not a mapping"),
        ({"seed": 7}, "seed 7"),
        ({"label": "oo4al"}, "label oo4al"),
    ],
)
def test_a_record_that_is_not_what_it_should_be_is_left_out(study: Path, change: dict[str, Any], reason: str) -> None:
    file = study / "random" / "seed-0" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    frame = quietly(study)
    assert len(frame) == 3 * 3
    assert reason in frame.attrs["problems"][0][1]


def test_a_record_whose_last_cycle_is_missing_is_left_out(study: Path) -> None:
    file = study / "random" / "seed-0" / "result.json"
    record = json.loads(file.read_text())
    del record["cycles"][-1]
    file.write_text(json.dumps(record))
    assert "2 cycles, not 3" in quietly(study).attrs["problems"][0][1]


@pytest.mark.parametrize("value", [float("nan"), 1.5, -0.1, "0.9", None, True])
def test_an_accuracy_that_is_no_fraction_is_refused(study: Path, value: object) -> None:
    file = study / "random" / "seed-0" / "result.json"
    record = json.loads(file.read_text())
    record["cycles"][1]["accuracy"] = value
    file.write_text(json.dumps(record))
    with pytest.raises(CheckpointError, match="accuracy of cycle 2"):
        records.read_run(file)


def test_a_record_without_optional_measures_reads_as_not_a_number(study: Path) -> None:
    file = study / "random" / "seed-0" / "result.json"
    record = json.loads(file.read_text())
    for cycle in record["cycles"]:
        del cycle["ace"], cycle["seconds"]
    file.write_text(json.dumps(record))
    frame = records.load_runs(study)
    mine = frame[(frame.label == "random") & (frame.seed == 0)]
    assert mine[["ace", "train_seconds"]].isna().all().all()
    assert mine["nll"].notna().all()


def test_a_copied_run_does_not_count_twice(study: Path) -> None:
    shutil.copytree(study / "random" / "seed-0", study / "random" / "seed-5")
    frame = quietly(study)
    assert len(frame) == 4 * 3
    assert "seed 0" in frame.attrs["problems"][0][1]


def test_npz_files_are_read_without_pickle(study: Path) -> None:
    run = study / "random" / "seed-0"
    assert list(records.read_queries(run)) == [1, 2, 3]
    assert records.read_predictions(run)["confidence"].shape == (3, 360)
    np.savez(run / "queries.npz", query_1=np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(CheckpointError, match="plain arrays"):
        records.read_queries(run)
    (run / "predictions.npz").write_bytes((run / "predictions.npz").read_bytes()[:500])
    with pytest.raises(CheckpointError, match=r"predictions\.npz"):
        records.read_predictions(run)


def test_runs_are_alike_but_for_what_differs_by_construction(study: Path) -> None:
    params = records.read_run(study / "random" / "seed-0")["params"]
    same = records.compared_params(params)
    assert "method" not in same, "a parameter at its default is as one that an older record does not have"
    assert records.compared_params({k: v for k, v in params.items() if k != "gcn_hidden"}) == same
    assert records.compared_params(params | {"seed": 7, "device": "cuda"}) == same
    assert records.compared_params(params | {"epochs": 7}) == same | {"epochs": 7}
    seeds = [params | {"seed": s, "pretext_losses": f"pretext/rotation-seed-{s}-0123456{s}.npz"} for s in range(2)]
    assert records.compared_params(seeds[0]) == records.compared_params(seeds[1]), "losses of a study: a file a seed"
    elsewhere = [records.compared_params(params | {"pretext_losses": name}) for name in ("mine.npz", "theirs.npz")]
    assert elsewhere[0] != elsewhere[1]


def test_a_parameter_that_is_no_more_is_left_out_of_older_records(study: Path) -> None:
    file = study / "random" / "seed-0" / "result.json"
    record = json.loads(file.read_text())
    file.write_text(json.dumps(record | {"params": record["params"] | {"compile": True}}))
    assert records.read_run(file)["params"] == record["params"]
    Experiment(**records.read_run(file)["params"])


# --- completeness ---


def states(study: Path) -> dict[tuple[str, int], str]:
    table = records.completeness(study)
    return {(row.label, row.seed): row.state for row in table.itertuples()}


def test_every_run_of_the_study_file_is_accounted_for(study: Path) -> None:
    assert set(states(study).values()) == {"finished"}
    shutil.rmtree(study / "oo4al" / "seed-1")
    assert states(study)["oo4al", 1] == "missing"
    assert len(states(study)) == 4


def test_a_failed_run_says_why(study: Path) -> None:
    run = study / "oo4al" / "seed-1"
    (run / "result.json").unlink()
    (run / "failure.json").write_text(
        json.dumps({"cell": 5, "error": "TrainingError: loss is nan", "time": time.time()})
    )
    row = records.completeness(study).query("label == 'oo4al' and seed == 1").iloc[0]
    assert (row.state, row.reason) == ("failed", "TrainingError: loss is nan (cell 5)")


def progress(run: Path, **values: Any) -> None:
    (run / "result.json").unlink(missing_ok=True)
    content = {"state": "training", "cycle": 2, "cycles": 3, "pid": os.getpid(), "updated": time.time()}
    (run / "progress.json").write_text(json.dumps(content | values))


def test_a_run_under_way_is_running_and_a_silent_one_has_stopped(study: Path) -> None:
    progress(study / "oo4al" / "seed-0")
    progress(study / "oo4al" / "seed-1", pid=2**22 + 1, host="elsewhere", updated=time.time() - 7200)
    table = records.completeness(study).set_index(["label", "seed"])
    assert table.loc[("oo4al", 0), "state"] == "running"
    assert table.loc[("oo4al", 0), "cycle"] == 2
    assert table.loc[("oo4al", 1), "state"] == "failed"
    assert "no sign of life" in table.loc[("oo4al", 1), "reason"]


def test_a_run_whose_process_is_gone_from_this_machine_has_stopped(study: Path) -> None:
    progress(study / "oo4al" / "seed-0", pid=2**22 + 1, host=platform.node())
    assert states(study)["oo4al", 0] == "failed"


def test_a_run_started_again_after_a_failure_is_running(study: Path) -> None:
    run = study / "oo4al" / "seed-0"
    progress(run)
    (run / "failure.json").write_text(json.dumps({"error": "old", "time": time.time() - 600}))
    assert states(study)["oo4al", 0] == "running"


def test_a_broken_record_is_no_finished_run(study: Path) -> None:
    (study / "oo4al" / "seed-0" / "result.json").write_text("{")
    table = records.completeness(study).set_index(["label", "seed"])
    assert table.loc[("oo4al", 0), "state"] == "failed"
    assert "JSON" in table.loc[("oo4al", 0), "reason"]


def test_runs_that_the_study_file_does_not_name_are_listed_too(study: Path, tiny: Any) -> None:
    write_run(study / "margin" / "seed-4", tiny(method="margin", seed=4))
    assert states(study)["margin", 4] == "finished"


def test_a_thousand_records_load_in_three_seconds(tmp_path: Path) -> None:
    source = write_study(tmp_path / "many", {"random": 0.0}, seeds=1, cycles=10, arrays=False)
    record = json.loads((source / "random" / "seed-0" / "result.json").read_text())
    for seed in range(1, 1000):
        folder = source / "random" / f"seed-{seed}"
        folder.mkdir()
        (folder / "result.json").write_text(json.dumps(record | {"seed": seed}, indent=1))
    began = time.process_time()  # a busy machine must not matter
    assert len(records.load_runs(source)) == 10_000
    assert time.process_time() - began < 3
