"""The sections of a summary, a reader's question each. Each shows what it found and saves the same numbers."""

from __future__ import annotations

from functools import partial

import numpy as np
import pandas as pd

from alkit import plots, statistics
from alkit.analysis import published, quirk_effects
from alkit.analysis.summary import page, queried, tables, web
from alkit.analysis.summary.calibrated import is_it_calibrated as is_it_calibrated
from alkit.analysis.summary.cautions import at_the_first_cycle, cautions
from alkit.analysis.summary.page import MOST_DIAGRAMS, MOST_UNFOLDED, section
from alkit.analysis.summary.study import BASELINE, StudyFolder
from alkit.analysis.summary.tables import fixed, signed, whole
from alkit.analysis.summary.verdict import verdict
from alkit.data import ImageSet
from alkit.errors.words import counted, every, listed
from alkit.methods import METHODS


@section
def what_it_is(study: StudyFolder) -> None:
    """The study's title, the verdict of its tests, its cautions and its description."""
    page.heading(web.title_of(study.path), level=1)
    page.items(verdict(study), verdict=True)
    page.say(*cautions(study), warn=True)
    if len(study.frame):
        page.explain(
            "What these words mean",
            "*point*: one hundredth of accuracy. *seed*: what a run's random numbers begin with; runs of one method "
            "differ by it alone.",
            "*95% interval*: if the study were repeated many times, 95 of 100 such intervals would hold the true "
            "difference. One that holds 0 leaves open which is better.",
            "*shown*: chance alone would rarely give this difference (*p* below 0.05). With many comparisons some "
            "look so by chance, so each has to pass a stricter test: that is *Holm's correction*. *Not shown* does "
            "not mean *equal*.",
            "*Four such studies in five would have found …*: a true difference of that size is found by a study like "
            "this one in four cases of five. A smaller one may be there and not be seen.",
            "*labels*: images with a label. *ECE*: how far confidence and accuracy are apart (below: Is the model "
            "calibrated?).",
        )
    if study.file is not None and study.file.description:
        page.say(" ".join(study.file.description.split()), code=True)


@section
def what_there_is(study: StudyFolder) -> None:
    """Which runs are finished, and what became of the others."""
    state = study.state
    done = int((state["state"] == "finished").sum())
    rest_of = tables.unfinished(study)
    if done == len(state) and done and not len(rest_of):
        page.say(f"Complete: {every(done, 'run')} {'has' if done == 1 else 'have'} finished.")
    else:
        page.say(f"{done} of {counted(len(state), 'run')} have finished.")
    page.table(study, "completeness", tables.completeness(study), "Runs", {}, folded=not len(rest_of))
    if len(rest_of):
        page.table(study, "unfinished", rest_of, "Not finished, or left out, and why",
                   dict.fromkeys(("seed", "cycle", "cycles"), whole), folded=len(rest_of) > MOST_UNFOLDED)  # fmt: skip


@section
def how_it_was_run(study: StudyFolder) -> None:
    """The parameters, and what the runs ran with."""
    page.table(study, "parameters", tables.protocol(study), "All parameters", {}, folded=True)
    page.table(study, "environment", tables.environment(study), "What the runs ran with", {})
    page.say("Every table of this page is also a CSV file in tables/, every figure a PNG and, for print, a PDF in "
             "figures/, with the same numbers.")  # fmt: skip


@section
def which_is_better(study: StudyFolder) -> None:
    """Accuracy against labels, and the tables of it."""
    if study.switches:
        page.figure(study, "switches", quirk_effects.forest(quirk_effects.effects(study.path)),
                    "what each switch changes, with its interval")  # fmt: skip
    known = published.load()
    known = known[known["dataset"] == study.dataset]
    page.figure(study, "accuracy", plots.curves(study.frame, "accuracy", known, beside=study.bases),
                "accuracy against labelled images, a curve a method")  # fmt: skip
    early = sorted(set(study.frame.loc[study.frame["reveals_within_cycle"] == True, "label"]))  # noqa: E712
    if early:
        page.say(f"{', '.join(early)}: labels are revealed one at a time while the query is made; other methods see "
                 "theirs at its end.")  # fmt: skip
    results = tables.results(study)
    empty = tuple(str(name) for name in results.columns if results[name].isna().all())
    page.table(study, "results", results, "Final accuracy and area under the budget curve, in percent",
               tables.RESULT_FORMATS, only_saved=empty)  # fmt: skip
    said = (
        "*balanced*: the accuracy of each class, averaged over the classes: a rare one counts as much as a common one."
    )
    page.explain(
        "What the columns are",
        "*accuracy*, *sd*: mean and deviation over seeds at the last cycle.",
        "*low*, *high*: Student's 95% interval of that mean over seeds; of two seeds their range.",
        *([said] if "balanced" in results else []),
        "*area*: the mean height of the curve over the range of labels; a method that is at 80% all the time has an "
        "area of 80%.",
        f"*labels to baseline*: with how many labels the mean curve reaches the final accuracy of `{BASELINE}`, also "
        f"in percent of the labels that `{BASELINE}` needed; empty where it never does.",
    )
    page.table(study, "curves", tables.curve_points(study), "Every point of the curves (fractions)",
               {name: fixed(4) for name in ("mean", "low", "high")}, folded=True)  # fmt: skip


@section
def how_sure(study: StudyFolder) -> None:
    """Tests paired by seed."""
    tested = False
    for measure, name in (("accuracy", "final accuracy"), ("area", "area under the budget curve")):
        found = tables.pairs(study, measure)
        known, shown = int(found["p"].notna().sum()), int(found["p_holm"].map(statistics.is_shown).sum())
        if not known:
            why = "no two methods share two seeds" if len(found) else "fewer than two methods end at the same labels"
            page.say(f"Differences in {name}: {why}, so nothing can be tested.")
            continue
        tested = True
        page.heading(f"Differences in {name}")
        if known > 1:
            page.say(f"Of {counted(known, 'comparison')}, {shown or 'none'} "
                     f"{'shows' if shown < 2 else 'show'} a difference after Holm's correction.")  # fmt: skip
        drawn = _differences(study, measure, name, found)
        page.items(tables.sentences(found), folded="In words" if drawn or study.switches else "")
        page.table(study, f"tests_{measure}", tables.in_points(found), f"Paired by seed: {name}, a − b in points",
                   tables.TEST_FORMATS, folded=known > 1)  # fmt: skip
    if tested:
        page.explain(
            "How the tests are made",
            "Each switch is tested against the same method without it, paired by seed."
            if study.switches
            else "Every pair of methods that end at the same number of labels is tested, paired by seed.",
            "*low*, *high*: Student's 95% interval of the difference; of two seeds the range of their differences.",
            "*p*: paired t-test; *p holm*: corrected for all pairs of the table. A difference is called *shown* where "
            "this is below 0.05, and never otherwise.",
            "*wilcoxon p*: exact signed-rank test, which with n seeds cannot fall below 2/2ⁿ (0.25 for three).",
            "*effect*: Cohen's d_z, the mean difference divided by the deviation of the differences, and its 95% "
            "interval.",
            "*4 in 5 find*: the true difference that four such studies in five would find (power 80%), if this pair "
            "were the only one tested.",
        )
        _penalty(study)


def _differences(study: StudyFolder, measure: str, name: str, found: pd.DataFrame) -> bool:
    """A forest of the differences to the baseline, and, of many methods, who is above whom; whether any was shown."""
    if study.switches:
        return False  # their forest is the page's first picture
    drawn = tables.to_draw(found)
    beside = tables.against_baseline(drawn)
    if len(beside) > 1:
        page.figure(study, f"forest_{measure}", plots.forest([(f"{name.capitalize()}, above {BASELINE}", beside)]),
                    f"differences to {BASELINE} in {name}, with their intervals")  # fmt: skip
    if len({*found["a"], *found["b"]}) > plots.MOST_TOGETHER:
        page.figure(study, f"wins_{measure}", plots.win_matrix(drawn, study.labels), f"who is above whom in {name}",
                    folded="" if measure == "accuracy" else "Who is above whom")  # fmt: skip
    return len(beside) > 1


def _penalty(study: StudyFolder) -> None:
    matrix = tables.penalty(study)
    if len(matrix) < 2 or study.switches:
        return
    page.heading("Penalty matrix")
    others = matrix.to_numpy(copy=True)
    np.fill_diagonal(others, np.nan)
    mean = pd.DataFrame([pd.DataFrame(others, columns=matrix.columns).mean()], index=["column mean"])
    with_mean = pd.concat([matrix, mean])
    page.figure(study, "penalty", plots.penalty_heatmap(with_mean), "at how many budgets the row beats the column",
                folded="The penalty matrix" if len(matrix) > plots.MOST_TOGETHER else "")  # fmt: skip
    page.table(study, "penalty", with_mean.rename_axis("beats").reset_index(), "The penalty matrix as a table",
               {str(name): fixed(3) for name in matrix.columns}, folded=True)  # fmt: skip
    page.explain(
        "What the penalty matrix is",
        "How often the method of a row beats the method of a column: the share of the numbers of labels at which a "
        "paired t-test (p below 0.05) finds it better (Ash et al., ICLR 2020). It is not corrected for many "
        "comparisons: of two methods that are the same, each wins at about one number of labels in forty.",
        "The lower the mean of a method's column, the less often it is beaten.",
    )


@section
def selection_or_training(study: StudyFolder) -> None:
    """OO4AL's gap to random, split by its controls."""
    parts = statistics.attribution(study.frame)
    if not len(parts):
        page.say(
            "Not answered here: it is asked of oo4al, and needs finished runs of oo4al, cmam, ranked_margin and random "
            "with the same seeds."
        )
        return
    check = float(parts["check"].max())
    if check > 0:
        page.say(at_the_first_cycle(check), warn=True)
    page.figure(study, "attribution", plots.attribution_bars(parts), "training's and selection's part of the gap")
    ends = [f"{name}{end}" for name in ("gap", "training", "selection") for end in ("", " low", " high")]
    page.table(study, "attribution", tables.attribution_means(parts), "oo4al above random, in points of accuracy",
               {"cycle": whole, "labels": whole, "seeds": whole} | dict.fromkeys(
                   (*ends, "training, if first", "selection, if first"), fixed(2)))  # fmt: skip
    page.explain(
        "What the columns are",
        "OO4AL changes both; its controls change one each: `cmam` the training, `ranked_margin` the selection.",
        "*training* and *selection* are the means of both orders (training first, or selection first) and add up to "
        "the *gap*; *if first* is what each gives when it is added first: `cmam` or `ranked_margin` above `random`.",
        "*low*, *high*: Student's 95% interval over seeds, paired by seed as in the tests; of two seeds the range.",
        "At cycle 1 no method has selected anything yet, so the selection's part is 0.",
    )


def what_was_asked_for(study: StudyFolder, cycle: int = 2) -> None:
    """Classes, pictures, overlap, redundancy and a map of what was bought; `cycle` is the query shown in pictures."""
    section(_classes)(study)
    if not len(study.frame):
        return
    if not any(study.queries(label) for label in study.choosing):
        page.say(
            "What was bought is not shown image by image: the runs' queries.npz are not in this folder, or damaged."
        )
        return
    cycle = min(cycle, int(study.frame["cycle"].max()))
    section(_overlap)(study)
    section(partial(_of_images, cycle=cycle))(study)


def _of_images(study: StudyFolder, cycle: int) -> None:
    """What needs the images; where they cannot be had, that is said once."""
    _pictures(study, study.images, cycle)
    files = queried.files_bought(study)
    if len(files):
        page.table(study, "files_bought", files, "The files bought, in the order asked, by the first seeds", {},
                   folded=True)  # fmt: skip
    _redundancy(study)
    _map(study, cycle)


def _classes(study: StudyFolder) -> None:
    shares = queried.class_shares(study)
    if not shares.shape[1] or list(shares.columns) == ["pool"]:
        page.say("Nothing was bought after the first labels.")
        return
    rows = [METHODS.get(study.methods[label]) for label in study.choosing]
    if sum(row is not None and row.strategy == "random" for row in rows) > 1:
        page.say("Methods that draw at random draw the same images for the same seed, so what tells them apart is the "
                 "training alone.")  # fmt: skip
    page.figure(study, "query_classes", plots.class_histogram(shares, study.methods), "classes of what was bought")
    table = (100 * shares).rename_axis("class").reset_index()
    page.table(study, "query_classes", table, "Share of each class among what was bought, in percent",
               dict.fromkeys(map(str, shares.columns), fixed(2)), folded=True)  # fmt: skip


def _overlap(study: StudyFolder) -> None:
    matrix, chance, common = queried.overlap(study)
    if len(matrix) < 2:
        return
    page.heading("Do the methods ask for the same images?")
    page.figure(study, "overlap", plots.overlap_heatmap(matrix), "Jaccard overlap of what was bought")
    page.table(study, "overlap", matrix.reset_index(), "As a table: images in common over images in either, same seed",
               dict.fromkeys(map(str, matrix.columns), fixed(3)), folded=True)  # fmt: skip
    page.say(
        f"Mean over the seeds that both have. Two that choose at random, each on its own, would overlap by about "
        f"{chance:.3f}"
        + ("." if len(common) == len(matrix) else f" if they buy as many images as {listed(common)}.")
        + " Methods whose rule is random share their draws: they overlap by 1."
    )


def _pictures(study: StudyFolder, train: ImageSet, cycle: int) -> None:
    page.heading(f"The first images bought for cycle {cycle}")
    rows, seeds = {}, set()
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
    if len(methods) <= plots.MOST_TOGETHER:
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
    page.say(
        "As the runs measured it; where other programs ran at the same time, it does not compare methods. What comes "
        "before the first cycle (loading images, PT4AL's pretext task) is not counted."
    )


@section
def beside_what_was_published(study: StudyFolder) -> None:
    """Every published number of this data set beside ours."""
    table = tables.beside_published(study)
    if not len(table):
        page.say(f"No number published for {study.dataset} is known to this kit.")
        return
    numbers = ("published", "tolerance", "ours", "deviation", "difference", "reach")
    formats = dict.fromkeys(numbers, fixed(2)) | {"seeds": whole, "difference": signed(2)}
    page.table(study, "published", table, "Published and ours, accuracy in percent", formats,
               only_saved=("source", "protocol", "note", "reach"))  # fmt: skip
    page.table(study, "published_protocols", tables.published_protocols(table),
               "The sources, and in what our runs differ from theirs", {}, folded=True)  # fmt: skip
    page.explain(
        "What the columns are",
        "*tolerance*: how far the reading of the published number can be off, in points; *deviation*: ours, over "
        "seeds.",
        "*verdict*: only where the protocols are the same. Ours *agrees* if it is no farther off than the error of "
        "reading and half of the 95% interval of our mean together. How much theirs varies is not counted.",
        "*at* is the line of the second table: where the number was published, and in what our runs differ from it.",
    )
