"""Homes that cannot be written, kernels that are not ours: what other programs keep or say is no part of a run."""

from __future__ import annotations

import getpass
import json
import os
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from nbformat.v4 import new_code_cell

from alkit.analysis.summary import build
from alkit.cli import main
from alkit.errors import CheckpointError
from alkit.grid import doctor
from alkit.grid.execute import execute
from alkit.storage.paths import cache_folder, home, name_user, substitute_home, why_not_writable

UNWRITABLE = "/proc/no/home"


@pytest.fixture
def other_kernel(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A kernel called python3 on JUPYTER_PATH that ends at once."""
    spec = tmp_path / "other" / "kernels" / "python3" / "kernel.json"
    spec.parent.mkdir(parents=True)
    spec.write_text(json.dumps({"argv": ["false", "{connection_file}"], "language": "python", "display_name": "Other"}))
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "other"))
    return spec


def notebook(path: Path, *cells: str) -> Path:
    codes = [new_code_cell("given = 1", metadata={"tags": ["parameters"]}), *(new_code_cell(cell) for cell in cells)]
    kernel = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    nbformat.write(nbformat.v4.new_notebook(cells=codes, metadata=kernel), path)
    return path


def printed(path: Path) -> str:
    return "".join(out.text for cell in nbformat.read(path, as_version=4).cells for out in cell.get("outputs", []))


# --- homes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("home_is", [UNWRITABLE, None])
def test_others_get_a_home_that_can_be_written_and_the_kits_cache_stays(
    home_is: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("XDG_CACHE_HOME", "ALKIT_CACHE", "MPLCONFIGDIR", "HOME"):
        monkeypatch.delenv(name, raising=False)
    if home_is is None:  # as where the system does not know the user
        monkeypatch.setattr(os.path, "expanduser", lambda path: os.environ.get("HOME", "~") if path == "~" else path)
    else:
        monkeypatch.setenv("HOME", home_is)
    expected = Path(home_is or "/") / ".cache" / "alkit"
    before = dict(os.environ)
    with substitute_home():
        assert cache_folder() == expected, "not a folder that is gone tomorrow"
        for name in ("XDG_CACHE_HOME", "MPLCONFIGDIR", "XDG_CONFIG_HOME", *["HOME"] * (home_is is None)):
            assert why_not_writable(Path(os.environ[name])) is None
        scratch = Path(os.environ["XDG_CACHE_HOME"])
    assert not scratch.exists()
    assert dict(os.environ) == before


def test_a_home_that_can_be_written_stays_what_it_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    before = dict(os.environ)
    with substitute_home():
        assert dict(os.environ) == before
    assert list(tmp_path.iterdir()) == []
    assert home() == tmp_path


def test_a_user_without_a_name_gets_one(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> str:
        if name := os.environ.get("LOGNAME"):
            return name
        raise KeyError("getpwuid(): uid not found: 12345")

    monkeypatch.setattr(getpass, "getuser", unknown)
    monkeypatch.delenv("LOGNAME", raising=False)
    name_user()
    assert getpass.getuser() == f"user-{os.getuid()}"
    monkeypatch.delenv("LOGNAME")


def test_doctor_names_a_cache_that_cannot_be_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(doctor, "CHECKS", {"cache": doctor._cache})
    monkeypatch.setenv("ALKIT_CACHE", f"{UNWRITABLE}/alkit")
    assert main(["doctor"]) == 1
    assert capsys.readouterr().out.startswith(f"!!  cache       {UNWRITABLE}/alkit: cannot be written (")
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "new" / "alkit"))
    assert main(["doctor"]) == 0
    assert not (tmp_path / "new").exists(), "looking writes nothing"
    (tmp_path / "file").touch()
    monkeypatch.setenv("ALKIT_CACHE", str(tmp_path / "file" / "alkit"))
    assert main(["doctor"]) == 1


# --- kernels ---------------------------------------------------------------------------------------------------------


def test_a_notebook_runs_in_this_environments_kernel_and_nothing_is_said_of_parameters(
    tmp_path: Path, other_kernel: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = notebook(tmp_path / "n.ipynb", "import sys, os\nprint(sys.executable, given, unknown, os.getcwd())")
    (tmp_path / "work").mkdir()
    (tmp_path / "work" / "json.py").write_text("raise SystemExit('a file of the folder, not the package')")
    before = dict(os.environ)
    execute(path, tmp_path / "done.ipynb", {"given": 2, "unknown": 3}, cwd=tmp_path / "work")
    assert printed(tmp_path / "done.ipynb") == f"{sys.executable} 2 3 {tmp_path / 'work'}\n"
    assert dict(os.environ) == before
    said = capfd.readouterr()
    assert said.out + said.err == ""


def test_a_temporary_folder_too_long_for_sockets_makes_no_noise_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    import tempfile

    (tmp_path / ("long" * 20)).mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / ("long" * 20)))
    execute(notebook(tmp_path / "n.ipynb", "print(given)"), tmp_path / "done.ipynb", {"unknown": 3})
    assert printed(tmp_path / "done.ipynb") == "1\n"
    said = capfd.readouterr()
    assert said.out + said.err == ""
    assert list((tmp_path / ("long" * 20)).iterdir()) == []


@pytest.mark.parametrize(
    ("cell", "said"),
    [
        ("import os\nos._exit(3)", "the summary's notebook could not be run (DeadKernelError: Kernel died)"),
        ("1 / 0", "the summary's cell 3 failed (ZeroDivisionError: division by zero)"),
    ],
)
def test_a_summary_whose_kernel_dies_says_so_in_a_line(cell: str, said: str, tmp_path: Path) -> None:
    study = tmp_path / "study"
    (study / "random" / "seed-0").mkdir(parents=True)
    (study / "random" / "seed-0" / "result.json").write_text("{}")
    with pytest.raises(CheckpointError) as refused:
        build(study, notebook(tmp_path / "n.ipynb", cell))
    assert str(refused.value) == f"{study}: {said}"
    assert [path.name for path in study.iterdir()] == ["random"]


def test_a_summarys_notebook_that_is_none_is_named(tmp_path: Path, other_kernel: Any) -> None:
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "result.json").write_text("{}")
    (tmp_path / "n.ipynb").write_text("{")
    with pytest.raises(CheckpointError, match="study: the summary's notebook could not be run"):
        build(tmp_path / "study", tmp_path / "n.ipynb")
