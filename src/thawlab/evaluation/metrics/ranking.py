"""How well scores put what is so before what is not: areas under curves of sorted scores.

Every run takes two of them for every class. The tests hold them against scikit-learn, which need not be imported for them.
"""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt


class _Steps(NamedTuple):
    """The distinct scores in falling order: at each, how many are so and how many there are."""

    right: npt.NDArray[np.int64]
    all: npt.NDArray[np.int64]


def roc_auc(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the area under the ROC curve: the chance that what is so scores higher than what is not, ties counting half.

    Args:
        truth: n values, true or 1 for what is so; some are and some are not.
        scores: n values, higher for what is more likely so.
    """
    right, total = _steps(truth, scores)
    wrong = total - right
    before = np.cumsum(right) - right  # scored higher
    pairs: float = ((before + right / 2) * wrong).sum() / (right.sum() * wrong.sum())
    return float(pairs)


def average_precision(truth: npt.ArrayLike, scores: npt.ArrayLike) -> float:
    """Return the average precision: the mean, over what is so, of the precision among all that scores as high, in (0, 1].

    Args:
        truth: n values, true or 1 for what is so; some are.
        scores: n values, higher for what is more likely so.
    """
    right, total = _steps(truth, scores)
    precision = np.cumsum(right) / np.cumsum(total)
    return float((right * precision).sum() / right.sum())


def _steps(truth: npt.ArrayLike, scores: npt.ArrayLike) -> _Steps:
    _, place, total = np.unique(-np.asarray(scores, dtype=np.float64), return_inverse=True, return_counts=True)
    right = np.bincount(place, weights=np.asarray(truth, dtype=np.float64), minlength=len(total))
    return _Steps(right.astype(np.int64), total)
