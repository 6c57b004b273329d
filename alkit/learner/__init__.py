"""ActiveLearner: train, evaluate, query, label, again; every step recorded, and resumed by itself.

Comes in: an experiment, and perhaps images of one's own. Goes out: a record a cycle, and a folder (`run_folder`) that
holds the run. It knows nothing of other runs.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from copy import deepcopy
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alkit import __version__
from alkit.config import Experiment
from alkit.data import Facts, ImageSet, images_for
from alkit.data.first import available_of, first_labelled, interleave_classes
from alkit.data.identity import images_record, query_digest
from alkit.data.randomness import generator
from alkit.errors import ConfigError, OutOfTimeError
from alkit.learner.run_folder import RunFolder
from alkit.learner.state import State, pool_after
from alkit.models import Network, build_network
from alkit.objectives import objective_of
from alkit.strategies import Query, make_strategy
from alkit.strategies.base import check_images, check_query
from alkit.training import deadline, devices
from alkit.training.evaluate import evaluate_cycle, fit_run_temperature
from alkit.training.loop import Trainer, predict, to_device
from alkit.training.pool import ModelPool
from alkit.training.run_check import check_run

SCHEMA = 1
Progress = Callable[[dict[str, Any]], None]


class ActiveLearner:
    """Runs one experiment; iterating it yields one record a cycle.

    With `out_dir` it leaves `result.json` (last), `queries.npz` and `predictions.npz` there, checkpoints as it goes,
    and a second iteration, in this process or another, goes on where the first one was. `progress` is called with
    a dictionary (state, cycle, epoch, …) after every epoch.

    `train` and `test` are images of one's own (`alkit.data.from_arrays`) in place of a named data set: the pool with
    its labels, which are looked up only as they are bought, and the test images. See `alkit.data.images_for`.

    Raises `ConfigError` for an experiment that its data cannot give, `CheckpointError` for a folder that holds
    another experiment's run, or one on other images, or is in use by another process.
    """

    def __init__(
        self,
        experiment: Experiment,
        out_dir: str | Path | None = None,
        progress: Progress | None = None,
        *,
        train: ImageSet | None = None,
        test: ImageSet | None = None,
    ) -> None:
        if experiment.threads is not None:
            torch.set_num_threads(experiment.threads)
        self.device = devices.choose_device(experiment.device)
        experiment, *splits = images_for(experiment, train, test)
        self.experiment = experiment
        self.folder = RunFolder(out_dir, experiment, images_record(*splits))
        self._progress = progress
        parts = [part.on_features() for part in splits] if experiment.on_features else splits
        self.train, self.test = (part.to(self.device) for part in parts)
        check_run(experiment, Facts.of(experiment, *splits))
        self.labels = self.train.labels.cpu()
        self.strategy = make_strategy(experiment)
        self.validation, self.available = available_of(experiment, len(self.train))
        self.network: Network | None = None
        self.state = State()

    # --- the cycle ---

    def __iter__(self) -> Iterator[dict[str, Any]]:
        finished = self.folder.finished()
        if finished is not None:
            yield from finished["cycles"]
            return
        with self.folder.lock(), devices.deterministic():
            restored = self.folder.restore()
            if restored is None and "pretext" in self.experiment.row.needs:
                from alkit.strategies import pt4al

                pt4al.check_losses(self.experiment, self.train)
            self.state = State(started=_now()) if restored is None else State(**restored)
            self._note_code()
            yield from list(self.state.records)
            for cycle in range(len(self.state.records) + 1, self.experiment.cycle_count + 1):
                yield self.run_cycle(cycle)
            self._finish()

    def run_cycle(self, cycle: int) -> dict[str, Any]:
        """Train on what is labelled, evaluate, and buy the next labels; returns the cycle's record."""
        state = self.state
        if cycle == 1 and not state.queries:
            if self.experiment.initial or self.experiment.row.whole_pool:
                self._buy(self._first_query(), None, None)
            else:
                self._query(0, None, state.labelled, 1.0)
        labelled = state.labelled
        bought, held_out = self._split_labelled()
        seconds = {"train": 0.0, "evaluate": 0.0, "query": 0.0}
        last = cycle == self.experiment.cycle_count
        weights = self._weights()
        asks = not last and self.experiment.sbias_score != "random"
        chooser = self._chooser(cycle, bought, seconds) if asks and weights is not None else None
        trainer = self._train(cycle, bought, seconds, weights)
        began = time.perf_counter()
        self._report("evaluating", cycle, trainer.epoch)
        with trainer.trained():
            temperature = fit_run_temperature(self.experiment, trainer.network, self.train, bought, held_out, cycle)
            measures, predictions = evaluate_cycle(self.experiment, trainer.network, self.test, cycle, temperature)
        seconds["evaluate"] = time.perf_counter() - began
        began = time.perf_counter()
        bought_now = state.queries[-1]
        if not last:
            self._report("querying", cycle, trainer.epoch)
            with trainer.trained():
                self._query(cycle, chooser or trainer.network, labelled, temperature)
        seconds["query"] = time.perf_counter() - began
        record = {
            "cycle": cycle,
            "labelled": len(labelled),
            **measures,
            "train_loss": trainer.losses[-1],
            "epochs": trainer.epoch,
            "temperature": temperature if self.experiment.row.calibrated else None,
            "reveals_within_cycle": self.strategy.reveals_within_cycle,
            "query_sha256": query_digest(bought_now),
            "class_counts": torch.bincount(self.labels[labelled], minlength=self.train.num_classes).tolist(),
            "seconds": {name: round(value, 3) for name, value in seconds.items()},
        }
        state.records.append(record)
        state.predictions.append(predictions)
        state.training = state.chooser = None
        if self.experiment.quirk("warm_start"):
            state.carried = trainer.network.state_dict()
            state.carried_chooser = chooser.state_dict() if chooser is not None else None
        if self.experiment.keep_models:
            self.folder.keep_model(cycle, trainer.network.backbone)
        self._checkpoint()
        return record

    def _chooser(self, cycle: int, indices: Tensor, seconds: dict[str, float]) -> Network:
        """The network that makes the query where the reported one is trained with weights: trained without them.

        It begins with the same weights and sees the same batches, so what is asked does not depend on the estimator.
        """
        state = self.state
        if state.chooser is None:
            trainer = self._train(cycle, indices, seconds, None, state.carried_chooser)
            state.chooser = {"network": trainer.network.state_dict(), "seconds": seconds["train"]}
            state.training = None
            self._checkpoint()
        seconds["train"] = state.chooser["seconds"]
        return self._network(cycle, state.chooser["network"])

    def _network(self, cycle: int, weights: dict[str, Any] | None) -> Network:
        """A network on the device with `weights`, or the cycle's own at random."""
        experiment = self.experiment
        network = build_network(
            experiment, self.train.shape, self.train.num_classes, generator(experiment.seed, "weights", cycle),
            with_loss_module=objective_of(experiment) == "loss_prediction",
        )  # fmt: skip
        if weights is not None:
            network.load_state_dict(weights)
        to_device(network, self.device)
        return network

    def _train(
        self, cycle: int, indices: Tensor, seconds: dict[str, float], weights: Tensor | None,
        carried: dict[str, Any] | None = None,
    ) -> Trainer:  # fmt: skip
        """The cycle's trained network, from the beginning or from where a checkpoint left it.

        `weights` are of the images' losses; under warm_start it begins as `carried` or the last cycle's.
        """
        experiment, state = self.experiment, self.state
        network = self._network(cycle, carried or state.carried)
        trainer = Trainer(network, self.train, indices, experiment, cycle, weights)
        best: dict[str, Any] = {"value": None, "epoch": 0, "network": None}
        if state.training is not None:
            trainer.load_state_dict(state.training["trainer"])
            best, seconds["train"] = state.training["best"], state.training["seconds"]
        self.network = network
        before, began, saved = seconds["train"], time.perf_counter(), time.monotonic()
        while not trainer.finished and not self._should_stop(best, trainer.epoch):
            loss = trainer.train_epoch()
            with trainer.trained():
                self._note_best(best, trainer)
            seconds["train"] = before + time.perf_counter() - began
            self._report("training", cycle, trainer.epoch, loss=loss)
            late = deadline.passed() and not trainer.finished
            if late or time.monotonic() - saved >= experiment.checkpoint_seconds:
                state.training = {"trainer": trainer.state_dict(), "best": best, "seconds": seconds["train"]}
                self._checkpoint()
                saved = time.monotonic()
            if late:
                raise OutOfTimeError(f"the time is over, in cycle {cycle} after epoch {trainer.epoch}; started again, "
                                "the run goes on from there")  # fmt: skip
        trainer.end()
        if best["network"] is not None:
            network.load_state_dict(best["network"])
        return trainer

    def _note_best(self, best: dict[str, Any], trainer: Trainer) -> None:
        """Keep the best epoch's weights: by validation loss, or (quirk best_test_checkpoint) by test accuracy."""
        if self.experiment.quirk("best_test_checkpoint"):
            logits = predict(trainer.network, self.test, experiment=self.experiment)
            value = float((logits.argmax(1) == self.test.labels).double().mean())
        elif self.experiment.early_stopping is not None:
            logits = predict(trainer.network, self.train, self.validation, self.experiment)
            target = self.train.labels[self.validation.to(self.device)]
            value = -float(torch.nn.functional.cross_entropy(logits, target))
        else:
            return
        if best["value"] is None or value > best["value"]:
            best.update(value=value, epoch=trainer.epoch, network=deepcopy(trainer.network.state_dict()))

    def _should_stop(self, best: dict[str, Any], epoch: int) -> bool:
        patience = self.experiment.early_stopping
        return patience is not None and best["value"] is not None and epoch - best["epoch"] >= patience

    # --- labels ---

    def _first_query(self) -> Tensor:
        """The first labelled set: the strategy's own, or drawn at random, each class equally often where asked for."""
        experiment = self.experiment
        if experiment.row.whole_pool:
            return self.available
        if experiment.first_labelled is not None:
            return first_labelled(experiment, self.available)
        count = min(experiment.initial, len(self.available))
        chosen = self.strategy.first_query(self.available, count)
        if chosen is not None:
            with self._of_the_strategy():
                check_images(chosen, "first_query", self.available, count)
            return chosen
        order = self.available[torch.randperm(len(self.available), generator=generator(experiment.seed, "first query"))]
        if experiment.initial_balanced:
            order = interleave_classes(order, self.labels, self.train.num_classes)
        return order[:count]

    def _unlabelled(self) -> Tensor:
        if self.state.left is not None:
            return self.state.left
        return self.available[~torch.isin(self.available, self.state.labelled)]

    def _query(self, cycle: int, network: Network | None, labelled: Tensor, temperature: float) -> None:
        """Ask the strategy what to buy after `cycle` (0: before there is a model), check its answer and buy it."""
        experiment = self.experiment
        unlabelled = self._unlabelled()
        candidates = self.strategy.candidates(unlabelled, cycle, generator(experiment.seed, "subset", cycle))
        with self._of_the_strategy():
            check_images(candidates, "candidates", unlabelled, repeats=self.state.left is not None)
        budget = min(experiment.quota, len(candidates))
        if not budget:  # only hsamp_fixed_quota can empty the pool early
            self._buy(candidates, candidates, Query(candidates, candidates.double()))
            return
        pool = ModelPool(
            experiment, network, self.train, candidates, labelled, cycle,
            lambda index: int(self.labels[index]), temperature,
        )  # fmt: skip
        with self._of_the_strategy():
            answer = self.strategy.query(pool, budget, generator(experiment.seed, "query", cycle))
            check_query(answer, candidates, budget)
        self._buy(answer.indices.cpu(), candidates, answer)

    @contextmanager
    def _of_the_strategy(self) -> Iterator[None]:
        """Within it, what is wrong is said to be the strategy's."""
        try:
            yield
        except ConfigError as error:
            raise ConfigError(f"the strategy '{self.experiment.row.strategy}': {error}") from None

    def _buy(self, indices: Tensor, candidates: Tensor | None, answer: Query | None) -> None:
        state = self.state
        if answer is not None and candidates is not None and answer.returned is not None:
            state.left = pool_after(self._unlabelled(), candidates, answer.returned.cpu())
        state.queries.append(indices.to(torch.int64))
        state.masses.append(answer.masses.double().cpu() if answer is not None and answer.masses is not None else None)
        if answer is not None and candidates is not None:
            state.utilities.append(answer.utilities.float().cpu())
            state.candidates.append(candidates.to(torch.int32))
        labelled, unlabelled = state.labelled, self._unlabelled()
        parts = torch.cat([torch.unique(labelled), unlabelled])
        partition = len(parts) == len(torch.unique(parts)) == len(self.available)
        if state.left is None and not partition:
            raise AssertionError("labelled set and pool are not a partition of the images")

    def _split_labelled(self) -> tuple[Tensor, Tensor | None]:
        """The labelled images to train on, and those held out to fit a temperature (None without one).

        Each query gives a part of itself, the same in every cycle after, so a held-out image is never trained on.
        """
        experiment = self.experiment
        if not experiment.row.calibrated or experiment.quirk("ts_fit_on_train"):
            return self.state.labelled, None
        train, held = [], []
        for number, query in enumerate(self.state.queries):
            order = torch.randperm(len(query), generator=generator(experiment.seed, "temperature", number))
            count = min(max(1, round(len(query) * experiment.ts_holdout)), len(query) - 1)  # one is left to train on
            held.append(query[order[:count].sort().values])
            train.append(query[order[count:].sort().values])
        return torch.cat(train), torch.cat(held)

    def _weights(self) -> Tensor | None:
        """The weights that remove the proposal's bias from the images drawn; 1 for the first labelled set."""
        experiment, drawn = self.experiment, [m for m in self.state.masses if m is not None]
        if experiment.row.objective != "weighted" or experiment.sbias_estimator == "none" or not drawn:
            return None
        from alkit.strategies import sbias

        first = len(self.state.queries[0])
        masses = torch.cat(drawn)
        pool_size = len(self.available) - first
        weigh = sbias.lure_weights if experiment.sbias_estimator == "lure" else sbias.pure_weights
        return torch.cat([torch.ones(first, dtype=torch.float64), weigh(masses, pool_size)])

    # --- the record ---

    def _report(self, what: str, cycle: int, epoch: int, **more: Any) -> None:
        """Tell the caller, and the folder, how far the run is."""
        status = {
            "state": what, "cycle": cycle, "cycles": self.experiment.cycle_count, "epoch": epoch,
            "epochs": self.experiment.epochs, "labelled": len(self.state.labelled), **more,
        }  # fmt: skip
        if self._progress is not None:
            self._progress(status)
        self.folder.report(status)

    def _note_code(self) -> None:
        """Record this version of the kit, with a warning if the run was begun with another."""
        if self.folder.path is None:
            return
        here, code = devices.git_commit() or f"alkit {__version__}", self.state.code
        if code and code[-1] != here:
            warnings.warn(
                f"{self.folder.path}: begun with another version of the kit ({code[-1]}) than this one ({here}); "
                "the record names both", stacklevel=2,
            )  # fmt: skip
        if here not in code[-1:]:
            code.append(here)

    def _checkpoint(self) -> None:
        self.folder.checkpoint(dict(vars(self.state)))

    def _finish(self) -> None:
        experiment = self.experiment
        result = {
            "schema": SCHEMA, "dataset": experiment.dataset, "method": experiment.method,
            "label": experiment.name, "seed": experiment.seed, "protocol": experiment.protocol,
            "params": experiment.model_dump(mode="json"), "quirks": experiment.quirk_states,
            "class_names": list(self.train.class_names), "pool_size": len(self.available),
            "test_size": len(self.test), "images": self.folder.images, "data": self.train.notes,
            "cycles": self.state.records,
            "environment": devices.environment(self.device, experiment.precision),
            "code": self.state.code, "started": self.state.started, "finished": _now(),
        }  # fmt: skip
        self.folder.finish(self.query_arrays(), self.prediction_arrays(), result)
        self._report("finished", experiment.cycle_count, experiment.epochs)

    def query_arrays(self) -> dict[str, np.ndarray]:
        """The arrays of `queries.npz`: `State.query_arrays`."""
        return self.state.query_arrays()

    def prediction_arrays(self) -> dict[str, np.ndarray]:
        """Test predictions a cycle, stacked (cycles, n); `labels` (n,); `logits_last` (n, C) of the last cycle."""
        return self.state.prediction_arrays() | {"labels": self.test.labels.cpu().to(torch.int16).numpy()}


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")


__all__ = ["ActiveLearner", "State"]
