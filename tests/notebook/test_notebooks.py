"""Every notebook is whole, and runs: those of the methods through papermill, as a study runs them."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import matplotlib
import matplotlib.pyplot as plt
import nbformat
import pandas as pd
import papermill
import pytest
import torch
from conftest import TINY
from IPython.core.interactiveshell import InteractiveShell
from IPython.utils.capture import capture_output
from nbformat.v4 import new_output
from papermill.iorw import load_notebook_node
from papermill.parameterize import parameterize_notebook
from synthetic_study import write_study
from test_pt4al import losses_file

from alkit import Experiment
from alkit.analysis.plots.features import nearest_to
from alkit.errors import ConfigError
from alkit.methods import METHODS
from alkit.models import resnet10
from alkit.records import read_predictions, read_queries, read_run
from alkit.storage.loss_files import read_losses

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "notebooks"
ALL = sorted(str(path.relative_to(FOLDER)) for path in FOLDER.rglob("*.ipynb") if ".ipynb_checkpoints" not in str(path))


def read(name: str) -> nbformat.NotebookNode:
    return nbformat.read(FOLDER / name, as_version=4)


def execute(name: str, folder: Path, **parameters: Any) -> nbformat.NotebookNode:
    """The notebook as papermill leaves it."""
    return papermill.execute_notebook(
        FOLDER / name, folder / "run.ipynb", parameters, kernel_name="python3", progress_bar=False, cwd=str(folder),
        start_timeout=300,
    )  # fmt: skip


@pytest.fixture(scope="module")
def shell() -> Iterator[InteractiveShell]:
    """IPython in this process, with pictures in the output as in a kernel: a kernel of its own takes ten seconds."""
    shell = InteractiveShell.instance()
    shell.enable_gui = lambda gui=None: None
    before = matplotlib.get_backend()
    shell.enable_matplotlib("inline")
    yield shell
    plt.close("all")
    matplotlib.use(before)
    InteractiveShell.clear_instance()


def execute_here(name: str, shell: InteractiveShell, **parameters: Any) -> nbformat.NotebookNode:
    """As `execute`, with the same cells and the same injected parameters, but in this process."""
    notebook = parameterize_notebook(
        load_notebook_node(str(FOLDER / name)), parameters, kernel_name="python3", language="python"
    )
    shell.reset()
    plt.close("all")  # pictures that other tests left open would be shown here
    for cell in notebook.cells:
        if cell.cell_type == "code":
            with capture_output() as found:
                shell.run_cell(
                    cell.source, store_history=True
                ).raise_error()  # without a history a last `;` is not seen
            shown = [new_output("display_data", data=output.data) for output in found.outputs]
            said = [new_output("stream", name=stream, text=text)
                    for stream, text in (("stderr", found.stderr), ("stdout", found.stdout)) if text]  # fmt: skip
            cell.outputs = [*shown, *said]
    return notebook


def outputs(notebook: nbformat.NotebookNode, cell: str) -> list[Any]:
    return next(found.outputs for found in notebook.cells if found.id == cell)


# --- every notebook, as it lies in the repository --------------------------------------------------------------------


def test_every_method_has_its_notebook() -> None:
    assert {name for name in ALL if name.startswith("methods/")} == {f"methods/{id}.ipynb" for id in METHODS}


@pytest.mark.parametrize("name", ALL)
def test_a_notebook_is_committed_whole_and_without_outputs(name: str) -> None:
    notebook = read(name)
    nbformat.validate(notebook)
    assert notebook.metadata.kernelspec.name == "python3"
    assert notebook.cells[0].cell_type == "markdown"
    assert notebook.cells[0].source.startswith("# ")
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert not any(cell.outputs or cell.execution_count for cell in code)
    assert len([cell for cell in code if "parameters" in cell.metadata.get("tags", [])]) == 1


@pytest.mark.parametrize("method", list(METHODS))
def test_the_story_of_a_method_has_its_formula_and_its_source(method: str) -> None:
    story = read(f"methods/{method}.ipynb").cells[0].source
    assert "$$" in story or METHODS[method].whole_pool
    if METHODS[method].paper not in ("baseline", "upper line"):
        assert "**Reference" in story


def test_what_notebooks_share_is_up_to_date(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import notebooks as script

    monkeypatch.setattr(sys, "argv", ["notebooks.py", "--check"])
    assert script.main() == 0, f"run `make notebooks`: {capsys.readouterr().out}"


def test_every_notebook_is_run_by_a_test() -> None:
    """Those of the methods are run below; for any other, a test file must name it."""
    tests = "".join(path.read_text() for path in (ROOT / "tests").rglob("*.py"))
    others = [name for name in ALL if not name.startswith("methods/")]
    assert [name for name in others if Path(name).name not in tests and "datasets/" not in name] == []


# --- running them ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("method", "by"), [(method, "") for method in METHODS] + [("oo4al", "papermill")])
def test_the_notebook_of_a_method_runs_and_leaves_its_record(
    method: str, by: str, shell: InteractiveShell, tiny: Callable[..., Experiment], tmp_path: Path
) -> None:
    given = TINY | {"seed": 3, "out_dir": str(tmp_path / "run")}
    name = f"methods/{method}.ipynb"
    ran = execute(name, tmp_path, **given) if by else execute_here(name, shell, **given)
    experiment = tiny(method=method, seed=3)
    record = read_run(tmp_path / "run")
    assert (record["method"], record["label"], record["seed"]) == (method, method, 3)
    assert record["params"] | {"pretext_losses": None} == experiment.model_dump(mode="json")
    assert len(record["cycles"]) == experiment.cycle_count
    first = 200 if experiment.row.whole_pool else 20
    assert [cycle["labelled"] for cycle in record["cycles"]] == [first + 10 * c for c in range(len(record["cycles"]))]
    assert [len(query) for query in read_queries(tmp_path / "run").values()] == [first, 10][: len(record["cycles"])]
    assert read_predictions(tmp_path / "run")["correct"].shape == (len(record["cycles"]), 60)
    said = "".join(output.get("text", "") for output in outputs(ran, "kit-run"))
    lines = [line for line in said.splitlines() if not line.startswith("pretext ")]
    assert len(lines) == len(record["cycles"]), said  # a line a cycle, not one an update of a bar
    for cell in ("kit-curve", "kit-reliability", "kit-queries"):
        assert ["image/png" in output.get("data", {}) for output in outputs(ran, cell)] == [True], cell
    if method in ("pt4al", "pt4al_cold_start"):  # whose own last cell reads the losses that the run made for itself
        cell = {"pt4al": "after-batches", "pt4al_cold_start": "after-first"}[method]
        assert any("image/png" in output.get("data", {}) for output in outputs(ran, cell))


def test_a_parameter_that_does_not_exist_stops_the_notebook(shell: InteractiveShell) -> None:
    with pytest.raises(ConfigError, match="budgett: unknown parameter; did you mean 'budget'"):
        execute_here("methods/random.ipynb", shell, **TINY, budgett=3)


def test_the_pretext_notebook_leaves_its_file_and_shows_what_is_in_it(
    tiny: Callable[..., Experiment], shell: InteractiveShell, tmp_path: Path
) -> None:
    published = losses_file(tmp_path, [1 / (1 + place) ** 3 for place in range(60)])
    small = tiny(method="pt4al_cold_start").model_dump(exclude_unset=True)
    ran = execute_here(
        "pretext.ipynb", shell, **small, out_file=str(tmp_path / "pretext.npz"), published_losses=published,
        export_dir=str(tmp_path / "export"),
    )  # fmt: skip
    cells = [cell for cell in ran.cells if cell.cell_type == "code"]
    assert not [o for cell in cells for o in cell.outputs if o.get("name") == "stderr"]
    pictures = [cell.id for cell in cells if any("image/png" in o.get("data", {}) for o in cell.outputs)]
    assert pictures == ["losses", "hardest", "easiest", "orders", "mix", "published", "supervised"]
    text = {cell.id: "".join(o.get("text", "") for o in cell.outputs) for cell in cells}
    assert "39 of 60 losses are written with an exponent" in text["published"]
    assert "rank correlation" in text["supervised"]
    content = read_losses(tmp_path / "pretext.npz")
    assert len(content) == 200
    assert read_losses(tmp_path / "export" / "rotation_loss.txt").text == content.text
    assert len(list((tmp_path / "export").glob("batch_*.txt"))) == small["cycles"]


def test_the_features_notebook_shows_neighbours_a_map_and_a_probe(shell: InteractiveShell) -> None:
    ran = execute_here("features.ipynb", shell, encoder="pixels", encoder_options={}, pool_size=150, test_size=100)
    pictures = [cell.id for cell in ran.cells for o in cell.get("outputs", []) if "image/png" in o.get("data", {})]
    assert pictures == ["neighbours", "neighbours", "map"]
    (probe,) = outputs(ran, "probe")
    named, pixels = (line[25:].split()[0] for line in probe["text"].splitlines()[:2])
    assert "".join(outputs(ran, "load")[-1]["text"]).startswith("pixels: 64 numbers an image, 150 images of digits")
    assert named == pixels, "the encoder `pixels` gives the pixels"
    first = outputs(ran, "map")[0]["text"] if "text" in outputs(ran, "map")[0] else outputs(ran, "map")[1]["text"]
    assert [line.split()[0] for line in first.splitlines()] == ["random", "typiclust", "probcover", "max_herding"]


def test_neighbours_are_of_the_highest_cosine() -> None:
    rows = torch.randn(40, 5, generator=torch.Generator().manual_seed(0))
    found = nearest_to(rows, torch.tensor([3, 17]), 4).tolist()
    for place, (itself, *others) in zip((3, 17), found, strict=True):
        cosine = torch.nn.functional.cosine_similarity(rows, rows[place].expand_as(rows))
        ranked = [k for k in cosine.argsort(descending=True).tolist() if k != place]
        assert (itself, others) == (place, ranked[:4])


def test_the_quirks_notebook_prints_the_register_and_measures_a_study(shell: InteractiveShell, tmp_path: Path) -> None:
    variants = {"random.warm_start": {"method": "random", "quirks": {"warm_start": True}}}
    study = write_study(tmp_path / "s", {"random": 0.0, "random.warm_start": 0.03}, variants=variants, arrays=False)
    ran = execute_here("quirks.ipynb", shell, study_dir=str(study))
    register = outputs(ran, "register")[0]["data"]["text/html"]
    assert "hsamp_fixed_quota" in register
    assert "<script" not in register
    assert "+3." in outputs(ran, "effects")[0]["data"]["text/html"]
    assert ["image/png" in output.get("data", {}) for output in outputs(ran, "forest")] == [True]
    assert "warm_start" in (study / "tables" / "quirk_effects.csv").read_text()


def test_the_fast_evaluation_makes_its_own_checkpoints_where_none_are_given(
    shell: InteractiveShell, tmp_path: Path
) -> None:
    ran = execute_here("fast_evaluation.ipynb", shell, epochs=1, out=str(tmp_path / "t.csv"))
    said = "".join(output.get("text", "") for output in outputs(ran, "evaluate"))
    assert "6/6: random, seed 1, cycle 3: accuracy" in said
    assert "±" in outputs(ran, "table")[0]["data"]["text/html"]
    for cell in ("curve", "reliability"):
        assert ["image/png" in output.get("data", {}) for output in outputs(ran, cell)] == [True], cell
    assert pd.read_csv(tmp_path / "t.csv")["labelled"].tolist() == [60, 120, 180]


def test_the_fast_evaluation_takes_checkpoints_of_unknown_origin(shell: InteractiveShell, tmp_path: Path) -> None:
    for name in ("Seed-0/best.pth", "Seed-0/other.pth"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        torch.save(resnet10(10, 1, 4).state_dict(), tmp_path / name)
    ran = execute_here("fast_evaluation.ipynb", shell, pattern=f"{tmp_path}/Seed-*/*.pth", options={"test_size": 60})
    assert "60 test images" in outputs(ran, "table")[1]["text"]
    assert "do not say which cycle" in outputs(ran, "curve")[0]["text"]
    assert ["image/png" in output.get("data", {}) for output in outputs(ran, "reliability")] == [True]
