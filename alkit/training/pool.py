"""ModelPool: the pool as the trained network sees it, each view computed when a strategy asks for it."""

from __future__ import annotations

from collections.abc import Callable
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from alkit.config import Experiment
from alkit.data import ImageSet
from alkit.data.randomness import generator
from alkit.models import Network, ResNet
from alkit.models.divergence import require_finite
from alkit.models.head import Head
from alkit.strategies.base import Pool
from alkit.training.loop import forward_all, predict


class ModelPool(Pool):
    """Candidates and labelled images of `data` under `network`; `temperature` divides the logits.

    Before there is a model, `network` is None: only fixed features can be seen.
    """

    def __init__(
        self,
        experiment: Experiment,
        network: Network | None,
        data: ImageSet,
        candidates: Tensor,
        labelled: Tensor,
        cycle: int,
        reveal: Callable[[int], int],
        temperature: float = 1.0,
    ) -> None:
        self.experiment, self._network, self.data = experiment, network, data
        self.candidates, self.labelled, self.cycle = candidates, labelled, cycle
        self.labels = data.labels.cpu()[labelled]
        self.num_classes = data.num_classes
        self.temperature = temperature
        self._reveal = reveal

    @property
    def network(self) -> Network:
        if self._network is None:
            raise AssertionError("there is no model yet: a strategy that starts empty sees fixed features only")
        return self._network

    @property
    def images(self) -> ImageSet:
        return self.data

    def reveal(self, index: int) -> int:
        return self._reveal(index)

    @cached_property
    def _views(self) -> tuple[Tensor, Tensor]:
        """Logits and penultimate features of the candidates, from one pass."""
        backbone: Any = self.network.backbone.eval()

        def both(images: Tensor) -> tuple[Tensor, Tensor]:
            embedded = backbone.embed(images)
            return backbone.linear(embedded), embedded

        logits, embedded = forward_all(both, self.data, self.candidates, self.experiment)
        return logits / self.temperature, embedded

    @property
    def logits(self) -> Tensor:
        return self._views[0]

    @property
    def model_features(self) -> Tensor:
        return self._views[1]

    @cached_property
    def labelled_model_features(self) -> Tensor:
        backbone: Any = self.network.backbone.eval()
        return forward_all(lambda images: (backbone.embed(images),), self.data, self.labelled, self.experiment)[0]

    def classify(self, model_features: Tensor) -> Tensor:
        backbone: Any = self.network.backbone.eval()
        logits: Tensor = backbone.linear(model_features.to(next(backbone.linear.parameters()).dtype)).float()
        return logits / self.temperature

    @property
    def labelled_logits(self) -> Tensor:
        with torch.no_grad():
            return self.classify(self.labelled_model_features)

    @property
    def features(self) -> Tensor:
        return self.model_features if (fixed := self._fixed(self.candidates)) is None else fixed

    @property
    def labelled_features(self) -> Tensor:
        return self.labelled_model_features if (fixed := self._fixed(self.labelled)) is None else fixed

    def _fixed(self, indices: Tensor) -> Tensor | None:
        """The fixed features of some images, where strategies see those."""
        if not self.experiment.selects_on_features:
            return None
        assert self.data.features is not None
        return self.data.features.index_select(0, indices.to(self.data.features.device))

    def _losses(self, indices: Tensor) -> Tensor:
        backbone, module = self.network.backbone, self.network.loss_module
        assert module is not None, "the method's objective trains no loss module"
        self.network.eval()

        def predicted(images: Tensor) -> tuple[Tensor]:
            stages = backbone.stages(images)[2]  # type: ignore[operator]
            with torch.autocast(images.device.type, enabled=False):  # of bfloat16 most tie, and rank by position
                return (module([stage.float() for stage in stages]),)

        return forward_all(predicted, self.data, indices, self.experiment)[0]

    @cached_property
    def predicted_loss(self) -> Tensor:
        return self._losses(self.candidates)

    @cached_property
    def labelled_predicted_loss(self) -> Tensor:
        return self._losses(self.labelled)

    @cached_property
    def log_probs(self) -> Tensor:
        source = generator(self.experiment.seed, "posterior", self.cycle, device=self.data.device)
        return posterior_log_probs(self.network.backbone, self.data, self.candidates, self.experiment, source)


MASKED = 256
"""Images a forward pass where each has a mask of its own, which no size of a batch and no memory must decide."""


def posterior_log_probs(
    backbone: Any, data: ImageSet, indices: Tensor | None, experiment: Experiment, source: torch.Generator
) -> Tensor:
    """Log-probabilities (S, n, C) under `posterior_samples` samples of the model's posterior."""
    from alkit.models.dropout import masks_each_image, sampling

    count = experiment.posterior_samples
    batch = MASKED if masks_each_image(backbone) else None
    backbone.eval()
    head_only = isinstance(backbone, (ResNet, Head))
    if head_only:  # only its last layer is random: the features are computed once
        embedded = forward_all(lambda images: (backbone.embed(images),), data, indices, experiment)[0]

    def sample() -> Tensor:
        with sampling(backbone, source), torch.no_grad():
            if head_only:
                return backbone.classify(embedded).float()  # type: ignore[no-any-return]
            return predict(backbone, data, indices, experiment, batch)

    first = sample().log_softmax(1)
    result = torch.empty(count, *first.shape, device=first.device)
    result[0] = first
    for number in range(1, count):
        result[number] = sample().log_softmax(1)
    return require_finite(result, "an output of the model")
