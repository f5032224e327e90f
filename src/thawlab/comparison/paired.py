"""Comparing two classifiers on the same test images."""

from typing import NamedTuple

import numpy as np
from scipy.stats import binomtest

from thawlab.errors import UsageError
from thawlab.evaluation.predictions import Predictions


class PairedComparison(NamedTuple):
    """The predictions of two classifiers on the same images.

    Attributes:
        n: images that both were tested on.
        only_first: images that only the first gets right.
        only_second: images that only the second gets right.
        p_value: of the exact McNemar test (McNemar 1947): how often as unequal a split would come from equal classifiers.
    """

    n: int
    only_first: int
    only_second: int
    p_value: float

    @property
    def difference(self) -> float:
        """Accuracy of the first minus that of the second, as a fraction."""
        return (self.only_first - self.only_second) / self.n

    def describe(self) -> str:
        """Return a sentence of what is shown, and what is not."""
        p_value = f"exact McNemar p = {self.p_value:.2g}"
        split = f"{self.only_first} only the first gets right, {self.only_second} only the second ({p_value})"
        if self.p_value >= 0.05:
            return f"No difference shown on {self.n:,} test images: {split}."
        better = "first" if self.difference > 0 else "second"
        return f"On {self.n:,} test images the {better} is better by {100 * abs(self.difference):.2f} points: {split}."


def compare_predictions(first: Predictions, second: Predictions) -> PairedComparison:
    """Compare two tables of predictions, image by image.

    Raises:
        UsageError: if the tables are not about the same images.
    """
    if not len(first.ids) or not np.array_equal(first.ids, second.ids) or not np.array_equal(first.labels, second.labels):
        raise UsageError(
            "the two runs were not tested on the same images and labels; use the same source, seed, splits and corrections"
        )
    right, also = first.predicted == first.labels, second.predicted == second.labels
    only_first, only_second = int((right & ~also).sum()), int((also & ~right).sum())
    discordant = only_first + only_second
    p_value = float(binomtest(only_first, discordant, 0.5).pvalue) if discordant else 1.0
    return PairedComparison(len(first.ids), only_first, only_second, p_value)
