"""From an experiment to the file of its pretext losses."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from alkit.config import Experiment
from alkit.config.pretext import pretext_key, pretext_settings
from alkit.data import Facts, ImageSet, facts_of, images_for
from alkit.data.identity import pixels_digest
from alkit.errors import CheckpointError, DataError, OutOfTimeError
from alkit.storage.checkpoint import load_checkpoint, remove_checkpoints, save_checkpoint
from alkit.storage.loss_files import PretextLosses, as_text, read_losses, write_pretext
from alkit.storage.paths import named
from alkit.training import deadline, devices
from alkit.training.pretext.base import PretextTask, make_task

Progress = Callable[[dict[str, Any]], None]


def run_pretext(
    experiment: Experiment,
    out_file: str | Path,
    progress: Progress | None = None,
    *,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
) -> PretextLosses:
    """Train the experiment's pretext task on its pool, without labels, and leave every image's loss in `out_file`.

    If the file is there, it is read back; if training was interrupted, it goes on from its last checkpoint beside the
    file; if another process is at it, this one waits. The same settings give the same bytes. `progress` is called with
    a dictionary (state, epoch, epochs, loss, accuracy) after every epoch. `train` and `test` are images of one's own,
    as for `ActiveLearner`.

    The epoch kept is the one with the best accuracy on the pool itself, as in PT4AL's program, whose "test" loader
    reads the training images; the last one where a task has no accuracy. No test image is looked at.

    Raises `CheckpointError` for a file of other settings or images, `ConfigError` for images that do not suit the task.
    """
    out_file = named(out_file, "out_file") or Path()
    if out_file.suffix != ".npz":
        raise DataError(f"{out_file}: expected the name of a file that ends in .npz")
    if experiment.threads is not None:
        torch.set_num_threads(experiment.threads)
    experiment, pool, _ = images_for(experiment, train, test)
    settings = settings_on(experiment, pool)
    with _alone(out_file):
        if out_file.exists():
            content = _read_back(out_file, settings)
            with suppress(OSError):  # of a process that was killed just after its losses were there
                remove_checkpoints(_checkpoint(out_file))
            return content
        device = devices.choose_device(experiment.device)
        task = make_task(experiment, pool.to(device))
        with devices.deterministic():
            content = _train(settings, task, out_file, progress)
        try:
            write_pretext(out_file, content)
        except OSError as error:
            raise CheckpointError(f"{out_file}: cannot be written ({error.strerror})") from None
        remove_checkpoints(_checkpoint(out_file))
    return content


def settings_on(experiment: Experiment, pool: ImageSet) -> dict[str, Any]:
    """The settings that losses are computed with, and what they are computed on: the pixels, no labels."""
    return pretext_settings(experiment) | {"pixels": pixels_digest(pool)}


def with_pretext(
    experiment: Experiment,
    folder: str | Path,
    progress: Progress | None = None,
    *,
    train: ImageSet | None = None,
    test: ImageSet | None = None,
) -> Experiment:
    """The experiment with its pretext losses: computed in `folder`/KEY.npz where it needs some and names none.

    Raises as `run_check.check_run` does before anything is trained.
    """
    if "pretext" not in experiment.row.needs or experiment.pretext_losses is not None:
        return experiment
    from alkit.training.run_check import check_run

    check_run(
        experiment,
        Facts.of(*images_for(experiment, train, test))
        if train is not None or test is not None
        else facts_of(experiment),
    )
    out_file = Path(folder) / f"{pretext_key(experiment)}.npz"
    run_pretext(experiment, out_file, progress, train=train, test=test)
    return Experiment(**(experiment.model_dump() | {"pretext_losses": str(out_file)}))


@dataclass
class _Best:
    """The losses of the epoch to be kept so far."""

    epoch: int = 0
    accuracy: float = -1.0
    losses: torch.Tensor | None = None


def _train(settings: dict[str, Any], task: PretextTask, out_file: Path, progress: Progress | None) -> PretextLosses:
    """All epochs, from the beginning or from the checkpoint beside `out_file`."""
    experiment, best, history, done = task.experiment, _Best(), list[float](), 0
    saved_state = load_checkpoint(_checkpoint(out_file))
    if saved_state is not None and saved_state.get("settings") == settings:
        task.network.load_state_dict(saved_state["network"])
        task.optimizer.load_state_dict(saved_state["optimizer"])
        best, history, done = _Best(**saved_state["best"]), list(saved_state["history"]), saved_state["epoch"]
    saved = time.monotonic()
    for epoch in range(done, experiment.pretext_epochs):
        loss = task.train_epoch(epoch)
        value = _note(best, task, epoch, loss)
        history.append(value)
        if progress is not None:
            progress({
                "state": f"pretext {task.name}", "cycle": 0, "epoch": epoch + 1, "epochs": experiment.pretext_epochs,
                "loss": loss, "accuracy": value if task.measured else None,
            })  # fmt: skip
        left, late = epoch + 1 < experiment.pretext_epochs, deadline.passed()
        if left and (late or time.monotonic() - saved >= experiment.checkpoint_seconds):
            save_checkpoint(_checkpoint(out_file), {
                "settings": settings, "epoch": epoch + 1, "best": asdict(best), "history": history,
                "network": task.network.state_dict(), "optimizer": task.optimizer.state_dict(),
            })  # fmt: skip
            saved = time.monotonic()
        if left and late:
            raise OutOfTimeError(
                f"the time is over, in epoch {epoch + 1} of the pretext task; started again, it goes on"
            )
    assert best.losses is not None
    losses = best.losses.numpy()
    accuracy = best.accuracy if task.measured else float("nan")
    return PretextLosses(losses, as_text(losses), settings, best.epoch, accuracy, tuple(history))


def _note(best: _Best, task: PretextTask, epoch: int, loss: float) -> float:
    """Keep the losses of this epoch if they are the ones to keep; returns its accuracy, or its mean training loss."""
    last = epoch + 1 == task.experiment.pretext_epochs
    if not task.measured:
        if last:
            best.epoch, best.losses = epoch + 1, task.score()[0]
        return loss
    losses, correct = task.score()
    accuracy = float(correct.sum()) / len(correct)  # sums of quarters are exact, so equal epochs tie
    if accuracy > best.accuracy:
        best.epoch, best.accuracy, best.losses = epoch + 1, accuracy, losses
    return accuracy


def _read_back(out_file: Path, settings: dict[str, Any]) -> PretextLosses:
    content = read_losses(out_file)
    unwritten = {"pixels": settings["pixels"], "rotation_four_passes": False}  # what older versions leave out
    for name, wanted in settings.items():
        if content.settings.get(name, unwritten.get(name)) != wanted:
            raise CheckpointError(
                f"{out_file}: holds pretext losses with {name} = {content.settings.get(name)!r}, not {wanted!r}; "
                "choose another file"
            )
    return content


@contextmanager
def _alone(out_file: Path) -> Iterator[None]:
    """Hold the file's lock: runs that start together compute the losses once."""
    from filelock import FileLock

    try:
        out_file.parent.mkdir(parents=True, exist_ok=True)
        lock = FileLock(out_file.with_name(f".{out_file.name}.lock"))
        lock.acquire()
    except OSError as error:
        raise CheckpointError(f"{out_file.parent}: cannot be written on {platform.node()} ({error.strerror})") from None
    try:
        yield
    finally:
        lock.release()


def _checkpoint(out_file: Path) -> Path:
    return out_file.with_suffix(".checkpoint.pt")
