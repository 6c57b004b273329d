"""The study files: every data set has one, the papers' are the papers', and no other can be mistaken for them."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest

from alkit.analysis import published
from alkit.config import Study
from alkit.data import DATASETS

FOLDER = Path(__file__).parents[2] / "params"
FILES = sorted(path.stem for path in FOLDER.glob("*.yaml"))

RESNET = {
    "model": "resnet18",
    "width": 64,
    "stem": "cifar",
    "optimizer": "sgd",
    "lr": 0.1,
    "momentum": 0.9,
    "lr_gamma": 0.1,
}
CIFAR = RESNET | {
    "initial": 1000, "budget": 1000, "subset": 10_000, "cycles": 10, "epochs": 200, "batch_size": 128,
    "milestones": [160], "weight_decay": 5e-4, "alpha": 0.4, "cmam_layer": 1, "detach": 120, "program": "OO4AL",
}  # fmt: skip
STEP = CIFAR | {"initial": 100, "budget": 100, "subset": 1000}
ROTATION = {
    "pretext": "rotation", "pretext_epochs": 15, "pretext_batch_size": 256, "pretext_lr": 0.1, "subset": None,
    "program": "PT4AL",
}  # fmt: skip
SBIAS = {
    "initial": 10, "budget": 1, "subset": None, "cycles": 61, "epochs": 100, "epoch_images": 1000, "early_stopping": 20,
    "batch_size": 64,
    "optimizer": "adam", "lr": 1e-4, "milestones": [], "weight_decay": 1e-4, "validation_size": 1000,
    "class_balance": [share / 4 for share in (1, 0.5, 0.5, 0.2, 0.2, 0.2, 0.1, 0.1, 0.01, 0.01)],
    "test_class_balance": [1, 0.5, 0.5, 0.2, 0.2, 0.2, 0.1, 0.1, 0.01, 0.01], "label_noise": 0.1,
    "posterior_samples": 100, "training_samples": 8, "sbias_proposal": "softmax", "sbias_temperature": 15_000,
    "sbias_score": "mutual_information", "program": "Statistical bias",
}  # fmt: skip
FIVE, THREE, ANY = [0, 1, 2, 3, 4], [0, 1, 2], None

PAPERS: dict[str, tuple[str, dict[str, Any], list[int] | None]] = {
    "cifar10": ("cifar10", CIFAR, FIVE),
    "cifar10_first": ("cifar10", CIFAR | {"cycles": 2}, FIVE),
    "cifar100": ("cifar100", CIFAR, FIVE),
    "cifar10_step": ("cifar10_step", STEP, FIVE),
    "cifar10_step_first": ("cifar10_step", STEP | {"cycles": 2}, FIVE),
    "imagenet": (
        "imagenet",
        CIFAR | {"initial": 128_120, "budget": 64_060, "subset": 640_600, "cycles": 5, "epochs": 100, "batch_size": 256,
                 "milestones": [30, 60, 90], "weight_decay": 1e-4, "detach": 60, "stem": "imagenet",
                 "image_size": 224},
        THREE,
    ),
    "cifar10_pt4al": ("cifar10", CIFAR | ROTATION, ANY),
    "cifar10_pt4al_cold_start": ("cifar10", CIFAR | ROTATION, ANY),
    "mnist": ("mnist", SBIAS, ANY),
    "fashion_mnist": ("fashion_mnist", SBIAS, ANY),
    "cifar10_gcn": (
        "cifar10", CIFAR | {"cycles": 5, "milestones": [160, 240], "program": "Sequential GCN"}, ANY
    ),
    "cifar10_ta_vaal": ("cifar10", CIFAR | {"milestones": [160, 240], "program": "TA-VAAL"}, ANY),
    # the figures only: what their texts leave open is marked in the file as a choice
    "cifar10_lt": ("cifar10_lt", CIFAR | ROTATION, ANY),
    "caltech101": ("caltech101", RESNET | ROTATION | {"cycles": 5}, ANY),
    "imagenet64": ("imagenet64", RESNET | ROTATION, ANY),
}  # fmt: skip
"""What each paper's file must say: data set, parameters, seeds (ANY: the paper names none)."""

NO_PAPER = {"digits", "svhn", "two_moons", "folder"}
"""Data sets that no paper of the kit studies."""


def study(name: str) -> Study:
    return Study.from_yaml(FOLDER / f"{name}.yaml")


def test_every_data_set_has_the_papers_study_and_a_scaled_one() -> None:
    assert NO_PAPER | {dataset for dataset, _, _ in PAPERS.values()} == set(DATASETS)
    for dataset in DATASETS:
        assert (dataset in PAPERS) is (dataset not in NO_PAPER)
        scaled = dataset if dataset in NO_PAPER - {"svhn"} else f"{dataset}_scaled"
        assert study(scaled).experiment().dataset == dataset


@pytest.mark.parametrize("name", list(PAPERS))
def test_a_papers_study_is_the_papers(name: str) -> None:
    dataset, expected, seeds = PAPERS[name]
    found = study(name)
    assert seeds in (ANY, found.seeds)
    for label in found.labels:
        run = found.experiment(label)
        values = run.model_dump() | {"detach": run.ll_detach or int(run.epochs * 0.6)}
        own = found.variants.get(label, {})  # what makes the variant
        wanted = {"dataset": dataset, "protocol": "released", **expected}
        assert {key: values[key] for key in wanted if key not in own} == {
            key: value for key, value in wanted.items() if key not in own
        }, label


@pytest.mark.parametrize("name", list(PAPERS))
def test_no_quirk_of_another_program_is_on(name: str) -> None:
    from alkit.quirks import QUIRKS

    found = study(name)
    for label in found.labels:
        run = found.experiment(label)
        on = [quirk for quirk, state in run.quirk_states.items() if state]
        assert all(run.program in QUIRKS[quirk].programs for quirk in on), label
        assert on or run.row.whole_pool or name == "cifar10_gcn" or run.program == "Statistical bias", label


@pytest.mark.parametrize(
    ("name", "source", "method"),
    [
        ("cifar10", "OO4AL, figure", "oo4al"), ("cifar100", "OO4AL, figure", "random"),
        ("cifar10_first", "OO4AL, figure", "oo4al"), ("cifar10_step", "OO4AL, figure", "oo4al"),
        ("cifar10_step_first", "OO4AL, figure", "random"),
        ("imagenet", "OO4AL, figure", "oo4al"),
        ("cifar10_pt4al", "PT4AL, paper", "pt4al"), ("cifar10_gcn", "Sequential-GCN", "core_gcn"),
    ],
)  # fmt: skip
def test_published_numbers_are_compared_with_the_papers_study(name: str, source: str, method: str) -> None:
    run = study(name).experiment(method)
    protocol = published.protocol_of(source, run.dataset, method)
    elsewhere = {"device": "cuda", "threads": 1, "eval_batch_size": 100, "data_root": "/images", "seed": 7,
                 "checkpoint_seconds": 5, "pretext_supervised": False}  # fmt: skip  # what scripts/gpu_hour.py gives
    for given in ({}, elsewhere):
        assert published.differences(run.model_dump(mode="json") | given, protocol) == []


@pytest.mark.parametrize("name", FILES)
def test_a_study_says_in_its_name_and_first_words_what_it_is(name: str) -> None:
    found, text = study(name), (FOLDER / f"{name}.yaml").read_text()
    assert (found.study, bool(found.title), bool(found.labels)) == (name, not name.startswith("folder"), True)
    runs = [found.experiment(label) for label in found.labels]
    if name in PAPERS:
        assert text.startswith("# PAPER")
        assert all(run.protocol == "released" for run in runs)
        assert "paper" in f"{found.title} {found.description}"
    else:
        assert not text.startswith("# PAPER")
        assert all(run.protocol == "corrected" for run in runs)
    if name.endswith("_scaled"):
        assert text.startswith("# SCALED")
        minutes = re.search(r"Two cores need about (\d+) minutes(?: a seed)?", text)
        assert minutes is not None
        assert int(minutes[1]) < 60
    assert not [line for line in text.splitlines() if len(line) > 120]


@pytest.mark.parametrize("name", FILES)
def test_the_images_suffice_for_every_cycle(name: str) -> None:
    """By the numbers as published; a study of one's own folder has none."""
    from alkit.data import imbalance

    for label in study(name).labels:
        run = study(name).experiment(label)
        entry = DATASETS[run.dataset]
        sizes = entry.class_counts
        if sizes is None:
            sizes = {"imagenet": (1281,) * 1000, "imagenet64": (1281,) * 1000, "caltech101": (68,) * 101}.get(
                run.dataset
            )
        if sizes is not None:
            options = {**entry.defaults, **{k: v for k, v in run.data_options().items() if v is not None}}
            kept = imbalance.pool_counts(
                sizes, options.get("class_balance"), options.get("imbalance_factor"), options.get("pool_size")
            )
            run.check_pool(sum(kept), len(kept))


def test_every_choice_of_the_figures_only_studies_is_marked() -> None:
    for name in ("cifar10_lt", "caltech101", "imagenet64"):
        text = (FOLDER / f"{name}.yaml").read_text()
        assert text.startswith("# PAPER, WITH CHOICES")
        assert text.count("a choice") >= 3
