"""The objectives against their definitions, written the long way."""

import pytest
import torch
import torch.nn.functional as F
from scipy.stats import chisquare, kstest

from alkit.models import LossNet, resnet10
from alkit.objectives import (
    cmam,
    draw_lambdas,
    draw_partners,
    loss_prediction,
    mixup,
    ranking_loss,
    weighted,
)


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def model() -> torch.nn.Module:
    return resnet10(num_classes=4, in_channels=1, width=4).double()


def batch(size: int = 6) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    images = torch.randn(size, 1, 8, 8, generator=generator(), dtype=torch.float64)
    labels = torch.randint(4, (size,), generator=generator())
    return images, labels, torch.randperm(size, generator=generator(2))


def test_mixup_is_the_weighted_sum_of_two_cross_entropies(model: torch.nn.Module) -> None:
    images, labels, order = batch()
    mixed = torch.stack([0.3 * images[i] + 0.7 * images[order[i]] for i in range(6)])
    logits = model(mixed).float()
    expected = 0.3 * F.cross_entropy(logits, labels) + 0.7 * F.cross_entropy(logits, labels[order])
    torch.testing.assert_close(mixup(model, images, labels, 0.3, order), expected)


@pytest.mark.parametrize("layer", [0, 1, 2, 3, 4])
def test_cmam_is_the_papers_four_cross_entropies(model: torch.nn.Module, layer: int) -> None:
    images, labels, order = batch()
    lam1, lam2 = 0.3, 0.8
    first = model.lower(lam1 * images + (1 - lam1) * images[order], layer)
    second = model.lower((1 - lam1) * images + lam1 * images[order], layer)
    logits = model.upper(lam2 * first + (1 - lam2) * second, layer).float()
    own, other = F.cross_entropy(logits, labels), F.cross_entropy(logits, labels[order])
    expected = lam2 * (lam1 * own + (1 - lam1) * other) + (1 - lam2) * ((1 - lam1) * own + lam1 * other)
    torch.testing.assert_close(cmam(model, images, labels, lam1, lam2, order, layer), expected)


def test_cmam_shows_batch_norm_two_batches_in_their_order(model: torch.nn.Module) -> None:
    images, labels, order = batch()
    seen: list[torch.Tensor] = []
    model.conv1.register_forward_pre_hook(lambda _, inputs: seen.append(inputs[0].clone()))
    cmam(model, images, labels, 0.3, 0.8, order, 1)
    torch.testing.assert_close(seen[0], 0.3 * images + 0.7 * images[order])
    torch.testing.assert_close(seen[1], 0.7 * images + 0.3 * images[order])
    assert len(seen) == 2


def test_the_involution_gives_the_same_loss_with_one_lower_pass(model: torch.nn.Module) -> None:
    images, labels, _ = batch()
    partners = draw_partners(6, "involution", generator(3))
    passes: list[int] = []
    model.conv1.register_forward_pre_hook(lambda *_: passes.append(1))
    long = cmam(model, images, labels, 0.3, 0.8, partners, 1)
    short = cmam(model, images, labels, 0.3, 0.8, partners, 1, involution=True)
    torch.testing.assert_close(long, short)
    assert len(passes) == 3  # two, then one


@pytest.mark.parametrize("size", [1, 2, 7, 8])
def test_an_involution_is_its_own_inverse_and_a_permutation(size: int) -> None:
    partners = draw_partners(size, "involution", generator())
    assert torch.equal(partners[partners], torch.arange(size))


@pytest.mark.parametrize("pairing", ["permutation", "involution"])
@pytest.mark.parametrize("size", [4, 5])
def test_every_image_is_as_likely_a_partner_as_any_other_itself_included(size: int, pairing: str) -> None:
    source, draws = generator(5), 4000
    partners = torch.stack([draw_partners(size, pairing, source) for _ in range(draws)])
    for image in range(size):
        assert chisquare(torch.bincount(partners[:, image], minlength=size)).pvalue > 1e-3


def test_lambdas_follow_the_beta_law_independently() -> None:
    lam = draw_lambdas(0.4, 4000, generator())
    assert kstest(lam[:, 0].numpy(), "beta", args=(0.4, 0.4)).pvalue > 0.01
    assert kstest(lam[:, 1].numpy(), "beta", args=(0.4, 0.4)).pvalue > 0.01
    assert abs(torch.corrcoef(lam.T)[0, 1]) < 0.05


@pytest.mark.parametrize("size", [2, 3, 8, 9])
def test_the_ranking_loss_pairs_first_with_last_and_drops_the_middle(size: int) -> None:
    predicted = torch.randn(size, generator=generator())
    target = torch.rand(size, generator=generator(1))
    expected = []
    for i in range(size // 2):
        j = size - 1 - i
        sign = 1 if target[i] > target[j] else -1
        expected.append(max(0.0, 1.0 - sign * float(predicted[i] - predicted[j])))
    torch.testing.assert_close(ranking_loss(predicted, target), torch.tensor(sum(expected) / len(expected)))


def test_a_single_image_has_no_pair() -> None:
    assert float(ranking_loss(torch.ones(1, requires_grad=True), torch.ones(1))) == 0.0


def test_detached_maps_no_longer_shape_the_backbone(model: torch.nn.Module) -> None:
    images, labels, _ = batch(5)
    module = LossNet(model.stage_channels).double()

    def gradient(weight: float, detach: bool) -> torch.Tensor:
        model.zero_grad()
        loss_prediction(model, module, images, labels, weight=weight, detach=detach).backward()
        return model.conv1.weight.grad.clone()

    plain = gradient(0.0, detach=False)
    torch.testing.assert_close(gradient(1.0, detach=True), plain)
    assert not torch.allclose(gradient(1.0, detach=False), plain)


def test_weights_multiply_each_images_own_loss(model: torch.nn.Module) -> None:
    images, labels, _ = batch()
    weights = torch.tensor([1.0, 2.0, 0.0, 1.0, 3.0, 0.5])
    losses = F.cross_entropy(model(images).float(), labels, reduction="none")
    torch.testing.assert_close(weighted(model, images, labels, weights), (weights * losses).mean())
    averaged = weighted(model, images, labels, weights, mean_reduced=True)
    torch.testing.assert_close(averaged, weights.mean() * losses.mean())
    assert not torch.isclose(averaged, (weights * losses).mean())
