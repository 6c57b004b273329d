"""As much of some studies as fits into somebody's GPU time, on a machine without network, Snakemake or Jupyter.

    python scripts/gpu_hour.py --minutes 40 --runs 3 params/cifar10_step.yaml:random,oo4al:0,1,2 params/cifar10.yaml

Each argument is STUDY[:METHODS[:SEEDS]]; runs start in the order given, seed by seed. `--runs` of them work side by
side, under CUDA's MPS where it can be had. When the time is over, every run stops at a checkpoint. The folder (`--out`)
is that of `alkit run`: copied elsewhere, `alkit run` goes on with it, and makes the summaries.

With the kit itself it needs numpy, scipy, scikit-learn, pandas, torch, torchvision, pillow, pydantic, pyyaml, tqdm,
filelock and psutil. See docs/gpu.md.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import sys
import time
import traceback
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent.parent))

from alkit.errors import AlkitError, OutOfTimeError
from alkit.errors.words import counted
from alkit.grid import planning
from alkit.grid.plan_check import check_plan
from alkit.training import deadline
from alkit.training.sharing import mps

Job = tuple[str, dict[str, Any], str, str]
"""Name, parameters, run folder and pretext folder of one run."""


def plan_of(text: str, out: Path, device: str) -> tuple[planning.Plan, list[Job]]:
    """The plan of STUDY[:METHODS[:SEEDS]] and its unfinished runs, all methods of a seed before the next seed.

    In a seed the run that makes a pretext task's losses begins first: others that need them would wait for it.
    """
    source, methods, seeds = [*text.split(":"), "", ""][:3]
    plan = planning.make_plan(
        source, out, [m for m in methods.split(",") if m], [int(s) for s in seeds.split(",") if s]
    )  # fmt: skip
    left = [run for run in plan.runs if not run.finished]
    makers = {run.pretext: run.name for run in reversed(left)}
    runs = sorted(
        left, key=lambda run: (plan.seeds.index(run.seed), not run.pretext or makers[run.pretext] != run.name)
    )
    given = {"device": device, "pretext_supervised": False}
    jobs = [
        (f"{plan.study.study}: {run.name}", run.experiment.model_dump() | {"threads": 1} | given,
         str(run.folder), str(plan.folder / "pretext"))
        for run in runs
    ]  # fmt: skip
    return plan, jobs


def look_at(plan: planning.Plan) -> None:
    """Refuse a study of which a run would be refused, or whose images are not here; before anything is written."""
    from alkit.data import load_for

    check_plan(plan)
    left = [run.experiment for run in plan.runs if not run.finished]
    for experiment in {planning.data_key(experiment): experiment for experiment in left}.values():
        load_for(experiment)


def work(tasks: Any, answers: Any) -> None:
    """One process: runs jobs until there are none, or until the time is over."""
    import torch

    from alkit import ActiveLearner, Experiment
    from alkit.training.pretext.run import with_pretext

    torch.set_num_threads(1)
    while (job := tasks.get()) is not None:
        name, parameters, folder, pretext = job
        began, words = time.monotonic(), ""
        try:
            if deadline.passed():
                raise OutOfTimeError("not begun")
            experiment = with_pretext(Experiment(**parameters), pretext)
            records = list(ActiveLearner(experiment, folder))
            words = f"{100 * records[-1]['accuracy']:.2f}% at {records[-1]['labelled']:,} labels"
        except OutOfTimeError as late:
            words = str(late)
        except AlkitError as error:
            words = f"FAILED: {error}"
        except Exception:
            words = f"FAILED: {traceback.format_exc()}"
        answers.put((name, time.monotonic() - began, words))


def run_all(jobs: list[Job], side_by_side: int) -> None:
    """Work off the jobs with so many processes, a line for each that ends."""
    context = multiprocessing.get_context("spawn")
    tasks, answers = context.Queue(), context.Queue()
    for job in [*jobs, *[None] * side_by_side]:
        tasks.put(job)
    workers = [context.Process(target=work, args=(tasks, answers), daemon=True) for _ in range(side_by_side)]
    for worker in workers:
        worker.start()
    began, left = time.monotonic(), len(jobs)
    while left and (any(worker.is_alive() for worker in workers) or not answers.empty()):
        with suppress(Exception):  # a queue that stays empty for a second
            name, seconds, words = answers.get(timeout=1)
            left -= 1
            if words != "not begun":
                print(f"{time.monotonic() - began:7.1f} s  {name}: {words} ({seconds:.1f} s)", flush=True)
    for worker in workers:
        worker.join(10)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.split("\n\n")[0])
    parser.add_argument("studies", nargs="+", metavar="STUDY[:METHODS[:SEEDS]]")
    parser.add_argument("--out", type=Path, default=Path("outputs"))
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--runs", type=int, default=1, help="runs side by side")
    parser.add_argument("--device", default="auto")
    options = parser.parse_args()
    os.environ[deadline.UNTIL] = str(time.time() + 60 * options.minutes)
    jobs, held = list[Job](), set[Path]()
    try:
        with ExitStack() as stack:
            plans = [plan_of(text, options.out, options.device) for text in options.studies]
            for plan, _ in plans:
                look_at(plan)
            for plan, more in plans:
                plan.folder.mkdir(parents=True, exist_ok=True)
                if plan.folder not in held:
                    stack.enter_context(planning.hold(plan.folder))
                    held.add(plan.folder)
                planning.prepare(plan, cores=1)
                jobs += more
            environment, words = stack.enter_context(mps()) if options.runs > 1 else ({}, "one run at a time")
            os.environ.update(environment)
            print(f"{counted(len(jobs), 'run')} to do; {words}", flush=True)
            run_all(jobs, options.runs)
    except AlkitError as error:
        print(f"gpu_hour: {error}", file=sys.stderr)
        return 2
    undone = [name for name, _, folder, _ in jobs if not (Path(folder) / "result.json").exists()]
    then = "the same command goes on" if undone else "nothing is left"
    print(f"{len(jobs) - len(undone)} of {counted(len(jobs), 'run')} finished; {then}" if jobs else "nothing is left")
    return 0


if __name__ == "__main__":
    sys.exit(main())
