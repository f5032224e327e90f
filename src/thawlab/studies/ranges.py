"""The ranges of a search, as a study file's [search] gives them."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from thawlab.errors import UsageError, nearest
from thawlab.recipe_text import SHORT

_RANGE_KEYS = ("low", "high", "log", "step", "choices")
_USUAL_RUNS = 30


class Range(NamedTuple):
    """The values that a setting may take: one of `choices`, or a number from `low` to `high`.

    Attributes:
        choices: values of any kind; empty for numbers.
        low: the least number; a whole one where both ends are whole.
        high: the largest number.
        log: whether numbers are drawn on a logarithmic scale.
        step: between numbers; None for any.
    """

    choices: tuple[Any, ...] = ()
    low: float = 0
    high: float = 0
    log: bool = False
    step: float | None = None


class Search(NamedTuple):
    """What is looked for: a range per dotted key, within a number of runs or minutes."""

    ranges: dict[str, Range]
    runs: int | None
    minutes: float | None


def parse_search(table: Mapping[str, Any], origin: str) -> Search:
    """Read a [search] table, whose keys are dotted.

    Raises:
        UsageError: if a range or the budget is wrong.
    """
    runs, minutes = table.get("runs"), table.get("minutes")
    if runs is not None and (not isinstance(runs, int) or runs < 1):
        raise UsageError(f"{origin}: search.runs = {runs!r} must be a number of runs, at least 1")
    if minutes is not None and (not isinstance(minutes, int | float) or minutes <= 0):
        raise UsageError(f"{origin}: search.minutes = {minutes!r} must be greater than 0")
    ranges = {
        SHORT.get(key, key): _range(value, f"{origin}: search.{key}")
        for key, value in table.items()
        if key not in ("runs", "minutes")
    }
    if not ranges:
        raise UsageError(f'{origin}: search needs a range, for example "phases.0.lr" = {{ low = 1e-4, high = 1e-1, log = true }}')
    return Search(ranges, runs if runs or minutes else _USUAL_RUNS, minutes)


def _range(value: Any, place: str) -> Range:
    if isinstance(value, list):
        value = {"choices": value}
    if not isinstance(value, Mapping):
        raise UsageError(f"{place} = {value!r} must be a list of choices, or a table with low and high")
    for key in value:
        if key not in _RANGE_KEYS:
            raise UsageError(f"{place}.{key} is not a key of a range{nearest(key, _RANGE_KEYS)}")
    if "choices" in value:
        choices = value["choices"]
        if not isinstance(choices, list) or len(choices) < 2:
            raise UsageError(f"{place}.choices = {choices!r} must be a list of at least two values")
        return Range(choices=tuple(None if choice == "none" else choice for choice in choices))
    low, high = value.get("low"), value.get("high")
    if not isinstance(low, int | float) or not isinstance(high, int | float) or not low < high:
        raise UsageError(f"{place}: low = {low!r} must be a number below high = {high!r}")
    log, step = bool(value.get("log", False)), value.get("step")
    if log and (low <= 0 or step is not None):
        raise UsageError(f"{place}: a logarithmic range begins above 0 and has no step")
    return Range(low=low, high=high, log=log, step=step)
