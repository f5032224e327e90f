"""The contrasts of full grids: main effects, interactions, and what they borrow from each other."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.effects import one_key_effects
from thawlab.comparison.grids import Grid, factorial_effects, full_grid
from thawlab.comparison.runs import Variant

Make = Callable[..., list[Variant]]
LR = "phases.0.lr=0.03"


LRS, DROPOUTS = [[], [LR], ["phases.0.lr=0.1"]], [[], ["model.dropout=[0.5]"]]
SMOOTHING = [[], ["phases.0.label_smoothing=0.1"]]
P, Q, R = "phases.0.lr", "model.dropout", "phases.0.label_smoothing"


def answers(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((*shape, 3, 400)) < rng.uniform(0.7, 0.95, (*shape, 1, 1))


def test_contrasts_of_two_by_two(grid_of: Make) -> None:
    table = answers(1, 2, 2)
    grid = full_grid(grid_of(table, [LRS[:2], DROPOUTS]))
    assert grid is not None
    found = {effect.keys: effect for effect in factorial_effects(grid)}
    m = table.mean(axis=(2, 3))
    assert found[P,].difference == pytest.approx((m[1, 0] + m[1, 1] - m[0, 0] - m[0, 1]) / 2)
    assert found[Q,].difference == pytest.approx((m[0, 1] + m[1, 1] - m[0, 0] - m[1, 0]) / 2)
    assert found[Q, P].difference == pytest.approx((m[1, 1] - m[1, 0]) - (m[0, 1] - m[0, 0]))
    assert [effect.kind for effect in factorial_effects(grid)] == ["interaction", "main", "main"]
    d = (table[1].mean(axis=0) - table[0].mean(axis=0)).astype(float)
    wanted = statistics.over_both(d)
    assert wanted is not None and found[P,].over_both is not None
    assert found[P,].over_both[:3] == pytest.approx(wanted[:3])


def test_contrasts_of_three_by_two_are_each_level_against_the_first(grid_of: Make) -> None:
    table = answers(2, 3, 2)
    grid = full_grid(grid_of(table, [LRS, DROPOUTS]))
    assert grid is not None
    effects = factorial_effects(grid)
    m = table.mean(axis=(2, 3))
    wanted = [
        (m[1, 1] - m[1, 0]) - (m[0, 1] - m[0, 0]),
        (m[2, 1] - m[2, 0]) - (m[0, 1] - m[0, 0]),
        m[:, 1].mean() - m[:, 0].mean(),
        m[1].mean() - m[0].mean(),
        m[2].mean() - m[0].mean(),
    ]
    assert [effect.difference for effect in effects] == pytest.approx(wanted)
    assert [effect.name for effect in effects][2:] == ["dropout [] → [0.5]", "lr 0.01 → 0.03", "lr 0.01 → 0.1"]


def test_contrasts_of_two_by_two_by_two(grid_of: Make) -> None:
    table = answers(3, 2, 2, 2)
    grid = full_grid(grid_of(table, [LRS[:2], DROPOUTS, SMOOTHING]))
    assert grid is not None
    found = {effect.keys: effect.difference for effect in factorial_effects(grid)}
    y = table.mean(axis=(3, 4))
    # The textbook's columns of signs; an interaction is a difference of differences, averaged over what is left.
    signs = np.array([-1.0, 1.0])
    a, b, c = np.meshgrid(signs, signs, signs, indexing="ij")
    wanted = {
        (P,): (a * y).sum() / 4,
        (Q,): (b * y).sum() / 4,
        (R,): (c * y).sum() / 4,
        (P, Q): (a * b * y).sum() / 2,
        (P, R): (a * c * y).sum() / 2,
        (Q, R): (b * c * y).sum() / 2,
        (P, Q, R): (a * b * c * y).sum(),
    }
    assert {tuple(sorted(keys)): value for keys, value in found.items()} == pytest.approx(
        {tuple(sorted(keys)): value for keys, value in wanted.items()}
    )


def test_effects_on_logits_add_where_accuracies_do_not(grid_of: Make) -> None:
    """Odds are multiplied by three by either setting: an interaction of accuracies, none of logits."""
    counts = [[500, 750], [750, 900]]
    table = np.array([[[np.arange(1000) < n] * 2 for n in row] for row in counts])
    grid = full_grid(grid_of(table, [LRS[:2], DROPOUTS]))
    assert grid is not None
    interaction, main, _ = factorial_effects(grid)
    assert interaction.logit is not None and main.logit is not None
    assert interaction.difference == pytest.approx(-0.10) and interaction.logit[0] == pytest.approx(0.0, abs=0.01)
    assert main.logit[0] == pytest.approx(math.log(3), abs=0.01)


def test_an_incomplete_grid_or_a_single_factor_is_no_grid(grid_of: Make) -> None:
    variants = grid_of(answers(4, 3, 2), [LRS, DROPOUTS])
    assert full_grid(variants) is not None
    for left_out in range(6):
        assert full_grid(variants[:left_out] + variants[left_out + 1 :]) is None
    assert full_grid(variants[::2]) is None and full_grid([]) is None
    assert full_grid([*variants[:5], variants[0]]) is None


def test_a_full_grid_explains_the_pairs_that_differ_in_several_keys(grid_of: Make) -> None:
    variants = grid_of(answers(5, 2, 2), [LRS[:2], DROPOUTS])
    effects, refusals = one_key_effects(variants, skip_refusals=True)
    assert len(effects) == 4 and refusals == []
    assert len(one_key_effects(variants)[1]) == 2


def test_a_family_is_corrected_by_holm_and_intervals_agree_with_p_values(grid_of: Make) -> None:
    rng = np.random.default_rng(9)
    for accuracy in (0.80, 0.83, 0.87, 0.95):
        table = rng.random((2, 2, 3, 600)) < np.array([[0.8, accuracy], [0.8, 0.8]])[..., None, None]
        variants = grid_of(table, [LRS[:2], DROPOUTS])
        grid = full_grid(variants)
        assert grid is not None
        for effects in (one_key_effects(variants)[0], factorial_effects(grid)):
            assert [e.p_holm for e in effects] == pytest.approx(statistics.holm([e.widest.p_value for e in effects]))
            for effect in effects:
                low, high = effect.corrected
                assert (low <= 0 <= high) != effect.is_shown
                assert low <= effect.difference <= high and high - low >= effect.widest.high - effect.widest.low - 1e-12
                assert ("no difference shown" in effect.verdict) != effect.is_shown


# Moderation


def of_eight(grid_of: Make, seed: int, k0: float = 0.0, effect: float = 0.0) -> Grid:
    """A grid of 2 × 2 × 2 with three seeds whose means scatter by 1 point, the first setting's effect by `k0` more."""
    rng = np.random.default_rng(seed)
    rank = np.arange(2000) / 2000
    shift = rng.normal(0, k0, 3)
    level = rng.normal(0.7, 0.01, (2, 2, 2, 3)) + np.array([0.0, 1.0])[:, None, None, None] * (shift + effect)
    grid = full_grid(grid_of(rank < level[..., None], [LRS[:2], DROPOUTS, SMOOTHING]))
    assert grid is not None
    return grid


def test_contrasts_of_a_grid_borrow_from_each_other(grid_of: Make) -> None:
    effects = factorial_effects(of_eight(grid_of, 0, effect=0.03))
    assert sum(effect.errors.df > 2 for effect in effects) >= 5  # one in ten is taken for an exception by chance
    [main] = [effect for effect in effects if effect.keys == (P,)]
    assert main.is_shown
    own = statistics.over_seeds(main.by_seed)
    assert own is not None and main.over_seeds is not None
    assert main.over_seeds.high - main.over_seeds.low < own.high - own.low


def test_an_effect_that_depends_on_the_seed_borrows_nothing(grid_of: Make) -> None:
    effects = {effect.keys: effect for effect in factorial_effects(of_eight(grid_of, 1, k0=0.2))}
    assert effects[P,].over_seeds == statistics.over_seeds(effects[P,].by_seed)
    assert effects[Q,].errors.df > 2


def test_moderated_effects_of_nothing_are_rarely_shown(grid_of: Make) -> None:
    families = [factorial_effects(of_eight(grid_of, draw)) for draw in range(40)]
    assert sum(any(effect.is_shown for effect in family) for family in families) <= 6
    inside = [e.over_both.low <= 0 <= e.over_both.high for family in families for e in family if e.over_both]
    assert np.mean(inside) >= 0.9


def test_two_by_two_is_too_small_to_borrow(grid_of: Make) -> None:
    grid = full_grid(grid_of(answers(1, 2, 2), [LRS[:2], DROPOUTS]))
    assert grid is not None and all(effect.errors.df == 2 for effect in factorial_effects(grid))
