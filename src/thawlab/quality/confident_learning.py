"""Which labels are probably wrong, by confident learning with pruning by noise rate (Northcutt, Jiang and Chuang 2021).

The paper's method as cleanlab's `find_label_issues` has it by default, from which it is tested not to differ; every training
would load cleanlab, and pandas and scikit-learn with it.
"""

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Labels

Probabilities = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]

# Probabilities that differ by less count as equal; and the least threshold of a class.
_ROUNDING, _LEAST = 1e-6, 2e-6


def confident_joint(labels: Labels, probabilities: Probabilities) -> Counts:
    """Estimate how many samples of each label belong to each class (equations 1 and 2 of the paper).

    A sample counts for a class where its probability reaches the mean of those that are labelled so; for its most probable class
    where several do. Rows are then scaled to the number of samples of each label.

    Args:
        labels: int64, n; each of the K classes occurs.
        probabilities: float64, n × K, of a classifier that did not see the sample.

    Returns:
        int64, K × K: rows are labels, columns true classes; each row sums to the samples that have the label.
    """
    count = probabilities.shape[1]
    sizes = np.bincount(labels, minlength=count)
    thresholds = np.array([probabilities[labels == k, k].mean() for k in range(count)])
    confident = probabilities >= np.maximum(thresholds, _LEAST) - _ROUNDING
    several = confident.sum(axis=1) > 1
    believed = np.where(several, probabilities.argmax(axis=1), confident.argmax(axis=1))
    sure = confident.any(axis=1)
    joint = np.zeros((count, count), dtype=np.int64)
    np.add.at(joint, (labels[sure], believed[sure]), 1)
    np.fill_diagonal(joint, np.maximum(joint.diagonal(), 1))
    scaled = joint / joint.sum(axis=1, keepdims=True) * sizes[:, np.newaxis]
    return np.stack([_rounded(row) for row in scaled])


def suspected(labels: Labels, probabilities: Probabilities) -> Indices:
    """Return the samples whose label is probably wrong, the least plausible first.

    Of each label, as many samples as the confident joint counts for another class are suspected: those that the other class
    exceeds most in probability. None is suspected whose most probable class is its label, and one of each label stays.

    Args:
        labels: int64, n; each of the K classes occurs.
        probabilities: float64, n × K, of a classifier that did not see the sample.
    """
    wrong = _leaving_one(confident_joint(labels, probabilities))
    found = np.zeros(len(labels), dtype=bool)
    for label in range(probabilities.shape[1]):
        members = np.flatnonzero(labels == label)
        if len(members) < 2:
            continue
        for other in np.flatnonzero(wrong[label]).tolist():
            margin = probabilities[members, other] - probabilities[members, label]
            found[members[np.argsort(-margin, kind="stable")[: wrong[label, other]]]] = True
    own = probabilities[np.arange(len(labels)), labels]
    suspects = np.flatnonzero(found & (own + _ROUNDING < probabilities.max(axis=1)))
    return suspects[np.argsort(own[suspects], kind="stable")]


def _leaving_one(joint: Counts) -> Counts:
    """Return the counts off the diagonal, lessened where no sample would keep its label."""
    wrong = joint.astype(np.float64)
    np.fill_diagonal(wrong, 0.0)
    lacking = np.maximum(1 - joint.diagonal(), 0)
    others = np.maximum((joint > 0).sum(axis=1) - 1, 1)
    left: Counts = np.maximum(wrong - (lacking / others)[:, np.newaxis], 0).astype(np.int64)
    return left


def _rounded(row: npt.NDArray[np.float64]) -> Counts:
    """Round numbers so that they keep their sum: those that are nearest to being rounded the other way give way."""
    whole = row.round()
    excess = round(row.sum()) - int(whole.sum())
    order = np.argsort(row - whole, kind="stable")
    changed = order[len(row) - excess :] if excess > 0 else order[:-excess]
    whole[changed] += np.sign(excess)
    rounded: Counts = whole.astype(np.int64)
    return rounded
