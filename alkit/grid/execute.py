"""Executing a notebook with papermill, in this environment's own kernel, whatever kernels and settings the user has."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from alkit.storage.files import for_papermill
from alkit.storage.paths import environment
from alkit.storage.scratch import scratch_folder

PARENT = "ALKIT_PARENT"
"""The variable that names the process which a started one must not outlive: see `alkit.grid.job`."""


def execute(
    notebook: str | Path, executed: str | Path, parameters: Mapping[str, Any], cwd: str | Path | None = None
) -> None:
    """Run `notebook` with `parameters` and leave it as `executed`; papermill's and nbclient's own errors are raised."""
    import_papermill()
    with _own_kernel() as config:
        import papermill
        from papermill.log import logger

        # not its "unknown parameter": a cell lists a few, and the notebook itself refuses what it must
        logger.setLevel("ERROR")
        papermill.execute_notebook(
            for_papermill(notebook), for_papermill(executed), dict(parameters), kernel_name="python3",
            progress_bar=False, log_output=False, start_timeout=300, config=config, cwd=cwd and str(cwd),
        )  # fmt: skip


def import_papermill() -> None:
    """Import papermill without a second of grammars for addresses, which jsonschema reads and nothing here uses."""
    unknown = "rfc3987_syntax" not in sys.modules
    if unknown:
        sys.modules["rfc3987_syntax"] = None  # type: ignore[assignment]
    try:
        import papermill  # noqa: F401
    finally:
        if unknown:
            del sys.modules["rfc3987_syntax"]


@contextmanager
def _own_kernel() -> Iterator[Any]:
    """Settings for papermill; within, `python3` is `alkit.grid.job kernel` with this process's Python.

    History and connection files are its own: kernels that start side by side otherwise wait for one database and race
    for ports, and a home folder need not be there.
    """
    from traitlets.config import Config

    with scratch_folder("alkit-job-") as folder:
        scratch = str(folder)
        kernel = {"argv": [sys.executable, "-P", "-m", "alkit.grid.job", "kernel", "-f", "{connection_file}"],
                  "language": "python", "display_name": "Python 3", "env": {PARENT: str(os.getpid())}}  # fmt: skip
        spec = Path(scratch) / "kernels" / "python3" / "kernel.json"
        spec.parent.mkdir(parents=True)
        spec.write_text(json.dumps(kernel))
        config = Config({"NotebookClient": {"shutdown_kernel": "immediate"}})  # all is written by then
        if len(scratch) < 60:  # the path of a socket must be short; sockets of other jobs lie in other folders
            config.KernelManager.update(
                transport="ipc", ip=f"{scratch}/kernel", connection_file=f"{scratch}/kernel.json"
            )
        with environment(dict.fromkeys(("JUPYTER_PATH", "IPYTHONDIR", "JUPYTER_RUNTIME_DIR"), scratch)):
            yield config
