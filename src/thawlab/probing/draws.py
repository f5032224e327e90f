"""How many images a class a probe is asked for, and which those are."""

from collections.abc import Hashable, Sequence
from typing import TypeVar

import numpy as np

from thawlab.data.splits import class_ranks
from thawlab.data.types import Indices, Labels
from thawlab.errors import UsageError

T = TypeVar("T", bound=Hashable)


def distinct(option: str, values: Sequence[T]) -> list[T]:
    """Return the values of an option that takes several.

    Raises:
        UsageError: if there is none, or one is given twice.
    """
    if isinstance(values, str):
        raise UsageError(f"{option} = '{values}': must be a list")
    twice = next((value for place, value in enumerate(values) if value in values[:place]), None)
    if twice is not None:
        raise UsageError(f"{option}: {twice} is given twice")
    if not values:
        raise UsageError(f"{option}: the list is empty; give at least one")
    return list(values)


def parse_shots(values: Sequence[int | str]) -> list[int | None]:
    """Read numbers of images a class; "all" becomes None.

    Raises:
        UsageError: if one is neither "all" nor a number of at least 1.
    """
    shots = [None if value == "all" else whole("shots", value) for value in distinct("shots", values)]
    distinct("shots", shots)
    return shots


def whole(option: str, value: int | str) -> int:
    """Read a number of at least 1.

    Raises:
        UsageError: if it is none.
    """
    if isinstance(value, bool) or not str(value).strip().isdecimal() or int(value) < 1:
        known = " or all" if option == "shots" else ""
        raise UsageError(f"{option}: '{value}' is not a number of at least 1{known}")
    return int(value)


def planned_shots(labels: Labels, classes: Sequence[str], shots: Sequence[int | None]) -> tuple[list[int | None], list[str]]:
    """Return the numbers of images a class for which every class has enough, all images last, and a note for each other one.

    Raises:
        UsageError: if none is left, or no class has so many.
    """
    counts = np.bincount(labels, minlength=len(classes))
    fewest = int(counts.argmin())
    for count in shots:
        if count is not None and count > counts.max():
            raise UsageError(f"shots = {count}: no class has so many training images; the largest has {counts.max()}")
    kept = sorted(count for count in shots if count is not None and count <= counts[fewest])
    notes = [
        f"{count} images a class are left out: '{classes[fewest]}' has {counts[fewest]} training images"
        for count in shots
        if count is not None and count not in kept
    ]
    if not kept and None not in shots:
        raise UsageError(f"shots: '{classes[fewest]}' has only {counts[fewest]} training images; ask for fewer, or for all")
    return [*kept, *([None] if None in shots else [])], notes


def draw(labels: Labels, shots: int | None, seed: int) -> Indices:
    """Return a random subset of training samples, as many of each class; with the same seed, one of more holds those of fewer."""
    ranks = class_ranks(labels, seed)
    return np.flatnonzero(ranks < shots) if shots is not None else np.arange(len(labels))
