"""What the README says can be copied, runs as it stands; what it lists is there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import yaml

from alkit.data import DATASETS
from alkit.methods import METHODS
from alkit.records import load_runs

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
EXECUTED = dict(re.findall(r"<!-- executed by tests/test_readme.py -->\n```(\w+)\n(.*?)```", README, re.DOTALL))


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """A copy of the repository's files without its outputs, to run the README's commands in."""
    folder = tmp_path / "kit"
    for name in ("notebooks", "params", "workflow"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns(".ipynb_checkpoints"))
    return folder


def run(command: list[str], folder: Path) -> str:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(command, cwd=folder, env=os.environ | {"PATH": path, "OMP_NUM_THREADS": "1"},
                          capture_output=True, text=True, check=False)  # fmt: skip
    assert done.returncode == 0, f"{done.stdout[-1500:]}\n{done.stderr[-3000:]}"
    return done.stdout


def test_the_commands_for_one_run_and_for_a_grid_work_as_they_stand(checkout: Path) -> None:
    out = run(["bash", "-eu", "-c", EXECUTED["bash"]], checkout)
    by_hand = load_runs(checkout / "outputs" / "by-hand")
    assert set(zip(by_hand["method"], by_hand["seed"], strict=True)) == {("oo4al", 7)}
    assert (checkout / "oo4al-seed-7.ipynb").is_file()
    study = yaml.safe_load((ROOT / "params" / "tiny.yaml").read_text())
    grid = load_runs(checkout / "outputs" / "tiny")
    assert set(grid["label"]) == set(study["methods"])
    assert set(grid["seed"]) == set(study["seeds"])
    assert (checkout / "outputs" / "tiny" / "summary.html").is_file()
    for method in study["methods"]:
        assert method in out, "alkit status names every run"


def test_the_strategy_of_ones_own_works_as_it_stands(tmp_path: Path) -> None:
    (tmp_path / "mine.py").write_text(EXECUTED["python"])
    accuracy = float(run([sys.executable, "mine.py"], tmp_path).splitlines()[-1])
    assert 0.5 < accuracy <= 1, "a digits run of five cycles"


def test_every_file_that_the_readme_links_or_names_is_there() -> None:
    links = [link for link in re.findall(r"\]\(([^)#]+)\)", README) if "://" not in link]
    named = re.findall(r"`((?:alkit|notebooks|params|workflow|tests|scripts|benchmarks)/[\w/.-]+)`", README)
    missing = [name for name in {*links, *named} if not (ROOT / name).exists()]
    assert missing == []


def test_the_tables_list_every_method_and_data_set() -> None:
    done = subprocess.run([sys.executable, ROOT / "scripts" / "readme_figures.py", "--check"], capture_output=True,
                          text=True, check=False)  # fmt: skip
    assert done.returncode == 0, f"run `python scripts/readme_figures.py`: {done.stdout}{done.stderr}"
    rows = [line for line in README.splitlines() if line.startswith("| [`")]
    assert [re.search(r"`(\w+)`", row)[1] for row in rows] == list(METHODS)  # type: ignore[index]
    for name in DATASETS:
        assert f"| `{name}` |" in README
    count = int(re.search(r"(\d+) methods from the papers", README)[1])  # type: ignore[index]
    assert count == len(METHODS)


def test_a_measured_result_is_the_mean_and_deviation_over_seeds_of_the_last_cycle(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    from readme_figures import heading, measured

    rows = [(s, c, 20 * c, a, 0.1 * c) for s, last in ((0, 0.90), (1, 0.94)) for c, a in ((1, 0.5), (2, last))]
    frame = pd.DataFrame(rows, columns=["seed", "cycle", "labelled", "accuracy", "ece"]).assign(label="a", method="a")
    spread = np.std([90, 94], ddof=1)
    assert measured(frame, "a") == f"92.0 ± {spread:.1f} (0.200)"
    assert measured(frame[frame["seed"] == 0], "a") == "90.0 (0.200)"
    assert measured(frame, "b") == "–"
    assert heading("digits", frame) == "digits, 40 labels, 2 seeds"


def test_the_pictures_are_small_and_what_is_cited_is_one_version() -> None:
    pictures = list((ROOT / "docs").glob("*.png"))
    assert pictures
    assert all(picture.stat().st_size < 300_000 for picture in pictures)
    from alkit import __version__

    cited = yaml.safe_load((ROOT / "CITATION.cff").read_text())
    assert cited["version"] == __version__
    assert f"## {__version__}" in (ROOT / "CHANGELOG.md").read_text()
    assert cited["license"] == tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]
