"""`alkit status`: what became of every run, from the signs of life that runs leave; and pages that obey no record."""

from __future__ import annotations

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml
from synthetic_study import write_study

from alkit.analysis import summary
from alkit.analysis.summary import page, report, web
from alkit.errors import CheckpointError
from alkit.grid.status import status_table
from alkit.records import load_runs
from alkit.storage.progress import SILENCE, find_studies

NOW = 1_800_000_000.0
HERE = {"pid": os.getpid(), "host": platform.node(), "updated": NOW - 5}


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six runs: random's and margin's of three seeds; only random's first has finished."""
    folder = write_study(tmp_path / "s", {"random": 0.0}, seeds=1, cycles=2, arrays=False)
    content = yaml.safe_load((folder / "study.yaml").read_text())
    (folder / "study.yaml").write_text(yaml.safe_dump(content | {"methods": ["random", "margin"], "seeds": [0, 1, 2]}))
    os.utime(folder / "random" / "seed-0" / "result.json", (NOW - 7200, NOW - 7200))
    return folder


def sign(study: Path, run: str, name: str, **content: Any) -> None:
    (study / run).mkdir(parents=True, exist_ok=True)
    (study / run / f"{name}.json").write_text(json.dumps(content))


def states(folder: Path, now: float = NOW) -> dict[str, list[str]]:
    """{run: its columns}, the empty ones left out."""
    rows = [re.split(r"\s{2,}", line.strip()) for line in status_table(folder, now).splitlines()[2:-1]]
    return {row[0]: row[1:] for row in rows}


def test_every_run_of_the_study_has_its_line_while_they_run(study: Path) -> None:
    training = {"state": "training", "cycle": 2, "cycles": 5, "epoch": 17, "epochs": 60, **HERE}
    sign(study, "random/seed-1", "progress", **training)
    sign(study, "random/seed-2", "progress", **training | {"state": "querying", "epoch": 60, "accuracy": 0.625})
    sign(study, "margin/seed-0", "progress", **training | {"pid": ended()})
    sign(study, "margin/seed-1", "failure", cell="9, kit-run", error="TrainingError: nan", time=NOW - 90)
    found = states(study)
    assert list(found) == [f"{label}/seed-{seed}" for label in ("random", "margin") for seed in (0, 1, 2)]
    assert found["random/seed-0"][:2] == ["finished", "2/2"]
    assert found["random/seed-0"][-1] == "2 h"
    assert found["random/seed-1"] == ["training", "2/5", "17/60", "5 s"]
    assert found["random/seed-2"] == ["querying", "2/5", "60/60", "62.50", "5 s"]
    assert found["margin/seed-0"] == ["stopped", "2/5", "17/60", "5 s"]
    assert found["margin/seed-1"] == ["failed", "90 s", "cell 9, kit-run: TrainingError: nan"]
    assert found["margin/seed-2"] == ["waiting"]
    total = status_table(study, NOW).splitlines()[-1]
    assert total.startswith("6 runs: ")
    assert set(total[8:].split(", ")) == {
        "1 finished", "1 training", "1 querying", "1 stopped", "1 failed", "1 waiting",
    }  # fmt: skip


def ended() -> int:
    """The id of a process that is no more."""
    with subprocess.Popen([sys.executable, "-c", ""]) as process:
        process.wait()
    return process.pid


def test_a_run_elsewhere_is_known_by_its_silence(study: Path) -> None:
    far = {"state": "training", "cycle": 1, "cycles": 2, "epoch": 1, "epochs": 9, "pid": 1, "host": "another"}
    sign(study, "random/seed-1", "progress", **far, updated=NOW - SILENCE + 60)
    sign(study, "random/seed-2", "progress", **far, updated=NOW - SILENCE - 60)
    assert [states(study)[f"random/seed-{seed}"][0] for seed in (1, 2)] == ["training", "stopped"]


def test_a_run_that_began_again_after_a_failure_is_not_failed(study: Path) -> None:
    sign(study, "random/seed-1", "failure", cell=None, error="its kernel died", time=NOW - 60)
    assert states(study)["random/seed-1"][0] == "failed"
    sign(study, "random/seed-1", "progress", state="training", cycle=1, cycles=2, epoch=1, epochs=9, **HERE)
    assert states(study)["random/seed-1"][0] == "training"


def test_a_folder_of_studies_shows_them_all_and_what_is_in_no_study_file(study: Path) -> None:
    write_study(study.parent / "t", {"oo4al": 0.0}, seeds=1, cycles=1, arrays=False)
    sign(study, "entropy/seed-9", "progress", state="training", cycle=1, cycles=2, epoch=1, epochs=9, **HERE)
    found = states(study.parent)
    assert {"s/random/seed-0", "s/margin/seed-2", "s/entropy/seed-9", "t/oo4al/seed-0"} <= set(found)
    assert len(found) == 8


def test_studies_at_any_depth_and_behind_links_are_found_with_their_path(tmp_path: Path) -> None:
    for name in ("a", "published/b", "published/old/c", "elsewhere/d"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        write_study(tmp_path / name, {"random": 0.0}, seeds=1, cycles=1, arrays=False)
    outputs = tmp_path / "published"
    (outputs / "d").symlink_to(tmp_path / "elsewhere" / "d")
    (outputs / "d" / "round").symlink_to(outputs)
    assert set(states(outputs)) == {"b/random/seed-0", "old/c/random/seed-0", "d/random/seed-0"}
    assert [str(path.relative_to(outputs)) for path in find_studies(outputs)] == ["b", "d", "old/c"]
    assert set(load_runs(outputs)["path"]) == {str(outputs / name) for name in states(outputs)}


def test_without_a_study_file_the_runs_are_still_found(study: Path) -> None:
    (study / "study.yaml").write_text("][")
    assert list(states(study)) == ["random/seed-0"]
    (study / "random" / "seed-0" / "result.json").write_text('{"cycles": [')
    assert states(study)["random/seed-0"] == ["failed", "result.json is not a record of alkit"]


def test_no_run_is_an_error_of_one_line(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="no runs in it; expected a study's folder"):
        status_table(tmp_path)
    with pytest.raises(CheckpointError, match="no such folder"):
        status_table(tmp_path / "nowhere")


# --- pages -----------------------------------------------------------------------------------------------------------

EVIL = "<script>alert(1)</script><img src=x onerror=alert(2)>"


@pytest.mark.usefixtures("undrawn")  # pictures hold no markup
def test_no_text_of_a_study_becomes_markup_of_its_summary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Title, description, class names, data set, versions and failures, all of unknown origin, in every section."""
    folder = write_study(tmp_path / "s", {"random": 0.0, "margin": 0.01}, seeds=2, cycles=2, class_names=[EVIL] * 10)
    content = yaml.safe_load((folder / "study.yaml").read_text())
    content |= {"title": EVIL, "description": f"`{EVIL}` & `more`", "seeds": [0, 1, 2]}
    (folder / "study.yaml").write_text(yaml.safe_dump(content))
    sign(folder, "margin/seed-2", "failure", cell=EVIL, error=EVIL, time=1.0)
    sign(folder, "random/seed-2", "progress", state=EVIL, cycle=1, **HERE)
    for file in folder.glob("*/*/result.json"):
        record = json.loads(file.read_text())
        record["environment"] |= {"torch": EVIL, "device": EVIL, "git_commit": EVIL}
        record["params"]["augmentation"] = EVIL
        file.write_text(json.dumps(record | {"protocol": EVIL}))
    (folder / "margin" / "seed-1" / "result.json").write_text(json.dumps({"schema": EVIL}))
    marked: list[str] = []

    def display(shown: Any, raw: bool = False) -> None:
        marked.append(shown["text/html"] if raw else str(shown.alt))

    monkeypatch.setattr(page, "display", display)
    opened = summary.open_study(folder, tmp_path / "out")
    sections = [getattr(report, name) for name in dir(report) if hasattr(getattr(report, name), "__wrapped__")]
    assert len(sections) >= 9
    for section in sections:
        section(opened)
    text = "".join(marked)
    assert text.count("&lt;script&gt;") >= 5
    assert "<script" not in text
    assert "&amp; <code>more</code>" in text, "a description may mark code"
    text = re.sub(r'<img width="\d+" alt="[^"<>]*" src="data:image/[^"<>]*">', "", text)
    assert "<img" not in text, "but for the page's own figures"


def test_a_folder_of_any_name_gets_its_summary_from_the_kits_notebook(tmp_path: Path) -> None:
    import nbformat

    notebook = nbformat.v4.new_notebook(
        cells=[nbformat.v4.new_code_cell("study_dir = out_dir = data_root = None", metadata={"tags": ["parameters"]}),
               nbformat.v4.new_code_cell("print(study_dir)")],
        metadata={"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
    )  # fmt: skip
    folder = tmp_path / "we ird'; {a} $(touch y) é"
    folder.mkdir()
    (folder / "study.yaml").write_text("methods: [random]\n")
    nbformat.write(notebook, tmp_path / "{short}.ipynb")
    made = summary.build(folder, tmp_path / "{short}.ipynb")
    assert made == folder / "summary.html"
    assert str(folder) in made.read_text().replace("&#39;", "'")
    assert {path.name for path in tmp_path.rglob("*")} == {
        "{short}.ipynb", folder.name, "study.yaml", "summary.html", "summary.ipynb", "tables", "figures",
    }  # fmt: skip


def test_the_name_of_a_study_is_text_on_its_page(tmp_path: Path) -> None:
    import nbformat

    nbformat.write(nbformat.v4.new_notebook(), tmp_path / "x.ipynb")
    marked = web.page(tmp_path / "x.ipynb", f"{EVIL}: summary")
    assert "<title>&lt;script&gt;" in marked
    assert "<script" not in marked
