"""What the grid starts: one run's notebook, or Snakemake itself. Neither outlives the process that started it.

python -m alkit.grid.job notebook IN.ipynb OUT.ipynb -f run.yaml -r out_dir DIR     papermill; failure.json if it fails
python -m alkit.grid.job kernel -f CONNECTION                                       the notebook's kernel, for papermill
python -m alkit.grid.job snakemake ...                                              Snakemake's own command line
"""

from __future__ import annotations

import argparse
import os
import re
import runpy
import signal
import sys
import threading
import time
import traceback
from contextlib import suppress
from pathlib import Path
from typing import Any

from alkit.grid.execute import PARENT, execute, import_papermill
from alkit.storage.files import take_lock, write_json

_COLOURS = re.compile(r"\x1b\[[0-9;]*m")


def die_with_parent() -> None:
    """End this process at once when the one that started it has ended, however that came about.

    Snakemake that is killed leaves its jobs running, and they would write into a folder that a new command uses.
    A kernel watches papermill in the same way: ipykernel's own watch misses a parent that ends while it starts, where
    orphans go to another process than the first (a desktop session, a container's).
    """
    parent = int(os.environ.pop(PARENT, os.getppid()))

    def watch() -> None:
        while os.getppid() == parent:
            time.sleep(0.5)
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=watch, daemon=True).start()


def run_notebook(arguments: argparse.Namespace) -> int:
    """Execute a notebook as papermill does; what failed is left in failure.json beside the executed notebook."""
    log = Path(arguments.log)
    folder = log.parent
    with suppress(FileNotFoundError), (folder / ".lock").open("r+") as held:  # on NFS only who may write can lock
        take_lock(held, 30)  # the kernel of a job that was killed a moment ago
    failure = folder / arguments.failure
    failure.unlink(missing_ok=True)
    error = _papermill(arguments)
    done = arguments.product is None or Path(arguments.product).exists()
    if error is None and not done:
        error = {"cell": None, "error": f"the notebook ended without leaving {arguments.product}"}
    if error is not None:
        print(f"\n{error['error']}", file=sys.stderr)
        with suppress(OSError):  # a full disk is reported by what is printed
            write_json(failure, error | {"time": time.time()})
    return int(not done)


def _papermill(arguments: argparse.Namespace) -> dict[str, Any] | None:
    """What went wrong, or None."""
    import_papermill()
    from nbclient.exceptions import DeadKernelError
    from papermill.exceptions import PapermillExecutionError
    from papermill.iorw import read_yaml_file

    try:
        execute(arguments.notebook, arguments.log, dict(read_yaml_file(arguments.file)) | dict(arguments.raw))
    except PapermillExecutionError as error:
        print(_COLOURS.sub("", "\n".join(error.traceback)), file=sys.stderr)
        line = " ".join(f"{error.ename}: {error.evalue}".split())
        return {"cell": _cell_name(arguments.log, error.cell_index), "error": line}
    except DeadKernelError:
        return {"cell": _cell_name(arguments.log, None), "error": "its kernel died: killed, or out of memory"}
    except Exception as error:
        traceback.print_exc()
        return {"cell": None, "error": " ".join(f"{type(error).__name__}: {error}".split())}
    return None


def _cell_name(log: str, index: int | None) -> str | None:
    """The failed cell: its place among the notebook's cells from 1 and its id; without `index`, the last one begun.

    Papermill adds cells: the parameters given, and afterwards, which `index` does not count, marks where it failed.
    """
    import nbformat

    def added(cell: Any, tag: str) -> bool:
        return tag in cell.metadata.get("tags", [])

    with suppress(Exception):
        cells = [c for c in nbformat.read(log, as_version=4).cells if not added(c, "papermill-error-cell-tag")]
        if index is None:
            begun = [i for i, c in enumerate(cells) if c.metadata.get("papermill", {}).get("status") == "running"]
            index = begun[-1]
        place = sum(not added(cell, "injected-parameters") for cell in cells[: index + 1])
        return f"{place}, {cells[index].get('id', 'no id')}"
    return None if index is None else str(index + 1)


def main() -> int:
    die_with_parent()
    if sys.argv[1:2] == ["snakemake"]:
        del sys.argv[0]
        runpy.run_module("snakemake", run_name="__main__", alter_sys=True)
        return 0
    if sys.argv[1:2] == ["kernel"]:
        from ipykernel.kernelapp import launch_new_instance

        # a file in the run's folder must not stand in for a package
        launch_new_instance(argv=[*sys.argv[2:], "--InteractiveShellApp.ignore_cwd=True",
                                   "--IPKernelApp.log_level=40"])  # fmt: skip  # not that it speaks without encryption
        return 0
    parser = argparse.ArgumentParser(prog="python -m alkit.grid.job")
    notebook = parser.add_subparsers(required=True).add_parser("notebook")
    notebook.add_argument("notebook")
    notebook.add_argument("log", help="where the executed notebook goes")
    notebook.add_argument("-f", dest="file", required=True, help="YAML file of parameters")
    notebook.add_argument("-r", dest="raw", nargs=2, action="append", default=[], help="one parameter, as text")
    notebook.add_argument("--product", help="the file without which the job has failed")
    notebook.add_argument("--failure", default="failure.json", help="name of the file that says what failed")
    return run_notebook(parser.parse_args())


if __name__ == "__main__":
    sys.exit(main())
