"""What the files of a source hold, told by digests: the fingerprint of the data, and images in two splits at once."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.decode import why_unreadable
from thawlab.data.images import ArrayImages, content_digest, patiently
from thawlab.data.listing import Listing
from thawlab.data.names import Digests
from thawlab.data.parallel import in_threads
from thawlab.data.splits import Splits

# Stands in the fingerprint for the content of a file that cannot be read.
UNREADABLE_DIGEST = b"unreadable"
# Names that are turned into JSON at a time.
_AT_ONCE = 4096
# Parts in which the training images are looked up, so that little memory is taken beside them.
_PARTS = 32


class Scan(NamedTuple):
    """What one pass over the files of a listing found, in its order.

    Attributes:
        digests: SHA-256 of each file's content; a word instead where it cannot be read.
        reasons: by index, why an image cannot be read or, where there are `rows`, decoded.
        rows: uint8, n × size × size × 3, the decoded images; None where nothing was decoded.
    """

    digests: Sequence[bytes]
    reasons: Mapping[int, str]
    rows: npt.NDArray[np.uint8] | None = None


def hash_files(listing: Listing, workers: int | None = None) -> Scan:
    """Read every image of a listing once and hash its content, unless its index holds the digests.

    Raises:
        ThawlabError: if reading fails for a reason that says nothing about the file.
    """
    if listing.known is not None:
        return Scan(listing.known.digests, {})
    reasons: dict[int, str] = {}

    def hash_one(index: int) -> bytes:
        try:
            return patiently(lambda: content_digest(listing.images.read(index)), listing.ids[index])
        except OSError as error:
            reasons[index] = why_unreadable(error)
            return UNREADABLE_DIGEST

    parts = in_threads(hash_one, np.arange(len(listing)), workers, "reading")
    return Scan(tuple(digest for _, part in parts for digest in part), reasons)


def fingerprint(listing: Listing, digests: Sequence[bytes]) -> str:
    """Return the SHA-256 of a listing's classes, ids, labels, splits, groups and the content (`digests`) of its images.

    Of a corrected one also of the ids and labels before, which its splits are made of.
    """
    header: list[Any] = [listing.classes, listing.ids, listing.labels, listing.splits]
    if listing.groups is not None:
        header.append(listing.groups)
    if (before := listing.uncorrected) is not None:
        header.append([before.classes, before.ids, before.labels])
    digest = hashlib.sha256()
    for piece in _as_json(header):
        digest.update(piece.encode())
    images = listing.images
    if isinstance(images, ArrayImages):
        digest.update(np.ascontiguousarray(images.array).data)
    elif isinstance(digests, Digests):
        digest.update(digests.rows.data)
    else:
        digest.update(b"".join(digests))
    return digest.hexdigest()


def _among(values: npt.NDArray[np.uint64], numbers: npt.NDArray[np.uint64]) -> npt.NDArray[np.bool_]:
    """Return which values occur among sorted numbers, of which there is at least one."""
    found: npt.NDArray[np.bool_] = numbers[np.minimum(np.searchsorted(numbers, values), len(numbers) - 1)] == values
    return found


def _as_json(value: Any) -> Iterator[str]:
    """Yield what `json.dumps` gives of a value, piece by piece: of millions of names it would take gigabytes at once."""
    if isinstance(value, str) or not isinstance(value, Sequence | np.ndarray):
        yield json.dumps(value, ensure_ascii=False)
        return
    yield "["
    if isinstance(value, list) and any(isinstance(part, Sequence | np.ndarray) and not isinstance(part, str) for part in value):
        for number, part in enumerate(value):
            yield ", " if number else ""
            yield from _as_json(part)
    else:
        for start in range(0, len(value), _AT_ONCE):
            part = value[start : start + _AT_ONCE]
            yield (", " if start else "") + json.dumps(
                part.tolist() if isinstance(part, np.ndarray) else part, ensure_ascii=False
            )[1:-1]
    yield "]"


def leaks_between(splits: Splits, digests: Sequence[bytes]) -> tuple[tuple[int, int], ...]:
    """Return the val and test images that are identical to a training image, as (training image, other)."""
    # Numbers first: a table of all digests would take hundreds of bytes an image.
    if isinstance(digests, Digests):
        start = np.ascontiguousarray(digests.rows[:, :8]).view(np.uint64)[:, 0]
    else:
        start = np.array([int.from_bytes(digest[:8], "big") for digest in digests], dtype=np.uint64)
    judged = np.concatenate([splits.val, splits.test])
    numbers = np.sort(start[judged])
    if not len(numbers):
        return ()
    train = np.concatenate([part[_among(start[part], numbers)] for part in np.array_split(splits.train, _PARTS)])
    trained = {digests[index]: index for index in train.tolist()[::-1]}
    return tuple((trained[digests[index]], index) for index in judged.tolist() if digests[index] in trained)
