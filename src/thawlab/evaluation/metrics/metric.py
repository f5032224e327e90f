"""What a metric is, and the registry of metrics: a function of predictions, and how far it would move with other images."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Labels
from thawlab.evaluation.predictions import Logits, Predictions
from thawlab.registry import Registry, about

Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


class ClassCounts(NamedTuple):
    """Images per class, … × classes: `right` ones, `support` (of this class), `predicted` (as this class)."""

    right: Counts
    support: Counts
    predicted: Counts

    def macro(self, values: Floats) -> Floats:
        """Return the mean of values over the classes that occur: … × classes to …."""
        present = self.support > 0
        mean: Floats = (values * present).sum(axis=-1) / present.sum(axis=-1)
        return mean


@final
@dataclass(frozen=True)
class Scored:
    """Predictions of a split with at least one image, as metrics take them.

    Attributes:
        predictions: ids, labels and logits.
        temperature: that the logits are divided by for calibrated probabilities.
        bins: of calibration errors.
    """

    predictions: Predictions
    temperature: float = 1.0
    bins: int = 15

    @property
    def labels(self) -> Labels:
        """The true classes, int64, n."""
        return self.predictions.labels

    @property
    def logits(self) -> Logits:
        """The logits, float32, n × classes."""
        return self.predictions.logits

    @cached_property
    def probabilities(self) -> Floats:
        """The calibrated probabilities, n × classes."""
        return self.predictions.probabilities(self.temperature)

    @cached_property
    def uncalibrated(self) -> Floats:
        """The probabilities at temperature 1, n × classes."""
        return self.predictions.probabilities()

    @cached_property
    def confusion(self) -> Counts:
        """Images by true class (rows) and predicted class (columns)."""
        classes = self.logits.shape[1]
        cells = np.bincount(self.labels * classes + self.predictions.predicted, minlength=classes * classes)
        return cells.reshape(classes, classes)

    @property
    def counts(self) -> ClassCounts:
        """Images per class, classes."""
        return ClassCounts(self.confusion.diagonal(), self.confusion.sum(axis=1), self.confusion.sum(axis=0))


class Metric(NamedTuple):
    """A number that judges predictions.

    Attributes:
        about: one line for people.
        value: of a split; None where the split does not allow it.
        per_image: the values whose mean it is, n, where it is a mean over images: the bootstrap resamples them.
        of_counts: the function of class counts that it is, if any: the bootstrap resamples the confusion matrix.
    """

    about: str
    value: Callable[[Scored], float | None]
    per_image: Callable[[Scored], Floats] | None = None
    of_counts: Callable[[ClassCounts], Floats] | None = None


metrics: Registry[Metric] = Registry("metric")


def plain(function: Callable[[Scored], float | None]) -> Metric:
    """Make a metric without an interval of a function of predictions."""
    return Metric(about(function), function)


def mean_over_images(function: Callable[[Scored], Floats]) -> Metric:
    """Make a metric of a function that gives a value per image; its interval follows."""
    return Metric(about(function), lambda scored: float(function(scored).mean()), per_image=function)


def of_class_counts(function: Callable[[ClassCounts], Floats]) -> Metric:
    """Make a metric of a function of class counts; its interval follows."""
    return Metric(about(function), lambda scored: float(function(scored.counts)), of_counts=function)
