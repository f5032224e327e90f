"""Parquet files, read a few rows at a time: what a dictionary or a run of a few bytes stands for may be of any size."""

from collections.abc import Iterator, Sequence
from contextlib import nullcontext
from io import SEEK_END
from pathlib import Path
from typing import Any, BinaryIO

from thawlab.data.unpacking import BombError, Room
from thawlab.errors import UsageError, first_line

# Of a file's description; a million columns have more.
_MOST_FOOTER = 1 << 25
# Rows beyond one per byte of the file, bytes that are unpacked at once, and how
# many times its size a file may claim to unpack to beyond them.
_FREE_ROWS, _AT_ONCE, _MOST_TIMES = 1_000_000, 1 << 26, 100


def damaged() -> tuple[type[Exception], ...]:
    """Return what reading a Parquet file raises that is none."""
    import pyarrow as pa

    return (pa.ArrowException, OSError, ValueError, LookupError, OverflowError, MemoryError, BombError)


def checked(file: Path | BinaryIO) -> Any:
    """Open a Parquet file, or one that is open already: of a storage, say.

    Raises:
        UsageError: if it cannot be read, or says that it holds far more than it can.
    """
    import pyarrow.parquet as pq

    size = _size(file)
    try:
        with file.open("rb") if isinstance(file, Path) else nullcontext(file) as content:
            content.seek(max(0, size - 8))
            footer = int.from_bytes(content.read(4), "little")
        if footer > min(_MOST_FOOTER, size):
            raise ValueError(f"its description has {footer / 1e6:,.0f} MB")
        opened = pq.ParquetFile(file)
        rows = opened.metadata.num_rows
        if not 0 <= rows <= size + _FREE_ROWS:
            raise ValueError(f"it says that it holds {rows:,} rows")
    except damaged() as error:
        raise UsageError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None
    return opened


def _size(file: Path | BinaryIO) -> int:
    return file.stat().st_size if isinstance(file, Path) else file.seek(0, SEEK_END)


def batches(file: Path | BinaryIO, columns: Sequence[str], most: int = 1024) -> Iterator[Any]:
    """Yield some columns of a file, a few rows at a time, at most so many.

    Raises:
        UsageError: if it cannot be read, or unpacks to far more than it is.
    """
    size = _size(file)
    opened, room = checked(file), Room(size)
    try:
        for batch in opened.iter_batches(_rows_at_once(opened.metadata, size, most), columns=list(columns)):
            room.take(batch.nbytes)
            yield batch
    except damaged() as error:
        raise UsageError(f"{file}: cannot be read as Parquet: {first_line(error)}") from None


def _rows_at_once(metadata: Any, size: int, most: int) -> int:
    """Return how many rows fit if each holds all that a dictionary of its group can.

    Only sums are asked for: of a damaged description the figures of a single column may end the process, not raise an error.

    Raises:
        ValueError: if a group of rows is far larger than the file.
    """
    largest: int = max([1, *(metadata.row_group(group).total_byte_size for group in range(metadata.num_row_groups))])
    if largest > _AT_ONCE and largest > _MOST_TIMES * size:
        raise ValueError(f"it unpacks to {largest / 1e6:,.0f} MB, over {_MOST_TIMES} times what it is")
    return max(1, min(most, _AT_ONCE // largest))
