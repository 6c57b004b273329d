"""`alkit doctor`: what a run would find on this machine."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from collections.abc import Callable
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from alkit.errors import AlkitError
from alkit.errors.words import counted

Check = Callable[[], str]


def examine() -> int:
    """Print one line a check; returns 1 if something that a run needs is missing."""
    status = 0
    for name, check in CHECKS.items():
        try:
            mark, text = "ok", check()
        except AlkitError as problem:
            mark, text, status = "!!", str(problem), 1
        print(f"{mark}  {name:10}  {text}")
    return status


def _python() -> str:
    return f"{platform.python_version()} on {platform.platform()}"


def _packages() -> str:
    found = []
    for name in ("alkit", "torch", "torchvision", "papermill", "ipykernel", "snakemake"):
        try:
            found.append(f"{name} {version(name)}")
        except PackageNotFoundError:
            raise AlkitError(f"{name} is not installed; `make demo` or pip install 'alkit[grid]' installs it") from None
    return ", ".join(found)


def _device() -> str:
    import torch

    threads = f"{counted(os.cpu_count() or 0, 'core')}, {counted(torch.get_num_threads(), 'thread')}"
    if torch.cuda.is_available():
        names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())]
        memory = torch.cuda.get_device_properties(0).total_memory / 2**30
        return f"{len(names)} × CUDA: {names[0]}, {memory:.0f} GiB, torch for CUDA {torch.version.cuda}; {threads}"
    return f"CPU, {platform.processor() or platform.machine()}; {threads}; no GPU that torch can use"


def _bfloat16() -> str:
    import torch

    if torch.cuda.is_available():
        fast = torch.cuda.get_device_capability(0) >= (8, 0)
    else:
        flags = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
        fast = "amx_bf16" in flags or "avx512_bf16" in flags
    return "units for it: precision: bfloat16 is faster here" if fast else "no units for it: leave precision: float32"


def _disk() -> str:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    if free < 1:
        raise AlkitError(f"{free:.2f} GiB free in {Path.cwd()}: runs keep checkpoints and need more")
    return f"{free:.0f} GiB free in {Path.cwd()}"


def _cache() -> str:
    from alkit.storage.paths import cache_folder, why_not_writable

    folder = cache_folder()
    if (why := why_not_writable(folder)) is not None:
        raise AlkitError(
            f"{folder}: cannot be written ({why}); data sets are downloaded and decoded there: set ALKIT_CACHE to a "
            "folder that can be"
        )
    return str(folder)


def _kernel() -> str:
    from jupyter_client.kernelspec import KernelSpecManager, NoSuchKernel

    try:
        spec = KernelSpecManager().get_kernel_spec("python3")
    except NoSuchKernel:
        raise AlkitError("no Jupyter kernel python3: pip install ipykernel") from None
    program = Path(spec.argv[0])
    if program.is_absolute() and Path(shutil.which(program) or program).parent != Path(sys.executable).parent:
        return f"python3 is {program}: JupyterLab may use that one; alkit run uses {sys.executable}"
    return f"python3, from {spec.resource_dir}"


def _notebooks() -> str:
    from alkit.grid.planning import NOTEBOOKS
    from alkit.grid.runner import check_snakemake

    check_snakemake()
    return f"{len(list((NOTEBOOKS / 'methods').glob('*.ipynb')))} methods in {NOTEBOOKS}"


def _code() -> str:
    from alkit.training.devices import git_commit

    commit = git_commit()
    if commit is None:
        return "not a git checkout: records will not say which commit made them"
    return commit + (" (+: files differ from it)" if commit.endswith("+") else "")


CHECKS: dict[str, Check] = {
    "python": _python,
    "packages": _packages,
    "device": _device,
    "bfloat16": _bfloat16,
    "disk": _disk,
    "cache": _cache,
    "kernel": _kernel,
    "notebooks": _notebooks,
    "code": _code,
}
