"""A file of equally shaped rows that is filled little by little and shared between runs: decoded images, features.

Rows are keyed by sample, the file by the content of everything that determines its rows. A row is valid once its mark is
set, and marks are written only after the rows are on the disk; a crash loses work, never correctness. Rows are written with
`pwritev`, since a full disk must raise an error rather than a bus error, and read through a memory map.
"""

import mmap
import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, final

import numpy as np
import numpy.typing as npt
from filelock import FileLock, Timeout

from thawlab import progress
from thawlab.data.types import Indices
from thawlab.errors import ThawlabError

# After this many bytes were taken from a map, its pages are given back; the system maps several times as many around them.
_GIVEN_BACK = 8 * 2**20
# Seconds after which a wait for another process is worth a line.
_PATIENCE = 1.0
_MARKS = "marks.bin"
# Rows that one call of the system writes, which takes at most 1,024.
_AT_ONCE = 512


@final
class _Mapped(np.memmap[Any, Any]):
    """A memory map that does not fill the memory: what was taken is given back from time to time.

    The pages stay in the system's own cache as long as there is room, so that taking them again costs little.
    """

    _taken_bytes = 0

    def take(self, indices: Any, axis: Any = None, out: Any = None, mode: Any = "raise") -> Any:
        """Return some rows as an array of their own, as `numpy.take` does."""
        taken = np.asarray(super().take(indices, axis, out, mode))
        self._taken_bytes += taken.nbytes
        mapping: mmap.mmap | None = getattr(self, "_mmap", None)
        if self._taken_bytes > _GIVEN_BACK and mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
            mapping.madvise(mmap.MADV_DONTNEED)
            self._taken_bytes = 0
        return taken


def marks_in(folder: Path, rows: int) -> npt.NDArray[np.bool_]:
    """Return which rows of the store in a folder are valid; none where there is no store of so many rows."""
    with suppress(FileNotFoundError, NotADirectoryError):
        marks = np.fromfile(folder / _MARKS, dtype=np.bool_)
        if len(marks) == rows:
            return marks
    return np.zeros(rows, dtype=np.bool_)


@final
class RowStore:
    """Rows on disk, one per sample, all of one shape and type; the folder is made if needed."""

    def __init__(self, folder: Path, rows: int, shape: tuple[int, ...], dtype: npt.DTypeLike) -> None:
        self.folder, self.rows, self.shape, self.dtype = folder, rows, shape, np.dtype(dtype)
        self._data_file, self._mark_file = folder / "rows.bin", folder / _MARKS
        self._row_bytes = int(np.prod(shape, dtype=np.int64)) * self.dtype.itemsize
        with self._refusing():
            folder.mkdir(parents=True, exist_ok=True)
            with self._data_file.open("ab") as file:
                if file.tell() != rows * self._row_bytes:  # new, or damaged from outside: then no mark holds
                    self._mark_file.unlink(missing_ok=True)
                file.truncate(rows * self._row_bytes)  # sparse: unwritten rows take no room

    @contextmanager
    def _refusing(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise ThawlabError(
                f"{self.folder}: the cache cannot be written: {error.strerror}; free some space, or choose another place with "
                "--cache-dir"
            ) from None

    def marks(self) -> npt.NDArray[np.bool_]:
        """Return which rows are valid."""
        return marks_in(self.folder, self.rows)

    def missing(self, indices: Indices) -> Indices:
        """Return those of the indices whose rows are not there yet."""
        return indices[~self.marks()[indices]]

    @contextmanager
    def filling(self) -> Iterator[None]:
        """Hold the store's lock, so that two processes do not compute the same rows; the system frees a dead one's."""
        lock = FileLock(self.folder / ".lock")
        with self._refusing():
            try:
                lock.acquire(timeout=_PATIENCE)
            except Timeout:
                progress.say(f"waiting for another process that is filling {self.folder}")
                lock.acquire()
        try:
            yield
        finally:
            lock.release()

    def write(self, indices: Indices, rows: Iterable[npt.NDArray[Any]]) -> None:
        """Write rows, an array of them or one by one; they count only after `commit`.

        Raises:
            ThawlabError: if the disk does not take them.
        """
        with self._refusing(), self._data_file.open("r+b", buffering=0) as file:
            together: list[memoryview] = []
            end = 0
            for index, row in zip(indices.tolist(), rows, strict=True):
                if together and (index != end or len(together) == _AT_ONCE):
                    self._put(file.fileno(), together, end)
                    together = []
                # Reshaped, so that nothing is ever written into the next row.
                together.append(np.ascontiguousarray(row, dtype=self.dtype).reshape(self.shape).data.cast("B"))
                end = index + 1
            if together:
                self._put(file.fileno(), together, end)

    def _put(self, file: int, rows: list[memoryview], end: int) -> None:
        """Write neighbouring rows, of which the last one is the one before `end`."""
        offset = (end - len(rows)) * self._row_bytes
        written = os.pwritev(file, rows, offset)
        while written < len(rows) * self._row_bytes:  # a nearly full disk takes a part, and refuses the next
            whole, part = divmod(written, self._row_bytes)
            written += os.pwritev(file, [rows[whole][part:], *rows[whole + 1 :]], offset + written)

    def commit(self, indices: Indices) -> None:
        """Make rows that were written valid, after syncing them to the disk."""
        temporary = self.folder / f".marks.{os.getpid()}.tmp"
        marks = self.marks()
        marks[indices] = True
        with self._refusing():
            with self._data_file.open("rb") as file:
                os.fsync(file.fileno())
            temporary.write_bytes(marks.tobytes())
            temporary.replace(self._mark_file)

    def array(self) -> npt.NDArray[Any]:
        """Return all rows as a memory map, `rows` × `shape`; nothing may be written to it."""
        return _Mapped(self._data_file, dtype=self.dtype, mode="r", shape=(self.rows, *self.shape))
