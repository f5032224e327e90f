"""A look at every file of a source: what it is, whether it can be read, and a small image of it."""

from __future__ import annotations

import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import final

import numpy as np
import numpy.typing as npt
from PIL import Image

from thawlab.data.decode import BadImageError, decode, why_unreadable
from thawlab.data.images import content_digest
from thawlab.data.listing import Listing
from thawlab.data.parallel import in_threads
from thawlab.data.preprocessing import Preprocessing
from thawlab.quality.duplicates import SIDE

_FORMATS = {
    "JPEG": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "MPO": {".jpg", ".jpeg", ".jpe", ".jfif"},
    "PNG": {".png"},
    "GIF": {".gif"},
    "WEBP": {".webp"},
    "BMP": {".bmp"},
    "TIFF": {".tif", ".tiff"},
}
_CLAIMS = frozenset(extension for extensions in _FORMATS.values() for extension in extensions)
_LOOK = Preprocessing(size=SIDE, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)


@final
@dataclass(frozen=True)
class Files:
    """What the files of a source are, in the order of its listing.

    Attributes:
        digests: SHA-256 of each file's content; empty where it could not be read.
        formats: as Pillow names them; empty where there is no file or it is no image.
        sizes: int64, n × 2, width and height in pixels; zeros where unknown.
        thumbnails: uint8, n × 32 × 32 × 3; only those of readable images mean something.
        reasons: why an image cannot be read, by index.
    """

    digests: tuple[bytes, ...]
    formats: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    thumbnails: npt.NDArray[np.uint8]
    reasons: dict[int, str]


def inspect_files(listing: Listing, workers: int | None = None) -> Files:
    """Read and decode every image of a listing once."""
    count = len(listing)
    digests, formats = [b""] * count, [""] * count
    sizes, thumbnails = np.zeros((count, 2), dtype=np.int64), np.zeros((count, SIDE, SIDE, 3), dtype=np.uint8)
    reasons: dict[int, str] = {}

    def look(index: int) -> None:
        try:
            content = listing.images.read(index)
            digests[index] = content_digest(content)
            if isinstance(content, bytes):
                formats[index], sizes[index] = _head(content)
            else:
                sizes[index] = content.shape[1], content.shape[0]
            thumbnails[index] = decode(content, _LOOK)
        except (BadImageError, OSError) as error:
            reasons[index] = why_unreadable(error)

    for _ in in_threads(look, np.arange(count), workers, "looking"):
        pass
    return Files(tuple(digests), tuple(formats), sizes, thumbnails, dict(sorted(reasons.items())))


def _head(content: bytes) -> tuple[str, tuple[int, int]]:
    """Return format and size as the file's head tells them; nothing where it is no image."""
    try:
        with Image.open(io.BytesIO(content)) as image:
            return image.format or "", image.size
    except Exception:  # whatever is wrong with it, decoding will say
        return "", (0, 0)


def wrong_extensions(ids: Sequence[str], formats: Sequence[str]) -> list[tuple[int, str, str]]:
    """Return index, extension and true format of the files whose names claim another format."""
    found = []
    for index, (identifier, kind) in enumerate(zip(ids, formats, strict=True)):
        extension = PurePosixPath(identifier).suffix.lower()
        if kind in _FORMATS and extension in _CLAIMS and extension not in _FORMATS[kind]:
            found.append((index, extension, kind))
    return found
