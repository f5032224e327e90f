"""Tables that list images: a CSV with a path, a class and perhaps a split in each row."""

import unicodedata
from collections.abc import Sequence
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
from thawlab.data.split_names import split_name
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed, nearest

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
_SPLITS = ("split", "set", "subset", "partition", "usage", "phase", "dataset")
_FLAGS: dict[str, Split] = {"is_valid": "val", "is_val": "val", "is_test": "test"}
_YES, _NO = frozenset({"true", "1", "1.0", "yes", "y", "t"}), frozenset({"false", "0", "0.0", "no", "n", "f", ""})
_UNLABELLED = frozenset({"", "nan", "-1", "-1.0"})


@openers.register(".csv")
@openers.register(".tsv")
def open_table(path: Path, reading: Reading) -> Listing:
    """List the images that a table names: columns path, label and, optionally, split or fold; paths relative to its folder."""
    reading.refuse("layout", what="a table")
    columns, rows = read_table(path)
    path_column = chosen_column(columns, reading.path_column, _PATHS, "path", path)
    label_column = chosen_column([c for c in columns if c != path_column], reading.label_column, _LABELS, "label", path)
    splits, fold = _Splits(path, columns), pick_column(columns, ["fold", "kfold", "folds"])
    files = _Files(path.parent)
    kept: dict[str, tuple[Placed, Row]] = {}
    ignored: list[tuple[str, str]] = []
    for number, row in rows:
        written, label = row[path_column] or "", (row[label_column] or "").strip()
        if not written.strip() and not label:
            continue  # a line without a word
        if not written.strip():
            raise UsageError(f"{path}, line {number}: the path is empty")
        name = files.name_of(written)
        if label.lower() in _UNLABELLED:
            ignored.append((name, "has no label"))
            continue
        group = (row[fold] or "").strip() if fold and splits.column != fold else ""
        item = Placed(name, label, splits.of(row, number), group)
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
    said = f"{path_column} is the path, {label_column} the class" + (f", {splits.column} the split" if splits.column else "")
    return replace(listing, layout=f"{said}{f', {fold} the group' if listing.groups is not None else ''}")


def chosen_column(columns: Sequence[str], wanted: str | None, names: Sequence[str], role: str, path: Path) -> str:
    """Return the column that the recipe names (`data.path_column`, `data.label_column`), or that bears a usual name.

    Raises:
        UsageError: if there is none.
    """
    if wanted is not None:
        if wanted in columns:
            return wanted
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
class _Splits:
    """Which split a row of a table belongs to."""

    def __init__(self, path: Path, columns: Sequence[str]) -> None:
        self._path = path
        self.column = pick_column(columns, _SPLITS)
        self._flags = (
            {} if self.column else {flag: split for name, split in _FLAGS.items() if (flag := pick_column(columns, [name]))}
        )

    def of(self, row: Row, number: int) -> Split:
        if self.column is not None:
            text = (row[self.column] or "").strip()
            found = split_name(text)
            if found is None:
                raise UsageError(
                    f"{self._path}, line {number}: '{text}' is not a split; write train, val or test"
                    f"{nearest(text, ['train', 'val', 'test'])}"
                )
            return found.split
        for flag, split in self._flags.items():
            text = (row[flag] or "").strip().lower()
            if text not in _YES | _NO:
                raise UsageError(f"{self._path}, line {number}: '{text}' in the column '{flag}' is neither True nor False")
            if text in _YES:
                return split
        return "train"


@final
class _Files:
    """The files that a table may name, below its folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def name_of(self, written: str) -> str:
        """Return the name of a file as the table means it; as it is written where there is none.

        Backslashes are taken for slashes, and blanks around a name do not count, unless a file is really named so. A name that
        leads nowhere, perhaps without extension, or on another machine, is looked for below the table's folder.
        """
        stripped = written.strip()
        spellings = (written, stripped, stripped.replace("\\", "/"))
        for name in dict.fromkeys(spellings):
            if (self._folder / name).is_file():
                return name
        last = PurePosixPath(spellings[-1])
        # Of a path with folders at least one must fit: another class may hold a file of the same name.
        for parts in (last.parts[depth:] for depth in range(max(len(last.parts) - 1, 1))):
            found = self._by_end.get(unicodedata.normalize("NFC", "/".join(parts)), [])
            if len(found) == 1:
                return found[0]
        return spellings[-1]

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
