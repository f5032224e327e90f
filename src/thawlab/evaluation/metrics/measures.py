"""All metrics of a split, as the values of `results.json`."""

import math
from collections.abc import Sequence

import numpy as np

from thawlab.evaluation.metrics.bootstrap import intervals
from thawlab.evaluation.metrics.calibration import log_loss
from thawlab.evaluation.metrics.metric import Scored, metrics
from thawlab.evaluation.predictions import Predictions
from thawlab.evaluation.softmax import normal_quantile
from thawlab.results import ClassResult, SplitResult, TestResult
from thawlab.values import Interval


def accuracy_interval(correct: int, n: int, confidence: float = 0.95) -> Interval:
    """Return the Wilson interval of an accuracy (Wilson 1927), that of 95 % unless told otherwise; (0, 1) without images."""
    if n == 0:
        return 0.0, 1.0
    square = normal_quantile((1 + confidence) / 2) ** 2
    centre = (correct + square / 2) / (n + square)
    reach = math.sqrt(square * (correct * (n - correct) / n + square / 4)) / (n + square)
    return (centre - reach if correct else 0.0), (centre + reach if correct < n else 1.0)


def brief(predictions: Predictions) -> SplitResult:
    """Return n, loss and accuracy; zeros without images."""
    n = len(predictions.labels)
    accuracy = float((predictions.predicted == predictions.labels).mean()) if n else 0.0
    return SplitResult(n=n, loss=log_loss(predictions.logits, predictions.labels) if n else 0.0, accuracy=accuracy)


def full(predictions: Predictions, classes: Sequence[str], temperature: float, ece_bins: int) -> TestResult:
    """Return all registered metrics with their intervals, the confusion matrix and the figures of each class.

    Macro metrics are means over the classes that occur in the split; a class without images has n = 0 and zeros. Metrics of
    probabilities are those of the calibrated ones, but for `loss` and `ece`. `intervals` holds 95 % bootstrap intervals over
    the images. Without images all is zero.
    """
    scored = Scored(predictions, temperature, ece_bins)
    result = brief(predictions)
    right, support, predicted = scored.counts
    values = {name: metric.value(scored) if result.n else 0.0 for name, metric in metrics.items()}
    return TestResult.model_validate(
        {
            **(values if result.n else values | {"roc_auc": None, "average_precision": None}),
            **result.model_dump(),
            "accuracy_ci95": accuracy_interval(int(right.sum()), result.n),
            "intervals": intervals(scored, dict(metrics.items())) if result.n else {},
            "temperature": temperature,
            "per_class": [
                ClassResult(
                    class_name=name,
                    n=int(support[k]),
                    precision=float(right[k] / max(predicted[k], 1)),
                    recall=float(right[k] / max(support[k], 1)),
                    f1=float(2 * right[k] / max(support[k] + predicted[k], 1)),
                )
                for k, name in enumerate(classes)
            ],
            "confusion": scored.confusion.tolist(),
        }
    )


def most_confused(confusion: Sequence[Sequence[int]], limit: int = 8) -> list[tuple[int, int, int]]:
    """Return the pairs (true class, predicted class, count) that are confused most often, the most frequent first."""
    counts = np.array(confusion)
    np.fill_diagonal(counts, 0)
    pairs = [divmod(place, len(counts)) for place in np.argsort(-counts, axis=None, kind="stable")[:limit].tolist()]
    return [(row, column, int(counts[row, column])) for row, column in pairs if counts[row, column] > 0]
