"""Small pictures of every format that is read, and their seeded mutations: number N is always the same picture."""

from __future__ import annotations

import io
import random
import struct
import zlib
from functools import cache
from typing import Any

import numpy as np
from PIL import Image

from thawlab.data.formats import plugins_here
from thawlab.data.salvage import png_chunks

SIZE = (48, 40)
# Values that a field of a head is set to.
_EXTREMES = (0, 1, 2, 7, 8, 0x7F, 0x80, 0xFF, 0x100, 0x7FFF, 0x8000, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
_SAVED: tuple[tuple[str, str, str, dict[str, Any]], ...] = (
    ("jpeg", "JPEG", "RGB", {"quality": 80}),
    ("jpeg-progressive", "JPEG", "RGB", {"progressive": True, "subsampling": 0}),
    ("jpeg-grey", "JPEG", "L", {}),
    ("jpeg-cmyk", "JPEG", "CMYK", {}),
    ("jpeg-exif", "JPEG", "RGB", {"exif": True}),
    ("png", "PNG", "RGB", {}),
    ("png-alpha", "PNG", "RGBA", {"exif": True}),
    ("png-palette", "PNG", "P", {"transparency": 3}),
    ("png-bits", "PNG", "1", {}),
    ("png-16", "PNG", "I;16", {}),
    ("png-animated", "PNG", "RGB", {"save_all": True}),
    ("gif", "GIF", "P", {}),
    ("gif-animated", "GIF", "P", {"save_all": True, "transparency": 1, "disposal": 2}),
    ("bmp", "BMP", "RGB", {}),
    ("bmp-palette", "BMP", "P", {}),
    ("webp", "WEBP", "RGB", {}),
    ("webp-lossless", "WEBP", "RGBA", {"lossless": True, "exif": True}),
    ("webp-animated", "WEBP", "RGB", {"save_all": True}),
    ("tiff", "TIFF", "RGB", {}),
    ("tiff-lzw", "TIFF", "RGB", {"compression": "tiff_lzw"}),
    ("tiff-deflate", "TIFF", "RGBA", {"compression": "tiff_adobe_deflate"}),
    ("tiff-jpeg", "TIFF", "RGB", {"compression": "jpeg"}),
    ("tiff-fax", "TIFF", "1", {"compression": "group4"}),
    ("tiff-16", "TIFF", "I;16", {}),
    ("tiff-float", "TIFF", "F", {}),
    ("ppm", "PPM", "RGB", {}),
    ("pgm", "PPM", "L", {}),
    ("pbm", "PPM", "1", {}),
    ("pfm", "PPM", "F", {}),
    ("jp2", "JPEG2000", "RGB", {}),
    ("j2k", "JPEG2000", "L", {"no_jp2": True}),
    ("jp2-alpha", "JPEG2000", "RGBA", {"tile_size": (32, 32)}),
    ("avif", "AVIF", "RGB", {"speed": 10}),
    ("avif-alpha", "AVIF", "RGBA", {"speed": 10, "exif": True}),
    ("ico", "ICO", "RGBA", {"sizes": [(32, 32), (16, 16)]}),
    ("ico-bmp", "ICO", "RGBA", {"sizes": [(32, 32)], "bitmap_format": "bmp"}),
    ("tga", "TGA", "RGB", {}),
    ("tga-rle", "TGA", "RGBA", {"compression": "tga_rle"}),
    ("heif", "HEIF", "RGB", {"exif": True}),
    ("heif-alpha", "HEIF", "RGBA", {}),
)


def drawn(mode: str) -> Image.Image:
    """Draw a picture with a gradient and some noise."""
    rng = np.random.default_rng(0)
    ramp = np.add.outer(np.arange(SIZE[1]) * 3, np.arange(SIZE[0]) * 2)[..., None] + rng.integers(0, 40, (SIZE[1], SIZE[0], 3))
    image = Image.fromarray(ramp.astype(np.uint8))
    if mode in {"I;16", "F"}:
        return Image.fromarray((ramp[..., 0] * 200).astype(np.uint16 if mode == "I;16" else np.float32))
    if mode == "RGBA":
        image.putalpha(Image.fromarray(ramp[..., 0].astype(np.uint8)))
    return image.convert(mode)


@cache
def seeds() -> dict[str, bytes]:
    """Return the pictures that are mutated, by name; those whose format this machine cannot write are left out."""
    plugins_here()
    found = {}
    for name, kind, mode, given in _SAVED:
        if kind not in Image.SAVE:
            continue
        image, options = drawn(mode), dict(given)
        if options.pop("exif", False):
            exif = Image.Exif()
            exif[0x0112], exif[0x010F] = 6, "thawlab"
            options["exif"] = exif
        if "save_all" in options:
            options["append_images"] = [image.rotate(90), image.rotate(180)]
        buffer = io.BytesIO()
        image.save(buffer, kind, **options)
        found[name] = buffer.getvalue()
    found["p3"] = b"P3 6 4 200\n" + b" ".join(b"%d" % (k * 5 % 200) for k in range(72))
    found["pgm-maxval"] = b"P5 12 10 100\n" + bytes(range(120))
    return found


def _flip(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 2, 8, 64))):
        place = rng.randrange(len(content))
        content[place] ^= 1 << rng.randrange(8)


def _cut(content: bytearray, rng: random.Random) -> None:
    del content[rng.randrange(len(content)) :]


def _set_head(content: bytearray, rng: random.Random) -> None:
    for _ in range(rng.randint(1, 4)):
        content[rng.randrange(min(64, len(content)))] = rng.randrange(256)


def _set_field(content: bytearray, rng: random.Random) -> None:
    """Set a number of 2 or 4 bytes, mostly near the start, to one that lengths and sizes do not have."""
    form = rng.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(form)
    if len(content) > size:
        place = rng.randrange(len(content) - size) if rng.random() < 0.4 else rng.randrange(min(200, len(content) - size))
        struct.pack_into(form, content, place, rng.choice(_EXTREMES) & (256**size - 1))


def _splice(content: bytearray, rng: random.Random) -> None:
    other = rng.choice(list(seeds().values()))
    start, length, place = rng.randrange(len(other)), rng.randint(1, 400), rng.randrange(len(content) + 1)
    content[place : place + rng.choice((0, length))] = other[start : start + length]


def _swap(content: bytearray, rng: random.Random) -> None:
    """Put the start of another format before the rest."""
    other, length = rng.choice(list(seeds().values())), rng.choice((4, 8, 12, 16, 32, 64))
    content[:length] = other[:length]


def _repeat(content: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(content)), rng.randint(1, 200)
    content[start:start] = content[start : start + length] * rng.choice((1, 2, 50))


def _blank(content: bytearray, rng: random.Random) -> None:
    start, length = rng.randrange(len(content)), rng.randint(1, 200)
    content[start : start + length] = bytes([rng.choice((0, 255))]) * len(content[start : start + length])


MUTATIONS = (_flip, _cut, _set_head, _set_field, _set_field, _splice, _swap, _repeat, _blank)


def with_checksums(content: bytes) -> bytes:
    """Return a PNG with the checksums of its chunks made right: a decoder would not look farther otherwise."""
    mended = bytearray(content)
    for _, start, end in png_chunks(content):
        if end <= len(content):
            mended[end - 4 : end] = struct.pack(">I", zlib.crc32(content[start + 4 : end - 4]))
    return bytes(mended)


def mutated(number: int) -> tuple[str, bytes]:
    """Return the mutated picture of a number, and the name of what it was."""
    rng = random.Random(number)
    name = sorted(seeds())[number % len(seeds())]
    content = bytearray(seeds()[name])
    for _ in range(rng.choice((1, 1, 1, 2, 3, 6))):
        rng.choice(MUTATIONS)(content, rng)
        content = content or bytearray(b"\0")
    return name, with_checksums(bytes(content)) if name.startswith("png") and rng.random() < 0.8 else bytes(content)
