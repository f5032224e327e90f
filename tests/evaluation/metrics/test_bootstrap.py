from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import f1_score

from thawlab.evaluation.metrics import Scored, metrics
from thawlab.evaluation.metrics.bootstrap import intervals
from thawlab.evaluation.metrics.metric import Floats, Metric
from thawlab.evaluation.predictions import Predictions

COUNTED = {name: metrics.get(name) for name in ("accuracy", "macro_recall", "macro_f1")}


def _scored(truth: np.ndarray, predicted: np.ndarray, classes: int) -> Scored:
    logits = np.zeros((len(truth), classes), dtype=np.float32)
    logits[np.arange(len(truth)), predicted] = 1
    return Scored(Predictions(np.arange(len(truth)).astype(np.str_), truth.astype(np.int64), logits))


def _of(confusion: np.ndarray) -> Scored:
    """Return predictions with a given confusion matrix."""
    truth, predicted = (np.repeat(part, confusion.ravel()) for part in np.divmod(np.arange(confusion.size), len(confusion)))
    return _scored(truth, predicted, len(confusion))


def _mean_of(values: Floats) -> Metric:
    return Metric("a mean over the images", lambda _: float(values.mean()), per_image=lambda _: values)


def _drawn(rng: np.random.Generator, n: int, accuracy: float, classes: int = 5) -> Scored:
    truth = rng.integers(0, classes, n)
    wrong = (truth + rng.integers(1, classes, n)) % classes
    return _scored(truth, np.where(rng.random(n) < accuracy, truth, wrong), classes)


def test_intervals_cover_the_truth_in_93_to_97_percent_of_1000_simulations() -> None:
    rng = np.random.default_rng(0)
    covered = {"accuracy": 0, "macro_f1": 0, "loss": 0}
    for _ in range(1000):
        scored = _drawn(rng, 500, 0.8)
        losses = rng.exponential(0.7, 500)
        found = intervals(scored, {**COUNTED, "loss": _mean_of(losses)}, resamples=1000)
        # Errors spread evenly over equally frequent classes: precision, recall and F1 are 0.8 as the accuracy is.
        for name, truth in (("accuracy", 0.8), ("macro_f1", 0.8), ("loss", 0.7)):
            covered[name] += found[name][0] <= truth <= found[name][1]
    assert all(930 <= count <= 970 for count in covered.values()), covered


def test_drawing_matrices_is_drawing_images() -> None:
    rng = np.random.default_rng(1)
    scored = _drawn(rng, 300, 0.7)
    found = intervals(scored, COUNTED, resamples=4000)
    slow = []
    for _ in range(600):
        drawn = rng.integers(0, 300, 300)
        slow.append(f1_score(scored.labels[drawn], scored.predictions.predicted[drawn], average="macro"))
    assert found["macro_f1"] == pytest.approx(np.percentile(slow, [2.5, 97.5]).tolist(), abs=0.012)


def test_nothing_varies_where_everything_is_right() -> None:
    found = intervals(_of(np.diag([3, 4, 5])), {**COUNTED, "loss": _mean_of(np.full(12, 0.25))})
    assert found["accuracy"] == (1.0, 1.0) and found["macro_f1"] == (1.0, 1.0) and found["loss"] == (0.25, 0.25)


def test_a_thousand_classes_and_a_single_image_have_intervals_too() -> None:
    large = np.zeros((1000, 1000), dtype=np.int64)
    large[np.arange(1000), np.arange(1000)] = 3
    large[0, 1] = 2
    low, high = intervals(_of(large), COUNTED, resamples=200)["macro_recall"]
    assert 0.99 < low <= high <= 1
    single = intervals(_of(np.array([[0, 1], [0, 0]])), {**COUNTED, "loss": _mean_of(np.array([2.0]))})
    assert single["accuracy"] == (0.0, 0.0) and single["loss"] == (2.0, 2.0)


def test_the_same_table_has_the_same_intervals() -> None:
    scored = _drawn(np.random.default_rng(2), 100, 0.6)
    judged = {**COUNTED, "x": _mean_of(np.random.default_rng(3).random(100))}
    assert intervals(scored, judged) == intervals(scored, judged)


def test_only_means_and_functions_of_class_counts_have_intervals() -> None:
    scored = _drawn(np.random.default_rng(4), 50, 0.6)
    found = intervals(scored, dict(metrics.items()), resamples=50)
    assert set(found) == {name for name, metric in metrics.items() if metric.per_image or metric.of_counts}
    assert {"accuracy", "macro_f1", "brier"} <= set(found) and not {"ece", "top5", "roc_auc"} & set(found)
