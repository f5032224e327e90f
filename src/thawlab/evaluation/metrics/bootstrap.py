"""Bootstrap intervals over test images: how far a figure would move with other images of the same kind (Efron 1979)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from thawlab.randomness import derive

RESAMPLES = 2000
# So many drawn indices are held at once.
_AT_ONCE = 4_000_000


def intervals(
    confusion: npt.NDArray[np.int64], per_sample: Mapping[str, npt.NDArray[np.float64]], resamples: int = RESAMPLES
) -> dict[str, list[float]]:
    """Return 95 % percentile intervals of figures of one split.

    Args:
        confusion: rows are the truth, columns the predictions; at least one sample.
        per_sample: figures that are means over samples, by name.
        resamples: how many times as many images are drawn with replacement.

    Returns:
        [low, high] for accuracy, balanced accuracy, macro precision, recall and F1, and every figure of `per_sample`.
    """
    rng = np.random.default_rng(derive(0, "bootstrap"))
    drawn = {**_of_confusion(confusion, rng, resamples), **{k: _means(v, rng, resamples) for k, v in per_sample.items()}}
    return {name: [float(edge) for edge in np.percentile(values, [2.5, 97.5])] for name, values in drawn.items()}


def _of_confusion(
    confusion: npt.NDArray[np.int64], rng: np.random.Generator, resamples: int
) -> dict[str, npt.NDArray[np.float64]]:
    """Draw confusion matrices and compute what depends on them alone.

    Drawing n images with replacement and counting them is one multinomial draw over the cells of the matrix.
    """
    classes, n = len(confusion), int(confusion.sum())
    cells = np.flatnonzero(confusion)
    counts = rng.multinomial(n, confusion.ravel()[cells] / n, size=resamples)
    truth, predicted = np.divmod(cells, classes)
    hits = counts * (truth == predicted)
    right, support, named = (_by_class(part, key, classes) for part, key in ((hits, truth), (counts, truth), (counts, predicted)))
    present = support > 0
    recall, precision = right / np.maximum(support, 1), right / np.maximum(named, 1)
    f1 = 2 * right / np.maximum(support + named, 1)
    mean_recall = _mean_where(recall, present)
    return {
        "accuracy": hits.sum(axis=1) / n,
        "balanced_accuracy": mean_recall,
        "macro_precision": _mean_where(precision, present),
        "macro_recall": mean_recall,
        "macro_f1": _mean_where(f1, present),
    }


def _by_class(counts: npt.NDArray[np.int64], key: npt.NDArray[np.int64], classes: int) -> npt.NDArray[np.int64]:
    """Sum the columns of equal key: resamples × cells to resamples × classes."""
    from scipy.sparse import csr_array

    cells = np.arange(counts.shape[1])
    onto = csr_array((np.ones(len(cells), dtype=np.int64), (cells, key)), shape=(len(cells), classes))
    summed: npt.NDArray[np.int64] = counts @ onto
    return summed


def _mean_where(values: npt.NDArray[np.float64], mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.float64]:
    means: npt.NDArray[np.float64] = (values * mask).sum(axis=1) / mask.sum(axis=1)
    return means


def _means(values: npt.NDArray[np.float64], rng: np.random.Generator, resamples: int) -> npt.NDArray[np.float64]:
    """Return the means of resampled values."""
    rows = max(1, _AT_ONCE // len(values))
    parts = [
        values[rng.integers(0, len(values), (min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)
