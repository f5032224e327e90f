"""Foretelling against simulated curves whose truth is known; real ones: tools/learning_curve_backtest.py."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.comparison.foretelling import backtest, foretell
from thawlab.errors import UsageError

SIZES = [100 * 2**k for k in range(8)]


def measured(alpha: float, exponent: float, draw: int, sd: float = 0.004, seeds: int = 3) -> list[list[float]]:
    rng = np.random.default_rng(draw)
    truth: npt.NDArray[np.float64] = alpha + 2.0 * np.array(SIZES, dtype=float) ** exponent
    kept, own = rng.normal(0, sd * 0.6, (1, seeds)), rng.normal(0, sd * 0.8, (len(SIZES), seeds))
    return np.clip(truth[:, None] + kept + own, 0, 1).tolist()


def test_a_curve_without_scatter_is_foretold_exactly() -> None:
    errors = [[0.05 + 2.5 * n**-0.5] * 3 for n in SIZES]
    for point in foretell(SIZES[:6], errors[:6], 10**6, SIZES[6:]):
        assert point.error == pytest.approx(0.05 + 2.5 * point.n**-0.5, abs=3e-4)
        assert point.low <= point.error <= point.high


def test_the_further_the_wider_and_a_higher_level_is_wider() -> None:
    twice, four = foretell(SIZES[:6], measured(0.05, -0.4, 0)[:6], 2000, SIZES[6:])
    assert four.high - four.low > twice.high - twice.low
    [narrow] = foretell(SIZES[:6], measured(0.05, -0.4, 0)[:6], 2000, SIZES[6:7], level=0.5)
    assert narrow.high - narrow.low < twice.high - twice.low and narrow.error == twice.error


def test_the_backtest_does_not_see_what_it_foretells() -> None:
    errors = measured(0.05, -0.5, 1)
    points = backtest(SIZES, errors, 5000, reach=4)
    assert [point.n for point in points] == SIZES[6:]
    changed = [*errors[:-1], [0.9] * 3]
    again = backtest(SIZES, changed, 5000, reach=4)
    assert [point.foretold for point in again] == [point.foretold for point in points]
    assert points[-1].covered and not again[-1].covered
    [point] = foretell(SIZES[:6], errors[:6], 5000, [SIZES[-1]])
    assert point == points[-1].foretold


@pytest.mark.parametrize(("reach", "level", "bounds"), [(2, 0.95, (0.88, 1.0)), (4, 0.8, (0.7, 0.95))])
def test_the_intervals_cover_as_often_as_they_say(reach: int, level: float, bounds: tuple[float, float]) -> None:
    found = [
        point.covered
        for draw in range(40)
        for point in backtest(SIZES, measured(0.03 * (draw % 2), -0.4, draw), 100_000, reach, level, draw, 300)
    ]
    assert len(found) >= 75 and bounds[0] <= np.mean(found) <= bounds[1]


def test_sizes_in_a_ratio_of_the_square_root_of_two_are_four_apart_every_fourth() -> None:
    sizes = [round(35 * 2 ** (k / 2)) for k in range(12)]
    errors = [[0.05 + n**-0.5 + 0.001 * seed for seed in range(3)] for n in sizes]
    assert [point.n for point in backtest(sizes, errors, 2000, reach=4)] == sizes[8:]


def test_what_is_too_far_or_no_curve_is_not_foretold() -> None:
    errors = measured(0.05, -0.5, 2)
    with pytest.raises(UsageError, match="n = 25,600 cannot be foretold; choose sizes between 3,200 and 16,000"):
        foretell(SIZES[:6], errors[:6], 2000, [25_600])
    with pytest.raises(UsageError, match="cannot be foretold"):
        foretell(SIZES[:6], errors[:6], 2000, [SIZES[5]])
    with pytest.raises(UsageError, match=r"nothing can be foretold: .* rises"):
        foretell(SIZES[:6], errors[5::-1], 2000, [SIZES[6]])
    with pytest.raises(UsageError, match="level = 80: "):
        foretell(SIZES[:6], errors[:6], 2000, [SIZES[6]], level=80)
    assert backtest(SIZES, [[0.0] * 3] * 8, 5000) == ()
    assert backtest(SIZES[:5], errors[:5], 5000) == ()
    assert backtest([*SIZES[:5], 16 * 1600], errors[:6], 5000) == ()


@settings(deadline=None, max_examples=15)
@given(draw=st.integers(0, 1000), alpha=st.floats(0, 0.2), exponent=st.floats(-1, -0.2))
def test_an_interval_holds_errors_only(draw: int, alpha: float, exponent: float) -> None:
    for point in backtest(SIZES, measured(alpha, exponent, draw), 2000, 4, 0.8, replicates=100):
        assert 0 <= point.foretold.low <= point.foretold.high <= 1
