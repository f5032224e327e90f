"""Calibration: how far confidence can be trusted, and the temperature that corrects most of it."""

import math

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Labels
from thawlab.evaluation.softmax import log_softmax, softmax

_RANGE = (0.05, 20.0)
# Of the logarithm of a temperature before any sample is seen; and the gain in twice the log likelihood that one parameter is
# worth (Akaike). Both were chosen on the runs of results/temperature-on-few.json.
_SPREAD, _CHANCE = 0.3, 2.0
# How far the logarithm of the best temperature may be from the one that is found.
_EXACT = 1e-5


def log_loss(logits: npt.NDArray[np.floating], labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the labels in nats; nan without samples."""
    if len(labels) == 0:
        return float("nan")
    scores = log_softmax(np.asarray(logits, dtype=np.float64) / temperature)
    return float(-scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017, section 4.2), as far as the samples are evidence.

    A few samples that are all right would make the classifier certain of everything. The temperature's logarithm is therefore
    expected near 0 (a normal distribution with standard deviation 0.3), and what is found is drawn towards 0 by the factor
    1 − 2/Λ, where Λ is twice the gain in log likelihood (the positive-part estimator of James and Stein 1961); no gain of more
    than chance leaves 1. With thousands of samples neither matters. The result is never worse than 1 on the samples it was
    fitted on, and lies in [0.05, 20].

    Args:
        logits: n × classes, of held-out samples.
        labels: int64, n.
    """
    n = len(labels)
    if n == 0:
        return 1.0
    scores = np.asarray(logits, dtype=np.float64)
    own = scores[np.arange(n), labels]

    def slope(log_t: float) -> float:
        """Return the derivative of the log loss, and of what is expected, by the logarithm of the temperature."""
        expected = (softmax(scores / math.exp(log_t)) * scores).sum(axis=1)
        return float((own - expected).mean()) / math.exp(log_t) + log_t / (n * _SPREAD**2)

    # The loss falls up to one temperature and rises from there on (Guo et al.: it is convex in 1/T): halving finds the place.
    low, high = (math.log(bound) for bound in _RANGE)
    while high - low > _EXACT:
        middle = (low + high) / 2
        low, high = (middle, high) if slope(middle) < 0 else (low, middle)
    found = (low + high) / 2
    gain = 2 * n * (log_loss(scores, labels) - log_loss(scores, labels, math.exp(found)))
    return math.exp(found * (1 - _CHANCE / gain)) if gain > _CHANCE else 1.0


def reliability(
    probabilities: npt.NDArray[np.float64], labels: Labels, bins: int = 15
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Return the reliability diagram: per bin of confidence the count, the mean confidence and the accuracy.

    The bins are equally wide, (0, 1/bins], …, as in Guo et al. (2017); empty bins have mean confidence and accuracy 0.
    """
    confidence, correct = probabilities.max(axis=1), probabilities.argmax(axis=1) == labels
    place = np.clip(np.ceil(confidence * bins).astype(np.int64) - 1, 0, bins - 1)
    counts = np.bincount(place, minlength=bins)
    full = np.maximum(counts, 1)
    return (
        counts,
        np.bincount(place, weights=confidence, minlength=bins) / full,
        np.bincount(place, weights=correct, minlength=bins) / full,
    )


def adaptive_calibration_error(probabilities: npt.NDArray[np.float64], labels: Labels, bins: int = 15) -> float:
    """Return the calibration error over bins with equally many samples, in [0, 1] (Nguyen and O'Connor 2015).

    A confident classifier leaves most of the equally wide bins of the usual error almost empty; these bins never are. Samples
    are sorted by confidence, equal ones by their order; nan without samples.
    """
    n = len(labels)
    if n == 0:
        return float("nan")
    confidence = probabilities.max(axis=1)
    correct = (probabilities.argmax(axis=1) == labels).astype(np.float64)
    order = np.argsort(confidence, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return float(sum(len(part) * abs(correct[part].mean() - confidence[part].mean()) for part in parts) / n)


def expected_calibration_error(probabilities: npt.NDArray[np.float64], labels: Labels, bins: int = 15) -> float:
    """Return the expected calibration error, in [0, 1] (Guo et al. 2017, equation 3); nan without samples."""
    if len(labels) == 0:
        return float("nan")
    counts, confidence, accuracy = reliability(probabilities, labels, bins)
    return float((counts * np.abs(accuracy - confidence)).sum() / len(labels))
