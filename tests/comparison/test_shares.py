"""The shares of settings in the difference between two corners of a grid, against Shapley's value by its definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.grids import Grid, factorial_effects, full_grid
from thawlab.comparison.runs import ComparedRun, Variant, variants_of
from thawlab.comparison.shares import Shares, shares

Make = Callable[..., ComparedRun]
CHANGES = ("phases.0.lr=0.03", "model.dropout=[0.5]", "phases.0.label_smoothing=0.1")


@pytest.fixture
def grid(grid_of: Callable[..., list[Variant]]) -> Callable[..., Grid]:
    """Make a grid of two levels of each setting, or of the levels given, from a table: levels × … × seeds × images."""

    def make(table: np.ndarray, changes: Sequence[Sequence[Sequence[str]]] | None = None) -> Grid:
        found = full_grid(grid_of(table, changes or [[[], [change]] for change in CHANGES[: table.ndim - 2]]))
        assert found is not None
        return found

    return make


def answers(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((*shape, 3, 300)) < rng.uniform(0.3, 0.95, (*shape, 1, 1))


def split_of(grid: Grid) -> Shares:
    result = shares(grid)
    assert result is not None
    return result


def by_all_orders(means: np.ndarray) -> list[float]:
    """Shapley's value by its definition: the mean gain of a setting over all orders in which they can be changed."""
    count, gains = means.ndim, [[] for _ in range(means.ndim)]  # type: ignore[var-annotated]
    for order in itertools.permutations(range(count)):
        cell = [0] * count
        for place in order:
            before = means[tuple(cell)]
            cell[place] = means.shape[place] - 1
            gains[place].append(means[tuple(cell)] - before)
    return [float(np.mean(of)) for of in gains]


@pytest.mark.parametrize("count", [2, 3])
def test_shares_are_shapleys_and_add_up(grid: Callable[..., Grid], count: int) -> None:
    table = answers(count, *[2] * count)
    split = split_of(grid(table))
    means = table.mean(axis=(-2, -1))
    by_key = {part.keys[0].rpartition(".")[2]: part.difference for part in split.parts}
    expected = dict(zip(("lr", "dropout", "label_smoothing"), by_all_orders(means), strict=False))
    assert by_key == pytest.approx(expected)
    assert split.whole.difference == pytest.approx(means[(-1,) * count] - means[(0,) * count])
    assert sum(by_key.values()) == pytest.approx(split.whole.difference)


def test_of_several_levels_the_ends_count(grid: Callable[..., Grid]) -> None:
    table = answers(5, 3, 2)
    split = split_of(grid(table, [[[], [CHANGES[0]], ["phases.0.lr=0.1"]], [[], [CHANGES[1]]]]))
    ends = split_of(grid(table[[0, 2]], [[[], ["phases.0.lr=0.1"]], [[], [CHANGES[1]]]]))
    assert [part.difference for part in split.parts] == [part.difference for part in ends.parts]


def test_without_interactions_a_share_is_a_main_effect(grid: Callable[..., Grid]) -> None:
    rng = np.random.default_rng(0)
    row = rng.permutation(400)
    table = np.stack([[[row < 300 - 40 * a - 70 * b] * 3 for b in (0, 1)] for a in (0, 1)])
    whole = grid(table)
    mains = {effect.keys: effect.difference for effect in factorial_effects(whole) if effect.kind == "main"}
    assert {part.keys: part.difference for part in split_of(whole).parts} == pytest.approx(mains)


def test_a_share_has_the_interval_of_its_contrast_and_says_what_it_is(grid: Callable[..., Grid]) -> None:
    table = answers(7, 2, 2)
    split = split_of(grid(table))
    a = table.astype(float)
    rows = (a[1, 0] - a[0, 0] + a[1, 1] - a[0, 1]) / 2
    [part] = [part for part in split.parts if part.keys == ("phases.0.lr",)]
    assert part.over_both == statistics.over_both(rows)
    assert part.kind == "share" and ("accounts for" in part.verdict or "no difference shown" in part.verdict)
    assert split.whole.kind == "whole" and set(split.whole.keys) == {"phases.0.lr", "model.dropout"}


def test_corners_with_other_images_are_not_split(grid: Callable[..., Grid], made: Make) -> None:
    whole = grid(answers(1, 2, 2))
    other = {**whole.cells, (1, 1): variants_of([made([*CHANGES[:2], "seed=0"], images="other")])[0]}
    assert shares(whole._replace(cells=other)) is None
