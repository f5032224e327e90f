"""What a source holds before anything is decoded: classes, ids, labels, splits and access to each picture's bytes."""

from __future__ import annotations

import hashlib
import threading
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Literal, final

import numpy as np
import numpy.typing as npt

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Picture = npt.NDArray[np.uint8]


def content_digest(content: bytes | Picture) -> bytes:
    """Return the SHA-256 of a picture's file, or of its pixels where it has none."""
    return hashlib.sha256(content if isinstance(content, bytes) else content.tobytes()).digest()


class Pictures(ABC):
    """Random access to the pictures of a source, safe to use from several threads."""

    @abstractmethod
    def read(self, index: int) -> bytes | Picture:
        """Return the encoded file of a picture, or its pixels (uint8, height × width × 3) where nothing is encoded.

        Raises:
            OSError: if the file cannot be read.
        """


@final
@dataclass(frozen=True)
class ArrayPictures(Pictures):
    """Pictures that are in memory already: uint8, n × height × width × 3."""

    array: npt.NDArray[np.uint8]

    def read(self, index: int) -> Picture:
        """Return the pixels."""
        picture: Picture = self.array[index]
        return picture


@final
@dataclass(frozen=True)
class FilePictures(Pictures):
    """Pictures in files of their own."""

    paths: tuple[Path, ...]

    def read(self, index: int) -> bytes:
        """Return the file's content."""
        path = self.paths[index]
        if path.exists() and not path.is_file():
            raise OSError("it is not a file")  # a pipe would block whoever reads it
        return path.read_bytes()


@final
@dataclass(frozen=True)
class BytesPictures(Pictures):
    """Encoded pictures that are in memory already."""

    contents: Sequence[bytes]

    def read(self, index: int) -> bytes:
        """Return the encoded picture."""
        return self.contents[index]


@final
@dataclass(frozen=True)
class ZipPictures(Pictures):
    """Pictures inside a zip archive; each thread opens the archive once."""

    path: Path
    members: tuple[str, ...]
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def read(self, index: int) -> bytes:
        """Return the member's content."""
        archive: zipfile.ZipFile | None = getattr(self._local, "archive", None)
        if archive is None:
            archive = self._local.archive = zipfile.ZipFile(self.path)
        try:
            return archive.read(self.members[index])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"damaged or encrypted inside the archive: {error}") from error


@final
@dataclass(frozen=True)
class TarPictures(Pictures):
    """Pictures inside an uncompressed tar archive, read at their offsets; each thread opens the file once."""

    path: Path
    places: tuple[tuple[int, int], ...]
    _local: threading.local = field(default_factory=threading.local, repr=False, compare=False)

    def read(self, index: int) -> bytes:
        """Return the member's content."""
        file: BinaryIO | None = getattr(self._local, "file", None)
        if file is None:
            file = self._local.file = self.path.open("rb")
        offset, size = self.places[index]
        file.seek(offset)
        return file.read(size)


@final
@dataclass(frozen=True)
class ChosenPictures(Pictures):
    """Some of the pictures of a source, in an order of their own."""

    source: Pictures
    chosen: Indices

    def read(self, index: int) -> bytes | Picture:
        """Return what the source holds."""
        return self.source.read(int(self.chosen[index]))


@final
@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        name: a short name for the data.
        classes: the class names; a label is an index into them.
        ids: a unique name per picture, stable between machines.
        labels: int64, one per picture.
        splits: per picture "train", "val" or "test"; all "train" where the source knows no splits.
        pictures: access to the pictures.
        ignored: files that were found and are no pictures of a class, with the reason.
        columns: what else a manifest says of each picture, by the column's name.
        groups: a number per picture, equal for pictures that belong together; None where each stands for itself.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Labels
    splits: npt.NDArray[np.str_]
    pictures: Pictures
    ignored: tuple[tuple[str, str], ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.ids)
