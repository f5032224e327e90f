from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix, f1_score

from thawlab.evaluation.metrics.bootstrap import intervals


def _confusion(rng: np.random.Generator, n: int, accuracy: float, classes: int = 5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    truth = rng.integers(0, classes, n)
    wrong = (truth + rng.integers(1, classes, n)) % classes
    predicted = np.where(rng.random(n) < accuracy, truth, wrong)
    return confusion_matrix(truth, predicted, labels=np.arange(classes)), truth, predicted


def test_intervals_cover_the_truth_in_93_to_97_percent_of_1000_simulations() -> None:
    rng = np.random.default_rng(0)
    covered = {"accuracy": 0, "macro_f1": 0, "loss": 0}
    for _ in range(1000):
        confusion, _, _ = _confusion(rng, 500, 0.8)
        losses = rng.exponential(0.7, 500)
        found = intervals(confusion, {"loss": losses}, resamples=1000)
        # Errors spread evenly over equally frequent classes: precision, recall and F1 are 0.8 as the accuracy is.
        for name, truth in (("accuracy", 0.8), ("macro_f1", 0.8), ("loss", 0.7)):
            covered[name] += found[name][0] <= truth <= found[name][1]
    assert all(930 <= count <= 970 for count in covered.values()), covered


def test_drawing_matrices_is_drawing_images() -> None:
    rng = np.random.default_rng(1)
    confusion, truth, predicted = _confusion(rng, 300, 0.7)
    found = intervals(confusion, {}, resamples=4000)
    slow = []
    for _ in range(600):
        drawn = rng.integers(0, 300, 300)
        slow.append(f1_score(truth[drawn], predicted[drawn], average="macro"))
    assert found["macro_f1"] == pytest.approx(np.percentile(slow, [2.5, 97.5]).tolist(), abs=0.012)


def test_nothing_varies_where_everything_is_right() -> None:
    found = intervals(np.diag([3, 4, 5]), {"loss": np.full(12, 0.25)})
    assert found["accuracy"] == [1.0, 1.0] and found["macro_f1"] == [1.0, 1.0] and found["loss"] == [0.25, 0.25]


def test_a_thousand_classes_and_a_single_image_have_intervals_too() -> None:
    large = np.zeros((1000, 1000), dtype=np.int64)
    large[np.arange(1000), np.arange(1000)] = 3
    large[0, 1] = 2
    low, high = intervals(large, {}, resamples=200)["macro_recall"]
    assert 0.99 < low <= high <= 1
    assert intervals(np.array([[0, 1], [0, 0]]), {"loss": np.array([2.0])})["accuracy"] == [0.0, 0.0]


def test_the_same_table_has_the_same_intervals() -> None:
    confusion, _, _ = _confusion(np.random.default_rng(2), 100, 0.6)
    values = np.random.default_rng(3).random(100)
    assert intervals(confusion, {"x": values}) == intervals(confusion, {"x": values})
