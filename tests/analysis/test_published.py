"""The published numbers are kept as read, and get a verdict only where the protocols match."""

from __future__ import annotations

import math
from typing import Any

import pandas as pd

from alkit import Experiment
from alkit.analysis import published
from alkit.data import cifar
from alkit.methods import METHODS


def test_every_number_has_a_source_a_method_of_the_table_and_a_tolerance() -> None:
    table = published.load()
    assert len(table) == 166
    assert set(table["method"]) <= set(METHODS)
    assert (table["source"].str.len() > 4).all()
    assert table["accuracy"].between(0, 1).all()
    assert table["tolerance"].between(0, 0.02).all()
    assert set(table["read_from"]) == {"plot", "text"}
    assert (table["labelled"].isna() == table["cycle"].notna()).all()
    first = table.query("dataset == 'cifar10' and method == 'oo4al' and labelled == 1000").iloc[0]
    assert (first.accuracy, first.tolerance) == (0.551, 0.003)


def test_the_protocols_name_parameters_that_exist() -> None:
    for protocol in published.PROTOCOLS.values():
        assert set(protocol) <= set(Experiment.model_fields)


THEIRS = {**published.PROTOCOLS["OO4AL", "cifar10"], "dataset": "cifar10", "method": "oo4al", "seed": 0}


def test_a_run_of_each_protocol_is_found_the_same() -> None:
    methods = {"OO4AL": "oo4al", "PT4AL": "pt4al", "Sequential GCN": "core_gcn"}
    for (_, dataset), protocol in published.PROTOCOLS.items():
        run = Experiment(**protocol | {"dataset": dataset, "method": methods[protocol["program"]]})
        assert published.differences(run.model_dump(mode="json"), protocol) == []


def ours(values: list[float], labelled: int = 10_000, **changes: Any) -> pd.Series:
    frame = pd.DataFrame({"dataset": "cifar10", "method": "oo4al", "label": "oo4al", "seed": range(len(values)),
                          "cycle": 10, "labelled": labelled, "accuracy": values})  # fmt: skip
    table = published.compare(frame, {"oo4al": THEIRS | changes}, "cifar10")
    rows = table[(table.label == "oo4al") & (table.labelled == "10000")]
    assert len(rows) == 1
    return rows.iloc[0]


def test_the_same_protocol_gets_a_verdict() -> None:
    near = ours([0.920, 0.922, 0.921])
    assert near.verdict.startswith("agrees within ±0.5 points")  # 0.3 of reading + t(2) 4.303 · 0.1 / √3 = 0.25
    assert abs(near.difference) < 1e-9
    assert near.protocol == "the same"
    assert ours([0.90, 0.901, 0.902]).verdict.startswith("differs by -2.0 points")


def test_another_protocol_gets_none_and_says_in_what() -> None:
    row = ours([0.92, 0.93], width=16, epochs=50)
    assert row.verdict == "none: the protocols differ"
    assert row.protocol == "width 16, theirs 64; epochs 50, theirs 200"
    assert ours([0.92, 0.93], protocol="corrected").verdict.startswith("none")


def test_what_a_protocol_does_not_name_is_at_the_papers_value() -> None:
    assert ours([0.92, 0.93], momentum=0.9, cmam_layer=1, augmentation="auto", cycles=3).protocol == "the same"
    assert ours([0.92, 0.93], cmam_layer=2).protocol == "cmam_layer 2, theirs 1"
    assert ours([0.92, 0.93], label_noise=0.1).protocol == "label_noise 0.1, theirs 0.0"


def test_quirks_are_compared_by_what_they_come_to() -> None:
    assert ours([0.92, 0.93], quirks={"ece_drops_full_confidence": False}).protocol == "the same"
    assert ours([0.92, 0.93], quirks={"warm_start": False}).protocol == "quirk warm_start off, theirs on"
    assert ours([0.92, 0.93], protocol="corrected", quirks={"warm_start": True}).protocol == (
        "quirk lr_step_first off, theirs on"
    )
    assert "best_test_checkpoint" not in ours([0.92, 0.93]).protocol, "that quirk is PT4AL's, not OO4AL's"


def test_few_seeds_and_other_label_counts_get_none() -> None:
    assert ours([0.92]).verdict == ours([0.92, 0.93]).verdict == "none: under 3 seeds"
    assert ours([0.92, 0.93], labelled=500).verdict == "ours has no model at labelled 10000"


def test_a_source_that_does_not_state_its_settings_gets_no_verdict() -> None:
    assert published.protocol_of("DISTIL", "cifar10", "random") is None
    assert "cycles" in (published.protocol_of("PT4AL, paper", "cifar10", "pt4al") or {}), "they make its batches"
    assert "cycles" not in (published.protocol_of("PT4AL, paper", "cifar10", "random") or {})
    assert published.protocol_of("OO4AL, figure", "cifar10", "sbias") is None, "run by another program"
    assert published.differences(THEIRS, None) == ["their settings are not published"]


def test_a_method_that_was_not_run_stands_alone() -> None:
    empty = pd.DataFrame(columns=["dataset", "method", "label", "seed", "cycle", "labelled", "accuracy"])
    table = published.compare(empty, {}, "caltech101")
    assert len(table) == 10
    assert set(table.verdict) == {"not run here"}
    assert table.labelled.iloc[0] == "cycle 1"
    assert math.isnan(table.ours.iloc[0])


def test_an_arm_that_the_program_never_had_is_said_in_place_of_a_verdict() -> None:
    for program, methods in published.ARMS.items():
        assert methods <= set(METHODS), program
        assert "random" in methods
    row = ours([0.92, 0.93], program="PT4AL")
    assert row.verdict == "none: the program PT4AL never had oo4al"
    assert row.protocol == "the program PT4AL never had oo4al"
    vaal = {**THEIRS, "method": "vaal", "program": "TA-VAAL"}
    assert published.missing_arm(vaal, published.PROTOCOLS["Sequential-GCN", "cifar10"]) == (
        "the program TA-VAAL never had vaal"
    )
    assert published.missing_arm(vaal | {"program": "Sequential GCN"}, None) is None
    assert published.missing_arm(vaal | {"protocol": "corrected"}, None) is None
    for source, dataset, method in published.load()[["source", "dataset", "method"]].drop_duplicates().values:
        assert published.missing_arm({"method": method}, published.protocol_of(source, dataset, method)) is None


def images(train: str = "training", **changes: Any) -> dict[str, Any]:
    """What a record says of CIFAR-10's images as published."""
    pixels = {"train": cifar.SHA256[train].pixels, "test": cifar.SHA256["test"].pixels} | changes
    return {"parts": {split: {"pixels": digest} for split, digest in pixels.items()}}


def test_other_images_than_the_published_ones_get_no_verdict() -> None:
    frame = pd.DataFrame({"dataset": "cifar10", "method": "oo4al", "label": "oo4al", "seed": [0, 1, 2], "cycle": 10,
                          "labelled": 10_000, "accuracy": [0.920, 0.921, 0.922]})  # fmt: skip
    for runs, protocol in (
        ([images()], "the same"),
        ([images(), images(test="0" * 64)], "other images than the published ones"),
        ([images(train="test")], "other images than the published ones"),
        ([images(), None], "images not recorded, theirs the published ones"),
    ):
        table = published.compare(frame, {"oo4al": THEIRS}, "cifar10", {"oo4al": runs})
        row = table[(table.label == "oo4al") & (table.labelled == "10000")].iloc[0]
        assert row.protocol == protocol
        assert row.verdict.startswith("agrees" if protocol == "the same" else "none: the protocols differ")
    step = images()
    step["parts"]["train"]["pixels"] = cifar.STEP_SHA256.pixels
    assert published.other_images("cifar10_step", [step]) == []
    assert published.other_images("cifar10_step", [images()]) == ["other images than the published ones"]
