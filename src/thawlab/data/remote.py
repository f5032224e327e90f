"""Sources on other machines, read through fsspec (`s3://`, `gs://`, `https://`): with patience, and each byte once."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple, TypeVar

from thawlab import progress
from thawlab.errors import ThawlabError, UsageError, first_line
from thawlab.files import write_atomically
from thawlab.patience import tried_again

T = TypeVar("T")
_REMOTE = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
# Seconds before each further try; half a minute in all, in which a server that fell over is up again.
_PAUSES = (0.5, 1.0, 2.0, 4.0, 8.0, 16.0)
# A longer pause is worth a line.
_WORTH_SAYING = 1.0
# A file is fetched in pieces of this many bytes, so that a cut connection costs one of them.
_PIECE = 8 << 20
# What tells a version of a file from the next, by the names that storages have for it.
_MARKS = ("ETag", "etag", "md5Hash", "generation", "content_md5", "mtime", "LastModified", "last_modified", "created")
# Errors that no further try mends, by the names that the clouds' own libraries give them.
_ABSENT = {"FileNotFoundError", "NoSuchBucket", "NoSuchKey", "IsADirectoryError"}
_REFUSED = {"PermissionError", "NoCredentialsError", "PartialCredentialsError", "CredentialRetrievalError", "TokenRetrievalError"}
_REFUSED |= {"DefaultCredentialsError", "ProfileNotFound", "InvalidAccessKeyId", "SignatureDoesNotMatch"}


class Remote(NamedTuple):
    """A place that fsspec reads.

    Attributes:
        url: as the user wrote it.
        files: the file system.
        path: within it.
    """

    url: str
    files: Any
    path: str

    def child(self, name: str) -> Remote:
        """Return a file below this folder."""
        return Remote(f"{self.url.rstrip('/')}/{name}", self.files, f"{self.path.rstrip('/')}/{name}")


class RemoteFile(NamedTuple):
    """A file of a remote place: its name below the place, its size in bytes, and what changes when its content does."""

    name: str
    size: int
    mark: str


def is_remote(source: str) -> bool:
    """Return whether a source is an address of another machine."""
    return _REMOTE.match(source) is not None


def remote(url: str) -> Remote:
    """Return the place that an address names; nothing is asked of it yet.

    Raises:
        UsageError: if nothing installed reads such addresses.
    """
    import fsspec

    try:
        files, path = fsspec.core.url_to_fs(url)
    except ImportError as error:
        raise UsageError(
            f"data.source: {url}: {first_line(error)}; pip install 'thawlab[remote]' brings s3:// and https://, gcsfs brings gs://"
        ) from None
    except ValueError as error:
        raise UsageError(f"data.source: {url}: {first_line(error)}") from None
    return Remote(url, files, str(path))


def patiently_remote(work: Callable[[], T], what: str) -> T:
    """Ask something of another machine, again and again with longer pauses where it or the way to it fails.

    Raises:
        FileNotFoundError: if it is not there.
        UsageError: if the machine lets us not, which no further try changes.
        ThawlabError: if it still fails.
    """
    said = False

    def waits(error: Exception, pause: float) -> bool:
        nonlocal said
        if isinstance(error, ThawlabError | UsageError) or _kinds(error) & (_ABSENT | _REFUSED):
            return False
        if pause > _WORTH_SAYING and not said:
            progress.say(f"{what}: does not answer ({first_line(error)}); trying again for half a minute")
            said = True
        return True

    try:
        return tried_again(work, _PAUSES, waits)
    except (ThawlabError, UsageError):
        raise
    except Exception as error:  # the clouds' libraries share no base class
        kinds = _kinds(error)
        if kinds & _ABSENT:
            raise FileNotFoundError(what) from error
        if kinds & _REFUSED:
            raise UsageError(f"{what}: access is refused ({first_line(error)}); check the credentials of this machine") from None
        raise ThawlabError(
            f"{what}: could not be read in {len(_PAUSES) + 1} tries ({first_line(error)}); "
            "run the same command once it answers again"
        ) from None


def _kinds(error: Exception) -> set[str]:
    return {kind.__name__ for kind in type(error).__mro__}


def listed_files(place: Remote) -> list[RemoteFile]:
    """Return the files at a place, sorted: those below a folder, or the one that it is.

    Raises:
        UsageError: if nothing is there, or a name leads out of the place.
        ThawlabError: if the place does not answer.
    """

    def ask() -> list[RemoteFile]:
        place.files.invalidate_cache()
        if place.files.isfile(place.path):
            own = place.files.info(place.path)
            return [_described(PurePosixPath(place.path).name, own)]
        found = place.files.find(place.path, detail=True)
        base = place.path.rstrip("/") + "/"
        return [_described(name.removeprefix(base), info) for name, info in sorted(found.items())]

    try:
        found = patiently_remote(ask, place.url)
    except FileNotFoundError:
        found = []
    if not found:
        raise UsageError(f"data.source: nothing is found at {place.url}")
    for file in found:
        parts = PurePosixPath(file.name).parts
        if not parts or file.name.startswith("/") or ".." in parts or "\\" in file.name or "\0" in file.name:
            raise UsageError(f"{place.url}: holds {file.name!a}, a name that leads elsewhere; rename it")
    return found


def _described(name: str, info: dict[str, Any]) -> RemoteFile:
    return RemoteFile(name, int(info.get("size") or 0), version_mark(info))


def version_mark(info: dict[str, Any]) -> str:
    """Return what tells a version of a file from the next, of what its storage says of it; empty where nothing does."""
    return next((str(info[key]) for key in _MARKS if info.get(key)), "")


def content_of(place: Remote) -> bytes:
    """Return a whole small file.

    Raises:
        FileNotFoundError: if it is not there.
        UsageError: if access is refused.
        ThawlabError: if the place does not answer.
    """

    def ask() -> bytes:
        content: bytes = place.files.cat_file(place.path)
        return content

    return patiently_remote(ask, place.url)


def fetch(place: Remote, target: Path, size: int, sha256: str | None = None) -> None:
    """Copy a remote file to this machine, piece by piece, under a temporary name until it is whole.

    Args:
        place: of the file.
        target: where it goes.
        size: in bytes, as its listing or index says.
        sha256: of the content, where it is known.

    Raises:
        ThawlabError: if the place does not answer, or has another file than is expected.
    """
    digest = hashlib.sha256()

    def write(file: Any) -> None:
        for piece in _pieces(place, size):
            digest.update(piece)
            file.write(piece)

    write_atomically(target, write)
    if sha256 is not None and digest.hexdigest() != sha256:
        target.unlink(missing_ok=True)
        raise ThawlabError(
            f"{place.url}: is not what its index says (damaged or changed); write the shards again, or fetch the index anew"
        )


def _pieces(place: Remote, size: int) -> Iterator[bytes]:
    """Yield a remote file in pieces, each asked for until it comes whole."""
    start = 0
    while start < size:
        end = min(start + _PIECE, size)

        def ask(start: int = start, end: int = end) -> bytes:
            piece: bytes = place.files.cat_file(place.path, start=start, end=end)
            if start == 0 and len(piece) == size:  # a server that knows no ranges gives all
                return piece
            if len(piece) != end - start:
                raise ConnectionError(f"{len(piece):,} of {end - start:,} bytes came")
            return piece

        try:
            piece = patiently_remote(ask, place.url)
        except FileNotFoundError:
            raise ThawlabError(f"{place.url}: is not there any more; the data were changed while they were read") from None
        yield piece
        start += len(piece)
