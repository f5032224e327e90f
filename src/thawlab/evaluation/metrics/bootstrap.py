"""Bootstrap intervals over test images: how far a metric would move with other images of the same kind (Efron 1979)."""

from collections.abc import Mapping

import numpy as np

from thawlab.evaluation.metrics.metric import ClassCounts, Counts, Floats, Metric, Scored
from thawlab.randomness import derive
from thawlab.results import Interval

RESAMPLES = 2000
# At most this many drawn indices are held at once.
_AT_ONCE = 4_000_000


def intervals(scored: Scored, metrics: Mapping[str, Metric], resamples: int = RESAMPLES) -> dict[str, Interval]:
    """Return 95 % percentile intervals of the metrics that are functions of class counts or means over images.

    Args:
        scored: predictions of a split with at least one image.
        metrics: by name.
        resamples: how many times as many images are drawn with replacement.
    """
    rng = np.random.default_rng(derive(0, "bootstrap"))
    counts = _drawn_counts(scored.confusion, rng, resamples)
    drawn = {name: metric.of_counts(counts) for name, metric in metrics.items() if metric.of_counts}
    for name, metric in metrics.items():
        if metric.per_image:
            drawn[name] = _means(metric.per_image(scored), rng, resamples)
    edges = {name: np.percentile(values, [2.5, 97.5]).tolist() for name, values in drawn.items()}
    return {name: (low, high) for name, (low, high) in edges.items()}


def _drawn_counts(confusion: Counts, rng: np.random.Generator, resamples: int) -> ClassCounts:
    """Draw confusion matrices and count by class: resamples × classes.

    Drawing n images with replacement and counting them is one multinomial draw over the cells of the matrix.
    """
    classes, n = len(confusion), int(confusion.sum())
    cells = np.flatnonzero(confusion)
    counts = rng.multinomial(n, confusion.ravel()[cells] / n, size=resamples)
    truth, predicted = np.divmod(cells, classes)
    hits = counts * (truth == predicted)
    right, support, named = (_by_class(part, key, classes) for part, key in ((hits, truth), (counts, truth), (counts, predicted)))
    return ClassCounts(right, support, named)


def _by_class(counts: Counts, key: Counts, classes: int) -> Counts:
    """Sum the columns of equal key: resamples × cells to resamples × classes."""
    from scipy.sparse import csr_array

    cells = np.arange(counts.shape[1])
    onto = csr_array((np.ones(len(cells), dtype=np.int64), (cells, key)), shape=(len(cells), classes))
    summed: Counts = counts @ onto
    return summed


def _means(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    """Return the means of resampled values."""
    rows = max(1, _AT_ONCE // len(values))
    parts = [
        values[rng.integers(0, len(values), (min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)
