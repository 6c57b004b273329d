"""What a pretext task is: an object that trains without labels and then gives a loss per image."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from importlib import import_module
from pkgutil import iter_modules

import torch
from torch import Tensor, nn

from alkit.config import Experiment
from alkit.data import ImageSet
from alkit.data.randomness import derive_seed, generator
from alkit.errors import ConfigError, nearest
from alkit.models import build_backbone, check_single, seeded
from alkit.models.divergence import of_training, require_finite
from alkit.models.dropout import is_random, set_generator
from alkit.models.steps import Draws, Row, StepLoop, recorder_for
from alkit.training.loop import evaluation_batch, precision_of, split_batches, to_device

Scores = tuple[Tensor, Tensor]
Shape = tuple[int, int, int]


class PretextTask(ABC):
    """Trains the experiment's backbone on the images of `data`, without their labels.

    `train_epoch` makes one pass over all images, `score` gives each image's loss. A subclass says how the network is
    built (`build`), what is random in an epoch (`draw`), and what the loss of a batch is (`losses`); the loops are
    here. Raises `ConfigError` for images that the task can learn nothing from.
    """

    name: str
    measured = True
    """Whether the task has an accuracy, and the epoch with the best one is kept; else the last epoch is."""

    def __init__(self, experiment: Experiment, data: ImageSet) -> None:
        self.experiment, self.data = experiment, data
        self.check(experiment, data.shape)
        self.network = seeded(self.build, generator(experiment.seed, "pretext", self.name, "weights"))
        to_device(self.network, data.device)
        self.optimizer = torch.optim.SGD(
            self.network.parameters(), lr=experiment.pretext_lr, momentum=experiment.momentum,
            weight_decay=experiment.weight_decay, fused=data.device.type in ("cpu", "cuda"),
        )  # fmt: skip
        self._trained = 0
        self._dropout = torch.Generator(data.device)
        set_generator(self.network, self._dropout)
        self._loop = StepLoop(
            data.device, recorder_for(data.device, [self._dropout] if is_random(self.network) else [])
        )

    # --- what a task is ---

    @classmethod
    def check(cls, experiment: Experiment, shape: Shape) -> None:
        """Raise `ConfigError` for images (C, H, W) that the task can learn nothing from; before they are decoded."""
        if experiment.pretext_batch_size == 1 and not cls.views_together(experiment):
            check_single("pretext_batch_size", experiment, shape)

    @classmethod
    def views_together(cls, experiment: Experiment) -> bool:
        """Whether several views of an image pass through the network in one batch."""
        return False

    @abstractmethod
    def build(self) -> nn.Module:
        """The network, on the CPU, its weights from torch's global generator (see `alkit.models.seeded`)."""

    def draw(self, count: int, source: torch.Generator) -> Tensor | None:
        """What is random about each of `count` images in an epoch, a row each; None where nothing is."""
        return None

    @abstractmethod
    def losses(self, images: Tensor, draws: Tensor | None) -> Scores:
        """For uint8 images (B, C, H, W) and their rows of `draws`: each image's loss and accuracy, both (B,)."""

    def score_losses(self, images: Tensor) -> Scores:
        """Each image's loss and accuracy, both (B,), as they are recorded: what `losses` gives if nothing is random."""
        return self.losses(images, None)

    # --- the loops ---

    def train_epoch(self, epoch: int) -> float:
        """One pass over all images in a random order; returns the mean loss. `TrainingError` if it is no number."""
        experiment, data = self.experiment, self.data
        source = generator(experiment.seed, "pretext", self.name, epoch)
        order = split_batches(torch.randperm(len(data), generator=source), experiment.pretext_batch_size)
        sizes = [len(batch) for batch in order]
        each = {"images": torch.cat(order)}
        drawn = self.draw(sum(sizes), source)
        if drawn is not None:
            each["draws"] = drawn
        rows = Draws(sizes, {name: part.to(data.device) for name, part in each.items()})
        self._dropout.manual_seed(derive_seed(experiment.seed, "pretext", self.name, "dropout", epoch))
        self.network.train()
        steps = self._loop.run(self._step, rows, None, None if data.resident else data.stream(rows.batches("images")))
        self._trained = epoch + 1
        with of_training("pretext_lr", experiment.pretext_lr, place=f"epoch {epoch + 1}"):
            require_finite(steps, "the loss of the pretext task", "batch")
        return float(steps.mean())

    def _step(self, row: Row, images: Tensor | None) -> Tensor:
        """One step on a row of the epoch's draws; its loss ()."""
        images = self.data.take(row["images"]) if images is None else images
        # a context a step: autocast keeps its low-precision copies of the weights until it is left
        with precision_of(self.experiment, self.data.device):
            loss = self.losses(images, row.get("draws"))[0].mean()
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    @torch.no_grad()
    def score(self) -> Scores:
        """Loss and accuracy of every image (N,), float64 on the CPU.

        Computed in float32 whatever the precision of training: in bfloat16 many losses would tie.
        """
        data = self.data
        self.network.eval()
        size = max(1, evaluation_batch(self.experiment, data, self.experiment.width) // 4)
        parts = [
            torch.stack([values.float() for values in self.score_losses(images)])
            for images in data.stream(torch.arange(len(data), device=data.device).split(size))
        ]
        losses, accuracy = torch.cat(parts, dim=1).cpu().double()
        with of_training("pretext_lr", self.experiment.pretext_lr, after=f"epoch {self._trained}"):
            require_finite(losses, "the pretext task's loss of an image")
        return losses, accuracy

    def backbone(self, num_outputs: int, channels: int | None = None) -> nn.Module:
        """The experiment's backbone with `num_outputs` outputs, for `channels` channels (those of the images)."""
        own, height, width = self.data.shape
        return build_backbone(self.experiment, (channels or own, height, width), num_outputs)

    def normalised(self, images: Tensor) -> Tensor:
        """uint8 images (B, C, H, W) as the network sees them."""
        return self.data.normalise(images).contiguous(memory_format=torch.channels_last)


_TASKS: dict[str, type[PretextTask]] = {}


def register(name: str) -> Callable[[type[PretextTask]], type[PretextTask]]:
    """Class decorator: the task that `pretext: name` asks for."""

    def add(task: type[PretextTask]) -> type[PretextTask]:
        task.name = name
        _TASKS[name] = task
        return task

    return add


def make_task(experiment: Experiment, data: ImageSet) -> PretextTask:
    """The experiment's pretext task on the images of `data`. Raises `ConfigError` where these do not suit it."""
    return _task(experiment.pretext)(experiment, data)


def check_task(experiment: Experiment, shape: Shape) -> None:
    """Raise `ConfigError` where images (C, H, W) do not suit the experiment's pretext task."""
    _task(experiment.pretext).check(experiment, shape)


def _task(name: str) -> type[PretextTask]:
    for module in iter_modules(import_module("alkit.training.pretext").__path__):
        import_module(f"alkit.training.pretext.{module.name}")
    if name not in _TASKS:
        raise ConfigError(f"pretext: no task '{name}'{nearest(name, _TASKS)}")
    return _TASKS[name]


def square(shape: Shape, task: str) -> None:
    """Refuse images that are not square: turned or padded, their shape alone would give the answer away."""
    _, height, width = shape
    if height != width:
        raise ConfigError(f"pretext: {task} needs square images, not {height}×{width}; image_size makes them square")
