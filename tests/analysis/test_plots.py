"""Figures: the same look everywhere, text as it stands, sizes that can be read, and the numbers of the records."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")

import matplotlib.pyplot as plt
import numpy as np
import pandas as pd
import pytest
from matplotlib.collections import LineCollection
from synthetic_study import write_study

from alkit import load_dataset, plots, records, statistics
from alkit.analysis.plots import style
from alkit.analysis.plots.curves import summarise
from alkit.analysis.plots.reliability import briefly
from alkit.analysis.plots.style import plain
from alkit.methods import METHODS


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    planted = {"random": 0.0, "ranked_margin": 0.01, "cmam": 0.02, "oo4al": 0.03, "whole_dataset": 0.05}
    return records.load_runs(write_study(tmp_path_factory.mktemp("plots") / "study", planted, seeds=3, cycles=4))


def look(of: plots.Style) -> tuple[Any, ...]:
    return (of.colour, of.marker, of.dash, of.hollow)


def test_no_two_methods_look_alike() -> None:
    looks = [look(plots.method_style(method)) for method in METHODS]
    assert len(set(looks)) == len(METHODS)
    in_grey = [(each[1], each[2]) for each in looks]
    assert len(set(in_grey)) == len(METHODS), "marker and line tell them apart without colour"


def test_a_method_looks_the_same_whatever_is_beside_it() -> None:
    alone = plots.styles({"oo4al": "oo4al"})["oo4al"]
    among = plots.styles({method: method for method in METHODS})["oo4al"]
    assert alone == among == plots.method_style("oo4al")


def test_variants_have_their_methods_marker_and_a_hue_of_their_own() -> None:
    labels = {"pt4al": "pt4al"} | {f"pt4al_{n}": "pt4al" for n in range(12)}
    found = plots.styles(labels)
    assert len({look(each) for each in found.values()}) == 13
    assert len({each.colour for each in found.values()}) > 10, "while there are hues, no two have the same"
    assert found["pt4al"].colour not in {found[f"pt4al_{n}"].colour for n in range(12)}
    assert {each.marker for each in found.values()} == {found["pt4al"].marker}
    assert found["pt4al_3"].hollow
    assert not found["pt4al"].hollow
    assert found == plots.styles(dict(reversed(labels.items())))


def test_colours_stand_out_from_white_and_from_each_other_in_the_usual_studies() -> None:
    for method in METHODS:
        r, g, b = matplotlib.colors.to_rgb(plots.method_style(method).colour)
        assert 0.2126 * r + 0.7152 * g + 0.0722 * b < 0.72, method
    usual = ["random", "margin", "ranked_margin", "cmam", "oo4al", "coreset"]
    assert len({plots.method_style(method).colour for method in usual}) == len(usual)


def test_text_of_records_is_no_mathematics() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        fig, axes = plt.subplots()
        axes.set_title(plain(r"$\frac{1}{ a $class _^ \n"))
        fig.canvas.draw()
    assert len(plain("x" * 500)) == 58


def test_curves_draw_the_means_of_the_records(frame: pd.DataFrame) -> None:
    fig = plots.curves(frame)
    lines = {line.get_label(): line for line in fig.axes[0].get_lines()}
    for label in ("random", "oo4al"):
        means = frame[frame.label == label].groupby("labelled").accuracy.mean()
        assert lines[label].get_xdata() == pytest.approx(means.index), "only intervals are set aside"
        assert lines[label].get_ydata() == pytest.approx(means.to_numpy())
    upper = next(line for name, line in lines.items() if str(name).startswith("whole_dataset"))
    assert set(upper.get_ydata()) == {frame[frame.label == "whole_dataset"].accuracy.mean()}
    assert fig.axes[0].get_xlim()[1] < 200, "the whole pool does not stretch the axis"


def test_the_legend_names_the_interval_and_the_points(frame: pd.DataFrame) -> None:
    title = plots.curves(frame).axes[0].get_legend().get_title().get_text()
    assert "95% interval (Student's t)" in title
    assert "3 seeds" in title
    assert "thin lines: single runs" in title
    two = plots.curves(frame[frame.seed < 2]).axes[0].get_legend().get_title().get_text()
    assert "bands: range of two seeds" in two
    one = plots.curves(frame[frame.seed == 0]).axes[0].get_legend().get_title().get_text()
    assert one == "mean over 1 seed"


def test_published_curves_are_dashed_in_their_methods_colour(frame: pd.DataFrame) -> None:
    cells = pd.DataFrame({"method": ["oo4al", "oo4al", "vaal"], "source": "A paper, its figure",
                          "labelled": [20, 60, 20], "accuracy": [0.3, 0.6, 0.1]})  # fmt: skip
    fig = plots.curves(frame, published=cells)
    found = [line for line in fig.axes[0].get_lines() if "published" in str(line.get_label())]
    assert len(found) == 1
    assert found[0].get_color() == plots.method_style("oo4al").colour
    assert found[0].is_dashed()
    assert list(found[0].get_ydata()) == [0.3, 0.6]


def test_published_curves_of_several_sources_are_told_apart(frame: pd.DataFrame) -> None:
    cells = pd.DataFrame({"method": ["oo4al", "oo4al", "random"] * 2, "source": ["A, fig. 1"] * 3 + ["B, fig. 2"] * 3,
                          "labelled": [20, 60, 20] * 2, "accuracy": 0.5})  # fmt: skip
    axis = plots.curves(frame, published=cells).axes[0]
    looks = {str(line.get_label()): (line.get_marker(), line._dash_pattern)  # type: ignore[attr-defined]
             for line in axis.get_lines() if "published" in str(line.get_label())}  # fmt: skip
    assert len(looks) == 4
    assert looks["oo4al, published: A"] == looks["random, published: A"]
    assert looks["oo4al, published: B"][0] != looks["oo4al, published: A"][0]
    assert looks["oo4al, published: B"][1] != looks["oo4al, published: A"][1]


def test_sources_of_one_beginning_are_named_whole_and_many_look_different(frame: pd.DataFrame) -> None:
    sources = ["A, issue 11 (authors)", "A, issue 11 (a user)", *(f"{name}, figure" for name in "BCDEFG")]
    cells = pd.DataFrame({"method": "oo4al", "source": sources, "labelled": 20, "accuracy": 0.5})
    lines = [line for line in plots.curves(frame, published=cells).axes[0].get_lines()
             if "published" in str(line.get_label())]  # fmt: skip
    assert [line.get_label() for line in lines][:3] == [
        "oo4al, published: A, issue 11 (authors)", "oo4al, published: A, issue 11 (a user)", "oo4al, published: B",
    ]  # fmt: skip
    assert len({line.get_marker() for line in lines}) == 8


def test_counts_over_neighbouring_bars_do_not_touch() -> None:
    draw = np.random.default_rng(0)
    histograms = [
        [0, 0, 0, 130, 145, 461, 918, 2100, *[900] * 6, 30_000],
        [0, 0, 303, 568, 622, 686, *[990] * 9],
        *(np.sort(draw.integers(100, 999, 15)) for _ in range(4)),
        draw.integers(100, 30_000, 15),
    ]
    for counts in histograms:
        confidence = np.repeat((np.arange(15) + 0.5) / 15, counts)
        one = {"confidence": confidence[None], "correct": np.ones((1, len(confidence)), dtype=bool)}
        fig = plots.reliability_by_cycle({"a": one, "b": one}, [1])
        fig.canvas.draw()
        boxes = [text.get_window_extent() for text in fig.axes[2].texts]
        assert len(boxes) == np.count_nonzero(counts)
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2)), counts


@pytest.mark.parametrize("metric", ["nll", "ece", "oe", "brier"])
def test_every_measure_has_its_curve(frame: pd.DataFrame, metric: str) -> None:
    line = plots.curves(frame, metric).axes[0].get_lines()[0]
    assert line.get_ydata()[0] == pytest.approx(
        frame[(frame.label == line.get_label()) & (frame.cycle == 1)][metric].mean()
    )


def test_a_study_of_nothing_gives_an_empty_picture(frame: pd.DataFrame) -> None:
    plots.curves(frame.iloc[:0])


def test_labels_of_one_number_of_images_are_rows_and_not_points_beside_it(frame: pd.DataFrame) -> None:
    whole = frame[frame.label == "whole_dataset"]
    axis = plots.curves(whole).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["whole_dataset"]
    assert "1437 labels" in axis.get_title()
    singles, mean = (line.get_xdata() for line in axis.get_lines())
    assert sorted(singles) == pytest.approx(sorted(whole.accuracy))
    assert mean[0] == pytest.approx(whole.accuracy.mean())


@pytest.mark.filterwarnings("error")
def test_thirty_labels_leave_room_for_the_picture() -> None:
    labels = [f"random.a_long_switch_{place}" for place in range(30)]
    methods = dict.fromkeys(labels, "random")
    shares = pd.DataFrame(0.1, index=[str(name) for name in range(10)], columns=[*labels, "pool"])
    distances = pd.DataFrame({"label": labels * 2, "cycle": [2, 3] * 30, "distance": 1.0})
    for fig in (plots.class_histogram(shares, methods), plots.redundancy_curves(distances, methods, "pixels")):
        fig.canvas.draw()
        low, high = fig.axes[0].get_position().get_points()
        assert high[1] - low[1] > 0.7


def test_a_single_cycle_is_a_whole_number_on_its_axis() -> None:
    one = pd.DataFrame({"label": ["random"] * 2, "cycle": 2, "distance": [1.0, 1.1]})
    axis = plots.redundancy_curves(one, {"random": "random"}, "pixels").axes[0]
    low, high = axis.get_xlim()
    assert [tick for tick in axis.get_xticks() if low <= tick <= high] == [2]


def predictions(n: int = 300) -> dict[str, np.ndarray]:
    draw = np.random.default_rng(0)
    confidence = draw.uniform(0.2, 1, (2, n)).astype(np.float32)
    return {"confidence": confidence, "correct": draw.uniform(size=(2, n)) < confidence}


def test_reliability_bars_are_the_accuracies_and_counts_of_the_bins() -> None:
    arrays = predictions()
    axis = plots.reliability(arrays, cycle=-1, bins=10).axes[0]
    confidence, correct = arrays["confidence"][1], arrays["correct"][1]
    heights = {round(bar.get_x() + bar.get_width() / 2, 3): bar.get_height() for bar in axis.containers[0]}
    for centre, height in heights.items():
        inside = (confidence >= centre - 0.05) & (confidence < centre + 0.05)
        assert height == pytest.approx(correct[inside].mean(), abs=1e-6)
    written = {text.get_text() for text in axis.figure.axes[1].texts}
    assert str(int(((confidence >= 0.5) & (confidence < 0.6)).sum())) in written
    assert plots.reliability(arrays, cycle=0).axes[0].get_title().split("\n")[0].endswith("cycle 1")


def test_reliability_of_several_labels_and_before_and_after() -> None:
    arrays = predictions()
    fig = plots.reliability_by_cycle({"random": arrays, "oo4al": arrays}, [1, 2, 3])
    titles = [axis.get_title().split("\n")[0] for axis in fig.axes if axis.get_title()]
    assert titles == ["random, cycle 1", "random, cycle 2", "oo4al, cycle 1", "oo4al, cycle 2"], "there is no cycle 3"
    state = (arrays["confidence"][0], arrays["correct"][0])
    assert len(plots.before_and_after({"random": (state, state)}).axes) == 3


def test_the_query_grid_shows_the_images_in_their_order() -> None:
    train, _ = load_dataset("digits", pool_size=100)
    fig = plots.query_grid(train, [5, 3, 9], title="$<b>", columns=2)
    shown = [axis for axis in fig.axes if axis.images]
    assert len(shown) == 3
    for axis, index in zip(shown, [5, 3, 9], strict=True):
        assert (np.asarray(axis.images[0].get_array()) == train.images[index, 0].numpy()).all()
        assert axis.get_title() == train.class_names[train.labels[index]]
    plots.query_grid(train, [])


def study_of(count: int, folder: Path, **options: Any) -> pd.DataFrame:
    """Records of `random` and `count` − 1 variants of it, named `random.0` and so on."""
    names = [f"random.{n}" for n in range(count - 1)]
    variants = {name: {"method": "random", "epochs": 50 + n} for n, name in enumerate(names)}
    planted = dict.fromkeys(["random", *names], 0.0)
    return records.load_runs(write_study(folder / "study", planted, seeds=3, cycles=3, variants=variants, **options))


def test_every_point_stands_at_its_number_of_labels_and_every_mean_once(tmp_path: Path) -> None:
    frame = study_of(6, tmp_path)
    fig = plots.curves(frame)
    axis, ends = fig.axes
    thick = [line for line in axis.get_lines() if line.get_linewidth() > 1]
    thin = [line for line in axis.get_lines() if line.get_linewidth() < 1]
    assert (len(thick), len(thin)) == (6, 18), "a mean a label, a thin line a run"
    for line in axis.get_lines():
        assert list(line.get_xdata()) == [20, 40, 60]
    bars = [bar.get_segments()[0] for bar in ends.collections if isinstance(bar, LineCollection)]
    part = summarise(frame, "accuracy").query("labelled == 60")
    assert [tuple(bar[:, 1]) for bar in bars] == [pytest.approx(row) for row in zip(part.low, part.high, strict=True)]
    places = [float(bar[0, 0]) for bar in bars]
    assert min(np.diff(places)) >= 1, "intervals do not cover each other"
    assert not ends.get_lines()


def test_a_stray_value_or_run_flattens_no_axis_and_is_named(tmp_path: Path) -> None:
    frame = study_of(5, tmp_path)
    frame.loc[(frame.label == "random.1") & (frame.cycle == 1), "nll"] = 140.0
    last = (frame.label == "random.2") & (frame.cycle == 3)
    frame.loc[last, ["labelled", "accuracy"]] = [600, 0.977]
    for metric, said in (("nll", "random.1, 20 labels: 140"), ("accuracy", "random.2, 600 labels: 97.7%")):
        fig = plots.curves(frame, metric)
        assert said in " ".join(fig.get_supxlabel().split())
        assert fig.axes[0].get_ylim()[1] < 10
        assert fig.axes[0].get_xlim()[1] < 70
    assert plots.curves(frame[frame.label != "random.2"], "accuracy").get_supxlabel() == ""


def test_of_more_than_eight_labels_each_has_a_panel_with_the_others_in_grey(tmp_path: Path) -> None:
    frame = study_of(9, tmp_path)
    fig = plots.curves(frame, beside={"random.3": "random.1"})
    panels = [axis for axis in fig.axes if axis.get_title()]
    assert [axis.get_title() for axis in panels] == ["random.3"], "of quirks, the labels with a base"
    fig = plots.curves(frame)
    panels = {axis.get_title(): axis for axis in fig.axes if axis.get_title()}
    assert list(panels) == list(dict.fromkeys(frame.label))
    axis = panels["random.3"]
    grey = next(part for part in axis.collections if isinstance(part, LineCollection))
    assert len(grey.get_segments()) == 7
    means = frame[frame.label == "random"].groupby("labelled").accuracy.mean()
    assert axis.get_lines()[0].get_ydata() == pytest.approx(means.to_numpy()), "dashed: random"
    assert len(plots.curves(frame[frame.label != "random.3"]).axes) < 3, "of eight, all together"


def test_ticks_that_would_run_together_are_left_to_the_axis(tmp_path: Path) -> None:
    frame = study_of(2, tmp_path)
    frame["labelled"] = frame["cycle"].map({1: 20, 2: 22, 3: 100})
    axis = plots.curves(frame).axes[0]
    assert not {20, 22} <= set(axis.get_xticks())


def test_small_panels_have_few_ticks(tmp_path: Path) -> None:
    frame = study_of(12, tmp_path)
    frame = pd.concat([frame.assign(cycle=c, labelled=100 * c) for c in range(1, 11)])
    panel = plots.curves(frame).axes[0]
    low, high = panel.get_xlim()
    assert 2 <= len([x for x in panel.get_xticks() if low <= x <= high]) <= 4


def differences() -> pd.DataFrame:
    return pd.DataFrame({
        "name": ["oo4al", "margin", "vaal"], "a": ["oo4al", "margin", "vaal"], "b": "random", "n": 3,
        "difference": [0.05, 0.01, -0.04], "low": [0.03, -0.02, -0.06], "high": [0.07, 0.04, -0.02],
        "shown": [True, False, True], "singles": [[0.04, 0.05, 0.06], [0.0, 0.01, 0.02], [-0.05, -0.04, -0.03]],
    })  # fmt: skip


def test_a_forest_has_the_numbers_and_fills_what_is_shown() -> None:
    axis = plots.forest([("Final accuracy", differences())]).axes[0]
    assert [text.get_text() for text in axis.get_yticklabels()] == ["oo4al", "margin", "vaal"]
    squares = [line for line in axis.get_lines() if line.get_marker() == "s"]
    assert [float(line.get_xdata()[0]) for line in squares] == pytest.approx([5, 1, -4])
    assert [line.get_markerfacecolor() == "white" for line in squares] == [False, True, False]
    assert len({line.get_color() for line in squares}) == 3, "above, not shown, below"
    written = [text.get_text() for text in axis.texts]
    assert written == ["+5.0 (3.0 to 7.0)", "+1.0 (−2.0 to 4.0)", "−4.0 (−6.0 to −2.0)"]


def test_an_interval_that_would_flatten_a_forest_is_cut_and_keeps_its_numbers() -> None:
    table = differences()
    table.loc[1, ["low", "high"]] = [-0.9, 0.92]
    axis = plots.forest([("Final accuracy", table)]).axes[0]
    left, right = axis.get_xlim()
    assert -10 < left < -6
    assert 7 < right < 10
    assert {line.get_marker() for line in axis.get_lines()} >= {"<", ">"}
    assert "+1.0 (−90.0 to 92.0)" in [text.get_text() for text in axis.texts]


def test_beside_small_effects_the_intervals_of_large_ones_are_whole() -> None:
    """As with the quirks on photographs: two effects of nearly nothing, and two of some points with their intervals."""
    means, halves = np.array([0.024, 0.002, 0.0, -0.03]), np.array([0.013, 0.001, 0.001, 0.015])
    table = pd.DataFrame({"name": list("abcd"), "difference": means, "low": means - halves, "high": means + halves,
                          "shown": True, "n": 10, "singles": [[mean] for mean in means]})  # fmt: skip
    axis = plots.forest([("Final accuracy", table)]).axes[0]
    left, right = axis.get_xlim()
    assert left < -4.5
    assert right > 3.7
    assert not {line.get_marker() for line in axis.get_lines()} & {"<", ">"}


def test_a_forest_says_how_many_single_seeds_lie_outside() -> None:
    table = differences()
    assert plots.forest([("Final accuracy", table)]).get_supxlabel().endswith("dots: single seeds")
    table.at[1, "singles"] = [-0.5, 0.01, 0.6]
    assert plots.forest([("Final accuracy", table)]).get_supxlabel().endswith("dots: single seeds (2 more outside)")


def test_names_of_classes_that_lie_on_each_other_are_moved_apart() -> None:
    around = np.random.default_rng(0).normal(size=(1200, 2))
    clouds = {"wide": around, "flat": around * [1, 0], "one point": around * 0, "below": np.vstack([around, [0, 30]])}
    names = ["airplane", "automobile", *(f"a long class {n}"[:14] for n in range(10))]
    for name, points in clouds.items():
        labels = np.arange(len(points)) % 12
        fig = plots.embedding(points, labels, {"random": np.arange(9)}, {"random": "random"}, "pool", names)
        fig.canvas.draw()
        panel, boxes = fig.axes[0].bbox, [text.get_window_extent() for text in fig.axes[0].texts]
        assert len(boxes) == 12
        assert not any(a.overlaps(b) for a, b in itertools.combinations(boxes, 2)), name
        assert all(panel.y0 <= box.y0 and box.y1 <= panel.y1 for box in boxes), name


def test_the_win_matrix_has_both_sides_of_every_pair() -> None:
    axis = plots.win_matrix(differences(), ["oo4al", "margin", "random", "vaal"]).axes[0]
    written = {(text.get_position()[1], text.get_position()[0]): text.get_text() for text in axis.texts}
    assert written == {(0, 2): "+5.0", (2, 0): "−5.0", (1, 2): "+1.0", (2, 1): "−1.0", (3, 2): "−4.0", (2, 3): "+4.0"}
    wide = plots.win_matrix(
        differences().assign(difference=[0.151, 0.01, -0.04]), ["oo4al", "margin", "random", "vaal"]
    )
    assert {"+15", "−4"} <= {text.get_text() for text in wide.axes[0].texts}, "no room for tenths of large differences"
    strong = {tuple(np.round(axis.images[0].get_array()[place], 3)) for place in ((0, 2), (2, 3))}
    assert len(strong) == 1, "shown to be above"
    assert axis.images[0].get_array()[1, 2].min() > 0.8, "a tint: not shown"


def test_a_matrix_of_many_methods_has_a_bar_of_shades_and_no_numbers_over_each_other() -> None:
    for count, texts in ((24, 24 * 23), (25, 0)):
        names = [f"method {n}" for n in range(count)]
        axes = plots.overlap_heatmap(pd.DataFrame(0.05, index=names, columns=names)).axes
        assert (len(axes[0].texts), len(axes)) == (texts, 1 if texts else 2)


def test_one_cell_flattens_no_overlap_map() -> None:
    values = np.full((5, 5), 0.04) + 0.01 * np.arange(5)
    values[1, 3] = values[3, 1] = 1.0
    names = [f"m{n}" for n in range(5)]
    axis = plots.overlap_heatmap(pd.DataFrame(values, index=names, columns=names)).axes[0]
    assert axis.images[0].get_clim()[1] <= 0.1


def test_counts_over_bars_are_at_most_four_letters() -> None:
    assert [briefly(n) for n in (0, 999, 1000, 9499, 9501, 123456)] == ["0", "999", "1k", "9k", "10k", "123k"]


def test_letters_of_any_script_have_a_font_or_are_named(monkeypatch: pytest.MonkeyPatch) -> None:
    assert style.without_letters(["cat", "Katze ü", "a b"]) == ""
    monkeypatch.setattr(style, "families", lambda: ["DejaVu Sans"])
    assert style.without_letters(["猫", "犬", "cat"]) == "犬猫"


def test_a_matrix_has_no_number_where_a_method_meets_itself() -> None:
    names = ["random", "oo4al"]
    matrix = pd.DataFrame([[0.0, 0.2], [0.4, 0.0], [0.4, 0.2]], index=[*names, "column mean"], columns=names)
    texts = [text.get_text() for text in plots.penalty_heatmap(matrix).axes[0].texts]
    assert texts == ["0.20", "0.40", "0.40", "0.20"]


def every_figure(frame: pd.DataFrame) -> dict[str, Any]:
    methods = {label: label for label in ("random", "oo4al", "cmam")}
    shares = pd.DataFrame(0.1, index=[f"a long class name {n}" for n in range(40)], columns=[*methods, "pool"])
    square = pd.DataFrame(np.full((3, 3), 0.5), index=list(methods), columns=list(methods))
    distances = pd.DataFrame({"label": ["random", "oo4al"], "cycle": [2, 2], "distance": [0.4, 0.5]})
    points = np.random.default_rng(0).normal(size=(50, 2))
    queries = {label: np.arange(5) for label in methods}
    record = [{"labelled": 20, "accuracy": 0.5, "ece": 0.1, "oe": 0.1}]
    return {
        "curves": plots.curves(frame),
        "parts": plots.attribution_bars(statistics.attribution(frame)),
        "penalty": plots.penalty_heatmap(statistics.penalty_matrix(frame)),
        "histogram": plots.class_histogram(shares, methods),
        "overlap": plots.overlap_heatmap(square),
        "long names": plots.penalty_heatmap(pd.DataFrame(0.2, *[[f"string_sorted_losses.{n}" for n in "ab"]] * 2)),
        "redundancy": plots.redundancy_curves(distances, methods, "pixels"),
        "embedding": plots.embedding(points, np.arange(50) % 10, queries, methods, "pool", list("0123456789")),
        "accuracy": plots.accuracy_curve(record),
        "calibration": plots.calibration_curve(record),
        "reliability": plots.reliability(predictions()),
        "forest": plots.forest([("Final accuracy", differences())]),
        "wins": plots.win_matrix(differences(), ["oo4al", "margin", "random", "vaal"]),
        "cycles": plots.reliability_by_cycle({"random": predictions(), "oo4al": predictions()}, [1, 2]),
    }


def test_every_figure_is_drawn_without_a_warning_and_can_be_read(frame: pd.DataFrame) -> None:
    for name, fig in every_figure(frame).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fig.canvas.draw()
        titles = [axis.get_title(loc=side) for axis in fig.axes for side in ("left", "center", "right")]
        for text in fig.findobj(matplotlib.text.Text):
            if text.get_text() and text.get_text() in titles:
                box = text.get_window_extent()
                assert fig.bbox.x0 <= box.x0 < box.x1 <= fig.bbox.x1, f"{name}: {text.get_text()!r} is cut off"
        assert fig.get_figwidth() <= plots.WIDTH, f"{name}: no wider than a journal's two columns"
        sizes = [text.get_fontsize() for text in fig.findobj(matplotlib.text.Text) if text.get_text().strip()]
        assert min(sizes) >= 7, f"{name}: letters that a journal prints"


def test_plots_know_nothing_of_the_learner() -> None:
    for file in Path(plots.__file__).parent.glob("*.py"):
        assert "learner" not in file.read_text()
        assert "training import" not in file.read_text()
