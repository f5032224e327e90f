"""Files by path or URL, read in pieces: what a network does wrong is tried again, and never taken for the end of a file."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, NamedTuple, TypeVar, cast, final

from thawlab.data.remote import is_remote, version_mark
from thawlab.errors import ThawlabError, UsageError, first_line
from thawlab.patience import tried_again

T = TypeVar("T")
_PAUSES = (0.5, 2.0, 8.0)  # seconds before each further try
_PIECE = 4 << 20  # bytes that are asked for at a time where a file is read from front to back
# What another try does not change.
_LASTING = (FileNotFoundError, PermissionError, IsADirectoryError, NotADirectoryError, ImportError, UsageError)


class UnreachedError(ThawlabError):
    """A place that could not be read just now, or not from here: this says nothing about what is in it."""


class Entry(NamedTuple):
    """A file as a storage lists it: where it is, its bytes (-1 where that is not said), and what tells its version."""

    path: str
    size: int
    mark: str


@final
class Place:
    """A file or a folder that fsspec reads, or a local one, which needs nothing more.

    Args:
        address: a path, or an address such as s3://bucket/photos.

    Raises:
        UsageError: if nothing installed reads such addresses.
        UnreachedError: if the storage refuses to be opened.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self.local = Path(address.removeprefix("file://")) if address.startswith("file://") or not is_remote(address) else None
        if self.local is None:
            import fsspec

            try:
                self._storage, self.path = fsspec.url_to_fs(address)
            except (ImportError, ValueError) as error:
                hint = "; pip install 'thawlab[remote]'" if isinstance(error, ImportError) else ""
                raise UsageError(f"{address}: cannot be read here: {first_line(error)}{hint}") from None
            except Exception as error:
                raise UnreachedError(f"{address}: cannot be reached: {_reason(error)}") from None

    def url(self, path: str) -> str:
        """Return the address of a file of the same storage."""
        return cast(str, self._storage.unstrip_protocol(path))

    def entry(self) -> Entry | None:
        """Return this place as a file; None if it is a folder or there is nothing.

        Raises:
            UnreachedError: if the storage does not answer.
        """

        def look() -> Entry | None:
            self._storage.invalidate_cache()  # what was listed before may have changed
            try:
                info = self._storage.info(self.path)
            except FileNotFoundError:
                return None
            return entry_of(info) if info["type"] == "file" else None

        return tried(look, self.address)

    def files(self) -> list[Entry]:
        """Return all files below this folder, or those that match its wildcards; none if there is no such folder.

        Raises:
            UnreachedError: if the storage does not answer.
        """

        def look() -> list[Entry]:
            try:
                found = (self._storage.glob if "*" in self.path else self._storage.find)(self.path, detail=True)
            except FileNotFoundError:
                return []
            return [entry_of(info) for info in found.values() if info["type"] == "file"]

        return tried(look, self.address)

    def read(self, name: str = "", start: int | None = None, end: int | None = None) -> bytes:
        """Return a file, this one or one below this folder, or a piece of it.

        Raises:
            OSError: if a local file cannot be read.
            UnreachedError: if a storage does not give it, or gives less than was asked for.
        """
        if self.local is not None:
            with (self.local / name).open("rb") as file:
                file.seek(start or 0)
                return file.read(-1 if end is None else end - (start or 0))
        path = f"{self.path.rstrip('/')}/{name}" if name else self.path
        return tried(lambda: cast(bytes, self._storage.cat_file(path, start=start, end=end)), self.url(path))

    def open(self, size: int) -> BinaryIO:
        """Open this file, of that many bytes, to be read at any position; a few MiB of it are held at a time.

        Raises:
            OSError: if a local file cannot be read.
        """
        if self.local is not None:
            return self.local.open("rb")
        return io.BufferedReader(_Pieces(self, size), _PIECE)


@final
class _Pieces(io.RawIOBase):
    """A remote file as a raw stream; every piece is whole, or an error."""

    def __init__(self, place: Place, size: int) -> None:
        super().__init__()
        self._place, self._size, self._at = place, size, 0
        self._whole: bytes | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._at = offset + (0, self._at, self._size)[whence]
        return self._at

    def readinto(self, buffer: Any) -> int:
        wanted = max(0, min(len(buffer), self._size - self._at))
        if wanted:
            buffer[:wanted] = self._piece(self._at, self._at + wanted)
        self._at += wanted
        return wanted

    def _piece(self, start: int, end: int) -> bytes:
        if self._whole is not None:
            return self._whole[start:end]

        def ask() -> bytes:
            got = self._place.read("", start, end)
            if len(got) == self._size > end - start:  # a server that knows no pieces answers with the whole file
                self._whole = got
                return got[start:end]
            if len(got) != end - start:
                raise OSError(f"{len(got):,} bytes came where {end - start:,} were asked for")
            return got

        return tried(ask, self._place.address)


def tried(work: Callable[[], T], name: str) -> T:
    """Do something with a storage, and again after a while where it fails.

    Raises:
        UnreachedError: if it fails every time, or no further try would help.
    """
    try:
        return tried_again(work, _PAUSES, lambda error, _: not _is_lasting(error))
    except UnreachedError:
        raise
    except Exception as error:  # each storage has errors of its own
        tries = "" if _is_lasting(error) else f", tried {len(_PAUSES) + 1} times"
        raise UnreachedError(f"{name}: cannot be read{tries}: {_reason(error)}") from None


def _is_lasting(error: Exception) -> bool:
    return isinstance(error, (*_LASTING, UnreachedError)) or "Credentials" in type(error).__name__


def _reason(error: Exception) -> str:
    said = first_line(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError) or "Credentials" in type(error).__name__:
        return f"the storage lets nobody in with these credentials ({said})"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    return said if said != type(error).__name__ else f"it failed with {said}"


def entry_of(info: dict[str, Any]) -> Entry:
    """Return a file from what fsspec says of it."""
    size = info.get("size")
    return Entry(info["name"], -1 if size is None else int(size), version_mark(info))
