"""The learning curve: test error against the number of training images, and what more images would bring.

As Hoiem et al. (ICML 2021, "Learning Curves for Analysis of Deep Networks") advise, a curve is summarised by its error e_N and
its data-reliance β_N at the largest size N. For e(n) = α + ηn^γ, β_N = −2γηN^γ, which is −2·N·e′(N) for any form; with γ = −1/2,
e(n) = e_N + (√(N/n) − 1)·β_N: a quarter of the images costs β_N more error.

Intervals come from a bootstrap over seeds, test images and functional forms together. Each replicate draws new means from the
estimated scatter (`curve_scatter`), its size itself uncertain as in a t-interval: three seeds that are resampled as they are
would be far too sure of themselves. It then takes one of the forms, with the form's Akaike weight as probability. Power laws
extrapolate badly (Mahmood et al., CVPR 2022, "How Much More Data Do I Need?"), so nothing is said beyond 2N.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from thawlab.comparison.curve_forms import FORMS, POWER, Fit, Floats, akaike_weights, fit
from thawlab.comparison.curve_scatter import (
    LEAST_SIZES,
    Measured,
    Scatter,
    ill_behaved,
    lack_of_fit,
    over_images,
    scatter_of,
    total_covariance,
)
from thawlab.errors import UsageError
from thawlab.randomness import derive

UNSTABLE = "α, η and γ are unstable one by one: other seeds move them a lot along the same curve; compare e_N and β_N instead"
ONE_SEED = "one seed: the intervals cover test images and functional forms, not how another seed would differ"
_DRAWN = 60  # places where the fitted curve is given


class Estimate(NamedTuple):
    """A value and its 95 % interval."""

    value: float
    low: float
    high: float


class CurvePoint(NamedTuple):
    """The errors at one size; `sd` is over the seeds, None for one seed."""

    n: int
    mean: float
    sd: float | None
    errors: tuple[float, ...]


class FittedForm(NamedTuple):
    """A form fitted to the means; `theta` is the exponent, or of an exponential the rate per image."""

    name: str
    weight: float
    alpha: float
    eta: float
    theta: float
    chi_squared: float


class Band(NamedTuple):
    """The fitted error and its interval at sizes up to 2N, for drawing."""

    n: tuple[float, ...]
    error: tuple[float, ...]
    low: tuple[float, ...]
    high: tuple[float, ...]


class HeldOut(NamedTuple):
    """The error at a size, measured and predicted from the smaller sizes alone."""

    n: int
    measured: float
    predicted: Estimate

    @property
    def covered(self) -> bool:
        """Whether the interval of the prediction contains the measured error."""
        return self.predicted.low <= self.measured <= self.predicted.high


@final
@dataclass(frozen=True)
class LearningCurve:
    """A learning curve; errors are fractions. Where it is refused, `refusal` says why, and nothing is estimated.

    Attributes:
        points: by size.
        n_test: test images.
        refusal: why no curve is fitted; empty if one is.
        error: e_N, the error at the largest size.
        reliance: β_N, the data-reliance there.
        exponent: γ of the power law; `UNSTABLE` belongs beside it.
        error_at_twice: the error that twice the images would bring.
        gain: how much less that is than e_N.
        forms: what was fitted to the means.
        band: the fitted curve.
    """

    points: tuple[CurvePoint, ...]
    n_test: int
    refusal: str = ""
    error: Estimate | None = None
    reliance: Estimate | None = None
    exponent: Estimate | None = None
    error_at_twice: Estimate | None = None
    gain: Estimate | None = None
    forms: tuple[FittedForm, ...] = ()
    band: Band | None = None

    @property
    def n(self) -> int:
        """The largest size, N."""
        return self.points[-1].n

    @property
    def seeds(self) -> int:
        """How many seeds each size has."""
        return len(self.points[0].errors)

    @property
    def notes(self) -> list[str]:
        """What has to be said beside the numbers, a line each."""
        return [] if self.refusal else [UNSTABLE, *([ONE_SEED] if self.seeds < 2 else [])]

    def as_json(self) -> dict[str, Any]:
        """Return the curve as JSON values."""
        names = ("error", "reliance", "exponent", "error_at_twice", "gain")
        estimates = {name: found and found._asdict() for name in names for found in [getattr(self, name)]}
        head = {"n": self.n, "seeds": self.seeds, "n_test": self.n_test, "refusal": self.refusal or None, "notes": self.notes}
        points = [{**point._asdict(), "errors": list(point.errors)} for point in self.points]
        band = self.band and {key: list(values) for key, values in self.band._asdict().items()}
        return {**head, **estimates, "points": points, "forms": [form._asdict() for form in self.forms], "band": band}


def learning_curve(
    sizes: Sequence[int], errors: Sequence[Sequence[float]], n_test: int, seed: int = 0, replicates: int = 2000
) -> LearningCurve:
    """Summarise errors that were measured at several numbers of training images.

    Args:
        sizes: numbers of training images.
        errors: for each size the errors of the seeds, as fractions; every seed draws nested subsets of its own.
        n_test: how many test images the errors are shares of, the same at all sizes.
        seed: of the bootstrap.
        replicates: of the bootstrap.

    Raises:
        UsageError: if the numbers do not belong together or are no errors.
    """
    measured = _checked(sizes, errors, n_test)
    fitted = _fitted(measured)
    if isinstance(fitted, str):
        return LearningCurve(_points(measured), n_test, fitted)
    return _estimated(fitted, np.random.default_rng(derive(seed, "learning curve")), replicates)


def _checked(sizes: Sequence[int], errors: Sequence[Sequence[float]], n_test: int) -> Measured:
    rows = sorted(zip(sizes, errors, strict=False), key=lambda row: row[0])
    if not rows or len(sizes) != len(errors) or len({len(row) for row in errors}) != 1 or not len(errors[0]):
        raise UsageError("a learning curve needs sizes, and at each size the errors of the same seeds")
    if len(set(sizes)) != len(sizes) or rows[0][0] < 1 or n_test < 1:
        raise UsageError("a learning curve needs different sizes of at least one image, and test images")
    table = np.array([row for _, row in rows], dtype=np.float64)
    if not ((table >= 0) & (table <= 1)).all():
        raise UsageError("the errors of a learning curve are fractions between 0 and 1")
    return Measured(np.array([size for size, _ in rows], dtype=np.float64), table, n_test)


def _points(measured: Measured) -> tuple[CurvePoint, ...]:
    def point(size: float, row: Floats) -> CurvePoint:
        return CurvePoint(int(size), float(row.mean()), float(row.std(ddof=1)) if len(row) > 1 else None, tuple(row.tolist()))

    return tuple(point(size, row) for size, row in zip(measured.sizes.tolist(), measured.errors, strict=True))


class _Fitted(NamedTuple):
    """Errors with all forms fitted to their means; `weights` are the forms'."""

    measured: Measured
    scatter: Scatter
    fits: list[Fit]
    weights: Floats

    def averaged(self, of: Callable[[Fit], Floats]) -> Floats:
        """Return a function of the fit to the means, averaged over the forms."""
        return np.asarray(sum(weight * of(found)[0] for weight, found in zip(self.weights, self.fits, strict=True)))


def _fitted(measured: Measured) -> _Fitted | str:
    """Fit every form to the means; or return why there is no curve to fit."""
    scatter = scatter_of(measured)
    if reason := ill_behaved(measured, scatter):
        return reason
    covariance = total_covariance(measured, scatter)
    fits = [fit(form, measured.x, measured.means[None], covariance) for form in FORMS]
    weights = akaike_weights(fits)
    best = fits[int(weights.argmax())]
    reason = lack_of_fit(measured, scatter, best.form.name, float(best.chi_squared[0]), best.form.parameters)
    return reason or _Fitted(measured, scatter, fits, weights)


def _deviations(means: Floats, scatter: Scatter, n_test: int, rng: np.random.Generator, replicates: int) -> Floats:
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


def _replicated(
    fitted: _Fitted, drawn: Floats, rng: np.random.Generator, *of: Callable[[Fit], Floats]
) -> tuple[list[Fit], list[Floats]]:
    """Fit all forms to drawn means; return the fits, and functions of the one form that each replicate takes."""
    covariance = total_covariance(fitted.measured, fitted.scatter)
    again = [fit(form, fitted.measured.x, drawn, covariance) for form in FORMS]
    chosen = rng.choice(len(FORMS), len(drawn), p=fitted.weights)
    return again, [np.stack([function(found) for found in again])[chosen, np.arange(len(drawn))] for function in of]


def _estimated(fitted: _Fitted, rng: np.random.Generator, replicates: int) -> LearningCurve:
    measured = fitted.measured
    n = float(measured.sizes[-1])
    places = np.concatenate([np.geomspace(measured.x[0], 2, _DRAWN), [1.0, 2.0]])

    def at_places(found: Fit) -> Floats:
        return found.at(places)

    drawn = measured.means + _deviations(measured.means, fitted.scatter, measured.n_test, rng, replicates)
    again, (spread, reliances) = _replicated(fitted, drawn, rng, at_places, Fit.reliance)
    value, power = fitted.averaged(at_places), FORMS.index(POWER)
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    return LearningCurve(
        _points(measured),
        measured.n_test,
        error=_estimate(value[-2], spread[:, -2]),
        reliance=_estimate(fitted.averaged(Fit.reliance), reliances),
        exponent=_estimate(fitted.fits[power].theta[0], again[power].theta),
        error_at_twice=_estimate(value[-1], spread[:, -1]),
        gain=_estimate(value[-2] - value[-1], spread[:, -2] - spread[:, -1]),
        forms=tuple(_form(found, weight, n) for found, weight in zip(fitted.fits, fitted.weights.tolist(), strict=True)),
        band=Band(*(tuple(row[:_DRAWN].tolist()) for row in (places * n, value, low, high))),
    )


def _estimate(value: float | Floats, replicates: Floats) -> Estimate:
    return Estimate(float(value), *map(float, np.percentile(replicates, (2.5, 97.5))))


def _form(found: Fit, weight: float, n: float) -> FittedForm:
    """Return a form in units of images instead of N images."""
    alpha, eta, theta, chi_squared = (float(values[0]) for values in found[1:])
    if found.form.name == "exponential":
        return FittedForm(found.form.name, weight, alpha, eta, theta / n, chi_squared)
    return FittedForm(found.form.name, weight, alpha, eta * n**-theta, theta, chi_squared)


def backtest(
    sizes: Sequence[int], errors: Sequence[Sequence[float]], n_test: int, seed: int = 0, replicates: int = 2000
) -> tuple[HeldOut, ...]:
    """Predict the errors of the larger sizes from the smaller ones, each from at least five and no further than twice the last.

    The intervals are those of the mean error of as many seeds on the same test images. A curve that is refused predicts nothing.
    Takes what `learning_curve` takes.

    Raises:
        UsageError: if the numbers do not belong together or are no errors.
    """
    measured = _checked(sizes, errors, n_test)
    reachable = [k for k in range(LEAST_SIZES, len(sizes)) if measured.sizes[k] <= 2 * measured.sizes[k - 1]]
    found = [_held_out(measured, k, seed, replicates) for k in reachable]
    return tuple(point for point in found if point)


def _held_out(measured: Measured, count: int, seed: int, replicates: int) -> HeldOut | None:
    fitted, n = _fitted(measured.until(count)), measured.sizes[count]
    if isinstance(fitted, str):
        return None
    known, scatter = fitted.measured, fitted.scatter
    place = np.array([n / known.sizes[-1]])

    def at_place(found: Fit) -> Floats:
        return found.at(place)[:, 0]

    predicted = fitted.averaged(at_place)
    # The held-out errors scatter as those of the largest size that is known, and share the test images with all of them.
    wider = scatter._replace(deviation=np.append(scatter.deviation, scatter.deviation[-1]))
    rng = np.random.default_rng(derive(seed, "backtest", count))
    deviations = _deviations(np.append(known.means, predicted), wider, known.n_test, rng, replicates)
    _, [outcomes] = _replicated(fitted, known.means - deviations[:, :-1], rng, at_place)
    return HeldOut(int(n), float(measured.means[count]), _estimate(predicted, outcomes + deviations[:, -1]))
