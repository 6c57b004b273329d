"""What a paper needs of a study: curves, a forest of differences and reliability diagrams as PDF, a table as LaTeX.

Figures have a journal's width and letters and no titles, for those stand in captions.
"""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from matplotlib import pyplot as plt
from matplotlib.figure import Figure

from alkit import plots, statistics
from alkit.analysis import quirk_effects
from alkit.analysis.plots.comparisons import in_numbers
from alkit.analysis.plots.style import in_style
from alkit.analysis.summary import calibrated, tables, web
from alkit.analysis.summary.study import BASELINE, StudyFolder, open_study
from alkit.errors import CheckpointError
from alkit.storage.files import atomic_write, write_text
from alkit.storage.paths import absolute
from alkit.storage.scratch import scratch_folder

MINUS = "$-$"


def write(study_dir: str | Path) -> tuple[Path, list[str]]:
    """Write STUDY/paper/curves.pdf, forest.pdf, reliability.pdf and table.tex in the place of the last ones.

    Returns that folder, and a line on each of them that this study has no numbers for. Raises `CheckpointError` if
    there is no such folder or no finished run in it.
    """
    folder = absolute(study_dir)
    if not folder.is_dir():
        raise CheckpointError(f"{study_dir}: no such folder")
    study = open_study(folder)
    if not len(study.frame):
        raise CheckpointError(f"{study_dir}: no run of this study has finished")
    missing: list[str] = []
    with scratch_folder(".paper-", folder) as aside:
        made_in = aside / "paper"
        made_in.mkdir()
        parts: list[tuple[str, Callable[[StudyFolder], Figure | str]]]
        parts = [("curves", curves), ("forest", forest), ("reliability", reliability)]
        for name, make in parts:
            made = make(study)
            if isinstance(made, str):
                missing.append(f"{name}.pdf: not written: {made}")
            else:
                _save(made, made_in / f"{name}.pdf")
        write_text(made_in / "table.tex", table(study))
        target = folder / "paper"
        shutil.rmtree(target, ignore_errors=True)
        os.rename(made_in, target)
    return target, missing


def _save(fig: Figure, path: Path) -> None:
    with in_style(), atomic_write(path) as stream:
        fig.savefig(stream, format="pdf", metadata={"CreationDate": None})
    plt.close(fig)


def curves(study: StudyFolder) -> Figure:
    """Accuracy against labels: one column wide, or, of more methods than one pair of axes holds, two."""
    fig = plots.curves(study.frame, "accuracy", beside=study.bases, width=plots.COLUMN)
    if len(fig.axes) <= 2:
        fig.axes[0].set_title("")
    return fig


def forest(study: StudyFolder) -> Figure | str:
    """Differences to the baseline in final accuracy, or, of a study of quirks, what each switch changes."""
    if study.switches:
        return quirk_effects.forest(quirk_effects.effects(study.path))
    found = tables.pairs(study, "accuracy")
    lines = tables.against_baseline(tables.to_draw(found))
    if not len(lines):
        return f"no method ends at as many labels as {BASELINE}"
    return plots.forest([("", lines)], width=5.0)


def reliability(study: StudyFolder) -> Figure | str:
    """Reliability diagrams of the last cycle, three a row."""
    arrays = calibrated.gathered(study)
    if not arrays:
        return "the runs' predictions.npz are not in this folder"
    ends, notes = calibrated.at_the_end(study, arrays)
    return plots.reliability_by_cycle(ends, [1], notes=notes, columns=3)


def table(study: StudyFolder) -> str:
    """Accuracy, area, difference to the baseline and ECE of every method, as a LaTeX table (booktabs)."""
    return (
        f"% {' '.join(web.title_of(study.path).split())}, by `alkit summary --paper`. Needs \\usepackage{{booktabs}}.\n"
        f"% Accuracy and area in percent, mean ± deviation over seeds; differences in points, paired by seed,\n"
        f"% in brackets {_intervals(study)}; p: paired t-test with Holm's correction; ECE in {tables.bins_of(study)} "
        f"bins.\n{_latex(rows(study))}"
    )


def rows(study: StudyFolder) -> pd.DataFrame:
    """The table's cells as LaTeX's text, a row a label in the study's order."""
    results: Any = tables.results(study).set_index("label").to_dict("index")
    measured: Any = tables.calibration(study).set_index("label").to_dict("index")
    found = tables.pairs(study, "accuracy")
    beside: Any = (found if study.switches else found[found["b"] == BASELINE]).set_index("a").to_dict("index")
    against = "its own base" if study.switches else BASELINE
    lines = []
    for label in study.labels:
        of = results[label]
        line = {
            "method": label, "seeds": f"{of['seeds']}", "labels": f"{of['labels']}",
            "accuracy": _spread(of["accuracy"], of["sd"], 2), "area": _spread(of["area"], of["area sd"], 2),
        }  # fmt: skip
        if beside:
            test = beside.get(label)
            known = test is not None and test["n"] > 0
            line[f"above {against}"] = in_numbers(test).replace("−", MINUS) if known else ""
            line["p"] = tables.p_value(test["p_holm"]) if known else ""
        lines.append(line | {"ECE": _spread(measured[label]["ece"], measured[label]["ece sd"], 3)})
    frame = pd.DataFrame(lines)
    return frame.loc[:, (frame != "").any()]


def _latex(frame: pd.DataFrame) -> str:
    text = frame.style.hide(axis="index").format(escape="latex-math").format_index(escape="latex-math", axis=1)
    return str(text.to_latex(hrules=True, column_format="l" + "r" * (frame.shape[1] - 1)))


def _spread(mean: float, deviation: float, digits: int) -> str:
    if np.isnan(mean):
        return ""
    return f"{mean:.{digits}f}" + ("" if np.isnan(deviation) else f" $\\pm$ {deviation:.{digits}f}")


def _intervals(study: StudyFolder) -> str:
    names = {statistics.interval_name(n) for n in study.frame.groupby("label")["seed"].nunique() if n > 1}
    return " or ".join(f"their {name}" for name in sorted(names)) or "nothing: one seed"
