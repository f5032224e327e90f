"""What a learning curve foretells for larger sizes, and how far that was from what was measured there."""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from thawlab.comparison.curve_fit import FittedCurve, checked, deviations, fitted, replicated
from thawlab.comparison.curve_forms import Fit, Floats
from thawlab.comparison.curve_scatter import LEAST_SIZES
from thawlab.errors import UsageError
from thawlab.randomness import derive

REACH = 5  # times the largest size that is known; at four times, results/learning-curve-backtest.json says how often it held


class Foretold(NamedTuple):
    """The mean error that the same seeds would measure on the same test images at another size, with its interval."""

    n: int
    error: float
    low: float
    high: float


class HeldOut(NamedTuple):
    """The error at a size, measured and foretold from the smaller sizes alone."""

    n: int
    measured: float
    foretold: Foretold

    @property
    def covered(self) -> bool:
        """Whether the interval contains the measured error."""
        return self.foretold.low <= self.measured <= self.foretold.high


def foretell(
    sizes: Sequence[int],
    errors: Sequence[Sequence[float]],
    n_test: int,
    at: Sequence[int],
    level: float = 0.95,
    seed: int = 0,
    replicates: int = 2000,
) -> tuple[Foretold, ...]:
    """Foretell the errors at larger sizes.

    Args:
        sizes: numbers of training images.
        errors: for each size the errors of the seeds, as fractions.
        n_test: how many test images the errors are shares of.
        at: larger sizes, at most `REACH` times the largest that is known.
        level: of the intervals, in (0, 1).
        seed: of the bootstrap.
        replicates: of the bootstrap.

    Raises:
        UsageError: if the numbers do not belong together, the errors are no falling curve, a size is too far away, or the level
            is none.
    """
    if not 0 < level < 1:
        raise UsageError(f"level = {level}: the share of forecasts that hold must lie between 0 and 1, for example 0.8")
    curve = fitted(measured := checked(sizes, errors, n_test))
    largest = measured.sizes[-1]
    if isinstance(curve, str):
        raise UsageError(f"nothing can be foretold: {curve}")
    if far := [n for n in at if not largest < n <= REACH * largest]:
        raise UsageError(f"n = {far[0]:,} cannot be foretold; choose sizes between {largest:,.0f} and {REACH * largest:,.0f}")
    return tuple(_foretold(curve, n, level, seed, replicates) for n in at)


def backtest(
    sizes: Sequence[int],
    errors: Sequence[Sequence[float]],
    n_test: int,
    reach: float = 2,
    level: float = 0.95,
    seed: int = 0,
    replicates: int = 2000,
) -> tuple[HeldOut, ...]:
    """Foretell the error at each size from those up to a `reach`-th of it, at least five, and compare it with the measured one.

    A curve that is refused foretells nothing. Takes what `foretell` takes.

    Raises:
        UsageError: if the numbers do not belong together or are no errors.
    """
    measured = checked(sizes, errors, n_test)
    found = []
    for place, n in enumerate(measured.sizes.tolist()):
        known = int((measured.sizes <= n / reach * 1.01).sum())  # sizes in a ratio of the square root of two are rounded
        if known < LEAST_SIZES or known > place or n > reach * 1.03 * measured.sizes[known - 1]:
            continue
        curve = fitted(measured.until(known))
        if not isinstance(curve, str):
            held_out = _foretold(curve, int(n), level, seed, replicates)
            found.append(HeldOut(int(n), float(measured.means[place]), held_out))
    return tuple(found)


def _foretold(curve: FittedCurve, n: int, level: float, seed: int, replicates: int) -> Foretold:
    known, scatter = curve.measured, curve.scatter
    place = np.array([n / known.sizes[-1]])

    def at_place(found: Fit) -> Floats:
        return found.at(place)[:, 0]

    error = float(curve.averaged(at_place))
    # Errors there scatter as those of the largest size that is known, and share the test images with all of them.
    wider = scatter._replace(deviation=np.append(scatter.deviation, scatter.deviation[-1]))
    rng = np.random.default_rng(derive(seed, "foretell", len(known.sizes), n))
    drawn = deviations(np.append(known.means, error), wider, known.n_test, rng, replicates)
    _, [outcomes] = replicated(curve, known.means - drawn[:, :-1], rng, at_place)
    low, high = np.percentile(outcomes + drawn[:, -1], (50 * (1 - level), 50 * (1 + level)))
    return Foretold(n, error, max(float(low), 0.0), min(float(high), 1.0))
