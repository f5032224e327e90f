"""The shares of settings in the difference between two corners of a grid, against Shapley's value by its definition."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence

import numpy as np
import pytest

from thawlab.comparison import statistics
from thawlab.comparison.grids import Grid, factorial_effects, full_grid
from thawlab.comparison.runs import ComparedRun, variants_of
from thawlab.comparison.shares import Shares, shares

Make = Callable[..., ComparedRun]
CHANGES = ("phases.0.lr=0.03", "model.dropout=[0.5]", "phases.0.label_smoothing=0.1")


@pytest.fixture
def grid_of(made: Make) -> Callable[..., Grid]:
    """Make a grid of two levels of each setting, or of the levels given, from a table: levels × … × seeds × images."""

    def make(table: np.ndarray, changes: Sequence[Sequence[str]] | None = None, **more: str) -> Grid:
        levels = changes or [["", change] for change in CHANGES[: table.ndim - 2]]
        runs = []
        for cell in itertools.product(*(range(len(of)) for of in levels)):
            overrides = [levels[place][level] for place, level in enumerate(cell) if levels[place][level]]
            runs += [made([*overrides, f"seed={seed}"], row, **more) for seed, row in enumerate(table[cell])]
        grid = full_grid(variants_of(runs))
        assert grid is not None
        return grid

    return make


def answers(seed: int, *shape: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.random((*shape, 3, 300)) < rng.uniform(0.3, 0.95, (*shape, 1, 1))


def found(grid: Grid) -> Shares:
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
def test_shares_are_shapleys_and_add_up(grid_of: Callable[..., Grid], count: int) -> None:
    table = answers(count, *[2] * count)
    split = found(grid_of(table))
    means = table.mean(axis=(-2, -1))
    by_key = {part.keys[0].rpartition(".")[2]: part.difference for part in split.parts}
    expected = dict(zip(("lr", "dropout", "label_smoothing"), by_all_orders(means), strict=False))
    assert by_key == pytest.approx(expected)
    assert split.whole.difference == pytest.approx(means[(-1,) * count] - means[(0,) * count])
    assert sum(by_key.values()) == pytest.approx(split.whole.difference)


def test_of_several_levels_the_ends_count(grid_of: Callable[..., Grid]) -> None:
    table = answers(5, 3, 2)
    split = found(grid_of(table, [["", CHANGES[0], "phases.0.lr=0.1"], ["", CHANGES[1]]]))
    ends = found(grid_of(table[[0, 2]], [["", "phases.0.lr=0.1"], ["", CHANGES[1]]]))
    assert [part.difference for part in split.parts] == [part.difference for part in ends.parts]


def test_without_interactions_a_share_is_a_main_effect(grid_of: Callable[..., Grid]) -> None:
    rng = np.random.default_rng(0)
    row = rng.permutation(400)
    table = np.stack([[[row < 300 - 40 * a - 70 * b] * 3 for b in (0, 1)] for a in (0, 1)])
    grid = grid_of(table)
    mains = {effect.keys: effect.difference for effect in factorial_effects(grid) if effect.kind == "main"}
    assert {part.keys: part.difference for part in found(grid).parts} == pytest.approx(mains)


def test_a_share_has_the_interval_of_its_contrast_and_says_what_it_is(grid_of: Callable[..., Grid]) -> None:
    table = answers(7, 2, 2)
    split = found(grid_of(table))
    a = table.astype(float)
    rows = (a[1, 0] - a[0, 0] + a[1, 1] - a[0, 1]) / 2
    [part] = [part for part in split.parts if part.keys == ("phases.0.lr",)]
    assert part.over_both == statistics.over_both(rows)
    assert part.kind == "share" and ("accounts for" in part.verdict or "no difference shown" in part.verdict)
    assert split.whole.kind == "whole" and set(split.whole.keys) == {"phases.0.lr", "model.dropout"}


def test_corners_with_other_images_are_not_split(grid_of: Callable[..., Grid], made: Make) -> None:
    grid = grid_of(answers(1, 2, 2))
    other = {**grid.cells, (1, 1): variants_of([made([*CHANGES[:2], "seed=0"], images="other")])[0]}
    assert shares(grid._replace(cells=other)) is None
