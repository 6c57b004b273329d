"""Statistical bias in the cycle: what an epoch is, and which of a cycle's two models asks and which is reported."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from alkit import ActiveLearner, Experiment
from alkit.data import load_for
from alkit.data.randomness import generator
from alkit.errors import ConfigError
from alkit.models import build_network
from alkit.training.loop import Trainer

Make = Callable[..., Experiment]


def trainer_of(experiment: Experiment, labelled: int) -> Trainer:
    train = load_for(experiment)[0]
    network = build_network(experiment, train.shape, train.num_classes, generator(0, "weights", 1))
    return Trainer(network, train, 5 * torch.arange(labelled), experiment, 1)


@pytest.mark.parametrize("labelled", [10, 30])
def test_an_epoch_of_1000_draws_is_a_permutation_of_1000_modulo_the_labelled_images(tiny: Make, labelled: int) -> None:
    trainer = trainer_of(tiny(method="sbias", epoch_images=1000, batch_size=64), labelled)
    draws = trainer._draw()
    assert [len(batch) for batch in draws.batches("images")] == 15 * [64] + [40]  # 16 steps, however few the labels
    expected = torch.bincount(5 * (torch.arange(1000) % labelled))
    assert torch.equal(torch.bincount(draws.each["images"]), expected)
    assert not torch.equal(draws.each["images"], 5 * (torch.arange(1000) % labelled))


def test_without_it_an_epoch_has_each_labelled_image_once(tiny: Make) -> None:
    images = trainer_of(tiny(method="sbias"), 30)._draw().each["images"]
    assert sorted(images.tolist()) == [5 * i for i in range(30)]


def test_an_epoch_that_cannot_hold_the_labels_is_refused(tiny: Make) -> None:
    tiny(epoch_images=30).check_pool(200, 10)  # 20 labels, then 30
    with pytest.raises(ConfigError, match=r"epoch_images: 29 draws .* 30 labelled images; expected at least 30"):
        tiny(epoch_images=29).check_pool(200, 10)
    with pytest.raises(ConfigError, match=r"epoch_images: 150 draws .* 200"):
        tiny(method="whole_dataset", epoch_images=150).check_pool(200, 10)
    with pytest.raises(ConfigError, match="epoch_images"):
        tiny(epoch_images=0)
    with pytest.raises(ConfigError, match=r"epoch_images: 100 draws .* 200 labelled images"):  # 1,000 a query, or all
        tiny(method="hierarchical", quirks={"hsamp_fixed_quota": True}, epoch_images=100).check_pool(200, 10)


SETTINGS: dict[str, Any] = {
    "method": "sbias", "model": "mc_dropout_cnn", "optimizer": "adam", "lr": 0.003, "cycles": 3, "budget": 10,
    "sbias_proposal": "softmax", "sbias_temperature": 500.0, "epoch_images": 100,
}  # fmt: skip


def arrays(experiment: Experiment) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    learner = ActiveLearner(experiment)
    list(learner)
    return learner.query_arrays(), learner.prediction_arrays()


@pytest.mark.parametrize("more", [{}, {"quirks": {"warm_start": True}}, {"early_stopping": 1, "validation_size": 20}])
def test_the_model_that_asks_is_trained_without_weights_and_another_with_them_is_reported(
    tiny: Make, more: dict[str, Any]
) -> None:
    """With `none` there is one model, trained without weights: whatever the estimator, it must ask the same."""
    plain, plain_predictions = arrays(tiny(**SETTINGS | more, sbias_estimator="none"))
    for estimator in ("lure", "pure"):
        queries, predictions = arrays(tiny(**SETTINGS | more, sbias_estimator=estimator))
        assert queries.keys() == plain.keys()
        assert all(np.array_equal(queries[name], plain[name]) for name in plain)
        same = [
            np.array_equal(one, other)
            for one, other in zip(predictions["confidence"], plain_predictions["confidence"], strict=True)
        ]
        assert same == [True, False, False], "the first labels have no weights; from then on the weighted is reported"


class Killed(Exception):  # noqa: N818
    """Stands for a kill: raised from within the progress report."""


def test_a_run_goes_on_from_either_of_its_two_models(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(**SETTINGS | {"checkpoint_seconds": 0.0, "quirks": {"warm_start": True}})
    reports: list[dict[str, Any]] = []
    list(ActiveLearner(experiment, tmp_path / "whole", progress=reports.append))
    trained = [(status["cycle"], status["epoch"]) for status in reports if status["state"] == "training"]
    assert trained == [(1, 1), (1, 2), (2, 1), (2, 2), (2, 1), (2, 2), (3, 1), (3, 2)]  # the last cycle asks nothing
    for moment in range(len(reports)):

        def kill(_: dict[str, Any], left: Any = iter(range(moment))) -> None:  # noqa: B008
            if next(left, None) is None:
                raise Killed

        folder = tmp_path / str(moment)
        with pytest.raises(Killed):
            list(ActiveLearner(experiment, folder, progress=kill))
        list(ActiveLearner(experiment, folder))
        for name in ("queries.npz", "predictions.npz"):
            assert (folder / name).read_bytes() == (tmp_path / "whole" / name).read_bytes(), (moment, name)
