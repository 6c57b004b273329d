"""The device loop: train a network on labelled images, and pass images through it.

Within an epoch nothing is read back from the device and nothing is copied to it: indices, crops, λs and partners of
the whole epoch are drawn before its first step, and `alkit.models.steps` goes through them. Every epoch has a
generator of its own, so training can stop after any epoch and go on in another process with the same bits.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache
from typing import Any

import torch
from torch import Tensor, nn

from alkit.config import Experiment
from alkit.data import ImageSet, augment
from alkit.data.randomness import derive_seed, generator
from alkit.errors import TrainingError
from alkit.models import Network
from alkit.models.divergence import finite_outputs, of_training, require_finite
from alkit.models.dropout import is_random, set_generator
from alkit.models.steps import Draws, Row, StepLoop, out_of_memory, recorder_for
from alkit.objectives import MIXING, OBJECTIVES, Batch, Loss, draw_lambdas, draw_partners, objective_of


def learning_rate(experiment: Experiment, epoch: int) -> float:
    """The rate of `epoch` (from 0). The quirk `lr_step_first` brings each drop one epoch early."""
    passed = epoch + 1 if experiment.quirk("lr_step_first") else epoch
    return experiment.lr * experiment.lr_gamma ** sum(passed >= milestone for milestone in experiment.milestones)


def detaches(experiment: Experiment, epoch: int) -> bool:
    """Whether the loss module's input is detached in `epoch` (from 0): from 60% of the epochs on, or `ll_detach`."""
    start = experiment.ll_detach if experiment.ll_detach is not None else int(experiment.epochs * 0.6)
    return epoch > start if experiment.quirk("detach_late") else epoch >= start


def split_batches(order: Tensor, batch_size: int) -> list[Tensor]:
    """Cut `order` into batches; a single image left over joins the batch before, for batch-norm needs two."""
    batches = list(order.split(batch_size))
    if len(batches) > 1 and len(batches[-1]) == 1:
        batches[-2:] = [torch.cat(batches[-2:])]
    if len(order) == 1:
        batches = [order.repeat(2)]
    return batches


@contextmanager
def precision_of(experiment: Experiment, device: torch.device) -> Iterator[None]:
    """Autocast to bfloat16 where the experiment asks for it."""
    wanted = experiment.precision == "bfloat16"
    with torch.autocast(device.type, dtype=torch.bfloat16) if wanted else nullcontext():
        yield


def to_device(network: nn.Module, device: torch.device) -> nn.Module:
    """The network on the device with its convolutions channels-last, the layout they run fastest in."""
    return network.to(device, memory_format=torch.channels_last)  # type: ignore[call-overload,no-any-return]


class Trainer:
    """Trains `network` on the images `indices` of `data` for one cycle, an epoch at a time.

    `weights` (one an image of `indices`) multiply losses where the objective is weighted. `epoch` counts finished
    epochs; `state_dict` after any epoch is all that is needed to go on.
    """

    def __init__(
        self,
        network: Network,
        data: ImageSet,
        indices: Tensor,
        experiment: Experiment,
        cycle: int,
        weights: Tensor | None = None,
    ) -> None:
        self.network, self.data, self.experiment, self.cycle = network, data, experiment, cycle
        self.indices = indices.cpu()
        self.weights = torch.ones(len(indices)) if weights is None else weights.float().cpu()
        self.epoch = 0
        self.losses: list[float] = []
        self.optimizer = make_optimizer(network, experiment, data.device)
        self.objective = objective_of(experiment)
        kind = experiment.augmentation
        self.augmentation = data.augmentation if kind == "auto" else kind
        self._loss: Loss = OBJECTIVES[self.objective]
        self._dropout = torch.Generator(data.device)  # one for all epochs: a recorded step draws from it
        set_generator(network, self._dropout)
        self._loop = StepLoop(data.device, recorder_for(data.device, [self._dropout] if is_random(network) else []))

    @property
    def finished(self) -> bool:
        return self.epoch >= self.experiment.epochs

    def train_epoch(self) -> float:
        """One pass over the labelled images, or `epoch_images` draws of them; returns the mean loss.

        Raises `TrainingError` where it is not a number, or memory runs out.
        """
        rate = learning_rate(self.experiment, self.epoch)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.network.train()
        try:
            losses = self._steps(rate)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            raise TrainingError(
                f"out of memory in cycle {self.cycle}, epoch {self.epoch + 1}, with {self.experiment.batch_size} "
                "images a batch; a smaller batch_size, width or image_size needs less"
            ) from None
        with of_training("lr", rate, cycle=self.cycle, place=f"epoch {self.epoch + 1}", other=self._other):
            require_finite(losses, "the loss", "batch")
        self.epoch += 1
        self.losses.append(float(losses.mean()))
        return self.losses[-1]

    def _steps(self, rate: float) -> Tensor:
        """All steps of the epoch; the loss of each, (steps,), still on the device."""
        draws = self._draw()
        stream = None
        if not self.data.resident:
            crops = draws.batches("crops") if "crops" in draws.each else None
            stream = self.data.stream(draws.batches("images"), self.augmentation, crops)
        return self._loop.run(self._step, draws, (rate, detaches(self.experiment, self.epoch)), stream)

    def _step(self, row: Row, images: Tensor | None) -> Tensor:
        """One step on a row of the epoch's draws; its loss ()."""
        data, chosen = self.data, row["images"]
        if images is None:
            images = data.augmented(data.take(chosen), self.augmentation, row.get("crops"))
        batch = Batch(
            data.normalise(images).contiguous(memory_format=torch.channels_last), data.labels.index_select(0, chosen),
            row["weights"], row["lam"], row["partners"], detaches(self.experiment, self.epoch), len(self.indices),
        )  # fmt: skip
        # a context a step: autocast keeps its low-precision copies of the weights until it is left
        with precision_of(self.experiment, data.device):
            loss = self._loss(self.experiment, self.network, batch)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss

    def _draw(self) -> Draws:
        """Every random choice of the epoch, drawn on the CPU and moved to the device at once."""
        experiment, device = self.experiment, self.data.device
        source = generator(experiment.seed, "train", self.cycle, self.epoch)
        count, size = len(self.indices), experiment.batch_size
        shuffled = torch.randperm(experiment.epoch_images or count, generator=source) % count
        if self.cycle == 1 and experiment.quirk("first_cycle_drop_last") and len(shuffled) >= size:
            shuffled = shuffled[: len(shuffled) // size * size]
        order = split_batches(shuffled, size)
        sizes = [len(batch) for batch in order]
        flat = torch.cat(order)
        crops = augment.draw(self.augmentation, len(flat), source)
        mixes = self.objective in MIXING
        lam = draw_lambdas(experiment.alpha, len(order), source) if mixes else torch.zeros(len(order), 2)
        pairing = experiment.cmam_pairing if self.objective.startswith("cmam") else "permutation"
        partners = [draw_partners(size, pairing, source) if mixes else torch.arange(size) for size in sizes]
        self._dropout.manual_seed(derive_seed(experiment.seed, "dropout", self.cycle, self.epoch))
        each = {"images": self.indices[flat], "weights": self.weights[flat], "partners": torch.cat(partners)}
        if crops is not None:
            each["crops"] = crops
        return Draws(
            sizes, {name: part.to(device, non_blocking=True) for name, part in each.items()},
            {"lam": lam.to(device, non_blocking=True)},
        )  # fmt: skip

    @property
    def _other(self) -> str:
        """What may help beside a lower rate."""
        return "smaller numbers as features" if self.experiment.on_features else ""

    def trained(self) -> AbstractContextManager[None]:
        """Within, outputs of the network that are not numbers are said to be of this training, as it stands."""
        rate = learning_rate(self.experiment, max(self.epoch - 1, 0))
        return of_training("lr", rate, cycle=self.cycle, after=f"epoch {self.epoch}", other=self._other)

    def end(self) -> None:
        """Free what only further epochs need."""
        self._loop.forget()

    def state_dict(self) -> dict[str, Any]:
        """What `load_state_dict` needs to go on after this epoch."""
        return {
            "epoch": self.epoch,
            "losses": self.losses,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on from `state`."""
        self.epoch, self.losses = state["epoch"], list(state["losses"])
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
        self._loop.forget()


def make_optimizer(network: nn.Module, experiment: Experiment, device: torch.device) -> torch.optim.Optimizer:
    """SGD with momentum, or Adam; fused into one kernel where the device has it."""
    options: dict[str, Any] = {"lr": experiment.lr, "weight_decay": experiment.weight_decay}
    if device.type in ("cuda", "cpu"):
        options["fused"] = True
    if experiment.optimizer == "adam":
        options["capturable"] = device.type == "cuda"  # its count of steps stays on the device, so it can be recorded
        return _light(torch.optim.Adam)(network.parameters(), **options)
    return _light(torch.optim.SGD)(network.parameters(), momentum=experiment.momentum, **options)


@cache
def _light(optimizer: type[torch.optim.Optimizer]) -> Callable[..., torch.optim.Optimizer]:
    """The same optimizer, its methods without torch's mark "not to be compiled".

    Honouring that mark imports the compiler, which takes two seconds; the loop never compiles its optimizer.
    """
    marked = ("step", "add_param_group", "zero_grad", "state_dict", "load_state_dict")
    plain = {name: inspect.unwrap(getattr(optimizer, name)) for name in marked}
    return type(optimizer.__name__, (optimizer,), plain | {"step": torch.no_grad()(plain["step"])})


# --- passing images through a trained network ------------------------------------------------------------------------

_MEMORY = {"cpu": 128 * 2**20, "cuda": 4 * 2**30}


def evaluation_batch(experiment: Experiment | None, data: ImageSet, width: int = 64) -> int:
    """Images a forward pass, by memory: about eight maps of the first stage's size are alive at once."""
    if experiment is not None and experiment.eval_batch_size is not None:
        return experiment.eval_batch_size
    _, height, wide = data.shape
    one = 8 * 4 * width * height * wide
    return max(16, min(4096, _MEMORY[data.device.type] // one))


@torch.no_grad()
def forward_all(
    function: Callable[[Tensor], Sequence[Tensor]],
    data: ImageSet,
    indices: Tensor | None = None,
    experiment: Experiment | None = None,
    batch_size: int | None = None,
) -> list[Tensor]:
    """`function` of the images `indices` (all by default), batch by batch; its outputs, float32, joined.

    Where memory runs out the batch is halved and the pass goes on. Raises `DivergedError`, a `TrainingError`, if an
    output is not a finite number.
    """
    device = data.device
    chosen = torch.arange(len(data)) if indices is None else indices.cpu()
    width = experiment.width if experiment is not None else 64
    size = batch_size or evaluation_batch(experiment, data, width)
    outputs: list[Tensor] = []
    done = 0
    while done < len(chosen) or not outputs:
        batches = chosen[done:].to(device).split(size)
        try:
            for images in data.stream(batches):
                with precision_of(experiment, device) if experiment is not None else nullcontext():
                    ready = data.normalise(images).contiguous(memory_format=torch.channels_last)
                    results = function(ready)
                if not outputs:
                    outputs = [torch.empty(len(chosen), *r.shape[1:], device=device) for r in results]
                for output, result in zip(outputs, results, strict=True):
                    output[done : done + len(images)] = result
                done += len(images)
        except RuntimeError as error:
            if not out_of_memory(error):
                raise
            if size == 1:
                raise TrainingError("out of memory while evaluating a single image") from None
            size = max(1, size // 2)
            torch.cuda.empty_cache()
    return finite_outputs(outputs)


def predict(
    model: nn.Module,
    data: ImageSet,
    indices: Tensor | None = None,
    experiment: Experiment | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Logits (n, C) float32 of the images `indices` (all by default) of `data`, in evaluation mode."""
    model.eval()
    return forward_all(lambda images: (model(images),), data, indices, experiment, batch_size)[0]


def features(
    model: Any,
    data: ImageSet,
    indices: Tensor | None = None,
    experiment: Experiment | None = None,
    batch_size: int | None = None,
) -> Tensor:
    """Penultimate features (n, D) float32 of the images `indices` (all by default), in evaluation mode."""
    model.eval()
    return forward_all(lambda images: (model.embed(images),), data, indices, experiment, batch_size)[0]
