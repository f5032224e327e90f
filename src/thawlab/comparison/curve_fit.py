"""Fitting every functional form to a learning curve, and drawing what other seeds and test images would have measured.

Each replicate draws new means from the estimated scatter (`curve_scatter`), its size itself uncertain as in a t-interval: three
seeds that are resampled as they are would be far too sure of themselves. It then takes one of the forms, with the form's Akaike
weight as probability.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from thawlab.comparison.curve_forms import FORMS, Fit, Floats, akaike_weights, fit
from thawlab.comparison.curve_scatter import (
    Measured,
    Scatter,
    ill_behaved,
    lack_of_fit,
    over_images,
    scatter_of,
    total_covariance,
)
from thawlab.errors import UsageError


def checked(sizes: Sequence[int], errors: Sequence[Sequence[float]], n_test: int) -> Measured:
    """Return errors by ascending size, after checking that they are such.

    Raises:
        UsageError: if the numbers do not belong together or are no errors.
    """
    rows = sorted(zip(sizes, errors, strict=False), key=lambda row: row[0])
    if not rows or len(sizes) != len(errors) or len({len(row) for row in errors}) != 1 or not len(errors[0]):
        raise UsageError("a learning curve needs sizes, and at each size the errors of the same seeds")
    if len(set(sizes)) != len(sizes) or rows[0][0] < 1 or n_test < 1:
        raise UsageError("a learning curve needs different sizes of at least one image, and test images")
    table = np.array([row for _, row in rows], dtype=np.float64)
    if not ((table >= 0) & (table <= 1)).all():
        raise UsageError("the errors of a learning curve are fractions between 0 and 1")
    return Measured(np.array([size for size, _ in rows], dtype=np.float64), table, n_test)


class FittedCurve(NamedTuple):
    """Errors with all forms fitted to their means; `weights` are the forms'."""

    measured: Measured
    scatter: Scatter
    fits: list[Fit]
    weights: Floats

    def averaged(self, of: Callable[[Fit], Floats]) -> Floats:
        """Return a function of the fit to the means, averaged over the forms."""
        return np.asarray(sum(weight * of(found)[0] for weight, found in zip(self.weights, self.fits, strict=True)))


def fitted(measured: Measured) -> FittedCurve | str:
    """Fit every form to the means; or return why there is no curve to fit."""
    scatter = scatter_of(measured)
    if reason := ill_behaved(measured, scatter):
        return reason
    covariance = total_covariance(measured, scatter)
    fits = [fit(form, measured.x, measured.means[None], covariance) for form in FORMS]
    weights = akaike_weights(fits)[:, 0]
    best = fits[int(weights.argmax())]
    reason = lack_of_fit(measured, scatter, best.form.name, float(best.chi_squared[0]), best.form.parameters)
    return reason or FittedCurve(measured, scatter, fits, weights)


def deviations(means: Floats, scatter: Scatter, n_test: int, rng: np.random.Generator, replicates: int) -> Floats:
    """Draw how far the means may lie from the truth, because of the seeds and of the test images; a row per replicate."""
    of_seeds = rng.standard_normal((replicates, len(means))) @ _root(scatter.of_means()).T
    if scatter.seeds > 1:
        of_seeds *= np.sqrt(scatter.freedom / rng.chisquare(scatter.freedom, (replicates, 1)))
    of_images = rng.standard_normal((replicates, len(means))) @ _root(over_images(means, n_test, scatter.seeds)).T
    return np.asarray(of_seeds + of_images, dtype=np.float64)


def _root(covariance: Floats) -> Floats:
    """Return a matrix whose product with its transpose is the covariance, which may be singular."""
    values, vectors = np.linalg.eigh(covariance)
    return np.asarray(vectors * np.sqrt(np.maximum(values, 0)), dtype=np.float64)


def replicated(
    curve: FittedCurve, drawn: Floats, rng: np.random.Generator, *of: Callable[[Fit], Floats]
) -> tuple[list[Fit], list[Floats]]:
    """Fit all forms to drawn means; return the fits, and functions of the one form that each replicate takes."""
    covariance = total_covariance(curve.measured, curve.scatter)
    again = [fit(form, curve.measured.x, drawn, covariance) for form in FORMS]
    # Other errors would have spoken for other forms, too: each replicate weighs them anew.
    weights = akaike_weights(again)
    chosen = np.minimum((weights.cumsum(axis=0) < rng.random(len(drawn))).sum(axis=0), len(FORMS) - 1)
    return again, [np.stack([function(found) for found in again])[chosen, np.arange(len(drawn))] for function in of]
