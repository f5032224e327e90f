"""Metrics as functions of a table of predictions, through scikit-learn."""

from __future__ import annotations

from typing import Any

import numpy as np
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, precision_recall_fscore_support

from thawlab.evaluation.calibration import expected_calibration_error, log_loss
from thawlab.evaluation.predictions import Predictions


def accuracy_interval(correct: int, n: int) -> list[float]:
    """Return the 95 % Wilson interval of an accuracy (Wilson 1927), as [low, high]; [0, 1] without samples."""
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


def full(predictions: Predictions, classes: tuple[str, ...], temperature: float, ece_bins: int) -> dict[str, Any]:
    """Return everything that `results.json` says of the test split.

    Macro figures are means over the classes that occur in the split; a class without samples has n = 0 and zeros, and so has
    a split without samples.
    """
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
    return {
        **result,
        "accuracy_ci95": accuracy_interval(int((predicted == labels).sum()), n),
        "top5": top_k_accuracy(predictions, 5),
        "macro_precision": float(precision[present].mean()) if n else 0.0,
        "macro_recall": float(recall[present].mean()) if n else 0.0,
        "macro_f1": float(f1[present].mean()) if n else 0.0,
        "ece": expected_calibration_error(raw, labels, ece_bins) if n else 0.0,
        "ece_calibrated": expected_calibration_error(calibrated, labels, ece_bins) if n else 0.0,
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
