"""Knowing when not to answer: sets of classes with a stated coverage, and accuracy without the least confident answers."""

import math

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Labels
from thawlab.evaluation.predictions import Predictions
from thawlab.results import Abstention, Conformal

Probabilities = npt.NDArray[np.float64]
ALPHA = 0.1
_DECLINED = (0.01, 0.05, 0.1, 0.2)


def conformal_threshold(probabilities: Probabilities, labels: Labels, alpha: float = ALPHA) -> float:
    """Return the least probability a class needs to be in a prediction set (split conformal; Sadinle et al. 2019).

    The predicted class is always in its set. Sets of new images of the same kind hold the true class with a probability of at
    least 1 − alpha, on average over calibration splits, whatever the classifier; of a classifier that is right more often than
    that, they hold the predicted class alone.

    Args:
        probabilities: n × classes, of held-out images that nothing was fitted on.
        labels: int64, n.
        alpha: the share of misses that is allowed, in (0, 1).

    Returns:
        In [0, 1]; 0, which admits every class, where there are too few images to promise anything else; 1, which admits the
        predicted class alone, where that keeps the promise.
    """
    n = len(labels)
    rank = math.ceil((n + 1) * (1 - alpha) - 1e-9)
    if rank > n:
        return 0.0
    own = np.where(probabilities.argmax(axis=1) == labels, 1.0, probabilities[np.arange(n), labels])
    return float(np.sort(own)[::-1][rank - 1])


def coverage_curve(probabilities: Probabilities, labels: Labels) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the shares of images that are answered, the most confident first, and the accuracy on these.

    Equal confidences are answered together or not at all.
    """
    confidence = probabilities.max(axis=1)
    order = np.argsort(-confidence, kind="stable")
    hits = np.cumsum(probabilities.argmax(axis=1)[order] == labels[order])
    last = np.append(np.flatnonzero(np.diff(confidence[order])), len(labels) - 1)
    return (last + 1) / len(labels), hits[last] / (last + 1)


def abstention(val: Predictions, test: Predictions, temperature: float) -> Abstention | None:
    """Return conformal sets from the val split and accuracy by share declined; None without test images."""
    if len(test.labels) == 0:
        return None
    probabilities = test.probabilities(temperature)
    shares, accuracies = coverage_curve(probabilities, test.labels)
    declining = {
        f"{declined:g}": float(accuracies[max(int(np.searchsorted(shares, 1 - declined + 1e-12, side="right")) - 1, 0)])
        for declined in _DECLINED
    }
    if not len(val.labels):
        return Abstention(accuracy_when_declining=declining)
    threshold = conformal_threshold(val.probabilities(temperature), val.labels)
    sets = probabilities >= threshold
    sets[np.arange(len(sets)), probabilities.argmax(axis=1)] = True
    sizes = sets.sum(axis=1)
    return Abstention(
        accuracy_when_declining=declining,
        conformal=Conformal(
            alpha=ALPHA,
            threshold=threshold,
            n_calibration=len(val.labels),
            coverage=float(sets[np.arange(len(test.labels)), test.labels].mean()),
            mean_size=float(sizes.mean()),
            single=float((sizes == 1).mean()),
            empty=float((sizes == 0).mean()),
        ),
    )
