"""The metrics of every run. To add one, copy its neighbour: the decorator above a function decides how its interval is found."""

from collections.abc import Callable
from functools import partial

import numpy as np
import numpy.typing as npt

from thawlab.evaluation.metrics.calibration import adaptive_calibration_error, expected_calibration_error
from thawlab.evaluation.metrics.metric import (
    ClassCounts,
    Floats,
    Metric,
    Scored,
    mean_over_images,
    metrics,
    of_class_counts,
    plain,
)
from thawlab.evaluation.metrics.ranking import average_precision as average_precision_of
from thawlab.evaluation.metrics.ranking import roc_auc as roc_auc_of


@metrics.register("accuracy")
@of_class_counts
def accuracy(counts: ClassCounts) -> Floats:
    """Share of images whose predicted class is the true one."""
    share: Floats = counts.right.sum(axis=-1) / counts.support.sum(axis=-1)
    return share


def _top(scored: Scored, k: int) -> float:
    """Return the share of images whose label has one of the k largest logits; ties favour lower class numbers."""
    best = np.argsort(-scored.logits, axis=1, kind="stable")[:, :k]
    return float((best == scored.labels[:, None]).any(axis=1).mean())


for _name, _k, _word in (("top2", 2, "two"), ("top3", 3, "three"), ("top5", 5, "five")):
    metrics.register(_name)(Metric(f"Share of images whose true class is among the {_word} most probable.", partial(_top, k=_k)))


@metrics.register("balanced_accuracy")
@of_class_counts
def balanced_accuracy(counts: ClassCounts) -> Floats:
    """Mean recall over the classes that occur."""
    return counts.macro(counts.right / np.maximum(counts.support, 1))


@metrics.register("macro_precision")
@of_class_counts
def macro_precision(counts: ClassCounts) -> Floats:
    """Mean precision over the classes that occur."""
    return counts.macro(counts.right / np.maximum(counts.predicted, 1))


@metrics.register("macro_recall")
@of_class_counts
def macro_recall(counts: ClassCounts) -> Floats:
    """Mean recall over the classes that occur: the same as balanced accuracy."""
    return counts.macro(counts.right / np.maximum(counts.support, 1))


@metrics.register("macro_f1")
@of_class_counts
def macro_f1(counts: ClassCounts) -> Floats:
    """Mean F1 over the classes that occur."""
    return counts.macro(2 * counts.right / np.maximum(counts.support + counts.predicted, 1))


@metrics.register("ece")
@plain
def ece(scored: Scored) -> float:
    """Expected calibration error of the uncalibrated probabilities."""
    return expected_calibration_error(scored.uncalibrated, scored.labels, scored.bins)


@metrics.register("ece_calibrated")
@plain
def ece_calibrated(scored: Scored) -> float:
    """Expected calibration error after temperature scaling."""
    return expected_calibration_error(scored.probabilities, scored.labels, scored.bins)


@metrics.register("ece_adaptive")
@plain
def ece_adaptive(scored: Scored) -> float:
    """Calibration error over bins of equally many images, after temperature scaling."""
    return adaptive_calibration_error(scored.probabilities, scored.labels, scored.bins)


@metrics.register("log_loss_calibrated")
@mean_over_images
def log_loss_calibrated(scored: Scored) -> Floats:
    """Log loss in nats, after temperature scaling."""
    own = scored.probabilities[np.arange(len(scored.labels)), scored.labels]
    loss: Floats = -np.log(np.maximum(own, np.finfo(np.float64).tiny))
    return loss


@metrics.register("brier")
@mean_over_images
def brier(scored: Scored) -> Floats:
    """Brier score, in [0, 2]: squared distance of the calibrated probabilities from the truth (Brier 1950)."""
    truth = np.eye(scored.logits.shape[1])[scored.labels]
    distance: Floats = ((scored.probabilities - truth) ** 2).sum(axis=1)
    return distance


@metrics.register("roc_auc")
@plain
def roc_auc(scored: Scored) -> float | None:
    """Area under the ROC curve, one class against the rest; mean over the classes that allow it."""
    return _one_against_rest(scored, roc_auc_of)


@metrics.register("average_precision")
@plain
def average_precision(scored: Scored) -> float | None:
    """Average precision, one class against the rest; mean over the classes that allow it."""
    return _one_against_rest(scored, average_precision_of)


def _one_against_rest(scored: Scored, score: Callable[[npt.ArrayLike, npt.ArrayLike], float]) -> float | None:
    """Return the mean of a score over the classes that some images have and others have not; None without any."""
    truths = ((number, scored.labels == number) for number in range(scored.logits.shape[1]))
    values = [score(truth, scored.probabilities[:, number]) for number, truth in truths if truth.any() and not truth.all()]
    return float(np.mean(values)) if values else None
