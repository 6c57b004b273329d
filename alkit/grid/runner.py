"""`alkit run`: prepare a study's folder, let Snakemake run it, show how far it is, and say what came out."""

from __future__ import annotations

import json
import os
import shutil
import signal
import statistics
import subprocess
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import psutil
from tqdm import tqdm

from alkit.errors import CheckpointError, ConfigError
from alkit.errors.words import aligned, counted
from alkit.grid import planning
from alkit.grid.execute import PARENT
from alkit.storage.paths import absolute, check_writable_as_text
from alkit.storage.progress import one_line, read_mapping
from alkit.training import deadline

TAIL = 8


def run_study(
    plan: planning.Plan,
    cores: int,
    rerun: Iterable[str] = (),
    profile: str | Path | None = None,
    summary: bool = True,
    notebooks: Path = planning.NOTEBOOKS,
    images_of: planning.ImagesOf | None = None,
    minutes: float | None = None,
    runs_per_gpu: int = 1,
) -> int:
    """Run what is not finished yet; returns 0 if then every run is, else 1. `images_of`: see `planning.prepare`.

    After `minutes` every run stops at a checkpoint, and none is started. `runs_per_gpu` share a GPU, see `sharing.mps`.

    Raises an `AlkitError` before anything is started if the folder is in use or holds other runs, `CheckpointError` if
    it is removed meanwhile, and `KeyboardInterrupt` after every process has been ended.
    """
    if profile is not None:
        check_cluster(plan)
    with planning.hold(plan.folder):
        # on a cluster the cores here are not the runs'
        planning.prepare(plan, cores if profile is None else 1, rerun, images_of)
        warn_of_other_code(plan)
        log = plan.folder / "logs" / f"snakemake-{time.strftime('%Y%m%d-%H%M%S')}.log"
        command = snakemake_command(plan, cores, profile, summary, notebooks, runs_per_gpu)
        page = plan.folder / "summary.html"
        began, before = time.time(), _version_of(page)
        until = None if minutes is None else began + 60 * minutes
        limit = {} if until is None else {deadline.UNTIL: str(until)}
        with (
            sharing_gpus(runs_per_gpu) as environment,
            _started(command, log, profile is not None, environment | limit) as process,
        ):
            watch(plan, process, until)
        if not plan.folder.is_dir():
            raise CheckpointError(f"{plan.folder}: removed while its runs were at work; the command begins them anew")
        failed = [run for run in plan.runs if not run.finished]
        late = until is not None and time.time() >= until
        if summary and len(failed) < len(plan.runs) and not _up_to_date(page, plan, before):
            _summarise(plan.folder)
    report(plan, [run for run in failed if not (late and stopped_by_time(run, began))], log, began)
    if late and failed:
        print(f"alkit: stopped after {minutes:g} minutes with {len(plan.runs) - len(failed)} of "
              f"{counted(len(plan.runs), 'run')} finished; the same command goes on", file=sys.stderr)  # fmt: skip
    if summary and _up_to_date(page, plan, before):
        print(f"\nSummary: {page}")
    elif summary and len(failed) < len(plan.runs):
        print(f"alkit: the summary failed; see {plan.folder / 'logs' / 'summary.log'}", file=sys.stderr)
        return 1
    return int(bool(failed))


@contextmanager
def sharing_gpus(runs: int) -> Iterator[dict[str, str]]:
    """Within: the environment of runs of which so many work on each GPU; says how they share it."""
    if runs == 1:
        yield {}
        return
    from alkit.training.devices import RUNS_PER_GPU
    from alkit.training.sharing import mps

    with mps() as (environment, words):
        print(f"alkit: {words}", file=sys.stderr)
        yield environment | {RUNS_PER_GPU: str(runs)}


def stopped_by_time(run: planning.GridRun, began: float) -> bool:
    """Whether a run that is not finished was stopped because the time was over, or not begun."""
    failure = read_mapping(run.folder / "failure.json")
    pretext = read_mapping((run.folder.parents[1] / "pretext" / str(run.pretext)).with_suffix(".failure.json"))
    errors = [each for each in (failure, pretext) if each and float(each.get("time", 0)) >= began]
    return all("OutOfTimeError" in str(each.get("error")) for each in errors)


def snakemake_command(
    plan: planning.Plan, cores: int, profile: str | Path | None, summary: bool, notebooks: Path, runs_per_gpu: int = 1
) -> list[str]:
    """Snakemake's command line; the Snakefile reads the rest in the study's folder."""
    local = profile is None
    whole = set(plan.labels) == set(plan.study.labels) and set(plan.seeds) == set(plan.study.seeds)
    config: dict[str, Any] = {
        "methods": plan.labels,
        "seeds": plan.seeds,
        "notebooks": [str(notebooks)],  # a list, since Snakemake takes the quotes off a text
        "summary": summary and whole,
    }
    command = [sys.executable, "-m", "alkit.grid.job", "snakemake", "--snakefile", str(planning.SNAKEFILE)]
    command += ["--profile", str(planning.PROFILES / "local" if local else absolute(str(profile)))]
    command += ["--directory", str(plan.folder), "--cores" if local else "--local-cores", str(cores)]
    if local and (gpus := count_gpus()):
        command += ["--resources", f"gpu={gpus * runs_per_gpu}", "--set-resources", "run:gpu=1", "pretext:gpu=1"]
    return [*command, "--config", *(f"{key}={_config_value(value)}" for key, value in config.items())]


def _config_value(value: Any) -> str:
    """As Snakemake reads it: Python's True and False, all else YAML; `false` would be a text, and true."""
    return str(value) if isinstance(value, bool) else json.dumps(value, ensure_ascii=False)


def check_cluster(plan: planning.Plan) -> None:
    """Refuse paths that the jobs of a cluster would not find: in their scripts a shell reads these signs twice."""
    for path in (planning.SNAKEFILE, plan.folder, Path(sys.executable)):
        if set(str(path)) & set("\"'`$\\\n") or (path == Path(sys.executable) and " " in str(path)):
            raise ConfigError(f"{path}: has signs that Snakemake cannot pass to a cluster's jobs; use another folder")


def count_gpus() -> int:
    """CUDA devices that runs can be spread over."""
    import torch

    return torch.cuda.device_count() if torch.cuda.is_available() else 0


@contextmanager
def _started(
    command: list[str], log: Path, gentle: bool, more: dict[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """The command in a session of its own, its output in `log`; whatever happens, no process of it is left."""
    environment = os.environ | {PARENT: str(os.getpid()), "PYTHONSAFEPATH": "1"} | (more or {})
    environment.pop("SNAKEMAKE_PROFILE", None)
    handlers = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGTERM, signal.SIGHUP)}
    try:
        with log.open("wb") as output:
            process = subprocess.Popen(command, stdout=output, stderr=output, stdin=subprocess.DEVNULL,
                                       env=environment, start_new_session=True)  # fmt: skip
        try:
            yield process
        finally:
            stop(process, gentle)
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def stop(process: subprocess.Popen[bytes], gentle: bool = False) -> None:
    """End a process and everything that it started; `gentle` gives it 3 seconds to take back jobs from a cluster."""
    if process.poll() is not None:
        return
    if gentle:
        process.send_signal(signal.SIGINT)
        with suppress(subprocess.TimeoutExpired):
            process.wait(3)
    with suppress(psutil.NoSuchProcess):
        root = psutil.Process(process.pid)
        for member in [root, *root.children(recursive=True)]:  # first none may start another
            with suppress(psutil.NoSuchProcess):
                member.suspend()
        for member in [root, *root.children(recursive=True)]:
            with suppress(psutil.NoSuchProcess):
                member.kill()
    process.wait()


# --- how far it is ---


def watch(plan: planning.Plan, process: subprocess.Popen[bytes], until: float | None = None) -> None:
    """Show one bar, epochs done of all, until the process ends; in a log a line now and then.

    At `until` Snakemake is told to start no more; the runs that work stop by themselves.
    """
    total = sum(run.epochs for run in plan.runs)
    done = {run.folder: run.epochs for run in plan.runs if run.finished}
    tty = sys.stderr.isatty()
    with tqdm(total=total, desc=plan.study.study, unit="epoch", initial=sum(done.values()), dynamic_ncols=tty,
              mininterval=0.2 if tty else 60, maxinterval=10 if tty else 60, file=sys.stderr) as bar:  # fmt: skip
        while True:
            ended = process.poll() is not None
            began = time.monotonic()
            counted = sum(_epochs_done(run, done) for run in plan.runs)
            bar.update(max(0, counted - bar.n))
            bar.set_postfix_str(f"{len(done)}/{len(plan.runs)} runs", refresh=False)
            if ended:
                return
            if until is not None and time.time() >= until:
                process.terminate()  # Snakemake then waits for what runs
                until = None
            with suppress(subprocess.TimeoutExpired):
                pause = max(0.5, 20 * (time.monotonic() - began))  # looking at many runs costs, too
                process.wait(pause if until is None else max(0.05, min(pause, until - time.time())))


def _epochs_done(run: planning.GridRun, done: dict[Path, int]) -> int:
    """Epochs of a run that are done; `done` remembers finished runs."""
    if run.folder in done:
        return done[run.folder]
    if run.finished:
        done[run.folder] = run.epochs
        return run.epochs
    progress = read_mapping(run.folder / "progress.json")
    with suppress(KeyError, TypeError, ValueError):
        return min(run.epochs, (int(progress["cycle"]) - 1) * int(progress["epochs"]) + int(progress["epoch"]))
    return 0


# --- what came out ---


def warn_of_other_code(plan: planning.Plan) -> None:
    """Say so if finished runs were made with another version of the kit: they are kept, and recorded as such."""
    import alkit
    from alkit.training.devices import git_commit

    here = git_commit()
    others = set()
    for run in plan.runs:
        made = read_mapping(run.folder / "result.json").get("environment")
        if isinstance(made, dict) and (made.get("git_commit"), made.get("alkit")) != (here, alkit.__version__):
            others.add(str(made.get("git_commit") or made.get("alkit"))[:12])
    if others:
        print(
            f"alkit: warning: finished runs here were made with another version of the kit ({', '.join(sorted(others))}"
            f"; this is {str(here or alkit.__version__)[:12]}); each record says which, --rerun METHOD makes them anew",
            file=sys.stderr,
        )


def report(plan: planning.Plan, failed: list[planning.GridRun], log: Path, began: float) -> None:
    """The table of what is finished, then every failed run with its cell and the end of its log."""
    print(result_table(plan))
    for run in plan.runs:
        if run.finished and (later := read_mapping(run.folder / "failure.json")):
            print(f"alkit: warning: {run.name}: its record is complete, but cell {later.get('cell')} of its notebook "
                  f"failed ({later.get('error')})", file=sys.stderr)  # fmt: skip
    if not failed:
        return
    print(f"\nalkit: {len(failed)} of {counted(len(plan.runs), 'run')} failed:", file=sys.stderr)
    started = False
    for run in failed:
        for line in describe_failure(run, began):
            print(line, file=sys.stderr)
        started |= (run.folder / "run.log").exists()
    if not started:
        print(f"  the workflow's own log, {log}, ends:", file=sys.stderr)
        print("\n".join(f"    | {line}" for line in tail(log)), file=sys.stderr)
    print("Started again, the command goes on with what is missing.", file=sys.stderr)


def describe_failure(run: planning.GridRun, began: float = 0.0) -> list[str]:
    """Which run, in which cell, with what error, and the last lines of its log."""
    failure, source = read_mapping(run.folder / "failure.json"), run.folder / "run.log"
    if not failure and run.pretext:
        job = run.folder.parents[1] / "pretext" / run.pretext
        failure, source = read_mapping(job.with_suffix(".failure.json")), job.with_suffix(".log")
        failure = failure and failure | {"error": f"its pretext task failed: {failure.get('error')}"}
    if failure:
        cell = f" in cell {failure['cell']}" if failure.get("cell") else ""
        head = one_line(f"  {run.name}{cell}: {failure.get('error')}")
    elif source.exists() and source.stat().st_mtime >= began - 1:
        full = shutil.disk_usage(run.folder).free < 2**20  # then there was no room for a word
        head = f"  {run.name}: its process ended without a word ({'the disk is full' if full else 'killed?'})"
    else:
        return [f"  {run.name}: was not started"]
    more = [line for line in tail(source) if line.strip() not in head]  # what the head says already is said once
    return [head, *(f"    | {line}" for line in more), f"    log: {source}"]


def tail(path: Path) -> list[str]:
    """The last lines of a text file that are not empty."""
    with suppress(OSError):
        with path.open("rb") as stream:
            stream.seek(max(0, path.stat().st_size - 16_384))
            text = stream.read().decode(errors="replace")
        return [one_line(line)[:300] for line in text.splitlines() if line.strip()][-TAIL:]
    return []


def result_table(plan: planning.Plan) -> str:
    """Final accuracy and calibration error of every label, mean and deviation over its finished seeds."""
    rows = [["method", "seeds", "labels", "accuracy %", "sd", "ECE"]]
    for label in plan.labels:
        last = [_last_cycle(run) for run in plan.runs if run.label == label and run.finished]
        last = [cycle for cycle in last if cycle]
        if not last:
            rows.append([label, "0", "", "", "", ""])
            continue
        accuracy = [100 * cycle["accuracy"] for cycle in last]
        spread = f"{statistics.stdev(accuracy):.2f}" if len(accuracy) > 1 else ""
        ece = statistics.fmean(cycle["ece"] for cycle in last)
        rows.append([label, str(len(last)), f"{last[0]['labelled']:,}", f"{statistics.fmean(accuracy):.2f}", spread,
                     f"{ece:.3f}"])  # fmt: skip
    return aligned(rows, right=range(1, 6))


def _last_cycle(run: planning.GridRun) -> dict[str, Any]:
    cycles = read_mapping(run.folder / "result.json").get("cycles")
    return cycles[-1] if isinstance(cycles, list) and cycles and isinstance(cycles[-1], dict) else {}


# --- the summary ---


def _version_of(page: Path) -> tuple[int, int] | None:
    """What changes whenever a file is written anew; None where there is none."""
    with suppress(OSError):
        return page.stat().st_ino, page.stat().st_mtime_ns
    return None


def _up_to_date(page: Path, plan: planning.Plan, before: tuple[int, int] | None) -> bool:
    """Whether the page was made by this command, or at least after the last of the records and the study's file.

    Times alone do not tell: a clock that was set back makes older records look newer.
    """
    if _version_of(page) != before:
        return page.exists()
    sources = [plan.folder / "study.yaml", *(run.folder / "result.json" for run in plan.runs if run.finished)]
    return page.exists() and page.stat().st_mtime >= max(path.stat().st_mtime for path in sources)


def _summarise(folder: Path) -> None:
    """The summary, as the workflow makes it, of the runs that are there."""
    command = [sys.executable, "-m", "alkit", "summary", str(folder)]
    with _started(command, folder / "logs" / "summary.log", gentle=False) as process:
        process.wait()


def check_snakemake() -> None:
    """Refuse to begin without the programs that a grid needs."""
    if find_spec("snakemake") is None:
        raise ConfigError("alkit run needs Snakemake: pip install 'alkit[grid]'")
    for path in (planning.SNAKEFILE, planning.NOTEBOOKS):
        if not path.exists():
            raise ConfigError(f"{path}: not there; alkit run needs the repository, not the package alone")
    check_writable_as_text(planning.ROOT, sys.executable)
