"""Tables that list images: a CSV with a path, a class and perhaps a split in each row."""

import os
import re
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import replace
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import final

from thawlab.data.csv_table import Row, pick_column, read_table
from thawlab.data.folders import walk
from thawlab.data.images import FileImages
from thawlab.data.layout import Placed
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged, openers
from thawlab.data.split_columns import row_splits
from thawlab.errors import UsageError, listed, nearest, plain

_PATHS: tuple[str, ...] = (
    "path",
    "file",
    "filename",
    "file_name",
    "filepath",
    "file_path",
    "image",
    "img",
    "image_path",
    "image_file",
    "image_name",
)
_PATHS += ("image_id", "img_path", "picture", "photo", "name", "id")
_LABELS = ("label", "class", "category", "target", "class_name", "classname", "label_name", "labels", "y", "species", "diagnosis")
_FRACTION = re.compile(r"(?<=[0-9])\.0+$")
UNLABELLED = frozenset({"", "nan", "-1", "-1.0", "na", "n/a", "#n/a", "<na>", "null"})


@openers.register(".csv")
@openers.register(".tsv")
def open_table(path: Path, reading: Reading) -> Listing:
    """List the images that a table names: columns path, label and, optionally, split or fold; paths relative to its folder."""
    reading.refuse("layout", what="a table")
    columns, rows = read_table(path)
    path_column = chosen_column(columns, reading.path_column, _PATHS, "path", path)
    label_column = chosen_column([c for c in columns if c != path_column], reading.label_column, _LABELS, "label", path)
    fold = pick_column(columns, ["fold", "kfold", "folds"])
    files = _Files(path.parent)
    labelled: list[tuple[int, str, str, Row]] = []
    ignored: list[tuple[str, str]] = []
    for number, row in rows:
        written, label = row[path_column] or "", (row[label_column] or "").strip()
        if not written.strip() and not label:
            continue  # a line without a word
        if not written.strip():
            raise UsageError(f"{path}, line {number}: the path is empty")
        name = files.name_of(written)
        if plain(name) != name:
            ignored.append((plain(name), "has control characters in its name; rename it"))
        elif label.lower() in UNLABELLED:
            ignored.append((name, "has no label"))
        else:
            labelled.append((number, name, label, row))
    labelled, notes = _one_number(labelled)
    others = {c: [(row[c] or "").strip() for *_, row in labelled] for c in columns if c not in {path_column, label_column}}
    splits = row_splits(others, len(labelled), str(path), lambda index: f"{path}, line {labelled[index][0]}")
    kept: dict[str, tuple[Placed, Row]] = {}
    for (number, name, label, row), split in zip(labelled, splits.splits, strict=True):
        group = (row[fold] or "").strip() if fold and fold not in splits.columns else ""
        item = Placed(name, label, split, group)
        before = kept.setdefault(name, (item, row))[0]
        if before != item:
            what = (
                f"'{before.label}' and '{label}'" if before.label != label else f"the {before.split} and the {item.split} split"
            )
            raise UsageError(f"{path}, line {number}: '{name}' is listed twice, in {what}; keep one of the rows")
    if not kept:
        raise UsageError(f"{path}: lists no images{' with a label' if ignored else ''}")
    placed = [item for item, _ in kept.values()]
    images = FileImages(tuple(path.parent / item.path for item in placed))
    values = {name: tuple((row.get(name) or "").strip() for _, row in kept.values()) for name in columns}
    listing = arranged(placed, images, path.stem, str(path), columns=values, ignored=tuple(ignored))
    lost = [item.path for item in placed if item.path in files.lost]
    if lost:
        notes = (*notes, f"{len(lost):,} of the {len(placed):,} files that it lists are not there; the first is {lost[0]}")
    said = f"{path_column} is the path, {label_column} the class" + (
        f", {' and '.join(splits.columns)} the split" if splits.columns else ""
    )
    layout = f"{said}{f', {fold} the group' if listing.groups is not None else ''}"
    return replace(listing, notes=(*listing.notes, *notes), layout=layout)


def _one_number(labelled: Sequence[tuple[int, str, str, Row]]) -> tuple[list[tuple[int, str, str, Row]], tuple[str, ...]]:
    """Return rows with numbers that were written in two ways made one class, with a note: 1.0 beside 1.

    Programs turn whole numbers into fractions in a column with gaps, and keep them whole in one without.
    """
    labels = {label for _, _, label, _ in labelled}
    whole = {label: short for label in labels if (short := _FRACTION.sub("", label)) != label and short in labels}
    notes = tuple(f"'{short}' and '{label}' are read as one class, '{short}'" for label, short in sorted(whole.items()))
    return [(number, name, whole.get(label, label), row) for number, name, label, row in labelled], notes


def chosen_column(columns: Sequence[str], wanted: str | None, names: Sequence[str], role: str, path: Path | str) -> str:
    """Return the column that the recipe names (`data.path_column`, `data.label_column`), or that bears a usual name.

    Raises:
        UsageError: if there is none.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
        if (same := pick_column(columns, [wanted.strip().lower()])) is not None:
            return same
        raise UsageError(
            f"data.{role}_column: {path} has no column '{wanted}'{nearest(wanted, columns)}; found {listed(columns)}"
        )
    found = pick_column(columns, names)
    if found is None:
        raise UsageError(
            f"{path}: which column is the {role}? Name it '{role}', or write data.{role}_column=NAME; "
            f"found {listed(columns) or 'none'}"
        )
    return found


@final
class _Files:
    """The files that a table may name, below its folder; `lost` are the names that led to none."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._place = os.path.abspath(folder)  # noqa: PTH100 - a link keeps its own name
        self.lost: set[str] = set()

    def name_of(self, written: str) -> str:
        """Return the name of a file as the table means it; as it is written where there is none.

        Backslashes are taken for slashes, and blanks around a name do not count, unless a file is really named so. A name that
        leads nowhere, perhaps without extension, or on another machine, is looked for below the table's folder.
        """
        stripped = written.strip()
        spellings = (written, stripped, stripped.replace("\\", "/"))
        for name in dict.fromkeys(spellings):
            with suppress(OSError):  # no file has a name of such a length
                if (self._folder / name).is_file():
                    return self._plain(name)
        last = PurePosixPath(spellings[-1])
        # Of a path with folders at least one must fit: another class may hold a file of the same name.
        for parts in (last.parts[depth:] for depth in range(max(len(last.parts) - 1, 1))):
            found = self._by_end.get(unicodedata.normalize("NFC", "/".join(parts)), [])
            if len(found) == 1:
                return found[0]
        self.lost.add(spellings[-1])
        return spellings[-1]

    def _plain(self, name: str) -> str:
        """Return a file's name without detours, relative to the table where it lies below it: one file has one name."""
        below = os.path.relpath(os.path.join(self._place, name), self._place)  # noqa: PTH118 - `name` may be absolute
        is_elsewhere = Path(name).is_absolute() and below.startswith("..")
        return Path(os.path.normpath(name) if is_elsewhere else below).as_posix()

    @cached_property
    def _by_end(self) -> dict[str, list[str]]:
        """Files by every end of their paths, with and without their extension."""
        ends: dict[str, list[str]] = {}
        for path in walk(self._folder).files:
            parts = path.split("/")
            for depth in range(len(parts)):
                end = PurePosixPath(*parts[depth:])
                for name in {end.as_posix(), end.with_suffix("").as_posix()}:
                    ends.setdefault(unicodedata.normalize("NFC", name), []).append(path)
        return ends
