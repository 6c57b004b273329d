"""Wherever a number of a training stops being one, one line names the cycle, the epoch, the rate and its parameter."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import TINY

from alkit import ActiveLearner, Experiment
from alkit.data import load_for
from alkit.errors import DivergedError, TrainingError
from alkit.methods import METHODS
from alkit.models.divergence import finite_outputs, of_training, require_finite
from alkit.training import evaluate
from alkit.training.loop import predict
from alkit.training.pretext.run import with_pretext
from alkit.training.pretext.supervised import supervised_losses

SMALL = {**TINY, "pool_size": 100, "device": "cpu", "threads": 1, "gcn_steps": 3, "vae_epochs": 1, "vae_width": 8}
LATE = {"epochs": 1, "lr": 1e4}  # every loss of the only epoch is a number; what the model then gives is none


def refused(tmp_path: Path, **parameters: Any) -> str:
    if "features" in parameters:
        parameters["features"] = rows(tmp_path, parameters.pop("size", 1.0))
    experiment = Experiment(**{**SMALL, **parameters})
    with pytest.raises(TrainingError) as error:
        list(ActiveLearner(with_pretext(experiment, tmp_path), tmp_path / "run"))
    assert not (tmp_path / "run" / "result.json").exists()
    return str(error.value)


def rows(folder: Path, size: float) -> str:
    """A file of features of digits, of numbers of this size."""
    source = np.random.default_rng(0)
    for name, images in zip(("train", "test"), load_for(Experiment()), strict=True):
        np.save(folder / f"x_{name}.npy", source.normal(size=(len(images), 4)).astype(np.float32) * np.float32(size))
    return str(folder / "x_train.npy")


@pytest.mark.parametrize("method", [m for m, row in METHODS.items() if "pretext" not in row.needs])
def test_a_rate_too_high_is_named_by_every_method(method: str, tmp_path: Path) -> None:
    assert refused(tmp_path, method=method, lr=1e30, milestones=[]).endswith(
        " (learning rate 1e+30); a lower lr may help"
    )


@pytest.mark.parametrize(
    ("parameters", "line"),
    [
        # the model
        ({"lr": 1e30}, "the loss is not a number in cycle 1, epoch 1, batch 2 (learning rate 1e+30); a lower lr"),
        ({"lr": 1e30, "optimizer": "adam"}, "the loss is not a number in cycle 1, epoch 1, batch 2 (learning rate"),
        (LATE, "an output of the model is not a number in cycle 1, after epoch 1 (learning rate 10000); a lower lr"),
        ({**LATE, "method": "temperature_scaling"}, "an output of the model is not a number in cycle "),
        ({**LATE, "method": "temperature_scaling", "protocol": "released"},
         "an output of the model is not a number in cycle 1, after epoch 1 (learning rate 10000)"),
        ({**LATE, "epochs": 2, "validation_size": 20, "early_stopping": 1},
         "an output of the model is not a number in cycle 1, after epoch 1 (learning rate 10000)"),
        ({**LATE, "method": "bald", "model": "mc_dropout_cnn"}, "an output of the model is not a number in cycle 1"),
        ({**LATE, "method": "sbias", "model": "radial_cnn"}, "an output of the model is not a number in cycle 1"),
        ({"method": "ll4al", "ll_weight": 1e38, "lr": 10.0}, "the loss is not a number in cycle 1, epoch "),
        ({"weight_decay": 1e30}, "the loss is not a number in cycle 1, epoch 1, batch 2 (learning rate 0.05)"),
        # heads on features
        ({"features": "", "model": "linear", "lr": 1e38}, "in cycle 1, "),
        ({"features": "", "model": "mlp", "lr": 1e30}, "the loss is not a number in cycle 1, epoch 1, batch 2"),
        ({"features": "", "model": "linear", "size": 1e30},
         "the loss is not a number in cycle 1, epoch 1, batch 2 (learning rate 0.05); a lower lr, or smaller numbers "
         "as features, may help"),
        # what is trained beside the model
        ({"method": "vaal", "vae_lr": 1e30}, "the loss of the autoencoder and its discriminator is not a number in "
         "cycle 1, step 1 (learning rate 1e+30); a lower vae_lr may help"),
        ({"method": "ta_vaal", "vae_lr": 100.0}, "the loss of the autoencoder and its discriminator is not a number in "
         "cycle 1, step "),
        ({"method": "uncertain_gcn", "gcn_lr": 1e30}, "an output of the graph network is not a number in cycle 1, "
         "after step 3 (learning rate 1e+30); a lower gcn_lr may help"),
        ({"method": "core_gcn", "gcn_lr": 1e30}, "an output of the graph network is not a number in cycle 1"),
        ({"method": "pt4al", "pretext_lr": 1e30, "pretext_epochs": 1, "pretext_batch_size": 20},
         "the loss of the pretext task is not a number in epoch 1, batch 2 (learning rate 1e+30); a lower pretext_lr"),
        ({"method": "pt4al", "pretext_lr": 1e4, "pretext_epochs": 1},
         "the pretext task's loss of an image is not a number after epoch 1 (learning rate 10000); a lower pretext_lr"),
        ({"method": "pt4al", "pretext": "simsiam", "pretext_lr": 1e30, "pretext_epochs": 1},
         "the pretext task's loss of an image is not a number after epoch 1 (learning rate 1e+30); a lower pretext_lr"),
    ],
    ids=str,
)  # fmt: skip
def test_every_place_says_where_and_what(parameters: dict[str, Any], line: str, tmp_path: Path) -> None:
    assert line in refused(tmp_path, **{"milestones": [], **parameters})


def test_the_second_cycle_and_a_rate_that_has_fallen_are_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    passes = []

    def broken(*given: Any) -> Any:
        passes.append(given)
        raise DivergedError("an output of the model is not a number")

    real = evaluate.evaluate_cycle
    monkeypatch.setattr("alkit.learner.evaluate_cycle", lambda *given: broken(given) if given[3] == 2 else real(*given))
    assert "in cycle 2, after epoch 2 (learning rate 0.005); a lower lr may help" in refused(tmp_path)
    assert len(passes) == 1


def test_a_temperature_that_is_no_number_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("alkit.calibration.fit_temperature", lambda *_: float("nan"))
    said = refused(tmp_path, method="temperature_scaling")
    assert said.startswith(
        "the temperature is not a number in cycle 1, after epoch 2 (learning rate 0.005); a lower lr"
    )


def test_the_comparison_with_all_labels_says_it_too() -> None:
    with pytest.raises(TrainingError, match=r"in cycle 1, after epoch 1 \(learning rate 10000\); a lower lr may help"):
        supervised_losses(Experiment(**{**SMALL, "method": "pt4al", "pool_size": 16, "milestones": [], **LATE}))


def test_outputs_that_are_no_numbers_are_refused_wherever_a_model_is_asked() -> None:
    data = load_for(Experiment())[1]
    with pytest.raises(TrainingError, match=r"^an output of the model is not a number$"):
        predict(lambda_module(lambda x: x.flatten(1)[:, :2] / 0), data)


def lambda_module(function: Any) -> torch.nn.Module:
    module = torch.nn.Module()
    module.forward = function
    return module


def test_one_read_tells_and_the_first_one_is_named() -> None:
    values = torch.tensor([1.0, torch.inf, torch.nan])
    assert require_finite(values[:1], "x") is not None
    for given, place in ((values, "batch 2"), (values[2:], "batch 1")):
        with pytest.raises(DivergedError) as error:
            require_finite(given, "x", "batch")
        assert error.value.place == place
    assert finite_outputs([]) == []
    with pytest.raises(DivergedError, match="an output of the model"):
        finite_outputs([values[:1], values])
    with (
        pytest.raises(
            TrainingError, match=r"^x is not a number in cycle 3, epoch 2, batch 2 \(learning rate 0.1\); a lo"
        ),
        of_training("lr", 0.1, cycle=3, place="epoch 2"),
    ):
        require_finite(values, "x", "batch")
