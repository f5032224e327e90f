"""Sources in Parquet files as Hugging Face's data sets write them: encoded images and class labels."""

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thawlab.data.csv_table import pick_column
from thawlab.data.images import ReadImages
from thawlab.data.layout import SPLIT_NAMES
from thawlab.data.listing import Listing
from thawlab.data.openers import openers
from thawlab.errors import UsageError, first_line, listed

_LABEL_COLUMNS = ("label", "class", "category", "target", "class_name", "fine_label", "labels")


def parquet_files(folder: Path) -> list[Path]:
    """Return the Parquet files of a folder, or of the folder `data` in it, sorted."""
    return sorted(folder.glob("*.parquet")) or sorted(folder.glob("data/*.parquet"))


def _split_of_file(file: Path) -> str:
    """Read the split from a file's name as Hugging Face's data sets write it (`train-00000-of-00006.parquet`)."""
    return SPLIT_NAMES.get(re.split("[-_]", file.stem)[0].lower(), "train")


@openers.register(".parquet")
def open_parquet(path: Path) -> Listing:
    """List Parquet files with a column of encoded images and one of class labels."""
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.parquet as pq

    files = [path] if path.is_file() else parquet_files(path)
    tables, splits = [], []
    for file in files:
        try:
            tables.append(pq.read_table(file))
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
        splits.extend([_split_of_file(file)] * tables[-1].num_rows)
    if not splits:
        raise UsageError(f"{path}: holds no images; its Parquet files have no rows")
    schema = tables[0].schema
    image_column, label_column = _parquet_columns(schema, files[0])
    chunks: list[Any] = []
    names: list[str] = []
    labels: list[Any] = []
    for file, table in zip(files, tables, strict=True):
        if image_column not in table.column_names or label_column not in table.column_names:
            raise UsageError(f"{file}: lacks the columns '{image_column}' and '{label_column}' that {files[0].name} has")
        column = table.column(image_column)
        chunks.extend(pc.struct_field(column, "bytes").cast(pa.large_binary()).chunks)
        has_names = "path" in {f.name for f in column.type}
        inner = pc.struct_field(column, "path").to_pylist() if has_names else [None] * len(column)
        names.extend(f"{_split_of_file(file)}/{name or index}" for index, name in enumerate(inner))
        labels.extend(table.column(label_column).to_pylist())
    images = pa.chunked_array(chunks, pa.large_binary())  # the only copy in memory
    classes, numbers = _parquet_classes(schema, label_column, labels, path)
    return Listing(
        name=path.resolve().stem,
        classes=classes,
        ids=_unique(names),
        labels=np.array(numbers, dtype=np.int64),
        splits=np.array(splits),
        images=ReadImages(lambda index: images[index].as_py() or b""),
    )


def _parquet_columns(schema: Any, file: Path) -> tuple[str, str]:
    import pyarrow as pa

    structs = [f.name for f in schema if pa.types.is_struct(f.type) and "bytes" in {inner.name for inner in f.type}]
    if not structs:
        raise UsageError(f"{file}: has no column of encoded images (a struct with 'bytes'); its columns: {listed(schema.names)}")
    label = pick_column([name for name in schema.names if name not in structs], _LABEL_COLUMNS)
    if label is None:
        raise UsageError(f"{file}: has no 'label' column; its columns: {listed(schema.names)}")
    return structs[0], label


def _parquet_classes(schema: Any, column: str, labels: list[Any], path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return class names and numeric labels; the names come from Hugging Face's metadata where it is there."""
    if any(label is None for label in labels):
        raise UsageError(f"{path}: row {labels.index(None)} has no label")
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    except (ValueError, AttributeError):
        raise UsageError(f"{path}: its 'huggingface' metadata is damaged, so that the class names cannot be read") from None
    if all(isinstance(label, str) for label in labels):
        classes = tuple(sorted(set(labels)))
        number_of = {name: index for index, name in enumerate(classes)}
        return classes, [number_of[label] for label in labels]
    if not all(isinstance(label, int) and label >= 0 for label in labels):
        raise UsageError(f"{path}: the column '{column}' must hold class numbers or class names")
    count = len(names) if names else max(labels) + 1
    if max(labels) >= count:
        raise UsageError(f"{path}: the label {max(labels)} has no name among the {count} classes of the metadata")
    return tuple(names or map(str, range(count))), labels


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique by numbering the repeated ones."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(result)
