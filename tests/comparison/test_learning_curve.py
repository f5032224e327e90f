"""Learning curves against simulated ones whose truth is known; tools/learning_curve_coverage.py measures coverage at length."""

from __future__ import annotations

import json
import re
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.comparison.curve_forms import FORMS, akaike_weights, fit
from thawlab.comparison.curve_scatter import Measured, scatter_of
from thawlab.comparison.learning_curve import ONE_SEED, UNSTABLE, Estimate, LearningCurve, learning_curve
from thawlab.errors import UsageError

Truth = Callable[[npt.NDArray[np.float64]], npt.NDArray[np.float64]]
SIZES = np.array([100.0, 200, 400, 800, 1600, 3200, 6400])
N = SIZES[-1]
EXACT = 10**6  # so many test images that they leave nothing open


def root(n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.05 + 2.5 * n**-0.5


def power(n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.03 + 1.2 * n**-0.35


def exponential(n: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    return 0.1 + 0.3 * np.exp(-n / 1500)


def scattered(truth: Truth, seeds: int, sd: float, draw: int, sizes: npt.NDArray[np.float64] = SIZES) -> npt.NDArray[np.float64]:
    """Errors with a part that each seed keeps over all sizes, and a part of its own at each size."""
    rng = np.random.default_rng(draw)
    kept, own = rng.normal(0, sd * 0.6, (1, seeds)), rng.normal(0, sd * 0.8, (len(sizes), seeds))
    return np.clip(truth(sizes)[:, None] + kept + own, 0, 1)


def curve_of(errors: npt.ArrayLike, n_test: int = 5000, sizes: npt.NDArray[np.float64] = SIZES, **more: int) -> LearningCurve:
    return learning_curve(sizes.astype(int).tolist(), np.asarray(errors).tolist(), n_test, **{"replicates": 400, **more})


def found(estimate: Estimate | None) -> Estimate:
    assert estimate is not None
    return estimate


# The forms


@pytest.mark.parametrize(
    ("name", "alpha", "eta", "theta"),
    [("power", 0.03, 1.2, -0.35), ("square root", 0.05, 2.5, -0.5), ("exponential", 0.1, 0.3, 1 / 1500)],
)
def test_known_parameters_are_recovered(name: str, alpha: float, eta: float, theta: float) -> None:
    truth = alpha + eta * (np.exp(-theta * SIZES) if name == "exponential" else SIZES**theta)
    curve = curve_of(np.stack([truth, truth], axis=1), EXACT)
    [form] = [form for form in curve.forms if form.name == name]
    assert (form.alpha, form.eta, form.theta) == pytest.approx((alpha, eta, theta), rel=2e-3)


def test_a_curve_with_an_offset_is_recovered() -> None:
    x, [form] = SIZES / N, [form for form in FORMS if form.name.endswith("offset")]
    exact = 0.05 + 0.1 * (x + 0.07) ** -0.5
    result = fit(form, x, exact[None], np.eye(len(x)))
    assert (result.alpha[0], result.eta[0], result.theta[0]) == pytest.approx((0.05, 0.1, 0.07), rel=1e-2)


@pytest.mark.parametrize("form", FORMS, ids=lambda form: form.name)
def test_slopes_are_derivatives(form: object) -> None:
    x, theta, h = np.array([0.3, 1.0, 1.7]), np.array([-0.5 if "offset" not in form.name else 0.2]), 1e-6  # type: ignore[attr-defined]
    numeric = (form.shape(x * (1 + h), theta) - form.shape(x * (1 - h), theta)) / (2 * h)  # type: ignore[attr-defined]
    assert form.slope(x, theta) == pytest.approx(numeric, rel=1e-5)  # type: ignore[attr-defined]


def test_no_fit_is_worse_than_a_constant_and_none_is_negative() -> None:
    rng, x = np.random.default_rng(0), SIZES / N
    errors = rng.uniform(0, 0.3, (200, len(x)))
    constant = ((errors - errors.mean(axis=1, keepdims=True)) ** 2).sum(axis=1)
    for form in FORMS:
        result = fit(form, x, errors, np.eye(len(x)))
        assert (result.alpha >= 0).all() and (result.eta >= 0).all()
        # Without a floor a form comes as near to a constant as its flattest exponent allows.
        assert (result.chi_squared <= constant + 1e-9).all() if form.floor else (result.alpha == 0).all()
        again = ((errors - result.at(x)) ** 2).sum(axis=1)
        assert again == pytest.approx(result.chi_squared, abs=1e-9)


def test_weights_favour_the_form_that_fits() -> None:
    x = SIZES / N
    fits = [fit(form, x, exponential(SIZES)[None], 1e-6 * np.eye(len(x))) for form in FORMS]
    weights = akaike_weights(fits)[:, 0]
    assert weights.sum() == pytest.approx(1) and FORMS[weights.argmax()].name == "exponential"


# e_N and β_N


def test_error_and_reliance_equal_the_analytic_values() -> None:
    for truth, reliance in (
        (root, 2.5 * N**-0.5),  # for γ = −1/2, β_N is ηN^γ itself
        (power, 2 * 0.35 * 1.2 * N**-0.35),
        (exponential, 2 * N / 1500 * 0.3 * np.exp(-N / 1500)),
    ):
        curve = curve_of(np.stack([truth(SIZES)] * 2, axis=1), EXACT)
        assert found(curve.error).value == pytest.approx(truth(N), rel=1e-3)
        assert found(curve.reliance).value == pytest.approx(reliance, rel=2e-2, abs=1e-4)
        assert found(curve.error_at_twice).value == pytest.approx(truth(2 * N), rel=2e-3)
        assert found(curve.gain).value == pytest.approx(truth(N) - truth(2 * N), rel=2e-2, abs=1e-4)


def test_reliance_is_what_a_quarter_of_the_images_costs() -> None:
    curve = curve_of(np.stack([root(SIZES)] * 2, axis=1), EXACT)
    assert found(curve.error).value + found(curve.reliance).value == pytest.approx(root(N / 4), rel=1e-3)


def test_the_exponent_is_given_with_a_warning() -> None:
    curve = curve_of(scattered(power, 4, 0.003, 0))
    low, high = found(curve.exponent)[1:]
    assert low <= -0.35 <= high and curve.notes == [UNSTABLE]


# Intervals


def test_intervals_cover_the_truth() -> None:
    hits, runs = np.zeros(4), 0
    for draw in range(200):
        truth = (root, power, exponential)[draw % 3]
        curve = curve_of(scattered(truth, 3, 0.006, draw), 100_000, seed=draw, replicates=300)
        if curve.refusal:
            continue
        step = 1e-4
        reliance = -2 * (truth(N * (1 + step)) - truth(N * (1 - step))) / (2 * step)
        real = (truth(N), reliance, truth(2 * N), truth(N) - truth(2 * N))
        estimates = (curve.error, curve.reliance, curve.error_at_twice, curve.gain)
        hits += [found(estimate).low <= value <= found(estimate).high for estimate, value in zip(estimates, real, strict=True)]
        runs += 1
    assert runs >= 190  # the tests for what is ill-behaved seldom hit what is not
    assert (hits / runs >= 0.90).all(), hits / runs


def test_intervals_narrow_with_seeds_and_with_test_images() -> None:
    def width(seeds: int, n_test: int) -> float:
        estimates = [found(curve_of(scattered(root, seeds, 0.01, draw), n_test).error) for draw in range(5)]
        return float(np.mean([estimate.high - estimate.low for estimate in estimates]))

    assert width(3, 10**6) > 1.5 * width(12, 10**6)
    assert width(12, 500) > 1.5 * width(12, 10**6)


def test_one_seed_is_said_to_be_one_seed() -> None:
    curve = curve_of(scattered(root, 1, 0.002, 0))
    assert curve.notes == [UNSTABLE, ONE_SEED] and curve.seeds == 1
    assert found(curve.error).low < root(N) < found(curve.error).high
    assert curve.points[0].sd is None


def test_the_seed_determines_everything() -> None:
    errors = scattered(root, 3, 0.005, 0)
    assert curve_of(errors, seed=1) == curve_of(errors, seed=1)
    assert curve_of(errors, seed=1).error != curve_of(errors, seed=2).error


def test_a_lucky_size_does_not_outweigh_the_others() -> None:
    errors = scattered(root, 4, 0.01, 0)
    errors[2] = errors[2].mean()
    deviations = scatter_of(Measured(SIZES, errors, 5000)).deviation
    assert deviations[2] > 0.005 and deviations.max() / deviations.min() < 6


# Refusals


@pytest.mark.parametrize(
    ("errors", "sizes", "reason"),
    [
        (scattered(root, 3, 0.003, 0)[:4], SIZES[:4], r"^4 sizes are too few"),
        (np.zeros((7, 3)), SIZES, r"^at n = 100 none of the 5,000 test images is wrong"),
        (np.full((7, 3), 0.2), SIZES, r"does not demonstrably fall .* between 20\.00 % and 20\.00 %"),
        (scattered(lambda n: np.full_like(n, 0.2), 3, 0.003, 1), SIZES, r"does not demonstrably fall"),
        (
            scattered(lambda n: root(n) + 0.05 * (n >= 800), 4, 0.003, 0),
            SIZES,
            r"rises with more data, from .* % at n = 400 to .* % at n = 800 \(p = .*, paired over 4 seeds\)",
        ),
        (scattered(lambda n: 0.3 - 0.15 * (n > 800), 4, 0.003, 0), SIZES, r"^no form fits: the best \(.*\) misses the errors by"),
    ],
)
def test_ill_behaved_errors_are_refused_in_words(errors: npt.ArrayLike, sizes: npt.NDArray[np.float64], reason: str) -> None:
    curve = curve_of(errors, sizes=sizes)
    assert re.search(reason, curve.refusal), curve.refusal
    assert (curve.error, curve.reliance, curve.error_at_twice, curve.band, curve.forms, curve.notes) == (None,) * 4 + ((), [])
    assert len(curve.points) == len(sizes)


def test_a_rise_of_one_seed_is_judged_over_the_test_images() -> None:
    errors = (root(SIZES) + 0.1 * (SIZES >= 1600))[:, None]
    assert "over the test images" in curve_of(errors).refusal
    assert curve_of(scattered(root, 1, 0.001, 3)).refusal == ""


@pytest.mark.parametrize(
    ("sizes", "errors", "n_test"),
    [
        ([], [], 10),
        ([1, 2], [[0.1]], 10),
        ([1, 2], [[0.1], [0.1, 0.2]], 10),
        ([1, 1], [[0.1], [0.1]], 10),
        ([0, 1], [[0.1], [0.1]], 10),
        ([1, 2], [[], []], 10),
        ([1, 2], [[0.1], [1.5]], 10),
        ([1, 2], [[0.1], [float("nan")]], 10),
        ([1, 2], [[0.1], [0.1]], 0),
    ],
)
def test_what_is_no_learning_curve_is_a_usage_error(sizes: list[int], errors: list[list[float]], n_test: int) -> None:
    with pytest.raises(UsageError, match="learning curve"):
        learning_curve(sizes, errors, n_test)


# Drawing, JSON, and what is never said


def test_nothing_is_said_beyond_twice_the_largest_size() -> None:
    band = curve_of(scattered(root, 3, 0.003, 0)).band
    assert band is not None and band.n[0] == pytest.approx(100) and band.n[-1] == pytest.approx(2 * N)
    assert all(low <= error <= high for low, error, high in zip(band.low, band.error, band.high, strict=True))


def test_json_holds_everything_or_the_reason() -> None:
    curve = curve_of(scattered(root, 3, 0.003, 0))
    content = json.loads(json.dumps(curve.as_json(), allow_nan=False))
    assert content["reliance"] == found(curve.reliance)._asdict() and content["refusal"] is None
    assert (content["n"], content["seeds"], content["n_test"]) == (6400, 3, 5000)
    assert [point["n"] for point in content["points"]] == SIZES.tolist()
    refused = json.loads(json.dumps(curve_of(np.zeros((7, 2))).as_json(), allow_nan=False))
    assert refused["refusal"] and refused["error"] is None and refused["band"] is None


# Properties


@settings(deadline=None, max_examples=25)
@given(scale=st.integers(1, 1000), draw=st.integers(0, 100))
def test_the_unit_of_the_sizes_does_not_matter(scale: int, draw: int) -> None:
    errors = scattered(power, 3, 0.004, draw)
    here, there = curve_of(errors, replicates=50), curve_of(errors, sizes=SIZES * scale, replicates=50)
    assert bool(here.refusal) == bool(there.refusal)
    for name in ("error", "reliance", "exponent", "gain") if not here.refusal else ():
        assert getattr(here, name) == pytest.approx(getattr(there, name), rel=1e-6, abs=1e-9)


@settings(deadline=None, max_examples=25)
@given(order=st.permutations(range(7)), draw=st.integers(0, 100))
def test_the_order_of_sizes_does_not_matter(order: list[int], draw: int) -> None:
    errors = scattered(power, 3, 0.004, draw)
    assert curve_of(errors[order], sizes=SIZES[order], replicates=50) == curve_of(errors, replicates=50)


@settings(deadline=None, max_examples=40)
@given(st.lists(st.lists(st.floats(0, 1), min_size=2, max_size=2), min_size=5, max_size=7), st.integers(1, 10**6))
def test_any_errors_are_fitted_or_refused(errors: list[list[float]], n_test: int) -> None:
    curve = curve_of(errors, n_test, SIZES[: len(errors)], replicates=50)
    assert bool(curve.refusal) != (curve.error is not None)
    if not curve.refusal:
        assert found(curve.reliance).low >= 0 and found(curve.gain).low >= 0
        assert np.isfinite([*found(curve.error), *found(curve.reliance), *found(curve.error_at_twice)]).all()
