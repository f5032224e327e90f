"""How far the errors of a learning curve scatter, over seeds and over test images, and which curves are no curve to fit.

The seeds' variance is a power of n whose two parameters are estimated from all sizes together, so that one size with luckily
equal seeds does not outweigh the others (Hoiem et al. 2021, "Learning Curves for Analysis of Deep Networks", smooth it too).
Seeds that draw nested subsets are good or bad at several sizes: one correlation between sizes stands for that.

All sizes are tested on the same images. Where an image that more data leave wrong is wrong with fewer data too, the errors
share their sampling as a Brownian bridge does: covariance min(e, e′)·(1 − max(e, e′)) / images. The level is then known no better
than one test set allows, while differences along the curve are known much better.
"""

from typing import NamedTuple

import numpy as np
from scipy import stats

from thawlab.comparison.curve_forms import Floats

LEAST_SIZES = 5
_SURE = 0.01  # a rise or a lack of fit refuses the curve at this level: rarer by chance than other trouble
_DEMONSTRABLE = 0.05


class Measured(NamedTuple):
    """Errors as they were measured.

    Attributes:
        sizes: numbers of training images, ascending.
        errors: fractions, a row per size and a column per seed.
        n_test: test images.
    """

    sizes: Floats
    errors: Floats
    n_test: int

    @property
    def x(self) -> Floats:
        """The sizes as fractions of the largest."""
        return np.asarray(self.sizes / self.sizes[-1], dtype=np.float64)

    @property
    def means(self) -> Floats:
        """Mean error of each size over the seeds."""
        return np.asarray(self.errors.mean(axis=1), dtype=np.float64)

    def until(self, count: int) -> "Measured":
        """Return the smallest sizes only."""
        return Measured(self.sizes[:count], self.errors[:count], self.n_test)


class Scatter(NamedTuple):
    """How one seed's errors scatter around the mean.

    Attributes:
        deviation: standard deviation of each size.
        correlation: between two sizes of a seed.
        seeds: how many the mean is of.
        freedom: degrees of freedom that the deviation is estimated with; infinite where it is binomial.
    """

    deviation: Floats
    correlation: float
    seeds: int
    freedom: float

    def of_means(self) -> Floats:
        """Return the covariance of the mean errors that is due to the seeds."""
        count = len(self.deviation)
        between = np.full((count, count), self.correlation) + (1 - self.correlation) * np.eye(count)
        return np.asarray(np.outer(self.deviation, self.deviation) * between / self.seeds, dtype=np.float64)


def over_images(levels: Floats, n_test: int, seeds: int) -> Floats:
    """Return the covariance of errors that are measured on the same test images; half of it for one seed, see `scatter_of`."""
    bridge = np.minimum.outer(levels, levels) * (1 - np.maximum.outer(levels, levels)) / n_test
    return np.asarray(bridge if seeds > 1 else bridge / 2, dtype=np.float64)


def scatter_of(measured: Measured) -> Scatter:
    """Estimate the scatter over the seeds; of one seed, which shows none, half of the binomial variance of the test images."""
    means, (count, seeds) = measured.means, measured.errors.shape
    if seeds < 2:
        return Scatter(np.sqrt(means * (1 - means) / measured.n_test / 2), 0.0, 1, np.inf)
    deviation = np.sqrt(_smooth_variance(measured.x, measured.errors.var(axis=1, ddof=1), measured.n_test))
    standardised = (measured.errors - means[:, None]) / deviation[:, None]
    of_seeds = float((standardised.mean(axis=0) ** 2).sum() / (seeds - 1))  # its mean: ρ + (1 − ρ)/count
    correlation = float(np.clip((of_seeds - 1 / count) / (1 - 1 / count), 0, 0.95))
    return Scatter(deviation, correlation, seeds, count * (seeds - 1) / (1 + (count - 1) * correlation))


def _smooth_variance(x: Floats, variances: Floats, n_test: int) -> Floats:
    """Return exp(a + b·ln x) of the largest gamma likelihood, at least what counting whole images makes of equal seeds."""
    powers = np.linspace(-2, 1, 61)  # from a variance that falls with n² to one that grows with n
    scales = (variances / x ** powers[:, None]).mean(axis=1)
    least = 1 / (12 * n_test**2)
    costs = np.log(np.maximum(scales, least)) + powers * np.log(x).mean()
    best = costs.argmin()
    return np.asarray(np.maximum(scales[best] * x ** powers[best], least), dtype=np.float64)


def ill_behaved(measured: Measured, scatter: Scatter) -> str:
    """Return why these errors cannot be summarised by a falling curve, in words; empty if they can."""
    if len(measured.sizes) < LEAST_SIZES:
        return f"{len(measured.sizes)} sizes are too few to tell forms apart; measure at least {LEAST_SIZES}"
    means = measured.means
    if (means <= 0).any():
        n = measured.sizes[means <= 0][0]
        return f"at n = {n:,.0f} none of the {measured.n_test:,} test images is wrong: they are too few or too easy for a curve"
    return _rises(measured, scatter) or _is_flat(measured, scatter)


def _rises(measured: Measured, scatter: Scatter) -> str:
    """Look for a rise between any two sizes: one-sided t-tests paired over seeds, after Bonferroni."""
    first, second = np.triu_indices(len(measured.sizes), 1)
    covariance, means = scatter.of_means(), measured.means
    variance = covariance[first, first] + covariance[second, second] - 2 * covariance[first, second]
    rise = means[second] - means[first]
    p_values = np.minimum(stats.t.sf(rise / np.sqrt(variance), scatter.freedom) * len(first), 1)
    if (worst := int(p_values.argmin())) < 0 or p_values[worst] >= _SURE:
        return ""
    low, high = first[worst], second[worst]
    over = f"paired over {scatter.seeds} seeds" if scatter.seeds > 1 else "over the test images"
    return (
        f"the error rises with more data, from {100 * means[low]:.2f} % at n = {measured.sizes[low]:,.0f} to "
        f"{100 * means[high]:.2f} % at n = {measured.sizes[high]:,.0f} (p = {p_values[worst]:.1g}, {over}): no falling curve "
        "describes that; look for what else changes with the size"
    )


def _is_flat(measured: Measured, scatter: Scatter) -> str:
    """Look for a fall: the slope over ln n by generalised least squares."""
    design = np.stack([np.ones(len(measured.x)), np.log(measured.x)])
    inverse = np.linalg.inv(total_covariance(measured, scatter))
    precision = np.linalg.inv(design @ inverse @ design.T)
    slope = float((precision @ design @ inverse @ measured.means)[1])
    if stats.t.cdf(slope / np.sqrt(precision[1, 1]), scatter.freedom) < _DEMONSTRABLE:
        return ""
    low, high = 100 * measured.means.min(), 100 * measured.means.max()
    return (
        f"the error does not demonstrably fall with more data (it stays between {low:.2f} % and {high:.2f} %): "
        "measure smaller sizes too, or more seeds"
    )


def total_covariance(measured: Measured, scatter: Scatter) -> Floats:
    """Return the covariance of the mean errors over seeds and test images."""
    return scatter.of_means() + over_images(measured.means, measured.n_test, scatter.seeds)


def lack_of_fit(measured: Measured, scatter: Scatter, form: str, chi_squared: float, parameters: int) -> str:
    """Return in words that even the best form misses the errors by more than their scatter (an F-test); else nothing."""
    left = len(measured.sizes) - parameters
    if not (p_value := float(stats.f.sf(chi_squared / left, left, min(scatter.freedom, 1e9)))) < _SURE:
        return ""
    return (
        f"no form fits: the best ({form}) misses the errors by {np.sqrt(chi_squared / left):.1f} times their scatter "
        f"(p = {p_value:.1g}); the curve has a knee or a plateau that one power law does not describe"
    )
