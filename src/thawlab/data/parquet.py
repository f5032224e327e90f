"""Sources in Parquet files as Hugging Face's data sets write them: encoded images and class labels."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from thawlab.data.csv_table import pick_column
from thawlab.data.folders import Walk, walk
from thawlab.data.formats import has_image_extension
from thawlab.data.images import ReadImages
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import grouped, openers
from thawlab.data.parquet_columns import (
    contents,
    declared_names,
    has_images,
    image_and_label,
    label_names,
    numbered,
    telling_columns,
)
from thawlab.data.parquet_reading import batches, checked
from thawlab.data.split_columns import row_splits
from thawlab.data.split_names import split_name, split_names, split_of_path
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed, plain


def parquet_files(folder: Path, found: Walk | None = None) -> list[Path]:
    """Return the Parquet files that a folder is a source of, sorted, wherever they lie in it (`data/`, `default/train/`).

    None where images lie below it and the tables have none: further data among images is not what a source is read from.
    `found` is what lies below the folder, where that is known.

    Raises:
        UsageError: if the folder holds images in folders and, at its top, Parquet files with images.
    """
    files = (found or walk(folder)).files if folder.is_dir() else []
    tables = [folder / path for path in files if path.lower().endswith(".parquet")]
    images = [path for path in files if has_image_extension(path)] if tables else []
    if not images:
        return tables
    tables = [table for table in tables if table.parent == folder and has_images(table)]
    inside = [path for path in images if "/" in path]
    if tables and inside:
        raise UsageError(
            f"{folder}: holds images both in {tables[0].name} and in folders ({inside[0]}); give one of them as the source"
        )
    return tables


class _Rows(NamedTuple):
    """The rows of some Parquet files, one after the other."""

    images: list[Any]
    names: list[str | None]
    labels: list[str | int | None]
    files: list[Path]
    others: dict[str, list[str]]
    declared: dict[str, None]
    columns: tuple[str, str]


@openers.register(".parquet")
def open_parquet(path: Path, reading: Reading) -> Listing:
    """List Parquet files with a column of encoded images and one of class labels."""
    import pyarrow as pa

    reading.refuse("layout", what="Parquet files")
    files = [path] if path.is_file() else parquet_files(path)
    by_name = _splits_of(files, path)
    rows = _read(files, reading)
    if not rows.labels:
        raise UsageError(f"{path}: holds no images; its Parquet files have no rows")
    said = row_splits(rows.others, len(rows.labels), str(path), lambda row: f"{rows.files[row]}, row {row}")
    splits = said.splits if said.columns else [by_name[file] for file in rows.files]
    fold = pick_column([name for name in rows.others if name not in said.columns], ["fold", "kfold", "folds"])
    images = pa.chunked_array(rows.images, pa.large_binary())  # the only copy in memory
    ids = _unique([f"{split}/{name}" for split, name in zip(splits, rows.names, strict=True)])
    labelled = [(index, label) for index, label in enumerate(rows.labels) if label is not None]
    if not labelled:
        raise UsageError(f"{path}: no row has a label in the column '{rows.columns[1]}'")
    classes, numbers = numbered([label for _, label in labelled], list(rows.declared), path)
    kept = np.array([index for index, _ in labelled])
    by = " and ".join(said.columns) or "the files' names"
    how = f"{rows.columns[0]} is the image, {rows.columns[1]} the class, {by} the split"
    return Listing(
        name=path.resolve().stem,
        classes=classes,
        ids=tuple(ids[index] for index in kept),
        labels=np.array(numbers, dtype=np.int64),
        splits=np.array(splits)[kept],
        images=ReadImages(lambda index: images[int(kept[index])].as_py() or b""),
        ignored=tuple((ids[index], "has no label") for index, label in enumerate(rows.labels) if label is None),
        groups=grouped([rows.others[fold][index] for index in kept]) if fold else None,
        layout=f"{how}, {fold} the group" if fold else how,
    )


def _read(files: Sequence[Path], reading: Reading) -> _Rows:
    """Read the rows of all files; the first one decides which columns are read.

    Raises:
        UsageError: if a file cannot be read or lacks a column.
    """
    import pyarrow as pa

    rows: _Rows | None = None
    for file in files:
        schema = checked(file).schema_arrow
        if rows is None:
            columns = image_and_label(schema, file, reading)
            rows = _Rows([], [], [], [], {name: [] for name in telling_columns(schema, file, columns)}, {}, columns)
        if missing := [column for column in rows.columns if column not in schema.names]:
            raise UsageError(f"{file}: lacks the column '{missing[0]}' that {files[0].name} has")
        there = [name for name in rows.others if name in schema.names]
        wanted = list(dict.fromkeys([*rows.columns, *there]))
        parts = list(batches(file, wanted))
        table = pa.Table.from_batches(parts, None if parts else pa.schema([schema.field(name) for name in wanted]))
        chunks, inner = contents(table.column(rows.columns[0]), rows.columns[0], file)
        rows.images.extend(chunks)
        rows.names.extend(plain(str(name or index)) for index, name in enumerate(inner))
        label = rows.columns[1]
        declared = declared_names(schema, label, file)
        rows.labels.extend(label_names(table.column(label).to_pylist(), declared, label, file))
        rows.declared.update(dict.fromkeys(declared))
        rows.files.extend([file] * len(table))
        for name, values in rows.others.items():
            own = table.column(name).to_pylist() if name in there else [""] * len(table)
            values.extend("" if value is None else str(value) for value in own)
    return rows or _Rows([], [], [], [], {}, {}, ("", ""))


def _splits_of(files: Sequence[Path], root: Path) -> dict[Path, Split]:
    """Read the split from the name of each file (`train-00000-of-00006.parquet`, `x-test.parquet`), or of its folders.

    Raises:
        UsageError: if the files lie in folders that are no splits: those of several data sets.
    """
    result: dict[Path, Split] = {}
    homes: set[str] = set()
    stems = split_names(file.stem for file in files)
    for file in files:
        above = [] if file == root else list(file.relative_to(root).parts[:-1])
        stem = stems.get(file.stem)
        result[file] = stem.split if stem is not None else split_of_path(above) or "train"
        homes.add("/".join(part for part in above if split_name(part) is None))
    if len(homes) > 1:
        raise UsageError(f"{root}: holds several data sets ({listed(sorted(homes), 3)}); name one of the folders as the source")
    return result


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique by numbering the repeated ones."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(result)
