"""What the labels would have said: the losses of a fully supervised model, to compare pretext losses with."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from alkit.config import Experiment
from alkit.data import load_for
from alkit.data.randomness import generator
from alkit.models import build_network
from alkit.training import devices
from alkit.training.loop import Trainer, predict, to_device


def supervised_losses(experiment: Experiment) -> npt.NDArray[np.float64]:
    """The cross-entropy (N,) of every pool image under a model trained, as the experiment says, on all their labels.

    The model has seen each of these images: the losses rank how hard they were to learn, and say nothing of new ones.
    """
    whole = Experiment(**(experiment.model_dump() | {
        "method": "whole_dataset", "label": None, "protocol": "corrected", "early_stopping": None,
        "quirks": {"imbalance_step": True} if experiment.quirk("imbalance_step") else {},  # it decides the images
        "validation_size": 0, "epoch_images": None,
    }))  # fmt: skip
    device = devices.choose_device(whole.device)
    train = load_for(whole)[0].to(device)
    with devices.deterministic():
        network = build_network(whole, train.shape, train.num_classes, generator(whole.seed, "weights", 1))
        to_device(network, device)
        trainer = Trainer(network, train, torch.arange(len(train)), whole, 1)
        while not trainer.finished:
            trainer.train_epoch()
        with trainer.trained():
            losses = F.cross_entropy(predict(network, train, None, whole), train.labels, reduction="none")
    return losses.double().cpu().numpy()
