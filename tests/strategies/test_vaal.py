"""VAAL and TA-VAAL: the networks, their losses, the two-player loop and the query."""

import copy
import math

import pytest
import torch
import torch.nn.functional as F

from alkit import Experiment
from alkit.data.imageset import from_arrays
from alkit.errors import TrainingError
from alkit.models import VAE, Discriminator
from alkit.strategies import TensorPool, make_strategy, vaal

SIZES = [(1, 8, 8), (1, 28, 28), (3, 32, 32), (3, 64, 64), (3, 33, 50), (1, 2, 2)]


def source(seed=0):
    return torch.Generator().manual_seed(seed)


def test_on_32_by_32_the_layers_are_the_papers():
    shapes = {name: tuple(p.shape) for name, p in VAE((3, 32, 32)).named_parameters()}
    convolutions = [shapes[f"encoder.{i}.weight"] for i in (0, 3, 6, 9)]
    assert convolutions == [(128, 3, 4, 4), (256, 128, 4, 4), (512, 256, 4, 4), (1024, 512, 4, 4)]
    assert shapes["mu.weight"] == shapes["log_variance.weight"] == (32, 1024 * 2 * 2)
    assert shapes["decoder.0.weight"] == (1024 * 4 * 4, 32)
    transposed = [shapes[f"decoder.{i}.weight"] for i in (2, 5, 8)]
    assert transposed == [(1024, 512, 4, 4), (512, 256, 4, 4), (256, 128, 4, 4)]
    assert shapes["decoder.11.weight"] == (128, 3, 1, 1)
    assert not any(name in shapes for name in ("encoder.0.bias", "decoder.2.bias"))  # batch-norm follows
    assert [tuple(p.shape) for p in Discriminator().parameters() if p.ndim == 2] == [(512, 32), (512, 512), (1, 512)]


@pytest.mark.parametrize("shape", SIZES)
@pytest.mark.parametrize("condition", [False, True])
@pytest.mark.parametrize("batch", [1, 3])
def test_every_image_size_comes_back_as_it_went_in(shape, condition, batch):
    vae = VAE(shape, latent=5, width=4, condition=condition)
    given = torch.rand(batch) if condition else None
    reconstruction, mu, log_variance = vae(torch.randn(batch, *shape), source(), given)
    assert reconstruction.shape == (batch, *shape)
    assert mu.shape == log_variance.shape == (batch, 5)
    assert reconstruction.isfinite().all()
    assert Discriminator(5, condition)(mu, given).shape == (batch,)


def test_padding_is_even_and_cropped_away():
    vae = VAE((1, 28, 28), latent=3, width=2).eval()
    images = torch.randn(2, 1, 28, 28)
    by_hand = vae.encoder(F.pad(images, (2, 2, 2, 2)))
    assert torch.equal(vae.encode(images)[0], vae.mu(by_hand))
    code = torch.randn(2, 3)
    assert torch.equal(vae.decode(code), vae.decoder(code)[:, :, 2:30, 2:30])


def test_the_code_is_mu_plus_sigma_times_noise_of_the_generator():
    vae = VAE((1, 8, 8), latent=3, width=2).eval()
    images = torch.randn(2, 1, 8, 8)
    reconstruction, mu, log_variance = vae(images, source(4))
    noise = torch.randn(2, 3, generator=source(4))
    assert torch.equal(reconstruction, vae.decode(mu + log_variance.mul(0.5).exp() * noise))


def test_a_condition_that_is_missing_or_unexpected_is_refused():
    with pytest.raises(ValueError, match="one number an image"):
        Discriminator(3, condition=True)(torch.zeros(2, 3))
    with pytest.raises(ValueError, match="expected none"):
        VAE((1, 8, 8), 3, 2).decode(torch.zeros(2, 3), torch.zeros(2))


def test_the_vae_loss_is_mean_squared_error_and_kl_to_the_standard_normal():
    images, reconstruction = torch.randn(2, 1, 2, 2), torch.randn(2, 1, 2, 2)
    mu, log_variance = torch.randn(2, 3), torch.randn(2, 3)
    error = sum((a - b) ** 2 for a, b in zip(images.flatten().tolist(), reconstruction.flatten().tolist(), strict=True))
    pairs = [(torch.distributions.Normal(m, (v / 2).exp())) for m, v in zip(mu, log_variance, strict=True)]
    kl = sum(torch.distributions.kl_divergence(q, torch.distributions.Normal(0, 1)).sum() for q in pairs)
    expected = error / 8 + 0.7 * float(kl) / 6
    assert float(vaal.vae_loss(images, reconstruction, mu, log_variance, 0.7)) == pytest.approx(expected, rel=1e-5)


def test_the_players_losses_are_binary_cross_entropies():
    labelled, unlabelled = torch.randn(4), torch.randn(6)
    one, other = labelled.sigmoid(), unlabelled.sigmoid()
    fooled = F.binary_cross_entropy(one, torch.ones(4)) + F.binary_cross_entropy(other, torch.ones(6))
    told = F.binary_cross_entropy(one, torch.ones(4)) + F.binary_cross_entropy(other, torch.zeros(6))
    assert float(vaal.adversarial_loss(labelled, unlabelled)) == pytest.approx(float(fooled), rel=1e-5)
    assert float(vaal.discriminator_loss(labelled, unlabelled)) == pytest.approx(float(told), rel=1e-5)


def test_the_players_losses_are_finite_for_saturated_logits():
    sure = torch.tensor([1e4, -1e4])
    assert float(vaal.adversarial_loss(sure, sure)) == pytest.approx(1e4)
    assert float(vaal.discriminator_loss(sure, sure)) == pytest.approx(1e4)


def test_batches_pass_over_every_image_before_any_comes_again():
    order = vaal.batches_of(7, 6, 4, source()).flatten()
    assert len(order) == 24
    for start in (0, 7, 14):
        assert sorted(order[start : start + 7].tolist()) == list(range(7))
    assert order[:7].tolist() != order[7:14].tolist()


def test_a_set_smaller_than_a_batch_repeats_within_it():
    assert torch.bincount(vaal.batches_of(3, 3, 8, source()).flatten()).tolist() == [8, 8, 8]


@pytest.mark.parametrize(("sizes", "steps"), [((100, 900, 100, 128), 781), ((1, 1, 1, 64), 1), ((0, 64, 2, 64), 2)])
def test_the_number_of_steps(sizes, steps):
    assert vaal.step_count(*sizes) == steps


def image_set(count=24, shape=(1, 8, 8), bright_from=None, seed=0):
    pixels = torch.randint(0, 100, (count, *shape), generator=source(seed), dtype=torch.uint8)
    if bright_from is not None:
        pixels[bright_from:] += 150
    return from_arrays("noise", pixels, torch.zeros(count).long(), ["a"])


def test_each_step_s_loss_is_kept_where_batches_are_of_several_sizes(monkeypatch):
    """Then the loop runs a step at a time, and what it gave before must not be written over."""
    at_once, at_the_end, run = [], [], vaal.StepLoop.run

    def watched(*given):
        found = run(*given)
        at_once.extend(found.tolist())
        return found

    monkeypatch.setattr(vaal.StepLoop, "run", watched)
    monkeypatch.setattr(vaal, "require_finite", lambda losses, *_: at_the_end.extend(losses.tolist()))
    networks, images = (VAE((1, 8, 8), 3, 2), Discriminator(3)), image_set()
    vaal.train_vaal(
        *networks, images, torch.arange(6), torch.arange(6, 24), source(1), steps=5, batch_size=4, in_order=True
    )
    assert at_the_end == at_once
    assert len(set(at_once)) == 5


def test_two_steps_of_the_loop_are_the_textbook_steps():
    """Written with .backward() and zero_grad, one network after the other, on the same batches and noise."""
    images, labelled, unlabelled = image_set(), torch.arange(6), torch.arange(6, 24)
    r = (torch.randn(6, generator=source(8)), torch.randn(18, generator=source(9)))
    torch.manual_seed(0)
    vae, judge = VAE((1, 8, 8), 3, 2, True), Discriminator(3, True)
    slow_vae, slow_judge = copy.deepcopy(vae), copy.deepcopy(judge)
    vaal.train_vaal(vae, judge, images, labelled, unlabelled, source(1), r, steps=2, batch_size=4, beta=0.5,
                    adversarial=0.3)  # fmt: skip

    draws = source(1)
    places = vaal.batches_of(6, 2, 4, draws), vaal.batches_of(18, 2, 4, draws)
    noise = source(int(torch.randint(2**62, (1,), generator=draws)))
    of_vae, of_judge = (torch.optim.Adam(n.parameters(), lr=5e-4) for n in (slow_vae, slow_judge))
    bce = F.binary_cross_entropy_with_logits
    for step in range(2):
        x_l = images.normalise(images.take(labelled[places[0][step]]))
        x_u = images.normalise(images.take(unlabelled[places[1][step]]))
        r_l, r_u = r[0][places[0][step]], r[1][places[1][step]]
        of_vae.zero_grad()
        out_l, mu_l, var_l = slow_vae(x_l, noise, r_l.sigmoid())
        out_u, mu_u, var_u = slow_vae(x_u, noise, r_u.sigmoid())
        fooled = bce(slow_judge(mu_l, r_l), torch.ones(4)) + bce(slow_judge(mu_u, r_u), torch.ones(4))
        loss = vaal.vae_loss(x_l, out_l, mu_l, var_l, 0.5) + vaal.vae_loss(x_u, out_u, mu_u, var_u, 0.5) + 0.3 * fooled
        loss.backward()
        of_vae.step()
        of_judge.zero_grad()
        mu_l, mu_u = slow_vae.encode(x_l)[0].detach(), slow_vae.encode(x_u)[0].detach()
        (bce(slow_judge(mu_l, r_l), torch.ones(4)) + bce(slow_judge(mu_u, r_u), torch.zeros(4))).backward()
        of_judge.step()
    for fast, slow in ((vae, slow_vae), (judge, slow_judge)):
        for (name, a), b in zip(fast.state_dict().items(), slow.state_dict().values(), strict=True):
            torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4, msg=name)


def pool_of(images, labelled, **tensors):
    labelled = torch.tensor(labelled)
    candidates = torch.tensor([i for i in range(len(images)) if i not in labelled.tolist()])
    return TensorPool(candidates, labelled, torch.zeros_like(labelled), 1, images=images, **tensors)


def strategy(method="vaal", **changes):
    tiny = {"vae_width": 4, "vae_latent": 4, "vae_epochs": 4, "batch_size": 8}
    return make_strategy(Experiment(method=method, **tiny | changes))


def test_it_asks_for_what_looks_least_like_the_labelled_set():
    images = image_set(count=60, bright_from=40)
    patient = strategy(vae_epochs=20, vae_adversarial=0.0, vae_beta=0.01, vae_lr=5e-3)  # nobody fools the discriminator
    query = patient.query(pool_of(images, range(20)), 10, source())
    assert (query.indices >= 40).all()


def test_the_same_generator_gives_the_same_bits_and_global_randomness_plays_no_part():
    images, answers = image_set(), []
    for seed in (0, 0, 1):
        torch.manual_seed(len(answers))
        before = torch.get_rng_state()
        answers.append(strategy(vae_epochs=1).query(pool_of(images, range(4)), 5, source(seed)))
        assert torch.equal(torch.get_rng_state(), before)
    assert torch.equal(answers[0].utilities, answers[1].utilities)
    assert not torch.equal(answers[0].utilities, answers[2].utilities)


def test_utilities_are_probabilities_and_the_highest_come_first():
    images = image_set()
    query = strategy().query(pool_of(images, range(4)), 20, source())
    assert ((query.utilities >= 0) & (query.utilities <= 1)).all()
    asked = query.utilities[query.indices - 4]
    assert torch.equal(asked, asked.sort(descending=True).values)
    assert sorted(query.indices.tolist()) == list(range(4, 24))  # budget = n


def test_the_ranking_does_not_saturate(monkeypatch):
    logits = torch.tensor([-200.0, -300.0, 250.0, -100.0])  # 1 − sigmoid is 1 for three of them
    monkeypatch.setattr(vaal, "labelled_logits", lambda *_: logits)
    query = strategy(vae_epochs=1).query(pool_of(image_set(5), [0]), 4, source())
    assert query.indices.tolist() == [2, 1, 4, 3]
    assert query.utilities.tolist() == [1, 1, pytest.approx(math.exp(-250)), 1]


@pytest.mark.parametrize("shape", [(1, 8, 8), (3, 28, 28)])
@pytest.mark.parametrize("method", ["vaal", "ta_vaal"])
def test_one_labelled_image_and_one_candidate_are_enough(shape, method):
    r = {"predicted_loss": torch.tensor([1e4]), "labelled_predicted_loss": torch.tensor([-1e4])}
    query = strategy(method, vae_epochs=1).query(pool_of(image_set(2, shape), [1], **r), 1, source())
    assert query.indices.tolist() == [0]


def test_a_batch_of_one_does_not_break_batch_norm():
    query = strategy(batch_size=1, vae_epochs=1).query(pool_of(image_set(4), [1]), 3, source())
    assert len(query.indices) == 3


def test_constant_images_are_each_asked_for_once():
    images = from_arrays("flat", torch.full((6, 1, 8, 8), 9, dtype=torch.uint8), torch.zeros(6), ["a"])
    query = strategy(vae_epochs=1).query(pool_of(images, [0]), 5, source())
    assert sorted(query.indices.tolist()) == [1, 2, 3, 4, 5]


def test_in_ta_vaal_the_decoder_sees_the_squashed_and_the_discriminator_the_raw_rank(monkeypatch):
    seen = {"vae": [], "discriminator": []}
    decode, judge = VAE.decode, Discriminator.forward
    monkeypatch.setattr(VAE, "decode", lambda s, z, c=None: (seen["vae"].append(c), decode(s, z, c))[1])
    monkeypatch.setattr(
        Discriminator, "forward", lambda s, z, c=None: (seen["discriminator"].append(c), judge(s, z, c))[1]
    )
    n = 10
    r = {"predicted_loss": torch.arange(1.0, n - 1), "labelled_predicted_loss": -torch.tensor([5.0, 6.0])}
    strategy("ta_vaal", vae_epochs=1).query(pool_of(image_set(n), [0, 1], **r), 3, source())
    raw = torch.cat(seen["discriminator"])
    assert set(raw.tolist()) == {-5.0, -6.0, *range(1, n - 1)}
    squashed = torch.cat(seen["vae"])
    assert all(any(abs(float(s) - 1 / (1 + math.exp(-v))) < 1e-6 for v in raw.tolist()) for s in squashed)
    assert torch.equal(torch.cat(seen["discriminator"][-1:]), r["predicted_loss"])  # at scoring: each its own


def test_ta_vaal_depends_on_the_predicted_loss():
    images = image_set()
    utilities = [
        strategy("ta_vaal").query(
            pool_of(images, range(4), predicted_loss=r, labelled_predicted_loss=torch.zeros(4)), 1, source()
        ).utilities
        for r in (torch.zeros(20), torch.linspace(-3, 3, 20))
    ]  # fmt: skip
    assert not torch.allclose(*utilities)


def scores(train_mode, indices, shape=(1, 8, 8)):
    torch.manual_seed(0)
    vae, judge = VAE(shape, 3, 4), Discriminator(3)
    return vaal.labelled_logits(vae, judge, image_set(shape=shape), indices, batch_size=8, train_mode=train_mode)


def test_in_evaluation_mode_a_score_does_not_depend_on_its_neighbours():
    together, alone = scores(False, torch.arange(6)), scores(False, torch.tensor([2]))
    assert float(together[2]) == pytest.approx(float(alone[0]), abs=1e-5)


def test_under_the_quirk_it_does():
    together, alone = scores(True, torch.arange(6)), scores(True, torch.tensor([2]))
    assert float(together[2]) != pytest.approx(float(alone[0]), abs=1e-5)


@pytest.mark.parametrize("released", [True, False])
def test_the_quirk_reaches_the_scoring(monkeypatch, released):
    modes = []
    real = VAE.encode
    monkeypatch.setattr(VAE, "encode", lambda s, x: (modes.append(s.training), real(s, x))[1])
    chosen = strategy(vae_epochs=1, quirks={"vae_train_mode_scoring": released})
    chosen.query(pool_of(image_set(), range(4)), 2, source())
    assert modes[-3:] == [released] * 3  # the 20 candidates in batches of 8
    assert modes[0] is True


def test_scores_that_are_not_numbers_are_reported_with_what_may_help():
    with pytest.raises(TrainingError, match="vae_lr"):
        strategy(vae_lr=1e30).query(pool_of(image_set(), range(4)), 2, source())
