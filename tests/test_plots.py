"""Figures: the same look everywhere, text as it stands, sizes that can be read, and the numbers of the records."""

from __future__ import annotations

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
from alkit.methods import METHODS
from alkit.plots.curves import summarise
from alkit.plots.style import plain


@pytest.fixture(autouse=True)
def _close() -> Iterator[None]:
    yield
    plt.close("all")


@pytest.fixture(scope="module")
def frame(tmp_path_factory: pytest.TempPathFactory) -> pd.DataFrame:
    planted = {"random": 0.0, "ranked_margin": 0.01, "cmam": 0.02, "oo4al": 0.03, "whole_dataset": 0.05}
    return records.load_runs(write_study(tmp_path_factory.mktemp("plots") / "study", planted, seeds=3, cycles=4))


def look(style: plots.Style) -> tuple[Any, ...]:
    return (style.colour, style.marker, style.dash, style.hollow)


def test_no_two_methods_look_alike() -> None:
    looks = [look(plots.method_style(method)) for method in METHODS]
    assert len(set(looks)) == len(METHODS)
    in_grey = [(style[1], style[2]) for style in looks]
    assert len(set(in_grey)) == len(METHODS), "marker and line tell them apart without colour"


def test_a_method_looks_the_same_whatever_is_beside_it() -> None:
    alone = plots.styles({"oo4al": "oo4al"})["oo4al"]
    among = plots.styles({method: method for method in METHODS})["oo4al"]
    assert alone == among == plots.method_style("oo4al")


def test_variants_have_their_methods_colour_and_a_look_of_their_own() -> None:
    labels = {"pt4al": "pt4al"} | {f"pt4al_{n}": "pt4al" for n in range(12)}
    found = plots.styles(labels)
    assert len({look(style) for style in found.values()}) == 13
    assert len({style.colour for style in found.values()}) == 1
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
    assert "points: single runs" in title
    two = plots.curves(frame[frame.seed < 2]).axes[0].get_legend().get_title().get_text()
    assert "bars: range of two seeds" in two
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


@pytest.mark.parametrize("metric", ["nll", "ece", "oe", "brier"])
def test_every_measure_has_its_curve(frame: pd.DataFrame, metric: str) -> None:
    line = plots.curves(frame, metric).axes[0].get_lines()[0]
    assert line.get_ydata()[0] == pytest.approx(
        frame[(frame.label == line.get_label()) & (frame.cycle == 1)][metric].mean()
    )


def test_a_study_of_nothing_gives_an_empty_picture(frame: pd.DataFrame) -> None:
    plots.curves(frame.iloc[:0])


def test_runs_on_the_whole_pool_alone_are_points_at_their_labels(frame: pd.DataFrame) -> None:
    whole = frame[frame.label == "whole_dataset"]
    axis = plots.curves(whole).axes[0]
    left, right = axis.get_xlim()
    assert left < whole.labelled.iloc[0] < right
    assert len(axis.collections[-1].get_offsets()) == whole.seed.nunique()


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
    written = {text.get_text() for text in axis.texts}
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


def test_intervals_of_methods_at_the_same_labels_do_not_cover_each_other(frame: pd.DataFrame) -> None:
    bars = [bar for bar in plots.curves(frame).axes[0].collections if isinstance(bar, LineCollection)]
    places = [float(bar.get_segments()[0][0, 0]) for bar in bars]
    assert len(bars) == 4
    assert min(np.diff(places)) > 1, "of 20 labels between two cycles"
    low, high = bars[list(dict.fromkeys(frame.label)).index("oo4al")].get_segments()[0][:, 1]
    part = summarise(frame, "accuracy").query("label == 'oo4al' and labelled == 20").iloc[0]
    assert (low, high) == pytest.approx((part.low, part.high))


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
        "redundancy": plots.redundancy_curves(distances, methods, "pixels"),
        "embedding": plots.embedding(points, np.arange(50) % 10, queries, methods, "pool", list("0123456789")),
        "accuracy": plots.accuracy_curve(record),
        "calibration": plots.calibration_curve(record),
        "reliability": plots.reliability(predictions()),
        "cycles": plots.reliability_by_cycle({"random": predictions(), "oo4al": predictions()}, [1, 2]),
    }


def test_every_figure_is_drawn_without_a_warning_and_can_be_read(frame: pd.DataFrame) -> None:
    for name, fig in every_figure(frame).items():
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            fig.canvas.draw()
        assert fig.get_figwidth() <= 11, name
        assert fig.dpi == 110, name
        sizes = [text.get_fontsize() for text in fig.findobj(matplotlib.text.Text) if text.get_text().strip()]
        assert min(sizes) >= 7.5, name


def test_plots_know_nothing_of_the_learner() -> None:
    for file in Path(plots.__file__).parent.glob("*.py"):
        assert "learner" not in file.read_text()
        assert "training import" not in file.read_text()
