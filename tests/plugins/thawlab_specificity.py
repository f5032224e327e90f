"""A plug-in as a newcomer writes it: a metric with an interval, copied from `macro_recall` in thawlab's own."""

from __future__ import annotations

import numpy as np

from thawlab.evaluation.metrics import ClassCounts, metrics, of_class_counts


@metrics.register("macro_specificity")
@of_class_counts
def macro_specificity(counts: ClassCounts) -> np.ndarray:
    """Mean over the classes of the share of other classes' images that are not taken for this one."""
    others = counts.support.sum(axis=-1, keepdims=True) - counts.support
    taken = counts.predicted - counts.right
    return counts.macro(1 - taken / np.maximum(others, 1))
