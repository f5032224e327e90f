"""Bootstrap intervals over test images: how far a metric would move with other images of the same kind (Efron 1979)."""

from collections.abc import Mapping

import numpy as np

from thawlab.evaluation.metrics.metric import ClassCounts, Counts, Floats, Metric, Scored
from thawlab.randomness import derive
from thawlab.values import Interval

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
    drawn |= {name: _means(metric.per_image(scored), rng, resamples) for name, metric in metrics.items() if metric.per_image}
    return {name: tuple(np.percentile(values, [2.5, 97.5]).tolist()) for name, values in drawn.items()}


def _drawn_counts(confusion: Counts, rng: np.random.Generator, resamples: int) -> ClassCounts:
    """Draw confusion matrices and count by class: resamples × classes.

    Drawing n images with replacement and counting them is one multinomial draw over the cells of the matrix.
    """
    from scipy.sparse import csr_array

    n, cells = int(confusion.sum()), np.flatnonzero(confusion)
    counts = rng.multinomial(n, confusion.ravel()[cells] / n, size=resamples)
    truth, predicted = np.divmod(cells, len(confusion))
    ones, rows = np.ones(len(cells), dtype=np.int64), np.arange(len(cells))
    by_truth, by_predicted = (csr_array((ones, (rows, key)), shape=(len(cells), len(confusion))) for key in (truth, predicted))
    return ClassCounts(counts * (truth == predicted) @ by_truth, counts @ by_truth, counts @ by_predicted)


def _means(values: Floats, rng: np.random.Generator, resamples: int) -> Floats:
    rows = max(1, _AT_ONCE // len(values))
    parts = [
        values[rng.integers(0, len(values), (min(rows, resamples - start), len(values)))].mean(axis=1)
        for start in range(0, resamples, rows)
    ]
    return np.concatenate(parts)
