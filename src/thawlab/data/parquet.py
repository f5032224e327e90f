"""Sources in Parquet files as Hugging Face's data sets write them: encoded images and class labels."""

import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thawlab.data.folders import Walk, walk
from thawlab.data.formats import has_image_extension
from thawlab.data.images import ReadImages
from thawlab.data.layout import natural
from thawlab.data.listing import Listing, Reading
from thawlab.data.manifest import chosen_column
from thawlab.data.openers import openers
from thawlab.data.split_names import split_name
from thawlab.data.types import Split
from thawlab.errors import UsageError, first_line, listed

_LABEL_COLUMNS = ("label", "class", "category", "target", "class_name", "fine_label", "labels")
_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "images", "jpg", "png", "image_bytes", "bytes", "content", "data")


def parquet_files(folder: Path, found: Walk | None = None) -> list[Path]:
    """Return the Parquet files of a folder, or of the folders in it as hubs name them (`data/`, `default/train/`), sorted.

    None where images lie further down beside them: a table of further data among images is not what a source is read from.
    `found` is what lies below the folder, where that is known.
    """
    top = sorted(folder.glob("*.parquet"))
    if top:
        return top
    files = (found or walk(folder)).files if folder.is_dir() else []
    tables = [folder / path for path in files if path.lower().endswith(".parquet")]
    return [] if tables and any(has_image_extension(path) for path in files) else tables


@openers.register(".parquet")
def open_parquet(path: Path, reading: Reading) -> Listing:
    """List Parquet files with a column of encoded images and one of class labels."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    reading.refuse("layout", what="Parquet files")
    files = [path] if path.is_file() else parquet_files(path)
    splits_of = _splits_of(files, path)
    first: tuple[str, str] | None = None
    schema: Any = None
    chunks: list[Any] = []
    names: list[str] = []
    labels: list[Any] = []
    for file in files:
        try:
            own = pq.read_schema(file)
            if first is None:
                schema, first = own, _columns(own, file, reading)
            if missing := [column for column in first if column not in own.names]:
                raise UsageError(f"{file}: lacks the column '{missing[0]}' that {files[0].name} has")
            table = pq.read_table(file, columns=list(dict.fromkeys(first)))
        except (pa.ArrowException, OSError) as error:
            raise UsageError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
        contents, inner = _contents(table.column(first[0]), first[0], file)
        chunks.extend(contents)
        names.extend(f"{splits_of[file]}/{name or index}" for index, name in enumerate(inner))
        labels.extend(table.column(first[1]).to_pylist())
    if not labels or first is None:
        raise UsageError(f"{path}: holds no images; its Parquet files have no rows")
    images = pa.chunked_array(chunks, pa.large_binary())  # the only copy in memory
    labelled = [index for index, label in enumerate(labels) if not _is_unlabelled(label)]
    if not labelled:
        raise UsageError(f"{path}: no row has a label in the column '{first[1]}'")
    ids = _unique(names)
    classes, numbers = _classes(schema, first[1], [labels[index] for index in labelled], path)
    kept = np.array(labelled)
    return Listing(
        name=path.resolve().stem,
        classes=classes,
        ids=tuple(ids[index] for index in labelled),
        labels=np.array(numbers, dtype=np.int64),
        splits=np.array([names[index].partition("/")[0] for index in labelled]),
        images=ReadImages(lambda index: images[int(kept[index])].as_py() or b""),
        ignored=tuple((ids[index], "has no label") for index, label in enumerate(labels) if _is_unlabelled(label)),
        layout=f"{first[0]} is the image, {first[1]} the class, the files' names the split",
    )


def _splits_of(files: Sequence[Path], root: Path) -> dict[Path, Split]:
    """Read the split from the name of each file (`train-00000-of-00006.parquet`, `x-test.parquet`), or of its folders.

    Raises:
        UsageError: if the files lie in folders that are no splits: those of several data sets.
    """
    result: dict[Path, Split] = {}
    homes: set[str] = set()
    for file in files:
        above = [] if file == root else list(file.relative_to(root).parts[:-1])
        found = [name for part in (file.stem, *reversed(above)) if (name := split_name(part)) is not None]
        result[file] = found[0].split if found else "train"
        homes.add("/".join(part for part in above if split_name(part) is None))
    if len(homes) > 1:
        raise UsageError(f"{root}: holds several data sets ({listed(sorted(homes), 3)}); name one of the folders as the source")
    return result


def _columns(schema: Any, file: Path, reading: Reading) -> tuple[str, str]:
    """Return the columns of the images and of the labels.

    Raises:
        UsageError: if there is none, or several could be the images.
    """
    import pyarrow as pa

    def is_binary(kind: Any) -> bool:
        return bool(pa.types.is_binary(kind) or pa.types.is_large_binary(kind))

    structs = [f.name for f in schema if pa.types.is_struct(f.type) and "bytes" in {inner.name for inner in f.type}]
    candidates = structs or [f.name for f in schema if is_binary(f.type)]
    if reading.path_column is not None:
        image = chosen_column(schema.names, reading.path_column, (), "path", file)
        if image not in {*structs, *(f.name for f in schema if is_binary(f.type))}:
            raise UsageError(f"data.path_column: '{image}' of {file} holds no encoded images, but {schema.field(image).type}")
    elif not candidates:
        raise UsageError(
            f"{file}: has no column of encoded images (a struct with 'bytes', or bytes); its columns: {listed(schema.names)}; "
            "where one holds paths, give a CSV with the columns path and label instead"
        )
    else:
        lowered = {name.lower(): name for name in reversed(candidates)}
        found = candidates if len(candidates) == 1 else [lowered[name] for name in _IMAGE_COLUMNS if name in lowered][:1]
        if not found:
            raise UsageError(f"{file}: which column holds the images, {listed(candidates)}? Write data.path_column=NAME")
        image = found[0]
    return image, chosen_column([n for n in schema.names if n != image], reading.label_column, _LABEL_COLUMNS, "label", file)


def _contents(column: Any, name: str, file: Path) -> tuple[list[Any], list[str | None]]:
    """Return the encoded images of a column, in chunks, and their names where it has them.

    Raises:
        UsageError: if it holds paths and no images.
    """
    import pyarrow as pa
    import pyarrow.compute as pc

    if not pa.types.is_struct(column.type):
        return column.cast(pa.large_binary()).chunks, [None] * len(column)
    content = pc.struct_field(column, "bytes")
    inner = pc.struct_field(column, "path").to_pylist() if "path" in {f.name for f in column.type} else [None] * len(column)
    if len(column) and content.null_count == len(column):
        example = next((path for path in inner if path), None)
        raise UsageError(
            f"{file}: the column '{name}' holds no images{f', only paths such as {example!r}' if example else ''}; write the "
            "file again with the images in it, or give a CSV with the columns path and label"
        )
    return content.cast(pa.large_binary()).chunks, inner


def _is_unlabelled(label: Any) -> bool:
    """Return whether a label stands for none: absent, blank, not a number, or -1 as in the hidden labels of a challenge."""
    return (
        label is None
        or label == -1
        or (isinstance(label, float) and math.isnan(label))
        or (isinstance(label, str) and not label.strip())
    )


def _classes(schema: Any, column: str, labels: list[Any], path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return class names and numeric labels; the names come from Hugging Face's metadata where it is there."""
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        names = metadata.get("info", {}).get("features", {}).get(column, {}).get("names")
    except (ValueError, AttributeError):
        raise UsageError(f"{path}: its 'huggingface' metadata is damaged, so that the class names cannot be read") from None
    if all(isinstance(label, float) and label.is_integer() for label in labels):
        labels = [int(label) for label in labels]
    if not (all(isinstance(label, str) for label in labels) or all(isinstance(label, int) for label in labels)):
        raise UsageError(f"{path}: the column '{column}' must hold class numbers or class names")
    if names and isinstance(labels[0], int):
        if not 0 <= min(labels) <= max(labels) < len(names):
            wrong = next(label for label in labels if not 0 <= label < len(names))
            raise UsageError(f"{path}: the label {wrong} has no name among the {len(names)} classes of the metadata")
        return tuple(map(str, names)), labels
    known = sorted(set(labels), key=lambda label: natural(label) if isinstance(label, str) else label)
    number_of = {label: number for number, label in enumerate(known)}
    return tuple(map(str, known)), [number_of[label] for label in labels]


def _unique(names: Sequence[str]) -> tuple[str, ...]:
    """Make names unique by numbering the repeated ones."""
    seen: dict[str, int] = {}
    result = []
    for name in names:
        seen[name] = seen.get(name, 0) + 1
        result.append(name if seen[name] == 1 else f"{name}#{seen[name]}")
    return tuple(result)
