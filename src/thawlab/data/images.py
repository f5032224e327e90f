"""Access to the encoded images of a source, one by one and from several threads."""

import errno
import hashlib
import stat
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, Protocol, TypeVar, final

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Pixels
from thawlab.errors import ThawlabError
from thawlab.patience import tried_again

T = TypeVar("T")
HEAD = 160  # bytes that tell what a file is
MOST_BYTES = 1 << 28  # of the file of one image
# Errors that come with the file itself; all others (a network's, a disk's, too little memory) may be over in a moment.
_LASTING = {None, errno.ENOENT, errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ELOOP, errno.ENAMETOOLONG}
_PAUSES = (0.05, 0.25, 1.0)  # seconds before each further try


def content_digest(content: bytes | Pixels) -> bytes:
    """Return the SHA-256 of an image's file, or of its pixels where it has none."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).digest()


def patiently(work: Callable[[], T], name: str) -> T:
    """Read an image, and perhaps decode it, trying three times more where the machine rather than the file is at fault.

    Raises:
        OSError: if the file is absent, may not be read, or is damaged inside its archive.
        ThawlabError: if reading it still fails for another reason; this says nothing about the image.
    """
    try:
        return tried_again(work, _PAUSES, lambda error, _: _is_passing(error))
    except (OSError, MemoryError) as error:
        if not _is_passing(error):
            raise
        reason = (error.strerror or error) if isinstance(error, OSError) else "not enough memory"
        raise ThawlabError(
            f"{name}: could not be read, several times ({reason}); run the command again, or leave the image out with "
            "data.exclude"
        ) from error


def _is_passing(error: Exception) -> bool:
    return isinstance(error, MemoryError) or (isinstance(error, OSError) and error.errno not in _LASTING)


class Images(Protocol):
    """Random access to the images of a source, safe to use from several threads."""

    def read(self, index: int) -> bytes | Pixels:
        """Return the encoded file of an image, or its pixels (uint8, height × width × 3) where nothing is encoded.

        Raises:
            OSError: if the file cannot be read.
        """


class ReadImages(NamedTuple):
    """Images that a function reads, given an index; others read their first bytes alone, or take note of what is read next."""

    read: Callable[[int], bytes | Pixels]
    head: Callable[[int], bytes] | None = None
    expect: Callable[[Indices], None] | None = None
    fetches_again: bool = False


@final
@dataclass(frozen=True)
class ArrayImages:
    """Images that are in memory already: uint8, n × height × width × 3."""

    array: npt.NDArray[np.uint8]

    def read(self, index: int) -> Pixels:
        """Return the pixels."""
        image: Pixels = self.array[index]
        return image


@final
@dataclass(frozen=True)
class FileImages:
    """Images in files of their own."""

    paths: tuple[Path, ...]

    def read(self, index: int) -> bytes:
        """Return the file's content."""
        path, size = self._file(index)
        if size > MOST_BYTES:
            raise OSError(f"too large: a file of {size / 1e6:,.0f} MB")
        return path.read_bytes()

    def head(self, index: int) -> bytes:
        """Return the first bytes of the file."""
        with self._file(index)[0].open("rb") as file:
            return file.read(HEAD)

    def _file(self, index: int) -> tuple[Path, int]:
        """Return the file and its size in bytes; the disk is asked once, since every image of every run comes by here."""
        path = self.paths[index]
        if "\0" in str(path):
            raise OSError("no file has such a name")
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):
            raise OSError("it is not a file")  # a pipe would block whoever reads it
        return path, found.st_size


def head_of(images: Images, index: int) -> bytes:
    """Return the first bytes of an image's file, at least `HEAD` of them where there are as many; none where it has no file.

    Raises:
        OSError: if the file cannot be read.
    """
    head = getattr(images, "head", None)
    content = images.read(index) if head is None else head(index)
    return content if isinstance(content, bytes) else b""


def fetches_again(images: Images) -> bool:
    """Return whether images come from afar and are not kept: reading them in any order fetches the same bytes many times."""
    return bool(getattr(images, "fetches_again", False))


def expect(images: Images, indices: Indices) -> None:
    """Let the images know in which order they will be read; those that come from afar can then be fetched ahead."""
    take_note = getattr(images, "expect", None)
    if take_note is not None:
        take_note(indices)
