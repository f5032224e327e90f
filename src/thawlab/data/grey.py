"""Grey values of more than 8 bits: from which value to which they run, and how they become a byte."""

import math
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from thawlab.data.salvage import png_chunks

Range = tuple[float, float]

# Values of an image that tell the range of its data set.
_LOOKED_AT = 4096
# Values of one image that are kept until all of them have been looked at; of a larger one every second, third and so on.
_KEPT = 1 << 21
# Values of a band of rows.
_BAND = 1 << 18
# The share of values that may lie beyond each end of a range where no number of bits explains it.
_TAIL = 0.001
# The share of pixels that may be stuck at a value that the others do not reach.
_STUCK = 1e-4
# What programs write where nothing was measured.
_BLANKS = frozenset({-9999.0, -99999.0, -32768.0, -32767.0, -2147483648.0})


def is_deep(image: Image.Image) -> bool:
    """Return whether an image holds one channel of more than 8 bits."""
    return image.mode in {"I", "F"} or image.mode.startswith("I;16")


def may_be_deep(content: bytes) -> bool:
    """Return whether an encoded file may hold such an image, by its first bytes."""
    is_png = content.startswith(b"\x89PNG\r\n\x1a\n") and content[24:26] == b"\x10\x00"
    return is_png or content.startswith((b"P5", b"P2", b"II", b"MM", b"Pf", b"\x00\x00\x00\x0cjP", b"\xff\x4f\xff\x51"))


def shared_range(samples: Sequence[npt.NDArray[Any]], whole: bool) -> Range:
    """Return the range that the grey values of a data set run through.

    Whole numbers from near 0 run through the fewest bits, from 8 to 16, that hold them but for a few stuck pixels, and fractions
    from 0 to 1 or 255; others, such as Hounsfield units, through all but a thousandth at each end. Values that stand for none do
    not count (see `_without_blanks`).

    Args:
        samples: values of several images.
        whole: whether the files hold whole numbers.
    """
    samples = [kept for part in samples if (kept := _without_blanks(part)).size]
    if not samples:
        return 0.0, 65535.0 if whole else 1.0
    pooled = np.concatenate([part[:: max(1, part.size // _LOOKED_AT)] for part in samples]).astype(np.float64)
    least, most = min(float(part.min()) for part in samples), max(float(part.max()) for part in samples)
    low, high = (float(value) for value in np.quantile(pooled, [_TAIL, 1 - _TAIL]))
    few = _STUCK * sum(part.size for part in samples)
    fulls = [2.0**bits - 1 for bits in range(8, 17)] if whole else [1.0, 255.0]
    full = next((full for full in fulls if high <= full and sum(int((part > full).sum()) for part in samples) <= few), None)
    if least >= 0 and full is not None and low < full / 10 and (whole or most <= full):
        return 0.0, full
    return (low, high) if high > low else (least, max(most, least + 1.0))


def _without_blanks(values: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """Return values, flat, without those that stand for none where nothing was measured.

    These are infinite or not numbers, or one value over and over at the lower end, apart from all others by more than these
    are among themselves (-32768, -3.4e38), or a usual one of them.
    """
    kept: npt.NDArray[Any] = values[np.isfinite(values)]
    while kept.size:
        least, rest = float(kept.min()), kept[kept > kept.min()]
        low, high = (float(rest.min()), float(rest.max())) if rest.size else (least, least)
        is_apart = least < 0 and low - least > high - low
        if least not in _BLANKS and not (is_apart and kept.size - rest.size > 1):
            break
        kept = rest
    return kept


def own_range(image: Image.Image, content: bytes) -> Range | None:
    """Return the range that a file itself names; None if it is silent, or names one that its values leave.

    These are the significant bits of a PNG, the range of a TIFF (tags SMinSampleValue and SMaxSampleValue) or the bits of its
    samples. MinSampleValue and MaxSampleValue are statistics of one image, by the standard not to be shown by.
    """
    named: Range | None = None
    if image.format == "TIFF":
        tags: Any = getattr(image, "tag_v2", {})
        (bits, *_), (low, *_), (high, *_) = (_numbers(tags.get(tag)) or (math.nan,) for tag in (258, 340, 341))
        named = (low, high) if high > low else (0.0, 2.0**bits - 1) if 8 < bits < 16 else None
    elif image.format == "PNG":
        # By the standard the values fill all 16 bits and the significant ones stand on top; many programs leave them below.
        significant = significant_bits(content)
        named = (0.0, 2.0**significant - 1) if significant is not None and 8 < significant < 16 else None
    if named is None:
        return None
    least, most = _extremes(np.asarray(image))
    return named if min(named[0], 0.0) <= least and most <= named[1] else None


def _numbers(stored: Any) -> tuple[float, ...]:
    """Return the finite numbers of a TIFF tag."""
    try:
        found = tuple(float(value) for value in (stored if isinstance(stored, tuple) else (stored,)))
    except (TypeError, ValueError, ZeroDivisionError):
        return ()
    return found if all(math.isfinite(value) for value in found) else ()


def _bands(stored: npt.NDArray[Any]) -> Iterator[npt.NDArray[np.float64]]:
    """Yield the values of an image in bands of rows: all at once they would take eight bytes a pixel, several times."""
    rows = max(1, _BAND // max(stored.shape[1], 1))
    for top in range(0, len(stored), rows):
        yield stored[top : top + rows].astype(np.float64)


def _extremes(stored: npt.NDArray[Any]) -> tuple[float, float]:
    """Return the least and the most of an image's finite values and 0."""
    least = most = 0.0
    for values in _bands(stored):
        finite = np.nan_to_num(values, nan=0.0, posinf=0.0, neginf=0.0)
        least, most = min(least, float(finite.min(initial=0.0))), max(most, float(finite.max(initial=0.0)))
    return least, most


def is_white_at_zero(image: Image.Image) -> bool:
    """Return whether 0 means white in a deep TIFF; Pillow turns such values round only where they have 8 bits."""
    return image.format == "TIFF" and is_deep(image) and getattr(image, "tag_v2", {}).get(262) == 0


def significant_bits(content: bytes) -> int | None:
    """Return the bits that a grey PNG says are significant (its chunk sBIT), or None."""
    for kind, start, end in png_chunks(content):
        if kind == b"sBIT" and end - start > 12 and start + 8 < len(content):
            return content[start + 8]
        if kind == b"IDAT":
            return None
    return None


def to_bytes(stored: npt.NDArray[Any], known: Range | None) -> npt.NDArray[np.uint8]:
    """Bring grey values to bytes.

    Args:
        stored: the values of one image as its file holds them, height × width.
        known: their range; where None, fractions are taken to end at 1 or 255, and all others at 16 bits.
    """
    if known is None:
        fractions, (_, top) = stored.dtype.kind == "f", _extremes(stored)
        known = (0.0, 1.0 if top <= 1.0 and fractions else 255.0 if top <= 255 and fractions else 65535.0)
    low, high = known
    result = np.empty(stored.shape, dtype=np.uint8)
    top_row = 0
    for values in _bands(stored):
        finite = np.nan_to_num(values, nan=low, posinf=high, neginf=low)
        result[top_row : top_row + len(values)] = np.clip(np.rint((finite - low) * (255.0 / (high - low))), 0, 255)
        top_row += len(values)
    return result


def range_of(contents: Iterable[bytes], loaded: Callable[[bytes], AbstractContextManager[Image.Image]]) -> Range | None:
    """Return the range of the deep grey images among some files; None where there is none, or each names its own.

    Args:
        contents: encoded files.
        loaded: decodes one of them; what it raises for a file makes the file count for nothing.
    """
    samples, whole = [], True
    for content in filter(may_be_deep, contents):
        try:
            with loaded(content) as image:
                if is_deep(image):
                    stored = np.asarray(image)
                    if stored.size and own_range(image, content) is None:
                        samples.append(stored.reshape(-1)[:: 1 + stored.size // _KEPT].copy())
                        whole = whole and image.mode != "F"
        except Exception:
            continue
    return shared_range(samples, whole) if samples else None
