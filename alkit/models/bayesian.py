"""Bayesian convolutional networks: MC dropout, consistent MC dropout, radial weights.

Two convolutions with pooling and one hidden layer, as in Farquhar, Gal & Rainforth (ICLR 2021). A sample of the
posterior is fixed with `posterior_sample`:

    with posterior_sample(model.eval(), generator):
        logits = predict(model, pool)
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from alkit.errors import ConfigError
from alkit.models.dropout import ConsistentDropout, Dropout, Stochastic, set_generator
from alkit.models.dropout import sampling as posterior_sample

if TYPE_CHECKING:
    from alkit.config import Experiment

__all__ = [
    "BayesianCNN",
    "RadialConv2d",
    "RadialLinear",
    "build",
    "consistent_dropout_cnn",
    "elbo",
    "kl_divergence",
    "mc_dropout_cnn",
    "posterior_sample",
    "radial_cnn",
    "set_generator",
]

PRIOR_DEVIATION = 0.25


class _Radial(Stochastic):
    """Weights μ + σ·ε with σ = softplus(ρ), ε = r·direction: r ~ N(0, 1), direction uniform on the sphere.

    One draw for all weights and biases of the layer (Farquhar, Osborne & Gal, AISTATS 2020): in training at each
    forward pass, while `sampling` once, and none in evaluation, where the weights are μ.
    """

    def __init__(self, shape: tuple[int, ...], rho: float = -4.0) -> None:
        super().__init__()
        self.mu = nn.Parameter(torch.empty(shape))
        self.bias_mu = nn.Parameter(torch.zeros(shape[0]))
        self.rho = nn.Parameter(torch.full(shape, rho))
        self.bias_rho = nn.Parameter(torch.full(shape[:1], rho))
        nn.init.kaiming_uniform_(self.mu, nonlinearity="relu")
        self._drawn: tuple[Tensor, Tensor] | None = None

    @property
    def dimension(self) -> int:
        """Weights and biases of the layer."""
        return self.mu.numel() + self.bias_mu.numel()

    def reset(self) -> None:
        self._drawn = None

    def weights(self) -> tuple[Tensor, Tensor]:
        """The weight and bias to use now."""
        if not self.drawing:
            return self.mu, self.bias_mu
        if self.training:
            return self._draw()
        if self._drawn is None:
            self._drawn = self._draw()
        return self._drawn

    def _draw(self) -> tuple[Tensor, Tensor]:
        noise = torch.randn(self.dimension + 1, generator=self.source(), device=self.mu.device)
        epsilon = noise[-1] * F.normalize(noise[:-1], dim=0)
        weight_noise, bias_noise = epsilon.split([self.mu.numel(), self.bias_mu.numel()])
        weight = self.mu + F.softplus(self.rho) * weight_noise.view(self.mu.shape)
        return weight, self.bias_mu + F.softplus(self.bias_rho) * bias_noise

    def kl(self, prior: float = PRIOR_DEVIATION) -> Tensor:
        """KL from N(0, prior²) in nats, up to a constant: −Σ log σ + Σ (μ² + σ²/d)/(2·prior²) + d·log prior.

        The second term is exact, for the mean of ε² is 1/d in each of the layer's d dimensions.
        """
        mu = torch.cat([self.mu.flatten(), self.bias_mu])
        sigma = F.softplus(torch.cat([self.rho.flatten(), self.bias_rho]))
        size = self.dimension
        cross = (mu.square() + sigma.square() / size).sum() / (2 * prior**2)
        return cross - sigma.log().sum() + size * math.log(prior)


class RadialLinear(_Radial):
    """A linear layer with radial weights."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__((outputs, inputs))

    def forward(self, x: Tensor) -> Tensor:
        return F.linear(x, *self.weights())


class RadialConv2d(_Radial):
    """A convolution of odd kernel `size` with radial weights; the map keeps its size."""

    def __init__(self, inputs: int, outputs: int, size: int) -> None:
        super().__init__((outputs, inputs, size, size))

    def forward(self, x: Tensor) -> Tensor:
        return F.conv2d(x, *self.weights(), padding=self.mu.shape[-1] // 2)


class BayesianCNN(nn.Module):
    """Two 5×5 convolutions of `width` and 2·`width` channels, each halved by max-pooling, a hidden layer of 8·`width`
    and a linear layer: 16, 32 and 128 in the released program. Images (B, C, H, W) of at least 8×8 to logits
    (B, num_classes).

    `noise` makes the dropout after each hidden layer; `radial` has radial weights instead.
    """

    bayesian = True

    def __init__(
        self,
        num_classes: int,
        image_shape: tuple[int, int, int],
        width: int = 16,
        noise: Callable[[], nn.Module] = nn.Identity,
        radial: bool = False,
    ) -> None:
        super().__init__()
        channels, height, wide = image_shape
        if min(height, wide) < 8:
            raise ValueError(f"image_shape: expected at least 8×8 pixels, not {height}×{wide}")
        self.stage_channels = [width, 2 * width]
        self.feature_dim = 8 * width
        flat = 2 * width * (height // 4) * (wide // 4)
        if radial:
            self.conv1: nn.Module = RadialConv2d(channels, width, 5)
            self.conv2: nn.Module = RadialConv2d(width, 2 * width, 5)
            self.hidden: nn.Module = RadialLinear(flat, self.feature_dim)
            self.linear: nn.Module = RadialLinear(self.feature_dim, num_classes)
        else:
            self.conv1 = nn.Conv2d(channels, width, 5, padding=2)
            self.conv2 = nn.Conv2d(width, 2 * width, 5, padding=2)
            self.hidden = nn.Linear(flat, self.feature_dim)
            self.linear = nn.Linear(self.feature_dim, num_classes)
        self.noise1, self.noise2, self.noise3 = noise(), noise(), noise()

    def _block(self, x: Tensor, number: int) -> Tensor:
        convolution, noise = (self.conv1, self.noise1) if number == 1 else (self.conv2, self.noise2)
        return F.max_pool2d(F.relu(noise(convolution(x))), 2)

    def lower(self, x: Tensor, layer: int) -> Tensor:
        """Convolutions 1..`layer` (0, 1 or 2); the images themselves for 0."""
        if layer not in (0, 1, 2):
            raise ValueError(f"layer: expected 0, 1 or 2, not {layer}")
        for number in range(1, layer + 1):
            x = self._block(x, number)
        return x

    def embed(self, x: Tensor) -> Tensor:
        """Penultimate features (B, D)."""
        return F.relu(self.hidden(self.lower(x, 2).flatten(1)))

    def classify(self, features: Tensor) -> Tensor:
        """Penultimate features (B, D) to logits (B, num_classes)."""
        logits: Tensor = self.linear(self.noise3(features))
        return logits

    def upper(self, h: Tensor, layer: int) -> Tensor:
        """From the output of `lower(x, layer)` to logits (B, num_classes)."""
        for number in range(layer + 1, 3):
            h = self._block(h, number)
        return self.classify(F.relu(self.hidden(h.flatten(1))))

    def forward(self, x: Tensor) -> Tensor:
        return self.upper(x, 0)


def mc_dropout_cnn(
    num_classes: int, image_shape: tuple[int, int, int], width: int = 16, dropout: float = 0.5
) -> BayesianCNN:
    """MC dropout (Gal & Ghahramani, ICML 2016): while sampling every image has masks of its own."""
    return BayesianCNN(num_classes, image_shape, width, lambda: Dropout(dropout))


def consistent_dropout_cnn(
    num_classes: int, image_shape: tuple[int, int, int], width: int = 16, dropout: float = 0.5
) -> BayesianCNN:
    """Consistent MC dropout: a posterior sample is one mask a layer, the same for the whole pool."""
    return BayesianCNN(num_classes, image_shape, width, lambda: ConsistentDropout(dropout))


def radial_cnn(num_classes: int, image_shape: tuple[int, int, int], width: int = 16) -> BayesianCNN:
    """A radial Bayesian network (Farquhar, Osborne & Gal, AISTATS 2020), to be trained on its `elbo`."""
    return BayesianCNN(num_classes, image_shape, width, radial=True)


def kl_divergence(model: nn.Module, prior: float = PRIOR_DEVIATION) -> Tensor:
    """The KL of all radial layers from N(0, prior²), up to a constant; 0 for a model without any."""
    terms = [module.kl(prior) for module in model.modules() if isinstance(module, _Radial)]
    return torch.stack(terms).sum() if terms else torch.zeros(())


def elbo(
    model: nn.Module,
    images: Tensor,
    labels: Tensor,
    weights: Tensor,
    samples: int,
    generator: torch.Generator | None,
    dataset_size: int,
    mean_reduced: bool = False,
) -> Tensor:
    """The negative evidence lower bound an image: weighted cross-entropy, mean of `samples` passes, + KL/dataset_size.

    Images (B, C, H, W), labels (B,), weights (B,). `generator` (on the model's device; None: the one that was set)
    draws the weights of each pass. `mean_reduced` is the quirk `mean_reduced_weights`.
    """
    if generator is not None:
        set_generator(model, generator)
    passes = [F.cross_entropy(model(images).float(), labels, reduction="none") for _ in range(samples)]
    losses = torch.stack(passes).mean(0)
    expected = weights.mean() * losses.mean() if mean_reduced else (weights * losses).mean()
    return expected + kl_divergence(model) / dataset_size


def check(experiment: Experiment, image_shape: tuple[int, int, int]) -> None:
    """Raise `ConfigError` where the method needs what a Bayesian network has not, or the images are too small."""
    name = experiment.model
    if experiment.row.objective == "loss_prediction" or experiment.quirk("ranking_loss_for_all"):
        raise ConfigError(f"model: '{name}' has no stages for a loss module; expected resnet10 or resnet18")
    if experiment.row.objective == "cmam" and experiment.cmam_layer > 2:
        raise ConfigError(f"cmam_layer: '{name}' has 2 layers to fuse after, not {experiment.cmam_layer}")
    if min(image_shape[1:]) < 8:
        size = "×".join(map(str, image_shape[1:]))
        raise ConfigError(f"model: '{name}' needs images of at least 8×8 pixels, not {size}")
    if experiment.row.calibrated:
        raise ConfigError(
            f"model: '{name}' has no one temperature for its samples; '{experiment.method}' needs another"
        )
    if name == "radial_cnn" and experiment.row.objective not in ("cross_entropy", "weighted"):
        raise ConfigError(f"model: '{name}' trains on its ELBO, which method '{experiment.method}' does not have")


def build(experiment: Experiment, image_shape: tuple[int, int, int], num_classes: int) -> BayesianCNN:
    """The experiment's Bayesian network; `ConfigError` as `check` raises it."""
    check(experiment, image_shape)
    name = experiment.model
    if name == "radial_cnn":
        return radial_cnn(num_classes, image_shape, experiment.width)
    makers: dict[str, Any] = {"mc_dropout_cnn": mc_dropout_cnn, "consistent_dropout_cnn": consistent_dropout_cnn}
    dropout = 0.5 if experiment.dropout is None else experiment.dropout
    model: BayesianCNN = makers[name](num_classes, image_shape, experiment.width, dropout)
    return model
