"""One study, summarised: `build(study_dir)` runs notebooks/summary.ipynb and leaves it, a page, CSVs and pictures."""

from __future__ import annotations

import os
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alkit.analysis.summary import web
from alkit.errors import CheckpointError
from alkit.grid.execute import execute, import_papermill
from alkit.grid.status import no_runs, run_folders
from alkit.storage.files import write_text
from alkit.storage.paths import absolute, check_writable_as_text, fix_environment
from alkit.storage.scratch import scratch_folder

if TYPE_CHECKING:
    from alkit.analysis.summary.study import StudyFolder, open_study

NOTEBOOK = Path(__file__).parents[3] / "notebooks" / "summary.ipynb"


def build(study_dir: str | Path, notebook: str | Path = NOTEBOOK, data_root: str | Path | None = None) -> Path:
    """Write STUDY/summary.ipynb (executed), summary.html, tables/*.csv, figures/*.png, *.pdf; returns the page's path.

    Everything is made in a folder aside and then moved into place, so a summary that fails leaves the last one as it
    was. Raises `CheckpointError` if there is no such folder or a cell of the notebook fails.
    """
    import_papermill()
    from papermill.exceptions import PapermillExecutionError

    study = absolute(study_dir)
    if not study.is_dir():
        raise CheckpointError(f"{study_dir}: no such folder")
    if not any(run_folders(study)):
        raise no_runs(study_dir)
    if not Path(notebook).is_file():
        raise CheckpointError(f"{notebook}: not there; `alkit summary` needs the notebooks beside the package")
    check_writable_as_text(study, notebook)
    fix_environment()
    root = None if data_root is None else str(absolute(data_root))
    with scratch_folder(".summary-", study) as aside:
        parameters = {"study_dir": str(study), "out_dir": str(aside), "data_root": root}
        try:
            execute(notebook, aside / "summary.ipynb", parameters, cwd=study)
        except PapermillExecutionError as error:
            if error.ename == CheckpointError.__name__:  # of the folder itself, and one line already
                raise CheckpointError(error.evalue) from None
            reason = " ".join(f"{error.ename}: {error.evalue}".split())
            raise CheckpointError(f"{study_dir}: the summary's cell {error.exec_count} failed ({reason})") from None
        except Exception as error:  # of the kernel or of the notebook's file
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            raise CheckpointError(f"{study_dir}: the summary's notebook could not be run ({reason})") from error
        written = (aside / "summary.ipynb").read_text(encoding="utf-8")  # it names where it is, not where it was made
        write_text(aside / "summary.ipynb", written.replace(f"/{aside.name}", ""))
        write_text(aside / "summary.html", web.page(aside / "summary.ipynb", web.title_of(study)))
        _move(aside, study)
    return study / "summary.html"


def _move(aside: Path, study: Path) -> None:
    """Put what was made into its place; the folders of the last summary go."""
    for name in ("tables", "figures"):
        (aside / name).mkdir(exist_ok=True)
        if (study / name).exists():
            os.rename(study / name, aside / f"old-{name}")
        os.rename(aside / name, study / name)
    for name in ("summary.ipynb", "summary.html"):
        os.chmod(aside / name, 0o644)
        os.replace(aside / name, study / name)


__all__ = ["NOTEBOOK", "StudyFolder", "build", "open_study"]


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: `build` leaves that to the notebook's kernel."""
    if name in ("StudyFolder", "open_study"):
        return getattr(import_module("alkit.analysis.summary.study"), name)
    raise AttributeError(f"module '{__name__}' has no attribute '{name}'")
