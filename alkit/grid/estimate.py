"""About how long a run will take and what it leaves on disk, before there is any: counted, times a few timed steps.

A rough figure, for a table that helps to decide. What is counted: images trained on and passed, VAAL's networks, a
pretext task, a run's start and pictures. Not: clustering, graph networks, reading images from files.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, replace

import torch

from alkit.config import Experiment
from alkit.data import Facts, facts_of, from_arrays
from alkit.grid.planning import data_key
from alkit.models import build_network
from alkit.models.vaal import VAE
from alkit.objectives import objective_of
from alkit.strategies.vaal import step_count
from alkit.training.devices import choose_device
from alkit.training.loop import Trainer, predict, to_device

NOTEBOOK, RECORD = 300_000, 1_200  # bytes: an executed notebook; a cycle in result.json
PASS = 512  # images that a network is passed at once when nothing is learnt
START = 10.0  # seconds of a run beside its cycles: Python, torch and the kernel start, the notebook draws its pictures
WANTED = 0.4  # seconds of the step that is timed


@dataclass(frozen=True)
class Work:
    """What a run sends through its networks: images, each as often as it is; steps and batches; bytes that stay."""

    trained: float
    steps: float
    passed: float
    batches: float
    vaal: float  # images that VAAL's autoencoder is trained on
    vaal_steps: float
    disk: float


def work_of(experiment: Experiment, pool: int, test: int, classes: int) -> Work:
    """Training, evaluation and scoring of a run on `pool` and `test` images; its pretext task is `pretext_work`."""
    row, cycles, samples = experiment.row, experiment.cycle_count, experiment.posterior_samples
    bayesian = experiment.model.endswith("cnn")  # whose posterior samples differ in all layers
    trained = steps = passed = batches = vaal = vaal_steps = 0.0
    disk = float(11 * test * cycles + 2 * test * classes + RECORD * cycles + NOTEBOOK)
    for cycle in range(cycles):
        labelled = pool if row.whole_pool else experiment.first_count + cycle * experiment.budget
        drawn = experiment.epoch_images or labelled
        trained += drawn * experiment.epochs
        steps += max(1, drawn // experiment.batch_size) * experiment.epochs
        seen = [(test, samples if bayesian else 1)]
        if cycle < cycles - 1:
            unlabelled = pool - labelled - experiment.validation_size
            candidates = min(experiment.subset or unlabelled, unlabelled)
            seen.append((candidates, samples if bayesian and "posterior" in row.needs else 1))
            disk += 8 * candidates + 8 * experiment.budget
            if row.strategy in ("vaal", "ta_vaal"):
                number = step_count(labelled, candidates, experiment.vae_epochs, experiment.batch_size)
                vaal += number * 2 * experiment.batch_size
                vaal_steps += 2 * number
        passed += sum(count * times for count, times in seen)
        batches += sum(math.ceil(count / PASS) * times for count, times in seen)
    return Work(trained, steps, passed, batches, vaal, vaal_steps, disk)


def pretext_work(experiment: Experiment, pool: int) -> Work:
    """A pretext task of four views, once a seed; two passes an epoch: to train, and to see how good it is."""
    views = 4.0 * pool * experiment.pretext_epochs
    steps = experiment.pretext_epochs * pool / experiment.pretext_batch_size
    return Work(views, steps, views, 0, 0, 0, 20 * pool)


# --- on this machine ---


class Rates:
    """Seconds and bytes of runs on this machine's device; what is alike in two runs is timed once."""

    def __init__(self) -> None:
        self._facts: dict[str, Facts] = {}
        self._known: dict[tuple[object, ...], float] = {}

    def of_run(self, experiment: Experiment) -> tuple[float, float]:
        """(seconds, bytes) of a run. Raises an `AlkitError` where its device is not there."""
        facts = self._facts_of(experiment)
        work = work_of(experiment, facts.pool, facts.test, facts.classes)
        return START + self._seconds(experiment, work, facts), work.disk

    def of_pretext(self, experiment: Experiment) -> tuple[float, float]:
        """(seconds, bytes) of the pretext task that a run waits for."""
        facts = self._facts_of(experiment)
        work = pretext_work(experiment, facts.pool)
        return START + self._seconds(experiment, work, facts), work.disk

    def _facts_of(self, experiment: Experiment) -> Facts:
        key = data_key(experiment)
        if key not in self._facts:
            self._facts[key] = facts_of(experiment)
        return self._facts[key]

    def _seconds(self, experiment: Experiment, work: Work, facts: Facts) -> float:
        shape, classes = facts.shape, facts.classes
        middle = experiment.first_count + (experiment.cycle_count - 1) * experiment.budget // 2
        size = max(2, min(experiment.batch_size, experiment.epoch_images or middle))
        decides = ("model", "width", "stem", "dropout", "cmam_layer", "cmam_pairing", "training_samples", "precision",
                   "optimizer", "threads", "device")  # fmt: skip
        key = (objective_of(experiment), shape, classes, size, *(getattr(experiment, name) for name in decides))
        if (*key, "train") not in self._known:
            self._known[*key, "train"], self._known[*key, "pass"] = _timed(experiment, shape, classes, size)
        vae = (shape, experiment.vae_latent, experiment.vae_width, experiment.row.strategy == "ta_vaal")
        if work.vaal and vae not in self._known:
            self._known[vae] = _timed_vae(*vae, choose_device(experiment.device))
        return (work.trained * self._known[*key, "train"] + work.passed * self._known[*key, "pass"]
                + work.vaal * self._known.get(vae, 0.0))  # fmt: skip


def _timed(experiment: Experiment, shape: tuple[int, int, int], classes: int, size: int) -> tuple[float, float]:
    """Seconds to train on an image, in a batch of `size` or what is quick, and to pass one."""
    device, source = choose_device(experiment.device), torch.Generator().manual_seed(0)
    threads = torch.get_num_threads()
    torch.set_num_threads(experiment.threads or 1)
    try:
        for count in (min(size, 8), size):
            pixels = (1, 1, 1) if experiment.on_features else shape
            images = torch.randint(256, (count, *pixels), generator=source, dtype=torch.uint8)
            labels = torch.randint(classes, (count,), generator=source)
            data = from_arrays("timed", images, labels, [str(c) for c in range(classes)], augmentation="none")
            if experiment.on_features:
                data = replace(data, features=torch.rand(count, shape[0], generator=source)).on_features()
            data = data.to(device)
            network = build_network(
                experiment, data.shape, classes, source, objective_of(experiment) == "loss_prediction"
            )
            to_device(network, device)
            once = experiment.model_copy(update={"epoch_images": None, "batch_size": max(2, count)})
            trainer = Trainer(network, data, torch.arange(count), once, 1)
            trained = _seconds_of(trainer.train_epoch) / count
            if trained * size > 4 * WANTED:  # a large network: an image costs as much in a small batch
                break
        return trained, _seconds_of(lambda: predict(network, data, experiment=experiment).sum().item()) / count
    finally:
        torch.set_num_threads(threads)


def _timed_vae(shape: tuple[int, int, int], latent: int, width: int, conditional: bool, device: torch.device) -> float:
    """Seconds to train VAAL's autoencoder on an image: there and back, and once more through its encoder."""
    vae, source = VAE(shape, latent, width, conditional).to(device), torch.Generator(device)
    images = torch.rand(8, *shape, device=device)
    ranks = torch.rand(8, device=device) if conditional else None

    def step() -> float:
        vae(images, source, ranks)[0].sum().backward()
        with torch.no_grad():
            return float(vae.encode(images)[0].sum())

    return _seconds_of(step) / len(images)


def _seconds_of(step: Callable[[], float]) -> float:
    """The quicker of two, after one that is not counted."""
    found = []
    for _ in range(3):
        begun = time.perf_counter()
        step()
        found.append(time.perf_counter() - begun)
        if found[0] > 4 * WANTED:
            break
    return min(found[1:] or found)
