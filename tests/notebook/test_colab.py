"""Notebooks on Colab: a fresh environment that has torch already, and a stub of `google.colab`."""

from __future__ import annotations

import glob
import json
import os
import shutil
import subprocess
import sys
import sysconfig
import textwrap
import tomllib
import types
import venv
from pathlib import Path
from typing import Any

import nbformat
import pytest

from alkit import notebook

ROOT = Path(__file__).parents[2]
NOTEBOOKS = sorted(p for p in (ROOT / "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in p.parts)
ADDRESS = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"].get("urls", {}).get("Repository")


@pytest.fixture(scope="module")
def colab(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of an environment with torch and all else but alkit, whose every process has `google.colab` loaded.

    The installed packages are linked into it, so that nothing is downloaded.
    """
    home = tmp_path_factory.mktemp("colab")
    venv.create(home, with_pip=False, symlinks=True)
    python = home / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    here = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    there = home / "preinstalled"
    there.mkdir()
    for source in {sysconfig.get_path("purelib"), sysconfig.get_path("platlib")}:
        for entry in Path(source).iterdir():
            if not entry.name.lower().lstrip("_").startswith(("alkit", "editable__")) and entry.suffix != ".pth":
                (there / entry.name).symlink_to(entry)
    stub = home / "stub" / "google" / "colab"
    stub.mkdir(parents=True)
    (stub / "__init__.py").touch()
    (here / "colab.pth").write_text(f"{there}\n{home / 'stub'}\nimport google.colab\n")
    check = "import sys, torch, importlib.util as u; assert 'google.colab' in sys.modules and not u.find_spec('alkit')"
    subprocess.run([python, "-c", check], check=True, cwd=home)
    return python


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The kit as an archive that pip can install without building it."""
    folder = tmp_path_factory.mktemp("wheel")
    shutil.copytree(ROOT / "alkit", folder / "source" / "alkit", ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder / "source" / name)
    subprocess.run(
        [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-index", "--no-build-isolation",
         "--wheel-dir", folder, folder / "source"],
        check=True,
    )  # fmt: skip
    return next(folder.glob("alkit-*.whl"))


def papermill(python: Path, notebook: Path, folder: Path, *parameters: str, **environment: str) -> Any:
    command = [python, "-m", "papermill", notebook, folder / "executed.ipynb", "-k", "python3", "--log-level", "ERROR"]
    settings = os.environ | {"OMP_NUM_THREADS": "1", "PIP_NO_INDEX": "1", "PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    for name in ("VIRTUAL_ENV", "PYTHONPATH", "ALKIT_SOURCE"):
        settings.pop(name, None)
    return subprocess.run([*command, *parameters], cwd=folder, capture_output=True, text=True,
                          env=settings | environment, check=False)  # fmt: skip


def test_on_colab_a_notebook_installs_the_kit_and_leaves_torch_as_it_is(
    colab: Path, wheel: Path, tmp_path: Path
) -> None:
    (tmp_path / "alkit").mkdir()  # a folder called alkit beside the notebook, as an uploaded kit is, is not the package
    done = papermill(
        colab, ROOT / "notebooks" / "methods" / "margin.ipynb", tmp_path,
        "-y", "{epochs: 2, milestones: [1], cycles: 2, width: 4, pool_size: 200, test_size: 60}",
        "-p", "outputs_dir", str(tmp_path / "kept"), ALKIT_SOURCE=str(wheel),
    )  # fmt: skip
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((tmp_path / "kept" / "digits" / "margin" / "seed-0" / "result.json").read_text())
    assert len(record["cycles"]) == 2
    ask = "import alkit, torch, sysconfig; print(alkit.__file__, torch.__file__, sysconfig.get_path('purelib'))"
    answer = subprocess.run([colab, "-c", ask], check=True, capture_output=True, text=True, cwd=tmp_path.parent)
    alkit_file, torch_file, site = answer.stdout.split()
    assert Path(alkit_file).is_relative_to(site)
    assert not Path(torch_file).is_relative_to(site), "torch was installed again"
    installed = {path.name.split("-")[0] for path in Path(site).glob("*.dist-info")}
    assert installed == {"alkit"}, "everything else was there already"
    kept = Path("/tmp/alkit-keep.txt").read_text().split()
    kept_names = {line.split("==")[0] for line in kept}
    assert kept_names >= {"torch", "torchvision", "ipykernel", "ipython", "traitlets", "tornado"}, (
        "what the kernel loads"
    )
    assert "alkit" not in kept_names


COLABS = {"ipykernel": "6.17.1", "ipywidgets": "7.7.1", "ipython": "7.34.0", "traitlets": "5.7.1", "tornado": "6.5.1",
          "jupyter-client": "7.4.9", "pandas": "2.2.2", "numpy": "2.0.2", "psutil": "5.9.5",
          "nbclient": "0.10.2", "nbconvert": "7.16.6", "nbformat": "5.10.4"}  # fmt: skip
"""What Colab's image of August 2026 has loaded in a kernel, or pins; of all else it has something newer."""


def test_the_kits_bounds_replace_nothing_that_colab_has(wheel: Path, tmp_path: Path) -> None:
    """pip is asked what it would install where these versions are, in an environment of nothing but their names."""
    from importlib.metadata import requires
    from importlib.metadata import version as version_here

    from packaging.requirements import Requirement
    from packaging.utils import canonicalize_name

    venv.create(tmp_path / "env", with_pip=True, symlinks=True)
    python = tmp_path / "env" / "bin" / "python"
    ask = "import sysconfig; print(sysconfig.get_path('purelib'))"
    site = Path(subprocess.run([python, "-c", ask], check=True, capture_output=True, text=True).stdout.strip())
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    names = [canonicalize_name(Requirement(line).name) for line in project["dependencies"]] + list(COLABS)
    for name in dict.fromkeys(names):
        has = COLABS.get(name) or version_here(name)
        info = site / f"{name.replace('-', '_')}-{has}.dist-info"
        info.mkdir()
        others = [] if name in COLABS else (requires(name) or [])  # what they need of Colab's must be met as well
        needs = [line for line in others if canonicalize_name(Requirement(line).name) in COLABS]
        needs = [line for line in needs if (mark := Requirement(line).marker) is None or mark.evaluate({"extra": ""})]
        lines = ["Metadata-Version: 2.1", f"Name: {name}", f"Version: {has}", *(f"Requires-Dist: {n}" for n in needs)]
        (info / "METADATA").write_text("\n".join(lines) + "\n")
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--no-index", "--report", "-", wheel]
    done = subprocess.run(
        command, capture_output=True, text=True, env=os.environ | {"PIP_DISABLE_PIP_VERSION_CHECK": "1"}
    )
    assert done.returncode == 0, done.stderr
    assert [each["metadata"]["name"] for each in json.loads(done.stdout)["install"]] == ["alkit"]


def test_a_zip_in_content_is_found(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import notebooks as script

    monkeypatch.setattr(script, "repository", lambda: None)
    lines = script.colab_source().splitlines()
    start = next(i for i, line in enumerate(lines) if "found = " in line)
    end = next(i for i, line in enumerate(lines) if line.strip() == ")")
    code = textwrap.dedent("\n".join(lines[start : end + 1])).replace("/content", str(tmp_path))
    monkeypatch.delenv("ALKIT_SOURCE", raising=False)

    def source() -> str:
        names: dict[str, Any] = {"glob": glob, "os": os}
        exec(code, names)
        return str(names["source"])

    with pytest.raises(FileNotFoundError, match="Upload its folder there, or a zip file of it"):
        source()
    (tmp_path / "alkit").mkdir()
    assert source() == str(tmp_path / "alkit")
    (tmp_path / "alkit-main.zip").touch()
    assert source() == str(tmp_path / "alkit-main.zip")
    monkeypatch.setenv("ALKIT_SOURCE", "alkit @ git+https://example.org/alkit")
    assert source() == "alkit @ git+https://example.org/alkit"


@pytest.mark.skipif(ADDRESS is not None, reason="the project has a public address")
def test_on_colab_without_an_address_the_notebook_says_what_to_do(colab: Path, tmp_path: Path) -> None:
    subprocess.run([colab, "-m", "pip", "uninstall", "--quiet", "--yes", "alkit"], check=False, capture_output=True)
    done = papermill(colab, ROOT / "notebooks" / "methods" / "margin.ipynb", tmp_path)
    assert done.returncode != 0
    assert "/content/alkit: alkit has no public address yet. Upload its folder there" in done.stderr
    assert "%env ALKIT_SOURCE=" in done.stderr


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.stem)
def test_every_notebook_begins_with_the_cell_for_colab(path: Path) -> None:
    cells = nbformat.read(path, as_version=4).cells
    assert cells[0].cell_type == "markdown"
    badges = [cell for cell in cells if cell.id == "kit-badge"]
    assert len(badges) == (1 if ADDRESS else 0)
    first = next(cell for cell in cells if cell.cell_type == "code")
    assert first.id == "kit-colab"
    lines = first.source.splitlines()
    assert lines[0] == "import sys"
    assert lines[2].startswith('if "google.colab" in sys.modules:')
    assert all(line.startswith("    ") for line in lines[3:] if line), "nothing happens outside Colab"
    assert not any("-e " in line or "drive" in line for line in lines)


def test_a_public_address_gives_every_notebook_a_badge_and_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "scripts"))
    import notebooks as script

    monkeypatch.setattr(script, "repository", lambda: "https://github.com/somebody/alkit")
    made = script.build(ROOT / "notebooks" / "methods" / "margin.ipynb", script.METHODS["margin"])
    badge = next(cell for cell in made.cells if cell.id == "kit-badge")
    target = "https://colab.research.google.com/github/somebody/alkit/blob/main/notebooks/methods/margin.ipynb"
    assert target in badge.source
    source = next(cell for cell in made.cells if cell.id == "kit-colab").source
    assert '"alkit @ git+https://github.com/somebody/alkit"' in source
    assert "/content/alkit" not in source


@pytest.mark.parametrize(
    ("folder", "mounts"),
    [("/content/drive/MyDrive/alkit", 1), ("/content/drive", 1), ("/content/outputs", 0), ("/content/drives/x", 0)],
)
def test_only_a_folder_on_drive_mounts_drive(folder: str, mounts: int, monkeypatch: pytest.MonkeyPatch) -> None:
    mounted: list[str] = []
    google, stub, drive = (types.ModuleType(n) for n in ("google", "google.colab", "google.colab.drive"))
    drive.mount, stub.drive, google.colab = mounted.append, drive, stub  # type: ignore[attr-defined]
    for module in (google, stub, drive):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    assert notebook.outputs(folder) == Path(folder)
    assert mounted == ["/content/drive"] * mounts


def test_nothing_is_mounted_outside_colab(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "google.colab", raising=False)
    assert notebook.outputs("/content/drive/MyDrive/alkit") == Path("/content/drive/MyDrive/alkit")
