"""The index of shards: what each tar file must be, and where in it each image lies, with its label, split and digest."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
import numpy.typing as npt
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from thawlab.data.names import Digests, Names
from thawlab.data.types import Indices, Labels, Shards
from thawlab.errors import UsageError, first_line
from thawlab.files import sha256_of

if TYPE_CHECKING:
    import pyarrow as pa
    import pyarrow.parquet as pq

INDEX, ROWS = "index.json", "index.parquet"
FORMAT = "thawlab shards 1"
_NO_GROUP = -1
# Rows of the table that are read at a time.
_AT_ONCE = 1 << 16
_SPLITS = ("train", "val", "test")


class Shard(BaseModel):
    """A tar file of images.

    Attributes:
        name: of the file, beside the index.
        bytes: its size.
        sha256: of its content, in hexadecimal.
        images: in it.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[\w-]+\.tar$")
    bytes: int = Field(ge=0)
    sha256: str = Field(pattern=r"^[0-9a-f]{64}$")
    images: int = Field(ge=0)


class ShardIndex(BaseModel):
    """What `index.json` says of all shards together.

    Attributes:
        format: of the index.
        name: of the data.
        classes: class names; a label is an index into them.
        shards: in the order of their images.
        rows_sha256: of the table of images, `index.parquet`.
        checked_by: what found out which images can be decoded.
        layout: how the source was read.
        notes: what else its owner should know of it.
        ignored: files of the source that are no images of a class, with the reason.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    format: str
    name: str
    classes: tuple[str, ...]
    shards: tuple[Shard, ...]
    rows_sha256: str
    checked_by: str
    layout: str = ""
    notes: tuple[str, ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()


class Rows(NamedTuple):
    """What the index says of each image, in the order in which they lie in the shards.

    Attributes:
        ids: of the source.
        labels: int64.
        splits: "train", "val" or "test".
        groups: equal for images that belong together; None where each stands for itself.
        shards: the number of the shard, int32.
        offsets: of the first byte within the shard.
        sizes: in bytes.
        digests: of the content.
        reasons: by index, why an image cannot be decoded.
    """

    ids: Names
    labels: Labels
    splits: npt.NDArray[np.str_]
    groups: Indices | None
    shards: Shards
    offsets: Indices
    sizes: npt.NDArray[np.int32]
    digests: Digests
    reasons: dict[int, str]


def why_unfit(shard: Shard, size: int | None) -> str | None:
    """Return what is wrong with a shard that has `size` bytes, or None where it is missing; None where it has all of them."""
    if size is None:
        return "is missing, and the index names it"
    return None if size == shard.bytes else f"has {size:,} bytes where the index says {shard.bytes:,}: it was cut or changed"


def is_index(content: bytes) -> bool:
    """Return whether a file called `index.json` is an index of shards: among images may lie any file of that name."""
    try:
        value = json.loads(content)
    except ValueError:
        return False
    return isinstance(value, dict) and str(value.get("format", "")).startswith("thawlab shards")


def parsed(content: bytes, place: str) -> ShardIndex:
    """Return what an `index.json` says.

    Raises:
        UsageError: if it is damaged, or of a later version.
    """
    try:
        index = ShardIndex.model_validate_json(content)
    except ValidationError as error:
        found = error.errors()[0]
        where = ".".join(map(str, found["loc"]))
        raise UsageError(f"{place}: is damaged: {where}: {found['msg']}; write the shards again") from None
    if index.format != FORMAT:
        raise UsageError(f"{place}: is written as '{index.format}', and this version of thawlab reads '{FORMAT}'; update it")
    return index


def table_of(
    ids: pa.Array, labels: Labels, splits: npt.NDArray[np.str_], groups: Indices | None, places: Places, reasons: dict[int, str]
) -> bytes:
    """Return the table of images as a Parquet file."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.table(
        {
            "id": ids,
            "label": pa.array(labels, pa.int32()),
            "split": pa.array(splits).dictionary_encode(),
            "group": pa.array(np.full(len(labels), _NO_GROUP) if groups is None else groups, pa.int64()),
            "shard": pa.array(places.shards, pa.int32()),
            "offset": pa.array(places.offsets, pa.int64()),
            "size": pa.array(places.sizes, pa.int64()),
            "digest": pa.FixedSizeBinaryArray.from_buffers(
                pa.binary(32), len(labels), [None, pa.py_buffer(np.ascontiguousarray(places.digests))]
            ),
            "reason": pa.array([reasons.get(index) for index in range(len(labels))], pa.string()),
        }
    )
    file = io.BytesIO()
    pq.write_table(table, file, compression="zstd", row_group_size=_AT_ONCE)
    return file.getvalue()


class Places(NamedTuple):
    """Where images lie, one value each, and what they are: shard, offset, size, and digest (uint8, n × 32)."""

    shards: Shards
    offsets: Indices
    sizes: npt.NDArray[np.int32]
    digests: npt.NDArray[np.uint8]


def rows_of(index: ShardIndex, path: Path, place: str) -> Rows:
    """Return the table of images, checked against the index.

    Args:
        index: that names the table.
        path: of the table.
        place: where it lies for its owner, for messages.

    Raises:
        UsageError: if it is damaged, belongs to another index, or names an image twice.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if sha256_of(path) != index.rows_sha256:
        raise UsageError(f"{place}: is not the table that {INDEX} was written with; fetch both again, or write the shards again")
    try:
        with pq.ParquetFile(path, pre_buffer=False, buffer_size=1 << 16) as table:
            rows = Rows(
                Names(pa.concat_arrays([part for _, part in _portions(table, "id")] or [pa.array([], pa.string())])),
                _numbers(table, "label"),
                _words(table, "split"),
                _numbers(table, "group"),
                _numbers(table, "shard", np.int32),
                _numbers(table, "offset"),
                _numbers(table, "size", np.int32),
                _digests(table),
                _reasons(table),
            )
    except (pa.ArrowException, OSError, KeyError, ValueError, AttributeError) as error:
        raise UsageError(f"{place}: cannot be read as a table of images: {first_line(error)}") from None
    _check(index, rows, place)
    return rows if rows.groups is not None and (rows.groups != _NO_GROUP).any() else rows._replace(groups=None)


def _portions(table: pq.ParquetFile, name: str) -> Iterator[tuple[slice, pa.Array]]:
    """Yield a column portion by portion: whole, it would be in memory twice.

    Raises:
        ValueError: if a value is missing.
    """
    start = 0
    for batch in table.iter_batches(_AT_ONCE, columns=[name], use_threads=False):
        if batch.column(0).null_count and name != "reason":
            raise ValueError(f"a value of the column '{name}' is missing")
        yield slice(start, start + len(batch)), batch.column(0)
        start += len(batch)


def _numbers(table: pq.ParquetFile, name: str, kind: type[np.integer[Any]] = np.int64) -> npt.NDArray[Any]:
    """Return a column of numbers.

    Raises:
        ValueError: if one is missing or does not fit the type.
    """
    numbers, limits = np.empty(table.metadata.num_rows, dtype=kind), np.iinfo(kind)
    for place, part in _portions(table, name):
        values = part.to_numpy(zero_copy_only=False)
        if len(values) and not (limits.min <= values.min() and values.max() <= limits.max):
            raise ValueError(f"a number in the column '{name}' is too large")
        numbers[place] = values
    return numbers


def _words(table: pq.ParquetFile, name: str) -> npt.NDArray[np.str_]:
    """Return texts of at most five letters."""
    words = np.empty(table.metadata.num_rows, dtype="<U5")
    for place, part in _portions(table, name):
        numbered = part.dictionary_encode()
        words[place] = np.array(numbered.dictionary.to_pylist() or [""], dtype=np.str_)[numbered.indices.to_numpy()]
    return words


def _digests(table: pq.ParquetFile) -> Digests:
    import pyarrow as pa

    rows = np.empty((table.metadata.num_rows, 32), dtype=np.uint8)
    for place, part in _portions(table, "digest"):
        fixed = part.cast(pa.binary(32))
        rows[place] = np.frombuffer(fixed.buffers()[1], np.uint8, 32 * len(fixed), 32 * fixed.offset).reshape(-1, 32)
    return Digests(rows)


def _reasons(table: pq.ParquetFile) -> dict[int, str]:
    found = {}
    for place, part in _portions(table, "reason"):
        for index in np.flatnonzero(part.is_valid().to_numpy(zero_copy_only=False)).tolist():
            found[place.start + index] = str(part[index].as_py())
    return found


def _repeated(names: Names) -> str | None:
    """Return a name that occurs twice; found by numbers first, since a table of all names would take gigabytes."""
    marks = np.fromiter(map(hash, names), dtype=np.int64, count=len(names))
    order = np.sort(marks)
    again = order[1:][order[1:] == order[:-1]]
    seen: set[str] = set()
    for index in np.flatnonzero(np.isin(marks, again)).tolist() if len(again) else ():
        if names[index] in seen:
            return names[index]
        seen.add(names[index])
    return None


def _check(index: ShardIndex, rows: Rows, place: str) -> None:
    if len(rows.shards) and not (rows.shards.min() >= 0 and rows.shards.max() < len(index.shards)):
        raise UsageError(f"{place}: names a shard that {INDEX} does not; write the shards again")
    counts = np.bincount(rows.shards, minlength=len(index.shards)) if len(rows.shards) else np.zeros(len(index.shards), int)
    sizes = np.array([shard.bytes for shard in index.shards], dtype=np.int64)
    wrong = ""
    if not len(rows.labels):
        wrong = "names no image"
    elif counts.tolist() != [shard.images for shard in index.shards]:
        wrong = "counts the images of the shards otherwise than " + INDEX
    elif not (rows.labels.min() >= 0 and rows.labels.max() < len(index.classes)):
        wrong = "has a label that is no class"
    elif not set(np.unique(rows.splits).tolist()) <= set(_SPLITS):
        wrong = f"has a split that is none of {', '.join(_SPLITS)}"
    elif (rows.offsets < 0).any() or (rows.sizes < 0).any() or (rows.offsets + rows.sizes > sizes[rows.shards]).any():
        wrong = "has an image that ends behind its shard"
    elif (twice := _repeated(rows.ids)) is not None:
        wrong = f"names the image '{twice}' twice"
    if wrong:
        raise UsageError(f"{place}: {wrong}; write the shards again")
