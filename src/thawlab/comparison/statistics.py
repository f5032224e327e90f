"""Intervals and tests for differences between classifiers, over seeds, over test images, and over both.

A difference is given as a table `d`, seeds × images: by how much more right one classifier is than another on an image, in
[-1, 1]; 1 and -1 where only one of two is right, or a weighted sum of more than two. Three questions have three answers:

- other seeds, these test images: a paired t interval over the means by seed (and an exact sign-flip test);
- these runs, other test images: a bootstrap over the images (for one seed: the exact McNemar test);
- other seeds and other images: both variances, of the crossed random effects.
"""

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from scipy import optimize, special, stats

from thawlab.randomness import derive

Differences = npt.NDArray[np.float64]

CONFIDENCE, POWER = 0.95, 0.80
_RESAMPLES, _FLIPS = 4000, 40_000
# From this many images that differ, the sign-flip test over images is a normal one.
_MANY_IMAGES = 200
_LEAST_P = 1e-100  # the quantiles of t fail far beyond it
_EXACT_SEEDS = 16  # 65,536 patterns of signs; beyond it they are drawn


class Errors(NamedTuple):
    """The standard errors of a mean difference: of its means by seed, with their degrees of freedom, and of the images.

    Attributes:
        seeds: of the mean of the means by seed, what single answers scatter included.
        df: degrees of freedom of that.
        images: of the images' own part.
    """

    seeds: float
    df: float
    images: float

    def half_width(self, level: float = 1 - CONFIDENCE) -> float:
        """Return half of the interval that misses with a probability of `level`.

        The two parts add as squares (Howe 1974), that of the seeds with its own t; see `_square`.
        """
        of_seeds = -float(special.stdtrit(self.df, level / 2)) * self.seeds if self.seeds else 0.0
        of_images = -float(special.ndtri(level / 2)) * self.images
        small, large = sorted((of_seeds, of_images))
        return large * math.sqrt(_square((small / large) ** 2, 1.0, self.df)) if small else large

    def p_value(self, difference: float) -> float:
        """Return the level at which the interval begins to cover zero."""
        size = abs(difference)
        if size == 0:
            return 1.0
        # Neither part is wider than both: each alone gives a p-value that is too small, or right where the other is zero.
        of_seeds = 2 * float(special.stdtr(self.df, -size / self.seeds)) if self.seeds else 0.0
        of_images = 2 * float(special.ndtr(-size / self.images)) if self.images else 0.0
        least = max(of_seeds, of_images)
        if not self.seeds or not self.images:
            return least
        least = max(least, _LEAST_P)
        if self.half_width(least) <= size:
            return least
        log_p = optimize.brentq(lambda log_p: self.half_width(math.exp(log_p)) - size, math.log(least), 0.0)
        return math.exp(float(log_p))


class Estimate(NamedTuple):
    """An interval for a difference (fractions), the test that belongs to it, and the standard errors behind both."""

    low: float
    high: float
    p_value: float
    errors: Errors

    def as_json(self) -> dict[str, Any]:
        """Return interval and p-value as JSON values."""
        return {"low": self.low, "high": self.high, "p_value": self.p_value}


class Components(NamedTuple):
    """The variances of a difference: between seeds, between images, and what is left of a single answer."""

    seeds: float
    images: float
    rest: float

    def errors(self, seeds: int, images: int) -> Errors:
        """Return the standard errors of the mean over this many seeds and images."""
        by_seed = (self.seeds + self.rest / images) / seeds
        return Errors(math.sqrt(by_seed), seeds - 1, math.sqrt(self.images / images))


def estimate(difference: float, errors: Errors) -> Estimate:
    """Return the interval around a difference, with its test, that its standard errors give."""
    half = errors.half_width()
    return Estimate(difference - half, difference + half, errors.p_value(difference), errors)


def over_seeds(means: Sequence[float] | Differences) -> Estimate | None:
    """Return the paired t interval of differences by seed: how other seeds would do on the same test images.

    Returns:
        None for fewer than two seeds.
    """
    values = np.asarray(means, dtype=np.float64)
    if len(values) < 2:
        return None
    return estimate(float(values.mean()), Errors(float(values.std(ddof=1) / math.sqrt(len(values))), len(values) - 1, 0.0))


def sign_flip(values: Sequence[float] | Differences, draws: int = 100_000) -> float:
    """Return the two-sided p-value of the sign-flip test (Fisher 1935): how often flipped signs give as large a mean.

    All patterns of signs are tried for up to 16 values, `draws` random ones beyond. It is never below 2 / 2^n: three values
    cannot reach 0.05, nor can five.
    """
    given = np.asarray(values, dtype=np.float64)
    n = len(given)
    if n <= _EXACT_SEEDS:
        signs = 1.0 - 2.0 * ((np.arange(2**n)[:, None] >> np.arange(n)) & 1)
    else:
        rng = np.random.default_rng(derive(0, "sign-flip"))
        signs = np.concatenate([np.ones((1, n)), rng.choice([-1.0, 1.0], (draws, n))])
    as_large = np.abs(signs @ given) >= abs(given.sum()) * (1 - 1e-12) - 1e-15
    return float(as_large.mean())


def over_images(d: Differences) -> Estimate:
    """Return the bootstrap interval over images of the mean difference, and a sign-flip test over images.

    For one pair of runs the test is the exact one of McNemar (1947). The bootstrap (Efron 1979) is drawn exactly as images
    drawn with replacement would fall, by counting how often each value of the difference occurs.
    """
    by_image = d.mean(axis=0)
    n = len(by_image)
    values, counts = np.unique(np.round(by_image, 12), return_counts=True)
    rng = np.random.default_rng(derive(0, "images"))
    drawn = rng.multinomial(n, counts / n, size=_RESAMPLES) @ values / n
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]).tolist()
    error = float(by_image.std() / math.sqrt(n))
    return Estimate(low, high, _images_p_value(d, by_image, rng), Errors(0.0, math.inf, error))


def _images_p_value(d: Differences, by_image: Differences, rng: np.random.Generator) -> float:
    if len(d) == 1 and set(np.unique(d)) <= {-1.0, 0.0, 1.0}:
        better, worse = int((d > 0).sum()), int((d < 0).sum())
        return float(stats.binomtest(better, better + worse, 0.5).pvalue) if better + worse else 1.0
    differ = by_image[by_image != 0]
    if len(differ) >= _MANY_IMAGES:
        return float(2 * stats.norm.sf(abs(differ.sum()) / math.sqrt(np.square(differ).sum())))
    signs = rng.choice([-1.0, 1.0], (_FLIPS, len(differ)))
    return float((1 + (np.abs(signs @ differ) >= abs(differ.sum()) - 1e-9).sum()) / (1 + _FLIPS))


def over_own_images(tables: Sequence[Differences]) -> Estimate:
    """Return the interval over images of the mean of several differences, each measured on images of its own (1 × n each)."""
    means = [float(table.mean()) for table in tables]
    variance = sum(float(table.var()) / table.shape[1] for table in tables) / len(tables) ** 2
    return estimate(float(np.mean(means)), Errors(0.0, math.inf, math.sqrt(variance)))


def over_both_of_own_images(tables: Sequence[Differences]) -> Estimate | None:
    """Return the interval over seeds and images where each seed has test images of its own (1 × n each).

    Its means by seed then vary with both. A few of them may agree by chance, or because their images are few, so the standard
    error is never taken to be less than what the images alone give; with the t of the seeds, that is rather too wide.

    Returns:
        None for fewer than two seeds.
    """
    by_seed, by_images = over_seeds([float(table.mean()) for table in tables]), over_own_images(tables)
    if by_seed is None:
        return None
    error = max(by_seed.errors.seeds, by_images.errors.images)
    return estimate(float(np.mean([table.mean() for table in tables])), by_seed.errors._replace(seeds=error))


def components(d: Differences) -> Components:
    """Return the variance components of a crossed table by the analysis of variance (Henderson's method 1), none below zero."""
    seeds, n = d.shape
    rows, columns, mean = d.mean(axis=1), d.mean(axis=0), d.mean()
    between_seeds, between_images = n * rows.var(ddof=1), seeds * columns.var(ddof=1)
    rest = float(np.square(d - rows[:, None] - columns + mean).sum() / ((seeds - 1) * (n - 1)))
    return Components(max((between_seeds - rest) / n, 0.0), max((between_images - rest) / seeds, 0.0), rest)


def over_both(d: Differences) -> Estimate | None:
    """Return the interval of the mean difference with other seeds and other test images.

    Seeds and images are crossed random effects: Var = s²_seeds/S + s²_images/N + s²_rest/(S·N). The half width of the seeds'
    interval and that of the images' own part add as squares, less what that is too wide by. A percentile bootstrap over both
    (Owen 2007) takes few seeds for all there are, and counts what is left of single answers three times; how often either
    covers the truth: results/study-statistics.json.

    Returns:
        None for fewer than two seeds or images.
    """
    seeds, n = d.shape
    if seeds < 2 or n < 2:
        return None
    errors = components(d).errors(seeds, n)
    by_seed = float(d.mean(axis=1).std(ddof=1) / math.sqrt(seeds))
    return estimate(float(d.mean()), errors._replace(seeds=by_seed))


def _square(of_seeds: Any, of_images: Any, df: float) -> Any:
    """Return the square of the half width from those of its parts.

    Where both parts matter their sum is too wide, the more so the fewer the seeds. Without this share of it, 95.0 to 96.9 % are
    covered with three seeds and more, whichever part prevails (98.2 % at most with two).
    """
    return of_seeds + of_images - 2 / (df + 1) * of_seeds * of_images / (of_seeds + of_images)


def two_level_bootstrap(d: Differences, resamples: int = 2000) -> tuple[float, float]:
    """Return the percentile interval of a bootstrap over seeds and over images at once (Owen 2007, the pigeonhole bootstrap)."""
    rng = np.random.default_rng(derive(0, "two-level"))
    seeds, n = d.shape
    by_seeds = rng.multinomial(seeds, np.full(seeds, 1 / seeds), size=resamples) @ d / seeds
    weights = rng.poisson(1.0, (resamples, n))
    drawn = (by_seeds * weights).sum(axis=1) / weights.sum(axis=1)
    low, high = np.percentile(drawn, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)]).tolist()
    return low, high


def holm(p_values: Sequence[float]) -> list[float]:
    """Return p-values corrected over their family, which then is wrong with a probability of at most 5 % (Holm 1979)."""
    order = np.argsort(p_values, kind="stable")
    adjusted, largest = [0.0] * len(p_values), 0.0
    for rank, place in enumerate(order.tolist()):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[place]))
        adjusted[place] = largest
    return adjusted


def holm_levels(p_values: Sequence[float]) -> list[float]:
    """Return the level at which each interval covers zero exactly where Holm's test finds no difference."""
    order = np.argsort(p_values, kind="stable").tolist()
    level, levels, rejecting = 1 - CONFIDENCE, [0.0] * len(p_values), True
    share = level / max(len(p_values), 1)
    for rank, place in enumerate(order):
        if rejecting:
            share = level / (len(p_values) - rank)
            rejecting = p_values[place] <= share
        levels[place] = share
    return levels


def power(difference: float, errors: Errors) -> float:
    """Return the probability that a test at 5 % finds a true difference.

    Args:
        difference: the true one.
        errors: the true standard errors; what a study estimates of the seeds' one scatters around it.
    """
    level = 1 - CONFIDENCE
    # The estimated variance of the seeds is a scaled chi-squared, independent of the mean: averaged over its quantiles.
    chi = stats.chi2.ppf((np.arange(400) + 0.5) / 400, errors.df) / errors.df if errors.seeds else np.ones(1)
    t = float(stats.t.isf(level / 2, errors.df)) if errors.seeds else 0.0
    total = math.hypot(errors.seeds, errors.images)
    if total == 0:
        return float(difference != 0)
    half = np.sqrt(_square((t * errors.seeds) ** 2 * chi, (stats.norm.isf(level / 2) * errors.images) ** 2, errors.df))
    found = stats.norm.sf((half - abs(difference)) / total) + stats.norm.cdf((-half - abs(difference)) / total)
    return float(found.mean())


def smallest_detectable(errors: Errors) -> float:
    """Return the difference that a test at 5 % finds in 80 % of all studies."""
    total = math.hypot(errors.seeds, errors.images)
    if total == 0:
        return 0.0
    return float(optimize.brentq(lambda size: power(size * total, errors) - POWER, 0.0, 1000.0)) * total


def seeds_needed(difference: float, found: Components, images: int, most: int = 1000) -> int | None:
    """Return how many seeds find a difference in 80 % of all studies with as many test images; None if `most` do not."""
    return _least(2, most, lambda seeds: power(difference, found.errors(seeds, images)))


def images_needed(difference: float, found: Components, seeds: int, most: int = 10_000_000) -> int | None:
    """Return how many test images find a difference in 80 % of all studies with as many seeds; None if `most` do not."""
    return _least(2, most, lambda images: power(difference, found.errors(seeds, images)))


def _least(low: int, high: int, power_of: Callable[[int], float]) -> int | None:
    if power_of(high) < POWER:
        return None
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(middle) >= POWER else (middle + 1, high)
    return high
