"""What is published of a study can be checked again, and is small."""

from __future__ import annotations

import hashlib
import json
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic_study import write_study

from alkit import ActiveLearner, calibration, records


@pytest.fixture
def publishing(monkeypatch: pytest.MonkeyPatch) -> Any:
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "scripts"))
    import publish

    return publish


@pytest.fixture
def study(tmp_path: Path, tiny: Any) -> Path:
    for seed in range(2):
        for method in ("random", "margin"):
            list(ActiveLearner(tiny(method=method, seed=seed, cycles=3), tmp_path / "s" / method / f"seed-{seed}"))
    (tmp_path / "s" / "summary.html").write_text(f"<p>{tmp_path}/s/random</p><td>/elsewhere/s/pretext/x.npz</td>")
    return tmp_path / "s"


def test_a_published_study_has_its_records_queries_and_predictions(
    publishing: Any, study: Path, tmp_path: Path
) -> None:
    target = tmp_path / "published" / "s"
    size = publishing.publish(study, target)
    assert size == sum(file.stat().st_size for file in target.rglob("*") if file.is_file())
    assert (target / "summary.html").read_text() == "<p>random</p><td>pretext/x.npz</td>", "its paths, and where it ran"
    assert publishing.check(target) == (4, [])
    assert (records.load_runs(target).accuracy == records.load_runs(study).accuracy).all()
    for run in ("random/seed-0", "margin/seed-1"):
        before, after = (records.read_queries(folder / run) for folder in (study, target))
        assert all((before[cycle] == after[cycle]).all() for cycle in before)
        assert (study / run / "queries.npz").stat().st_size > 3 * (target / run / "queries.npz").stat().st_size
        assert set(np.load(target / run / "queries.npz")) == {"query_1", "query_2", "query_3"}
        before, after = (records.read_predictions(folder / run) for folder in (study, target))
        assert all((before[name] == after[name]).all() for name in before), "as long as they are small, they are exact"


def test_a_larger_study_is_stored_in_steps_and_still_checks(
    publishing: Any, study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    size = publishing.publish(study, tmp_path / "published" / "s")
    monkeypatch.setattr(publishing, "LARGEST", size - 1)
    target = tmp_path / "published" / "s"
    assert publishing.publish(study, target) < size
    assert publishing.check(target) == (4, [])
    arrays, exact = (records.read_predictions(folder / "margin" / "seed-0") for folder in (target, study))
    assert "logits_last" not in arrays
    assert arrays["confidence"].dtype == np.float32
    assert np.abs(arrays["confidence"] - exact["confidence"]).max() < 1e-5
    assert arrays["log_prob_true"] == pytest.approx(exact["log_prob_true"], rel=1e-3, abs=1e-4)
    errors = [calibration.calibration_errors(a["confidence"][2], a["correct"][2], 15).gap for a in (arrays, exact)]
    assert errors[0] == pytest.approx(errors[1], abs=1e-5)


def test_in_steps_what_is_below_1_stays_below_it_for_a_quirk_leaves_out_what_is_1() -> None:
    confidence = np.array([1, np.nextafter(np.float32(1), np.float32(0)), 0.999995, 0.9999, 0.5], dtype=np.float32)
    correct = np.array([True, True, False, False, True])
    arrays = {"confidence": confidence, "correct": correct, "log_prob_true": np.log(confidence)}
    stored = records.in_steps(arrays)
    assert records.in_steps(stored) is stored, "seeds of a study that was published before"
    kept = stored["confidence"] / 65535
    assert (kept == 1).tolist() == [True, False, False, False, False]
    assert kept == pytest.approx(confidence, abs=2 / 65535)
    exact, coarse = (calibration.calibration_errors(part, correct, 15, True).ece for part in (confidence, kept))
    assert coarse == pytest.approx(exact, abs=1e-4)


def test_one_that_is_too_large_is_an_archive_with_its_checksum(
    publishing: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = write_study(tmp_path / "s", {"random": 0.0}, seeds=1, cycles=3)
    texts = sum(file.stat().st_size for file in [study / "study.yaml", *study.glob("*/*/result.json")])
    monkeypatch.setattr(publishing, "LARGEST", texts + 200)
    publishing.publish(study, tmp_path / "published" / "s")
    assert not list((tmp_path / "published").rglob("*.npz"))
    digest, name = (tmp_path / "published" / "s" / "ARCHIVE.sha256").read_text().split()
    assert hashlib.sha256((tmp_path / name).read_bytes()).hexdigest() == digest
    with tarfile.open(tmp_path / name) as archive:
        assert archive.getnames() == ["s/random/seed-0/queries.npz", "s/random/seed-0/predictions.npz"]
    publishing.publish(study, tmp_path / "published" / "s")
    assert (tmp_path / "published" / "s" / "ARCHIVE.sha256").read_text().split()[0] == digest, "bytes of arrays alone"


def test_a_number_that_does_not_follow_from_the_arrays_is_named(publishing: Any, study: Path) -> None:
    file = study / "margin" / "seed-1" / "result.json"
    record = json.loads(file.read_text())
    record["cycles"][1]["accuracy"] += 0.01
    record["cycles"][2]["query_sha256"] = "0" * 64
    file.write_text(json.dumps(record))
    count, wrong = publishing.check(study)
    assert count == 4
    assert len(wrong) == 2
    assert "cycle 2: accuracy of the predictions is" in wrong[0]
    assert "cycle 3: query_3 is not what" in wrong[1]


def test_a_study_that_could_not_be_checked_again_is_refused(publishing: Any, study: Path, tmp_path: Path) -> None:
    publishing.publish(study, tmp_path / "published" / "s")
    (study / "random" / "seed-1" / "predictions.npz").unlink()
    with pytest.raises(ValueError, match=r"predictions\.npz: not there"):
        publishing.publish(study, tmp_path / "published" / "s")
    assert publishing.check(tmp_path / "published" / "s") == (4, []), "what was published before is still there"
    with pytest.raises(ValueError, match="no record"):
        publishing.publish(tmp_path / "published", tmp_path / "published" / "x")


@pytest.mark.parametrize(
    ("values", "dtype"),
    [([0, 255], np.uint8), ([0, 256], np.uint16), ([-1, 127], np.int8), ([-1, 128], np.int16), ([0, 70000], np.uint32)],
)
def test_whole_numbers_are_kept_in_the_smallest_type(publishing: Any, values: list[int], dtype: type) -> None:
    kept = publishing.small(np.array(values, dtype=np.int64))
    assert kept.dtype == dtype
    assert kept.tolist() == values


def test_what_is_published_in_this_project_checks(publishing: Any) -> None:
    """Every record follows from the arrays beside it; where they are in an archive, its checksum is there."""
    studies = [folder for folder in publishing.PUBLISHED.iterdir() if list(folder.glob(publishing.RECORDS))]
    archived = [study for study in studies if (study / publishing.ARCHIVE).is_file()]
    assert [line for study in studies if study not in archived for line in publishing.check(study)[1]] == []
    assert all(len((study / publishing.ARCHIVE).read_text().split()[0]) == 64 for study in archived)
