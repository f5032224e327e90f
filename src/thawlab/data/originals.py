"""Images as they came, before any preprocessing: what is measured of pictures, or done to them, at about their own size."""

import hashlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np
from PIL import Image

from thawlab.data.grey import Range
from thawlab.data.images import Images, patiently
from thawlab.data.types import Indices, Pixels

# Encoded images that a dataset keeps for judging: this many at most, and this many bytes.
MOST_KEPT = 200
_KEPT_BYTES = 64 << 20


class AtOwnSize(NamedTuple):
    """Decoding that keeps an image's own size, in the place of a `Preprocessing`.

    Attributes:
        most: pixels of the shorter side; a larger image is reduced to that, since what is done to it afterwards takes time.
        grey_range: the values of black and white in grey images of more than 8 bits.
    """

    most: int
    grey_range: Range | None = None

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least size that a JPEG of `width` × `height` may be decoded at, or None for its own."""
        scale = 2 * self.most / min(width, height)
        return (max(1, int(width * scale)), max(1, int(height * scale))) if scale < 1 else None

    def fit(self, image: Image.Image) -> Pixels:
        """Return an image in mode RGB as uint8, height × width × 3."""
        scale = self.most / min(image.size)
        if scale < 1:
            size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
            image = image.resize(size, Image.Resampling.BILINEAR)
        return np.asarray(image)


def by_name(ids: Sequence[str], indices: Indices) -> Indices:
    """Return indices in an order that looks random and depends on the images' names alone.

    Its first ones are a sample; two runs that are judged on the same images sample the same ones.
    """
    keys = {index: hashlib.sha256(f"sample/{ids[index]}".encode("utf-8", "surrogatepass")).digest() for index in indices.tolist()}
    return np.array(sorted(keys, key=lambda index: keys[index]), dtype=np.int64)


def keep_originals(ids: Sequence[str], images: Images, indices: Indices) -> Mapping[int, bytes | Pixels]:
    """Return the encoded files, or pixels, of a sample of some images by index: at most 200, and 64 MiB of them.

    Raises:
        OSError: if one cannot be read any more.
        ThawlabError: if reading one fails for a reason that says nothing about it.
    """
    kept: dict[int, bytes | Pixels] = {}
    room = _KEPT_BYTES
    for index in by_name(ids, indices)[:MOST_KEPT].tolist():
        content = patiently(lambda index=index: images.read(index), ids[index])  # type: ignore[misc]
        room -= len(content) if isinstance(content, bytes) else content.nbytes
        if room < 0:
            break
        kept[index] = content if isinstance(content, bytes) else content.copy()  # not a view of all that there are
    return kept
