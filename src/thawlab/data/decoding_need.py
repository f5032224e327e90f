"""What decoding an image will take, told by its head before anything is decoded; heads made to exhaust are refused.

The bytes per pixel were measured with Pillow 11 to 13 (tests/data/test_decoding_need.py measures them again).
"""

import re
import struct
from typing import Any

from PIL import Image

from thawlab.data.salvage import exif_of, orientation

# An image of so few pixels in a short file takes 4 MB at the very most.
SMALL = 1 << 17
# An image of so few pixels is counted at the most that any takes, without a closer look.
_FEW_PIXELS = 1 << 19
_MOST = 32
# Bytes per pixel that Pillow keeps of an image; 4 in all other modes.
_KEPT = {"1": 1, "L": 1, "P": 1, "I;16": 2, "I;16L": 2, "I;16B": 2, "I;16N": 2}
# Further ones while it becomes RGB; 4 for all other modes.
_CONVERTING = {"RGB": 0, "LA": 8, "PA": 8, "La": 8, "RGBa": 8, "I": 8, "F": 8}
_CONVERTING |= {"I;16": 6, "I;16L": 6, "I;16B": 6, "I;16N": 6}
# Per pixel of the longest side: the weights of resampling, double precision, Lanczos on both of its sides.
_WEIGHTS = 48
# An image in an icon has no more pixels: Pillow decodes it as soon as the file is opened.
ICON, _ICON_PIXELS = b"\0\0\1\0", 1 << 20
_BITMAP_HEADS = {struct.pack("<I", size) for size in (40, 52, 56, 64, 108, 124)}
_OLD_BITMAP_HEAD = struct.pack("<I", 12)
# Files up to this size cannot say enough to exhaust anything.
SHORT = 1 << 15
# Scans of a JPEG, how many pixels all of them may visit together, and the bytes of the shortest.
_FEW_SCANS, _VISITED, _LEAST_SCAN = 16, 5_000_000_000, 10
# Bytes per value of a TIFF tag, by its kind.
_TAG_BYTES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4, 16: 8, 17: 8, 18: 8}
_SEGMENT = struct.Struct(">BBH").unpack_from
_TAG_HEADS = re.compile(rb"II\*\0|MM\0\*|II\0\*|MM\*\0|II\+\0|MM\0\+")
_HOLDS_TAGS = {b"II", b"MM"}


def why_exhausting(content: bytes) -> str | None:
    """Return why a file must not even be opened: its head makes a reader take much more than the file holds; None if it may.

    Tags of EXIF and TIFF may all lead to the same bytes, and are read into memory each for itself; compressed texts in a PNG
    unpack to a thousand times their size. Whoever opens many small files need not ask for those of up to `SHORT` bytes that do
    not begin as an icon does.
    """
    if content.startswith(ICON) and (pixels := _largest_in_icon(content)) > _ICON_PIXELS:
        return f"too large: an icon of {pixels:,} pixels"
    if len(content) <= SHORT:
        return None
    kind = content[:2]
    if kind == b"\xff\xd8":
        blocks = _tags_of_jpeg(content)
    elif kind in _HOLDS_TAGS:
        blocks = [content]
    elif content[4:8] == b"ftyp":
        blocks = [content[found.start() :] for found in _TAG_HEADS.finditer(content)]
    else:
        texts = content.count(b"zTXt") + content.count(b"iTXt") if kind == b"\x89P" else 0
        return f"damaged: it holds {texts:,} compressed texts" if texts > 8 else None
    return "damaged: its tags overlap" if any(overstates(block) for block in blocks) else None


def overstates(tags: bytes) -> bool:
    """Return whether the values of a TIFF's or EXIF's first directory would take much more than the whole block."""
    tags = tags.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(tags[:2])
    if order is None or len(tags) < 16:
        return False
    big = tags[2:4] in {b"+\0", b"\0+"}
    count_form, entry_form, inline = ("Q", "HHQ8x", 8) if big else ("H", "HHI4x", 4)
    [start] = struct.unpack_from(order + ("Q" if big else "I"), tags, 8 if big else 4)
    first = start + struct.calcsize("=" + count_form)
    if first > len(tags):
        return False
    [count] = struct.unpack_from(order + count_form, tags, start)
    size = struct.calcsize("=" + entry_form)
    entries = tags[first : first + size * min(count, (len(tags) - first) // size)]
    sizes = (number * _TAG_BYTES.get(kind, 0) for _, kind, number in struct.iter_unpack(order + entry_form, entries))
    # A count that leads beyond the end is an error to every reader, and costs nothing.
    stated: int = sum(taken for taken in sizes if inline < taken <= len(tags))
    return stated > 2 * len(tags) + SHORT


def _segments(content: bytes) -> list[tuple[int, int, int]]:
    """Return the segments of a JPEG up to its first scan: marker, and where its data begin and end."""
    found, place, last = [], 2, len(content) - 4
    while place <= last:
        mark, marker, length = _SEGMENT(content, place)
        if mark != 0xFF or marker in {0, 0xFF}:
            place += 1  # readers look for the next marker
            continue
        found.append((marker, place + 4, place + 2 + length))
        if marker == 0xDA:
            break
        place += 2 + length
    return found


def _tags_of_jpeg(content: bytes) -> list[bytes]:
    """Return the EXIF of a JPEG, of all its segments as Pillow joins them, and its directories of further pictures."""
    exif, others = [], []
    for marker, start, end in _segments(content):
        if marker == 0xE1 and content.startswith(b"Exif\0\0", start):
            exif.append(content[start + 6 : end])
        elif marker == 0xE2 and content.startswith(b"MPF\0", start):
            others.append(content[start + 4 : end])
    return [b"".join(exif), *others]


def why_endless(image: Image.Image, content: bytes, size: tuple[int, int]) -> str | None:
    """Return why decoding an opened image would take far longer than its size says; None if it would not.

    Every scan of a JPEG visits all pixels, and a scan needs no more than a dozen bytes.
    """
    if image.format not in {"JPEG", "MPO"}:
        return None
    pixels = size[0] * size[1]
    if len(content) // _LEAST_SCAN * pixels <= _VISITED or not _in_scans(image, content):
        return None
    scans = content.count(b"\xff\xda")
    return f"damaged: it has {scans:,} scans" if scans > _FEW_SCANS and scans * pixels > _VISITED else None


def _in_scans(image: Image.Image, content: bytes) -> bool:
    """Return whether the decoder of a JPEG keeps all coefficients: it is progressive, or its components come one by one."""
    if "progressive" in image.info or "progression" in image.info:
        return True
    first = next((content[start] for marker, start, _ in _segments(content) if marker == 0xDA and start < len(content)), 0)
    return first != len(image.getbands())


def bytes_needed(image: Image.Image, content: bytes, size: tuple[int, int]) -> int:
    """Return how many bytes the pixels of an image take at most while it is decoded and brought to working size.

    Args:
        image: opened, perhaps to be decoded smaller (`draft`), not loaded.
        content: its file.
        size: width and height in the file.
    """
    width, height = image.size
    pixels, whole, mode = width * height, size[0] * size[1], image.mode
    if whole <= _FEW_PIXELS and image.format != "TIFF":  # in one of its tiles may be room for more
        return whole * _MOST
    converting = 8 if "transparency" in image.info else _CONVERTING.get(mode, 4)
    loading = _loading(image, content, whole)
    kept = pixels * (_KEPT.get(mode, 4) + 4 * _is_turned(image, content))
    return kept + max(pixels * converting, loading) + _WEIGHTS * max(width, height)


def _is_turned(image: Image.Image, content: bytes) -> bool:
    """Return whether an image is to be turned upright, or may be by what is not read here."""
    exif = image.info.get("exif")
    turns = {orientation(exif) if isinstance(exif, bytes) else None, orientation(exif_of(content))}
    turns.add(getattr(image, "tag_v2", {}).get(0x0112))
    return not turns <= {None, 1} or b"tiff:Orientation" in content[:SHORT]


def _loading(image: Image.Image, content: bytes, whole: int) -> int:
    """Return the bytes that a format's decoder takes beside the pixels that it gives."""
    kind, bands = image.format, len(image.getbands())
    if kind in {"JPEG", "MPO"}:
        return _coefficients(image, whole) if _in_scans(image, content) else 0
    if kind == "TIFF":
        return _largest_part(image)
    if kind == "JPEG2000":
        return _largest_tile(content, whole) * bands * (6 if image.mode.startswith("I") else 5)
    if kind == "WEBP":
        return 12 * whole
    if kind in {"AVIF", "HEIF"}:
        return (16 if _is_high(content) else 8) * whole
    return 0


def _coefficients(image: Image.Image, whole: int) -> int:
    """Return the bytes of all coefficients of a JPEG: two for each value of each component."""
    factors = [(layer[1], layer[2]) for layer in getattr(image, "layer", ())] or [(1, 1)]
    widest, highest = max(1, *(h for h, _ in factors)), max(1, *(v for _, v in factors))
    return int(2 * whole * sum(h * v for h, v in factors) // (widest * highest))


def _largest_part(image: Image.Image) -> int:
    """Return the bytes of the largest strip or tile of a TIFF, which a decoder unpacks whole where it is compressed."""
    tiles: Any = getattr(image, "tile", ())
    if not tiles or tiles[0][0] != "libtiff":
        return 0
    tags = getattr(image, "tag_v2", {})

    def number(tag: int, default: int) -> int:
        value = tags.get(tag, default)
        value = max(value, default=default) if isinstance(value, tuple) else value
        return value if isinstance(value, int) and value > 0 else default

    width, height = image.size
    area = number(322, width) * number(323, min(number(278, height), height))
    return area * (4 if image.info.get("compression") == "jpeg" else number(277, 1) * -(-number(258, 8) // 8))


def _largest_tile(content: bytes, whole: int) -> int:
    """Return the pixels of the largest tile of a JPEG 2000, by its marker SIZ."""
    place = content.find(b"\xff\x4f\xff\x51")
    if place < 0 or place + 32 > len(content):
        return whole
    right, bottom, _, _, width, height = struct.unpack_from(">6I", content, place + 8)
    tile: int = min(width, right) * min(height, bottom)
    return min(whole, tile)


def _is_high(content: bytes) -> bool:
    """Return whether a file of AVIF or HEIF says that its values have more than 8 bits."""
    av1, hevc = content.find(b"av1C"), content.find(b"hvcC")
    of_av1, of_hevc = content[av1 + 6 : av1 + 7] if av1 >= 0 else b"", content[hevc + 21 : hevc + 23] if hevc >= 0 else b""
    return any(byte & 0x40 for byte in of_av1) or any(byte & 7 for byte in of_hevc)


def _largest_in_icon(content: bytes) -> int:
    """Return the pixels of the largest image in an icon, by the images' own heads."""
    count, largest = int.from_bytes(content[4:6], "little"), 0
    for entry in range(6, min(6 + 16 * count, len(content) - 15), 16):
        [place] = struct.unpack_from("<I", content, entry + 12)
        if content[place : place + 8] == b"\x89PNG\r\n\x1a\n" and place + 24 <= len(content):
            width, height = struct.unpack_from(">II", content, place + 16)
        elif content[place : place + 4] in _BITMAP_HEADS and place + 12 <= len(content):
            width, height = (abs(side) for side in struct.unpack_from("<ii", content, place + 4))
        elif content.startswith(_OLD_BITMAP_HEAD, place) and place + 8 <= len(content):
            width, height = struct.unpack_from("<HH", content, place + 4)
        else:
            continue
        largest = max(largest, width * height)
    return largest
