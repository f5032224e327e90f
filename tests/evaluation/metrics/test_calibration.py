from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.optimize import minimize_scalar

from thawlab.evaluation.metrics.calibration import (
    _CHANCE,
    _SPREAD,
    expected_calibration_error,
    fit_temperature,
    log_loss,
    reliability,
)


def _drawn(n: int, classes: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return calibrated logits and labels that are drawn from them."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 2, (n, classes))
    labels = (logits + rng.gumbel(size=logits.shape)).argmax(axis=1)
    return logits, labels


@pytest.mark.parametrize("true", [0.3, 1.0, 2.5, 7.0])
def test_a_known_temperature_is_recovered_within_two_percent(true: float) -> None:
    logits, labels = _drawn(60_000, 10, seed=1)
    assert fit_temperature((logits * true).astype(np.float32), labels) == pytest.approx(true, rel=0.02)


def test_fitting_is_never_worse_than_leaving_it_on_the_fitted_samples() -> None:
    for seed in range(100):
        rng = np.random.default_rng(seed)
        n, classes = int(rng.integers(1, 30)), int(rng.integers(2, 8))
        logits = rng.normal(0, rng.choice([0.0, 0.1, 1, 30]), (n, classes)).astype(np.float32)
        labels = rng.integers(0, classes, n)
        temperature = fit_temperature(logits, labels)
        assert 0.05 <= temperature <= 20
        assert log_loss(logits, labels, temperature) <= log_loss(logits, labels)


def test_the_fit_is_the_minimum() -> None:
    logits, labels = _drawn(20_000, 4, seed=3)
    best = fit_temperature(logits * 2, labels)
    losses = [log_loss(logits * 2, labels, best * factor) for factor in (0.98, 1.0, 1.02)]
    assert min(losses) == losses[1]


@pytest.mark.parametrize("seed", range(12))
def test_the_place_of_the_minimum_is_that_of_scipy(seed: int) -> None:
    n = [60, 400, 5000][seed % 3]
    logits, labels = _drawn(n, 6, seed)
    logits *= 1 + seed / 4

    def expected(log_t: float) -> float:
        return log_loss(logits, labels, float(np.exp(log_t))) + log_t**2 / (2 * n * _SPREAD**2)

    found = float(minimize_scalar(expected, bounds=(-3, 3), method="bounded", options={"xatol": 1e-7}).x)
    gain = 2 * n * (log_loss(logits, labels) - log_loss(logits, labels, float(np.exp(found))))
    known = float(np.exp(found * (1 - _CHANCE / gain))) if gain > _CHANCE else 1.0
    assert fit_temperature(logits, labels) == pytest.approx(known, rel=1e-4)


def test_a_few_samples_that_are_all_right_do_not_make_a_classifier_certain_of_everything() -> None:
    for seed in range(50):
        logits, labels = _drawn(8, 10, seed)
        logits[np.arange(8), labels] += 8  # all right, with some confidence
        assert fit_temperature(logits, labels) == 1.0
    # With many samples the evidence counts, and is bounded.
    many = np.eye(3, dtype=np.float32)[np.arange(3000) % 3], np.arange(3000) % 3
    assert 0.05 <= fit_temperature(*many) < 0.2
    assert 20 >= fit_temperature(-many[0], many[1]) > 5


@pytest.mark.parametrize("n", [5, 10, 20, 50, 100, 1000])
@pytest.mark.parametrize("overconfidence", [1.0, 1.5, 3.0])
def test_a_temperature_fitted_on_few_samples_does_not_harm_the_others(n: int, overconfidence: float) -> None:
    changes = []
    for seed in range(60):
        logits, labels = _drawn(n + 2000, 10, seed)
        logits *= overconfidence
        temperature = fit_temperature(logits[:n], labels[:n])
        changes.append(log_loss(logits[n:], labels[n:], temperature) - log_loss(logits[n:], labels[n:]))
    error = np.std(changes) / np.sqrt(len(changes))
    assert np.mean(changes) <= (3e-3 if overconfidence == 1.0 else 2 * error)
    assert max(changes) < 0.1


def test_nothing_to_fit_leaves_the_temperature_at_one() -> None:
    nothing = np.zeros((0, 3), np.float32), np.zeros(0, np.int64)
    assert fit_temperature(*nothing) == 1.0
    assert np.isnan(log_loss(*nothing))
    assert np.isnan(expected_calibration_error(np.zeros((0, 3)), nothing[1]))


def test_the_log_loss_is_torchs_cross_entropy() -> None:
    for seed in range(20):
        logits, labels = _drawn(50, 5, seed)
        expected = torch.nn.functional.cross_entropy(torch.from_numpy(logits / 1.7), torch.from_numpy(labels))
        assert log_loss(logits, labels, 1.7) == pytest.approx(float(expected), rel=1e-12)


def test_the_log_loss_of_a_certain_mistake_is_finite() -> None:
    assert log_loss(np.array([[1e4, -1e4]], np.float32), np.array([1])) == pytest.approx(2e4)


def test_reliability_bins_are_closed_above() -> None:
    probabilities = np.array([[0.5, 0.5], [0.75, 0.25], [0.76, 0.24], [1.0, 0.0]])
    counts, confidence, accuracy = reliability(probabilities, np.array([0, 1, 0, 0]), bins=4)
    assert counts.tolist() == [0, 1, 1, 2]
    assert confidence.tolist() == pytest.approx([0, 0.5, 0.75, 0.88])
    assert accuracy.tolist() == [0.0, 1.0, 0.0, 1.0]


def test_every_sample_is_in_one_bin() -> None:
    logits, labels = _drawn(1000, 3, seed=5)
    probabilities = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    for bins in (1, 7, 15, 1000):
        counts, confidence, accuracy = reliability(probabilities, labels, bins)
        assert counts.sum() == 1000
        assert (counts * confidence).sum() == pytest.approx(probabilities.max(axis=1).sum())
        assert (counts * accuracy).sum() == pytest.approx((probabilities.argmax(axis=1) == labels).sum())


def test_the_reliability_of_nothing_is_all_zeros() -> None:
    counts, confidence, accuracy = reliability(np.zeros((0, 3)), np.zeros(0, np.int64), 5)
    assert counts.tolist() == confidence.tolist() == accuracy.tolist() == [0] * 5


def test_calibrated_predictions_have_a_small_error_and_overconfident_ones_a_large() -> None:
    logits, labels = _drawn(50_000, 10, seed=7)

    def error(scale: float) -> float:
        probabilities = np.exp(scale * logits) / np.exp(scale * logits).sum(axis=1, keepdims=True)
        return expected_calibration_error(probabilities, labels)

    assert error(1.0) < 0.01
    assert error(3.0) > 0.1
