"""Write docs/sizing.md: what the papers' studies cost in GPU hours and disk, from their own files in params/.

    python scripts/sizing.py                                 write the page
    python scripts/sizing.py --check                         say whether it is up to date (exit status 1 if not)
    python scripts/sizing.py --tflops 40                     print the table for a GPU that sustains 40 TFLOP/s
    python scripts/sizing.py --tflops 40 params/cifar10.yaml  … of some studies

Counted: the images that a run passes through its networks, and the floating-point operations of each, with
torch.utils.flop_counter on the kit's own objectives and networks. Measured, on one card: how many of them a GPU does in
a second (`python -m benchmarks gpu`).
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import torch
from torch.utils.flop_counter import FlopCounterMode

from alkit.config import Experiment, Study
from alkit.data.registry import get_entry, pool_counts
from alkit.errors.words import duration
from alkit.errors.words import size as bytes_of
from alkit.grid.estimate import pretext_work, work_of
from alkit.models import build_network
from alkit.models.dropout import set_generator
from alkit.models.vaal import VAE
from alkit.objectives import OBJECTIVES, Batch, objective_of

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "sizing.md"
MEASURED = ROOT / "outputs" / "published" / "benchmarks" / "gpu.json"
GFLOP = 3.33  # to train ResNet-18, width 64, on an image of 32×32: the table of operations


def _measured() -> tuple[str, float, float]:
    """The card, what the papers' network sustained on it in float32 (TFLOP/s), and a small network's step (seconds)."""
    content = json.loads(MEASURED.read_text(encoding="utf-8"))

    def rate(part: str, name: str) -> float:
        return float(next(r["value"] for r in content["rows"] if (r["part"], r["name"]) == (part, name)))

    small = 64 / rate("small_network", "loop, random, bfloat16, recorded")  # its batches are of 64
    return content["card"], rate("training", "loop, random, float32, recorded") * GFLOP / 1000, small


CARD, TFLOPS, STEP_SECONDS = _measured()
GPUS, SEEDS = (1, 8, 64), (10, 1000)
CALTECH = (8_677, 101)  # images in 101 classes, before the split
BATCH = 2  # images to count with


@dataclass(frozen=True)
class Images:
    """What a run's data set holds: images to learn from and to test on, their shape (C, H, W), classes."""

    pool: int
    test: int
    shape: tuple[int, int, int]
    classes: int


@dataclass(frozen=True)
class Cost:
    """Floating-point operations, steps of an optimizer, bytes that stay, bytes of checkpoints while it runs."""

    flops: float
    steps: float
    disk: float = 0.0
    scratch: float = 0.0

    def hours(self, tflops: float) -> float:
        return max(self.flops / (tflops * 1e12), self.steps * STEP_SECONDS) / 3600


def images_of(experiment: Experiment) -> Images:
    entry = get_entry(experiment.dataset)
    shape = (entry.shape or (3, 0, 0))[:1] + (experiment.image_size,) * 2 if experiment.image_size else entry.shape
    assert shape is not None
    if entry.class_counts is None and entry.known is None:
        assert experiment.dataset == "caltech101"
        test = round(CALTECH[0] * experiment.test_fraction)
        return Images(CALTECH[0] - test, test, shape, CALTECH[1])
    classes = entry.num_classes
    assert classes is not None
    if entry.class_counts is None:
        assert entry.train_size is not None
        return Images(entry.train_size, entry.test_size or 50_000, shape, classes)
    factor = experiment.imbalance_factor
    profile = dict(entry.defaults) if factor is None else {"imbalance_factor": factor}
    if experiment.class_balance is not None:
        profile["class_balance"] = experiment.class_balance
    test = (entry.test_size or 0) // classes
    kept = experiment.test_class_balance or [1.0] * classes
    return Images(sum(pool_counts(entry.class_counts, profile)), round(sum(test * k for k in kept)), shape, classes)


def counted(function: Callable[[], object]) -> float:
    counter = FlopCounterMode(display=False)
    with counter:
        function()
    return float(counter.get_total_flops())


_known: dict[tuple[object, ...], tuple[float, float, float]] = {}


def flops_an_image(experiment: Experiment, images: Images) -> tuple[float, float, float]:
    """Operations to train on an image and to pass it through the network, and the network's parameters."""
    objective = objective_of(experiment)
    decides = ("model", "width", "stem", "dropout", "cmam_layer", "cmam_pairing", "training_samples")
    key = (objective, images.shape, images.classes, *(getattr(experiment, name) for name in decides))
    if key not in _known:
        source = torch.Generator()
        network = build_network(experiment, images.shape, images.classes, source, objective == "loss_prediction")
        set_generator(network, source)
        x, labels = torch.rand(BATCH, *images.shape), torch.zeros(BATCH, dtype=torch.int64)
        batch = Batch(x, labels, torch.ones(BATCH), torch.rand(2), torch.arange(BATCH), False, 1000)
        train = counted(lambda: OBJECTIVES[objective](experiment, network, batch).backward())
        with torch.no_grad():
            forward = counted(lambda: network.eval().backbone(x))
        _known[key] = train / BATCH, forward / BATCH, float(sum(p.numel() for p in network.parameters()))
    return _known[key]


@cache
def vaal_flops(shape: tuple[int, int, int], latent: int, width: int, conditional: bool) -> float:
    """Operations of a step an image: through the autoencoder and back, and once more through its encoder."""
    vae, x = VAE(shape, latent, width, conditional), torch.rand(BATCH, *shape)
    shown = torch.rand(BATCH) if conditional else None
    there_and_back = counted(lambda: vae(x, torch.Generator(), shown)[0].sum().backward())
    with torch.no_grad():
        encoded = counted(lambda: vae.encode(x))
    return (there_and_back + encoded) / BATCH


def cost_of(experiment: Experiment) -> Cost:
    """A run's cost: training, evaluation, scoring, VAAL's networks; its pretext task where it needs one."""
    images = images_of(experiment)
    train, forward, parameters = flops_an_image(experiment, images)
    work = work_of(experiment, images.pool, images.test, images.classes)
    flops = work.trained * train + work.passed * forward
    if work.vaal:
        conditional = experiment.row.strategy == "ta_vaal"
        flops += work.vaal * vaal_flops(images.shape, experiment.vae_latent, experiment.vae_width, conditional)
    steps = work.steps + work.batches + work.vaal_steps
    return Cost(flops, steps, work.disk, 2 * 8 * parameters)  # weights and momentum, and the checkpoint before


def pretext_cost(experiment: Experiment) -> Cost:
    """A pretext task, once a seed."""
    images = images_of(experiment)
    train, forward, _ = flops_an_image(experiment, images)
    work = pretext_work(experiment, images.pool)
    return Cost(work.trained * train + work.passed * forward, work.steps, work.disk)


@dataclass(frozen=True)
class Sized:
    """A study: hours of every job of one seed, the longest chain of jobs, bytes a seed, bytes of a checkpoint pair."""

    name: str
    jobs: tuple[float, ...]
    chain: float
    disk: float
    scratch: float

    def hours(self, gpus: int, seeds: int) -> float:
        """Wall hours: the work shared out evenly, but no less than the longest chain."""
        return max(sum(self.jobs) * seeds / gpus, self.chain)


def size(path: Path, tflops: float) -> Sized:
    study = Study.from_yaml(path)
    runs = [study.experiment(label) for label in study.labels]
    costs = [cost_of(run) for run in runs]
    waits = {run.pretext: pretext_cost(run) for run in runs if "pretext" in run.row.needs}
    before = {name: cost.hours(tflops) for name, cost in waits.items()}
    hours = [cost.hours(tflops) for cost in costs]
    chains = [h + (before[r.pretext] if "pretext" in r.row.needs else 0) for h, r in zip(hours, runs, strict=True)]
    disk = sum(cost.disk for cost in [*costs, *waits.values()])
    return Sized(study.study, (*hours, *before.values()), max(chains), disk, max(c.scratch for c in costs))


def papers() -> list[Path]:
    """The study files whose first line says that they hold a paper's protocol."""
    return [path for path in sorted((ROOT / "params").glob("*.yaml")) if path.read_text().startswith("# PAPER")]


def table(sizes: list[Sized]) -> str:
    head = ["study", "jobs a seed", "GPU time a seed", "longest job"]
    head += [f"{seeds:,} seeds, {gpus} GPU{'s' if gpus > 1 else ''}" for seeds in SEEDS for gpus in GPUS]
    head += [f"disk, {seeds:,} seeds" for seeds in SEEDS]
    lines = ["| " + " | ".join(head) + " |", "| --- |" + " ---: |" * (len(head) - 1)]
    for one in sizes:
        cells = [f"`{one.name}`", str(len(one.jobs)), duration(sum(one.jobs)), duration(max(one.jobs))]
        cells += [duration(one.hours(gpus, seeds)) for seeds in SEEDS for gpus in GPUS]
        cells += [bytes_of(one.disk * seeds) for seeds in SEEDS]
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def flops_table(paths: list[Path]) -> str:
    """Operations an image for every shape and objective that occurs."""
    rows: dict[tuple[str, str, str, str], dict[str, None]] = {}
    for path in paths:
        study = Study.from_yaml(path)
        for label in study.labels:
            run = study.experiment(label)
            images = images_of(run)
            train, forward, _ = flops_an_image(run, images)
            name = (
                f"`{run.model}`, width {run.width}, `{run.stem}`"
                if run.model.startswith("resnet")
                else f"`{run.model}`"
            )
            key = (name, "×".join(map(str, images.shape)), f"{train / 1e9:.3g}", f"{forward / 1e9:.3g}")
            rows.setdefault(key, {})[f"`{objective_of(run)}`"] = None
    lines = ["| network | image | objective | GFLOP to train on an image | to pass it |",
             "| --- | --- | --- | ---: | ---: |"]  # fmt: skip
    for (name, shape, train_text, forward_text), objectives in sorted(rows.items()):
        lines.append(f"| {name} | {shape} | {', '.join(sorted(objectives))} | {train_text} | {forward_text} |")
    return "\n".join(lines)


def page(text: str) -> str:
    """The page with its tables as they are now."""
    paths = papers()
    sizes = [size(path, TFLOPS) for path in paths]
    scratch = bytes_of(max(one.scratch for one in sizes))
    assumed = (
        f"For a GPU that sustains {TFLOPS:.0f} TFLOP/s, as one {CARD} did in float32, and at least "
        f"{1000 * STEP_SECONDS:.1f} ms for every step of an optimizer and every batch passed. "
        f"A run under way also keeps two checkpoints, {scratch} at most."
    )
    for name, content in (("sizes", f"{table(sizes)}\n\n{assumed}"), ("operations", flops_table(paths))):
        start, end = f"<!-- {name}: written by scripts/sizing.py -->", f"<!-- end of {name} -->"
        before, _, rest = text.partition(start)
        text = f"{before}{start}\n{content}\n{end}{rest.partition(end)[2]}"
    return text


def main() -> int:
    parser = argparse.ArgumentParser(description="What the papers' studies cost in GPU hours and disk.")
    parser.add_argument("studies", nargs="*", type=Path, help="study files (default: the papers' in params/)")
    parser.add_argument("--tflops", type=float, help="what a GPU sustains; prints the table")
    parser.add_argument("--check", action="store_true", help="say whether docs/sizing.md is up to date")
    options = parser.parse_args()
    if options.studies or options.tflops:
        print(table([size(path, options.tflops or TFLOPS) for path in options.studies or papers()]))
        return 0
    before = PAGE.read_text(encoding="utf-8")
    after = page(before)
    if not options.check:
        PAGE.write_text(after, encoding="utf-8")
    return int(options.check and after != before)


if __name__ == "__main__":
    sys.exit(main())
