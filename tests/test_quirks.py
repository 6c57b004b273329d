"""Every quirk: the smallest case in which the released behaviour and the corrected one differ, as described."""

from __future__ import annotations

import json
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

from alkit import ActiveLearner, Experiment, calibration
from alkit.data.registry import DATASETS, DatasetEntry, load_for, pool_facts
from alkit.errors import ConfigError
from alkit.evaluate_cycle import evaluate_cycle
from alkit.methods import METHODS
from alkit.models import Network, build_network
from alkit.objectives import OBJECTIVES, Batch, objective_of
from alkit.pretext import make_task
from alkit.quirks import QUIRKS
from alkit.randomness import generator
from alkit.strategies import Query, TensorPool, make_strategy
from alkit.strategies.coreset import k_center_greedy
from alkit.strategies.hierarchical import HierarchicalSampler
from alkit.training import detaches, learning_rate, predict

Make = Callable[..., Experiment]

IDS = [
    "warm_start",
    "lr_step_first",
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
    image = torch.rand(1, 3, 224, 224, generator=generator(0, "image"))
    for experiment, size in zip(both(tiny, "imagenet_corner_pool", **parameters), (7, 4), strict=True):
        model: Any = build_network(experiment, (3, 224, 224), 10, generator(0, "weights")).backbone.eval()
        with torch.no_grad():
            _, features, maps = model.stages(image)
        assert maps[-1].shape[2:] == (7, 7)
        torch.testing.assert_close(features, maps[-1][:, :, :size, :size].mean((2, 3)))
        assert not torch.allclose(maps[-1].mean((2, 3)), maps[-1][:, :, :4, :4].mean((2, 3)))


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
        logits = predict(learner.network, learner.train, held_out, experiment)
        assert record["temperature"] == pytest.approx(calibration.fit_temperature(logits, learner.labels[held_out]))


# --- the query -------------------------------------------------------------------------------------------------------


def test_random_with_replacement_repeats_draws_and_loses_candidates(tiny: Make) -> None:
    corrected, released = both(tiny, "random_with_replacement", budget=60)
    answer = ask(corrected, 12)
    assert len(set(answer.indices.tolist())) == 12
    assert answer.discarded is None
    answer = ask(released, 12)
    candidates = set(made_pool().candidates.tolist())
    asked = set(answer.indices.tolist())
    assert len(answer.indices) == 12
    assert len(asked) < 12
    assert answer.discarded is not None
    assert set(answer.discarded.tolist()) == candidates - asked  # a budget of all draws: what they missed is lost
    learner = ActiveLearner(released)
    record = list(learner)[-1]
    assert record["labelled"] == 80
    assert len(torch.unique(learner.state.labelled)) < 80


def test_hsamp_integer_cost_prunes_otherwise(tiny: Make) -> None:
    """Eight leaves in a balanced tree; with fractions cut off, the split that pays is not seen."""
    children = [(0, 1), (2, 3), (4, 5), (6, 7), (8, 9), (10, 11), (12, 13)]
    prunings, costs = [], []
    for integer in (False, True):
        sampler = HierarchicalSampler(children, 2, integer_cost=integer)
        for leaf, label in enumerate([0, 1, 1, 1]):
            sampler.observe(leaf, label)
        prunings.append(sampler.pruning)
        costs.append(sampler.cost)
    assert prunings == [{0, 1, 9, 13}, {14}]
    assert costs[1].dtype == np.int64
    asked = []
    for experiment in both(tiny, "hsamp_integer_cost", method="hierarchical"):
        answers = [ask(experiment, 20, candidates=40, classes=2, seed=seed) for seed in range(6)]
        asked.append([answer.indices.tolist() for answer in answers])
    assert asked[0] != asked[1]


def test_hsamp_fixed_quota_asks_for_1000_whatever_the_budget(tiny: Make) -> None:
    corrected, released = both(tiny, "hsamp_fixed_quota", method="hierarchical", budget=100, pool_size=None)
    assert (corrected.quota, released.quota) == (100, 1000)
    assert len(ask(corrected, 100, candidates=1100).indices) == 100
    assert len(ask(released, 100, candidates=1100).indices) == 1000
    assert [record["labelled"] for record in ActiveLearner(released)] == [20, 1020]


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


def test_random_scores_per_batch_gives_images_of_a_batch_the_same_chance(tiny: Make) -> None:
    parameters = {"method": "sbias", "sbias_score": "random", "sbias_proposal": "proportional", "batch_size": 4}
    corrected, released = both(tiny, "random_scores_per_batch", **parameters)
    assert len(torch.unique(ask(corrected).utilities)) == 12
    chances = ask(released).utilities
    assert len(torch.unique(chances)) == 3
    assert torch.equal(chances.view(3, 4), chances.view(3, 4)[:, :1].expand(3, 4))


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
    """Step by step against the program's rule: tests/test_pretext.py."""
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
    options = registry._options(released)[1]
    assert registry.imbalance.pool_counts([5000] * 10, options["class_balance"], options["imbalance_factor"]) == (
        [50, 5000] * 5
    )
    with pytest.raises(ConfigError, match=r"^imbalance_factor: the quirk 'imbalance_step' sets the profile"):
        pool_facts(Experiment(dataset="cifar10_lt", imbalance_factor=10.0, quirks={"imbalance_step": True}))
