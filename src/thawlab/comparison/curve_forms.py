"""The functional forms of a learning curve, error = α + η·shape(n), and fitting them to many sets of errors at once.

Sizes are given as x = n/N, so that nothing depends on how many images N is. For a given exponent or rate the rest is linear
(variable projection, Golub and Pereyra 1973): α and η have a closed form, and only one number is searched, on a grid over its
whole range. Every node of the grid is a start, so no local minimum is taken for the best; a parabola refines the best node.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]

# Beyond these a power of n can no longer be told from a logarithm, or from a curve that has ended before the second size.
_EXPONENTS = (-2.0, -0.02)
_NODES = 199


class Form(NamedTuple):
    """A functional form.

    Attributes:
        name: in reports.
        parameters: how many are fitted.
        shape: of x and the searched number θ (an exponent, or a rate per N images); falls with x.
        slope: x times its derivative.
        grid: the values of θ to search, given the smallest x.
        floor: whether α is fitted; else it is 0.
    """

    name: str
    parameters: int
    shape: Callable[[Floats, Floats], Floats]
    slope: Callable[[Floats, Floats], Floats]
    grid: Callable[[float], Floats]
    floor: bool = True


def _power(x: Floats, exponent: Floats) -> Floats:
    return np.asarray(x**exponent, dtype=np.float64)


def _power_slope(x: Floats, exponent: Floats) -> Floats:
    return np.asarray(exponent * x**exponent, dtype=np.float64)


def _exponential(x: Floats, rate: Floats) -> Floats:
    return np.asarray(np.exp(-rate * x), dtype=np.float64)


def _exponential_slope(x: Floats, rate: Floats) -> Floats:
    return np.asarray(-rate * x * np.exp(-rate * x), dtype=np.float64)


def _offset(x: Floats, offset: Floats) -> Floats:
    return np.asarray((x + offset) ** -0.5, dtype=np.float64)


def _offset_slope(x: Floats, offset: Floats) -> Floats:
    return np.asarray(-x / 2 * (x + offset) ** -1.5, dtype=np.float64)


def _exponents(_least: float) -> Floats:
    return np.linspace(*_EXPONENTS, _NODES)


def _square_root(_least: float) -> Floats:
    return np.array([-0.5])


def _rates(least: float) -> Floats:
    return np.geomspace(0.05, 5 / least, _NODES)  # from hardly bent over all sizes to gone at the smallest


def _offsets(least: float) -> Floats:
    return np.concatenate([[0.0], np.geomspace(least / 20, 1, _NODES - 1)])


POWER = Form("power", 3, _power, _power_slope, _exponents)
FORMS = (
    POWER,
    # Where nothing of a floor is to be seen yet, a fitted one can only err upwards: curves that fall on were foretold too high.
    Form("power without a floor", 2, _power, _power_slope, _exponents, floor=False),
    Form("square root", 2, _power, _power_slope, _square_root),
    Form("exponential", 3, _exponential, _exponential_slope, _rates),
    # Bends at small sizes, where the others do not: without it, curves with a shoulder were given too narrow intervals.
    Form("square root with an offset", 3, _offset, _offset_slope, _offsets),
)


class Fit(NamedTuple):
    """A form fitted to R sets of errors: arrays of R values each, of the smallest weighted sum of squares too."""

    form: Form
    alpha: Floats
    eta: Floats
    theta: Floats
    chi_squared: Floats

    def at(self, x: Floats) -> Floats:
        """Return the error at some x, a row per set."""
        return self.alpha[:, None] + self.eta[:, None] * self.form.shape(x[None], self.theta[:, None])

    def reliance(self) -> Floats:
        """Return β_N = −2·N·e′(N) of each set: for a power law −2γηN^γ, as Hoiem et al. (2021) define it."""
        return -2 * self.eta * self.form.slope(np.ones(1), self.theta)


def fit(form: Form, x: Floats, errors: Floats, covariance: Floats) -> Fit:
    """Fit a form by generalised least squares with α ≥ 0 and η ≥ 0.

    Args:
        form: the form.
        x: the sizes as fractions of N.
        errors: a row per set, a column per size.
        covariance: of the errors of one set, between sizes.
    """
    whiten = np.linalg.inv(np.linalg.cholesky(covariance))
    constant, target = whiten.sum(axis=1), errors @ whiten.T
    grid = form.grid(float(x.min()))
    nodes = form.shape(x[None], grid[:, None]) @ whiten.T
    _, _, squares = _linear(constant, nodes, target, form.floor)
    theta = _vertex(grid, squares)
    own = form.shape(x[None], theta[:, None]) @ whiten.T
    alpha, eta, chi_squared = _linear(constant, own, target, form.floor, each=True)
    return Fit(form, alpha, eta, theta, chi_squared)


def _linear(constant: Floats, shapes: Floats, target: Floats, floor: bool, each: bool = False) -> tuple[Floats, Floats, Floats]:
    """Return α, η and the sum of squares of every set with every shape, or with `each` of every set with its own shape."""
    product = (target * shapes).sum(axis=1) if each else target @ shapes.T
    level = target @ constant if each else (target @ constant)[:, None]
    total = (target**2).sum(axis=1) if each else (target**2).sum(axis=1)[:, None]
    ones, mixed, own = constant @ constant, shapes @ constant, (shapes**2).sum(axis=1)
    # Shapes that are flat in floating point leave α and η undetermined; they are then fitted as a constant.
    determinant = np.maximum(ones * own - mixed**2, 1e-12 * ones * own)
    eta = (ones * product - mixed * level) / determinant
    alpha = (own * level - mixed * product) / determinant
    eta = np.where((alpha < 0) | (not floor), product / own, eta)
    alpha = np.where(eta < 0, level / ones, np.maximum(alpha, 0)) if floor else np.zeros_like(eta)
    eta = np.maximum(eta, 0)
    left = total - 2 * (alpha * level + eta * product) + alpha**2 * ones + 2 * alpha * eta * mixed + eta**2 * own
    return alpha, eta, np.maximum(left, 0)


def _vertex(grid: Floats, squares: Floats) -> Floats:
    """Return the minimum of each row of sums of squares: of the parabola through its least node and that node's neighbours."""
    best = squares.argmin(axis=1)
    if len(grid) < 3:
        return np.asarray(grid[best], dtype=np.float64)
    middle, rows = np.clip(best, 1, len(grid) - 2), np.arange(len(squares))
    a, b, c = (grid[middle + step] for step in (-1, 0, 1))
    u, v, w = (squares[rows, middle + step] for step in (-1, 0, 1))
    below, above = (v - u) / (b - a), (w - v) / (c - b)
    curvature = (above - below) / (c - a)
    with np.errstate(divide="ignore", invalid="ignore"):
        vertex = (a + b) / 2 - below / (2 * curvature)
    inside = (best == middle) & (curvature > 0)
    return np.asarray(np.where(inside, np.clip(vertex, a, c), grid[best]), dtype=np.float64)


def akaike_weights(fits: Sequence[Fit]) -> Floats:
    """Return how much each form counts for each set, forms × sets: exp(−AIC/2), normalised (Burnham and Anderson 2002)."""
    criteria = np.stack([fit.chi_squared + 2 * fit.form.parameters for fit in fits])
    weights = np.exp(-(criteria - criteria.min(axis=0)) / 2)
    return np.asarray(weights / weights.sum(axis=0), dtype=np.float64)
