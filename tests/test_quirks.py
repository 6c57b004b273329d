"""Every quirk: the smallest case in which the released behaviour and the corrected one differ, as described."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_up import made_images, made_pool

from alkit import ActiveLearner, Experiment, calibration, cli
from alkit.data import ImageSet, pool_facts
from alkit.data.randomness import generator
from alkit.data.registry import DATASETS, DatasetEntry, load_for
from alkit.errors import ConfigError
from alkit.learner.state import pool_after
from alkit.methods import METHODS
from alkit.models import Network, build_network
from alkit.objectives import OBJECTIVES, Batch, objective_of, ranking_loss
from alkit.quirks import PROGRAMS, QUIRKS
from alkit.quirks.not_reproduced import NOT_REPRODUCED
from alkit.strategies import Query, TensorPool, make_strategy, vaal
from alkit.strategies.coreset import k_center_greedy
from alkit.strategies.hierarchical import HierarchicalSampler
from alkit.training.evaluate import evaluate_cycle
from alkit.training.loop import Trainer, detaches, learning_rate, predict
from alkit.training.pretext import make_task

Make = Callable[..., Experiment]

IDS = [
    "warm_start",
    "lr_step_first",
    "first_cycle_drop_last",
    "ranking_bce",
    "detach_late",
    "ece_drops_full_confidence",
    "ts_fit_on_train",
    "hsamp_integer_cost",
    "hsamp_fixed_quota",
    "gcn_assumes_equal_init",
    "core_gcn_backbone_features",
    "imagenet_corner_pool",
    "random_with_replacement",
    "ranking_loss_for_all",
    "vae_sequential_loaders",
    "vae_kaiming_weights",
    "vae_train_mode_scoring",
    "rotation_four_passes",
    "string_sorted_losses",
    "best_test_checkpoint",
    "normalised_logit_confidence",
    "bgr_images",
    "cold_start_batch_5",
    "mean_reduced_weights",
    "random_scores_per_batch",
    "imbalance_step",
]


def both(make: Make, quirk: str, **parameters: Any) -> tuple[Experiment, Experiment]:
    """The same experiment with the quirk off and on."""
    off, on = (make(**parameters, quirks={quirk: state}) for state in (False, True))
    assert (off.quirk(quirk), on.quirk(quirk)) == (False, True)
    return off, on


def ask(experiment: Experiment, budget: int = 4, **pool: Any) -> Query:
    return make_strategy(experiment).query(made_pool(**pool), budget, generator(0, "quirks"))


# --- the register ----------------------------------------------------------------------------------------------------


def test_the_register_holds_every_known_difference_once() -> None:
    assert sorted(QUIRKS) == sorted(IDS)
    for name, quirk in QUIRKS.items():
        assert quirk.id == name
        assert all([quirk.programs, quirk.place, quirk.released, quirk.corrected, quirk.parameter, quirk.established])
        assert quirk.released != quirk.corrected


def test_what_is_known_and_not_reproduced_is_printed_below_the_register(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["quirks"]) == 0
    register, rest = " ".join(capsys.readouterr().out.split()).split("Known and not reproduced")
    for quirk in QUIRKS.values():
        assert quirk.id in register
        assert ", ".join(quirk.programs) in register
    for known in NOT_REPRODUCED:
        assert set(known.methods) <= set(METHODS)
        assert {*known.programs} <= {*PROGRAMS}
        assert known.released.split()[0] in rest


def test_every_quirk_is_tested_here() -> None:
    source = Path(__file__).read_text()
    for name in IDS:
        assert re.search(rf"^def test_{name}_", source, re.MULTILINE), name


@pytest.mark.parametrize("method", list(METHODS))
@pytest.mark.parametrize("dataset", ["digits", "imagenet", "cifar10_lt"])
def test_a_protocol_sets_every_quirk_that_applies_and_refuses_the_others_by_name(method: str, dataset: str) -> None:
    for protocol, state in (("corrected", False), ("released", True)):
        states = Experiment(method=method, dataset=dataset, protocol=protocol).quirk_states
        assert states == {name: state for name, q in QUIRKS.items() if q.applies(METHODS[method], dataset)}
    for name in IDS:
        if name in states:
            assert Experiment(method=method, dataset=dataset, quirks={name: True}).quirk(name)
            assert not Experiment(method=method, dataset=dataset, protocol="released", quirks={name: False}).quirk(name)
        else:
            with pytest.raises(ConfigError, match=f"^quirks: '{name}' does not apply to method '{method}'"):
                Experiment(method=method, dataset=dataset, quirks={name: True})


@pytest.mark.parametrize(
    ("program", "method", "quirk", "state"),
    [
        ("PT4AL", "pt4al", "warm_start", True),  # main.py loads the previous cycle's checkpoint
        ("PT4AL", "random", "warm_start", False),  # main_random.py has no cycles
        ("PT4AL", "random", "best_test_checkpoint", True),
        ("OO4AL", "random", "warm_start", True),
        ("Sequential GCN", "ll4al", "detach_late", True),  # `if epoch > epoch_loss`, EPOCHL = 120
        ("Sequential GCN", "random", "warm_start", False),  # "create new instance for every cycle"
        ("TA-VAAL", "ll4al", "lr_step_first", False),  # train_epoch, then schedulers.step()
        ("Sequential GCN", "ll4al", "ranking_bce", False),
        ("LL4AL", "ll4al", "first_cycle_drop_last", False),
    ],
)
def test_a_program_s_arm_has_the_quirks_of_its_own_script(program: str, method: str, quirk: str, state: bool) -> None:
    assert Experiment(method=method, protocol="released", program=program).quirk(quirk) is state


def test_every_quirk_applies_to_some_run() -> None:
    somewhere = {
        name
        for method in METHODS
        for dataset in ("digits", "imagenet", "cifar10_lt")
        for name in Experiment(method=method, dataset=dataset).quirk_states
    }
    assert somewhere == set(IDS)


def test_a_record_lists_the_state_of_every_quirk(tiny: Make, tmp_path: Path) -> None:
    experiment = tiny(protocol="released", quirks={"random_with_replacement": False, "ranking_loss_for_all": False})
    list(ActiveLearner(experiment, tmp_path))
    assert json.loads((tmp_path / "result.json").read_text())["quirks"] == {
        "warm_start": True,
        "lr_step_first": True,
        "first_cycle_drop_last": True,
        "ranking_bce": True,
        "ece_drops_full_confidence": True,
        "random_with_replacement": False,
        "ranking_loss_for_all": False,
        "best_test_checkpoint": True,
        "bgr_images": True,
    }


# --- training --------------------------------------------------------------------------------------------------------


def test_warm_start_carries_the_weights_into_the_next_cycle(tiny: Make) -> None:
    moved = []
    for experiment in both(tiny, "warm_start", epochs=1, lr=1e-12, weight_decay=0.0):
        learner = ActiveLearner(experiment)
        weights = []
        for _ in learner:
            assert learner.network is not None
            weights.append(learner.network.backbone.conv1.weight.detach().clone())  # type: ignore[union-attr]
        moved.append(float((weights[1] - weights[0]).abs().max()))
    assert moved[0] > 0.01
    assert moved[1] < 1e-6


def weights_by_epoch(experiment: Experiment) -> list[torch.Tensor]:
    """The backbone's first convolution after each epoch of the first cycle."""
    seen = []

    def note(status: dict[str, Any]) -> None:
        if status["state"] == "training" and learner.network is not None:
            seen.append(learner.network.backbone.conv1.weight.detach().clone())  # type: ignore[union-attr]

    learner = ActiveLearner(experiment, progress=note)
    next(iter(learner))
    return seen


def first_epoch_that_differs(experiments: tuple[Experiment, Experiment]) -> int | None:
    """The first epoch, from 1, after which a run with the quirk has other weights than the run without it."""
    pairs = zip(*map(weights_by_epoch, experiments), strict=True)
    return next((epoch for epoch, pair in enumerate(pairs, 1) if not torch.equal(*pair)), None)


def test_lr_step_first_brings_the_drop_one_epoch_early(tiny: Make) -> None:
    corrected, released = both(tiny, "lr_step_first", epochs=6, milestones=[2, 4], lr=1.0, lr_gamma=0.5)
    assert [learning_rate(corrected, epoch) for epoch in range(6)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert [learning_rate(released, epoch) for epoch in range(6)] == [1, 0.5, 0.5, 0.25, 0.25, 0.25]
    assert first_epoch_that_differs(both(tiny, "lr_step_first", epochs=4, milestones=[3])) == 3


def test_detach_late_lets_the_loss_module_shape_the_backbone_one_epoch_longer(tiny: Make) -> None:
    corrected, released = both(tiny, "detach_late", method="ll4al", epochs=200)
    assert next(epoch for epoch in range(200) if detaches(corrected, epoch)) == 120
    assert next(epoch for epoch in range(200) if detaches(released, epoch)) == 121
    assert first_epoch_that_differs(both(tiny, "detach_late", method="ll4al", epochs=5)) == 4


def test_first_cycle_drop_last_trains_on_whole_batches_in_the_first_cycle_alone(tiny: Make) -> None:
    """896 of 1,000 images in batches of 128; here 16 of 20 in batches of 8, and all 40 of the second cycle."""
    for experiment, first in zip(both(tiny, "first_cycle_drop_last", batch_size=8), (20, 16), strict=True):
        train, _ = load_for(experiment)
        for cycle, indices, expected in ((1, torch.arange(20), first), (2, torch.arange(44), 44)):
            network = build_network(experiment, train.shape, 10, generator(0, "weights"))
            trainer = Trainer(network, train, indices, experiment, cycle)
            drawn = [trainer._draw() for trainer.epoch in range(2)]
            assert [len(set(draws.each["images"].tolist())) for draws in drawn] == [expected] * 2
            assert not torch.equal(drawn[0].each["images"], drawn[1].each["images"])  # others are dropped each epoch
    few = tiny(batch_size=64, quirks={"first_cycle_drop_last": True})  # less than a batch: there is nothing else
    trainer = Trainer(build_network(few, train.shape, 10, generator(0, "w")), train, torch.arange(20), few, 1)
    assert trainer._draw().sizes == [20]


def test_ranking_bce_is_the_cross_entropy_of_the_difference_s_sigmoid(tiny: Make) -> None:
    """Pairs (0, 3) and (1, 2): ℓ̂ differ by 2 and −1, the losses say "higher" and, being equal, not "higher"."""
    predicted, losses = torch.tensor([3.0, 0.5, 1.5, 1.0]), torch.tensor([2.0, 1.0, 1.0, 0.5])
    expected = (-math.log(1 / (1 + math.exp(-2))) - math.log(1 - 1 / (1 + math.exp(1)))) / 2
    assert float(ranking_loss(predicted, losses, bce=True)) == pytest.approx(expected)
    assert float(ranking_loss(predicted, losses)) == pytest.approx((0 + 0) / 2)  # the hinge with margin 1
    for method in ("ll4al", "margin"):
        switches = {"ranking_loss_for_all": True} if method == "margin" else {}
        means = [
            next(iter(ActiveLearner(tiny(method=method, epochs=1, quirks=switches | {"ranking_bce": state}))))
            for state in (False, True)
        ]
        assert means[0]["train_loss"] != means[1]["train_loss"]


def test_ranking_loss_for_all_trains_a_loss_module_beside_every_baseline(tiny: Make) -> None:
    corrected, released = both(tiny, "ranking_loss_for_all", method="margin", epochs=1)
    assert (objective_of(corrected), objective_of(released)) == ("cross_entropy", "loss_prediction")
    modules, losses = [], []
    for experiment in (corrected, released):
        learner = ActiveLearner(experiment)
        losses.append(next(iter(learner))["train_loss"])
        assert learner.network is not None
        modules.append(learner.network.loss_module is not None)
    assert modules == [False, True]
    assert losses[1] > losses[0]  # the same cross-entropy to begin with, and the ranking loss


def test_mean_reduced_weights_forgets_whose_loss_a_weight_is_for(tiny: Make) -> None:
    logits = torch.tensor([[3.0, 0.0], [0.0, 1.0]])
    labels = torch.tensor([0, 0])
    losses = F.cross_entropy(logits, labels, reduction="none")
    batch = Batch(logits, labels, torch.tensor([2.0, 0.0]), torch.zeros(2), torch.arange(2), False, 2)
    values = [
        float(OBJECTIVES["weighted"](experiment, Network(torch.nn.Identity()), batch))
        for experiment in both(tiny, "mean_reduced_weights", method="sbias")
    ]
    assert values[0] == pytest.approx(float(losses[0]))  # (2·ℓ₁ + 0·ℓ₂)/2
    assert values[1] == pytest.approx(float(losses.mean()))  # (2 + 0)/2 · (ℓ₁ + ℓ₂)/2


def test_imagenet_corner_pool_sees_one_corner_of_the_last_map(tiny: Make) -> None:
    parameters = {"dataset": "imagenet", "stem": "imagenet", "width": 2}
    released = tiny(**parameters, method="ll4al", quirks={"imagenet_corner_pool": True})
    image = torch.rand(1, 3, 224, 224, generator=generator(0, "image"))
    for experiment, size in zip(both(tiny, "imagenet_corner_pool", **parameters), (7, 4), strict=True):
        model: Any = build_network(experiment, (3, 224, 224), 10, generator(0, "weights")).backbone.eval()
        with torch.no_grad():
            _, features, maps = model.stages(image)
        assert maps[-1].shape[2:] == (7, 7)
        torch.testing.assert_close(features, maps[-1][:, :, :size, :size].mean((2, 3)))
        assert not torch.allclose(maps[-1].mean((2, 3)), maps[-1][:, :, :4, :4].mean((2, 3)))

    network = build_network(released, (3, 224, 224), 10, generator(0, "weights"), with_loss_module=True)
    module: Any = network.loss_module
    with torch.no_grad():
        maps = model.stages(image)[2]
        windows = [stage[:, :, :side, :side] for stage, side in zip(maps, (32, 16, 8, 4), strict=True)]
        assert [stage.shape[2] for stage in maps] == [56, 28, 14, 7]
        pooled = [F.avg_pool2d(part, side)[:, :, 0, 0] for part, side in zip(windows, (32, 16, 8, 4), strict=True)]
        hidden = [F.relu(branch(part)) for branch, part in zip(module.branches, pooled, strict=True)]
        torch.testing.assert_close(module(maps), module.linear(torch.cat(hidden, 1)).squeeze(1))


# --- evaluation ------------------------------------------------------------------------------------------------------


def test_ece_drops_full_confidence_leaves_saturated_predictions_out(tiny: Make) -> None:
    records = []
    for experiment in both(tiny, "ece_drops_full_confidence"):
        train, test = load_for(experiment)
        network = build_network(experiment, train.shape, 10, generator(0, "weights"))
        records.append(evaluate_cycle(experiment, network, test, 1, temperature=1e-6)[0])
    wrong = 1 - records[0]["accuracy"]
    assert wrong > 0.5
    assert records[0]["ece"] == pytest.approx(wrong)
    assert records[0]["oe"] == pytest.approx(wrong)
    assert (records[1]["ece"], records[1]["oe"]) == (0, 0)
    assert records[1]["accuracy"] == records[0]["accuracy"]


def test_ts_fit_on_train_fits_the_temperature_on_the_training_images(tiny: Make) -> None:
    for experiment in both(tiny, "ts_fit_on_train", method="temperature_scaling", epochs=8, cycles=1):
        learner = ActiveLearner(experiment)
        record = next(iter(learner))
        trained_on, held_out = learner._split_labelled()
        if experiment.quirk("ts_fit_on_train"):
            assert held_out is None
            held_out = trained_on
            assert len(trained_on) == 20
        else:
            assert held_out is not None
            assert (len(trained_on), len(held_out)) == (18, 2)
            assert not set(trained_on.tolist()) & set(held_out.tolist())
        assert learner.network is not None
        logits = predict(learner.network, learner.train, held_out, experiment).double()
        truth = learner.labels[held_out]
        on_test = predict(learner.network, learner.test, experiment=experiment).double()
        bare, scaled = (
            errors_of(on_test / t, learner.test.labels, experiment.ece_bins) for t in (1, record["temperature"])
        )
        if experiment.quirk("ts_fit_on_train"):
            assert record["temperature"] == pytest.approx(one_lbfgs_call(logits, truth), rel=1e-3)
            assert (record["ece"], record["oe"]) == pytest.approx(bare)
            assert (record["ece_with_temperature"], record["oe_with_temperature"]) == pytest.approx(scaled)
        else:
            assert record["temperature"] == pytest.approx(calibration.fit_temperature(logits, truth))
            assert (record["ece"], record["oe"]) == pytest.approx(scaled)
            assert "ece_with_temperature" not in record


def errors_of(logits: torch.Tensor, labels: torch.Tensor, bins: int) -> tuple[float, float]:
    confidence, predicted = logits.softmax(1).max(1)
    errors = calibration.calibration_errors(confidence, predicted == labels, bins)
    return errors.ece, errors.oe


def one_lbfgs_call(logits: torch.Tensor, labels: torch.Tensor, lr: float = 0.01, iterations: int = 50) -> float:
    """L-BFGS in one number, without a line search, from its definition.

    The inverse curvature is that of the last secant that rises, 1 before there is one. The first step is at most lr
    long. It ends where nearly nothing is left.
    """

    def slope(t: float) -> float:
        value = torch.tensor(t, dtype=torch.float64, requires_grad=True)
        (found,) = torch.autograd.grad(F.cross_entropy(logits / value, labels), value)
        return float(found)

    t, g, inverse = 1.5, slope(1.5), 1.0
    for iteration in range(iterations):
        step = -g * inverse * lr * (1.0 if iteration else min(1.0, 1.0 / abs(g)))
        if abs(g) <= 1e-7 or abs(step) < 1e-9:
            break
        old, t = g, t + step
        g = slope(t)
        if step * (g - old) > 1e-10:  # a secant that curves upwards
            inverse = step / (g - old)
    return t


def test_ts_fit_on_train_softens_a_model_that_knows_its_images_by_heart() -> None:
    """The optimum is T at its lower bound, which sharpens; the program's short way stays above 1."""
    logits = 8 * F.one_hot(torch.arange(40) % 10, 10).double()
    assert calibration.fit_temperature(logits, torch.arange(40) % 10) < 0.5
    assert calibration.fit_temperature_briefly(logits, torch.arange(40) % 10) > 1.2


# --- the query -------------------------------------------------------------------------------------------------------


def test_random_with_replacement_repeats_draws_and_puts_labelled_images_back(tiny: Make) -> None:
    corrected, released = both(tiny, "random_with_replacement", budget=60)
    answer = ask(corrected, 5)
    assert len(set(answer.indices.tolist())) == 5
    assert answer.returned is None
    answer = ask(released, 5)
    candidates = set(made_pool().candidates.tolist())
    assert answer.returned is not None
    assert (len(answer.indices), len(answer.returned)) == (5, len(candidates) - 5)  # all draws, no more, no less
    drawn = torch.cat([answer.returned, answer.indices])
    assert candidates > set(drawn.tolist())  # some were never drawn, and leave the pool
    assert torch.equal(answer.utilities, torch.bincount(drawn, minlength=100)[made_pool().candidates].double())
    learner = ActiveLearner(released)
    record = list(learner)[-1]
    assert record["labelled"] == 80
    assert len(torch.unique(learner.state.labelled)) < 80
    assert learner.state.left is not None
    assert len(learner.state.left) == 180 - 60
    assert set(learner.state.left.tolist()) & set(learner.state.labelled.tolist())


@pytest.mark.parametrize(("cycles", "different", "around"), [(5, 4695, 25), (10, 8695, 30)])
def test_random_with_replacement_buys_as_many_different_images_as_the_program(
    tiny: Make, cycles: int, different: int, around: int
) -> None:
    """Of 5,000 and 10,000 labels: counted by running the program's own rule; here the mean over eight seeds."""
    strategy = make_strategy(tiny(quirks={"random_with_replacement": True}, subset=10_000, pool_size=None))
    found = []
    for seed in range(8):
        order = torch.randperm(50_000, generator=generator(seed, "first"))
        bought, pool = [order[:1000]], order[1000:].sort().values
        for cycle in range(1, cycles):
            candidates = strategy.candidates(pool, cycle, generator(seed, "subset", cycle))
            empty = torch.empty(0, dtype=torch.int64)
            answer = strategy.query(TensorPool(candidates, empty, empty, 10), 1000, generator(seed, "query", cycle))
            assert answer.returned is not None
            bought.append(answer.indices)
            pool = pool_after(pool, candidates, answer.returned)
            assert len(pool) == 50_000 - 1000 * (cycle + 1)
        found.append(len(torch.unique(torch.cat(bought))))
    assert sum(found) / len(found) == pytest.approx(different, abs=around)


def test_hsamp_integer_cost_prunes_otherwise(tiny: Make) -> None:
    """Eight leaves in a balanced tree, seven of one class: only cut-off costs below make a split look as if it paid."""
    children = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]
    prunings, costs = [], []
    for integer in (False, True):
        sampler = HierarchicalSampler(children, 2, integer_cost=integer)
        for leaf, label in enumerate([0] * 7):
            sampler.observe(leaf, label)
        prunings.append(sampler.pruning)
        costs.append(sampler.cost)
    assert prunings == [{14}, {12, 13}]
    assert costs[1].dtype == np.int64
    asked = []
    for experiment in both(tiny, "hsamp_integer_cost", method="hierarchical"):
        answers = [ask(experiment, 20, candidates=40, classes=2, seed=seed) for seed in range(6)]
        asked.append([answer.indices.tolist() for answer in answers])
    assert asked[0] != asked[1]


def test_hsamp_fixed_quota_asks_for_1000_whatever_the_budget(tiny: Make) -> None:
    corrected, released = both(tiny, "hsamp_fixed_quota", method="hierarchical", budget=100, pool_size=None)
    assert (corrected.quota, released.quota) == (100, 1000)
    assert [record["labelled"] for record in ActiveLearner(released)] == [20, 1020]
    small = tiny(method="hierarchical", budget=100, pool_size=130, quirks={"hsamp_fixed_quota": True})
    assert [record["labelled"] for record in ActiveLearner(small)] == [20, 130]  # no more than there are


def test_gcn_assumes_equal_init_takes_cycle_times_budget_for_the_labelled_count(tiny: Make) -> None:
    corrected, released = both(tiny, "gcn_assumes_equal_init", method="uncertain_gcn", budget=2, gcn_steps=20)
    true = ask(corrected, labelled=6, cycle=1)
    assumed = ask(released, labelled=6, cycle=1)  # 2 of the 6 count as labelled
    assert not torch.equal(true.utilities, assumed.utilities)
    assert torch.equal(true.utilities, ask(released, labelled=6, cycle=3).utilities)  # 3 × 2 = 6: right by chance


def test_core_gcn_backbone_features_is_coreset_on_unit_features(tiny: Make) -> None:
    pool, asked = made_pool(candidates=30), []
    for experiment in both(tiny, "core_gcn_backbone_features", method="core_gcn", gcn_steps=30):
        asked.append(make_strategy(experiment).query(pool, 8, generator(0, "quirks")).indices.tolist())
    unit = [F.normalize(features) for features in (pool.features, pool.labelled_features)]
    assert asked[1] == pool.candidates[k_center_greedy(*unit, 8)].tolist()
    assert asked[0] != asked[1]


def test_vae_train_mode_scoring_lets_an_image_s_score_depend_on_its_batch(tiny: Make) -> None:
    from alkit.models import VAE, Discriminator
    from alkit.strategies.vaal import labelled_logits

    images = made_images(12, (1, 8, 8), 3)
    torch.manual_seed(0)
    vae, discriminator = VAE((1, 8, 8), 4, 4), Discriminator(4)
    first, all_of_them = torch.arange(4), torch.arange(12)
    for train_mode in (False, True):
        alone = labelled_logits(vae, discriminator, images, first, train_mode=train_mode)
        among = labelled_logits(vae, discriminator, images, all_of_them, train_mode=train_mode)[:4]
        assert torch.allclose(alone, among, atol=1e-5) != train_mode
    corrected, released = both(tiny, "vae_train_mode_scoring", method="vaal")
    assert not torch.equal(ask(corrected).utilities, ask(released).utilities)


def test_vae_train_mode_scoring_does_not_go_by_the_order_of_the_pool(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files sorted by class must not make batches of one class: the candidates are scored in an order drawn."""
    released = tiny(method="vaal", batch_size=4, quirks={"vae_train_mode_scoring": True})
    seen, scored = [], vaal.labelled_logits

    def note(vae: Any, discriminator: Any, images: Any, indices: torch.Tensor, *rest: Any) -> torch.Tensor:
        seen.append(indices.tolist())
        return scored(vae, discriminator, images, indices, *rest)

    monkeypatch.setattr(vaal, "labelled_logits", note)
    for seed in range(2):
        make_strategy(released).query(made_pool(), 4, generator(seed, "quirks"))
    assert sorted(seen[0]) == sorted(seen[1]) == made_pool().candidates.tolist()
    assert len({tuple(order) for order in [*seen, made_pool().candidates.tolist()]}) == 3


def test_vae_sequential_loaders_shows_the_images_in_one_order_again_and_again(
    tiny: Make, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a loader without shuffling that is begun anew when it is through: 10 images in batches of 4."""
    loader = [batch.tolist() for batch in torch.utils.data.DataLoader(torch.arange(10), batch_size=4)]  # type: ignore[arg-type]
    assert [part.tolist() for part in vaal.batches_in_order(10, 7, 4)] == [*loader, *loader, *loader][:7]
    shuffled = vaal.batches_of(10, 7, 4, generator(0, "b"))
    assert {len(part) for part in shuffled} == {4}
    shown: list[list[list[int]]] = []
    stream = ImageSet.stream

    def note(self: ImageSet, batches: Any, *rest: Any) -> Any:
        shown.append([part.tolist() for part in batches])
        return stream(self, batches, *rest)

    monkeypatch.setattr(ImageSet, "stream", note)
    for experiment in both(tiny, "vae_sequential_loaders", method="vaal", batch_size=4):
        make_strategy(experiment).query(made_pool(labelled=6), 4, generator(0, "quirks"))
    # of each experiment: the labelled images' batches, the candidates', and the candidates' that are scored
    orders = [[place for batch in batches for place in batch] for batches in shown]
    labelled, count = made_pool(labelled=6).labelled.tolist(), len(made_pool().candidates)
    candidates = orders[4][:count]
    assert orders[3] == (labelled * len(orders[3]))[: len(orders[3])]  # in the order bought
    assert orders[4] == (candidates * len(orders[4]))[: len(orders[4])]
    assert orders[0] != (labelled * len(orders[0]))[: len(orders[0])]
    assert sorted(candidates) == made_pool().candidates.tolist()


def test_vae_kaiming_weights_are_normal_of_variance_two_over_the_inputs(tiny: Make) -> None:
    corrected, released = both(tiny, "vae_kaiming_weights", method="ta_vaal", vae_width=64, vae_latent=32)
    for experiment in (corrected, released):
        strategy: Any = make_strategy(experiment)
        vae, discriminator = strategy._networks(made_images(4, (3, 32, 32), 2), True, generator(0, "k"))
        for layer in (vae.encoder[3], vae.decoder[0], discriminator.layers[0], discriminator.layers[2]):
            inputs = layer.weight[0].numel()
            normal = abs(float(layer.weight.detach().std()) * math.sqrt(inputs / 2) - 1) < 0.1
            normal &= float(layer.weight.detach().abs().max()) > 2.5 * math.sqrt(2 / inputs)  # not a uniform draw
            assert normal == experiment.quirk("vae_kaiming_weights")
            assert (layer.bias is None or not layer.bias.any()) == normal or layer.bias is None
        for layer in (vae.mu, vae.log_variance):  # the program's loop passes these by
            assert float(layer.weight.detach().abs().max()) <= 1 / math.sqrt(layer.in_features)
            assert layer.bias.any()


def test_random_scores_per_batch_asks_only_as_many_images_as_there_are_batches(tiny: Make) -> None:
    parameters = {"method": "sbias", "sbias_score": "random", "sbias_proposal": "proportional", "batch_size": 4}
    corrected, released = both(tiny, "random_scores_per_batch", **parameters)
    assert ask(corrected).utilities.tolist() == pytest.approx([1 / 12] * 12)
    assert ask(released).utilities.tolist() == pytest.approx([1 / 3] * 3 + [0] * 9)  # 12 images are 3 batches


# --- PT4AL -----------------------------------------------------------------------------------------------------------


def losses_file(folder: Path, losses: list[str]) -> str:
    """A file of pretext losses as PT4AL's program writes it."""
    file = folder / "losses.txt"
    file.write_text("".join(f"{loss}_./DATA/train/0/{index}.png\n" for index, loss in enumerate(losses)))
    return str(file)


def test_string_sorted_losses_puts_small_losses_with_an_exponent_before_large_ones(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, ["0.9", "4.1e-05", "0.5", "0.3"])
    batches = [
        [batch.tolist() for batch in make_strategy(experiment).batches]  # type: ignore[attr-defined]
        for experiment in both(tiny, "string_sorted_losses", method="pt4al", pretext_losses=file)
    ]
    assert batches == [[[0, 2], [3, 1]], [[1, 0], [2, 3]]]


def accuracies(experiment: Experiment) -> tuple[float, list[float]]:
    """What a run of one cycle reports, and the test accuracy after each of its epochs."""
    by_epoch = []

    def note(status: dict[str, Any]) -> None:
        if status["state"] == "training":
            assert learner.network is not None
            logits = predict(learner.network, learner.test, experiment=experiment)
            by_epoch.append(float((logits.argmax(1) == learner.test.labels).double().mean()))

    learner = ActiveLearner(experiment, progress=note)
    return next(iter(learner))["accuracy"], by_epoch


def test_best_test_checkpoint_reports_the_epoch_that_did_best_on_the_test_images(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, [f"{place / 200:.4f}" for place in range(200)])
    parameters = {"method": "pt4al", "pretext_losses": file, "epochs": 8, "milestones": [], "cycles": 1, "lr": 0.2}
    for method in ("pt4al", "random", "whole_dataset"):  # every arm of the program
        arm = parameters | {"method": method}
        corrected, released = map(accuracies, both(tiny, "best_test_checkpoint", **arm))
        by_epoch = corrected[1]
        assert by_epoch == released[1]
        if method != "whole_dataset":
            assert max(by_epoch) > by_epoch[-1]  # or the two could not differ
        assert (corrected[0], released[0]) == pytest.approx((by_epoch[-1], max(by_epoch)))


def test_normalised_logit_confidence_cannot_tell_a_sure_prediction_from_an_unsure_one(tiny: Make) -> None:
    logits = torch.tensor([[9.0, 0.0, 0.0], [1.0, 0.0, 0.0], [5.0, 4.0, 0.0]])
    pool = TensorPool(torch.arange(3), torch.tensor([3]), torch.tensor([0]), 3, logits=logits)
    corrected, released = (
        make_strategy(experiment).query(pool, 3, generator(0, "quirks"))
        for experiment in both(tiny, "normalised_logit_confidence", method="pt4al")
    )
    assert corrected.indices.tolist() == [1, 2, 0]
    assert released.indices.tolist() == [2, 0, 1]
    assert released.utilities[0] == released.utilities[1]


def test_bgr_images_normalises_each_channel_with_the_wrong_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    images = made_images(6, (3, 8, 8), 2)
    images = replace(images, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    entry = DatasetEntry("made_up", "made up", lambda root, options: (images, images), "this test")
    monkeypatch.setitem(DATASETS, "made_up", entry)
    for method in ("random", "whole_dataset"):
        assert load_for(Experiment(method=method, dataset="made_up", quirks={"bgr_images": True}))[0].mean == (
            0.3, 0.2, 0.1)  # fmt: skip
    sets = [load_for(e) for e in both(Experiment, "bgr_images", method="pt4al", dataset="made_up")]
    pixels = images.images
    for train, _ in sets:
        assert torch.equal(train.images, pixels)
    as_read = images.normalise(pixels.flip(1))  # B, G, R with the statistics of R, G, B
    for corrected, released in zip(*sets, strict=True):
        assert torch.equal(corrected.normalise(pixels), images.normalise(pixels))
        torch.testing.assert_close(released.normalise(pixels).flip(1), as_read)


def test_rotation_four_passes_moves_the_running_statistics_four_times_a_step(tiny: Make) -> None:
    """Step by step against the program's rule: tests/training/test_pretext.py."""
    moved = []
    for experiment in both(tiny, "rotation_four_passes", method="pt4al", pretext_batch_size=20):
        task = make_task(experiment, made_images(40, (3, 8, 8), 2))
        task.train_epoch(0)
        moved.append({int(v) for n, v in task.network.state_dict().items() if n.endswith("num_batches_tracked")})
    assert moved == [{2}, {8}]


def test_cold_start_batch_5_begins_with_images_of_middling_loss(tiny: Make, tmp_path: Path) -> None:
    file = losses_file(tmp_path, [f"{1 - place / 60:.4f}" for place in range(60)])  # image 0 has the highest loss
    parameters = {"method": "pt4al_cold_start", "pretext_losses": file, "cycles": 10}
    for experiment, first in zip(both(tiny, "cold_start_batch_5", **parameters), (0, 30), strict=True):
        query = make_strategy(experiment).first_query(torch.arange(60), 3)
        assert query is not None
        assert query.tolist() == [first, first + 2, first + 4]  # every second of a batch of six


# --- the data --------------------------------------------------------------------------------------------------------


def test_imbalance_step_gives_cifar10_lt_50_and_5000_images_in_turn() -> None:
    from alkit.data import registry

    corrected, released = both(Experiment, "imbalance_step", dataset="cifar10_lt")
    assert pool_facts(corrected) == (12_406, 10)
    assert pool_facts(released) == (25_250, 10)
    assert pool_facts(released) == pool_facts(Experiment(dataset="cifar10_step"))
    options = registry.set_options(released)[1]
    assert registry.imbalance.pool_counts([5000] * 10, options["class_balance"], options["imbalance_factor"]) == (
        [50, 5000] * 5
    )
    with pytest.raises(ConfigError, match=r"^imbalance_factor: the quirk 'imbalance_step' sets the profile"):
        pool_facts(Experiment(dataset="cifar10_lt", imbalance_factor=10.0, quirks={"imbalance_step": True}))
