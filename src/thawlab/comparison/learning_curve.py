"""The learning curve: test error against the number of training images, and what more images would bring.

As Hoiem et al. (ICML 2021, "Learning Curves for Analysis of Deep Networks") advise, a curve is summarised by its error e_N and
its data-reliance β_N at the largest size N. For e(n) = α + ηn^γ, β_N = −2γηN^γ, which is −2·N·e′(N) for any form; with γ = −1/2,
e(n) = e_N + (√(N/n) − 1)·β_N: a quarter of the images costs β_N more error.

Intervals come from a bootstrap over seeds, test images and functional forms together (`curve_fit`). Power laws extrapolate badly
(Mahmood et al., CVPR 2022, "How Much More Data Do I Need?"), so the summary says nothing beyond 2N, and `foretelling` nothing
beyond 5N; at 4N it was held against real trainings.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple, final

import numpy as np

from thawlab.comparison.curve_fit import FittedCurve, checked, deviations, fitted, replicated
from thawlab.comparison.curve_forms import FORMS, POWER, Fit, Floats
from thawlab.comparison.curve_scatter import Measured
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
    measured = checked(sizes, errors, n_test)
    curve = fitted(measured)
    if isinstance(curve, str):
        return LearningCurve(_points(measured), n_test, curve)
    return _estimated(curve, np.random.default_rng(derive(seed, "learning curve")), replicates)


def _points(measured: Measured) -> tuple[CurvePoint, ...]:
    def point(size: float, row: Floats) -> CurvePoint:
        return CurvePoint(int(size), float(row.mean()), float(row.std(ddof=1)) if len(row) > 1 else None, tuple(row.tolist()))

    return tuple(point(size, row) for size, row in zip(measured.sizes.tolist(), measured.errors, strict=True))


def _estimated(curve: FittedCurve, rng: np.random.Generator, replicates: int) -> LearningCurve:
    measured = curve.measured
    n = float(measured.sizes[-1])
    places = np.concatenate([np.geomspace(measured.x[0], 2, _DRAWN), [1.0, 2.0]])

    def at_places(found: Fit) -> Floats:
        return found.at(places)

    drawn = measured.means + deviations(measured.means, curve.scatter, measured.n_test, rng, replicates)
    again, (spread, reliances) = replicated(curve, drawn, rng, at_places, Fit.reliance)
    value, power = curve.averaged(at_places), FORMS.index(POWER)
    low, high = np.percentile(spread, (2.5, 97.5), axis=0)
    return LearningCurve(
        _points(measured),
        measured.n_test,
        error=_estimate(value[-2], spread[:, -2]),
        reliance=_estimate(curve.averaged(Fit.reliance), reliances),
        exponent=_estimate(curve.fits[power].theta[0], again[power].theta),
        error_at_twice=_estimate(value[-1], spread[:, -1]),
        gain=_estimate(value[-2] - value[-1], spread[:, -2] - spread[:, -1]),
        forms=tuple(_form(found, weight, n) for found, weight in zip(curve.fits, curve.weights.tolist(), strict=True)),
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
