"""Full factorial designs: their main effects and interactions, each a contrast of all cells."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import linalg

from thawlab.comparison import moderation, statistics
from thawlab.comparison.effects import Effect, contrast, corrected
from thawlab.comparison.moderation import Prior, prior_of
from thawlab.comparison.runs import Variant
from thawlab.comparison.settings import short_keys, shown
from thawlab.comparison.statistics import Estimate

_HIGHEST_ORDER = 3  # interactions of more than three settings say nothing to anybody


class Grid(NamedTuple):
    """A full factorial design: its settings, their levels in order, and the variant of every combination."""

    levels: dict[str, list[Any]]
    cells: dict[tuple[int, ...], Variant]


def full_grid(variants: Sequence[Variant]) -> Grid | None:
    """Return the design if the variants are all combinations of the values of two or more settings, else None."""
    keys = list(variants[0].values) if variants else []
    levels: dict[str, list[Any]] = {key: [] for key in keys}
    for variant in variants:
        for key, value in variant.values.items():
            if value not in levels[key]:
                levels[key].append(value)
    levels = {key: found for key, found in levels.items() if len(found) > 1}
    if len(levels) < 2 or math.prod(map(len, levels.values())) != len(variants):
        return None
    cells = {tuple(found.index(variant.values[key]) for key, found in levels.items()): variant for variant in variants}
    return Grid(levels, cells) if len(cells) == len(variants) else None


def factorial_effects(grid: Grid) -> list[Effect]:
    """Return the interactions and then the main effects of a full grid, each level against the first of its setting.

    An effect is a contrast of the cells, measured for each seed by itself, so that cells that scatter more than others are
    allowed for; its variance over seeds is moderated by that of all contrasts of the grid. Its logit is given beside it, since
    an interaction may be one of the scale only.
    """
    keys = list(grid.levels)
    short = short_keys(keys)
    prior = _prior_of_grid(grid)
    effects = []
    for order in range(min(_HIGHEST_ORDER, len(keys)), 0, -1):
        for chosen in itertools.combinations(range(len(keys)), order):
            for levels in itertools.product(*(range(1, len(grid.levels[keys[place]])) for place in chosen)):
                changes = [
                    f"{short[keys[place]]} {shown(grid.levels[keys[place]][0])} → {shown(grid.levels[keys[place]][level])}"
                    for place, level in zip(chosen, levels, strict=True)
                ]
                weights = _weights(grid, dict(zip(chosen, levels, strict=True)))
                found = contrast(
                    weights,
                    kind="interaction" if order > 1 else "main",
                    name=" × ".join(changes),
                    keys=tuple(keys[place] for place in chosen),
                    between=None,
                )
                if not isinstance(found, str):
                    scale = sum(weight**2 for weight, _ in weights)
                    effects.append(_moderated(found, prior, scale)._replace(logit=_on_logits(weights, found.seeds)))
    return corrected(effects)


def _prior_of_grid(grid: Grid) -> Prior | None:
    """Return what the grid's own contrasts tell of how far a contrast scatters over the seeds.

    They are orthonormal: one seed more or less leaves each as uncertain as the others, unless settings interact with seeds.

    Returns:
        None where the cells do not share at least two seeds.
    """
    seeds = sorted(set.intersection(*(set(variant.runs) for variant in grid.cells.values())))
    if len(seeds) < 2:
        return None
    cells = sorted(grid.cells)
    accuracies = np.array([[grid.cells[cell].runs[seed].test.right.mean() for seed in seeds] for cell in cells])
    basis = np.ones((1, 1))
    for found in grid.levels.values():
        basis = np.kron(basis, linalg.helmert(len(found), full=True))
    contrasts = basis[1:] @ accuracies  # the first row is the mean of all cells
    return prior_of(contrasts.var(axis=1, ddof=1), len(seeds) - 1)


def _moderated(effect: Effect, prior: Prior | None, scale: float) -> Effect:
    """Return an effect whose variance over seeds is moderated; `scale` is the sum of its squared weights."""
    if prior is None or effect.over_seeds is None or effect.over_both is None:
        return effect
    over_seeds, over_both = (moderation.moderated(found, prior, scale) for found in (effect.over_seeds, effect.over_both))
    return effect._replace(over_seeds=over_seeds, over_both=over_both)


def _weights(grid: Grid, chosen: Mapping[int, int]) -> list[tuple[float, Variant]]:
    """Return the contrast of the chosen levels against the first ones, averaged over the levels of the other settings."""
    others = math.prod(len(found) for place, found in enumerate(grid.levels.values()) if place not in chosen)
    weights = []
    for cell, variant in grid.cells.items():
        if all(cell[place] in (0, level) for place, level in chosen.items()):
            sign = math.prod(1 if cell[place] == level else -1 for place, level in chosen.items())
            weights.append((sign / others, variant))
    return weights


def _on_logits(weights: Sequence[tuple[float, Variant]], seeds: Sequence[int]) -> tuple[float, Estimate | None]:
    by_seed = []
    for seed in seeds:
        total = 0.0
        for weight, variant in weights:
            right = variant.runs[seed].test.right
            # Half an image is added on both sides, so that nothing is infinite (Haldane 1956, Anscombe 1956).
            total += weight * math.log((right.sum() + 0.5) / ((~right).sum() + 0.5))
        by_seed.append(total)
    return float(np.mean(by_seed)), statistics.over_seeds(by_seed)
