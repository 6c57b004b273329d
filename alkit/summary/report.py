"""The sections of a summary, in the order a sceptic asks. Each shows what it found and saves the same numbers."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial, wraps

import numpy as np
import pandas as pd

from alkit import calibration, plots, published
from alkit.errors import AlkitError
from alkit.plots.curves import NAMES
from alkit.statistics import LEVEL
from alkit.summary import page, queried, tables
from alkit.summary.study import StudyFolder
from alkit.summary.tables import fixed, whole

Section = Callable[[StudyFolder], None]
MOST_DIAGRAMS = 12
MOST_CYCLES = 5
"""Columns of the reliability diagrams; the table of them has every cycle."""


def section(function: Section) -> Section:
    """A section of a study without finished runs says so; one that lacks a file says which."""

    @wraps(function)
    def shown(study: StudyFolder) -> None:
        if not len(study.frame) and function.__name__ not in ("what_it_is", "what_there_is"):
            page.say("Nothing to show yet: no run of this study has finished.")
            return
        try:
            function(study)
        except AlkitError as error:
            page.say(f"Not shown: {error}", warn=True)

    return shown


@section
def what_it_is(study: StudyFolder) -> None:
    """The study's title and description."""
    page.heading(study.title, level=2)
    if study.file is not None and study.file.description:
        page.say(" ".join(study.file.description.split()))


@section
def what_there_is(study: StudyFolder) -> None:
    """Which runs are finished, and what became of the others."""
    state = study.state
    done = int((state["state"] == "finished").sum())
    if done == len(state) and done and not study.problems:
        page.say(f"Complete: all {done} runs have finished.")
    else:
        counts = state["state"].value_counts()
        rest = ", ".join(f"{counts[name]} {name}" for name in ("running", "failed", "missing") if name in counts)
        page.say(
            f"This summary is of a part of the study: {done} of {len(state)} runs have finished"
            f"{f' ({rest})' if rest else ''}. What follows is correct for the finished runs.",
            warn=True,
        )
    if study.file is None:
        page.say("There is no study.yaml: which runs should be here is not known, only which were begun.", warn=True)
    if study.left_out:
        page.say(f"Of {study.dataset} only; not in this summary: {', '.join(study.left_out)}.", warn=True)
    page.table(study, "completeness", tables.completeness(study), "Runs", {})
    rest_of = tables.unfinished(study)
    if len(rest_of):
        page.table(study, "unfinished", rest_of, "Not finished, or left out, and why",
                   dict.fromkeys(("seed", "cycle", "cycles"), whole))  # fmt: skip


@section
def how_it_was_run(study: StudyFolder) -> None:
    """The parameters, and what the runs ran with."""
    for label in tables.unlike(study):
        page.say(f"The runs of {label} were not all made with the same parameters: do not average them.", warn=True)
    page.table(study, "parameters", tables.protocol(study), "All parameters", {}, folded=True)
    page.table(study, "environment", tables.environment(study), "What the runs ran with", {})


@section
def which_is_better(study: StudyFolder) -> None:
    """Accuracy against labels, and the tables of it."""
    known = published.load()
    page.figure(study, "accuracy", plots.curves(study.frame, "accuracy", known[known["dataset"] == study.dataset]),
                "accuracy against labelled images, a curve a method")  # fmt: skip
    early = sorted(set(study.frame.loc[study.frame["reveals_within_cycle"] == True, "label"]))  # noqa: E712
    if early:
        page.say(f"{', '.join(early)}: labels are revealed one at a time while the query is made; other methods see "
                 "theirs at its end.")  # fmt: skip
    results = tables.results(study)
    if results["seeds"].nunique() > 1:
        page.say("The methods have different numbers of finished seeds, so their means are over different seeds; "
                 "the tests below compare only seeds that both have.", warn=True)  # fmt: skip
    page.table(
        study, "results", results, "Final accuracy and area under the budget curve, in percent", tables.RESULT_FORMATS
    )
    page.table(study, "curves", tables.curve_points(study), "Every point of the curves (fractions)",
               {name: fixed(4) for name in ("mean", "low", "high")}, folded=True)  # fmt: skip


@section
def how_sure(study: StudyFolder) -> None:
    """Tests paired by seed."""
    for measure, name in (("accuracy", "final accuracy"), ("area", "area under the budget curve")):
        found = tables.pairs(study, measure)
        page.heading(f"Differences in {name}")
        if not len(found):
            curve = "have a curve and " if measure == "area" else ""
            page.say(f"Fewer than two methods {curve}end at the same number of labels: nothing can be tested.")
            continue
        known, shown = int(found["p"].notna().sum()), int((found["p_holm"] < LEVEL).sum())
        page.say(f"Of {known} comparisons that could be tested, {shown} show a difference after Holm's correction.")
        page.items(tables.sentences(found))
        page.table(study, f"tests_{measure}", tables.in_points(found), f"Paired by seed: {name}, a − b in points",
                   tables.TEST_FORMATS)  # fmt: skip
    matrix = tables.penalty(study)
    if len(matrix) > 1:
        page.heading("Penalty matrix")
        others = matrix.to_numpy(copy=True)
        np.fill_diagonal(others, np.nan)
        mean = pd.DataFrame([pd.DataFrame(others, columns=matrix.columns).mean()], index=["column mean"])
        with_mean = pd.concat([matrix, mean])
        page.figure(study, "penalty", plots.penalty_heatmap(with_mean), "at how many budgets the row beats the column")
        page.table(study, "penalty", with_mean.rename_axis("beats").reset_index(), "The penalty matrix as a table",
                   {str(name): fixed(3) for name in matrix.columns}, folded=True)  # fmt: skip


@section
def selection_or_training(study: StudyFolder) -> None:
    """OO4AL's gap to random, split by its controls."""
    parts = tables.attribution(study)
    if not len(parts):
        page.say("Not shown: it needs finished runs of oo4al, cmam, ranked_margin and random with the same seeds.")
        return
    page.figure(study, "attribution", plots.attribution_bars(parts), "training's and selection's part of the gap")
    page.table(study, "attribution", tables.attribution_means(parts), "oo4al − random, in points of accuracy",
               {"cycle": whole, "labels": whole, "seeds": whole} | dict.fromkeys(
                   ("gap", "training", "training low", "training high", "selection", "selection low", "selection high",
                    "training, if first", "selection, if first"), fixed(2)))  # fmt: skip
    check = 100 * float(parts["check"].max())
    if check > 0:
        page.say(f"At cycle 1 the controls differ by up to {check:.2f} points where they should not: the device's "
                 "rounding, or runs that were not made alike.", warn=True)  # fmt: skip


@section
def is_it_calibrated(study: StudyFolder) -> None:
    """Curves of NLL, ECE, OE and Brier score, reliability diagrams, and temperature scaling."""
    for measure in ("nll", "ece", "oe", "brier"):
        page.figure(study, measure, plots.curves(study.frame, measure), f"{NAMES[measure][0]} against labelled images")
    measured = tables.calibration(study)
    names = [name for name in measured.columns if name not in ("label", "seeds", "labels")]
    page.table(study, "calibration", measured, "Calibration at the last cycle", dict.fromkeys(names, fixed(4)))
    arrays = {}
    for label in study.labels[:MOST_DIAGRAMS]:
        runs = study.predictions(label)
        shapes = {run["confidence"].shape for run in runs}
        if len(shapes) == 1:
            arrays[label] = {name: np.concatenate([run[name] for run in runs], axis=1) for name in runs[0]}
    if arrays:
        last = max(len(value["confidence"]) for value in arrays.values())
        cycles = sorted({round(1 + place * (last - 1) / (MOST_CYCLES - 1)) for place in range(MOST_CYCLES)})
        page.heading("Reliability")
        page.figure(study, "reliability", plots.reliability_by_cycle(arrays, cycles), "reliability diagrams")
        page.table(study, "reliability", reliability(arrays), "Every bin of every cycle", {
            "cycle": whole, "from": fixed(3), "to": fixed(3), "images": whole, "confidence": fixed(4),
            "accuracy": fixed(4)}, folded=True)  # fmt: skip
    temperature_scaling(study)


def reliability(arrays: Mapping[str, Mapping[str, np.ndarray]]) -> pd.DataFrame:
    """The bins of the reliability diagrams that hold an image, of every label and cycle."""
    rows = []
    for label, values in arrays.items():
        for cycle, (confidence, correct) in enumerate(zip(values["confidence"], values["correct"], strict=True), 1):
            bins = calibration.calibration_errors(confidence, correct, plots.BINS).bins
            for place in np.flatnonzero(bins.count):
                rows.append((label, cycle, bins.edges[place], bins.edges[place + 1], bins.count[place],
                             bins.confidence[place], bins.accuracy[place]))  # fmt: skip
    names = ["label", "cycle", "from", "to", "images", "confidence", "accuracy"]
    return pd.DataFrame.from_records(rows, columns=names)


def temperature_scaling(study: StudyFolder) -> None:
    """Confidence of the last cycle before and after one temperature."""
    pairs, rows = {}, []
    for label in study.labels[:MOST_DIAGRAMS]:
        states: list[tuple[np.ndarray, ...]] = []
        for run in study.predictions(label, ("logits_last", "labels")):
            states.append(rescaled(run["logits_last"], run["labels"]))
        if states:
            before, correct, after, heat = (np.concatenate([s[part] for s in states]) for part in range(4))
            pairs[label] = ((before, correct), (after, correct))
            errors = [calibration.calibration_errors(c, correct, plots.BINS).ece for c in (before, after)]
            rows.append({"label": label, "temperature": heat.mean(), "ECE before": errors[0], "ECE after": errors[1]})
    if not pairs:
        return
    page.heading("Before and after temperature scaling, last cycle")
    page.figure(study, "temperature_scaling", plots.before_and_after(pairs), "reliability before and after scaling")
    page.table(study, "temperature_scaling", pd.DataFrame(rows), "Temperature scaling across halves of the test images",
               {"temperature": fixed(3), "ECE before": fixed(4), "ECE after": fixed(4)})  # fmt: skip


def rescaled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Confidence (n,) before, correctness, confidence after, and temperature of each image's half.

    Logits (n, C): each half of the images is divided by the temperature that the other half asks for.
    """
    values, truth = logits.astype(np.float64), labels.astype(np.int64)
    half = np.random.default_rng(0).permutation(len(truth)) % 2
    heat = np.ones(len(truth))
    for side in (0, 1):
        if (half != side).any():
            heat[half == side] = calibration.fit_temperature(values[half != side], truth[half != side])
    return _confidence(values), values.argmax(1) == truth, _confidence(values / heat[:, None]), heat


def _confidence(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted.max(1) / shifted.sum(1))


def what_was_asked_for(study: StudyFolder, cycle: int = 2) -> None:
    """Classes, pictures, overlap, redundancy and a map of what was bought; `cycle` is the query shown in pictures."""
    parts = (_classes, _overlap, partial(_pictures, cycle=cycle), _redundancy, partial(_map, cycle=cycle))
    for part in parts if len(study.frame) else parts[:1]:
        section(part)(study)


def _classes(study: StudyFolder) -> None:
    shares = queried.class_shares(study)
    if not shares.shape[1] or list(shares.columns) == ["pool"]:
        page.say("Nothing was bought after the first labels.")
        return
    page.figure(study, "query_classes", plots.class_histogram(shares, study.methods), "classes of what was bought")
    table = (100 * shares).rename_axis("class").reset_index()
    page.table(study, "query_classes", table, "Share of each class among what was bought, in percent",
               dict.fromkeys(map(str, shares.columns), fixed(2)), folded=True)  # fmt: skip


def _overlap(study: StudyFolder) -> None:
    matrix, chance = queried.overlap(study)
    if len(matrix) < 2:
        return
    page.heading("Do the methods ask for the same images?")
    page.figure(study, "overlap", plots.overlap_heatmap(matrix), "Jaccard overlap of what was bought")
    page.table(study, "overlap", matrix.reset_index(), "As a table: images in common over images in either, same seed",
               dict.fromkeys(map(str, matrix.columns), fixed(3)), folded=True)  # fmt: skip
    page.say(
        f"Mean over the seeds that both have. Two random choices of this size would overlap by about {chance:.3f}."
    )


def _pictures(study: StudyFolder, cycle: int) -> None:
    page.heading(f"The first images bought for cycle {cycle}")
    train, rows, seeds = study.images, {}, set()
    for label in study.same_images[:MOST_DIAGRAMS]:
        for seed, cycles in list(study.queries(label).items())[:1]:
            if cycle in cycles and cycles[cycle].max() < len(train):
                rows[label] = cycles[cycle]
                seeds.add(seed)
    if not rows:
        page.say(f"No run bought anything for cycle {cycle}.")
        return
    name = f"seed {', '.join(map(str, sorted(seeds)))}, in the order asked"
    page.figure(study, "queries", plots.query_rows(train, rows, title=name), "the first images each method bought")


def _redundancy(study: StudyFolder) -> None:
    page.heading("How redundant is a query?")
    distances = queried.redundancy(study)
    if not len(distances):
        page.say("No query of more than one image.")
        return
    methods = {label: study.methods[label] for label in study.same_images}
    page.figure(study, "redundancy", plots.redundancy_curves(distances, methods, "pixels from 0 to 1"),
                "distance within a query")  # fmt: skip
    means = distances.pivot_table(index="label", columns="cycle", values="distance", sort=False).sort_index(axis=1)
    means.columns = [f"cycle {cycle}" for cycle in means.columns]
    page.table(study, "redundancy", means.reset_index(), "Mean distance to the nearest other image of the query",
               dict.fromkeys(means.columns, fixed(3)))  # fmt: skip


def _map(study: StudyFolder, cycle: int) -> None:
    points, classes, places, seed = queried.pool_map(study, cycle)
    if places:
        page.heading(f"Where in the pool? The query for cycle {cycle}")
        title, names = f"t-SNE of the pool's pixels, seed {seed}", study.images.class_names
        page.figure(study, "map", plots.embedding(points, classes, places, study.methods, title, names),
                    "map of the pool")  # fmt: skip


@section
def what_it_costs(study: StudyFolder) -> None:
    """Wall time."""
    page.table(study, "times", tables.times(study), "Mean wall time in seconds", dict.fromkeys(
        ("training", "evaluation", "a query", "a cycle", "a run"), fixed(2)))  # fmt: skip


@section
def beside_what_was_published(study: StudyFolder) -> None:
    """Every published number of this data set beside ours."""
    table = tables.beside_published(study)
    if not len(table):
        page.say(f"No number published for {study.dataset} is known to this kit.")
        return
    numbers = ("published", "tolerance", "ours", "deviation", "difference")
    formats = dict.fromkeys(numbers, fixed(2)) | {"seeds": whole}
    page.table(study, "published", table, "Published and ours, accuracy in percent", formats,
               only_saved=("source", "protocol", "note"))  # fmt: skip
    page.table(study, "published_protocols", tables.published_protocols(table),
               "The sources, and in what our runs differ from theirs", {})  # fmt: skip
