"""One pass over the files of a source: what each is, whether it can be read, and a small image of it."""

from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import NamedTuple, final

import numpy as np
import numpy.typing as npt
from PIL import Image

from thawlab.data.content import UNREADABLE_DIGEST
from thawlab.data.decode import BadImageError, decode, open_image, why_unreadable
from thawlab.data.images import content_digest, patiently
from thawlab.data.listing import Listing
from thawlab.data.parallel import in_threads
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.rowstore import RowStore
from thawlab.data.salvage import lacks_end
from thawlab.data.types import Pixels
from thawlab.quality.registration import SIDE

_JPEG = {".jpg", ".jpeg", ".jpe", ".jfif"}
_FORMATS = {"JPEG": _JPEG, "MPO": _JPEG, "PNG": {".png"}, "GIF": {".gif"}, "WEBP": {".webp"}, "BMP": {".bmp"}}
_FORMATS["TIFF"] = {".tif", ".tiff"}
_CLAIMS = set().union(*_FORMATS.values())
# An image whose values spread less than this in every channel, of 255, shows nothing.
_BLANK = 1.5
LOOK = Preprocessing(size=SIDE, interpolation="bilinear", mean=(0.5,) * 3, std=(0.5,) * 3)


class Files(NamedTuple):
    """What the files of a source are, in the order of its listing.

    Attributes:
        digests: SHA-256 of each file's content; a word instead where it cannot be read.
        formats: as Pillow names them; empty where there is no file or it is no image.
        sizes: int64, n × 2, width and height in pixels; zeros where unknown.
        thumbnails: uint8, n × 32 × 32 × 3; only those of readable images mean something.
        reasons: why an image cannot be read, by index.
        blank: indices of images of nearly one colour.
        unended: indices of JPEG files that lack the marker of their end, and no pixels.
    """

    digests: tuple[bytes, ...]
    formats: tuple[str, ...]
    sizes: npt.NDArray[np.int64]
    thumbnails: npt.NDArray[np.uint8]
    reasons: dict[int, str]
    blank: tuple[int, ...] = ()
    unended: tuple[int, ...] = ()


@final
class _Both:
    """Brings an image to the size of one preprocessing, and keeps it at that of another, too.

    Args:
        wanted: gives what `fit` returns.
        small: gives the thumbnail.
    """

    thumbnail: Pixels

    def __init__(self, wanted: Preprocessing, small: Preprocessing) -> None:
        self._wanted, self._small = wanted, small
        self.grey_range = wanted.grey_range

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return what both give for an image of this size."""
        return self._wanted.draft_size(width, height)

    def fit(self, image: Image.Image) -> Pixels:
        """Return the image at the wanted size."""
        self.thumbnail = self._small.fit(image)
        return self._wanted.fit(image)


def scan_files(
    listing: Listing, workers: int | None = None, wanted: Preprocessing | None = None, store: RowStore | None = None
) -> Files:
    """Read every image of a listing once, and decode it; `store` takes the images at the further size `wanted`.

    Raises:
        ThawlabError: if reading fails for a reason that says nothing about the file, or the store cannot be written.
    """
    count = len(listing)
    digests, formats = [UNREADABLE_DIGEST] * count, [""] * count
    sizes, thumbnails = np.zeros((count, 2), dtype=np.int64), np.zeros((count, SIDE, SIDE, 3), dtype=np.uint8)
    reasons: dict[int, str] = {}
    unended: list[int] = []
    small = LOOK if wanted is None else LOOK.model_copy(update={"grey_range": wanted.grey_range})

    def look_at(index: int) -> Pixels | None:
        content = listing.images.read(index)
        digests[index] = content_digest(content)
        if isinstance(content, bytes):
            with open_image(content) as image:
                formats[index], sizes[index] = image.format or "", image.size
            if lacks_end(content):
                unended.append(index)
        else:
            sizes[index] = content.shape[1], content.shape[0]
        if wanted is None or store is None:
            thumbnails[index] = decode(content, small)
            return None
        if wanted.draft_size(*sizes[index].tolist()) != small.draft_size(*sizes[index].tolist()):
            thumbnails[index] = decode(content, small)
            return decode(content, wanted)
        both = _Both(wanted, small)  # decoded alike: once is enough
        row = decode(content, both)
        thumbnails[index] = both.thumbnail
        return row

    def look(index: int) -> Pixels | None:
        try:
            return patiently(lambda: look_at(index), listing.ids[index])
        except (BadImageError, OSError) as error:
            reasons[index] = why_unreadable(error)
            return None

    for chunk, rows in in_threads(look, np.arange(count), workers, "scanning"):
        good = [(index, row) for index, row in zip(chunk.tolist(), rows, strict=True) if row is not None]
        if store is not None and good:
            store.write(np.array([index for index, _ in good]), np.stack([row for _, row in good]))
    spread = thumbnails.reshape(count, -1, 3).astype(np.float32).std(axis=1).max(axis=1) if count else np.zeros(0)
    blank = tuple(index for index in np.flatnonzero(spread < _BLANK).tolist() if index not in reasons)
    whole = tuple(index for index in sorted(unended) if index not in reasons)
    return Files(tuple(digests), tuple(formats), sizes, thumbnails, dict(sorted(reasons.items())), blank, whole)


def wrong_extensions(ids: Sequence[str], formats: Sequence[str]) -> list[tuple[int, str]]:
    """Return index and true format of the files whose names claim another format."""
    suffixes = [PurePosixPath(identifier).suffix.lower() for identifier in ids]
    claims = enumerate(zip(suffixes, formats, strict=True))
    return [(k, kind) for k, (suffix, kind) in claims if suffix in _CLAIMS - _FORMATS.get(kind, _CLAIMS)]
