"""Networks with a posterior: what a sample fixes, where the randomness comes from, and the radial ELBO."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from alkit import Experiment
from alkit.errors import ConfigError
from alkit.models import build_network
from alkit.models.bayesian import (
    RadialConv2d,
    RadialLinear,
    build,
    consistent_dropout_cnn,
    elbo,
    kl_divergence,
    mc_dropout_cnn,
    posterior_sample,
    radial_cnn,
    set_generator,
)
from alkit.models.dropout import ConsistentDropout, Dropout, masks_each_image
from alkit.models.resnet import resnet10
from alkit.objectives import OBJECTIVES, Batch

MAKERS = [mc_dropout_cnn, consistent_dropout_cnn, radial_cnn]
every = pytest.mark.parametrize("make", MAKERS, ids=lambda make: make.__name__)


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def images_of(count=6, shape=(1, 8, 8), seed=0):
    return torch.randn(count, *shape, generator=source(seed))


def noisy(make, classes=3, shape=(1, 8, 8)):
    """A small model; a radial one with enough deviation to be seen."""
    model = make(classes, shape, width=4)
    for name, parameter in model.named_parameters():
        if name.endswith("rho"):
            torch.nn.init.constant_(parameter, 2.0)
    return model


# --- dropout ---------------------------------------------------------------------------------------------------------


def test_dropout_keeps_a_share_of_1_minus_p_and_scales_it():
    layer = Dropout(0.3)
    set_generator(layer, source())
    out = layer(torch.ones(20_000))
    assert out.unique().tolist() == pytest.approx([0.0, 1 / 0.7])
    assert float((out > 0).float().mean()) == pytest.approx(0.7, abs=0.015)


def test_dropout_is_active_in_training_and_while_sampling_only():
    layer, x = Dropout(0.5), torch.ones(64)
    set_generator(layer, source())
    assert not torch.equal(layer(x), x)
    layer.eval()
    assert torch.equal(layer(x), x)
    with posterior_sample(layer, source()):
        assert not torch.equal(layer(x), x)
    assert torch.equal(layer(x), x)


def test_dropout_without_a_generator_says_what_to_call():
    with pytest.raises(RuntimeError, match="set_generator"):
        Dropout(0.5)(torch.ones(3))
    assert torch.equal(Dropout(0.0)(torch.ones(3)), torch.ones(3))  # nothing to draw


@pytest.mark.parametrize("p", [-0.1, 1.0])
def test_an_impossible_probability_is_refused(p):
    with pytest.raises(ValueError, match="probability"):
        Dropout(p)


def test_a_model_can_be_copied_while_it_holds_a_generator():
    layer = Dropout(0.5)
    set_generator(layer, source())
    assert copy.deepcopy(layer).generator is None
    assert layer.generator is not None


def test_the_residual_network_takes_the_same_samples():
    model = resnet10(3, in_channels=1, width=2, dropout=0.5).eval()
    x = images_of()
    with posterior_sample(model, source(1)):
        first = model(x)
    with posterior_sample(model, source(1)):
        again = model(x)
    with posterior_sample(model, source(2)):
        other = model(x)
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


# --- the interface ---------------------------------------------------------------------------------------------------


@every
@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 9, 30), (1, 28, 28), (3, 32, 32)])
@pytest.mark.parametrize("classes", [1, 2, 10])
def test_logits_and_features_for_any_image_size(make, shape, classes):
    model = make(classes, shape, width=4).eval()
    x = images_of(2, shape)
    assert model(x).shape == (2, classes)
    assert model.embed(x).shape == (2, model.feature_dim)
    assert torch.allclose(model.linear(model.embed(x)), model(x))
    for layer in (0, 1, 2):
        assert torch.allclose(model.upper(model.lower(x, layer), layer), model(x))
        if layer:
            assert model.lower(x, layer).shape[1] == model.stage_channels[layer - 1]


def test_the_released_programs_size_is_16_32_and_128_by_default():
    model = mc_dropout_cnn(10, (1, 28, 28))
    assert model.conv1.weight.shape == (16, 1, 5, 5)
    assert model.conv2.weight.shape == (32, 16, 5, 5)
    assert model.hidden.weight.shape == (128, 32 * 7 * 7)
    assert build(Experiment(method="sbias", model="radial_cnn"), (1, 28, 28), 10).feature_dim == 128


@pytest.mark.parametrize("make", MAKERS)
def test_images_that_are_too_small_are_refused(make):
    with pytest.raises(ValueError, match="8×8"):
        make(2, (1, 7, 8))


# --- samples of the posterior ----------------------------------------------------------------------------------------


@every
def test_a_sample_is_a_function_of_its_generator_and_not_of_global_randomness(make):
    model, x, outputs = noisy(make).eval(), images_of(), []
    for seed in (1, 1, 2):
        torch.manual_seed(len(outputs))
        with posterior_sample(model, source(seed)):
            outputs.append(model(x))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.allclose(outputs[0], outputs[2])


@every
def test_outside_a_sample_evaluation_is_deterministic(make):
    model, x = noisy(make).eval(), images_of()
    before = model(x)
    with posterior_sample(model, source()):
        assert not torch.allclose(model(x), before)
    assert torch.equal(model(x), before)


@pytest.mark.parametrize("make", [consistent_dropout_cnn, radial_cnn])
def test_one_sample_is_one_function_for_the_whole_pool(make):
    model, x = noisy(make).eval(), images_of(6)
    with posterior_sample(model, source()):
        whole = model(x)
        parts = torch.cat([model(x[:2]), model(x[2:])])
        twins = model(x[:1].expand(4, -1, -1, -1))
    torch.testing.assert_close(whole, parts)
    torch.testing.assert_close(twins, twins[:1].expand(4, -1))


def test_plain_dropout_gives_every_image_a_mask_of_its_own():
    model = noisy(mc_dropout_cnn).eval()
    with posterior_sample(model, source()):
        twins = model(images_of(1).expand(4, -1, -1, -1))
    assert len(twins.unique(dim=0)) == 4


def test_only_plain_dropout_has_a_mask_an_image_in_a_sample():
    assert masks_each_image(mc_dropout_cnn(2, (1, 8, 8), 4, 0.5))
    assert not masks_each_image(mc_dropout_cnn(2, (1, 8, 8), 4, 0.0))
    assert not masks_each_image(consistent_dropout_cnn(2, (1, 8, 8), 4, 0.5))
    assert not masks_each_image(radial_cnn(2, (1, 8, 8), 4))


def test_consistent_dropout_trains_with_a_mask_an_image():
    layer = ConsistentDropout(0.5)
    set_generator(layer, source())
    assert len(layer(torch.ones(8, 32)).unique(dim=0)) == 8


@every
def test_the_next_sample_is_another_even_of_the_same_generator(make):
    model, x, generator = noisy(make).eval(), images_of(), source()
    with posterior_sample(model, generator):
        first = model(x)
    with posterior_sample(model, generator):
        assert not torch.allclose(model(x), first)


def test_a_sample_that_ends_in_an_error_leaves_the_model_as_it_was():
    model = noisy(consistent_dropout_cnn).eval()
    with pytest.raises(RuntimeError), posterior_sample(model, source()):
        model(images_of(shape=(1, 16, 16)))  # masks are drawn, then the hidden layer refuses the size
    assert not model.noise1.sampling
    assert model.noise1.shared is None
    assert model.noise1.generator is None


# --- radial networks -------------------------------------------------------------------------------------------------


def test_radial_weights_are_mu_plus_sigma_times_a_radius_times_a_direction():
    layer = RadialLinear(3, 2).eval()
    with posterior_sample(layer, source(5)):
        weight, bias = layer.weights()
    noise = torch.randn(9, generator=source(5))
    epsilon = [float(noise[8] * n / noise[:8].norm()) for n in noise[:8]]
    sigma = math.log1p(math.exp(-4.0))
    expected = [m + sigma * e for m, e in zip([*layer.mu.flatten().tolist(), 0.0, 0.0], epsilon, strict=True)]
    assert torch.cat([weight.flatten(), bias]).tolist() == pytest.approx(expected, abs=1e-6)


def test_the_noise_of_a_layer_has_the_length_of_one_normal_number_whatever_its_size():
    generator = source()
    for layer in (RadialLinear(2, 2), RadialConv2d(3, 4, 5)):
        torch.nn.init.zeros_(layer.mu)
        torch.nn.init.constant_(layer.rho, math.log(math.e - 1))  # σ = 1
        torch.nn.init.constant_(layer.bias_rho, math.log(math.e - 1))
        set_generator(layer, generator)
        draws = [torch.cat([part.flatten() for part in layer.weights()]) for _ in range(2000)]
        squares = torch.stack(draws).square()
        assert float(squares.sum(1).mean().detach()) == pytest.approx(1.0, abs=0.12)  # E r² = 1
        assert float(squares.mean(0).max().detach()) < 1.6 / layer.dimension  # no direction is preferred


def test_the_kl_is_that_of_many_draws_up_to_a_constant():
    """log q is −Σ log σ up to a constant (a change of variables); the prior's part is averaged over draws."""
    layer = RadialLinear(3, 2)
    torch.nn.init.normal_(layer.mu, std=0.2, generator=source())
    torch.nn.init.uniform_(layer.rho, -1, 0.5, generator=source())
    set_generator(layer, source(1))
    prior = torch.distributions.Normal(0.0, 0.25)
    with torch.no_grad():
        draws = torch.stack([torch.cat([p.flatten() for p in layer.weights()]) for _ in range(20_000)])
        crossed = -prior.log_prob(draws).sum(1).mean() - 8 * 0.5 * math.log(2 * math.pi)
        sigma = F.softplus(torch.cat([layer.rho.flatten(), layer.bias_rho]))
    assert float(layer.kl().detach()) == pytest.approx(float(crossed - sigma.log().sum()), rel=0.02)


def test_the_kl_of_a_model_is_the_sum_of_its_layers():
    model = radial_cnn(3, (1, 8, 8), width=2)
    layers = [model.conv1, model.conv2, model.hidden, model.linear]
    model.requires_grad_(False)
    assert float(kl_divergence(model)) == pytest.approx(sum(float(layer.kl()) for layer in layers), rel=1e-6)
    assert float(kl_divergence(mc_dropout_cnn(3, (1, 8, 8), 2))) == 0


@pytest.mark.parametrize("reduced", [False, True])
def test_the_elbo_is_the_weighted_mean_of_passes_plus_the_kl_a_data_point(reduced):
    model, x, y = noisy(radial_cnn), images_of(), torch.tensor([0, 1, 2, 0, 1, 2])
    weights = torch.linspace(0.1, 2, 6)
    found = elbo(model, x, y, weights, 3, source(2), 50, reduced).detach()
    set_generator(model, source(2))
    losses = torch.zeros(6)
    for _ in range(3):
        losses += F.cross_entropy(model(x), y, reduction="none") / 3
    data = (weights * losses.mean()).mean() if reduced else (weights * losses).mean()
    assert float(found) == pytest.approx(float((data + kl_divergence(model) / 50).detach()), rel=1e-5)


@pytest.mark.parametrize("objective", ["weighted", "cross_entropy"])
def test_training_a_radial_network_takes_its_elbo(objective):
    experiment = Experiment(method="sbias", model="radial_cnn", training_samples=2, width=2)
    network = build_network(experiment, (1, 8, 8), 3, source())
    x, y, weights = images_of(4), torch.tensor([0, 1, 2, 0]), torch.tensor([1.0, 2.0, 0.5, 1.0])
    batch = Batch(x, y, weights, torch.zeros(2), torch.arange(4), False, 40)
    set_generator(network, source(3))
    found = OBJECTIVES[objective](experiment, network, batch).detach()
    again = elbo(network.backbone, x, y, weights, 2, source(3), 40)
    assert float(found) == pytest.approx(float(again.detach()), rel=1e-6)


@every
def test_a_step_of_training_reaches_every_parameter(make):
    model = noisy(make)
    elbo(model, images_of(), torch.tensor([0, 1, 2, 0, 1, 2]), torch.ones(6), 2, source(), 6).backward()
    for name, parameter in model.named_parameters():
        assert parameter.grad is not None, name
        assert parameter.grad.isfinite().all(), name
        assert parameter.grad.abs().sum() > 0, name


@every
def test_it_learns(make):
    torch.manual_seed(0)
    model = make(2, (1, 8, 8), width=4)
    y = torch.arange(32) % 2
    x = images_of(32) + 2.0 * (2 * y - 1).view(-1, 1, 1, 1)
    optimiser, generator = torch.optim.Adam(model.parameters(), 1e-2), source()
    for _ in range(40):
        optimiser.zero_grad()
        elbo(model, x, y, torch.ones(32), 2, generator, 10_000).backward()
        optimiser.step()
    assert (model.eval()(x).argmax(1) == y).float().mean() > 0.95


# --- from an experiment ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["mc_dropout_cnn", "consistent_dropout_cnn", "radial_cnn"])
def test_an_experiment_builds_the_network_it_names(name):
    model = build(Experiment(method="sbias", model=name, width=4, dropout=0.25), (3, 8, 8), 5).eval()
    assert model(images_of(2, (3, 8, 8))).shape == (2, 5)
    assert bool(kl_divergence(model)) == (name == "radial_cnn")
    rates = [m.p for m in model.modules() if isinstance(m, Dropout)]
    assert rates == ([] if name == "radial_cnn" else [0.25] * 3)


def test_dropout_is_a_half_unless_it_is_given():
    model = build(Experiment(method="random", model="mc_dropout_cnn", width=4), (1, 8, 8), 2)
    assert model.noise1.p == 0.5


@pytest.mark.parametrize(
    ("changes", "shape", "message"),
    [
        ({"method": "ll4al"}, (1, 8, 8), "loss module"),
        ({"method": "oo4al", "cmam_layer": 3}, (1, 8, 8), "cmam_layer"),
        ({"method": "sbias"}, (1, 6, 8), "8×8"),
        ({"method": "mixup", "model": "radial_cnn"}, (1, 8, 8), "ELBO"),
    ],
)
def test_what_the_network_cannot_do_is_refused_by_name(changes, shape, message):
    with pytest.raises(ConfigError, match=message):
        build(Experiment(**{"model": "mc_dropout_cnn", "width": 4} | changes), shape, 2)
