from __future__ import annotations

import numpy as np
import pytest

from thawlab.evaluation.abstention import abstention, conformal_threshold, coverage_curve
from thawlab.evaluation.predictions import Predictions


def _table(rng: np.random.Generator, n: int, classes: int = 10, sharpness: float = 2.0) -> Predictions:
    labels = rng.integers(0, classes, n)
    logits = rng.normal(0, 1, (n, classes))
    logits[np.arange(n), labels] += sharpness
    return Predictions(np.arange(n).astype(str), labels.astype(np.int64), logits.astype(np.float32))


@pytest.mark.parametrize("sharpness", [0.5, 2.0, 4.0])
def test_sets_cover_as_promised_over_1000_random_splits(sharpness: float) -> None:
    rng = np.random.default_rng(0)
    table = _table(rng, 2000, sharpness=sharpness)
    probabilities, covered = table.probabilities(), []
    for _ in range(1000):
        order = rng.permutation(2000)
        calibration, rest = order[:500], order[500:]
        threshold = conformal_threshold(probabilities[calibration], table.labels[calibration])
        sets = probabilities[rest] >= threshold
        sets[np.arange(len(rest)), probabilities[rest].argmax(axis=1)] = True
        covered.append(sets[np.arange(len(rest)), table.labels[rest]].mean())
    accuracy = float((probabilities.argmax(axis=1) == table.labels).mean())
    assert 0.895 <= np.mean(covered) <= max(0.91, accuracy + 0.001)  # the predicted class is always in its set


def test_too_few_images_promise_nothing_but_all_classes() -> None:
    table = _table(np.random.default_rng(1), 8)
    assert conformal_threshold(table.probabilities(), table.labels) == 0.0
    assert (table.probabilities() >= 0.0).all()
    nine = _table(np.random.default_rng(1), 9)
    assert conformal_threshold(nine.probabilities(), nine.labels) == nine.probabilities()[np.arange(9), nine.labels].min()


def test_the_curve_ends_with_everything_answered_and_ties_stay_together() -> None:
    probabilities = np.array([[0.9, 0.1], [0.6, 0.4], [0.4, 0.6], [0.2, 0.8]])
    shares, accuracies = coverage_curve(probabilities, np.array([0, 0, 0, 1]))
    assert shares.tolist() == [0.25, 0.5, 1.0]
    assert accuracies.tolist() == [1.0, 1.0, 0.75]


def test_declining_the_least_sure_helps_a_classifier_that_knows_itself() -> None:
    rng = np.random.default_rng(2)
    found = abstention(_table(rng, 1000), _table(rng, 4000), 1.0)
    assert found is not None and found.conformal is not None
    rising = list(found.accuracy_when_declining.values())
    assert rising == sorted(rising) and rising[-1] > rising[0] + 0.05
    assert found.conformal.n_calibration == 1000
    assert 0.87 < found.conformal.coverage < 0.93


def test_without_val_or_test_images_nothing_is_promised() -> None:
    rng = np.random.default_rng(3)
    nothing = Predictions(np.zeros(0, np.str_), np.zeros(0, np.int64), np.zeros((0, 10), np.float32))
    assert abstention(nothing, nothing, 1.0) is None
    declining = abstention(nothing, _table(rng, 10), 1.0)
    assert declining is not None and declining.conformal is None


def test_all_images_equally_sure_are_answered_together() -> None:
    even = Predictions(np.arange(4).astype(str), np.array([0, 1, 0, 1]), np.zeros((4, 2), np.float32))
    found = abstention(even, even, 1.0)
    assert found is not None and found.accuracy_when_declining["0.2"] == 0.5
