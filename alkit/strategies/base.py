"""What a strategy sees, what it answers, and how it is found by name."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pkgutil import iter_modules
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from alkit.errors import ConfigError, nearest

if TYPE_CHECKING:
    from alkit.config import Experiment
    from alkit.data import Facts, ImageSet


@dataclass(frozen=True)
class Query:
    """The answer of a strategy.

    `indices` (budget,) int64 are images of the data set in the order they are asked for; `utilities` (n,) is one
    number a candidate, the highest asked first where the strategy is a ranking. `masses` (budget,) is the
    probability with which each was drawn, for strategies that draw from a proposal. `returned` are what goes
    back into the pool of the candidates, with repeats, where that is not what was not asked for (only under a quirk).
    """

    indices: Tensor
    utilities: Tensor
    masses: Tensor | None = None
    returned: Tensor | None = None


class Pool:
    """What a strategy may look at: n candidates, m labelled images, and the current model's view of them.

    Everything but `candidates`, `labelled` and `labels` is computed when first asked for, once a cycle, and lies on
    the run's device. The learner makes one a cycle; `TensorPool` makes one of tensors that are already there.
    """

    candidates: Tensor  # (n,) int64, ascending: images of the data set that may be asked for
    labelled: Tensor  # (m,) int64, in the order they were bought
    labels: Tensor  # (m,) int64, the labels of `labelled`
    num_classes: int
    cycle: int  # of the model that answers: 1 for the one trained on the first labels

    @property
    def logits(self) -> Tensor:
        """(n, C) float32."""
        raise NotImplementedError

    @property
    def labelled_logits(self) -> Tensor:
        """(m, C) float32."""
        raise NotImplementedError

    @property
    def features(self) -> Tensor:
        """(n, D) float32: what a strategy selects on. Fixed features where the experiment says so, else the model's."""
        raise NotImplementedError

    @property
    def labelled_features(self) -> Tensor:
        """(m, D) float32, of the same kind as `features`."""
        raise NotImplementedError

    @property
    def model_features(self) -> Tensor:
        """(n, D) float32, penultimate: what the current model's last layer takes."""
        raise NotImplementedError

    @property
    def labelled_model_features(self) -> Tensor:
        """(m, D) float32, penultimate."""
        raise NotImplementedError

    def classify(self, model_features: Tensor) -> Tensor:
        """The last layer: logits (k, C) of penultimate features (k, D). Gradients pass through it."""
        raise NotImplementedError

    @property
    def predicted_loss(self) -> Tensor:
        """(n,) float32 from the loss module."""
        raise NotImplementedError

    @property
    def labelled_predicted_loss(self) -> Tensor:
        """(m,) float32 from the loss module."""
        raise NotImplementedError

    @property
    def log_probs(self) -> Tensor:
        """(S, n, C) float32: log-probabilities under S samples of the model's posterior."""
        raise NotImplementedError

    @property
    def images(self) -> ImageSet:
        """The training images; index them with `candidates` and `labelled`."""
        raise NotImplementedError

    def reveal(self, index: int) -> int:
        """Buy the label of the image `index` now, within the cycle (hierarchical sampling)."""
        raise NotImplementedError


class Strategy:
    """Chooses what to label next. A subclass is thin: it calls a pure function on tensors.

    `first_query` may choose the first labelled set (None: drawn at random); `candidates` the part of the pool that
    is looked at (by default `subset` images drawn at random, or all). With `starts_empty` its `query` can also choose
    while nothing is labelled and there is no model: then it may look at `pool.features` alone.
    """

    reveals_within_cycle = False
    starts_empty: bool = False

    def __init__(self, experiment: Experiment) -> None:
        self.experiment = experiment

    def check(self, facts: Facts) -> None:
        """Raise `ConfigError` for parameters and images that it cannot choose by or from; before a run starts."""

    def first_query(self, unlabelled: Tensor, count: int) -> Tensor | None:
        """The first labelled set, (count,) int64, or None to have it drawn at random."""
        return None

    def candidates(self, unlabelled: Tensor, cycle: int, generator: torch.Generator) -> Tensor:
        """The images (n,) of `unlabelled` (ascending) that may be queried after `cycle`, ascending."""
        subset = self.experiment.subset
        if subset is None or subset >= len(unlabelled):
            return unlabelled
        chosen = torch.randperm(len(unlabelled), generator=generator)[:subset]
        return unlabelled[chosen.sort().values]

    def query(self, pool: Pool, budget: int, generator: torch.Generator) -> Query:
        """Ask for `budget` of `pool.candidates`; `generator` (on the CPU) is the only source of randomness."""
        raise NotImplementedError


_STRATEGIES: dict[str, type[Strategy]] = {}


def register(*names: str) -> Callable[[type[Strategy]], type[Strategy]]:
    """Class decorator: the strategy is called by one of `names` in the methods table.

    A strategy of one's own may be defined again where it was defined, so that a notebook's cell can be run twice and a
    module reloaded; any other double raises `ConfigError`.
    """

    def add(strategy: type[Strategy]) -> type[Strategy]:
        own = not strategy.__module__.startswith("alkit.")
        if own:
            import_all()  # the kit's own names must be known to be refused
        for name in names:
            known = _STRATEGIES.get(name)
            if known is not None and not (own and known.__module__ == strategy.__module__):
                raise ConfigError(
                    f"two strategies are called '{name}', in {known.__module__} and {strategy.__module__}"
                )
        _STRATEGIES.update(dict.fromkeys(names, strategy))
        return strategy

    return add


def import_all() -> None:
    """Import every module of this package, so that every strategy of the kit is registered."""
    for module in iter_modules(import_module("alkit.strategies").__path__):
        import_module(f"alkit.strategies.{module.name}")


def make_strategy(experiment: Experiment) -> Strategy:
    """The strategy of the experiment's method. Raises `ConfigError` if none is registered under its name."""
    name = experiment.row.strategy
    if name not in _STRATEGIES:
        import_all()
    if name not in _STRATEGIES:
        raise ConfigError(
            f"method: '{experiment.method}' asks for a strategy '{name}' that is not registered"
            f"{nearest(name, _STRATEGIES)} (`alkit.strategies.register`)"
        )
    return _STRATEGIES[name](experiment)


def check_start(experiment: Experiment) -> None:
    """Refuse `initial: 0` for a strategy that cannot choose without a model, or has no features to choose by."""
    if experiment.initial or experiment.row.whole_pool:
        return
    if not make_strategy(experiment).starts_empty:
        raise ConfigError(
            f"initial: method '{experiment.method}' cannot choose before there is a model; expected at least 1 image"
        )
    if "features" in experiment.row.needs and not experiment.selects_on_features:
        raise ConfigError(
            f"initial: method '{experiment.method}' has nothing to choose by before there is a model; give it features "
            "(`alkit features`)"
        )


def check_tensor(value: object, name: str, length: int | None = None, whole: bool = False) -> None:
    """Refuse what is not a tensor (length,) of numbers (`whole` ones); `ConfigError` says what was expected."""
    kind = "whole numbers" if whole else "numbers"
    wanted = f"a tensor ({'n' if length is None else length},) of {kind}"
    if not isinstance(value, Tensor):
        raise ConfigError(f"{name}: expected {wanted}, not a {type(value).__name__}")
    if value.ndim != 1 or (length is not None and len(value) != length):
        raise ConfigError(f"{name}: expected {wanted}, not one of shape {tuple(value.shape)}")
    if value.dtype == torch.bool or value.is_complex() or (whole and value.is_floating_point()):
        raise ConfigError(f"{name}: expected {wanted}, not of {str(value.dtype).removeprefix('torch.')}")


def check_images(value: Tensor, name: str, among: Tensor, length: int | None = None, repeats: bool = False) -> None:
    """Refuse what is not a tensor (length,) of images of `among` (n,), each once unless `repeats`, in a sentence."""
    check_tensor(value, name, length, whole=True)
    images = value.cpu()
    strange = images[~torch.isin(images, among)]
    if len(strange):
        raise ConfigError(
            f"{name}: {int(strange[0])} is none of the {len(among)} images to choose from; `pool.candidates[positions]`"
            " are images"
        )
    found, counts = images.unique(return_counts=True)
    if not repeats and len(found) < len(images):
        raise ConfigError(f"{name}: image {int(found[counts > 1][0])} is there twice; expected each at most once")


def check_query(answer: object, candidates: Tensor, budget: int) -> None:
    """Refuse the answer of a strategy that is not a `Query` for `budget` of the `candidates` (n,), in a sentence."""
    if not isinstance(answer, Query):
        raise ConfigError(
            f"query: expected a Query, not a {type(answer).__name__}; `top_query(pool, utilities, budget)` makes one "
            "that asks for the highest utilities, `Query(indices, utilities)` is any other"
        )
    check_images(answer.indices, "indices", candidates, budget, repeats=answer.returned is not None)
    check_tensor(answer.utilities, "utilities", len(candidates))
    if answer.masses is not None:
        check_tensor(answer.masses, "masses", budget)


def top(utilities: Tensor, budget: int) -> Tensor:
    """Positions (budget,) of the highest utilities, highest first; ties by lowest position. NaN is refused."""
    if torch.isnan(utilities).any():
        raise ValueError("a utility is not a number")
    return torch.argsort(utilities, descending=True, stable=True)[:budget]


def top_query(pool: Pool, utilities: Tensor, budget: int) -> Query:
    """The query that asks for the candidates of highest utility (n,). `ConfigError` for anything but such a tensor."""
    check_tensor(utilities, "utilities", len(pool.candidates))
    chosen = top(utilities, budget).to(pool.candidates.device)
    return Query(pool.candidates[chosen], utilities)


class TensorPool(Pool):
    """A pool of tensors that are already there: somebody else's model, or a test.

    `TensorPool(candidates, labelled, labels, num_classes, logits=…, features=…, …)`. Without `model_features` the model
    is taken to be a linear one on the `features`.
    """

    def __init__(
        self,
        candidates: Tensor,
        labelled: Tensor,
        labels: Tensor,
        num_classes: int,
        cycle: int = 1,
        reveal: Callable[[int], int] | None = None,
        **tensors: object,
    ) -> None:
        self.candidates, self.labelled, self.labels = candidates, labelled, labels
        self.num_classes, self.cycle = num_classes, cycle
        for fixed, of_model in (("features", "model_features"), ("labelled_features", "labelled_model_features")):
            if fixed in tensors:
                tensors.setdefault(of_model, tensors[fixed])
        self._reveal, self._tensors = reveal, tensors

    def _get(self, name: str) -> Tensor:
        if name not in self._tensors:
            raise ValueError(f"this pool was made without {name}")
        return self._tensors[name]  # type: ignore[return-value]

    logits = property(lambda self: self._get("logits"))
    labelled_logits = property(lambda self: self._get("labelled_logits"))
    model_features = property(lambda self: self._get("model_features"))
    labelled_model_features = property(lambda self: self._get("labelled_model_features"))
    features = property(lambda self: self._get("features"))
    labelled_features = property(lambda self: self._get("labelled_features"))
    predicted_loss = property(lambda self: self._get("predicted_loss"))
    labelled_predicted_loss = property(lambda self: self._get("labelled_predicted_loss"))
    log_probs = property(lambda self: self._get("log_probs"))
    images = property(lambda self: self._get("images"))

    def classify(self, model_features: Tensor) -> Tensor:
        last: Callable[[Tensor], Tensor] = self._get("classify")  # type: ignore[assignment]
        return last(model_features)

    def reveal(self, index: int) -> int:
        if self._reveal is None:
            raise ValueError("this pool was made without reveal")
        return self._reveal(index)
