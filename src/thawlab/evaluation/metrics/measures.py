"""Metrics as functions of a table of predictions, through scikit-learn.

SciPy and scikit-learn are imported where they are used, here and beside: they take a second and memory that
training needs itself.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Labels
from thawlab.evaluation.metrics.bootstrap import intervals
from thawlab.evaluation.metrics.calibration import adaptive_calibration_error, expected_calibration_error, log_loss
from thawlab.evaluation.predictions import Predictions


def accuracy_interval(correct: int, n: int) -> list[float]:
    """Return the 95 % Wilson interval of an accuracy (Wilson 1927), as [low, high]; [0, 1] without samples."""
    from scipy.stats import binomtest

    if n == 0:
        return [0.0, 1.0]
    interval = binomtest(correct, n).proportion_ci(0.95, method="wilson")
    return [float(interval.low), float(interval.high)]


def top_k_accuracy(predictions: Predictions, k: int) -> float:
    """Return the fraction of samples whose label is among the k largest logits; ties count in favour of lower class numbers."""
    n = len(predictions.labels)
    if n == 0:
        return 0.0
    best = np.argsort(-predictions.logits, axis=1, kind="stable")[:, :k]
    return float((best == predictions.labels[:, None]).any(axis=1).mean())


def brief(predictions: Predictions) -> dict[str, Any]:
    """Return n, loss and accuracy."""
    n = len(predictions.labels)
    accuracy = float((predictions.predicted == predictions.labels).mean()) if n else 0.0
    return {"n": n, "loss": log_loss(predictions.logits, predictions.labels) if n else 0.0, "accuracy": accuracy}


def brier_score(probabilities: npt.NDArray[np.float64], labels: Labels) -> float:
    """Return the mean squared distance from the probabilities to the truth, in [0, 2] (Brier 1950); nan without samples."""
    return float(squared_distances(probabilities, labels).mean()) if len(labels) else float("nan")


def squared_distances(probabilities: npt.NDArray[np.float64], labels: Labels) -> npt.NDArray[np.float64]:
    """Return each sample's part of the Brier score."""
    truth = np.zeros_like(probabilities)
    truth[np.arange(len(labels)), labels] = 1.0
    distances: npt.NDArray[np.float64] = ((probabilities - truth) ** 2).sum(axis=1)
    return distances


def ranking_scores(probabilities: npt.NDArray[np.float64], labels: Labels) -> tuple[float | None, float | None]:
    """Return the one-vs-rest area under the ROC curve and average precision, means over the classes that allow them.

    A class that no sample has, or that all have, allows neither; without any other both are None.
    """
    from sklearn.metrics import average_precision_score, roc_auc_score

    areas, precisions = [], []
    for number in range(probabilities.shape[1]):
        truth = labels == number
        if truth.any() and not truth.all():
            areas.append(roc_auc_score(truth, probabilities[:, number]))
            precisions.append(average_precision_score(truth, probabilities[:, number]))
    return (float(np.mean(areas)), float(np.mean(precisions))) if areas else (None, None)


def full(predictions: Predictions, classes: tuple[str, ...], temperature: float, ece_bins: int) -> dict[str, Any]:
    """Return everything that `results.json` says of the test split.

    Macro figures are means over the classes that occur in the split; a class without samples has n = 0 and zeros, and so has
    a split without samples. Figures of probabilities are those of the calibrated ones, but for `loss` and `ece`. `intervals`
    holds 95 % bootstrap intervals over the images.
    """
    from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

    numbers = np.arange(len(classes))
    labels, predicted = predictions.labels, predictions.predicted
    n = len(labels)
    precision = recall = f1 = np.zeros(len(classes))
    support, confusion = np.zeros(len(classes), dtype=np.int64), np.zeros((len(classes), len(classes)), dtype=np.int64)
    if n:  # scikit-learn refuses empty tables
        precision, recall, f1, support = precision_recall_fscore_support(labels, predicted, labels=numbers, zero_division=0)
        confusion = confusion_matrix(labels, predicted, labels=numbers)
    present = support > 0
    raw, calibrated = predictions.probabilities(), predictions.probabilities(temperature)
    result = brief(predictions)
    area, average_precision = ranking_scores(calibrated, labels) if n else (None, None)
    return {
        **result,
        "accuracy_ci95": accuracy_interval(int((predicted == labels).sum()), n),
        "top2": top_k_accuracy(predictions, 2),
        "top3": top_k_accuracy(predictions, 3),
        "top5": top_k_accuracy(predictions, 5),
        "balanced_accuracy": float(recall[present].mean()) if n else 0.0,
        "macro_precision": float(precision[present].mean()) if n else 0.0,
        "macro_recall": float(recall[present].mean()) if n else 0.0,
        "macro_f1": float(f1[present].mean()) if n else 0.0,
        "ece": expected_calibration_error(raw, labels, ece_bins) if n else 0.0,
        "ece_calibrated": expected_calibration_error(calibrated, labels, ece_bins) if n else 0.0,
        "ece_adaptive": adaptive_calibration_error(calibrated, labels, ece_bins) if n else 0.0,
        "log_loss_calibrated": log_loss(predictions.logits, labels, temperature) if n else 0.0,
        "brier": brier_score(calibrated, labels) if n else 0.0,
        "roc_auc": area,
        "average_precision": average_precision,
        "intervals": intervals(confusion, _per_sample(calibrated, labels)) if n else {},
        "temperature": temperature,
        "per_class": [
            {
                "class": name,
                "n": int(support[k]),
                "precision": float(precision[k]),
                "recall": float(recall[k]),
                "f1": float(f1[k]),
            }
            for k, name in enumerate(classes)
        ],
        "confusion": confusion.tolist(),
    }


def most_confused(matrix: list[list[int]], limit: int = 8) -> list[tuple[int, int, int]]:
    """Return the pairs (truth, prediction, count) that are confused most often, the most frequent first."""
    counts = np.array(matrix)
    np.fill_diagonal(counts, 0)
    order = np.argsort(-counts, axis=None, kind="stable")[:limit]
    pairs = [np.unravel_index(position, counts.shape) for position in order]
    return [(int(row), int(column), int(counts[row, column])) for row, column in pairs if counts[row, column] > 0]


def _per_sample(probabilities: npt.NDArray[np.float64], labels: Labels) -> dict[str, npt.NDArray[np.float64]]:
    """Return the figures that are means over samples, sample by sample."""
    own = probabilities[np.arange(len(labels)), labels]
    return {
        "log_loss_calibrated": -np.log(np.maximum(own, np.finfo(np.float64).tiny)),
        "brier": squared_distances(probabilities, labels),
    }
