"""The quirk register: every known difference between a paper and its released program, as a switch.

Comes in: a method, a data set, a protocol. Goes out: which switches are on. It knows nothing of what they switch.

A quirk is described here and nowhere else. `protocol: released` switches on every quirk that applies to the
method, `quirks: {id: true}` switches on one. The code asks `experiment.quirk("id")`. What a switch was measured to
change lies in `quirk_effects.csv` beside this file, written by `alkit.analysis.quirk_effects`.
"""

from __future__ import annotations

import csv
import math
from dataclasses import dataclass
from pathlib import Path

from alkit.errors import ConfigError, nearest
from alkit.errors.words import counted, digits_beside_zero
from alkit.methods import METHODS, Method


@dataclass(frozen=True)
class Quirk:
    """One entry: where it was seen, what happens there, what happens here, and to which methods it applies.

    `parameter` is what the switch acts on. `methods`, `objectives` and `strategies` narrow the quirk to some rows
    of the methods table (empty: no restriction); `datasets` to some data sets. `other_arms` are (program, method) pairs
    whose own script does it as we do. `established` says how it is known.
    """

    id: str
    programs: tuple[str, ...]
    place: str
    released: str
    corrected: str
    parameter: str
    methods: tuple[str, ...] = ()
    objectives: tuple[str, ...] = ()
    strategies: tuple[str, ...] = ()
    datasets: tuple[str, ...] = ()
    other_arms: tuple[tuple[str, str], ...] = ()
    established: str = "read in the released program"

    def applies(self, method: Method, dataset: str) -> bool:
        """Whether this switch can change anything for `method` on `dataset`."""
        wanted = [
            (self.methods, method.id),
            (self.objectives, method.objective),
            (self.strategies, method.strategy),
            (self.datasets, dataset),
        ]
        return all(not allowed or value in allowed for allowed, value in wanted)

    def seen(self, program: str | None, method: Method) -> bool:
        """Whether the script that ran `method` in `program` does this (None: in any program)."""
        return program is None or (program in self.programs and (program, method.id) not in self.other_arms)

    @property
    def applies_to(self) -> str:
        """To what the switch applies, in words."""
        names = [name for name, row in METHODS.items() if all(self.applies(row, d) for d in self.datasets or [""])]
        methods = "every method" if len(names) == len(METHODS) else ", ".join(names)
        if len(names) > len(METHODS) / 2 and len(names) < len(METHODS):
            methods = "every method but " + ", ".join(name for name in METHODS if name not in names)
        apart = "".join(f"; not {program}'s {method}" for program, method in self.other_arms)
        return methods + (f" on {', '.join(self.datasets)}" if self.datasets else "") + apart

    @property
    def effects(self) -> list[Effect]:
        """What the switch was measured to change; empty until it was."""
        return [effect for effect in measured_effects() if effect.quirk == self.id]


@dataclass(frozen=True)
class Effect:
    """Released minus corrected, paired by seed: mean of `difference` over `seeds` seeds, and its 95% interval.

    `measure` is `accuracy` (of the last cycle), `area` (under the budget curve) or `ece` (of the last cycle), all
    fractions. `low` and `high` are NaN where the seeds have no spread. `labels` are those of the last cycle, without
    and with the quirk: `80 / 600`.
    """

    quirk: str
    study: str
    dataset: str
    method: str
    measure: str
    seeds: int
    difference: float
    low: float
    high: float
    labels: str


def in_words(effect: Effect) -> str:
    """An effect in points, its interval and where it was measured, on one line."""
    low, high, points = (100 * value for value in (effect.low, effect.high, effect.difference))
    digits = digits_beside_zero((low, high)) if math.isfinite(low) else 1
    numbers = f"{points:+.{digits}f} points"
    if math.isfinite(low):
        numbers += f" ({low:+.{digits}f} to {high:+.{digits}f})"
    without, with_it = effect.labels.split(" / ")
    bought = f", {with_it} labels against {without}" if without != with_it else ""
    return f"{numbers.replace('-', '−')}: {effect.method} on {effect.dataset}, {counted(effect.seeds, 'seed')}{bought}"


EFFECTS_FILE = Path(__file__).with_name("quirk_effects.csv")


def measured_effects(path: Path = EFFECTS_FILE) -> list[Effect]:
    """The rows of the file of measured effects; none if there is no file."""
    if not path.exists():
        return []
    with path.open(encoding="utf-8", newline="") as lines:
        return [
            Effect(row["quirk"], row["study"], row["dataset"], row["method"], row["measure"], int(row["seeds"]),
                   float(row["difference"]), float(row["low"]), float(row["high"]), row["labels"])
            for row in csv.DictReader(lines)
        ]  # fmt: skip


_MULTI_CYCLE = tuple(id for id, method in METHODS.items() if not method.single_cycle)
_LOSS_MODULE = ("loss_prediction",)

_ENTRIES = [
    Quirk(
        "warm_start", ("OO4AL", "LL4AL", "PT4AL"), "main script, cycle loop",
        "the weights carry over from cycle to cycle", "a fresh model each cycle",
        "initial weights of cycles after the first", methods=_MULTI_CYCLE,
        other_arms=(("PT4AL", "random"),),  # a script of its own, which trains once, on 1,000 images
    ),
    Quirk(
        "lr_step_first", ("OO4AL", "LL4AL"), "training loop, scheduler.step() before the epoch",
        "the schedule is stepped before the first epoch, so the drop comes one epoch early",
        "stepped after each epoch", "milestones",
    ),
    Quirk(
        "first_cycle_drop_last", ("Sequential GCN", "TA-VAAL"), "main script, first train_loader",
        "the first cycle's loader drops its last, smaller batch: 896 of 1,000 images an epoch", "all are trained on",
        "batches of the first cycle",
    ),
    Quirk(
        "ranking_bce", ("TA-VAAL",), "LossPredLoss",
        "the ranking loss is the binary cross-entropy of the difference's sigmoid", "the paper's hinge with its margin",
        "ll_margin", objectives=("loss_prediction", "cross_entropy"),
    ),
    Quirk(
        "detach_late", ("LL4AL", "Sequential GCN", "TA-VAAL", "OO4AL"), "training loop, `epoch > EPOCHL`",
        "features are detached from epoch 121", "from epoch 120",
        "ll_detach", objectives=_LOSS_MODULE,
    ),
    Quirk(
        "ece_drops_full_confidence", ("OO4AL",), "calibration measure, half-open bins",
        "a confidence of exactly 1.0 falls out of the sums", "it belongs to the last bin",
        "ece, oe",
    ),
    Quirk(
        "ts_fit_on_train", ("OO4AL",), "temperature scaling",
        "one short L-BFGS call (start 1.5, learning rate 0.01, 50 iterations) fits the temperature on augmented "
        "training images; the published ECE and OE are of the model without it",
        "fitted to the optimum on a held-out part of the labelled set, and measured with it",
        "temperature, ece, oe", methods=("temperature_scaling",),
    ),
    Quirk(
        "hsamp_integer_cost", ("OO4AL", "libact"), "hierarchical sampling, node costs",
        "a node's cost loses its fraction when it is stored, but not the one it is compared with: splits that do not "
        "pay are made", "real numbers",
        "integer_cost", strategies=("hierarchical",),
    ),
    Quirk(
        "hsamp_fixed_quota", ("OO4AL",), "hierarchical sampling, query loop",
        "1000 queries whatever the budget", "the budget",
        "budget", strategies=("hierarchical",),
    ),
    Quirk(
        "gcn_assumes_equal_init", ("OO4AL", "Sequential GCN", "TA-VAAL"), "graph selection, labelled mask",
        "the labelled count is computed as cycle × budget", "the real labelled set",
        "labelled_mask", strategies=("uncertain_gcn", "core_gcn"),
    ),
    Quirk(
        "core_gcn_backbone_features", ("TA-VAAL",), "graph selection, CoreGCN's branch",
        "k-center greedy runs on the backbone's normalised features: the graph network plays no part",
        "on the graph network's hidden features", "features of the greedy cover", strategies=("core_gcn",),
    ),
    Quirk(
        "imagenet_corner_pool", ("OO4AL",), "ResNet forward, avg_pool2d(out, 4); LossNet",
        "a 4×4 average of a 7×7 map: one corner; LL4AL's module too averages 32, 16, 8 and 4 pixels a side of maps of "
        "56, 28, 14 and 7", "global average",
        "pooling of the last stage, and of the loss module", datasets=("imagenet",),
    ),
    Quirk(
        "random_with_replacement", ("Sequential GCN", "TA-VAAL"), "random query",
        "'random' draws repeat, and labelled images go back into the pool: of 10,000 labels bought, 8,695 are "
        "different images on average", "without replacement",
        "random draw", strategies=("random",),
        methods=tuple(id for id, m in METHODS.items() if m.strategy == "random" and not m.whole_pool),
    ),
    Quirk(
        "ranking_loss_for_all", ("TA-VAAL",), "training loop",
        "every baseline trains with the ranking loss", "only LL4AL and TA-VAAL",
        "objective", objectives=("cross_entropy",),
    ),
    Quirk(
        "vae_sequential_loaders", ("OO4AL", "TA-VAAL", "Sequential GCN"), "query, SubsetSequentialSampler",
        "the autoencoder's batches are never shuffled: labelled images in the order bought, candidates in one order, "
        "again and again, the smaller last batch kept", "each pass in a new random order, in whole batches",
        "order of the autoencoder's images", strategies=("vaal", "ta_vaal"),
    ),
    Quirk(
        "vae_kaiming_weights", ("OO4AL", "TA-VAAL", "VAAL", "Sequential GCN"), "kaiming_init",
        "convolutions, the decoder's linear layer and the discriminator begin with Kaiming's normal weights and no "
        "bias; the code's two layers and transposed convolutions do not", "all begin as torch's layers do",
        "initial weights of the autoencoder and the discriminator", strategies=("vaal", "ta_vaal"),
    ),
    Quirk(
        "vae_train_mode_scoring", ("TA-VAAL", "VAAL", "OO4AL", "Sequential GCN"), "query, no vae.eval()",
        "batch-norm is in training mode while scoring", "evaluation mode",
        "mode of the autoencoder", strategies=("vaal", "ta_vaal"),
    ),
    Quirk(
        "rotation_four_passes", ("PT4AL",), "rotation.py, training loop",
        "a step of the rotation task makes four forward passes, each of a quarter of its shuffled views: batch-norm's "
        "running statistics move four times", "one pass over all views of the batch", "pretext training",
        strategies=("pt4al",),
    ),
    Quirk(
        "string_sorted_losses", ("PT4AL",), "make_batches, sorted() of text lines",
        "losses are sorted as text: '4.1e-05' ranks above '0.9'", "sorted as numbers",
        "pt4al_order", strategies=("pt4al",),
    ),
    Quirk(
        "best_test_checkpoint", ("PT4AL",), "main script, test() after each epoch",
        "the epoch with the best TEST accuracy is reported and carried on, for every method: random and the whole data "
        "set too", "the last epoch", "reported epoch",
    ),
    Quirk(
        "normalised_logit_confidence", ("PT4AL",), "main script, confidence sampler",
        "confidence from L2-normalised logits", "from logits",
        "pt4al_sampler", strategies=("pt4al",), methods=("pt4al",),
    ),
    Quirk(
        "bgr_images", ("PT4AL",), "loader, cv2.imread",
        "channels are reversed against the normalisation statistics, for every method", "RGB", "channel order",
    ),
    Quirk(
        "cold_start_batch_5", ("PT4AL",), "cold-start script",
        "the cold-start script reads batch 5", "batch 0",
        "batch of the first query", methods=("pt4al_cold_start",),
    ),
    Quirk(
        "mean_reduced_weights", ("Statistical bias",), "training loop",
        "the weights multiply an already averaged loss", "each image's own loss",
        "weights of the loss", objectives=("weighted",),
    ),
    Quirk(
        "random_scores_per_batch", ("Statistical bias",), "random acquisition",
        "random acquisition scores batches, not images: with ⌈N/64⌉ batches it is uniform over the first ⌈N/64⌉ images "
        "of the pool", "uniform over the pool",
        "sbias_score", strategies=("sbias",),
    ),
    Quirk(
        "imbalance_step", ("OO4AL",), "data set 'CIFAR10-LT'",
        "'CIFAR10-LT' is 50 / 5000 images in turn, the first of each class",
        "offered as cifar10_step; cifar10_lt is exponential",
        "profile of the class counts", datasets=("cifar10_lt",),
    ),
]  # fmt: skip

QUIRKS: dict[str, Quirk] = {entry.id: entry for entry in _ENTRIES}

PROGRAMS: tuple[str, ...] = tuple(dict.fromkeys(program for quirk in _ENTRIES for program in quirk.programs))
"""The released programs that a quirk was seen in."""


def quirk_states(
    protocol: str, chosen: dict[str, bool], method: Method, dataset: str, program: str | None = None
) -> dict[str, bool]:
    """The state of every quirk that applies to `method` on `dataset`.

    `protocol: released` switches on those seen in `program` (None: in any). Raises `ConfigError` for a quirk in
    `chosen` that does not exist or does not apply, and for a program that no quirk was seen in.
    """
    if program is not None and program not in PROGRAMS:
        raise ConfigError(f"program: no program '{program}'{nearest(program, PROGRAMS)}; known: {', '.join(PROGRAMS)}")
    for name in chosen:
        if name not in QUIRKS:
            raise ConfigError(f"quirks: no quirk '{name}'{nearest(name, QUIRKS)} (`alkit quirks` lists them)")
        if not QUIRKS[name].applies(method, dataset):
            raise ConfigError(f"quirks: '{name}' does not apply to method '{method.id}' on data set '{dataset}'")
    return {
        name: chosen.get(name, protocol == "released" and quirk.seen(program, method))
        for name, quirk in QUIRKS.items()
        if quirk.applies(method, dataset)
    }
