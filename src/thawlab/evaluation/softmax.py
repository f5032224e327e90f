"""Softmax, and the normal distribution's quantile, as SciPy has them, which is much to load for two formulas."""

from statistics import NormalDist

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]


def softmax(scores: npt.NDArray[np.floating]) -> Floats:
    """Return exp(scores) over its sum in each row, float64, of n × classes."""
    powers = np.exp(_shifted(scores))
    shares: Floats = powers / powers.sum(axis=1, keepdims=True)
    return shares


def log_softmax(scores: npt.NDArray[np.floating]) -> Floats:
    """Return the logarithm of the softmax of each row, float64, of n × classes; no small probability becomes 0."""
    shifted = _shifted(scores)
    logs: Floats = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return logs


def _shifted(scores: npt.NDArray[np.floating]) -> Floats:
    exact = np.asarray(scores, dtype=np.float64)
    shifted: Floats = exact - exact.max(axis=1, keepdims=True)
    return shifted


def normal_quantile(share: float) -> float:
    """Return below which value a share, in (0, 1), of the standard normal distribution lies."""
    return NormalDist().inv_cdf(share)
