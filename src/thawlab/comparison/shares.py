"""From one corner of a grid to the opposite one: how much of the whole difference each setting accounts for.

Changing the settings one after the other splits the difference, but differently in every order, where settings depend on each
other. The shares here are the mean over all orders: Shapley's value (1953, "A value for n-person games"), as Shorrocks (2013,
"Decomposition procedures for distributional analysis") uses it. They add up to the whole, whatever the interactions.
"""

import itertools
import math
from collections import defaultdict
from collections.abc import Mapping
from typing import Any, NamedTuple

from thawlab.comparison.effects import Effect, contrast, corrected
from thawlab.comparison.grids import Grid
from thawlab.comparison.settings import short_keys, shown


class Shares(NamedTuple):
    """The whole difference between two opposite corners of a grid, and the share of each setting; `parts` add up to it."""

    first: str
    last: str
    whole: Effect
    parts: tuple[Effect, ...]

    @property
    def sentence(self) -> str:
        """The whole difference, and what each setting accounts for of it."""
        parts = [f"{part.name} {100 * part.difference:+.2f}" for part in self.parts]
        return f"{self.whole.verdict}; of that, in points: {', '.join(parts)}"

    def as_json(self) -> dict[str, Any]:
        """Return the shares as JSON values."""
        return {**self._asdict(), "whole": self.whole.as_json(), "parts": [part.as_json() for part in self.parts]}


def shares(grid: Grid) -> Shares | None:
    """Split the difference between the first values of all settings and the last ones.

    Returns:
        None where the corners cannot be compared: their runs have no seed in common, or other test images.
    """
    keys, count = list(grid.levels), len(grid.levels)
    last = [len(found) - 1 for found in grid.levels.values()]
    short = short_keys(keys)

    def cell(changed: frozenset[int]) -> tuple[int, ...]:
        return tuple(last[place] if place in changed else 0 for place in range(count))

    def measured(weights: Mapping[tuple[int, ...], float], kind: str, name: str, key: tuple[str, ...]) -> Effect | str:
        return contrast(
            [(weight, grid.cells[at]) for at, weight in weights.items()], kind=kind, name=name, keys=key, between=None
        )

    start, end = cell(frozenset()), cell(frozenset(range(count)))
    first, opposite = grid.cells[start], grid.cells[end]
    found = [measured({end: 1.0, start: -1.0}, "whole", f"{first.name} → {opposite.name}", tuple(keys))]
    for place, key in enumerate(keys):
        weights: defaultdict[tuple[int, ...], float] = defaultdict(float)
        others = [other for other in range(count) if other != place]
        for size in range(count):
            weight = math.factorial(size) * math.factorial(count - size - 1) / math.factorial(count)
            for before in map(frozenset, itertools.combinations(others, size)):
                weights[cell(before | {place})] += weight
                weights[cell(before)] -= weight
        change = f"{short[key]} {shown(grid.levels[key][0])} → {shown(grid.levels[key][-1])}"
        found.append(measured(weights, "share", change, (key,)))
    effects = [effect for effect in found if isinstance(effect, Effect)]
    if len(effects) < len(found):
        return None
    return Shares(first.name, opposite.name, corrected(effects[:1])[0], tuple(corrected(effects[1:])))
