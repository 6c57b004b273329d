"""A summary's section on calibration: curves, reliability diagrams, and what one temperature could mend."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import pandas as pd

from alkit import calibration, plots
from alkit.analysis.plots.curves import NAMES
from alkit.analysis.summary import page, tables
from alkit.analysis.summary.page import MOST_DIAGRAMS, section
from alkit.analysis.summary.study import StudyFolder
from alkit.analysis.summary.tables import fixed, signed, whole
from alkit.errors.words import counted

MOST_CYCLES = 5
"""Columns of the reliability diagrams; the table of them has every cycle."""


@section
def is_it_calibrated(study: StudyFolder) -> None:
    """Curves of ECE, its signed gap, OE, NLL and Brier score, reliability diagrams, and temperature scaling."""
    for measure in ("ece", "gap", "oe", "nll", "brier"):
        if study.frame[measure].notna().any():
            alt = f"{NAMES[measure][0]} against labelled images"
            page.figure(study, measure, plots.curves(study.frame, measure, beside=study.bases), alt,
                        folded="" if measure in ("ece", "gap") else NAMES[measure][1])  # fmt: skip
    measured = tables.calibration(study)
    names = [name for name in measured.columns if name not in ("label", "seeds", "labels", "bins")]
    caption = f"Calibration at the last cycle; ECE and OE in {tables.bins_of(study)} bins"
    page.table(study, "calibration", measured, caption,
               dict.fromkeys(names, fixed(4)) | {"gap": signed(4)},
               only_saved=tuple(name for name in names if measured[name].isna().all()))  # fmt: skip
    page.explain(
        "What the columns are",
        "*ece*: expected calibration error. Images are sorted by confidence into bins of equal width; it is the mean "
        "distance of confidence from accuracy over the bins. With few images it grows with the number of *bins*, so "
        "compare only where that is the same.",
        "*gap*: mean confidence − accuracy. Above 0 the model is overconfident, below 0 underconfident; it needs no "
        "bins, and older records do not have it.",
        "*oe*: overconfidence error, what OO4AL's paper reports: only bins that are too confident count, each "
        "weighted by its confidence. *ace*: ECE over bins of equally many images.",
        "*…_with_temperature*: some methods divide their logits by a temperature, but their program reports the model "
        "without it; these columns are the model with it.",
    )
    arrays = gathered(study)
    if not arrays:
        page.say("Reliability diagrams are not shown: the runs' predictions.npz are not in this folder.")
        return
    _diagrams(study, arrays)
    page.table(study, "reliability", reliability(arrays), "Every bin of every cycle", {
        "cycle": whole, "from": fixed(3), "to": fixed(3), "images": whole, "confidence": fixed(4),
        "accuracy": fixed(4)}, folded=True)  # fmt: skip
    page.explain(
        "How to read the diagrams",
        f"The test images of all seeds together, in {plots.BINS} bars: how many of the images given that confidence "
        "are classified correctly. Hatched is the gap to the mean confidence; bars of fewer than ten images are pale. "
        "Below: how many images were given that confidence and, dashed, the mean confidence.",
        "The numbers over a diagram are those of the tables: the mean over seeds of each run's own.",
    )
    temperature_scaling(study)


def _diagrams(study: StudyFolder, arrays: Mapping[str, Mapping[str, np.ndarray]]) -> None:
    """The diagrams of the last cycle and, after a click, of up to `MOST_CYCLES` cycles."""
    page.heading("Reliability at the last cycle")
    if len(arrays) < len(study.labels):
        page.say(f"Of {len(arrays)} of {counted(len(study.labels), 'method')}.")
    ends, over = at_the_end(study, arrays)
    page.figure(study, "reliability", plots.reliability_by_cycle(ends, [1], notes=over), "reliability diagrams")
    last = max(len(value["confidence"]) for value in arrays.values())
    if last > 1:
        cycles = sorted({round(1 + place * (last - 1) / (MOST_CYCLES - 1)) for place in range(MOST_CYCLES)})
        notes = written_over(study)
        page.figure(study, "reliability_by_cycle", plots.reliability_by_cycle(arrays, cycles, notes=notes),
                    "reliability diagrams by cycle", folded="The same at earlier cycles")  # fmt: skip


def gathered(study: StudyFolder) -> dict[str, dict[str, np.ndarray]]:
    """`confidence` and `correct` (cycles, n) of each label, over the test images of all its runs."""
    arrays = {}
    for label in study.labels[:MOST_DIAGRAMS]:
        runs = [found for _, found in study.predictions(label)]
        if len({run["confidence"].shape for run in runs}) == 1:
            arrays[label] = {name: np.concatenate([run[name] for run in runs], axis=1) for name in runs[0]}
    return arrays


def at_the_end(
    study: StudyFolder, arrays: Mapping[str, Mapping[str, np.ndarray]]
) -> tuple[dict[str, dict[str, np.ndarray]], dict[tuple[str, int], str]]:
    """The last cycle of each label that bought anything, as its only one, and what stands over its diagram."""
    notes, last = written_over(study), study.frame.groupby("label")["cycle"].max()
    ends = {
        label: {name: values[last[label] - 1 : last[label]] for name, values in found.items()}
        for label, found in arrays.items()
    }
    return ends, {(label, 1): notes[label, int(last[label])] for label in arrays}


def written_over(study: StudyFolder) -> dict[tuple[str, int], str]:
    """What stands over the diagram of a label and cycle: the means over seeds that the tables and curves have."""
    notes = {}
    groups: Any = study.frame.groupby(["label", "cycle"], sort=False)
    for (label, cycle), part in groups:
        bins = tables.bins_of(study, str(label))
        notes[str(label), int(cycle)] = plots.calibration_note(part["ece"].mean(), part["gap"].mean(), bins)
    return notes


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
    """Confidence of the last cycle before and after one temperature; errors are means over runs, as in the tables."""
    pairs, rows, notes = {}, [], {}
    for label in study.labels[:MOST_DIAGRAMS]:
        states: list[tuple[np.ndarray, ...]] = []
        errors: list[tuple[float, ...]] = []
        for path, run in study.predictions(label, ("logits_last", "labels")):
            last = study.frame[study.frame["path"] == path].iloc[-1]
            states.append(rescaled(run["logits_last"], run["labels"]))
            after = calibration.calibration_errors(states[-1][2], states[-1][1], int(last["bins"]))
            errors.append((last["ece"], after.ece, last["gap"], after.gap))
        if states:
            before, correct, scaled, heat = (np.concatenate([s[part] for s in states]) for part in range(4))
            pairs[label] = ((before, correct), (scaled, correct))
            means, bins = np.mean(errors, axis=0), tables.bins_of(study, label)
            over = [plots.calibration_note(means[k], means[k + 2], bins) for k in (0, 1)]
            notes[label] = (over[0], over[1])
            rows.append({"label": label, "temperature": heat.mean(), "ECE before": means[0], "ECE after": means[1],
                         "gap before": means[2], "gap after": means[3], "bins": bins})  # fmt: skip
    if not pairs:
        return
    page.heading("Before and after temperature scaling, last cycle")
    page.figure(study, "temperature_scaling", plots.before_and_after(pairs, notes=notes), "before and after scaling",
                folded="Diagrams before and after")  # fmt: skip
    formats = {"temperature": fixed(3)} | dict.fromkeys(("ECE before", "ECE after"), fixed(4))
    formats |= dict.fromkeys(("gap before", "gap after"), signed(4))
    page.table(study, "temperature_scaling", pd.DataFrame(rows), "Temperature scaling across halves of the test images",
               formats)  # fmt: skip
    page.say("The logits are divided by one number, the temperature. It is fitted on one half of the test images and "
             "applied to the other half, and the other way round. The one with the best likelihood (NLL) is taken; it "
             "need not give the smallest gap or ECE. This is not a result, for it uses test labels.")  # fmt: skip


def rescaled(logits: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Confidence (n,) before, correctness, confidence after, and temperature of each image's half.

    Logits (n, C): each half of the images is divided by the temperature that the other half asks for.
    """
    values, truth = np.clip(logits.astype(np.float64), -65504, 65504), labels.astype(np.int64)  # older: inf
    half = np.random.default_rng(0).permutation(len(truth)) % 2
    heat = np.ones(len(truth))
    for side in (0, 1):
        if (half != side).any():
            heat[half == side] = calibration.fit_temperature(values[half != side], truth[half != side])
    return _confidence(values), values.argmax(1) == truth, _confidence(values / heat[:, None]), heat


def _confidence(logits: np.ndarray) -> np.ndarray:
    shifted = np.exp(logits - logits.max(1, keepdims=True))
    return np.asarray(shifted.max(1) / shifted.sum(1))
