"""What a cycle's record says of its model: accuracy and calibration on the test images."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from alkit import calibration
from alkit.config import Experiment
from alkit.data import ImageSet, augment
from alkit.data.randomness import generator
from alkit.models import Network
from alkit.models.divergence import require_finite
from alkit.training.loop import predict
from alkit.training.pool import posterior_log_probs


def fit_run_temperature(
    experiment: Experiment, network: Network, train: ImageSet, bought: Tensor, held_out: Tensor | None, cycle: int
) -> float:
    """The temperature of a calibrated method, else 1.

    Fitted on the held-out labelled images, or (quirk `ts_fit_on_train`) on the augmented training images, briefly.
    """
    if not experiment.row.calibrated:
        return 1.0
    if held_out is not None:
        indices, data = held_out, train
    else:
        kind = train.augmentation if experiment.augmentation == "auto" else experiment.augmentation
        indices, data = torch.arange(len(bought)), augmented(train, bought, kind, experiment.seed, cycle)
    logits = predict(network, data, indices, experiment)
    fit = calibration.fit_temperature if held_out is not None else calibration.fit_temperature_briefly
    temperature = fit(logits.cpu(), data.labels.cpu()[indices])
    require_finite(torch.tensor(temperature), "the temperature")
    return temperature


def augmented(train: ImageSet, indices: Tensor, kind: str, seed: int, cycle: int) -> ImageSet:
    """The images `indices` once more, each augmented once."""
    from dataclasses import replace

    from alkit.data.imageset import TensorPixels

    draws = augment.draw(kind, len(indices), generator(seed, "augmented", cycle))
    chosen = indices.to(train.device)
    (images,) = train.stream([chosen], kind, None if draws is None else [draws.to(train.device)])
    return replace(train, pixels=TensorPixels(images), labels=train.labels[chosen])


def halved(logits: Tensor) -> Tensor:
    """Logits (n, C) less the largest of their row, in float16: so they are finite, and exact where they matter."""
    return (logits - logits.amax(1, keepdim=True)).clamp(min=torch.finfo(torch.float16).min).half()


def evaluate_cycle(
    experiment: Experiment, network: Network, test: ImageSet, cycle: int, temperature: float
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The cycle's measures, and its predictions on the n test images in small types.

    Under the quirk `ts_fit_on_train` they are those of the model without its temperature, as published; ECE and OE with
    it stand beside them as `ece_with_temperature` and `oe_with_temperature`.
    """
    apart = experiment.quirk("ts_fit_on_train")
    if getattr(network.backbone, "bayesian", False):
        source = generator(experiment.seed, "test posterior", cycle, device=test.device)
        samples = posterior_log_probs(network.backbone, test, None, experiment, source)
        logits = torch.logsumexp(samples, 0) - math.log(len(samples))
    else:
        logits = predict(network, test, experiment=experiment) / (1.0 if apart else temperature)
    logits, labels = logits.double().cpu(), test.labels.cpu()
    probabilities = logits.softmax(1)
    confidence, predicted = probabilities.max(1)
    correct = predicted == labels
    binned = experiment.ece_bins, experiment.quirk("ece_drops_full_confidence")
    errors = calibration.calibration_errors(confidence, correct, *binned)
    measures = {
        "accuracy": float(correct.double().mean()),
        "nll": calibration.nll(logits, labels),
        "brier": calibration.brier(logits, labels),
        "ece": errors.ece,
        "gap": errors.gap,
        "oe": errors.oe,
        "ace": errors.ace,
        "bins": experiment.ece_bins,
    }
    if apart:
        scaled = calibration.calibration_errors((logits / temperature).softmax(1).amax(1), correct, *binned)
        measures |= {"ece_with_temperature": scaled.ece, "oe_with_temperature": scaled.oe}
    predictions = {
        "confidence": confidence.float(),
        "correct": correct,
        "predicted": predicted.to(torch.int16),
        "log_prob_true": logits.log_softmax(1).gather(1, labels[:, None])[:, 0].float(),
        "logits_last": halved(logits),
    }
    return measures, predictions
