"""Study folders with planted truth, in the format that runs leave: for tests of whatever reads records."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from alkit import Experiment

POOL, TEST, CLASSES = 1437, 360, 10  # of the data set digits

PLANTED = {"random": 0.0, "ranked_margin": 0.0, "cmam": 0.02, "oo4al": 0.03}
"""How much better than `random` each label is from cycle 2 on."""
TRAINING = 0.02
"""How much better a label is at cycle 1 whose training is not that of `random`."""


def write_study(
    folder: Path,
    planted: dict[str, float] | None = None,
    seeds: int = 5,
    cycles: int = 5,
    noise: float = 0.004,
    class_names: list[str] | None = None,
    variants: dict[str, dict[str, Any]] | None = None,
    arrays: bool = True,
    **parameters: Any,
) -> Path:
    """Write the study folder `folder` and return it.

    Accuracy is a curve in the labels + the label's planted part + an effect of the seed shared by all labels + noise
    of deviation `noise`. At cycle 1 only the training matters: the gain there is `TRAINING` or nothing.
    """
    planted, variants = PLANTED if planted is None else planted, variants or {}
    parameters = {"dataset": "digits", "initial": 20, "budget": 20, "cycles": cycles} | parameters
    content = {
        "study": folder.name, "title": "A study with planted truth", "seeds": list(range(seeds)),
        "methods": [label for label in planted if label not in variants], "variants": variants, **parameters,
    }  # fmt: skip
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "study.yaml").write_text(yaml.safe_dump(content, sort_keys=False))
    for label, gain in planted.items():
        own = {"label": label, **variants[label]} if label in variants else {"method": label}
        for seed in range(seeds):
            experiment = Experiment(**(parameters | own | {"seed": seed}))
            write_run(folder / label / f"seed-{seed}", experiment, gain, noise, class_names, arrays)
    return folder


def write_run(
    folder: Path,
    experiment: Experiment,
    gain: float = 0.0,
    noise: float = 0.004,
    class_names: list[str] | None = None,
    arrays: bool = True,
) -> dict[str, Any]:
    """Write one finished run of `experiment` and return its record."""
    folder.mkdir(parents=True, exist_ok=True)
    seed = experiment.seed
    shared = np.random.default_rng([seed, 1])  # the same for all labels of a seed: the first query, luck of the seed
    first, luck = shared.permutation(POOL), 0.01 * shared.standard_normal()
    trained = experiment.row.objective + str(experiment.name != experiment.method)
    training = np.random.default_rng([seed, *trained.encode()])  # the same noise for the same training at cycle 1
    name = np.frombuffer(hashlib.sha256(experiment.name.encode()).digest()[:8], dtype=np.uint32)
    own = np.random.default_rng([seed, *name.tolist()])
    bought = POOL if experiment.row.whole_pool else experiment.first_count
    queries, taken, records, predictions = {}, np.array([], dtype=np.int64), [], []
    labels = np.random.default_rng(0).integers(0, CLASSES, TEST)
    pool_labels = np.random.default_rng(1).integers(0, CLASSES, POOL)
    for cycle in range(1, experiment.cycle_count + 1):
        if cycle == 1:
            query = (first if experiment.initial else own.permutation(POOL))[:bought]
        else:
            rest = np.setdiff1d(np.arange(POOL), taken)
            query = own.choice(rest, experiment.budget, replace=False)
            queries[f"candidates_{cycle}"] = rest.astype(np.int32)
            queries[f"utilities_{cycle}"] = own.random(len(rest)).astype(np.float32)
        taken = np.concatenate([taken, query]).astype(np.int64)
        queries[f"query_{cycle}"] = query.astype(np.int64)
        at_start = 0.0 if experiment.row.objective == "cross_entropy" else TRAINING
        part = at_start if cycle == 1 and not experiment.row.whole_pool else gain
        error = noise * (training if cycle == 1 else own).standard_normal()
        accuracy = float(np.clip(0.95 - 0.9 * np.exp(-len(taken) / 45) + luck + part + error, 0, 1))
        prediction = _predict(accuracy, labels, own)
        predictions.append(prediction)
        records.append(
            {
                "cycle": cycle, "labelled": len(taken), "accuracy": accuracy, "nll": 1.5 - accuracy,
                "brier": 1 - accuracy**2, "gap": 0.1 * (1 - accuracy), "bins": experiment.ece_bins,
                "ece": 0.3 * (1 - accuracy), "oe": 0.2 * (1 - accuracy),
                "ace": 0.31 * (1 - accuracy), "train_loss": 0.1, "epochs": experiment.epochs,
                "temperature": 1.5 if experiment.row.calibrated else None, "reveals_within_cycle": False,
                "query_sha256": hashlib.sha256(query.astype("<i8").tobytes()).hexdigest(),
                "class_counts": np.bincount(pool_labels[taken], minlength=CLASSES).tolist(),
                "seconds": {"train": 2.0 * len(taken) / 20, "evaluate": 0.1, "query": 0.05 * cycle},
            }
        )  # fmt: skip
    record = {
        "schema": 1, "dataset": experiment.dataset, "method": experiment.method, "label": experiment.name,
        "seed": seed, "protocol": experiment.protocol, "params": experiment.model_dump(mode="json"),
        "quirks": experiment.quirk_states, "class_names": class_names or [str(digit) for digit in range(CLASSES)],
        "pool_size": POOL, "test_size": TEST, "data": {}, "cycles": records,
        "environment": {"python": "3.11.7", "torch": "2.14.1", "device": "cpu", "threads": 1,
                        "precision": "float32", "git_commit": "0" * 40, "alkit": "0.1.0"},
        "started": "2026-01-01T00:00:00+00:00", "finished": "2026-01-01T00:02:00+00:00",
    }  # fmt: skip
    (folder / "run.yaml").write_text(yaml.safe_dump({"dataset": experiment.dataset, "seed": seed}))
    if arrays:
        np.savez(folder / "queries.npz", **queries)
        stacked = {key: np.stack([p[key] for p in predictions]) for key in predictions[0] if key != "logits_last"}
        np.savez(folder / "predictions.npz", **stacked, logits_last=predictions[-1]["logits_last"],
                 labels=labels.astype(np.int16))  # fmt: skip
    (folder / "result.json").write_text(json.dumps(record))
    return record


def _predict(accuracy: float, labels: np.ndarray, generator: np.random.Generator) -> dict[str, np.ndarray]:
    """Overconfident predictions of this accuracy, to a whole image, for the test labels."""
    correct = generator.random(TEST).argsort().argsort() < round(accuracy * TEST)
    named = np.where(correct, labels, (labels + generator.integers(1, CLASSES, TEST)) % CLASSES)
    logits = generator.standard_normal((TEST, CLASSES))
    logits[np.arange(TEST), named] = logits.max(1) + np.where(correct, 4.0, 2.0) * generator.random(TEST) + 0.5
    logits = logits.astype(np.float16)
    log_probs = logits - np.log(np.exp(logits.astype(float)).sum(1, keepdims=True))
    return {
        "confidence": np.exp(log_probs.max(1)).astype(np.float32), "correct": named == labels,
        "predicted": named.astype(np.int16), "logits_last": logits,
        "log_prob_true": log_probs[np.arange(TEST), labels].astype(np.float32),
    }  # fmt: skip


__all__ = ["PLANTED", "write_run", "write_study"]
