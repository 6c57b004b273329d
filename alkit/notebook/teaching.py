"""What a method's notebook teaches with: the rule's own source, three images worked through, and two moons.

One made-up model serves every example: three classes, whose directions in a plane of features are 120° apart. The
logits are 2.5 times how far an image lies in each direction, so a reader can follow every number.
"""

from __future__ import annotations

import inspect
import math
from pkgutil import resolve_name
from typing import TYPE_CHECKING, Any

import numpy as np
import pandas as pd
import torch
from torch import Tensor

from alkit.config import Experiment
from alkit.data.randomness import generator
from alkit.methods import Method, get_method
from alkit.strategies import Strategy, TensorPool, make_strategy

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RULES: dict[str, tuple[str, ...]] = {
    **{
        name: (f"strategies.uncertainty.{name}",)
        for name in ("least_confidence", "margin", "entropy", "ranked_margin", "bald")
    },
    "cmam": ("objectives.cmam",),
    "cmam_input": ("objectives.cmam",),
    "mixup": ("objectives.mixup",),
    "oo4al": ("objectives.cmam", "strategies.uncertainty.ranked_margin"),
    "coreset": ("strategies.coreset.k_center_greedy", "strategies.coreset._nearest"),
    "ll4al": ("objectives.ranking_loss", "strategies.predicted_loss.PredictedLoss"),
    "badge": ("strategies.badge.gradient_factors", "strategies.badge.badge"),
    "typiclust": ("strategies.typiclust.typicality", "strategies.typiclust.typiclust"),
    "probcover": ("strategies.probcover.purity_radius", "strategies.probcover.cover_greedily"),
    "max_herding": ("strategies.herding._kernel", "strategies.herding.max_herding"),
    "uncertainty_herding": ("strategies.herding.least_ece_temperature", "strategies.herding.UncertaintyHerding"),
    "dropquery": ("strategies.dropquery.disagreement", "strategies.dropquery.dropquery"),
    "alfa_mix": ("strategies.alfa_mix.anchors", "strategies.alfa_mix.flips"),
    "bait": ("strategies.bait._Exchange.gains", "strategies.bait._Exchange.take"),
    "tcm": ("strategies.tcm.TCM",),
    "dcom": ("strategies.dcom.competence", "strategies.dcom.pure_radii", "strategies.dcom._mixed"),
}
"""The functions that are a method's rule, where it is not its strategy's class as a whole."""

NO_EXAMPLE = {"vaal", "ta_vaal", "pt4al", "pt4al_cold_start", "whole_dataset"}
"""Methods whose query needs more than features and logits of three images."""

DIRECTIONS = torch.tensor([[math.cos(math.radians(a)), math.sin(math.radians(a))] for a in (90, 210, 330)])
IMAGES = ("sure", "between two", "between all")
LABELLED = torch.tensor([[0.1, 1.0], [-0.9, -0.4], [0.8, -0.5], [-0.2, 0.9], [-0.8, -0.6], [0.9, -0.4]])


def rule(method: str) -> Any:
    """The source of the functions that are the method's rule, as notebooks show code."""
    row = get_method(method)
    names = RULES.get(method)
    found = [resolve_name(f"alkit.{name}") for name in names] if names else [type(_strategy(method))]
    return _Code(f"# {row.title}\n" + "\n\n".join(inspect.getsource(thing).rstrip() for thing in found))


def _strategy(method: str) -> Strategy:
    settings: dict[str, Any] = {"method": method}
    return make_strategy(Experiment(**settings))


class _Code:
    """Python source that a notebook colours and a log prints."""

    def __init__(self, source: str) -> None:
        self.source = source

    def __repr__(self) -> str:
        return self.source

    def _repr_markdown_(self) -> str:
        return f"```python\n{self.source}\n```"


class _Watched(TensorPool):
    """A pool that notes what a strategy looked at."""

    seen: set[str]

    def _get(self, name: str) -> Tensor:
        self.seen.add(name)
        return super()._get(name)


def _classify(features: Tensor) -> Tensor:
    return 2.5 * features @ DIRECTIONS.T.to(features)


def example_pool() -> TensorPool:
    """Three candidates (`IMAGES`), six labelled images, two of each class, and the model's view of both."""
    first, second = DIRECTIONS[0], DIRECTIONS[1]
    angle = math.radians(65)  # nearer the first class than the others, but hardly
    middle = 0.1 * torch.tensor([math.cos(angle), math.sin(angle)])
    features = torch.stack([first, 0.98 * (first + second) + 0.02 * first, middle])
    turned = [torch.tensor([[math.cos(a), -math.sin(a)], [math.sin(a), math.cos(a)]]) for a in (-0.5, -0.2, 0.2, 0.5)]
    samples = torch.stack([_classify(features @ turn.T).log_softmax(1) for turn in turned])
    logits, known = _classify(features), _classify(LABELLED)
    labels = known.argmax(1)
    pool = _Watched(
        torch.arange(3), torch.arange(3, 9), labels, 3, reveal=lambda index: (index + 1) % 3, logits=logits,
        labelled_logits=known, log_probs=samples, features=features, labelled_features=LABELLED,
        model_features=features, labelled_model_features=LABELLED, classify=_classify,
        predicted_loss=torch.special.entr(logits.softmax(1)).sum(1), labelled_predicted_loss=torch.zeros(6),
    )  # fmt: skip
    pool.seen = set()
    return pool


def example(method: str, budget: int = 2) -> pd.DataFrame:
    """Three images and what the method's rule makes of them, a row each: what it looked at, utility, when asked.

    The class probabilities p(1) ≥ p(2) ≥ p(3), features in the plane, the loss a module predicts, or probabilities
    under two of the model's samples are shown if the rule looked at them.
    """
    pool = example_pool()
    assert isinstance(pool, _Watched)
    answer = _strategy(method).query(pool, budget, generator(0, "example"))
    seen = set(pool.seen)
    table = pd.DataFrame(index=pd.Index(IMAGES, name="image"))
    if "logits" in seen:
        for place, column in enumerate(pool.logits.softmax(1).sort(1, descending=True).values.T, 1):
            table[f"p({place})"] = column.numpy().round(3)
    if "log_probs" in seen:
        for number in (0, 3):
            ps = [f"({', '.join(f'{p:.2f}' for p in row.tolist())})" for row in pool.log_probs[number].exp()]
            table[f"p of sample {number + 1}"] = ps
    if seen & {"features", "model_features", "labelled_features"}:
        table["features"] = [f"({x:.2f}, {y:.2f})" for x, y in pool.features.tolist()]
        near = torch.cdist(pool.features, LABELLED).amin(1)
        table["to the nearest label"] = near.numpy().round(3)
    if "predicted_loss" in seen:
        table["predicted loss"] = pool.predicted_loss.numpy().round(3)
    table["utility"] = answer.utilities.double().cpu().numpy().round(4) + 0.0
    order = answer.indices.tolist()
    table["asked"] = [("first", "second", "third")[order.index(i)] if i in order else "–" for i in range(3)]
    return table


# --- two moons -------------------------------------------------------------------------------------------------------

MOONS: dict[str, Any] = {
    "dataset": "two_moons", "initial": 6, "initial_balanced": True, "budget": 10, "cycles": 2, "model": "resnet10",
    "width": 8, "epochs": 30, "batch_size": 16, "lr": 0.05, "milestones": [24], "vae_epochs": 1, "pretext_epochs": 2,
}  # fmt: skip


def has_moons(method: Method) -> bool:
    """Whether the method makes a query that two moons can show."""
    return not method.single_cycle


def two_moons(method: str, show: bool = True, seed: int = 0) -> Figure | None:
    """The method's query after 6 labels, on the plane that the points of `two_moons` come from.

    A small network is trained for a few seconds first. Nothing is run or drawn unless `show`: a study's runs do not
    wait for it.
    """
    if not show:
        return None
    from alkit.analysis.plots import asked_on_the_plane
    from alkit.data.synthetic import moon_points
    from alkit.notebook import run as run_experiment

    row = get_method(method)
    settings = MOONS | ({"model": "mc_dropout_cnn"} if row.objective == "weighted" else {})
    run = run_experiment(Experiment(method=method, seed=seed, **settings), quiet=True)
    points = moon_points(run.train.images.cpu().numpy())
    queries = run.queries
    return asked_on_the_plane(
        points, np.asarray(run.train.labels.cpu()), run.train.class_names, queries["query_1"], queries["query_2"],
        queries["candidates_2"], queries["utilities_2"], f"{row.title}: the 10 images asked after 6 labels",
    )  # fmt: skip
