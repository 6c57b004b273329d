"""Several runs on one GPU: through CUDA's Multi-Process Service where it can be had, else they take turns."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress

PROGRAM = "nvidia-cuda-mps-control"
_PROBE = "import torch; torch.zeros(1, device='cuda'); torch.cuda.synchronize()"


@contextmanager
def mps() -> Iterator[tuple[dict[str, str], str]]:
    """Within: the service runs, in a folder of its own. Gives the environment of processes that use it, and a line
    that says whether they do.

    Where the service is not there, or does not let a process in, the environment is empty and processes take turns.
    """
    program = shutil.which(PROGRAM)
    if program is None:
        yield {}, f"{PROGRAM} is not there: runs on one GPU take turns"
        return
    with tempfile.TemporaryDirectory(prefix="alkit-mps-") as folder:
        given = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        reason = _call([program, "-d"], given)
        try:
            reason = reason or _call([sys.executable, "-c", _PROBE], given)
            if reason:
                yield {}, f"MPS cannot be used here ({reason}): runs on one GPU take turns"
            else:
                yield given, "runs on one GPU share it through MPS"
        finally:
            with suppress(OSError, subprocess.SubprocessError):
                subprocess.run([program], input="quit\n", env=os.environ | given, text=True, capture_output=True,
                               timeout=30, check=False)  # fmt: skip


def _call(command: list[str], more: dict[str, str]) -> str:
    """Run a command; why it failed in a few words, or an empty text."""
    try:
        done = subprocess.run(
            command, env=os.environ | more, capture_output=True, text=True, timeout=60, check=False, errors="replace"
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError) as error:
        return type(error).__name__
    lines = (done.stderr or done.stdout).strip().splitlines()
    return (lines[-1][:200] if lines else f"exit status {done.returncode}") if done.returncode else ""
