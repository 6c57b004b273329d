"""How far confidence is from accuracy: ECE, OE, adaptive ECE, NLL, Brier score, and the temperature that mends it.

Everything takes torch tensors or numpy arrays, computes in float64 and raises `ValueError` for input that is not what
it should be.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

Array = npt.NDArray[Any]

TEMPERATURES = (0.01, 1000.0)
"""The range of `fit_temperature`: its end where the likelihood has no finite best temperature."""


@dataclass(frozen=True, eq=False)
class Bins:
    """A reliability diagram: M equal bins of confidence.

    `edges` (M + 1,), `count` (M,) int64, mean `confidence` (M,) and `accuracy` (M,) of each bin, NaN where it is empty.
    """

    edges: Array
    count: Array
    confidence: Array
    accuracy: Array

    def __len__(self) -> int:
        return len(self.count)


@dataclass(frozen=True, eq=False)
class CalibrationErrors:
    """Measures in 0..1: `ece` expected calibration error, `oe` overconfidence error, `ace` ECE over bins of equal mass,
    `accuracy` of all images, and the `bins` of the reliability diagram. `gap` in −1..1 is the mean confidence of all
    images less their accuracy: above 0 the model is overconfident, below 0 underconfident; no bins are in it."""

    ece: float
    oe: float
    ace: float
    accuracy: float
    gap: float
    bins: Bins


def calibration_errors(
    confidence: Tensor | Array, correct: Tensor | Array, bins: int = 100, drop_full_confidence: bool = False
) -> CalibrationErrors:
    """Calibration of top-1 `confidence` (N,) in 0..1 against `correct` (N,) bool or 0/1, in `bins` equal bins.

    ECE = Σ n_m/N·|acc_m − conf_m| (Naeini et al., AAAI 2015; Guo et al., ICML 2017) and
    OE = Σ n_m/N·conf_m·max(conf_m − acc_m, 0) (Thulasidasan et al., NeurIPS 2019). Bin m holds [m/M, (m + 1)/M);
    a confidence of 1 belongs to the last.

    `drop_full_confidence` is the quirk `ece_drops_full_confidence`: what is 1 in float32, the released program's
    precision, falls out of every bin while N still counts it. `ace`, `accuracy` and `gap` are of all images either way.
    """
    scores, hits = _checked(confidence, correct)
    if isinstance(bins, bool) or not isinstance(bins, int) or bins < 1:
        raise ValueError(f"bins: expected a whole number of at least 1, not {bins!r}")
    kept = scores.astype(np.float32) < 1 if drop_full_confidence else np.ones(len(scores), dtype=bool)
    table = reliability(scores[kept], hits[kept], bins)
    used = table.count > 0
    share, conf, acc = table.count[used] / len(scores), table.confidence[used], table.accuracy[used]
    return CalibrationErrors(
        ece=float((share * np.abs(acc - conf)).sum()),
        oe=float((share * conf * np.maximum(conf - acc, 0)).sum()),
        ace=_adaptive_error(scores, hits, bins),
        accuracy=float(hits.mean()),
        gap=float(scores.mean() - hits.mean()),
        bins=table,
    )


def reliability(scores: Array, hits: Array, bins: int) -> Bins:
    """Counts, mean confidences and accuracies of `bins` equal bins, for scores (N,) and hits (N,) float64."""
    edges = np.arange(bins + 1) / bins  # linspace would put 0.3 a rounding above 3/10
    place = np.searchsorted(edges, scores, side="right") - 1
    place = place.clip(0, bins - 1)
    count = np.bincount(place, minlength=bins)
    divisor = np.where(count > 0, count, np.nan)
    conf = np.bincount(place, weights=scores, minlength=bins) / divisor
    acc = np.bincount(place, weights=hits, minlength=bins) / divisor
    return Bins(edges, count, conf, acc)


def _adaptive_error(scores: Array, hits: Array, bins: int) -> float:
    """Σ n_b/N·|acc_b − conf_b| over bins of equally many images, by ascending confidence (Nixon et al., 2019)."""
    order = np.argsort(scores, kind="stable")
    _, group = np.unique(scores, return_inverse=True)
    # images of one confidence share their mean accuracy, or the bins would depend on the order of the files
    shared = (np.bincount(group, weights=hits) / np.bincount(group))[group]
    parts = np.array_split(order, min(bins, len(scores)))
    return float(sum(abs(shared[part].sum() - scores[part].sum()) for part in parts) / len(scores))


def nll(logits: Tensor | Array, labels: Tensor | Array) -> float:
    """Mean negative log-likelihood in nats of labels (N,) under logits (N, C)."""
    scores, truth = _checked_logits(logits, labels)
    return float(-scores.log_softmax(1).gather(1, truth[:, None]).mean())


def brier(logits: Tensor | Array, labels: Tensor | Array) -> float:
    """Brier score, 0..2: squared error of the probabilities, summed over classes, mean over images (Brier, 1950)."""
    scores, truth = _checked_logits(logits, labels)
    target = torch.nn.functional.one_hot(truth, scores.shape[1])
    return float((scores.softmax(1) - target).square().sum(1).mean())


def fit_temperature(logits: Tensor | Array, labels: Tensor | Array) -> float:
    """The T for which logits (N, C) / T give labels (N,) the least NLL (Guo et al., ICML 2017), by L-BFGS over log T.

    Always a positive number within `TEMPERATURES`: an end of that range where the likelihood keeps rising towards it
    (every label, or none, is the likeliest class), and 1 where T makes no difference.
    """
    from scipy.optimize import minimize  # slow to import, and few runs fit a temperature

    scores, truth = _checked_logits(logits, labels)
    scores = scores - scores.gather(1, truth[:, None])  # only differences to the true class matter
    spread = float(scores.abs().mean())
    if spread == 0:
        return 1.0
    low, high = np.log(TEMPERATURES[0]), np.log(TEMPERATURES[1])

    def loss(log_temperature: Array) -> tuple[float, Array]:
        scaled = scores * float(np.exp(-log_temperature[0]))
        value = float(scaled.logsumexp(1).mean())
        slope = -float((scaled.softmax(1) * scaled).sum(1).mean())
        return value, np.array([slope])

    start = np.array([np.clip(np.log(spread), low, high)])  # the logits' own scale: the slope vanishes far from it
    found = minimize(
        loss, start, jac=True, method="L-BFGS-B", bounds=[(low, high)], options={"ftol": 0.0, "gtol": 1e-10}
    )
    return float(np.clip(np.exp(found.x[0]), *TEMPERATURES))


def fit_temperature_briefly(logits: Tensor | Array, labels: Tensor | Array) -> float:
    """T after the released program's one L-BFGS call: start 1.5, learning rate 0.01, at most 50 iterations.

    Logits (N, C), labels (N,). So short a way stays near its start; the quirk `ts_fit_on_train` asks for it.
    """
    scores, truth = _checked_logits(logits, labels)
    temperature = torch.full((1,), 1.5, dtype=scores.dtype, requires_grad=True)
    optimizer = torch.optim.LBFGS([temperature], lr=0.01, max_iter=50)

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = torch.nn.functional.cross_entropy(scores / temperature, truth)
        value.backward()  # type: ignore[no-untyped-call]
        return value

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[arg-type]
    return float(temperature.detach())


def _numpy(values: Tensor | Array) -> Array:
    return values.detach().cpu().double().numpy() if isinstance(values, Tensor) else np.asarray(values)


def _checked(confidence: Tensor | Array, correct: Tensor | Array) -> tuple[Array, Array]:
    """Both as float64 (N,), after a look at what they hold."""
    scores, hits = _numpy(confidence).astype(np.float64), _numpy(correct).astype(np.float64)
    if scores.ndim != 1 or len(scores) == 0:
        raise ValueError(f"confidence: expected (N,) with at least one image, not {scores.shape}")
    if hits.shape != scores.shape:
        raise ValueError(f"correct: expected {scores.shape}, one an image, not {hits.shape}")
    if not ((scores >= 0) & (scores <= 1 + 1e-6)).all():  # a float32 softmax may exceed 1 by its rounding
        raise ValueError("confidence: expected numbers in 0..1")
    if not np.isin(hits, (0.0, 1.0)).all():
        raise ValueError("correct: expected true or false, one an image")
    return scores.clip(max=1.0), hits


def _checked_logits(logits: Tensor | Array, labels: Tensor | Array) -> tuple[Tensor, Tensor]:
    """Logits (N, C) float64 and labels (N,) int64 on the CPU, after a look at what they hold."""
    scores, truth = torch.as_tensor(logits).detach().cpu().double(), torch.as_tensor(labels).detach().cpu()
    if scores.ndim != 2 or 0 in scores.shape:
        raise ValueError(f"logits: expected (N, C) with at least one image and class, not {tuple(scores.shape)}")
    if truth.shape != scores.shape[:1]:
        raise ValueError(f"labels: expected ({len(scores)},), one an image, not {tuple(truth.shape)}")
    if truth.is_floating_point() or truth.is_complex() or truth.dtype == torch.bool:
        raise ValueError(f"labels: expected whole numbers, not {truth.dtype}")
    truth = truth.long()
    if int(truth.min()) < 0 or int(truth.max()) >= scores.shape[1]:
        raise ValueError(f"labels: expected classes 0..{scores.shape[1] - 1}")
    if not scores.isfinite().all():
        raise ValueError("logits: expected finite numbers")
    return scores, truth
