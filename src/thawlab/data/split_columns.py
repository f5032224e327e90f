"""Which column of a table says the split of its rows."""

from collections.abc import Callable, Mapping, Sequence
from typing import NamedTuple

from thawlab.data.csv_table import NO, YES
from thawlab.data.split_names import split_name, words_of
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed, nearest

# Columns of these words are the split, whatever their values: a value that is none is a mistake.
_NAMES = ("split", "splits", "set", "subset", "partition", "usage", "phase", "dataset", "data set", "data split", "split name")
_NO = NO | {""}


class RowSplits(NamedTuple):
    """The splits of a table's rows, and the columns that say so; no columns where none does."""

    splits: list[Split]
    columns: tuple[str, ...]


def row_splits(columns: Mapping[str, Sequence[str]], count: int, origin: str, place: Callable[[int], str]) -> RowSplits:
    """Return the split of each row of a table.

    That is said by a column of a usual name, by flags ("is_test"), or by any column whose values are all splits, of which there
    are at least two.

    Args:
        columns: the values of the columns that are neither path nor label.
        count: of the rows.
        origin: the table, for messages.
        place: of a row by its number, likewise.

    Raises:
        UsageError: if a value is no split, or columns contradict each other.
    """
    usual = [name for wanted in _NAMES for name in columns if " ".join(words_of(name)) == wanted]
    if usual:
        return RowSplits([_split(columns[usual[0]][row], place(row)) for row in range(count)], (usual[0],))
    flags = {name: said for name in columns if (said := _flagged(name)) is not None}
    if flags:
        return RowSplits([_by_flags(columns, flags, row, place(row)) for row in range(count)], tuple(flags))
    speaking = {name: splits for name, values in columns.items() if (splits := _all_splits(values)) is not None}
    if len({tuple(splits) for splits in speaking.values()}) > 1:
        raise UsageError(f"{origin}: {listed(sorted(speaking))} each say a split, and not the same; name the right one 'split'")
    for name, splits in speaking.items():
        return RowSplits(splits, (name,))
    return RowSplits(["train"] * count, ())


def _split(value: str, place: str) -> Split:
    found = split_name(value)
    if found is None:
        hint = nearest(value, ["train", "val", "test"])
        raise UsageError(f"{place}: '{value.strip()}' is not a split; write train, val or test{hint}")
    return found.split


def _flagged(name: str) -> Split | None:
    """Return the split of a column such as "is_test" or "IsTrain"."""
    first, *rest = words_of(name) or [""]
    found = split_name(" ".join(rest)) if first in {"is", "in"} else None
    return found.split if found is not None and found.is_plain else None


def _by_flags(columns: Mapping[str, Sequence[str]], flags: Mapping[str, Split], row: int, place: str) -> Split:
    """Return the split that flags say; what is in no split kept apart, and not in that of training either, is test."""
    set_flags = []
    for name in flags:
        text = columns[name][row].strip().lower()
        if text not in YES | _NO:
            raise UsageError(f"{place}: '{text}' in the column '{name}' is neither True nor False")
        set_flags += [name] if text in YES else []
    splits = list(dict.fromkeys(flags[name] for name in set_flags))
    if len(splits) > 1:
        raise UsageError(f"{place}: is in several splits ({listed(set_flags)}); keep one of them")
    if splits:
        return splits[0]
    kept = flags.values()
    return "train" if "train" not in kept else "val" if "test" in kept else "test"


def _all_splits(values: Sequence[str]) -> list[Split] | None:
    """Return the splits that all values of a column say, where they are of several; None otherwise."""
    said: dict[str, Split] = {}
    for value in dict.fromkeys(values):
        found = split_name(value)
        if found is None or not found.is_plain:
            return None
        said[value] = found.split
    return [said[value] for value in values] if len(set(said.values())) > 1 else None
