"""Calibration measures against their definitions, written as loops, and against second sources."""

import math

import numpy as np
import pytest
import torch
from sklearn.calibration import calibration_curve
from sklearn.metrics import log_loss

from alkit.calibration import TEMPERATURES, brier, calibration_errors, fit_temperature, nll


def predictions(count=400, seed=0, full=0.1):
    rng = np.random.default_rng(seed)
    confidence = rng.random(count)
    confidence[rng.random(count) < full] = 1.0
    return confidence, rng.random(count) < confidence**2


def errors_by_loop(confidence, correct, bins, drop=False):
    """ECE and OE as the text has them: bin by bin, image by image."""
    total, ece, oe = len(confidence), 0.0, 0.0
    for m in range(bins):
        low, high = m / bins, (m + 1) / bins
        inside = [
            i for i in range(total)
            if low <= confidence[i] < high or (m == bins - 1 and confidence[i] == 1 and not drop)
        ]  # fmt: skip
        if not inside:
            continue
        acc = sum(bool(correct[i]) for i in inside) / len(inside)
        conf = sum(float(confidence[i]) for i in inside) / len(inside)
        ece += len(inside) / total * abs(acc - conf)
        oe += len(inside) / total * conf * max(conf - acc, 0.0)
    return ece, oe


@pytest.mark.parametrize("bins", [1, 7, 15, 100])
@pytest.mark.parametrize("drop", [False, True])
def test_ece_and_oe_are_the_sums_over_bins(bins, drop):
    confidence, correct = predictions()
    errors = calibration_errors(confidence, correct, bins, drop)
    assert (errors.ece, errors.oe) == pytest.approx(errors_by_loop(confidence, correct, bins, drop), abs=1e-12)
    assert errors.accuracy == pytest.approx(sum(correct) / len(correct))


def test_a_worked_example():
    errors = calibration_errors(np.array([0.6, 0.7, 0.9, 1.0]), np.array([1, 0, 0, 1]), bins=2)
    assert errors.ece == pytest.approx(0.8 - 0.5)
    assert errors.oe == pytest.approx(0.8 * 0.3)
    assert errors.bins.count.tolist() == [0, 4]


def test_a_confidence_of_one_belongs_to_the_last_bin():
    errors = calibration_errors(np.array([1.0, 1.0]), np.array([True, False]))
    assert errors.ece == pytest.approx(0.5)
    assert errors.bins.count[-1] == 2


def test_under_the_quirk_it_falls_out_of_the_sums_but_is_still_counted():
    confidence, correct = np.array([1.0, 0.5]), np.array([False, False])
    errors = calibration_errors(confidence, correct, drop_full_confidence=True)
    assert errors.ece == pytest.approx(0.5 / 2)  # the mean over both images, one of them gone
    assert errors.bins.count.sum() == 1
    assert errors.accuracy == 0
    assert calibration_errors(confidence[:1], correct[:1], drop_full_confidence=True).ece == 0


def test_under_the_quirk_full_means_full_in_float32():
    assert calibration_errors(np.array([1 - 1e-9]), np.array([False]), drop_full_confidence=True).ece == 0
    assert calibration_errors(np.array([1 - 1e-6]), np.array([False]), drop_full_confidence=True).ece > 0.9


def test_a_confidence_on_an_edge_belongs_to_the_bin_above():
    errors = calibration_errors(np.arange(10) / 10, np.ones(10), bins=10)
    assert errors.bins.count.tolist() == [1] * 10


def test_the_bins_are_the_reliability_curve_of_scikit_learn():
    confidence, correct = predictions(full=0.0)
    bins = calibration_errors(confidence, correct, bins=20).bins
    accuracy, mean = calibration_curve(correct, confidence, n_bins=20)
    used = bins.count > 0
    np.testing.assert_allclose(bins.accuracy[used], accuracy)
    np.testing.assert_allclose(bins.confidence[used], mean)
    np.testing.assert_allclose(bins.edges, np.linspace(0, 1, 21))
    assert bins.count.sum() == len(confidence)
    assert len(bins) == 20


def test_the_gap_is_signed_and_has_no_bins():
    confidence, correct = predictions()
    slow = sum(float(c) for c in confidence) / 400 - sum(bool(c) for c in correct) / 400
    for bins in (1, 15, 100):
        assert calibration_errors(confidence, correct, bins).gap == pytest.approx(slow)
    assert calibration_errors(np.array([0.9, 0.9]), np.array([1, 0])).gap == pytest.approx(0.4), "overconfident"
    assert calibration_errors(np.array([0.6, 0.6]), np.array([1, 1])).gap == pytest.approx(-0.4), "underconfident"


def test_empty_bins_have_no_accuracy():
    bins = calibration_errors(np.array([0.95]), np.array([1]), bins=10).bins
    assert np.isnan(bins.accuracy[:9]).all()
    assert bins.accuracy[9] == 1


def test_the_adaptive_error_is_ece_over_bins_of_equal_mass():
    confidence, correct = predictions(count=103, full=0.0)
    order = sorted(range(103), key=lambda i: confidence[i])
    by_hand, start = 0.0, 0
    for b in range(10):
        size = 103 // 10 + (b < 103 % 10)
        part = order[start : start + size]
        start += size
        by_hand += abs(sum(float(correct[i]) - confidence[i] for i in part)) / 103
    assert calibration_errors(confidence, correct, bins=10).ace == pytest.approx(by_hand)


def test_no_measure_depends_on_the_order_of_the_images():
    confidence, correct = predictions(full=0.7)
    shuffled = np.random.default_rng(1).permutation(len(confidence))
    one, other = calibration_errors(confidence, correct), calibration_errors(confidence[shuffled], correct[shuffled])
    assert (one.ece, one.oe, one.ace) == pytest.approx((other.ece, other.oe, other.ace), abs=1e-12)


def test_fewer_images_than_bins_make_bins_of_one():
    errors = calibration_errors(np.array([0.2, 0.9]), np.array([0, 1]), bins=100)
    assert errors.ace == pytest.approx((0.2 + 0.1) / 2)


def test_a_perfectly_calibrated_model_has_no_error():
    confidence = np.repeat([0.25, 0.5, 0.75], 4)
    correct = np.array([1, 0, 0, 0, 1, 1, 0, 0, 1, 1, 1, 0])
    errors = calibration_errors(confidence, correct)
    assert (errors.ece, errors.oe) == pytest.approx((0, 0))
    assert errors.ace == pytest.approx(0)


def test_tensors_and_arrays_give_the_same():
    confidence, correct = predictions()
    as_tensors = calibration_errors(torch.tensor(confidence).requires_grad_(), torch.tensor(correct))
    assert as_tensors.ece == calibration_errors(confidence, correct).ece
    assert isinstance(as_tensors.ece, float)


@pytest.mark.parametrize(
    ("confidence", "correct", "name"),
    [
        ([0.5, 1.2], [1, 0], "confidence"),
        ([0.5, -0.1], [1, 0], "confidence"),
        ([0.5, math.nan], [1, 0], "confidence"),
        ([], [], "confidence"),
        ([[0.5]], [[1]], "confidence"),
        ([0.5, 0.5], [1], "correct"),
        ([0.5, 0.5], [1, 2], "correct"),
        ([0.5, 0.5], [1, math.nan], "correct"),
    ],
)
def test_impossible_predictions_are_refused_by_name(confidence, correct, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        calibration_errors(np.array(confidence), np.array(correct))


@pytest.mark.parametrize("bins", [0, -1, 2.5, True])
def test_impossible_numbers_of_bins_are_refused(bins):
    with pytest.raises(ValueError, match=r"^bins"):
        calibration_errors(np.array([0.5]), np.array([1]), bins)


def logits_and_labels(count=300, classes=5, scale=3.0, seed=0):
    source = torch.Generator().manual_seed(seed)
    logits = scale * torch.randn(count, classes, generator=source, dtype=torch.float64)
    labels = torch.multinomial(logits.softmax(1), 1, generator=source)[:, 0]
    return logits, labels


def test_nll_is_scikit_learns_log_loss():
    logits, labels = logits_and_labels()
    assert nll(logits, labels) == pytest.approx(log_loss(labels, logits.softmax(1), labels=range(5)))


def test_nll_of_saturated_logits_is_finite():
    assert nll(torch.tensor([[1e4, 0.0]]), torch.tensor([1])) == pytest.approx(1e4)
    assert nll(torch.tensor([[1e4, 0.0]]), torch.tensor([0])) == 0


def test_the_brier_score_sums_over_classes_and_averages_over_images():
    logits, labels = logits_and_labels(20)
    total = 0.0
    for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
        whole = sum(math.exp(z) for z in row)
        total += sum((math.exp(z) / whole - (c == label)) ** 2 for c, z in enumerate(row))
    assert brier(logits, labels) == pytest.approx(total / 20)
    assert brier(torch.tensor([[0.0, 100.0]]), torch.tensor([0])) == pytest.approx(2)


@pytest.mark.parametrize("scale", [0.05, 0.5, 1.0, 4.0, 80.0])
def test_the_temperature_is_the_best_of_a_grid(scale):
    logits, labels = logits_and_labels(500)
    found = fit_temperature(logits * scale, labels)
    grid = np.geomspace(*TEMPERATURES, 4000)
    losses = [nll(logits * scale / t, labels) for t in grid]
    best = grid[int(np.argmin(losses))]
    assert found == pytest.approx(best, rel=3e-3)
    assert nll(logits * scale / found, labels) <= min(losses) + 1e-9


def test_the_temperature_scales_with_the_logits():
    logits, labels = logits_and_labels()
    assert fit_temperature(logits * 7, labels) == pytest.approx(7 * fit_temperature(logits, labels), rel=1e-5)


@pytest.mark.parametrize("scale", [1e-8, 1e-3, 1.0, 1e3, 1e8])
@pytest.mark.parametrize("truth", ["likeliest", "unlikeliest", "mixed"])
def test_the_temperature_stays_in_its_range_whatever_the_logits(scale, truth):
    logits, labels = logits_and_labels(50)
    labels = {"likeliest": logits.argmax(1), "unlikeliest": logits.argmin(1), "mixed": labels}[truth]
    found = fit_temperature((logits * scale).float(), labels)
    assert TEMPERATURES[0] <= found <= TEMPERATURES[1]
    assert nll(logits * scale / found, labels) <= nll(logits * scale, labels) + 1e-9


def test_separable_and_hopeless_logits_go_to_the_ends_of_the_range():
    logits, _ = logits_and_labels(50, scale=1.0)
    assert fit_temperature(logits, logits.argmax(1)) < 0.1
    assert fit_temperature(logits, logits.argmin(1)) == pytest.approx(TEMPERATURES[1])


def test_one_class_or_equal_logits_leave_the_temperature_at_one():
    assert fit_temperature(torch.randn(5, 1), torch.zeros(5).long()) == 1
    assert fit_temperature(torch.ones(5, 3), torch.tensor([0, 1, 2, 0, 1])) == 1


def test_the_temperature_changes_no_prediction():
    logits, labels = logits_and_labels()
    assert torch.equal((logits / fit_temperature(logits, labels)).argmax(1), logits.argmax(1))


@pytest.mark.parametrize("measure", [nll, brier, fit_temperature])
@pytest.mark.parametrize(
    ("logits", "labels", "name"),
    [
        (torch.zeros(3), torch.zeros(3).long(), "logits"),
        (torch.zeros(0, 3), torch.zeros(0).long(), "logits"),
        (torch.tensor([[math.nan, 0.0]]), torch.tensor([0]), "logits"),
        (torch.tensor([[math.inf, 0.0]]), torch.tensor([0]), "logits"),
        (torch.zeros(3, 2), torch.zeros(2).long(), "labels"),
        (torch.zeros(1, 2), torch.tensor([2]), "labels"),
        (torch.zeros(1, 2), torch.tensor([-1]), "labels"),
        (torch.zeros(1, 2), torch.tensor([0.0]), "labels"),
    ],
)
def test_impossible_logits_and_labels_are_refused_by_name(measure, logits, labels, name):
    with pytest.raises(ValueError, match=f"^{name}"):
        measure(logits, labels)
