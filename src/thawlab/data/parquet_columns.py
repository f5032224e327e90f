"""The columns of Parquet files: which holds the images, which the classes, and what else they say."""

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from thawlab.data.formats import looks_like_image
from thawlab.data.layout import natural, plain_spelling
from thawlab.data.listing import Reading
from thawlab.data.manifest import UNLABELLED, chosen_column
from thawlab.data.parquet_reading import batches, checked
from thawlab.errors import UsageError, listed

_LABEL_COLUMNS = ("label", "class", "category", "target", "class_name", "fine_label", "labels")
_IMAGE_COLUMNS = ("image", "img", "picture", "photo", "images", "jpg", "png", "image_bytes", "bytes", "content", "data")
# A column of more different values than this says nothing of splits or folds; captions would fill the memory.
_MOST_VALUES = 40


def image_and_label(schema: Any, file: Path, reading: Reading) -> tuple[str, str]:
    """Return the columns of the images and of the labels.

    Raises:
        UsageError: if there is none, or several could be the images.
    """
    image = image_column(schema, file, reading, file, "Write data.path_column=NAME")
    return image, chosen_column([n for n in schema.names if n != image], reading.label_column, _LABEL_COLUMNS, "label", file)


def image_column(schema: Any, file: Path | str, reading: Reading, content: Path | BinaryIO, cure: str) -> str:
    """Return the column of the images.

    Args:
        schema: of the file.
        file: its name, for messages.
        reading: what its owner says of it.
        content: the file, to look into.
        cure: what to do where several could be it, for messages.

    Raises:
        UsageError: if there is none, or several could be it.
    """
    structs, plain = _columns_of_bytes(schema)
    called = [name for name in plain if name.lower() in _IMAGE_COLUMNS]
    candidates = [*structs, *called] or [name for name in plain if _holds_images(content, name)]
    if reading.path_column is not None:
        image = chosen_column(schema.names, reading.path_column, (), "path", file)
        if image not in {*structs, *plain}:
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
            raise UsageError(f"{file}: which column holds the images, {listed(candidates)}? {cure}")
        image = found[0]
    return image


def _columns_of_bytes(schema: Any) -> tuple[list[str], list[str]]:
    """Return the columns of structs with bytes, as Hugging Face writes images, and those of plain bytes."""
    import pyarrow as pa

    structs = [f.name for f in schema if pa.types.is_struct(f.type) and "bytes" in {inner.name for inner in f.type}]
    return structs, [f.name for f in schema if pa.types.is_binary(f.type) or pa.types.is_large_binary(f.type)]


def _holds_images(file: Path | BinaryIO, column: str) -> bool:
    """Return whether the first value of a column of bytes starts like an image; hashes and embeddings are bytes, too."""
    for batch in batches(file, [column], 16):
        return any(looks_like_image(value) for value in batch.column(0).to_pylist() if value)
    return False


def has_images(file: Path) -> bool:
    """Return whether a Parquet file has a column of encoded images."""
    try:
        structs, plain = _columns_of_bytes(checked(file).schema_arrow)
        return bool(structs) or any(_holds_images(file, name) for name in plain)
    except UsageError:
        return True  # what cannot be read is refused where it is read


def telling_columns(schema: Any, file: Path, others: Sequence[str]) -> list[str]:
    """Return the columns beside image and label that may say splits or folds: texts, flags and numbers of few values."""
    import pyarrow as pa

    def may_tell(kind: Any) -> bool:
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        return bool(
            pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_boolean(kind) or pa.types.is_integer(kind)
        )

    names = [field.name for field in schema if field.name not in others and may_tell(field.type)]
    for batch in batches(file, names, 4096):
        return [name for name in names if len(set(batch.column(name).to_pylist())) <= _MOST_VALUES]
    return []


def contents(column: Any, name: str, file: Path) -> tuple[list[Any], list[str | None]]:
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


def declared_names(schema: Any, column: str, file: Path) -> list[str]:
    """Return the class names that Hugging Face's metadata in a file declare, in their order; none where there are none.

    Raises:
        UsageError: if the metadata are damaged.
    """
    try:
        metadata = json.loads((schema.metadata or {}).get(b"huggingface", b"{}"))
        return [str(name) for name in metadata.get("info", {}).get("features", {}).get(column, {}).get("names") or ()]
    except (ValueError, AttributeError, TypeError, RecursionError):
        raise UsageError(f"{file}: its 'huggingface' metadata is damaged, so that the class names cannot be read") from None


def label_names(values: Sequence[Any], names: Sequence[str], column: str, file: Path) -> list[str | int | None]:
    """Return what a file's labels stand for: names, numbers, or None for no label; numbers are names where these are declared.

    Raises:
        UsageError: if a number has no name, or a label is neither number nor name.
    """
    result: list[str | int | None] = []
    for value in values:
        label = int(value) if isinstance(value, float) and value.is_integer() else value
        if _is_unlabelled(label):
            result.append(None)
        elif isinstance(label, str):
            result.append(plain_spelling(label))
        elif isinstance(label, bool) or not isinstance(label, int):
            raise UsageError(f"{file}: the column '{column}' must hold class numbers or class names")
        elif names and not 0 <= label < len(names):
            raise UsageError(f"{file}: the label {label} has no name among the {len(names)} classes of the metadata")
        else:
            result.append(names[label] if names else label)
    return result


def numbered(labels: Sequence[str | int], declared: Sequence[str], path: Path) -> tuple[tuple[str, ...], list[int]]:
    """Return class names and numeric labels, in the declared order, or else in their natural one.

    Raises:
        UsageError: if some labels are numbers and others names.
    """
    if len({isinstance(label, str) for label in labels}) > 1:
        raise UsageError(f"{path}: some of its files hold class numbers, others class names; write them alike")
    known: Mapping[Any, None] = dict.fromkeys(declared if declared and isinstance(labels[0], str) else ())
    rest = sorted(set(labels) - known.keys(), key=lambda label: natural(label) if isinstance(label, str) else label)
    number_of = {label: number for number, label in enumerate([*known, *rest])}
    return tuple(map(str, number_of)), [number_of[label] for label in labels]


def _is_unlabelled(label: Any) -> bool:
    """Return whether a label stands for none: absent, blank, not a number, or -1 as in the hidden labels of a challenge."""
    return (
        label is None
        or label == -1
        or (isinstance(label, float) and math.isnan(label))
        or (isinstance(label, str) and label.strip().lower() in UNLABELLED)
    )
