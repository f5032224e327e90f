from __future__ import annotations

import io
import re
import struct
import warnings
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thawlab.data.decode import _READERS, BadImageError, decode
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.salvage import ended, exif_of, lacks_end, orientation, without_metadata
from thawlab.data.types import Pixels

LOOK = Preprocessing(size=40, mean=(0.5,) * 3, std=(0.5,) * 3)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 56, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


JPEG, PNG = saved(IMAGE, "JPEG"), saved(IMAGE, "PNG")


def decoded(content: bytes) -> Pixels:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow's about odd metadata
        return decode(content, LOOK)


def exif(turn: int, order: str = ">", odd: bytes = b"") -> bytes:
    """Return an EXIF block with odd entries before and after the orientation."""
    entries = [struct.pack(order + "HHI", 0x010F, 2, 99999) + b"\xff\xff\xff\xff"]
    entries.append(struct.pack(order + "HHIHH", 0x0112, 3, 1, turn, 0))
    entries.append(struct.pack(order + "HHI", 0x8769, 77, 1) + b"abcd")
    mark = b"MM\0*" if order == ">" else b"II*\0"
    return b"Exif\0\0" + mark + struct.pack(order + "I", 8) + struct.pack(order + "H", len(entries)) + b"".join(entries) + odd


def chunk(kind: bytes, data: bytes, wrong: int = 0) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data) ^ wrong)


def inserted(content: bytes, extra: bytes) -> bytes:
    return content[:33] + extra + content[33:]


@pytest.mark.parametrize(
    "extra",
    [
        chunk(b"tEXt", b"a\0b", wrong=1),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 80_000_000)),
        chunk(b"zTXt", b"k\0\0" + zlib.compress(b"x" * 900_000)) * 100,
        chunk(b"iCCP", b"n\0\0no profile"),
        chunk(b"iCCP", b"n\0\0" + zlib.compress(b"x" * 80_000_000)),
        chunk(b"eXIf", b"zzz"),
        chunk(b"pHYs", b"abc"),
        chunk(b"quQu", b"of no known kind", wrong=7),
    ],
    ids=["checksum", "large text", "many texts", "no profile", "large profile", "no exif", "short", "unknown"],
)
def test_what_surrounds_a_png_costs_no_pixel(extra: bytes) -> None:
    assert np.array_equal(decoded(inserted(PNG, extra)), decoded(PNG))


@pytest.mark.parametrize(
    "segment",
    [
        b"\xff\xe2\x00\x10ICC_PROFILE\0\x01",
        b"\xff\xed\x00\x08Photos",
        b"\xff\xe1\x00\x04zz",
        b"\xff\xe1\x00\x0cExif\0\0MM\0*",
        b"\xff\xe2\x00\x0aMPF\0abcd",
    ],
)
def test_what_surrounds_a_jpeg_costs_no_pixel(segment: bytes) -> None:
    assert np.array_equal(decoded(JPEG[:2] + segment + JPEG[2:]), decoded(JPEG))


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("order", "<>")
def test_an_odd_entry_beside_the_orientation_does_not_matter(turn: int, order: str) -> None:
    plain = Image.Exif()
    plain[0x0112] = turn
    for kind in ("JPEG", "PNG"):
        expected = decoded(saved(IMAGE, kind, exif=plain))
        assert orientation(exif(turn, order)) == turn
        assert np.array_equal(decoded(saved(IMAGE, kind, exif=exif(turn, order))), expected)
    broken = inserted(PNG, chunk(b"eXIf", exif(turn, order)[6:]) + chunk(b"tEXt", b"a\0b", wrong=1))
    assert np.array_equal(decoded(broken), decoded(saved(IMAGE, "PNG", exif=plain)))


@settings(max_examples=300, deadline=None)
@given(
    block=st.binary(max_size=120), head=st.sampled_from([b"", b"MM\0*\0\0\0\x08", b"II*\0\x08\0\0\0", b"MM\0*\0\0\0\x08\0\x02"])
)
def test_no_exif_block_costs_an_image(block: bytes, head: bytes) -> None:
    for content in (saved(IMAGE, "JPEG", exif=b"Exif\0\0" + head + block), inserted(PNG, chunk(b"eXIf", head + block))):
        assert decoded(content).shape == (40, 40, 3)
        assert exif_of(content).endswith(block)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"quality": 30, "subsampling": 0}], ids=str)
def test_a_jpeg_without_its_end_is_whole_or_refused(options: dict[str, Any]) -> None:
    for seed in range(5):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))
        content = saved(image, "JPEG", **options)
        assert not lacks_end(content) and lacks_end(content[:-2])
        for cut in (1, 2):
            assert np.array_equal(decoded(content[:-cut]), decoded(content))
        for cut in range(3, 40, 3):
            try:
                assert np.array_equal(decoded(content[:-cut]), decoded(content))
            except BadImageError as error:
                assert "truncated" in str(error)
        with pytest.raises(BadImageError, match="truncated"):
            decoded(content[: len(content) // 2])


def test_a_file_of_another_kind_is_left_alone() -> None:
    assert without_metadata(saved(IMAGE, "WEBP")) is None and without_metadata(b"") is None and without_metadata(PNG) is None
    assert (
        without_metadata(b"\xff\xd8\xff\xe0") is None and not lacks_end(PNG) and ended(b"\xff\xd8a\xff") == b"\xff\xd8a\xff\xd9"
    )


@pytest.mark.parametrize(("ink", "ground"), [(255, 0), (230, 0), (0, 255), (128, 255)])
@pytest.mark.parametrize("mode", ["RGBA", "LA"])
def test_transparency_is_laid_on_a_ground_that_shows_the_drawing(ink: int, ground: int, mode: str) -> None:
    drawing = np.full((40, 40, 4), 255, np.uint8)
    drawing[..., 3] = 0
    drawing[10:30, 10:30] = (ink, ink, ink, 255)
    image = Image.fromarray(drawing).convert(mode)
    pixels = decoded(saved(image, "PNG"))
    assert pixels[0, 0, 0] == ground and pixels[20, 20, 0] == ink


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_that_was_cut_and_filled_up_with_zeros_is_refused_or_whole(progressive: bool) -> None:
    for seed in range(6):
        image = Image.fromarray(np.random.default_rng(seed).integers(0, 256, (40, 40, 3), dtype=np.uint8))
        content = saved(image, "JPEG", progressive=progressive)
        expected = decoded(content)
        assert np.array_equal(decoded(content + bytes(512)), expected)  # padding after the end does no harm
        assert np.array_equal(decoded(content[:-2] + bytes(512)), expected)
        for cut in range(len(content) // 3, len(content) - 2, len(content) // 13):
            for fill in (len(content) - cut, 4096 - cut % 4096, 8000):
                try:
                    assert np.array_equal(decoded(content[:cut] + bytes(fill)), expected)
                except BadImageError as error:
                    assert "truncated" in str(error)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"\0\0\0\x18ftypheic" + bytes(40), "is a HEIC photo; to read it: pip install"),
        (b"\xff\x0a" + bytes(40), "is a JPEG XL image; to read it: pip install pillow-jxl-plugin"),
        (b"<?xml version='1.0'?><svg xmlns='x'/>", "is an SVG drawing; save it as PNG or JPEG"),
        (b"\n<!DOCTYPE html><html>", "is a web page"),
        (bytes(128) + b"DICM" + bytes(40), "is a DICOM image"),
        (b"%PDF-1.7 ...", "is a PDF"),
    ],
)
def test_what_is_called_an_image_and_is_another_format_is_named(
    content: bytes, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("thawlab.data.decode._READERS", tuple(r for r in _READERS if r[1] is None or not r[1](content[:16])))
    with pytest.raises(BadImageError, match=re.escape(words)):
        decoded(content)
