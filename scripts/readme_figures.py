"""Write the README's pictures and its tables of methods and data sets, from the records in outputs/published.

    python scripts/readme_figures.py                   bring both up to date
    python scripts/readme_figures.py --check           say whether the tables are up to date (exit status 1 if not)
    python scripts/readme_figures.py outputs/digits    take the records of other study folders instead

A number stands in the table only where it was measured: mean ± standard deviation over seeds of the last cycle.
Studies that ran fewer than three rows of the methods table, or mostly variants, have no column in it.
"""

from __future__ import annotations

import sys
from pathlib import Path

import matplotlib as mpl
import pandas as pd

from alkit.data import DATASETS
from alkit.methods import METHODS
from alkit.records import load_runs
from alkit.words import counted

ROOT = Path(__file__).parent.parent
README = ROOT / "README.md"
PICTURE = ROOT / "docs" / "digits_summary.png"
FOREST = ROOT / "docs" / "quirks_forest.png"
PUBLISHED = ROOT / "outputs" / "published"


def studies(folders: list[Path]) -> dict[str, pd.DataFrame]:
    """The runs of each study folder, by the study's name; folders without a finished run are left out."""
    frames = {folder.name: load_runs(folder) for folder in folders}
    return {name: frame for name, frame in frames.items() if len(frame)}


def measured(frame: pd.DataFrame, method: str) -> str:
    """Accuracy and ECE of the method's last cycle, `91.2 ± 0.8 (0.134)`; a dash where it was not run."""
    runs = frame[frame["label"] == method].sort_values("cycle").groupby("seed").last()
    if not len(runs):
        return "–"
    accuracy, ece = 100 * runs["accuracy"], runs["ece"]
    spread = f" ± {accuracy.std():.1f}" if len(runs) > 1 else ""
    return f"{accuracy.mean():.1f}{spread} ({ece.mean():.3f})"


def has_column(frame: pd.DataFrame) -> bool:
    """Whether a study is one of methods: three rows of the table at least, and no more variants than such."""
    labels = set(frame["label"])
    known = len(labels & METHODS.keys())
    return known >= 3 and 2 * known >= len(labels)


def heading(name: str, frame: pd.DataFrame) -> str:
    """`digits, 100 labels, 3 seeds, 15 bins` (of the ECE); the whole data set has more labels than the study."""
    part = frame[frame["method"] != "whole_dataset"]
    seeds = part["seed"].nunique()
    bins = sorted({int(number) for number in part["bins"].dropna()}) if "bins" in part else []
    said = f", {' or '.join(map(str, bins))} bins" if bins else ""
    return f"{name}, {part['labelled'].max()} labels, {counted(seeds, 'seed')}{said}"


def methods_table(frames: dict[str, pd.DataFrame]) -> str:
    head = ["method", "what it does", "paper", *(heading(name, frame) for name, frame in frames.items())]
    lines = ["| " + " | ".join(head) + " |", "|" + " --- |" * len(head)]
    for row in METHODS.values():
        cells = [f"[`{row.id}`](notebooks/methods/{row.id}.ipynb)", row.summary, row.paper]
        lines.append("| " + " | ".join([*cells, *(measured(frame, row.id) for frame in frames.values())]) + " |")
    note = (
        "Accuracy on the test images in percent, mean ± standard deviation over seeds, and in brackets the mean ECE, "
        "in so many bins."
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


def draw(frame: pd.DataFrame) -> None:
    """Accuracy and calibration of the digits study against labels, as in its summary."""
    import matplotlib.pyplot as plt

    from alkit.plots import curves

    PICTURE.parent.mkdir(exist_ok=True)
    figure = curves(frame, title="Handwritten digits, 20 labels at a time")
    figure.savefig(PICTURE)
    plt.close(figure)


def draw_quirks(folder: Path) -> None:
    """What each quirk changes: the first picture of that study's summary."""
    import matplotlib.pyplot as plt

    from alkit import quirk_effects

    figure = quirk_effects.forest(quirk_effects.effects(folder))
    figure.savefig(FOREST)
    plt.close(figure)


def main() -> int:
    mpl.use("Agg")
    names = [name for name in sys.argv[1:] if not name.startswith("-")]
    folders = [Path(name) for name in names] or sorted(path for path in PUBLISHED.glob("*") if path.is_dir())
    frames = studies(folders)
    text = README.read_text(encoding="utf-8")
    shown = {name: frame for name, frame in frames.items() if has_column(frame)}
    wanted = between(between(text, "methods", methods_table(shown)), "data sets", datasets_table())
    if "--check" in sys.argv[1:]:
        print("README.md is up to date" if wanted == text else "README.md is not up to date")
        return int(wanted != text)
    README.write_text(wanted, encoding="utf-8")
    if "digits" in frames:
        draw(frames["digits"])
    for folder in folders:
        if folder.name == "quirks" and "quirks" in frames:
            draw_quirks(folder)
    print(f"README.md: {', '.join(frames) or 'no studies'}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
