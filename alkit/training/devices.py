"""Which device a run uses, and what makes two runs on it the same."""

from __future__ import annotations

import fcntl
import os
import platform
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import product
from pathlib import Path
from typing import Any

import torch
import torch.utils.deterministic

from alkit.errors import ConfigError

RUNS_PER_GPU = "ALKIT_RUNS_PER_GPU"
_held: dict[str, int] = {}  # locks live as long as the process: the system frees them however it ends


def choose_device(name: str = "auto") -> torch.device:
    """The device called `name`; for `auto` a free CUDA device, else the CPU: Apple's GPUs lack float64.

    A free device is one whose lock file no other run holds, so runs started side by side spread over the GPUs, and
    with `RUNS_PER_GPU` in the environment over so many places on each; when all are taken the first is shared.
    Raises `ConfigError` for a device that is not there.
    """
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", _claim(torch.cuda.device_count()))
        return torch.device("cpu")
    device = torch.device(name)
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(f"device: '{name}' is not there ({torch.cuda.device_count()} CUDA devices found)")
    return device


def _claim(count: int) -> int:
    visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
    ids = [part.strip() for part in visible.split(",")] if visible else [str(i) for i in range(count)]
    for index, identity in enumerate(ids[:count]):
        if identity in _held:
            return index
    for place, (index, identity) in product(range(runs_per_gpu()), enumerate(ids[:count])):
        path = Path(tempfile.gettempdir()) / f"alkit-gpu-{identity}{f'-{place}' if place else ''}.lock"
        try:
            with suppress(FileExistsError):
                os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDONLY, 0o644))
            handle = os.open(path, os.O_RDONLY)  # the file may be another user's; to lock it, reading is enough
        except OSError:
            continue
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            os.close(handle)
            continue
        _held[identity] = handle
        return index
    return 0


def runs_per_gpu() -> int:
    """How many runs may claim one GPU: `RUNS_PER_GPU` in the environment, else 1."""
    text = os.environ.get(RUNS_PER_GPU, "")
    return int(text) if text.isascii() and text.isdigit() and int(text) > 0 else 1


@contextmanager
def deterministic() -> Iterator[None]:
    """Within: algorithms that give the same bits every time, on CUDA too."""
    filling: Any = torch.utils.deterministic
    before = torch.get_deterministic_debug_mode(), torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.set_deterministic_debug_mode(
        "warn"
    )  # torch.use_deterministic_algorithms also imports a compiler, for a second
    torch.backends.cudnn.benchmark = False
    filling.fill_uninitialized_memory = False  # else every new tensor is first filled with NaN
    try:
        yield
    finally:
        torch.set_deterministic_debug_mode(before[0])
        torch.backends.cudnn.benchmark, filling.fill_uninitialized_memory = before[1:]


def processor_name() -> str:
    """The processor's model, as far as the system tells: another one rounds otherwise."""
    with suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def environment(device: torch.device, precision: str) -> dict[str, Any]:
    """What a record says of the machine and the software that made it."""
    import alkit

    name = torch.cuda.get_device_name(device) if device.type == "cuda" else processor_name()
    return {
        "python": platform.python_version(),
        "torch": torch.__version__,
        "alkit": alkit.__version__,
        "git_commit": git_commit(),
        "platform": platform.platform(),
        "device": str(device),
        "device_name": name,
        "threads": torch.get_num_threads(),
        "precision": precision,
    }


def git_commit() -> str | None:
    """The commit of the kit's own source tree, with `+` where files differ from it.

    Where there is no history to be read, what ALKIT_COMMIT says, or None.
    """
    root, told = Path(__file__).parents[2], os.environ.get("ALKIT_COMMIT") or None
    if not (root / ".git").exists():
        return told
    try:
        commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=root, capture_output=True, text=True, check=True)
        dirty = subprocess.run(
            ["git", "status", "--porcelain", "-uno", "--", "alkit"],
            cwd=root,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return told
    return commit.stdout.strip() + ("+" if dirty.stdout.strip() else "")
