"""The measuring itself: what is compared runs in turn, targets are judged by the median, parts resume."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks import __main__ as command
from benchmarks import growth, timing


def test_the_compared_run_in_turn_after_a_call_that_does_not_count() -> None:
    calls: list[str] = []
    result = timing.compare("a", lambda: calls.append("o"), "b", lambda: calls.append("r"), repetitions=3)
    assert "".join(calls) == "or" + "or" + "ro" + "or"
    assert len(result.ours) == len(result.reference) == 3


def test_the_ratio_is_the_median_of_the_repetitions_own() -> None:
    row = timing.Comparison("a", "b", [1.0, 2.0, 1.0], [4.0, 2.0, 3.0], "at least 3").row()
    assert (row["ratio"], row["low"], row["high"]) == (3, 1, 4)
    assert timing.reached(row) is True


@pytest.mark.parametrize(
    ("row", "expected"),
    [
        ({"ratio": 2.9, "target": "at least 3"}, False),
        ({"ratio": 4.9, "target": "at most 5 s"}, True),
        ({"ratio": 9.0, "target": "at least 3", "same_answer": False}, False),
        ({"ratio": 9.0, "target": ""}, None),
    ],
)
def test_a_target_is_reached_by_the_median_and_only_with_the_same_answer(
    row: dict[str, object], expected: bool | None
) -> None:
    assert timing.reached(row) is expected


def test_the_slope_of_what_grows_in_proportion_is_one() -> None:
    rows = [{"strategy": "a", "n": n, "cpu_seconds": 3e-6 * n} for n in growth.SIZES]
    rows += [{"strategy": "b", "n": n, "cpu_seconds": 1e-9 * n**2} for n in growth.SIZES]
    assert growth.slopes(rows) == pytest.approx({"a": 1.0, "b": 2.0})


def test_the_growth_picture_has_one_legend_and_no_look_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [{"strategy": f"s{k}", "n": n, "cpu_seconds": 1e-6 * n * (k + 1), "peak_bytes": n, "features_bytes": n}
            for k in range(20) for n in growth.SIZES]  # fmt: skip
    drawn = []
    monkeypatch.setattr("matplotlib.pyplot.close", drawn.append)
    growth.plot(rows, tmp_path / "growth.png")
    (fig,) = drawn
    assert len(fig.legends) + sum(axis.get_legend() is not None for axis in fig.axes) == 1
    looks = {(line.get_color(), line.get_marker(), line.get_linestyle()) for line in fig.axes[0].get_lines()}
    assert len(looks) == 20


def test_growth_measures_what_is_not_known_yet_and_keeps_a_refusal() -> None:
    kept: list[int] = []
    known = [{"strategy": "margin", "n": 2_000, "seconds": 1.0, "peak_bytes": 1}]
    rows = growth.measure((2_000, 5_000), ("margin",), known, lambda rows: kept.append(len(rows)))
    assert [row["n"] for row in rows] == [2_000, 5_000]
    assert kept == [2]
    assert rows[1]["cpu_seconds"] > 0


def test_hierarchical_refuses_what_its_tree_cannot_hold_and_says_what_to_set() -> None:
    row = growth.measure_one("hierarchical", 50_000)
    assert row["seconds"] is None
    assert row["refused"] == (
        "hierarchical: a Ward tree over 51000 images needs 21 GB; "
        "expected at most 40000 candidates and labelled images together: set subset"
    )


def test_a_part_is_read_back_only_on_the_machine_that_measured_it(tmp_path: Path) -> None:
    path = tmp_path / "training.json"
    path.write_text(json.dumps({"machine": command.machine(), "rows": []}))
    assert command._read(path) is not None
    here = command.machine()
    for other, read in (({"cores": 999}, False), ({"memory_gib": here["memory_gib"] + 0.1}, True),
                        ({"memory_gib": 2 * here["memory_gib"]}, False)):  # fmt: skip
        path.write_text(json.dumps({"machine": here | other, "rows": []}))
        assert (command._read(path) is not None) == read


def test_an_unknown_part_is_refused_by_name() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks", "trainig"], cwd=Path(__file__).parents[1], capture_output=True, text=True,
        check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "no part 'trainig': expected some of training" in done.stderr
