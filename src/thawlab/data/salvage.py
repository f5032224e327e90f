"""Images whose metadata or end is damaged and whose pixels are whole: the same files without what does not matter."""

import re
import struct
from collections.abc import Iterator

_PNG = b"\x89PNG\r\n\x1a\n"
_CRITICAL = {b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS"}
# Segments of a JPEG that hold data about the image: APP1 to APP13, APP15 and comments; APP0 (JFIF) and APP14 (Adobe) say how
# its colours are meant.
_ABOUT = {*range(0xE1, 0xEE), 0xEF, 0xFE}
_END = b"\xff\xd9"
# How EXIF writes whole numbers, by the number of the kind.
_WHOLE = {1: "B", 3: "H", 4: "I", 8: "h", 9: "i"}


def png_chunks(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    """Yield each chunk of a PNG: its kind, where it begins and where the next one does; nothing of another file."""
    place = 8 if content.startswith(_PNG) else len(content)
    while place + 8 <= len(content):
        length, kind = struct.unpack(">I4s", content[place : place + 8])
        yield kind, place, place + length + 12
        place += length + 12


def without_metadata(content: bytes) -> bytes | None:
    """Return a PNG or JPEG without its metadata, or None where there is nothing to take away or the file is of another kind."""
    bare = _bare_png(content) if content.startswith(_PNG) else _bare_jpeg(content)
    return bare if bare is not None and bare != content else None


def _bare_png(content: bytes) -> bytes | None:
    """Return a PNG with the chunks alone that its pixels need; their own checksums stay as they are."""
    kept = [content[:8]]
    for kind, start, end in png_chunks(content):
        if kind in _CRITICAL:
            kept.append(content[start:end])
        if kind == b"IEND":
            break
    return b"".join(kept)


def _bare_jpeg(content: bytes) -> bytes | None:
    """Return a JPEG without the segments before its first scan that are about the image."""
    if not content.startswith(b"\xff\xd8"):
        return None
    kept, place = [content[:2]], 2
    while place + 4 <= len(content) and content[place] == 0xFF:
        marker = content[place + 1]
        if marker == 0xFF:  # a fill byte
            place += 1
            continue
        if marker == 0xDA:
            return b"".join([*kept, content[place:]])
        size = struct.unpack(">H", content[place + 2 : place + 4])[0] + 2
        if marker not in _ABOUT:
            kept.append(content[place : place + size])
        place += size
    return None


def lacks_end(content: bytes) -> bool:
    """Return whether a JPEG lacks the marker that ends it."""
    return content.startswith(b"\xff\xd8") and not content.rstrip(b"\0").endswith(_END)


def padded(content: bytes) -> bool:
    """Return whether a JPEG lacks the marker that ends it and is filled up with zeros, as copies are that were interrupted."""
    return content.endswith(b"\0\0") and lacks_end(content)


def without_padding(content: bytes) -> bytes:
    """Return a JPEG that is filled up with zeros without them; other content as it is."""
    if not padded(content):
        return content
    bare = content.rstrip(b"\0")
    return bare + b"\0" if bare.endswith(b"\xff") else bare  # this zero belongs to the pixels


def has_all_scans(content: bytes) -> bool:
    """Return whether the scans of a JPEG without metadata bring every coefficient of every component to its last bit.

    A progressive image that was cut between two scans is one of less detail, and nothing else shows it (ITU-T T.81, annex G).
    """
    frame = re.search(rb"\xff[\xc0-\xc2]..\x08....(.)", content, re.DOTALL)
    if frame is None:
        return False
    components = frame[1][0]
    known: set[tuple[int, int]] = set()
    for scan in re.finditer(rb"\xff\xda..([\x01-\x04])", content, re.DOTALL):
        count, start = scan[1][0], scan.end()
        settings = content[start + 2 * count : start + 2 * count + 3]
        if len(settings) == 3 and settings[2] & 15 == 0:
            ids = content[start : start + 2 * count : 2]
            known.update((component, k) for component in ids for k in range(settings[0], min(settings[1], 63) + 1))
    return len(known) == 64 * components


def ended(content: bytes, filler: bytes = b"") -> bytes:
    """Return a JPEG with an end marker, after some bytes that change nothing only if all of its pixels are there."""
    cut = content[:-1] if content.endswith(b"\xff") else content
    return cut + filler + _END


def exif_of(content: bytes) -> bytes:
    """Return the EXIF block of a PNG or JPEG as it stands in the file; empty where there is none."""
    for kind, start, end in png_chunks(content):
        if kind == b"eXIf":
            return content[start + 8 : end - 4]
    place = 2
    while content.startswith(b"\xff\xd8") and place + 4 <= len(content) and content[place] == 0xFF and content[place + 1] != 0xDA:
        size = struct.unpack(">H", content[place + 2 : place + 4])[0]
        segment = content[place + 4 : place + 2 + size]
        if content[place + 1] == 0xE1 and segment.startswith(b"Exif"):
            return segment
        place += size + 2
    return b""


def orientation(exif: bytes) -> int | None:
    """Return the orientation that an EXIF block notes, 1 to 8; None where it notes none, or is damaged before it does.

    Only the first directory is read, entry by entry, so that nothing odd beside the orientation matters.
    """
    exif = exif.removeprefix(b"Exif\0\0")
    order = {b"II": "<", b"MM": ">"}.get(exif[:2])
    if order is None or len(exif) < 8:
        return None
    start = struct.unpack(order + "I", exif[4:8])[0]
    if start + 2 > len(exif):
        return None
    count = struct.unpack(order + "H", exif[start : start + 2])[0]
    for place in range(start + 2, min(start + 2 + 12 * count, len(exif) - 11), 12):
        tag, kind, length = struct.unpack(order + "HHI", exif[place : place + 8])
        if tag == 0x0112 and length == 1 and kind in _WHOLE:
            form = order + _WHOLE[kind]
            value = struct.unpack(form, exif[place + 8 : place + 8 + struct.calcsize(form)])[0]
            return value if 1 <= value <= 8 else None
    return None
