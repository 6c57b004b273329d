"""Write what README.md and docs/ say in numbers, from the records in outputs/published: never by hand.

    python scripts/readme_figures.py                   bring the pages and the picture up to date
    python scripts/readme_figures.py --check           say whether the pages are up to date (exit status 1 if not)
    python scripts/readme_figures.py outputs/digits    take the records of other study folders instead

A number stands in a table only where it was measured. Studies that ran fewer than three rows of the methods table have
no column in docs/methods.md.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Literal, get_args, get_origin

import matplotlib as mpl
import pandas as pd
from advice import advice_table
from claims import (
    along_table,
    calibration_table,
    cells,
    cells_sentence,
    cells_table,
    claims_table,
    curves_list,
    results_table,
    verdicts_sentence,
)

from alkit.analysis import quirk_effects
from alkit.config import Experiment
from alkit.data import DATASETS
from alkit.data.registry import get_entry
from alkit.errors.words import counted
from alkit.methods import METHODS
from alkit.quirks import QUIRKS, Effect, in_words, measured_effects
from alkit.quirks.not_reproduced import NOT_REPRODUCED
from alkit.records import load_runs

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
METHODS_PAGE, DATASETS_PAGE, RESULTS, QUIRKS_PAGE, GPU_PAGE, PARAMETERS_PAGE = (
    ROOT / "docs" / f"{name}.md" for name in ("methods", "datasets", "results", "quirks", "gpu", "parameters")
)
PUBLISHED = ROOT / "outputs" / "published"
ON_A_CARD = ("cifar10_step", "cifar10_first")
"""Studies that were run as docs/gpu.md says, three runs at a time on one card."""
FORESTS = {"quirks_cifar10": ("cifar10_quirks", "cifar10_pt4al_scaled"), "quirks_forest": ("quirks",)}
"""Pictures in docs/ of what quirks change, each with the studies that measured it."""
ROUNDING = 1e-6
PICTURES = ("cifar10_step", "cifar10_scaled", "cifar10_features", "digits")
"""Studies whose curves stand at the top of the README: the first that is published."""


def studies(folders: list[Path]) -> dict[str, pd.DataFrame]:
    """The runs of each study folder, by the study's name; folders without a finished run are left out."""
    frames = {folder.name: load_runs(folder) for folder in folders}
    return {name: frame for name, frame in frames.items() if len(frame)}


def measured(frame: pd.DataFrame, method: str) -> str:
    """Accuracy and ECE of the method's last cycle, `91.2 ± 0.8 (0.134)`; a dash where it was not run.

    Its labels and seeds stand behind, `at 20 labels, 9 seeds`, where they are not those of the column's head.
    """
    runs = frame[frame["label"] == method].sort_values("cycle").groupby("seed").last()
    if not len(runs):
        return "–"
    accuracy, ece = 100 * runs["accuracy"], runs["ece"]
    spread = f" ± {accuracy.std():.1f}" if len(runs) > 1 else ""
    most, seeds = labels_and_seeds(frame)
    other = [
        *([f"at {counted(int(runs['labelled'].max()), 'label')}"] if runs["labelled"].max() != most else []),
        *([counted(len(runs), "seed")] if len(runs) != seeds else []),
    ]
    return f"{accuracy.mean():.1f}{spread} ({ece.mean():.3f}{''.join(f'; {text}' for text in other)})"


def labels_and_seeds(frame: pd.DataFrame) -> tuple[int, int]:
    """The most labels and the number of seeds of a study; the whole data set has more labels than the study."""
    part = frame[frame["method"] != "whole_dataset"]
    return int(part["labelled"].max()), part["seed"].nunique()


def has_column(frame: pd.DataFrame) -> bool:
    """Whether a study is one of methods: three rows of the table at least, and no more variants than such."""
    labels = set(frame["label"])
    known = len(labels & METHODS.keys())
    return known >= 3 and 2 * known >= len(labels)


def heading(name: str, frame: pd.DataFrame) -> str:
    """`digits, 100 labels, 3 seeds, 15 bins` (of the ECE)."""
    part = frame[frame["method"] != "whole_dataset"]
    most, seeds = labels_and_seeds(frame)
    bins = sorted({int(number) for number in part["bins"].dropna()}) if "bins" in part else []
    said = f", {' or '.join(map(str, bins))} bins" if bins else ""
    return f"{name}, {most:,} labels, {counted(seeds, 'seed')}{said}"


def methods_list() -> str:
    """A line each, for the README."""
    return "\n".join(f"- [`{row.id}`](notebooks/methods/{row.id}.ipynb): {row.summary}" for row in METHODS.values())


def methods_table(frames: dict[str, pd.DataFrame]) -> str:
    head = ["method", "what it does", "paper", *(heading(name, frame) for name, frame in frames.items())]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in METHODS.values():
        cells = [f"[`{row.id}`](../notebooks/methods/{row.id}.ipynb)", row.summary, row.paper]
        lines.append("| " + " | ".join([*cells, *(measured(frame, row.id) for frame in frames.values())]) + " |")
    note = (
        "Accuracy on the test images in percent, mean ± standard deviation over seeds, and in brackets the mean ECE, "
        "in so many bins; labels and seeds that are not the column's stand behind it."
    )
    return "\n".join([*lines, "", f"{note} A dash: not run." if frames else "No study is published yet."])


def datasets_table() -> str:
    lines = ["| name | data set | training images | test images | classes | from |", "|" + " --- |" * 6]
    for entry in DATASETS.values():
        train, test, classes = (f"{n:,}" if n else "" for n in (entry.train_size, entry.test_size, entry.num_classes))
        title = entry.title.replace("*", r"\*")
        lines.append(f"| `{entry.name}` | {title} | {train} | {test} | {classes} | {entry.source} |")
    return "\n".join(lines)


def between(text: str, name: str, content: str) -> str:
    """`text` with `content` between the markers of `name`."""
    begin, end = f"<!-- {name}: written by scripts/readme_figures.py -->", f"<!-- end of {name} -->"
    before, rest = text.split(begin)
    return f"{before}{begin}\n{content}\n{end}{rest.split(end)[1]}"


def picture(frames: dict[str, pd.DataFrame], own: pd.DataFrame) -> tuple[str, str | None]:
    """The README's picture in Markdown, and the study that it shows; `own` are the papers' numbers that were run."""
    name = next((name for name in PICTURES if name in frames), None)
    if name is None:
        return "", None
    frame = frames[name]
    part = frame[frame["method"] != "whole_dataset"]
    seeds = part["seed"].nunique()
    words = f"Test accuracy against labels: {part['label'].nunique()} methods, {seeds} seeds, study {name}"
    images = get_entry(str(part["dataset"].iloc[0])).title
    dashed = "; dashed: as published" if len(as_published(own, name)) else ""
    return f"[![{words}](docs/{name}.png)](docs/results.md)\n\n*{images}{dashed}*", name


def as_published(own: pd.DataFrame, study: str) -> pd.DataFrame:
    """A study's part of `own`, as the curves want it: `method`, `labelled`, `accuracy` and `source`."""
    part = own[own["study"] == study]
    return part.assign(accuracy=part["published"], labelled=part["labelled"].astype(float))


def draw(frame: pd.DataFrame, known: pd.DataFrame, path: Path) -> None:
    """Accuracy against labels, as in the study's summary, beside what is `known` of it."""
    import matplotlib.pyplot as plt

    from alkit.analysis.plots import curves

    figure = curves(frame, published=known)
    figure.savefig(path, dpi=150)
    plt.close(figure)


def draw_quirks(folders: list[Path], path: Path) -> None:
    """What each quirk changes in these studies: as the first picture of the summary of one."""
    import matplotlib.pyplot as plt

    figure = quirk_effects.forest(pd.concat([quirk_effects.effects(folder) for folder in folders], ignore_index=True))
    figure.savefig(path)
    plt.close(figure)


def effects_list(effects: list[Effect]) -> str:
    """What stands out among the effects of the quirks, on one data set after the other."""
    groups: dict[str, list[Effect]] = {}
    for effect in effects:
        groups.setdefault(effect.dataset, []).append(effect)
    return "\n\n".join(
        f"**{get_entry(name).title.split(':')[0]}**\n\n{stands_out(groups[name])}" for name in sorted(groups)
    )


def stands_out(effects: list[Effect]) -> str:
    """Among a data set's effects: intervals without 0, and switches that change nothing."""
    lines = []
    for measure, words in quirk_effects.MEASURES.items():
        rows = [effect for effect in effects if effect.measure == measure]
        found = [effect for effect in rows if effect.low > 0 or effect.high < 0]
        named = [f"`{effect.quirk}` {in_words(effect)}" for effect in found if abs(effect.difference) > ROUNDING]
        lines.append(f"- {words[0].upper()}{words[1:]}: of {counted(len(rows), 'interval')}, {len(named) or 'none'} "
                     f"{'leave' if len(named) > 1 else 'leaves'} out 0{':' if named else '.'}")  # fmt: skip
        lines += [f"  - {one}" for one in named]
    sizes: dict[str, float] = {}
    for effect in effects:
        sizes[effect.quirk] = max(sizes.get(effect.quirk, 0.0), abs(effect.difference))
    none = [f"`{name}`" for name, size in sizes.items() if size <= ROUNDING]
    return "\n".join([*lines, *([f"- No run changed, but for rounding, with {', '.join(none)}."] if none else [])])


def run_times(frames: dict[str, pd.DataFrame], names: tuple[str, ...] = ON_A_CARD) -> str:
    """How long a run of each method of the studies `names` took, from its start to its end."""
    told = []
    for name in names:
        if name in frames:
            runs = frames[name].drop_duplicates("path")
            lasted = pd.to_datetime(runs["finished"]) - pd.to_datetime(runs["started"])
            means = lasted.dt.total_seconds().groupby(runs["method"]).mean()
            told.append(" and ".join(f"{mean:.0f} s (`{method}`)" for method, mean in means.items()) + f" in `{name}`")
    return f"Mean time of a run, from its start to its end: {'; '.join(told)}." if told else "None was run yet."


def parameters_table() -> str:
    """Every parameter of a run with its default: what it does, or which words it takes."""
    lines = ["| parameter | default | what it is |", "|" + " --- |" * 3]
    for name, field in Experiment.model_fields.items():
        words = get_args(field.annotation) if get_origin(field.annotation) is Literal else ()
        choice = " or ".join(f"`{word}`" for word in words if word is not None)
        told = "; ".join(part for part in (field.description or "", choice) if part).replace("|", "\\|")
        default = json.dumps(field.get_default(call_default_factory=True))
        lines.append(f"| `{name}` | `{default}` | {told} |")
    return "\n".join(lines)


def register() -> str:
    """Every quirk as a row, then what is known and not reproduced."""
    lines = [
        "| quirk | seen in | what the program does | here, `protocol: corrected` | applies to |",
        "|" + " --- |" * 5,
    ]
    lines += [f"| `{q.id}` | {', '.join(q.programs)} | {q.released} | {q.corrected} | {q.applies_to} |"
              for q in QUIRKS.values()]  # fmt: skip
    lines += ["", "Known, and not reproduced:", "", "| seen in | methods | what the program does | why not here |"]
    lines += ["|" + " --- |" * 4]
    lines += [f"| {', '.join(k.programs)} | {k.of_methods} | {k.released} | {k.reason} |" for k in NOT_REPRODUCED]
    return "\n".join(lines)


def pages(frames: dict[str, pd.DataFrame], own: pd.DataFrame) -> dict[Path, str]:
    """Every page that has numbers, as it should be by the `studies` and `cells` of the study folders."""
    shown = {name: frame for name, frame in frames.items() if has_column(frame)}
    parts = {
        README: {
            "verdicts": verdicts_sentence(frames, own),
            "picture": picture(frames, own)[0],
            "advice": advice_table(frames),
            "claims": claims_table(frames),
            "cells": cells_sentence(own),
            "methods": methods_list(),
        },
        METHODS_PAGE: {"methods": methods_table(shown)},
        DATASETS_PAGE: {"data sets": datasets_table()},
        RESULTS: {
            "claims": results_table(frames, PUBLISHED),
            "cells": cells_table(own),
            "whole curves": curves_list(own, frames),
            "calibration": calibration_table(frames),
            "along": along_table(frames.get("cifar10_pt4al_scaled")),
        },
        GPU_PAGE: {"times": run_times(frames)},
        PARAMETERS_PAGE: {"parameters": parameters_table()},
        QUIRKS_PAGE: {"effects": effects_list(measured_effects()), "register": register()},
    }
    wanted = {}
    for page, contents in parts.items():
        text = page.read_text(encoding="utf-8")
        for name, content in contents.items():
            text = between(text, name, content)
        wanted[page] = text
    return wanted


def main() -> int:
    mpl.use("Agg")
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    folders = [Path(name) for name in names] or sorted(path for path in PUBLISHED.glob("*") if path.is_dir())
    frames, own = studies(folders), cells(folders)
    wanted = pages(frames, own)
    stale = [page for page, text in wanted.items() if text != page.read_text(encoding="utf-8")]
    if "--check" in sys.argv[1:]:
        for page in stale:
            print(f"{page.relative_to(ROOT)} is not up to date")
        if not stale:
            print(f"{counted(len(wanted), 'page')}, as the records have them")
        return int(bool(stale))
    for page in stale:
        page.write_text(wanted[page], encoding="utf-8")
    _, name = picture(frames, own)
    if name is not None:
        draw(frames[name], as_published(own, name), ROOT / "docs" / f"{name}.png")
    for picture_of, measured_in in FORESTS.items():
        found = [folder for folder in folders if folder.name in measured_in]
        if found:
            draw_quirks(found, ROOT / "docs" / f"{picture_of}.png")
    print(f"written: {', '.join(str(page.relative_to(ROOT)) for page in stale) or 'nothing'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
