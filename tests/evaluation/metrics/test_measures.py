from __future__ import annotations

import json
import math
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from scipy.stats import binomtest
from sklearn import metrics as sk
from torchmetrics.classification import (
    MulticlassAccuracy,
    MulticlassAUROC,
    MulticlassAveragePrecision,
    MulticlassCalibrationError,
    MulticlassConfusionMatrix,
    MulticlassF1Score,
    MulticlassPrecision,
    MulticlassRecall,
)

from thawlab.evaluation.metrics.calibration import expected_calibration_error
from thawlab.evaluation.metrics.measures import accuracy_interval, brief, full, most_confused
from thawlab.evaluation.predictions import Predictions
from thawlab.results import ClassResult, SplitResult, TestResult

CASES = 500


def _random_tables() -> Iterator[tuple[Predictions, int]]:
    """Yield tables of many shapes: few and many classes, absent classes, tied logits, single samples."""
    for seed in range(CASES):
        rng = np.random.default_rng(seed)
        classes = 100 if seed % 50 == 0 else int(rng.choice([2, 3, 7, 20]))
        n = int(rng.choice([1, 2, 10, 150]))
        logits = rng.normal(0, rng.choice([0.1, 1, 5]), (n, classes))
        if seed % 3 == 0:
            logits = np.round(logits)  # makes ties
        labels = rng.integers(0, max(classes // 2, 1) if seed % 2 else classes, n)
        if seed % 5 == 0:
            labels[:] = labels[0]
        logits[np.arange(n), labels] += rng.choice([0, 2])
        ids = np.array([str(index) for index in range(n)], dtype=np.str_)
        yield Predictions(ids, labels.astype(np.int64), logits.astype(np.float32)), classes


def _full(table: Predictions, classes: int, temperature: float = 1.0) -> TestResult:
    return full(table, tuple(f"c{number}" for number in range(classes)), temperature, 15)


def test_all_metrics_agree_with_scikit_learn() -> None:
    for table, classes in _random_tables():
        result, numbers = _full(table, classes), np.arange(classes)
        present = np.unique(table.labels)
        truth, predicted = table.labels, table.predicted
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            expected = {
                "accuracy": sk.accuracy_score(truth, predicted),
                "loss": sk.log_loss(truth, np.clip(table.probabilities(), 1e-300, 1), labels=numbers),
                "macro_precision": sk.precision_score(truth, predicted, labels=present, average="macro", zero_division=0),
                "macro_recall": sk.recall_score(truth, predicted, labels=present, average="macro", zero_division=0),
                "macro_f1": sk.f1_score(truth, predicted, labels=present, average="macro", zero_division=0),
                "balanced_accuracy": sk.balanced_accuracy_score(truth, predicted),
                "brier": sum(sk.brier_score_loss(truth == k, table.probabilities()[:, k], labels=[False, True]) for k in numbers),
            }
        for key, value in expected.items():
            assert result.metric(key) == pytest.approx(value, rel=1e-9, abs=1e-12), key
        assert (np.array(result.confusion) == sk.confusion_matrix(truth, predicted, labels=numbers)).all()
        if classes > 5:
            ties = any(len(np.unique(row)) < classes for row in table.logits)
            top5 = sk.top_k_accuracy_score(truth, table.logits, k=5, labels=numbers)
            assert ties or result.top5 == pytest.approx(top5)


def test_all_metrics_agree_with_torchmetrics() -> None:
    for table, classes in _random_tables():
        result = _full(table, classes)
        labels, predicted = torch.from_numpy(table.labels), torch.from_numpy(table.predicted)
        per_class = {
            "precision": MulticlassPrecision(classes, average=None),
            "recall": MulticlassRecall(classes, average=None),
            "f1": MulticlassF1Score(classes, average=None),
        }
        for key, metric in per_class.items():
            ours = [getattr(row, key) for row in result.per_class]
            assert np.allclose(ours, metric(predicted, labels).numpy(), atol=1e-6), key
        area, precision = result.roc_auc, result.average_precision
        scorable = [k for k in range(classes) if 0 < int((labels == k).sum()) < len(labels)]
        if scorable:
            probabilities = torch.from_numpy(table.probabilities())
            areas = MulticlassAUROC(classes, average=None)(probabilities, labels)[scorable]
            precisions = MulticlassAveragePrecision(classes, average=None)(probabilities, labels)[scorable]
            assert area == pytest.approx(float(areas.mean()), abs=1e-5)
            assert precision == pytest.approx(float(precisions.mean()), abs=1e-5)
        else:
            assert area is None and precision is None
        micro = MulticlassAccuracy(classes, average="micro")(predicted, labels)
        assert result.accuracy == pytest.approx(float(micro), abs=1e-6)
        assert (np.array(result.confusion) == MulticlassConfusionMatrix(classes)(predicted, labels).numpy()).all()


def test_the_calibration_error_agrees_with_torchmetrics() -> None:
    for bins in (1, 10, 15):
        for table, classes in _random_tables():
            probabilities = table.probabilities()
            oracle = MulticlassCalibrationError(classes, n_bins=bins, norm="l1")
            expected = oracle(torch.from_numpy(probabilities), torch.from_numpy(table.labels))
            assert expected_calibration_error(probabilities, table.labels, bins) == pytest.approx(float(expected), abs=1e-5)


def test_classes_that_do_not_occur_count_zero_and_stay_out_of_the_means() -> None:
    logits = np.eye(3, dtype=np.float32)[[0, 0, 1, 2]]
    table = Predictions(np.array(list("abcd")), np.array([0, 0, 1, 1]), logits)
    result = full(table, ("a", "b", "never"), 1.0, 15)
    assert [row.n for row in result.per_class] == [2, 2, 0]
    assert result.per_class[2] == ClassResult(class_name="never", n=0, precision=0.0, recall=0.0, f1=0.0)
    assert result.macro_recall == pytest.approx((1 + 0.5) / 2)
    assert result.macro_precision == pytest.approx(1.0)


def test_an_empty_split_gives_numbers_that_json_can_hold() -> None:
    empty = Predictions(np.zeros(0, np.str_), np.zeros(0, np.int64), np.zeros((0, 3), np.float32))
    result = _full(empty, 3)
    json.dumps(result.model_dump(mode="json"), allow_nan=False)
    assert (result.n, result.accuracy, result.accuracy_ci95) == (0, 0.0, (0.0, 1.0))
    assert result.confusion == ((0,) * 3,) * 3
    assert brief(empty) == SplitResult(n=0, loss=0.0, accuracy=0.0)


def test_results_come_back_from_plain_json_values() -> None:
    for table, classes in list(_random_tables())[:10]:
        result = _full(table, classes)
        document = result.model_dump(mode="json")
        assert json.loads(json.dumps(document, allow_nan=False)) == document
        assert TestResult.model_validate(document) == result


def _wilson(correct: int, n: int) -> list[float]:
    z = 1.959963984540054
    p = correct / n
    centre, half = p + z * z / (2 * n), z * math.sqrt(p * (1 - p) / n + z * z / (4 * n * n))
    return [(centre - half) / (1 + z * z / n), (centre + half) / (1 + z * z / n)]


@pytest.mark.parametrize("n", [1, 2, 17, 1000, 10_000])
def test_the_interval_is_wilsons(n: int) -> None:
    for correct in {0, 1, n // 3, n // 2, n - 1, n}:
        low, high = accuracy_interval(correct, n)
        assert [low, high] == pytest.approx(_wilson(correct, n), abs=1e-9)
        assert 0 <= low <= correct / n <= high <= 1
        for confidence in (0.5, 0.95, 0.999):
            expected = binomtest(correct, n).proportion_ci(confidence, method="wilson")
            assert accuracy_interval(correct, n, confidence) == pytest.approx(tuple(expected), abs=1e-12)


def test_without_samples_nothing_is_known_of_the_accuracy() -> None:
    assert accuracy_interval(0, 0) == (0.0, 1.0)


def test_the_temperature_changes_the_calibration_only() -> None:
    for table, classes in list(_random_tables())[:20]:
        one, other = _full(table, classes), _full(table, classes, temperature=3.0)
        changed = {key for key, value in one if value != getattr(other, key)}
        of_probabilities = {"ece_calibrated", "ece_adaptive", "log_loss_calibrated", "brier", "roc_auc", "average_precision"}
        assert changed <= {"temperature", "intervals"} | of_probabilities
        kept = {"accuracy", "macro_f1", "balanced_accuracy"}
        assert [one.intervals[key] for key in kept] == [other.intervals[key] for key in kept]
        expected = expected_calibration_error(table.probabilities(3.0), table.labels)
        assert other.ece_calibrated == expected


def test_the_most_confused_pairs_come_first_and_hits_do_not_count() -> None:
    matrix = [[90, 1, 0], [5, 80, 2], [0, 0, 70]]
    assert most_confused(matrix) == [(1, 0, 5), (1, 2, 2), (0, 1, 1)]
    assert most_confused(matrix, limit=1) == [(1, 0, 5)]
    assert most_confused([[3, 0], [0, 4]]) == []
