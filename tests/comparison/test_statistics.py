"""Intervals and tests against scipy, statsmodels 0.15.0 (values taken from a run of it) and simulated studies."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from thawlab.comparison import statistics
from thawlab.comparison.statistics import Components, Differences, Errors


def one_seed(better: int, worse: int, same: int = 100) -> Differences:
    return np.array([[1.0] * better + [-1.0] * worse + [0.0] * same])


def crossed(
    rng: np.random.Generator, seeds: int, images: int, of_seeds: float, of_images: float, rest: float, mean: float = 0.0
) -> Differences:
    return (
        mean
        + of_seeds * rng.standard_normal(seeds)[:, None]
        + of_images * rng.standard_normal(images)
        + rest * rng.standard_normal((seeds, images))
    )


@pytest.mark.parametrize("seeds", [2, 3, 5, 10, 30])
@pytest.mark.parametrize("shift", [0.0, 0.4, 3.0, 40.0])
def test_over_seeds_is_the_paired_t_test_of_scipy(seeds: int, shift: float) -> None:
    values = np.random.default_rng(seeds).standard_normal(seeds) + shift
    found, wanted = statistics.over_seeds(values), stats.ttest_1samp(values, 0.0)
    assert found is not None
    assert found.p_value == pytest.approx(wanted.pvalue, rel=1e-9)
    assert found[:2] == pytest.approx(tuple(wanted.confidence_interval(0.95)), rel=1e-9)


@pytest.mark.parametrize("n", [2, 3, 5, 8, 12])
def test_sign_flip_is_the_exact_permutation_test_of_scipy(n: int) -> None:
    values = np.random.default_rng(n).standard_normal(n) + 0.5
    wanted = stats.permutation_test(
        (values,), np.mean, permutation_type="samples", alternative="two-sided", n_resamples=np.inf
    ).pvalue
    assert statistics.sign_flip(values) == pytest.approx(wanted, abs=1e-12)


def test_sign_flip_beyond_sixteen_values_is_drawn_and_near_the_exact_one() -> None:
    values = np.random.default_rng(3).standard_normal(18) + 0.4
    signs = 1.0 - 2.0 * ((np.arange(2**18)[:, None] >> np.arange(18)) & 1)
    exact = float((np.abs(signs @ values) >= abs(values.sum()) - 1e-12).mean())
    assert statistics.sign_flip(values) == pytest.approx(exact, abs=0.003)


@pytest.mark.parametrize("n", [1, 2, 3, 5, 6])
def test_the_least_p_of_the_sign_flip_test_is_two_patterns(n: int) -> None:
    assert statistics.sign_flip(np.arange(1.0, n + 1)) == pytest.approx(2 / 2**n)


# statsmodels.stats.contingency_tables.mcnemar(exact=True)
MCNEMAR = {(9, 1): 0.021484375, (40, 60): 0.05688793364098089, (3, 3): 1.0, (0, 7): 0.015625, (155, 120): 0.04014280171782051}


@pytest.mark.parametrize(("counts", "wanted"), MCNEMAR.items())
def test_over_images_of_one_seed_is_the_exact_mcnemar_test(counts: tuple[int, int], wanted: float) -> None:
    better, worse = counts
    p = statistics.over_images(one_seed(better, worse)).p_value
    assert p == pytest.approx(wanted, rel=1e-9)
    assert p == pytest.approx(stats.binomtest(better, better + worse, 0.5).pvalue, rel=1e-12)


@pytest.mark.parametrize("same", [0, 1900])
def test_the_bootstrap_over_images_is_that_of_scipy(same: int) -> None:
    d = one_seed(60, 40, same)
    found = statistics.over_images(d)
    wanted = stats.bootstrap(
        (d[0],), np.mean, method="percentile", n_resamples=4000, batch=200, rng=np.random.default_rng(1)
    ).confidence_interval
    assert found.low == pytest.approx(wanted.low, abs=0.06 * (wanted.high - wanted.low))
    assert found.high == pytest.approx(wanted.high, abs=0.06 * (wanted.high - wanted.low))
    assert found.errors.images == pytest.approx(d.std() / math.sqrt(d.shape[1]))


@pytest.mark.parametrize("images", [60, 2000])
def test_over_images_of_several_seeds_flips_the_signs_of_images(images: int) -> None:
    rng = np.random.default_rng(5)
    d = np.round(crossed(rng, 3, images, 0.0, 0.5, 0.5, mean=0.08 if images == 60 else 0.01)).clip(-1, 1)
    by_image = d.mean(axis=0)
    wanted = stats.permutation_test(
        (by_image,), np.mean, permutation_type="samples", n_resamples=2999, rng=np.random.default_rng(2), batch=500
    ).pvalue
    found = statistics.over_images(d).p_value
    assert 0.01 < wanted < 0.9 and found == pytest.approx(wanted, abs=0.03)


# statsmodels.stats.multitest.multipletests(method="holm")
HOLM = [
    ([0.01, 0.04, 0.03, 0.005], [0.03, 0.06, 0.06, 0.02]),
    ([0.011, 0.02, 0.02, 0.5, 0.9, 1e-6], [0.055, 0.08, 0.08, 1.0, 1.0, 6e-6]),
    ([0.03], [0.03]),
    ([], []),
]


@pytest.mark.parametrize(("raw", "wanted"), HOLM)
def test_holm_is_that_of_statsmodels(raw: list[float], wanted: list[float]) -> None:
    assert statistics.holm(raw) == pytest.approx(wanted)


@given(st.lists(st.floats(0, 1), min_size=1, max_size=12))
def test_holm_never_lowers_a_p_value_nor_changes_their_order(raw: list[float]) -> None:
    adjusted, levels = statistics.holm(raw), statistics.holm_levels(raw)
    assert all(p <= q <= 1.0 for p, q in zip(raw, adjusted, strict=True))
    assert all(q <= min(1.0, len(raw) * p) + 1e-12 for p, q in zip(raw, adjusted, strict=True))
    for (p, q), (r, s) in itertools.permutations(zip(raw, adjusted, strict=True), 2):
        assert p >= r or q <= s
    # An interval at its level leaves zero out exactly where the corrected p-value is below 5 %.
    for p, q, level in zip(raw, adjusted, levels, strict=True):
        assert 0 < level <= 0.05 + 1e-12
        if abs(q - 0.05) > 1e-9:
            assert (p <= level) == (q <= 0.05)


def test_variance_components_of_a_table_computed_by_hand() -> None:
    """Rows and columns of means 3, 6 and 9, and what is left: mean squares 27, 27 and 4."""
    table = np.array([[1.0, 4.0, 4.0], [4.0, 5.0, 9.0], [4.0, 9.0, 14.0]])
    total, rows, columns = table.mean(), table.mean(axis=1), table.mean(axis=0)
    assert (total, rows.tolist(), columns.tolist()) == (6.0, [3.0, 6.0, 9.0], [3.0, 6.0, 9.0])
    # Residuals [[1, 1, -2], [1, -1, 0], [-2, 0, 2]]: sum of squares 16, 4 degrees of freedom. Mean squares of both sides: 27.
    found = statistics.components(table)
    assert found == pytest.approx(Components((27 - 4) / 3, (27 - 4) / 3, 4.0))


def test_variance_components_are_found_again_in_simulated_tables() -> None:
    rng = np.random.default_rng(8)
    found = np.mean([statistics.components(crossed(rng, 5, 400, 0.1, 0.5, 0.8)) for _ in range(400)], axis=0)
    assert found[0] == pytest.approx(0.01, rel=0.12)
    assert found[1:] == pytest.approx([0.25, 0.64], rel=0.02)


def test_no_component_is_below_zero() -> None:
    table = np.array([[1.0, -1.0], [-1.0, 1.0]])
    assert statistics.components(table)[:2] == (0.0, 0.0)


def test_both_errors_are_those_of_the_components() -> None:
    d = crossed(np.random.default_rng(2), 4, 300, 0.1, 0.5, 0.8)
    found, parts = statistics.over_both(d), statistics.components(d)
    assert found is not None
    assert found.errors == pytest.approx(parts.errors(4, 300))
    assert found.errors.images == pytest.approx(math.sqrt(parts.images / 300)) and found.errors.df == 3


def test_both_is_wider_than_seeds_alone_and_their_squares_add() -> None:
    d = crossed(np.random.default_rng(2), 4, 300, 0.1, 0.5, 0.8)
    both, seeds = statistics.over_both(d), statistics.over_seeds(d.mean(axis=1))
    assert both is not None and seeds is not None
    assert both.low < seeds.low < seeds.high < both.high and both.p_value > seeds.p_value
    own = (both.high - both.low) ** 2 / 4 - (seeds.high - seeds.low) ** 2 / 4
    of_seeds, of_images = (seeds.high - seeds.low) ** 2 / 4, (1.959964 * both.errors.images) ** 2
    assert own == pytest.approx(of_images * (1 - 2 / 4 * of_seeds / (of_seeds + of_images)))


@pytest.mark.parametrize("errors", [Errors(0.01, 2, 0.01), Errors(0.01, 9, 0.0), Errors(0.0, 4, 0.02), Errors(1e-5, 1, 1)])
@pytest.mark.parametrize("size", [1e-4, 0.02, 0.3])
def test_a_p_value_is_the_level_at_which_the_interval_touches_zero(errors: Errors, size: float) -> None:
    p = errors.p_value(size)
    assert p == errors.p_value(-size)
    if p > 1e-290:
        assert errors.half_width(p) == pytest.approx(size, rel=1e-6)
    assert (p < 0.05) == (errors.half_width() < size)


@pytest.mark.parametrize("df", [1, 2, 9, 30])
def test_tiny_p_values_stay_finite(df: int) -> None:
    p = [Errors(1e-3, df, 1e-3).p_value(size) for size in (0.01, 0.1, 1.0, 1e6, 1e250)]
    assert all(0 < value <= 1 for value in p) and p == sorted(p, reverse=True)


@given(st.floats(1e-4, 0.5), st.floats(1e-4, 0.5))
def test_intervals_nest_by_level(first: float, second: float) -> None:
    errors = Errors(0.01, 4, 0.02)
    low, high = sorted((first, second))
    assert errors.half_width(low) >= errors.half_width(high) > 0


# statsmodels.stats.power.TTestPower().power(effect, nobs, 0.05)
POWER = {(1.0, 5): 0.40139, (3.27, 3): 0.80114, (0.5, 10): 0.29318, (1.0, 10): 0.80310, (2.0, 3): 0.47075, (1.68, 5): 0.79912}


@pytest.mark.parametrize(("case", "wanted"), POWER.items())
def test_power_over_seeds_alone_is_that_of_the_noncentral_t(case: tuple[float, int], wanted: float) -> None:
    effect, seeds = case
    assert statistics.power(effect, Errors(1 / math.sqrt(seeds), seeds - 1, 0.0)) == pytest.approx(wanted, abs=0.002)
    assert statistics.power(-effect, Errors(1 / math.sqrt(seeds), seeds - 1, 0.0)) == pytest.approx(wanted, abs=0.002)


@pytest.mark.parametrize(("seeds", "wanted"), [(3, 3.264), (5, 1.682), (10, 0.996)])
def test_the_smallest_detectable_difference_in_sds_of_the_differences(seeds: int, wanted: float) -> None:
    """TTestPower().solve_power; rounded, 3.27, 1.68 and 1.00 in shared/FIELD.md."""
    assert statistics.smallest_detectable(Errors(1 / math.sqrt(seeds), seeds - 1, 0.0)) == pytest.approx(wanted, abs=0.01)


def test_power_over_images_alone_is_that_of_a_normal_test() -> None:
    assert statistics.power(2.8016, Errors(0.0, math.inf, 1.0)) == pytest.approx(0.80, abs=1e-4)
    assert statistics.power(0.0, Errors(0.0, math.inf, 1.0)) == pytest.approx(0.05)


def test_power_of_both_is_that_of_simulated_studies() -> None:
    rng = np.random.default_rng(4)
    parts = Components(0.02**2, 0.3**2, 0.25**2)
    for seeds, size in ((3, 0.06), (5, 0.04)):
        found = [
            e.p_value < 0.05
            for _ in range(1500)
            if (e := statistics.over_both(crossed(rng, seeds, 300, 0.02, 0.3, 0.25, mean=size))) is not None
        ]
        assert np.mean(found) == pytest.approx(statistics.power(size, parts.errors(seeds, 300)), abs=0.035)


def test_what_is_needed_is_the_least_that_is_enough() -> None:
    parts = Components(0.003**2, 0.2**2, 0.22**2)
    seeds = statistics.seeds_needed(0.01, parts, 4000)
    images = statistics.images_needed(0.01, parts, 5)
    assert seeds is not None and images is not None
    assert statistics.power(0.01, parts.errors(seeds, 4000)) >= 0.8 > statistics.power(0.01, parts.errors(seeds - 1, 4000))
    assert statistics.power(0.01, parts.errors(5, images)) >= 0.8 > statistics.power(0.01, parts.errors(5, images - 1))
    assert statistics.seeds_needed(0.01, parts, 100) is None, "no number of seeds makes up for too few images"
    assert statistics.images_needed(0.001, parts, 3) is None, "no number of images makes up for too few seeds"


def test_equal_answers_leave_no_doubt_and_no_difference() -> None:
    d = np.zeros((3, 20))
    for found in (statistics.over_both(d), statistics.over_images(d), statistics.over_seeds(d.mean(axis=1))):
        assert found is not None and found[:3] == (0.0, 0.0, 1.0)
    assert statistics.sign_flip(d.mean(axis=1)) == 1.0
    assert statistics.two_level_bootstrap(d, 50) == (0.0, 0.0)
    assert statistics.components(d) == (0.0, 0.0, 0.0)
    nothing = Errors(0.0, 2, 0.0)
    assert statistics.smallest_detectable(nothing) == 0.0
    assert (statistics.power(0.0, nothing), statistics.power(0.1, nothing)) == (0.0, 1.0)
    assert nothing.p_value(0.1) == 0.0


def test_one_seed_says_nothing_of_other_seeds_and_two_little() -> None:
    rng = np.random.default_rng(1)
    d = np.round(crossed(rng, 2, 500, 0.0, 0.3, 0.3, mean=0.02)).clip(-1, 1)
    assert statistics.over_seeds([0.1]) is None and statistics.over_both(d[:1]) is None and statistics.over_both(d[:, :1]) is None
    two = statistics.over_seeds([0.01, 0.03])
    assert two is not None and two.high - 0.02 == pytest.approx(12.706 * 0.01, rel=1e-4)
    both = statistics.over_both(d)
    assert both is not None and math.isfinite(both.low) and both.low < d.mean() < both.high


def test_few_images_make_finite_intervals() -> None:
    for found in (statistics.over_images(one_seed(1, 0, 0)), statistics.over_images(one_seed(1, 1, 0))):
        assert all(map(math.isfinite, found[:3])) and found.p_value == 1.0
    both = statistics.over_both(np.array([[1.0, 0.0], [0.0, 1.0]]))
    assert both is not None and both.low <= 0.5 <= both.high


def test_images_of_each_seeds_own_add_their_variances() -> None:
    tables = [one_seed(30, 10, 360), one_seed(5, 20, 75)]
    found = statistics.over_own_images(tables)
    mean = (tables[0].mean() + tables[1].mean()) / 2
    error = math.sqrt(tables[0].var() / 400 + tables[1].var() / 100) / 2
    assert found[:2] == pytest.approx((mean - 1.959964 * error, mean + 1.959964 * error))


@pytest.mark.parametrize(
    ("seeds", "of_seeds", "of_images"), [(3, 0.004, 0.25), (3, 0.03, 0.05), (5, 0.01, 0.25), (10, 0.0, 0.25)]
)
def test_the_interval_over_both_covers_the_truth_as_often_as_it_says(seeds: int, of_seeds: float, of_images: float) -> None:
    """Fails without the images' part (by far, in all but the second case) and with z for t (three seeds)."""
    rng = np.random.default_rng(17)
    found = [statistics.over_both(crossed(rng, seeds, 500, of_seeds, of_images, 0.2, mean=0.01)) for _ in range(800)]
    covered = np.mean([e.low <= 0.01 <= e.high for e in found if e is not None])
    assert 0.93 <= covered <= 0.975


@pytest.mark.parametrize("seeds", [2, 3, 4, 5, 8, 10, 20])
def test_the_interval_over_both_covers_exactly_this_often_whichever_part_prevails(seeds: int) -> None:
    """What is found where there is no difference is what is missed; the seeds' error goes from nothing to all there is."""
    missed = [statistics.power(0.0, Errors(share, seeds - 1, 1.0)) for share in np.geomspace(1e-3, 1e2, 41)]
    assert all((0.017 if seeds == 2 else 0.031) <= value <= 0.0502 for value in missed)
    assert missed[0] == pytest.approx(0.05, abs=1e-4) == missed[-1]


@pytest.mark.parametrize("seeds", [2, 3, 10])
def test_the_interval_over_seeds_covers_what_the_given_images_have(seeds: int) -> None:
    rng = np.random.default_rng(18)
    found = [statistics.over_seeds(0.01 + 0.02 * rng.standard_normal(seeds)) for _ in range(1500)]
    assert 0.935 <= np.mean([e.low <= 0.01 <= e.high for e in found if e is not None]) <= 0.965


def test_the_interval_over_images_covers_what_the_given_runs_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(statistics, "_FLIPS", 1)  # of the p-value, which is not looked at
    rng = np.random.default_rng(19)
    covered = []
    for _ in range(500):
        draw = rng.random((2, 400))
        e = statistics.over_images((draw < 0.05).astype(np.float64) - (draw > 0.96))
        covered.append(e.low <= 0.01 <= e.high)
    assert 0.92 <= np.mean(covered) <= 0.975


def test_the_two_level_bootstrap_resamples_seeds_and_images() -> None:
    d = crossed(np.random.default_rng(6), 30, 300, 0.05, 0.5, 0.3)
    low, high = statistics.two_level_bootstrap(d)
    parts = statistics.components(d)
    error = math.sqrt(parts.seeds / 30 + parts.images / 300 + 3 * parts.rest / 9000)
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.12)


def test_seeds_that_agree_by_chance_are_no_certainty_where_each_has_images_of_its_own() -> None:
    rng = np.random.default_rng(0)
    table = np.zeros((1, 60))
    table[0, :3], table[0, 3:5] = 1, -1
    tables = [rng.permuted(table, axis=1) for _ in range(2)]  # equal means, by seed
    found, by_images = statistics.over_both_of_own_images(tables), statistics.over_own_images(tables)
    assert found is not None and found.low < by_images.low < 0 < by_images.high < found.high
    assert found.errors.seeds == by_images.errors.images and found.errors.df == 1
    spread = [np.clip(rng.normal(mean, 0.1, (1, 60)), -1, 1) for mean in (-0.5, 0.5)]
    assert statistics.over_both_of_own_images(spread) == statistics.over_seeds([float(t.mean()) for t in spread])
    assert statistics.over_both_of_own_images(tables[:1]) is None
