"""Keep what all method notebooks share the same: set-up, parameters, run and pictures. The story is each one's own.

    python scripts/notebooks.py            bring the shared cells up to date, make notebooks that are missing
    python scripts/notebooks.py --check    say which notebooks are not up to date (exit status 1)

A cell is shared if its id begins with `kit-`. All other cells are left as they are. The Colab badge is written from
the repository address in pyproject.toml ([project.urls] Repository); without one, notebooks have no badge.
"""

from __future__ import annotations

import sys
import tomllib
from pathlib import Path

import nbformat
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook

from alkit.methods import METHODS, Method

ROOT = Path(__file__).parent.parent
KERNEL = {"kernelspec": {"name": "python3", "display_name": "Python 3 (ipykernel)", "language": "python"},
          "language_info": {"name": "python"}}  # fmt: skip
Cells = list[nbformat.NotebookNode]


def repository() -> str | None:
    """The project's public address, if it has one."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    address: str | None = project.get("urls", {}).get("Repository")
    return address


def setup_source() -> str:
    """The set-up cell: nothing outside Colab; there it installs the kit and leaves torch as it is."""
    address = repository()
    install = f"alkit @ git+{address}" if address else "alkit"
    return "\n".join(
        [
            "import sys",
            "",
            'if "google.colab" in sys.modules:  # Colab has torch already: install the rest, and leave torch alone',
            "    import importlib.util",
            "",
            '    if importlib.util.find_spec("alkit") is None:',
            f"        %pip install --quiet \"{install}\"",
            "",
            "from alkit import notebook, plots",
            "",
            "notebook.begin(globals())",
        ]
    )


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


def method_cells(method: Method) -> Cells:
    """The shared cells of a method's notebook, after its story."""
    return [
        text(
            "parameters-text",
            "## Parameters\n\nEvery parameter of `alkit.Experiment` can be set in the next cell or by papermill "
            "(`-p seed 3`, `-f params/cifar10.yaml`); what is not set has its default, the digits demo. "
            "With `out_dir`, the run leaves its record there and goes on where it was if it is interrupted.",
        ),
        code("parameters", 'dataset = "digits"\nseed = 0\nout_dir = None', ("parameters",)),
        text("run-text", "## Run"),
        code(
            "run",
            f'experiment = notebook.experiment(globals(), method="{method.id}")\n'
            "run = notebook.run(experiment, out_dir)",
        ),
        text("curve-text", "## Accuracy against labels"),
        code("curve", "plots.accuracy_curve(run.records);"),
        text(
            "reliability-text",
            "## Is it calibrated?\n\nOf the test images given a confidence of, say, 0.8, are 80% classified correctly? "
            "Bars below the diagonal are overconfident.",
        ),
        code("reliability", "plots.reliability(run.predictions);"),
        text("queries-text", "## What it asked for\n\nThe images of the last query, in the order asked, with their labels."),
        code(
            "queries",
            "plots.query_grid(run.train, run.last_query[:40], "
            f'title=f"{method.title}: bought for cycle {{len(run.records)}}");',
        ),
        code("versions", "print(notebook.versions())"),
    ]


def assemble(path: Path, story: Cells, shared: Cells) -> nbformat.NotebookNode:
    cells = [story[0], *badge(path), code("setup", setup_source()), *story[1:], *shared]
    return new_notebook(cells=cells, metadata=KERNEL)


def build(path: Path, method: Method) -> nbformat.NotebookNode:
    """The notebook as it should be: the story that is there (or a first one), and the shared cells."""
    story: Cells = []
    if path.exists():
        found = nbformat.read(path, as_version=4)
        story = [cell for cell in found.cells if not cell.id.startswith("kit-")]
    if not story:
        story = [new_markdown_cell(f"# {method.title}\n\n{method.summary}. ({method.paper})", id="story")]
    for cell in story:
        if cell.cell_type == "code":
            cell.outputs, cell.execution_count = [], None
    return assemble(path, story, method_cells(method))


def main() -> int:
    check = "--check" in sys.argv[1:]
    stale = []
    for method in METHODS.values():
        path = ROOT / "notebooks" / "methods" / f"{method.id}.ipynb"
        wanted = nbformat.writes(build(path, method)) + "\n"
        if not path.exists() or path.read_text() != wanted:
            stale.append(str(path.relative_to(ROOT)))
            if not check:
                path.write_text(wanted)
    print("\n".join(stale) if stale else "all notebooks are up to date")
    return int(check and bool(stale))


if __name__ == "__main__":
    sys.exit(main())
