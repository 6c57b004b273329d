"""The command `alkit`: a thin door to the grid, the registries and the records."""

from __future__ import annotations

import argparse
import io
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

from alkit import __version__
from alkit.errors import AlkitError
from alkit.storage.paths import fix_environment, name_user, substitute_home

Command = Callable[[argparse.Namespace], int]


def main(arguments: list[str] | None = None) -> int:
    """Run one command; returns 0 (done), 1 (something failed), 2 (a mistake in what was asked) or 130 (Ctrl-C)."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")  # a terminal that has no × does not end the command
    options = parser().parse_args(arguments)
    fix_environment()
    name_user()
    command: Command = options.command
    try:
        with substitute_home():
            return command(options)
    except AlkitError as error:
        print(f"alkit: {error}", file=sys.stderr)
        return 2
    except BrokenPipeError:  # `alkit methods | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except OSError as error:
        print(AlkitError(f"alkit: {error.filename or ''}: {error.strerror or error}"), file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        goes_on: dict[Command, str] = {
            run_study: " The same command goes on from the last checkpoints.",
            get_dataset: " The same command goes on where it stopped.",
            make_features: " The same command goes on where it stopped.",
        }
        print(f"\nalkit: stopped.{goes_on.get(command, '')}", file=sys.stderr)
        return 130


class _Parser(argparse.ArgumentParser):
    """A parser that says what is wrong in one line."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{AlkitError(f'{self.prog}: {message} (`{self.prog} --help` tells more)')}\n")


def parser() -> argparse.ArgumentParser:
    """The command line."""
    top = _Parser(
        prog="alkit",
        description="Experiments in active learning: which images should be labelled next? Studies, records, "
        "summaries.",
    )
    top.add_argument("--version", action="version", version=f"alkit {__version__}")
    commands = top.add_subparsers(title="commands", metavar="COMMAND", required=True)

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        sub: argparse.ArgumentParser = commands.add_parser(name, help=text, description=text[0].upper() + text[1:])
        sub.set_defaults(command=command)
        return sub

    _add_to_run(add("run", run_study, "run a study: every method × seed of its file that is not finished yet"))
    status = add("status", show_status, "how far every run of a study is")
    status.add_argument("folder", type=_path, metavar="DIR", help="a study's folder, or a folder of studies")
    summary = add("summary", make_summary, "make the summary page of a study's finished runs")
    summary.add_argument("folder", type=_path, metavar="DIR", help="a study's folder")
    summary.add_argument("--data-root", type=_path, metavar="DIR",
                         help="where the images are, if not where the runs found them")  # fmt: skip
    summary.add_argument("--paper", action="store_true",
                         help="also write what a paper needs into DIR/paper: curves, differences with their intervals "
                         "and reliability diagrams as PDF, the table as LaTeX")  # fmt: skip
    evaluate = add(
        "evaluate",
        evaluate_checkpoints,
        "measure trained weights (checkpoints): those released with papers, or a run's own",
    )
    evaluate.add_argument("pattern", metavar="GLOB", help="files of weights, e.g. 'DIR/seed-{seed}/*_cycle{cycle}.pth' "
                          "or 'DIR/*/*.pth' (in quotes)")  # fmt: skip
    evaluate.add_argument("--dataset", required=True, metavar="NAME", help="`alkit datasets` lists them")
    evaluate.add_argument("--data-root", type=_path, metavar="DIR", help="folder that holds the data set")
    evaluate.add_argument("--out", type=_path, metavar="FILE.csv", help="also write the table there")
    evaluate.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                          help="a parameter, e.g. image_size 64, test_size 1000 or protocol released")  # fmt: skip
    add("methods", list_methods, "list the methods")
    add("datasets", list_datasets, "list the data sets")
    get = add("get", get_dataset, "bring a data set into the cache, or list which are there")
    what = get.add_mutually_exclusive_group(required=True)
    what.add_argument("name", nargs="?", metavar="NAME", help="`alkit datasets` lists them")
    what.add_argument("--list", action="store_true", help="which sets are here, their size, digests and licence")
    features = add(
        "features",
        make_features,
        "turn a data set's images into fixed features, with a network trained before (an encoder)",
    )
    features.add_argument("dataset", metavar="DATASET",
                          help="`alkit datasets` lists them; or STUDY.yaml: the images of that study, which says in "
                          "`features` where the file goes")  # fmt: skip
    features.add_argument("--encoder", required=True, metavar="NAME",
                          help="pixels, simsiam, efficientnet_lite, torchvision:MODEL or timm:MODEL")  # fmt: skip
    features.add_argument(
        "--out", type=_path, metavar="FILE.npz", help="default: the study's `features`, or DATASET-ENCODER.npz"
    )
    features.add_argument("--data-root", type=_path, metavar="DIR", help="folder that holds the data set")
    features.add_argument("--weights", type=_path, metavar="FILE", help="the encoder's weights, in place of its hub's")
    features.add_argument(
        "--precision",
        choices=["float16", "float32"],
        default="float16",
        help="of the numbers in the file (default: float16)",
    )
    features.add_argument("--bfloat16", action="store_true", help="compute in bfloat16: faster, a little less exact")
    features.add_argument("--device", default="auto", metavar="NAME", help="cpu, cuda, … (default: auto)")
    features.add_argument("-p", dest="parameters", nargs=2, action="append", default=[], metavar=("NAME", "VALUE"),
                          help="an option of the encoder, e.g. image_size 96 or pretext_epochs 200")  # fmt: skip
    quirks = add("quirks", list_quirks, "list the known differences between papers and their programs (quirks)")
    quirks.add_argument("name", nargs="?", metavar="QUIRK", help="all that is known of one")
    add("doctor", show_doctor, "check this machine: is all here that a run needs?")
    return top


def _add_to_run(run: argparse.ArgumentParser) -> None:
    run.add_argument("study", type=_path, metavar="STUDY.yaml")
    run.add_argument("--cores", type=_count, default=None, metavar="N", help="processor cores to use (default: all)")
    run.add_argument(
        "--methods",
        type=_names,
        metavar="A,B",
        help="only these methods or variants of the study; others of `alkit methods` are added",
    )
    run.add_argument("--seeds", type=_seeds, metavar="0,1", help="these seeds, in the file or not; 0-9 is a range")
    run.add_argument(
        "--out", type=_path, default=Path("outputs"), metavar="DIR", help="folder for the results (default: outputs)"
    )
    run.add_argument(
        "--dry-run", action="store_true", help="check everything, say what would run and about how long; write nothing"
    )
    run.add_argument(
        "--rerun", type=_names, default=[], metavar="METHOD", help="delete the runs of this method and begin them anew"
    )
    run.add_argument(
        "--profile", type=_path, metavar="DIR", help="for a cluster: a Snakemake profile, e.g. workflow/profiles/slurm"
    )
    run.add_argument("--minutes", type=_minutes, metavar="M",
                     help="stop after so many minutes, at a checkpoint; the same command goes on later")  # fmt: skip
    run.add_argument("--runs-per-gpu", type=_runs, default=1, metavar="N",
                     help="runs at the same time on each GPU (by CUDA's MPS, where it is there); auto: four where the "
                     "network is narrower than 32 channels, else one")  # fmt: skip
    run.add_argument("--no-summary", action="store_true", help="leave out the summary at the end")


def _count(text: str) -> int:
    if not text.isascii() or not text.isdigit() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"expected a whole number from 1, not '{text}'")
    return int(text)


def _runs(text: str) -> int:
    return 0 if text == "auto" else _count(text)


def _minutes(text: str) -> float:
    try:
        found = float(text)
    except ValueError:
        found = 0.0
    if not 0 < found < float("inf"):
        raise argparse.ArgumentTypeError(f"expected a number of minutes above 0, not '{text}'")
    return found


def _path(text: str) -> Path:
    """A path; the shell leaves `~` in `--out=~/runs` as it is."""
    return Path(os.path.expanduser(text))


def _names(text: str) -> list[str]:
    names = [name.strip() for name in text.split(",") if name.strip()]
    if not names:
        raise argparse.ArgumentTypeError("expected names with commas between them")
    return names


def _seeds(text: str) -> list[int]:
    seeds: list[int] = []
    for part in _names(text):
        first, dash, last = part.partition("-")
        if not (first.isascii() and first.isdigit() and (not dash or (last.isascii() and last.isdigit()))):
            raise argparse.ArgumentTypeError(f"expected seeds as 0,1,2 or 0-9, not '{text}'")
        if len(first) > 18 or len(last) > 18 or (dash and int(last) - int(first) > 100_000):
            raise argparse.ArgumentTypeError(f"'{part}' is too many seeds, or too large a one")
        seeds += range(int(first), int(last if dash else first) + 1)
        if not seeds:
            raise argparse.ArgumentTypeError(f"expected seeds as 0,1,2 or 0-9, not '{text}'")
    return seeds


# --- commands ---


def run_study(options: argparse.Namespace) -> int:
    from alkit.errors import ConfigError
    from alkit.grid import planning, runner

    if options.profile is not None and not (options.profile / "config.yaml").is_file():
        raise ConfigError(f"profile: {options.profile}: no config.yaml in it")
    if options.profile is not None and (options.minutes or options.runs_per_gpu != 1):
        raise ConfigError("profile: minutes and runs-per-gpu are for this machine; a cluster's jobs have limits "
                          "of their own in the profile")  # fmt: skip
    runner.check_snakemake()
    # what a file says can be checked at once; what its data gives needs torch, and so a second or two
    plan = planning.make_plan(options.study, options.out, options.methods, options.seeds)
    from alkit.data.own import images_now
    from alkit.data.workers import core_count
    from alkit.grid.plan_check import check_plan

    planning.check_rerun(plan, options.rerun)
    looked = check_plan(plan, options.rerun, here=options.profile is None)
    cores = options.cores or core_count()
    if options.dry_run:
        from alkit.grid.dry_run import show

        places = runner.count_gpus() * (options.runs_per_gpu or 1)
        threads = max(run.experiment.threads or 1 for run in plan.runs)
        show(plan, options.rerun, images_now, None if options.profile else places or max(1, cores // threads), looked)
        return 0
    runs = options.runs_per_gpu or (4 if all(run.experiment.width < 32 for run in plan.runs) else 1)
    if runs > 1 and not runner.count_gpus():
        if options.runs_per_gpu:
            raise ConfigError("runs-per-gpu: no CUDA GPU is here")
        runs = 1
    return runner.run_study(
        plan, cores, options.rerun, options.profile, not options.no_summary, images_of=images_now,
        minutes=options.minutes, runs_per_gpu=runs,
    )  # fmt: skip


def show_status(options: argparse.Namespace) -> int:
    from alkit.grid.status import status_table

    print(status_table(options.folder))
    return 0


def make_summary(options: argparse.Namespace) -> int:
    from alkit.analysis.summary import build

    print(build(options.folder, data_root=options.data_root))
    if options.paper:
        from alkit.analysis.summary import paper

        folder, missing = paper.write(options.folder)
        print(folder, *missing, sep="\n")
    return 0


def evaluate_checkpoints(options: argparse.Namespace) -> int:
    from alkit.analysis import evaluation
    from alkit.config.study_yaml import value_of

    given = {name: value_of(text) for name, text in options.parameters}
    return evaluation.main(options.pattern, options.dataset, options.data_root, options.out, given)


def list_methods(options: argparse.Namespace) -> int:
    from alkit.errors.words import aligned
    from alkit.methods import METHODS

    rows = [["method", "objective", "strategy", "needs", "paper"]]
    rows += [[m.id, m.objective, m.strategy, ", ".join(m.needs), m.paper] for m in METHODS.values()]
    head, rule, *lines = aligned(rows, width=1000).splitlines()  # a line a method, however long a paper's name is
    print(head, rule, sep="\n")
    for line, method in zip(lines, METHODS.values(), strict=True):
        print(line, f"    {method.summary}", sep="\n")
    return 0


def list_datasets(options: argparse.Namespace) -> int:
    from alkit.data import DATASETS
    from alkit.errors.words import aligned

    rows = [["data set", "training", "test", "classes", "what it is"]]
    for entry in DATASETS.values():
        numbers = (entry.train_size, entry.test_size, entry.num_classes)
        rows.append([entry.name, *("" if n is None else f"{n:,}" for n in numbers), entry.title])
    print(aligned(rows, right=range(1, 4)))
    return 0


def get_dataset(options: argparse.Namespace) -> int:
    from alkit.data.get import get, listing

    print(listing() if options.list else get(options.name))
    return 0


def make_features(options: argparse.Namespace) -> int:
    from alkit.config import Experiment
    from alkit.config.study_yaml import value_of
    from alkit.data import load_whole
    from alkit.errors import ConfigError
    from alkit.training.devices import choose_device, deterministic
    from alkit.training.encoders import encoder_named, refuse_made
    from alkit.training.encoders import make_features as make

    of_study = options.dataset.endswith((".yaml", ".yml"))
    given = {} if options.data_root is None else {"data_root": str(options.data_root)}
    given["device"] = options.device
    if of_study:
        experiment = Experiment.from_yaml(options.dataset, **given)
    else:
        experiment = Experiment.model_validate({"dataset": options.dataset, **given})
    name = f"{Path(options.dataset).stem if of_study else options.dataset}-{options.encoder.replace(':', '-')}.npz"
    out = options.out or Path(experiment.features or name)
    if out.suffix != ".npz":
        raise ConfigError(f"out: expected the name of a file that ends in .npz, not {out}")
    encoder = encoder_named(options.encoder, options.weights, {n: value_of(v) for n, v in options.parameters})
    refuse_made(out)
    train, test = load_whole(experiment)
    with deterministic():
        about = make(encoder, train, test, out, experiment.dataset, options.precision, options.bfloat16,
                     choose_device(experiment.device))  # fmt: skip
    print(f"{out}: {about['numbers']:,} numbers for each of {len(train):,} training and {len(test):,} test images")
    print(f"a study uses it with `features: {out}`")
    return 0


def list_quirks(options: argparse.Namespace) -> int:
    from alkit.errors import ConfigError, nearest
    from alkit.errors.words import aligned
    from alkit.quirks import QUIRKS, in_words
    from alkit.quirks.not_reproduced import NOT_REPRODUCED

    if options.name is None:
        rows = [["quirk", "seen in", "what the program does, and its measured effect"]]
        for quirk in QUIRKS.values():
            changes = [f"accuracy {in_words(effect)}" for effect in quirk.effects if effect.measure == "accuracy"]
            lines = [quirk.released, f"applies to {quirk.applies_to}", *changes]
            rows.append([quirk.id, ", ".join(quirk.programs), "\n".join(lines)])
        print(aligned(rows))
        print("\nKnown and not reproduced\n")
        rows = [["seen in", "methods", "what the released program does, and why the kit does not"]]
        for known in NOT_REPRODUCED:
            lines = [known.released, known.reason]
            rows.append([", ".join(known.programs), known.of_methods, "\n".join(lines)])
        print(aligned(rows))
        return 0
    if options.name not in QUIRKS:
        raise ConfigError(f"quirks: no quirk '{options.name}'{nearest(options.name, QUIRKS)}")
    quirk = QUIRKS[options.name]
    for name, text in [
        ("quirk", quirk.id), ("seen in", ", ".join(quirk.programs)), ("place", quirk.place),
        ("released", quirk.released), ("corrected", quirk.corrected), ("acts on", quirk.parameter),
        ("applies to", quirk.applies_to), ("known by", quirk.established),
    ]:  # fmt: skip
        print(f"{name:10}  {text}")
    for effect in quirk.effects:
        print(f"{'measured':10}  {effect.measure} {in_words(effect)}")
    if not quirk.effects:
        print(f"{'measured':10}  not yet: notebooks/quirks.ipynb does, for any data set")
    return 0


def show_doctor(options: argparse.Namespace) -> int:
    from alkit.grid.doctor import examine

    return examine()


if __name__ == "__main__":
    sys.exit(main())
