"""Pictures made to exhaust time or memory, in small files; each is one that a reader of some format has to be kept from."""

from __future__ import annotations

import io
import struct
import zlib
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from thawlab.data.formats import plugins_here

SIDE = 13_300  # 177 million pixels: just within what is allowed
_PNG = b"\x89PNG\r\n\x1a\n"


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def zeros(count: int) -> bytes:
    """Return so many zeros, deflated, without making them first."""
    packer, block, parts = zlib.compressobj(9), bytes(1 << 20), []
    for _ in range(count >> 20):
        parts.append(packer.compress(block))
    return b"".join([*parts, packer.compress(bytes(count & ((1 << 20) - 1))), packer.flush()])


def png(
    width: int, height: int, depth: int = 8, colour: int = 2, *before: bytes, laced: int = 0, data: bytes | None = None
) -> bytes:
    """Return a PNG of zeros; with no `data` all of its pixels are there."""
    row = 1 + -(-width * depth * {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[colour] // 8)
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, laced))
    palette = chunk(b"PLTE", bytes(range(30))) if colour == 3 else b""
    return b"".join(
        [_PNG, head, palette, *before, chunk(b"IDAT", zeros(row * height) if data is None else data), chunk(b"IEND", b"")]
    )


def flat(kind: str, mode: str, side: int, colour: Any, **options: Any) -> bytes:
    buffer = io.BytesIO()
    Image.new(mode, (side, side), colour).save(buffer, kind, **options)
    return buffer.getvalue()


def tiff(entries: list[tuple[int, int, int, int]], after: bytes, order: str = "<") -> bytes:
    """Return a TIFF of some tags (tag, kind, count, value), and bytes after them."""
    mark = b"II*\0" if order == "<" else b"MM\0*"
    tags = b"".join(struct.pack(order + "HHII", *entry) for entry in sorted(entries))
    return mark + struct.pack(order + "IH", 8, len(entries)) + tags + bytes(4) + after


def overlapping_tags(size: int) -> bytes:
    """Return a TIFF whose thousands of tags are all the same bytes."""
    count = size // 24
    basic = [(256, 4, 1, 8), (257, 4, 1, 8), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1), (273, 4, 1, 8), (279, 4, 1, 64)]
    more = [(1000 + k, 7, size // 2, 14 + 12 * (count + len(basic))) for k in range(count)]
    return tiff([*basic, *more], bytes(size // 2))


def jpeg_segment(marker: int, content: bytes) -> bytes:
    return bytes([0xFF, marker]) + struct.pack(">H", len(content) + 2) + content


def with_segments(jpeg: bytes, *segments: bytes) -> bytes:
    return jpeg[:2] + b"".join(segments) + jpeg[2:]


def many_scans(side: int, scans: int) -> bytes:
    """Return a progressive JPEG whose scans all say nothing."""
    frame = jpeg_segment(0xC2, struct.pack(">BHHB", 8, side, side, 1) + bytes([1, 0x11, 0]))
    tables = jpeg_segment(0xDB, bytes([0]) + b"\x01" * 64) + jpeg_segment(0xC4, bytes([0, 1]) + bytes(15) + b"\0")
    tables += jpeg_segment(0xC4, bytes([0x10, 1]) + bytes(15) + b"\0")
    first = jpeg_segment(0xDA, bytes([1, 1, 0, 0, 0, 0])) + b"\0"
    scan = jpeg_segment(0xDA, bytes([1, 1, 0, 1, 63, 0])) + b"\0"
    return b"\xff\xd8" + frame + tables + first + scan * scans + b"\xff\xd9"


def tile_of(width: int, height: int, tile: int) -> bytes:
    """Return a small TIFF in one deflated tile that is far larger than the picture."""
    data = zeros(tile * tile * 3)
    entries = [(256, 4, 1, width), (257, 4, 1, height), (259, 3, 1, 8), (262, 3, 1, 2), (277, 3, 1, 3), (284, 3, 1, 1)]
    place = 8 + 2 + 12 * 10 + 4
    entries += [(258, 3, 3, place), (322, 4, 1, tile), (323, 4, 1, tile), (324, 4, 1, place + 6), (325, 4, 1, len(data))]
    place += 12
    entries[6], entries[9] = (258, 3, 3, place), (324, 4, 1, place + 6)
    return tiff(entries, struct.pack("<HHH", 8, 8, 8) + data)


def icon(inner: bytes) -> bytes:
    return struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner


def _small_jpeg() -> bytes:
    return flat("JPEG", "RGB", 64, (9, 200, 30))


def _exif_bomb() -> bytes:
    block = b"Exif\0\0" + overlapping_tags(64_000)
    return with_segments(_small_jpeg(), jpeg_segment(0xE1, block[:65_000]))


def _exif_in_pieces() -> bytes:
    """Return a JPEG whose EXIF is spread over many segments, of which Pillow makes one."""
    block = overlapping_tags(400_000)
    pieces = [block[start : start + 60_000] for start in range(0, len(block), 60_000)]
    return with_segments(_small_jpeg(), *(jpeg_segment(0xE1, b"Exif\0\0" + piece) for piece in pieces))


def _laid_out(width: int, height: int, kind: str) -> bytes:
    head = {"P5": b"P5 %d %d 255\n", "P5 100": b"P5 %d %d 100\n", "P3": b"P3 %d %d 255\n"}[kind] % (width, height)
    return head + (b"1 " * (width * height) if kind == "P3" else bytes(width * height))


CRAFTED: dict[str, Callable[[], bytes]] = {
    "png grey": lambda: png(SIDE, SIDE, 8, 0),
    "png bits": lambda: png(SIDE, SIDE, 1, 0),
    "png rgb": lambda: png(SIDE, SIDE),
    "png rgba": lambda: png(SIDE, SIDE, 8, 6),
    "png grey and alpha": lambda: png(SIDE, SIDE, 8, 4),
    "png of 16 bits": lambda: png(SIDE, SIDE, 16, 0),
    "png of 16 bits, 80 million": lambda: png(9_000, 9_000, 16, 0),
    "png palette with a transparent colour": lambda: png(SIDE, SIDE, 8, 3, chunk(b"tRNS", b"\0")),
    "png rgba, 85 million": lambda: png(9_200, 9_200, 8, 6),
    "png interlaced": lambda: png(8_000, 8_000, 8, 2, laced=1),
    "png that promises": lambda: png(SIDE, SIDE, 8, 2, data=zeros(1 << 20)),
    "png one pixel wide": lambda: png(1, 170_000_000, 8, 0, data=zeros(1 << 20)),
    "png one pixel high": lambda: png(170_000_000, 1, 8, 0),
    "png two pixels high": lambda: png(20_000_000, 2, 8, 0),
    "png of texts": lambda: png(8, 8, 8, 2, *(chunk(b"zTXt", b"k%d\0\0" % k + zeros(1_000_000)) for k in range(60))),
    "png profile": lambda: png(8, 8, 8, 2, chunk(b"iCCP", b"x\0\0" + zeros(200_000_000))),
    "png exif of overlapping tags": lambda: png(8, 8, 8, 2, chunk(b"eXIf", overlapping_tags(400_000))),
    "webp": lambda: flat("WEBP", "RGB", SIDE, (9, 200, 30), lossless=True, method=0),
    "webp rgba, 40 million": lambda: flat("WEBP", "RGBA", 6_300, (9, 200, 30, 90), lossless=True, method=0),
    "jpeg": lambda: flat("JPEG", "RGB", SIDE, (9, 200, 30)),
    "jpeg progressive": lambda: flat("JPEG", "RGB", SIDE, (9, 200, 30), progressive=True, subsampling=0),
    "jpeg progressive, 100 million": lambda: flat("JPEG", "RGB", 10_000, (9, 200, 30), progressive=True, subsampling=0),
    "jpeg cmyk": lambda: flat("JPEG", "CMYK", SIDE, (9, 200, 30, 9)),
    "jpeg of scans": lambda: many_scans(13_000, 4_000),
    "jpeg small of scans": lambda: many_scans(1_000, 40_000),
    "jpeg exif of overlapping tags": _exif_bomb,
    "jpeg exif in pieces": _exif_in_pieces,
    "gif": lambda: flat("GIF", "P", SIDE, 3),
    "gif transparent": lambda: flat("GIF", "P", SIDE, 3, transparency=3),
    "bmp of runs": lambda: (
        b"BM"
        + struct.pack("<IIIIiiHHIIiiII", 0, 0, 54 + 1024, 40, SIDE, SIDE, 1, 8, 1, 0, 0, 0, 0, 0)
        + bytes(1024)
        + (b"\xff\x05" * (SIDE // 255) + b"\x00\x00") * SIDE
    ),
    "tiff": lambda: flat("TIFF", "RGB", SIDE, (9, 200, 30), compression="tiff_adobe_deflate"),
    "tiff in one strip": lambda: flat("TIFF", "RGB", 10_000, (9, 200, 30), compression="tiff_adobe_deflate", strip_size=10**9),
    "tiff of 16 bits": lambda: flat("TIFF", "I;16", SIDE, 777, compression="tiff_adobe_deflate"),
    "tiff of floats": lambda: flat("TIFF", "F", 7_000, 0.5, compression="tiff_adobe_deflate"),
    "tiff in one huge tile": lambda: tile_of(16, 16, 20_000),
    "tiff of overlapping tags": lambda: overlapping_tags(400_000),
    "jp2": lambda: flat("JPEG2000", "RGB", 9_000, (9, 200, 30)),
    "jp2, 30 million": lambda: flat("JPEG2000", "RGB", 5_500, (9, 200, 30)),
    "avif": lambda: flat("AVIF", "RGB", 11_000, (9, 200, 30), speed=10),
    "avif, 50 million": lambda: flat("AVIF", "RGB", 7_000, (9, 200, 30), speed=10),
    "heif": lambda: flat("HEIF", "RGB", 9_000, (9, 200, 30)),
    "icon of a huge png": lambda: icon(png(SIDE, SIDE, 8, 6)),
    "icon of a huge bitmap": lambda: icon(
        struct.pack("<IiiHHIIiiII", 40, SIDE, 2 * SIDE, 1, 32, 0, 0, 0, 0, 0, 0) + bytes(1 << 20)
    ),
    "pgm of another range": lambda: _laid_out(3_000, 3_000, "P5 100"),
    "ppm as text": lambda: _laid_out(3_000, 1_000, "P3"),
    "tga of runs": lambda: (
        struct.pack("<BBBHHBHHHHBB", 0, 0, 10, 0, 0, 0, 0, 0, SIDE, SIDE, 32, 0x28) + b"\xff\1\2\3\4" * (SIDE * SIDE // 128)
    ),
    "webp of many frames": lambda: _animated("WEBP"),
    "gif of many frames": lambda: _animated("GIF"),
    "noise that is no picture": lambda: np.random.default_rng(0).bytes(1 << 20),
}


def _animated(kind: str) -> bytes:
    frames = [Image.new("RGB", (2_000, 2_000), (k, 2 * k, 3 * k)) for k in range(20)]
    buffer = io.BytesIO()
    frames[0].save(buffer, kind, save_all=True, append_images=frames[1:])
    return buffer.getvalue()


def crafted(names: list[str] | None = None) -> dict[str, bytes]:
    """Return the pictures by name; those whose format this machine cannot write are left out."""
    plugins_here()
    found = {}
    for name, make in CRAFTED.items():
        if names is None or name in names:
            try:
                found[name] = make()
            except (KeyError, OSError):  # no encoder here
                continue
    return found
