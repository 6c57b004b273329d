"""Keep the same what notebooks share: all the cell for Colab, methods and data sets also parameters and pictures.

    python scripts/notebooks.py            bring the shared cells up to date, make notebooks that are missing
    python scripts/notebooks.py --check    say which notebooks are not up to date (exit status 1)

A cell is shared if its id begins with `kit-`. All other cells are left as they are: those whose id begins with
`after-` stand after the run's pictures, the others, the story, before its parameters. The Colab badge is written from
the repository address in pyproject.toml ([project.urls] Repository); without one, notebooks have no badge.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from alkit.data.registry import DATASETS, DatasetEntry
from alkit.methods import METHODS, Method
from alkit.notebook.teaching import NO_EXAMPLE, has_moons

ROOT = Path(__file__).parent.parent
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
          "language_info": {"name": "python"}}  # fmt: skip
Cells = list[nbformat.NotebookNode]


def repository() -> str | None:
    """The project's public address, if it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address: str | None = project.get("urls", {}).get("Repository")
    return address


COLAB = """\
import sys

if "google.colab" in sys.modules:  # Colab brings torch: add what else the kit needs, and leave all that is there
    import glob
    import importlib.util
    import os
    from importlib.metadata import packages_distributions, version

    kit = importlib.util.find_spec("alkit")
    if kit is None or kit.origin is None:  # no origin: a folder of that name, not the package
{source}
        with open("/tmp/alkit-keep.txt", "w") as keep:
            known = packages_distributions()
            loaded = {name for module in set(sys.modules) & set(known) for name in known[module]}
            keep.writelines(f"{name}=={version(name)}\\n" for name in sorted(loaded | {"torch", "torchvision"}))
        %pip install --quiet --constraint /tmp/alkit-keep.txt "{source}"\
"""
HERE = """\
        found = [*sorted(glob.glob("/content/alkit*.zip")), "/content/alkit"]
        source = os.environ.get("ALKIT_SOURCE", found[0])
        if "+" not in source and not os.path.exists(source):
            raise FileNotFoundError(
                f"{source}: alkit has no public address yet. Upload its folder there, or a zip file of it, or name a "
                "folder, zip file or git+https address with %env ALKIT_SOURCE=... in a cell before this one; then run "
                "this cell again"
            )"""
SETUP = """\
from alkit import notebook, plots

notebook.begin(globals())"""


METHOD_SETUP = SETUP.replace("notebook, plots\n", "notebook, plots\nfrom alkit.notebook import teaching\n")


def colab_source() -> str:
    """The cell for Colab: nothing elsewhere; there it installs the kit from its address and leaves torch as it is."""
    address = repository()
    there = f'        source = os.environ.get("ALKIT_SOURCE", "alkit @ git+{address}")'
    return COLAB.replace("{source}", there if address else HERE, 1)


def badge(path: Path) -> Cells:
    """The Colab badge of the notebook at `path`; none while the project has no public address."""
    address = repository()
    if address is None or "github.com/" not in address:
        return []
    slug = address.split("github.com/")[1].removesuffix(".git")
    target = f"https://colab.research.google.com/github/{slug}/blob/main/{path.relative_to(ROOT)}"
    image = "https://colab.research.google.com/assets/colab-badge.svg"
    return [new_markdown_cell(f"[![Open in Colab]({image})]({target})", id="kit-badge")]


def code(identity: str, source: str, tags: tuple[str, ...] = ()) -> nbformat.NotebookNode:
    return new_code_cell(source, id=f"kit-{identity}", metadata={"tags": list(tags)} if tags else {})


def text(identity: str, source: str) -> nbformat.NotebookNode:
    return new_markdown_cell(source, id=f"kit-{identity}")


OWN = Method("own_method", "A method of one's own", "", "", "", "a method that a module of one's own adds")
"""What stands for the methods of a study's `strategies`: one notebook runs them all."""


def method_cells(method: Method) -> Cells:
    """The shared cells of a method's notebook, after its story."""
    own = method is OWN
    named = "experiment.method" if own else f'"{method.id}"'
    title = "{experiment.row.title}" if own else method.title
    given = 'strategies = None\nmethod = "random"\n' if own else ""
    return [
        *([] if own else example_cells(method)),
        text(
            "parameters-text",
            "## Parameters\n\nEvery parameter of `alkit.Experiment` can be set in the next cell or by papermill "
            "(`-p seed 3`, `-f params/cifar10.yaml`); what is not set has its default, the digits demo. Papermill "
            "then warns of each that the cell does not name, *Passed unknown parameter*: it is used all the same. "
            "With `out_dir`, the run leaves its record there and goes on where it was if it is interrupted; with "
            "`outputs_dir` (`outputs`, or on Colab `/content/drive/MyDrive/alkit`) in a folder of its own below that.",
        ),
        code("parameters", f'{given}dataset = "digits"\nseed = 0\nout_dir = None\noutputs_dir = None', ("parameters",)),
        text("run-text", "## Run"),
        code(
            "run",
            f"experiment = notebook.experiment(globals(){'' if own else f', method={named}'})\n"
            "run = notebook.run(experiment, out_dir, outputs_dir)",
        ),
        text("curve-text", "## Accuracy against labels"),
        code("curve", f"plots.accuracy_curve(run.records, {named});"),
        text(
            "reliability-text",
            "## Is it calibrated?\n\nOf the test images given a confidence of, say, 0.8, are 80% classified correctly? "
            "Bars below the diagonal are overconfident.",
        ),
        code("reliability", "plots.reliability(run.predictions);"),
        text(
            "queries-text",
            "## What it asked for\n\nThe images of the last query, in the order asked, with their labels.",
        ),
        code(
            "queries",
            "plots.query_grid(run.train, run.last_query[:40], "
            f'title=f"{title}: bought for cycle {{len(run.records)}}");',
        ),
        *([] if own else moon_cells(method)),
        code("versions", "print(notebook.versions())"),
    ]


def example_cells(method: Method) -> Cells:
    """Three images worked through, and the rule's own source; none for a method that queries by no rule of its own."""
    cells = []
    if method.id not in NO_EXAMPLE:
        cells += [
            text(
                "example-text",
                "## Three images\n\nA made-up model tells three classes apart, whose directions in a plane of features "
                "are 120° apart. Of three images one lies far out in a class's direction (*sure*), one between two "
                "classes, one near the middle *between all*; six other images have labels, two of each class. Below is "
                "what the rule looked at, the utility it gave, and which two images it asks for.",
            ),
            code("example", f'teaching.example("{method.id}")'),
        ]
    if not method.whole_pool:
        cells += [text("rule-text", "## The rule's own source"), code("rule", f'teaching.rule("{method.id}")')]
    return cells


def moon_cells(method: Method) -> Cells:
    """What the method asks of two moons; left out of a study's runs, which have an `out_dir`."""
    if not has_moons(method):
        return []
    return [
        text(
            "moons-text",
            "## What it asks on two moons\n\nTwo thousand points of two half circles, each seen by the network as "
            "a spot on a small picture. It is trained on 6 labels (squares) for a few seconds, and asked once for 10 "
            "more (numbered in their order). On the right brighter is a higher utility; for a rule that looks at sets "
            "and not at single images, that of each image before the first is asked.",
        ),
        code("moons", f'teaching.two_moons("{method.id}", show=out_dir is None and outputs_dir is None);'),
    ]


def dataset_cells(entry: DatasetEntry) -> Cells:
    """The shared cells of a data set's notebook, after its story."""
    return [
        text(
            "parameters-text",
            "## Parameters\n\nEvery parameter of `alkit.Experiment` can be set in the next cell or by papermill "
            "(`-p pool_size 5000`, `-f params/STUDY.yaml`), so that a study's own images are what is shown. "
            "`data_root` is the folder that holds the files; null is `data` in the cache folder.",
        ),
        code(
            "parameters",
            "data_root = None\nimage_size = None\npool_size = None\nclass_balance = None\ndataset_seed = 0",
            ("parameters",),
        ),
        code("load", f'train, test = notebook.images(globals(), "{entry.name}")'),
        text("samples-text", "## What it looks like\n\nFirst a row a class, then images as chance has them."),
        code("classes", "plots.class_samples(train);"),
        code("samples", "plots.samples(train);"),
        text("counts-text", "## Images a class"),
        code("counts", "plots.class_counts(train, test);"),
        text(
            "profile-text",
            "## How unbalanced is it?\n\nThe classes of the pool, largest first. `class_balance` and "
            "`imbalance_factor` change this profile; the dashed line, where there is one, is the set as published.",
        ),
        code("profile", "plots.class_profile(train);"),
        text(
            "augmented-text",
            "## Augmentation\n\nThe same image many times, as training sees it. `augmentation` chooses another kind.",
        ),
        code("augmented", "plots.augmented(train);"),
        text(
            "statistics-text",
            "## Channel statistics\n\nImages are normalised with the statistics *used*; beside them, those of the "
            "training images shown above, recomputed (from 20,000 of them where there are more).",
        ),
        code("statistics", "notebook.channel_table(train)"),
        code("versions", "print(notebook.versions())"),
    ]


def first_story(thing: Method | DatasetEntry) -> str:
    """What a new notebook begins with, until somebody tells its story."""
    if isinstance(thing, Method):
        return f"# {thing.title}\n\n{thing.summary}. ({thing.paper})"
    return f"# {thing.title}\n\n**Source.** {thing.source}."


def assemble(path: Path, story: Cells, shared: Cells) -> nbformat.NotebookNode:
    colab = code("colab", colab_source())
    colab.metadata["jupyter"] = {"source_hidden": True}
    teaches = any("teaching." in cell.source for cell in shared)
    setup = [code("setup", METHOD_SETUP if teaches else SETUP)] if shared else []
    after = [cell for cell in story if cell.id.startswith("after-")]
    before = [cell for cell in story if not cell.id.startswith("after-")]
    cells = [before[0], *badge(path), colab, *setup, *before[1:], *shared[:-1], *after, *shared[-1:]]
    return new_notebook(cells=cells, metadata=KERNEL)


def found_cells(path: Path) -> Cells:
    """The cells that are the notebook's own, without outputs."""
    found = nbformat.read(path, as_version=4)
    own: Cells = [cell for cell in found.cells if not cell.id.startswith("kit-")]
    for cell in own:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return own


def build(path: Path, thing: Method | DatasetEntry | None) -> nbformat.NotebookNode:
    """The notebook as it should be: its own cells (or a first story) and the shared ones.

    That of a method or data set ends with the shared cells; any other (`thing` None) shares the badge and Colab's cell.
    """
    own = found_cells(path) if path.exists() else []
    if thing is None:
        return assemble(path, own, [])
    if not own:
        own = [new_markdown_cell(first_story(thing), id="story")]
    return assemble(path, own, method_cells(thing) if isinstance(thing, Method) else dataset_cells(thing))


def wanted() -> dict[Path, Method | DatasetEntry | None]:
    """Every notebook of the kit: one a method, one a data set, and all others that are there."""
    folder = ROOT / "notebooks"
    made: dict[Path, Method | DatasetEntry | None] = {folder / "methods" / f"{m.id}.ipynb": m for m in METHODS.values()}
    made[folder / f"{OWN.id}.ipynb"] = OWN
    made |= {folder / "datasets" / f"{entry.name}.ipynb": entry for entry in DATASETS.values()}
    there = [path for path in sorted(folder.rglob("*.ipynb")) if ".ipynb_checkpoints" not in path.parts]
    return made | {path: None for path in there if path not in made}


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for path, thing in wanted().items():
        content = nbformat.writes(build(path, thing)) + "\n"
        if not path.exists() or path.read_text() != content:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.parent.mkdir(exist_ok=True)
                path.write_text(content)
    print("\n".join(stale) if stale else "all notebooks are up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
