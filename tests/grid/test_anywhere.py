"""One study through the whole command, where nothing is as usual: every place, name, home, kernel and strategy is odd.

All in one, since each study of its own would cost the start of six processes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path

import nbformat
import own_strategy
import yaml
from conftest import TINY

from alkit import Study
from alkit.grid import planning
from alkit.grid.status import status_table
from alkit.records import load_runs, read_run

KIT = """jürgen's {x} "a\\b" $HOME; touch y #%s {"""
OUT = "we ird'; touch x; {a} $(touch y) `touch z` é"


def planted(path: Path, code: str) -> None:
    """A notebook that runs this."""
    cells = [nbformat.v4.new_code_cell("out_dir = '.'", metadata={"tags": ["parameters"]}),
             nbformat.v4.new_code_cell(code)]  # fmt: skip
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(nbformat.v4.new_notebook(cells=cells, metadata=kernel), path)


def test_a_study_runs_wherever_it_and_the_kit_lie_with_the_kits_own_notebooks_and_kernel_and_ones_own_strategy(
    tmp_path: Path,
) -> None:
    """Its pretext task, its runs and its summary; meanwhile its state can be looked at."""
    kit, mine, study = tmp_path / KIT / "kit", tmp_path / "mine", tmp_path / OUT / "odd"
    kit.mkdir(parents=True)
    for name in ("alkit", "notebooks", "workflow", "pyproject.toml"):
        (kit / name).symlink_to(planning.ROOT / name)
    own_strategy.keep(mine)
    content = {**TINY, "methods": ["pt4al_cold_start", "second_guess"], "strategies": "my_package.my_module",
               "epochs": 20, "pretext_supervised": False}  # fmt: skip
    (mine / "odd.yaml").write_text(yaml.safe_dump(content))
    # what must not be run: notebooks and a workflow where the command is given, and in the study's own folder
    trace = tmp_path / "trace"
    for path in (tmp_path / "notebooks" / "own_method.ipynb", tmp_path / "notebooks" / "methods" / "pt4al.ipynb",
                 study / "summary.ipynb", study / "second_guess" / "seed-0" / "run.ipynb"):  # fmt: skip
        planted(path, f"open({str(trace)!r}, 'w')")
    (study / "Snakefile").write_text(f"open({str(trace)!r}, 'w')")
    # a home that cannot be written, and a kernel called python3 that ends at once
    spec = tmp_path / "other" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false", "{connection_file}"], "language": "python", "display_name": "Other"}))
    bare = {key: value for key, value in os.environ.items() if not key.startswith("XDG_") and key != "MPLCONFIGDIR"}
    odd = {"HOME": "/proc/no/home", "JUPYTER_PATH": str(tmp_path / "other"), "PYTHONPATH": str(kit)}

    command = [sys.executable, "-m", "alkit", "run", str(mine / "odd.yaml"), "--out", str(study.parent)]
    seen = set()
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                          env=bare | odd) as process:  # fmt: skip
        while process.poll() is None:
            if (study / "study.yaml").exists():
                seen |= {line.split()[1] for line in status_table(study.parent).splitlines()[2:-1]}
            time.sleep(0.2)
        said, errors = process.communicate()

    assert process.returncode == 0, errors
    assert {"waiting", "training"} <= seen
    assert "pt4al_cold_start" in said
    lines = [line.split()[:2] for line in status_table(study.parent).splitlines()[2:-1]]
    assert lines == [["odd/pt4al_cold_start/seed-0", "finished"], ["odd/second_guess/seed-0", "finished"]]
    assert set(load_runs(study.parent)["method"]) == {"pt4al_cold_start", "second_guess"}
    assert read_run(study / "second_guess" / "seed-0")["params"]["strategies"] == "my_package.my_module"
    assert Study.from_yaml(study / "study.yaml", check=False).labels == ["pt4al_cold_start", "second_guess"], (
        "read without the module, too"
    )
    assert (study / "summary.html").is_file()
    assert not trace.exists(), "a notebook or workflow from elsewhere was run"
    assert not list(tmp_path.rglob("[xyz]")), "a name was read as a command"
    executed = nbformat.read(study / "pt4al_cold_start" / "seed-0" / "run.ipynb", as_version=4)
    assert executed.cells[0].source.startswith("# PT4AL")
    logs = [study / "logs" / "summary.log", *study.rglob("run.log"), *study.glob("pretext/*.log")]
    noise = "".join(path.read_text() for path in logs if path.exists()) + errors
    for word in ("Warning", "WARNING", "not a writable", "encryption", "unknown parameter"):
        assert word not in noise, noise
