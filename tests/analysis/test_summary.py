"""The summary says what the records say: the same numbers everywhere, unfinished studies named as such, no scripts."""

from __future__ import annotations

import csv
import html
import json
import re
import shutil
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")

import nbformat
import numpy as np
import pandas as pd
import pytest
import torch
import yaml
from synthetic_study import PLANTED, TRAINING, write_study

from alkit import Experiment, calibration, plots, records, statistics
from alkit.analysis import published, summary
from alkit.analysis.plots import style
from alkit.analysis.summary import calibrated, cautions, page, paper, queried, report, tables, verdict
from alkit.data import ImageSet, load_for
from alkit.data.identity import images_record
from alkit.errors import CheckpointError, DataError

EVIL = "<script>alert(1)</script>"


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    names = [EVIL, "$x^2$", *map(str, range(2, 10))]
    planted = PLANTED | {"whole_dataset": 0.05, "oo4al_deep": 0.03}
    variants = {"oo4al_deep": {"method": "oo4al", "cmam_layer": 2}}
    return write_study(tmp_path_factory.mktemp("out") / "planted", planted, class_names=names, variants=variants)


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A study of which two runs are not there, and its summary: few seeds and cycles, since pictures take long."""
    names = [EVIL, "$x^2$", *map(str, range(2, 10))]
    folder = tmp_path_factory.mktemp("built") / "planted"
    write_study(folder, PLANTED | {"whole_dataset": 0.05}, seeds=3, cycles=3, class_names=names)
    shutil.rmtree(folder / "cmam" / "seed-2")
    (folder / "random" / "seed-0" / "result.json").write_text("{")
    summary.build(folder)
    return folder


# --- tables ---


def test_first_labelled_sets_of_one_size_are_compared_by_seed(tmp_path: Path) -> None:
    variants = {"random_first": {"method": "random", "cycles": 1}}
    planted = {"pt4al_cold_start": 0.0, "whole_dataset": 0.0, "random_first": 0.0}
    opened = summary.open_study(write_study(tmp_path / "cold", planted, variants=variants, arrays=False))
    final = opened.frame.pivot(index="seed", columns="label", values="accuracy")
    table = tables.pairs(opened, "accuracy")
    assert table[["a", "b", "n"]].to_numpy().tolist() == [["pt4al_cold_start", "random_first", 5]]
    assert table["difference"][0] == pytest.approx((final["pt4al_cold_start"] - final["random_first"]).mean())
    assert table["low"][0] < table["difference"][0] < table["high"][0]
    assert not len(tables.pairs(opened, "area"))


def test_results_are_the_means_of_the_records(study: Path) -> None:
    opened = summary.open_study(study)
    table = tables.results(opened).set_index("label")
    for label in opened.labels:
        runs = [records.read_run(study / label / f"seed-{seed}")["cycles"] for seed in range(5)]
        final = np.array([100 * cycles[-1]["accuracy"] for cycles in runs])
        assert table.loc[label, "accuracy"] == pytest.approx(final.mean())
        assert table.loc[label, "sd"] == pytest.approx(final.std(ddof=1))
        if len(runs[0]) > 1:
            points = [([c["labelled"] for c in cycles], [c["accuracy"] for c in cycles]) for cycles in runs]
            areas = [statistics.area_under_budget_curve(*point) for point in points]
            assert table.loc[label, "area"] == pytest.approx(100 * np.mean(areas))
    assert table.loc["random", "labels to baseline"] == pytest.approx(100)
    assert table.loc["oo4al", "share of its labels"] < 95
    assert np.isnan(table.loc["whole_dataset", "area"])
    assert table.index[0] == "whole_dataset"
    assert set(table.index[1:3]) == {"oo4al", "oo4al_deep"}
    low, high = (table.loc["cmam", end] for end in ("low", "high"))
    assert low < table.loc["cmam", "accuracy"] < high
    assert high - low == pytest.approx(2 * 2.776 * table.loc["cmam", "sd"] / 5**0.5, rel=1e-3), "Student's, 5 seeds"


def test_planted_differences_are_found_and_identical_methods_are_not_told_apart(study: Path) -> None:
    found = tables.pairs(summary.open_study(study), "area").set_index(["a", "b"])
    assert found.loc[("oo4al", "random"), "p_holm"] < 0.05
    assert found.loc[("cmam", "random"), "p_holm"] < 0.05
    assert found.loc[("ranked_margin", "random"), "p_holm"] > 0.05
    either = [pair for pair in found.index if set(pair) == {"oo4al", "oo4al_deep"}]
    assert found.loc[either[0], "p_holm"] > 0.05
    said = tables.sentences(found.reset_index(), most=20)
    assert any(re.match(r"oo4al is 2\.\d points above random \(.*, shown: ", line) for line in said)
    assert any({"random", "ranked_margin"} < set(line.split()) and ", not shown: " in line for line in said)


def test_attribution_recovers_the_planted_training_part(study: Path) -> None:
    means = tables.attribution_means(statistics.attribution(summary.open_study(study).frame)).set_index("cycle")
    assert means.loc[1, "selection"] == 0
    assert means.loc[1, "training"] == pytest.approx(100 * TRAINING, abs=0.6)
    assert means.loc[2:, "training"].mean() == pytest.approx(2.5, abs=0.4)  # between cmam's 2 and all of oo4al's 3
    assert means.loc[2:, "gap"].mean() == pytest.approx(3, abs=0.4)


def test_runs_of_one_label_made_with_other_parameters_are_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    file = tmp_path / "mixed" / "cmam" / "seed-3" / "result.json"
    record = json.loads(file.read_text())
    record["params"]["epochs"] = 7
    file.write_text(json.dumps(record))
    assert cautions.unlike(summary.open_study(tmp_path / "mixed")) == ["cmam"]
    assert cautions.unlike(summary.open_study(study)) == []


def test_the_protocol_says_what_a_variant_has_for_itself(study: Path) -> None:
    table = tables.protocol(summary.open_study(study))
    rows = table[table.parameter == "cmam_layer"]
    assert dict(zip(rows["of"], rows["value"], strict=True)) == {"the others": "1", "oo4al_deep": "2"}


def test_several_data_sets_are_not_averaged(study: Path, tmp_path: Path) -> None:
    folder = write_study(tmp_path / "two", {"random": 0.0}, seeds=3)
    write_study(folder / "x", {"margin": 0.0}, seeds=1, dataset="two_moons")
    opened = summary.open_study(folder)
    assert set(opened.frame["dataset"]) == {"digits"}
    assert opened.left_out == ["two_moons (1 run)"]


# --- what was asked for ---


def test_overlap_is_jaccard_of_what_was_bought_after_the_first_labels_over_all_seeds(study: Path) -> None:
    matrix, chance, common = queried.overlap(summary.open_study(study))
    assert len(common) == len(matrix), "all buy as many"
    found = []
    for seed in range(5):
        a, b = (records.read_queries(study / label / f"seed-{seed}") for label in ("random", "oo4al"))
        one, other = (set(np.concatenate([q for c, q in each.items() if c > 1])) for each in (a, b))
        found.append(len(one & other) / len(one | other))
    assert matrix.loc["random", "oo4al"] == pytest.approx(np.mean(found))
    assert matrix.loc["random", "random"] == 1
    size = 80 * 80 / (1437 - 20)  # 80 of the images that are left, twice: the mean of what they have in common
    assert chance == pytest.approx(size / (160 - size), abs=0.001), "these queries are random"


def test_what_chance_gives_is_said_of_the_commonest_setting(tmp_path: Path) -> None:
    variants = {"margin": {"method": "margin", "budget": 100}}
    planted = {"margin": 0.1, "random": 0.0, "cmam": 0.0}
    opened = summary.open_study(write_study(tmp_path / "mixed", planted, seeds=2, cycles=3, variants=variants))
    _, chance, common = queried.overlap(opened)
    assert set(common) == {"random", "cmam"}, "not of the first, which buys more"
    size = 40 * 40 / (1437 - 20)
    assert chance == pytest.approx(size / (80 - size), abs=0.0015)


def test_one_query_from_no_labels_was_chosen(tmp_path: Path) -> None:
    planted = {"random": 0.0, "typiclust": 0.0, "whole_dataset": 0.0}
    opened = summary.open_study(write_study(tmp_path / "once", planted, seeds=2, cycles=1, initial=0))
    assert set(opened.choosing) == {"random", "typiclust"}
    assert {"random", "typiclust"} <= set(queried.class_shares(opened).columns)
    assert not opened.active, "one number of labels is no curve"


def test_numbers_of_a_table_can_be_read_by_a_program_and_have_a_true_minus_on_the_page() -> None:
    shown = tables.text(pd.DataFrame({"method": ["a-b", "c"], "gap": [-0.5, 0.25]}), {"gap": tables.signed(2)})
    assert shown["gap"].astype(float).tolist() == [-0.5, 0.25]
    assert '<td class="n">−0.50</td>' in page.as_html(shown, "")
    assert "<td>a-b</td>" in page.as_html(shown, "")


def test_where_nothing_had_a_label_the_first_query_was_chosen_too(tmp_path: Path) -> None:
    planted = {"random": 0.0, "typiclust": 0.0}
    opened = summary.open_study(write_study(tmp_path / "empty", planted, seeds=2, cycles=3, initial=0))
    chosen = {label: [set(np.concatenate(list(cycles.values()))) for cycles in opened.queries(label).values()]
              for label in planted}  # fmt: skip
    expected = np.mean([len(a & b) / len(a | b) for a, b in zip(*chosen.values(), strict=True)])
    assert queried.overlap(opened)[0].loc["random", "typiclust"] == pytest.approx(expected)
    assert set(queried.redundancy(opened)["cycle"]) == {1, 2, 3}
    last = opened.frame[(opened.frame["label"] == "typiclust") & (opened.frame["cycle"] == 3)]
    counts = np.sum(last["class_counts"].tolist(), axis=0)
    assert queried.class_shares(opened)["typiclust"].to_numpy() == pytest.approx(counts / counts.sum())


@pytest.mark.parametrize(
    ("pool", "labelled", "subset", "images"),
    [
        (2000, [100, 200, 300], None, 1900),  # 200 of all that are left
        (20_000, [100, 300], 1000, 1000),  # 200 of the same 1,000
        (20_000, [0, 200], 1000, 1000),  # from no labels
        (300, [100, 200, 300], None, 200),  # all of them
        (1437, [20, 40, 60, 80], None, 1417),  # few of many
    ],
)
def test_what_chance_gives_is_two_draws_from_the_images_that_both_look_at(
    pool: int, labelled: list[int], subset: int | None, images: int
) -> None:
    size = labelled[-1] - labelled[0]
    common = size * size / images  # the mean of the hypergeometric distribution
    assert queried.by_chance(pool, labelled, subset) == pytest.approx(common / (2 * size - common), abs=0.0015)


def test_nearest_distance_by_the_definition() -> None:
    vectors = np.random.default_rng(0).normal(size=(12, 5))
    slow = [min(np.linalg.norm(a - b) for j, b in enumerate(vectors) if j != i) for i, a in enumerate(vectors)]
    assert queried.nearest_distance(vectors) == pytest.approx(np.mean(slow))
    assert queried.nearest_distance(np.zeros((2, 3))) == 0, "the same image twice"
    assert np.isnan(queried.nearest_distance(vectors[:1]))


def test_class_shares_are_of_what_was_bought(study: Path) -> None:
    shares = queried.class_shares(summary.open_study(study))
    counts = np.zeros(10)
    for seed in range(5):
        cycles = records.read_run(study / "cmam" / f"seed-{seed}")["cycles"]
        counts += np.array(cycles[-1]["class_counts"]) - np.array(cycles[0]["class_counts"])
    assert shares["cmam"].to_numpy() == pytest.approx(counts / counts.sum())
    assert shares["pool"].sum() == pytest.approx(1)


def test_errors_with_a_method_s_own_temperature_stand_beside_those_without(study: Path, tmp_path: Path) -> None:
    assert "ece_with_temperature" not in tables.calibration(summary.open_study(study))
    copy = shutil.copytree(study, tmp_path / "copy")
    for number, file in enumerate(sorted((copy / "random").glob("seed-*/result.json"))):
        record = json.loads(file.read_text())
        record["cycles"][-1] |= {"ece_with_temperature": 0.1 * number, "oe_with_temperature": 0.5}
        file.write_text(json.dumps(record))
    found = tables.calibration(summary.open_study(copy)).set_index("label")
    assert found.loc["random", "ece_with_temperature"] == pytest.approx(0.05 * number)
    assert found.loc["random", "oe_with_temperature sd"] == pytest.approx(0)
    assert found.drop("random")["ece_with_temperature"].isna().all()


def test_of_two_cycles_with_as_many_labels_the_last_counts(study: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(study, tmp_path / "copy")
    for file in (copy / "random").glob("seed-*/result.json"):
        record = json.loads(file.read_text())
        record["cycles"][-1] |= {"labelled": record["cycles"][-2]["labelled"], "accuracy": 0.875}
        file.write_text(json.dumps(record))
    runs = tables.per_run(summary.open_study(copy)).set_index("label")
    assert (runs.loc["random", "accuracy"] == 0.875).all()


def test_temperature_of_each_half_comes_from_the_other() -> None:
    draw = np.random.default_rng(0)
    labels = draw.integers(0, 4, 400)
    logits = 6 * draw.normal(size=(400, 4)) + 2 * np.eye(4)[labels]
    before, correct, after, heat = calibrated.rescaled(logits, labels)
    assert len(set(heat)) == 2
    assert all(np.isfinite(found).all() for found in calibrated.rescaled(logits * np.inf, labels)), "an older file's"
    side = heat == heat[0]
    assert heat[0] == pytest.approx(calibration.fit_temperature(logits[~side], labels[~side]))
    assert (
        calibration.calibration_errors(after, correct, 15).ece < calibration.calibration_errors(before, correct, 15).ece
    )


# --- the page ---


def cells(built: Path, name: str) -> list[list[str]]:
    with (built / "tables" / f"{name}.csv").open(newline="") as stream:
        return list(csv.reader(stream))


def test_the_summary_leaves_notebook_page_tables_and_figures(built: Path) -> None:
    assert {path.name for path in built.iterdir() if path.is_file()} == {"summary.ipynb", "summary.html", "study.yaml"}
    assert not list(built.glob(".summary-*"))
    figures = {path.stem for path in (built / "figures").glob("*.png")}
    assert figures == {path.stem for path in (built / "figures").glob("*.pdf")}
    assert {"forest_accuracy", "forest_area", "reliability_by_cycle", "gap"} <= figures
    assert {"accuracy", "ece", "oe", "nll", "brier", "reliability", "temperature_scaling", "penalty", "attribution",
            "query_classes", "queries", "overlap", "redundancy", "map"} <= figures  # fmt: skip
    found = {path.stem for path in (built / "tables").glob("*.csv")}
    assert {"results", "tests_accuracy", "tests_area", "penalty", "attribution", "calibration", "times", "completeness",
            "unfinished", "curves", "parameters", "environment"} <= found  # fmt: skip


def test_notebook_csv_and_page_have_the_same_numbers(built: Path) -> None:
    text = (built / "summary.html").read_text()
    outputs = "".join(
        output["data"].get("text/html", "")
        for cell in nbformat.read(built / "summary.ipynb", 4).cells
        for output in cell.get("outputs", [])
        if "data" in output
    )
    for name in ("results", "tests_accuracy", "attribution", "calibration", "penalty", "query_classes"):
        for row in cells(built, name)[1:]:
            shown = [re.sub(r"^-", "−", html.escape(value)) for value in row]
            marked = "".join(rf"<td[^>]*>{re.escape(value)}</td>" for value in shown)
            assert re.search(marked, text), (name, row)
            assert re.search(marked, outputs), (name, row)


def test_tables_read_back_as_numbers(built: Path) -> None:
    table = pd.read_csv(built / "tables" / "results.csv").set_index("label")
    frame = summary.open_study(built).frame
    final = frame[(frame.label == "oo4al") & (frame.cycle == 3)].accuracy
    assert table.loc["oo4al", "accuracy"] == pytest.approx(100 * final.mean(), abs=0.005)


def test_a_half_finished_study_says_so(built: Path) -> None:
    text = (built / "summary.html").read_text()
    assert "13 of 15 runs have finished (1 failed, 1 missing)" in text
    assert ["cmam", "2", "missing", "", "", "not started"] in cells(built, "unfinished")
    assert "different finished seeds" in text
    assert text.index("13 of 15 runs") < text.index("<nav"), "real warnings stand at the top"


def test_the_page_has_no_script_and_fetches_nothing(built: Path) -> None:
    text = (built / "summary.html").read_text()
    assert "<script" not in text.lower()
    assert html.escape(EVIL) in text
    assert not re.findall(r"(?:src|href)=[\"'](?!data:|#)", text)
    assert "@import" not in text
    assert "url(" not in text


def test_the_notebook_names_the_study_and_not_the_folder_it_was_made_in(built: Path) -> None:
    text = (built / "summary.ipynb").read_text()
    assert "/.summary-" not in text
    assert f'out_dir = \\"{built}\\"' in text


def test_figures_of_the_page_are_the_files(built: Path) -> None:
    import base64

    text = (built / "summary.html").read_text()
    for picture in (built / "figures").glob("*.png"):
        assert base64.b64encode(picture.read_bytes()).decode()[:2000] in text.replace("\n", ""), picture.name


def test_a_failed_summary_leaves_the_last_one_as_it_was(built: Path, tmp_path: Path) -> None:
    notebook = nbformat.read(summary.NOTEBOOK, 4)
    notebook.cells.append(nbformat.v4.new_code_cell("raise ValueError('planted')"))
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    before = (built / "summary.html").read_bytes()
    for cell in notebook.cells[5:-1]:
        cell.source = "" if cell.cell_type == "code" else cell.source
    nbformat.write(notebook, tmp_path / "broken.ipynb")
    with pytest.raises(CheckpointError, match="ValueError: planted"):
        summary.build(built, tmp_path / "broken.ipynb")
    assert (built / "summary.html").read_bytes() == before
    assert not list(built.glob(".summary-*"))


def test_a_folder_that_is_not_there_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        summary.build(tmp_path / "nowhere")


def test_a_folder_of_several_studies_is_one_line(tmp_path: Path) -> None:
    for name in ("one", "two"):
        write_study(tmp_path / name, {"random": 0.0}, seeds=1, cycles=1, arrays=False)
    two = tmp_path / "published" / "of" / "two"
    two.parent.mkdir(parents=True)
    (tmp_path / "two").rename(two)
    with pytest.raises(CheckpointError, match=f"holds 2 studies; name one: {tmp_path}/one and {two}$"):
        summary.open_study(tmp_path)
    write_study(tmp_path / "elsewhere" / "one", {"random": 0.0}, seeds=1, cycles=1, arrays=False)
    with pytest.raises(CheckpointError, match="holds 3 studies"):  # of one name, and two studies all the same
        summary.open_study(tmp_path)


def test_a_folder_without_runs_is_refused_as_status_does(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    from alkit.cli import main

    said = []
    for command in ("status", "summary"):
        assert main([command, str(tmp_path)]) == 2
        said.append(capsys.readouterr().err)
    assert said == [f"alkit: {tmp_path}: no runs in it; expected a study's folder, such as outputs/digits\n"] * 2
    assert not list(tmp_path.iterdir())


SECTIONS = (report.what_there_is, report.how_it_was_run, report.which_is_better, report.how_sure,
            report.selection_or_training, report.is_it_calibrated, report.what_was_asked_for, report.what_it_costs,
            report.beside_what_was_published)  # fmt: skip


def shown(folder: Path, out: Path, capsys: pytest.CaptureFixture[str]) -> str:
    opened = summary.open_study(folder, out)
    for part in SECTIONS:
        part(opened)
    return capsys.readouterr().out


@pytest.mark.usefixtures("undrawn")
def test_an_empty_study_and_one_run_have_a_summary(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "empty").mkdir()
    text = shown(tmp_path / "empty", tmp_path / "out", capsys)
    assert "no run of this study has finished" in text
    folder = write_study(tmp_path / "one", {"random": 0.0}, seeds=1, cycles=1)
    text = shown(folder, tmp_path / "out", capsys)
    assert "nothing can be tested" in text


@pytest.mark.usefixtures("undrawn")
def test_without_arrays_or_images_the_numbers_are_still_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "bare", {"random": 0.0, "margin": 0.0}, seeds=2, cycles=2, arrays=False)
    for file in folder.glob("*/*/result.json"):
        file.write_text(file.read_text().replace('"dataset": "digits"', '"dataset": "cifar10"'))
    text = shown(folder, tmp_path / "out", capsys)
    assert text.count("Reliability diagrams are not shown") == 2, "as HTML and as text, once"
    assert text.count("not shown image by image") == 2, "one line, not one a picture"
    assert (tmp_path / "out" / "tables" / "results.csv").exists()
    assert "not run here" in text, "the published numbers of the data set stand there all the same"
    saved = pd.read_csv(tmp_path / "out" / "tables" / "published.csv", keep_default_na=False)
    listed = pd.read_csv(tmp_path / "out" / "tables" / "published_protocols.csv", keep_default_na=False)
    assert len(saved) == (published.load()["dataset"] == "cifar10").sum()
    joined = saved[["at", "source", "label", "protocol", "note"]].drop_duplicates().sort_values("at")
    assert joined.to_numpy().tolist() == listed.to_numpy().tolist(), "each number leads to its source and what differs"


def test_of_many_pairs_what_is_shown_is_said_first_and_the_rest_counted(study: Path) -> None:
    found = tables.pairs(summary.open_study(study), "area")
    said = tables.sentences(found, most=6)
    shown = [", shown: " in line for line in said[:-1]]
    assert shown == sorted(shown, reverse=True)
    assert said[-1] == f"{len(found) - 6} more pairs are in the table."
    everything = tables.sentences(found, most=50)
    assert len(everything) == len(found)
    assert sum(", not shown: " in line for line in everything) == sum(found["p_holm"] >= 0.05)
    assert tables.sentences(found, most=len(found) - 1)[-1] == "1 more pair is in the table."


def test_one_order_of_methods_in_legend_tables_and_tests(study: Path) -> None:
    opened = summary.open_study(study)
    last = opened.frame[opened.frame.cycle == opened.frame.groupby("path").cycle.transform("max")]
    means = last.groupby("label").accuracy.mean()
    assert opened.labels == list(means.sort_values(ascending=False).index)
    legend = plots.curves(opened.frame).axes[-1].get_legend()
    assert [text.get_text().split(" (")[0] for text in legend.get_texts()] == opened.labels
    for table in (tables.results, tables.calibration, tables.completeness, tables.times):
        assert list(table(opened)["label"]) == opened.labels
    pairs = tables.pairs(opened, "accuracy")
    assert list(dict.fromkeys(pairs["a"])) == [name for name in opened.active if name != "random"]
    assert "random" not in set(pairs["a"]), "a difference to the baseline is never the baseline minus a method"


def test_the_forest_is_of_the_tests_and_its_dots_are_the_seeds(study: Path) -> None:
    opened = summary.open_study(study)
    lines = tables.against_baseline(tables.to_draw(tables.pairs(opened, "area")))
    assert list(lines["difference"]) == sorted(lines["difference"], reverse=True)
    assert "random" not in set(lines["name"])
    row = lines.set_index("name").loc["oo4al"]
    assert np.mean(row["singles"]) == pytest.approx(row["difference"])
    assert (len(row["singles"]), row["shown"]) == (5, True)
    assert not lines.set_index("name").loc["ranked_margin", "shown"]


@pytest.mark.usefixtures("undrawn")
def test_a_study_without_the_baseline_has_no_forest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = write_study(tmp_path / "pair", {"margin": 0.0, "entropy": 0.05, "coreset": 0.0}, seeds=3, arrays=False)
    opened = summary.open_study(folder)
    found = tables.to_draw(tables.pairs(opened, "accuracy"))
    assert (len(found), len(tables.against_baseline(found))) == (3, 0)
    shown(folder, tmp_path / "out", capsys)
    assert not list((tmp_path / "out" / "figures").glob("forest*"))
    assert paper.write(folder)[1] == [
        "forest.pdf: not written: no method ends at as many labels as random",
        "reliability.pdf: not written: the runs' predictions.npz are not in this folder",
    ]


# --- what a paper needs ---


def test_the_paper_has_the_four_at_a_journal_s_width(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "planted")
    folder, missing = paper.write(tmp_path / "planted")
    assert missing == []
    assert {file.name for file in folder.iterdir()} == {"curves.pdf", "forest.pdf", "reliability.pdf", "table.tex"}
    for name in ("curves", "forest", "reliability"):
        content = (folder / f"{name}.pdf").read_bytes()
        width = float(re.search(rb"/MediaBox \[ ?0 0 ([\d.]+)", content)[1]) / 72  # type: ignore[index]
        assert width <= plots.WIDTH + 0.01
        assert b"/Type /Font" in content
        assert b"/Subtype /Type3" not in content, "letters are letters, as journals ask for"
    before = {file.name: file.read_bytes() for file in folder.iterdir()}
    paper.write(tmp_path / "planted")
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before, "twice the same"
    assert not list((tmp_path / "planted").glob(".paper-*"))


def test_the_table_of_the_paper_has_the_numbers_of_the_tests(study: Path) -> None:
    opened = summary.open_study(study)
    text = paper.table(opened)
    assert "\\toprule" in text
    assert "ranked\\_margin" in text
    results, found = tables.results(opened).set_index("label"), tables.pairs(opened, "accuracy").set_index(["a", "b"])
    line = next(line for line in text.splitlines() if line.startswith("oo4al &"))
    assert f"{results.loc['oo4al', 'accuracy']:.2f} $\\pm$ {results.loc['oo4al', 'sd']:.2f}" in line
    assert f"+{100 * found.loc[('oo4al', 'random'), 'difference']:.1f} (" in line
    assert line.endswith("\\\\")
    assert "-" not in re.sub(r"\$-\$", "", line), "minus signs are those of mathematics"


def test_a_folder_without_runs_has_no_paper(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no such folder"):
        paper.write(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="no run of this study has finished"):
        paper.write(tmp_path / "empty")
    assert not list((tmp_path / "empty").iterdir())


# --- studies of quirks ---


@pytest.fixture(scope="module")
def quirks(tmp_path_factory: pytest.TempPathFactory) -> Path:
    variants = {
        "random.warm": {"method": "random", "quirks": {"warm_start": True}},
        "random.step": {"method": "random", "quirks": {"lr_step_first": True}},
        "hierarchical.quota": {"method": "hierarchical", "quirks": {"hsamp_fixed_quota": True}},
    }
    planted = {"random": 0.0, "hierarchical": 0.0, "random.warm": 0.05, "random.step": 0.0, "hierarchical.quota": 0.0}
    out = tmp_path_factory.mktemp("quirks") / "quirks"
    folder = write_study(out, planted, variants=variants, noise=0.003, arrays=False)
    for file in folder.glob("hierarchical.quota/*/result.json"):
        record = json.loads(file.read_text())
        record["cycles"][-2] |= {"labelled": 600, "accuracy": 0.99}
        record["cycles"][-1] |= {"labelled": 600, "accuracy": 0.99}  # the pool is empty: nothing more was bought
        file.write_text(json.dumps(record))
    return folder


def test_a_study_of_quirks_tests_each_switch_against_its_own_base(quirks: Path, study: Path) -> None:
    opened = summary.open_study(quirks)
    assert opened.switches == {
        "random.warm": ("warm_start", "random"), "random.step": ("lr_step_first", "random"),
        "hierarchical.quota": ("hsamp_fixed_quota", "hierarchical"),
    }  # fmt: skip
    found = tables.pairs(opened, "accuracy").set_index("a")
    assert dict(found["b"]) == opened.bases
    assert found.loc["random.warm", "p_holm"] < 0.05
    assert found.loc["random.step", "p_holm"] > 0.05
    alone = statistics.holm(found["p"].to_numpy(dtype=float))
    assert found["p_holm"].to_numpy() == pytest.approx(alone), "the family is the switches"
    assert summary.open_study(study).switches == {}, "a study of methods"


def test_one_switch_among_methods_makes_no_study_of_quirks(tmp_path: Path) -> None:
    planted = dict.fromkeys(("random", "margin", "coreset", "warm"), 0.0)
    variants = {"warm": {"method": "random", "quirks": {"warm_start": True}}}
    opened = summary.open_study(write_study(tmp_path / "one", planted, variants=variants, arrays=False))
    assert opened.switches == {}
    assert len(tables.pairs(opened, "accuracy")) == 6


def test_the_first_picture_of_a_study_of_quirks_is_its_forest(
    quirks: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    found = {}
    monkeypatch.setattr(page, "figure", lambda _, name, fig, alt, folded="": found.setdefault(name, fig))
    text = shown(quirks, tmp_path, capsys)
    assert next(iter(found)) == "switches"
    assert not {"wins_accuracy", "forest_accuracy", "penalty"} & set(found)
    labels = [text.get_text() for text in found["switches"].axes[0].get_yticklabels()]
    assert sorted(labels) == ["hsamp_fixed_quota · hierarchical", "lr_step_first · random", "warm_start · random"]
    assert "hierarchical.quota, 600 labels" in found["accuracy"].get_supxlabel()
    assert "With the switch it ends at 600 labels, without it at 100." in text


def test_the_verdict_of_a_study_of_quirks_is_of_its_switches(quirks: Path) -> None:
    lines = verdict.verdict(summary.open_study(quirks))
    assert lines[0].startswith("3 switches, each against the same without it, on digits, 5 seeds each")
    assert lines[1] == "Final accuracy: 2 of 3 comparisons show a difference (Holm's correction for 3 comparisons)."
    assert lines[2].startswith("hierarchical.quota is ")
    assert lines[2].endswith("(With the switch it ends at 600 labels, without it at 100.)")
    assert not any("highest mean" in line for line in lines)


# --- what is said first ---


def drawn(gains: dict[str, float], seeds: int, start: int) -> summary.StudyFolder:
    """A study in memory, two cycles a run: the gains, one luck a seed for all, and noise of one point."""
    draw = np.random.default_rng(start)
    luck, rows = draw.normal(0.8, 0.02, seeds), []
    for label, gain in gains.items():
        for seed in range(seeds):
            for cycle in (1, 2):
                accuracy = luck[seed] + (cycle - 2) * 0.1 + gain + 0.01 * draw.standard_normal()
                rows.append((label, label, seed, cycle, 20 * cycle, accuracy, f"{label}/{seed}"))
    names = ["label", "method", "seed", "cycle", "labelled", "accuracy", "path"]
    frame = pd.DataFrame(rows, columns=names).assign(dataset="digits", **dict.fromkeys(records.MEASURES[1:], np.nan))
    state = frame.drop_duplicates("path")[["label", "seed", "path"]].assign(state="finished")
    return summary.StudyFolder(Path("nowhere"), Path("nowhere"), frame, state, ())


def claims(lines: list[str]) -> bool:
    return any(re.search(r"(?<!not )shown( to be|:)", line) for line in lines)


def test_of_studies_of_equal_methods_one_in_twenty_has_something_shown_in_its_verdict() -> None:
    gains = dict.fromkeys(("random", "a", "b", "c"), 0.0)
    said = [verdict.verdict(drawn(gains, 5, start)) for start in range(150)]
    rate = np.mean([claims(lines) for lines in said])
    assert 0 < rate < 0.05 + 2 * (0.05 * 0.95 / 150) ** 0.5
    assert {len(lines) for lines in said} == {5}


def test_a_planted_difference_is_in_the_verdict() -> None:
    lines = verdict.verdict(drawn({"random": 0.0, "same": 0.0, "better": 0.06, "worse": -0.06}, 6, 1))
    assert lines[0] == "4 methods on digits, 6 seeds each, 20 to 40 labels; all 24 runs have finished."
    assert lines[1] == (
        "Final accuracy, shown to be above random: better; shown to be below random: worse; not shown to differ from "
        "it: 1 method (Holm's correction for 6 comparisons)."
    )
    assert re.match(r"(better is .* above random|random is .* above worse) \(95% interval .*, shown: ", lines[2])
    assert "is that of better, 8" in lines[3]
    assert lines[3].endswith("it is shown to be above same, worse and random, of 3 others.")
    assert claims(lines)


def test_a_verdict_ends_with_how_many_published_numbers_agree() -> None:
    from alkit.analysis.summary.study import open_study

    folder = Path(__file__).parents[2] / "outputs" / "published"
    assert verdict.verdict(open_study(folder / "cifar10_step"))[-1] == (
        "20 of 20 numbers run by the paper's protocol agree with its own; the farthest is 2.1 points off "
        "(±1.1 to ±2.4 allowed)."
    )
    assert "protocol" not in verdict.verdict(open_study(folder / "cifar10_scaled"))[-1], "another protocol"


def test_a_verdict_of_little_claims_nothing() -> None:
    lines = verdict.verdict(drawn({"random": 0.0, "better": 0.3}, 1, 0))
    assert lines[1] == "No two methods share more than 1 seed: nothing can be tested, so nothing is shown."
    assert "both runs have finished" in lines[0]
    two = verdict.verdict(drawn({"random": 0.0, "better": 0.02}, 2, 0))
    assert two[1] == "Final accuracy: better is not shown to differ from random."
    assert "(range " in two[2]
    alone = verdict.verdict(drawn({"margin": 0.0}, 3, 0))
    assert alone[1].startswith("Fewer than two methods")
    assert not any(map(claims, (lines, two, alone)))
    pair = verdict.verdict(drawn({"float32": 0.0, "bfloat16": 0.0}, 3, 0))
    assert pair[1] == "Final accuracy: a difference between float32 and bfloat16 is not shown."
    assert len(pair) == 3


def test_the_words_of_the_verdict_are_explained_below_it_and_a_method_is_called_a_method(built: Path) -> None:
    top, _, rest = (built / "summary.html").read_text().partition('<h2 id="')
    below = top[top.index("What these words mean") :]
    for word in ("point", "seed", "95% interval", "shown", "Holm's correction", "ECE"):
        assert f"<em>{word}</em>" in html.unescape(below), word
    assert '<th>method</th><th class="n">seeds</th><th class="n">labels</th>' in rest


def test_the_page_begins_with_the_title_the_verdict_and_the_contents(built: Path) -> None:
    text = (built / "summary.html").read_text()
    assert "<h1>A study with planted truth</h1>" in text
    assert "Summary of a study" not in text
    assert text.index("<h1>") < text.index('class="verdict"') < text.index("<nav") < text.index("<h2")
    targets = re.findall(r'href="#([^"]+)"', re.findall(r"<nav.*?</nav>", text)[0])
    assert len(targets) == text.count("<h2 ") == 9
    assert all(f'id="{place}"' in text for place in targets)


def test_a_caution_names_the_parameter_that_differs_and_a_file_a_seed_is_none(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    for seed in range(5):
        file = tmp_path / "mixed" / "random" / f"seed-{seed}" / "result.json"
        record = json.loads(file.read_text())
        record["params"]["pretext_losses"] = f"pretext/rotation-seed-{seed}-0123abc{seed}.npz"
        file.write_text(json.dumps(record))
    assert cautions.cautions(summary.open_study(tmp_path / "mixed")) == []
    file = tmp_path / "mixed" / "cmam" / "seed-3" / "result.json"
    record = json.loads(file.read_text())
    record["params"]["epochs"] = 7
    file.write_text(json.dumps(record))
    assert cautions.cautions(summary.open_study(tmp_path / "mixed")) == [
        "The runs of cmam were not all made with the same parameters: do not average them (epochs: the default or 7)."
    ]


def test_of_unbalanced_test_images_the_commonest_class_and_the_balanced_accuracy_are_told(tmp_path: Path) -> None:
    folder = write_study(tmp_path / "rare", {"random": 0.0}, seeds=2, cycles=2)
    labels = np.repeat(np.arange(10), [180, 60, 40, 20, 20, 10, 10, 10, 5, 5])
    expected = []
    for file in sorted(folder.rglob("predictions.npz")):
        arrays = dict(np.load(file))
        arrays |= {"labels": labels, "predicted": np.where(arrays["correct"], labels, (labels + 1) % 10)}
        np.savez(file, **arrays)
        expected.append(np.mean([arrays["correct"][-1][labels == c].mean() for c in range(10)]))
    opened = summary.open_study(folder)
    (line,) = cautions.cautions(opened)
    assert "to answer '0' to each of them has an accuracy of 50.0%" in line
    assert "one answer to all has 10.0%" in line
    assert tables.results(opened)["balanced"].tolist() == pytest.approx([100 * np.mean(expected)])


def test_what_was_bought_is_listed_by_the_names_of_its_files(study: Path) -> None:
    opened = summary.open_study(study)
    assert not len(queried.files_bought(opened)), "images of no files"
    names = np.array([f"{place}.jpg" for place in range(len(opened.images))], dtype=np.object_)
    vars(opened)["images"] = replace(opened.images, files=names)
    table = queried.files_bought(opened)
    one = table[(table["label"] == "oo4al") & (table["seed"] == 1)]
    bought = records.read_queries(study / "oo4al" / "seed-1")
    assert one["file"].tolist() == [f"{place}.jpg" for cycle in sorted(bought) for place in bought[cycle]]
    assert one["class"].tolist() == [str(int(opened.images.labels[place])) for place in one["place"]]
    assert set(table["label"]) == set(opened.active)


def test_letters_that_no_font_here_has_are_named_in_one_line(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = ["猫", "犬", *map(str, range(2, 10))]
    folder = write_study(tmp_path / "cjk", {"random": 0.0}, seeds=1, cycles=1, class_names=names, arrays=False)
    opened = summary.open_study(folder)
    monkeypatch.setattr(style, "families", lambda: ["DejaVu Sans"])
    (line,) = cautions.cautions(opened)
    assert line.startswith("No font here has 犬 and 猫: the figures show boxes in their place.")
    monkeypatch.setattr(cautions, "without_letters", lambda texts: "")
    assert cautions.cautions(opened) == []
    assert cautions.cautions(summary.open_study(study)) == []


def test_runs_on_other_images_are_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    labels = summary.open_study(study).labels

    def give(label: str, seed: int, digest: str) -> None:
        file = tmp_path / "mixed" / label / f"seed-{seed}" / "result.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | {"images": {"train": digest, "test": "t"}}))

    for label in labels:
        for seed in range(5):
            give(label, seed, "one")
    assert cautions.cautions(summary.open_study(tmp_path / "mixed")) == []
    for seed in range(5):
        give("random", seed, "other")
    (line,) = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert line == "random had other images than whole_dataset: they are not to be compared."
    give("cmam", 2, "other")
    lines = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert "The runs of cmam did not all have the same images: do not average them." in lines


@pytest.mark.parametrize(
    ("name", "harm", "said"),
    [
        ("queries", lambda file, other: shutil.copy(other, file), "not what cycle 2 of its record bought"),
        ("predictions", lambda file, other: shutil.copy(other, file), "not of the accuracy that cycle 2 of its record"),
        ("queries", lambda file, _: file.write_bytes(file.read_bytes()[:300]), "not a whole npz of plain arrays"),
        ("predictions", lambda file, _: file.write_bytes(file.read_bytes()[:300]), "not a whole npz of plain arrays"),
    ],
)  # fmt: skip
def test_arrays_that_are_not_those_of_the_record_are_named_and_not_looked_at(
    name: str, harm: Callable[[Path, Path], None], said: str, study: Path, tmp_path: Path
) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    runs = tmp_path / "mixed" / "cmam"
    harm(runs / "seed-1" / f"{name}.npz", tmp_path / "mixed" / "oo4al" / "seed-1" / f"{name}.npz")
    opened = summary.open_study(tmp_path / "mixed")
    (line,) = cautions.cautions(opened)
    assert line.startswith("The arrays of 1 run are damaged or of another run, and not looked at; the first: ")
    assert f"cmam/seed-1/{name}.npz: {said}" in line
    assert 1 not in opened.queries("cmam")
    assert len(list(opened.predictions("cmam"))) == 4


def test_seeds_whose_runs_were_made_on_two_kinds_of_device_are_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    for seed in (1, 3):
        file = tmp_path / "mixed" / "cmam" / f"seed-{seed}" / "result.json"
        record = json.loads(file.read_text())
        record["environment"]["device"] = "cuda"
        file.write_text(json.dumps(record))
    (line,) = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert line.startswith("Of 2 seeds (1, 3) some runs were made on one kind of device, some on another (cpu, cuda):")


def test_pictures_are_not_made_of_other_images_than_those_of_the_runs(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    for file in (tmp_path / "mixed").glob("*/seed-*/result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"images": {"train": "one", "test": "t"}}))
    with pytest.raises(DataError, match="the 1437 images found are not those of the runs"):
        _ = summary.open_study(tmp_path / "mixed").images


def test_pictures_need_the_images_of_the_runs_but_not_their_features(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "fixed")
    train, test = load_for(Experiment(**summary.open_study(study).params["cmam"]))
    record = images_record(with_rows(train), with_rows(test))
    for file in (tmp_path / "fixed").glob("*/seed-*/result.json"):
        file.write_text(json.dumps(json.loads(file.read_text()) | {"images": record}))
    assert record["train"] != images_record(train, test)["train"], "the features count in a run's digest"
    assert len(summary.open_study(tmp_path / "fixed").images) == 1437


def with_rows(images: ImageSet) -> ImageSet:
    return replace(images, features=torch.ones(len(images), 2))


def test_older_records_do_not_count_as_having_the_same_images(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    assert cautions.cautions(summary.open_study(tmp_path / "mixed")) == [], "nothing is known, and nothing is claimed"
    file = tmp_path / "mixed" / "cmam" / "seed-0" / "result.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | {"images": {"train": "one", "test": "t"}}))
    (line,) = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert line.startswith("Older runs of ")
    assert line.endswith("whether they are those of the other runs is not known.")


@pytest.mark.parametrize("known", [True, False])
def test_methods_tested_on_other_images_are_named(known: bool, study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    for file in (tmp_path / "mixed").glob("*/seed-*/result.json"):
        record, other = json.loads(file.read_text()), file.parts[-3] == "random"
        if known:
            record["images"] = {"train": "one", "test": "other" if other else "t"}
        elif other:
            record["params"]["test_size"] = 100
        file.write_text(json.dumps(record))
    (line,) = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert line == "random: tested on other images than whole_dataset; their accuracies are not to be compared."


def test_a_label_that_the_study_does_not_name_is_said_to_be_one(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "mixed")
    file = tmp_path / "mixed" / "study.yaml"
    content = yaml.safe_load(file.read_text())
    content["methods"].remove("cmam")
    file.write_text(yaml.safe_dump(content))
    (line,) = cautions.cautions(summary.open_study(tmp_path / "mixed"))
    assert line.startswith("cmam: in this folder, but not named in its study.yaml")


def test_a_method_that_asks_for_the_same_images_in_every_seed_is_named(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "same", ignore=shutil.ignore_patterns("queries.npz"))
    for file in (tmp_path / "same").glob("*/seed-*/result.json"):
        record = json.loads(file.read_text())
        for cycle in record["cycles"]:
            whole = record["params"]["method"] == "whole_dataset"  # asks for everything, and is not meant
            alike = whole or record["params"]["method"] == "ranked_margin"
            cycle["query_sha256"] = f"{cycle['cycle']} {'' if alike else file}"
        file.write_text(json.dumps(record))
    assert cautions.cautions(summary.open_study(tmp_path / "same")) == [
        "ranked_margin: it asked for the same images in all its seeds, so the spread there is that of the training "
        "alone, and no interval speaks of another pool."
    ]
    differs = tmp_path / "same" / "ranked_margin" / "seed-1" / "result.json"
    differs.write_text(differs.read_text().replace('"2 "', '"another"'))
    assert cautions.cautions(summary.open_study(tmp_path / "same")) == []


# --- calibration ---


def test_the_number_over_a_picture_is_the_number_in_the_table(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = {}
    monkeypatch.setattr(page, "figure", lambda _, name, fig, alt, folded="": found.setdefault(name, fig))
    opened = summary.open_study(study, tmp_path)
    calibrated.is_it_calibrated(opened)
    table = tables.calibration(opened).set_index("label")
    for name, over in (
        ("reliability", "{}"),
        ("reliability_by_cycle", "{}, cycle 5"),
        ("temperature_scaling", "{}, before"),
    ):
        titles = dict(axis.get_title().split("\n", 1) for axis in found[name].axes if "\n" in axis.get_title())
        for label in ("random", "oo4al"):
            said = f"ECE {table.loc[label, 'ece']:.3f} (15 bins)\ngap {table.loc[label, 'gap']:+.3f}".replace("-", "−")
            assert titles[over.format(label)] == said
    assert found["ece"].axes[0].get_ylabel() == "ECE (15 bins)"


def test_every_bin_of_every_cycle_is_in_the_table(built: Path) -> None:
    rows = pd.read_csv(built / "tables" / "reliability.csv")
    assert set(rows.cycle) == {1, 2, 3}
    predictions = [records.read_predictions(built / "oo4al" / f"seed-{seed}") for seed in range(3)]
    part = rows[(rows.label == "oo4al") & (rows.cycle == 2)]
    assert part.images.sum() == 3 * len(predictions[0]["labels"])
    correct = sum(int(p["correct"][1].sum()) for p in predictions)
    assert (part.images * part.accuracy).sum() == pytest.approx(correct, abs=0.1)


@pytest.mark.slow
def test_ten_thousand_records_are_summarised_within_half_a_minute(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_study(tmp_path / "many", {f"v{n}": 0.0 for n in range(20)}, seeds=1, arrays=False,
                         variants={f"v{n}": {"method": "margin", "width": 16 + n} for n in range(20)})  # fmt: skip
    for label in range(20):
        record = records.read_run(folder / f"v{label}" / "seed-0")
        for seed in range(1, 500):
            run = folder / f"v{label}" / f"seed-{seed}"
            run.mkdir()
            cycles = [cycle | {"accuracy": cycle["accuracy"] - 1e-5 * seed} for cycle in record["cycles"]]
            params = record["params"] | {"seed": seed}
            (run / "result.json").write_text(json.dumps(record | {"seed": seed, "params": params, "cycles": cycles}))
    began = time.process_time()  # of the processor: what else the machine does is not the summary's
    text = shown(folder, tmp_path / "out", capsys)
    assert time.process_time() - began < 30
    assert "all 10000 runs have finished" in text


def test_text_from_records_is_escaped_in_tables() -> None:
    marked = page.as_html(pd.DataFrame({EVIL: [EVIL, "1"], "n": ["1.5", ""]}), EVIL)
    assert "<script" not in marked
    assert '<td class="n">1.5</td>' in marked
