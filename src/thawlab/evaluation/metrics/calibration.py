"""Calibration: how far confidence can be trusted, and the temperature that corrects most of it."""

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Labels

_RANGE = (0.05, 20.0)


def log_loss(logits: npt.NDArray[np.floating], labels: Labels, temperature: float = 1.0) -> float:
    """Return the mean negative log-likelihood of the labels in nats; nan without samples."""
    from scipy.special import log_softmax

    if len(labels) == 0:
        return float("nan")
    scores = log_softmax(np.asarray(logits, dtype=np.float64) / temperature, axis=1)
    return float(-scores[np.arange(len(labels)), labels].mean())


def fit_temperature(logits: npt.NDArray[np.floating], labels: Labels) -> float:
    """Return the temperature that minimises the log loss (Guo et al. 2017, section 4.2).

    The result is never worse than 1 on the samples it was fitted on, and lies in [0.05, 20].

    Args:
        logits: n × classes, of held-out samples.
        labels: int64, n.
    """
    from scipy.optimize import minimize_scalar

    if len(labels) == 0:
        return 1.0
    found = minimize_scalar(
        lambda log_t: log_loss(logits, labels, float(np.exp(log_t))),
        bounds=[float(np.log(bound)) for bound in _RANGE],
        method="bounded",
        options={"xatol": 1e-5},
    )
    temperature = float(np.exp(found.x))
    return temperature if log_loss(logits, labels, temperature) <= log_loss(logits, labels) else 1.0


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
