from __future__ import annotations

import io
import struct
import warnings
import zlib
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thawlab.data import decode as decoding
from thawlab.data.decode import BadImageError, decode, open_image, to_rgb
from thawlab.data.preprocessing import Preprocessing

Encoded = Callable[..., bytes]
LOOK = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def assert_all(image: np.ndarray, colour: tuple[int, int, int], tolerance: int = 0) -> None:
    assert image.shape == (8, 8, 3) and image.dtype == np.uint8
    assert np.abs(image.astype(int) - colour).max() <= tolerance


@pytest.mark.parametrize(
    ("kind", "tolerance"), [("PNG", 0), ("BMP", 0), ("TIFF", 0), ("PPM", 0), ("GIF", 0), ("JPEG", 3), ("WEBP", 3)]
)
def test_common_formats_are_decoded(kind: str, tolerance: int, encoded: Encoded) -> None:
    assert_all(decode(encoded((200, 30, 60), kind=kind), LOOK), (200, 30, 60), tolerance)


def test_pixels_pass_through_the_same_fitting(noise: Callable[..., np.ndarray]) -> None:
    pixels = noise(20, 16, 3)
    assert np.array_equal(decode(pixels, LOOK), decode(saved(Image.fromarray(pixels), "PNG"), LOOK))


@pytest.mark.parametrize(
    ("mode", "value", "kind", "expected", "tolerance"),
    [
        ("L", 90, "PNG", (90, 90, 90), 0),
        ("L", 90, "JPEG", (90, 90, 90), 1),
        ("1", 1, "PNG", (255, 255, 255), 0),
        ("I;16", 65535, "PNG", (255, 255, 255), 0),
        ("I;16", 0x8000, "PNG", (128, 128, 128), 0),
        ("I;16", 0x8000, "TIFF", (128, 128, 128), 0),
        ("I;16", 300, "PNG", (1, 1, 1), 0),
        ("F", 0.5, "TIFF", (128, 128, 128), 0),
        ("F", 100.0, "TIFF", (100, 100, 100), 0),
        ("CMYK", (0, 255, 255, 0), "JPEG", (255, 0, 0), 6),
        ("CMYK", (0, 0, 0, 0), "TIFF", (255, 255, 255), 0),
        ("YCbCr", (128, 128, 128), "JPEG", (128, 128, 128), 2),
        ("LA", (90, 255), "PNG", (90, 90, 90), 0),
        ("LA", (90, 0), "PNG", (255, 255, 255), 0),
        ("RGBA", (200, 30, 60, 255), "PNG", (200, 30, 60), 0),
        ("RGBA", (200, 30, 60, 0), "PNG", (255, 255, 255), 0),
        ("RGBA", (255, 0, 0, 128), "PNG", (255, 127, 127), 1),
    ],
)
def test_every_mode_becomes_rgb(
    mode: str, value: Any, kind: str, expected: tuple[int, int, int], tolerance: int, encoded: Encoded
) -> None:
    assert_all(decode(encoded(value, kind=kind, mode=mode), LOOK), expected, tolerance)


def test_big_endian_16_bit_tiff_is_scaled() -> None:
    values = np.full((8, 8), 0x4000, ">u2").tobytes()
    entries = [(256, 3, 8), (257, 3, 8), (258, 3, 16), (259, 3, 1), (262, 3, 1), (273, 4, 200), (277, 3, 1), (279, 4, 128)]
    tags = b"".join(struct.pack(">HHI", tag, kind, 1) + (struct.pack(">HH", value, 0) if kind == 3 else struct.pack(">I", value))
                    for tag, kind, value in entries)  # fmt: skip
    head = b"MM\x00*" + struct.pack(">IH", 8, len(entries)) + tags + struct.pack(">I", 0)
    assert_all(decode(head.ljust(200, b"\x00") + values, LOOK), (64, 64, 64))


def test_a_palette_with_a_transparent_colour_is_laid_on_white() -> None:
    image = Image.new("P", (8, 8), 0)
    image.putpalette([10, 20, 30, 200, 0, 0])
    image.paste(1, (0, 0, 8, 4))
    opaque = decode(saved(image, "PNG"), LOOK)
    assert opaque[0, 0].tolist() == [200, 0, 0] and opaque[7, 7].tolist() == [10, 20, 30]
    seen_through = decode(saved(image, "PNG", transparency=0), LOOK)
    assert seen_through[0, 0].tolist() == [200, 0, 0] and seen_through[7, 7].tolist() == [255, 255, 255]


def test_a_transparent_colour_of_an_rgb_or_grey_png_is_laid_on_white() -> None:
    assert_all(decode(saved(Image.new("RGB", (8, 8), (1, 2, 3)), "PNG", transparency=(1, 2, 3)), LOOK), (255, 255, 255))
    assert_all(decode(saved(Image.new("L", (8, 8), 7), "PNG", transparency=7), LOOK), (255, 255, 255))


@pytest.mark.parametrize("orientation", range(1, 9))
def test_the_orientation_that_a_camera_noted_is_applied(orientation: int) -> None:
    """The stored pixels are turned so that the upright image has its red mark top left and its green one top right."""
    upright = np.full((16, 16, 3), 255, np.uint8)
    upright[:8, :8], upright[:8, 8:] = (255, 0, 0), (0, 255, 0)
    undo: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a,
        2: lambda a: a[:, ::-1],
        3: lambda a: a[::-1, ::-1],
        4: lambda a: a[::-1],
        5: lambda a: a.transpose(1, 0, 2),
        6: lambda a: np.rot90(a, 1),
        7: lambda a: a[::-1, ::-1].transpose(1, 0, 2),
        8: lambda a: np.rot90(a, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = saved(Image.fromarray(np.ascontiguousarray(undo[orientation](upright))), "PNG", exif=exif)
    look = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
    assert np.array_equal(decode(content, look), upright)


def test_a_turned_jpeg_that_is_decoded_small_is_upright_too() -> None:
    pixels = np.zeros((400, 800, 3), np.uint8)
    pixels[:, 400:] = 255
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees clockwise: the right half becomes the lower one
    result = decode(saved(Image.fromarray(pixels), "JPEG", exif=exif), LOOK)
    assert (result[:3] < 10).all() and (result[5:] > 245).all()


def test_of_an_animation_the_first_frame_is_taken() -> None:
    frames = [Image.new("RGB", (8, 8), colour) for colour in ((255, 0, 0), (0, 255, 0), (0, 0, 255))]
    assert_all(decode(saved(frames[0], "GIF", save_all=True, append_images=frames[1:]), LOOK), (255, 0, 0))


@pytest.mark.parametrize("resize", ["upsample", "pad", "crop"])
@pytest.mark.parametrize("size", [(1, 1), (4000, 5), (5, 4000), (1, 3000)])
def test_extreme_shapes_are_decoded(size: tuple[int, int], resize: str, encoded: Encoded) -> None:
    look = Preprocessing(size=16, resize=resize, mean=(1.0,) * 3, std=(0.5,) * 3)
    image = decode(encoded((0, 0, 0), size=size, kind="JPEG"), look)
    assert image.shape == (16, 16, 3) and image.min() < 10


def test_decoding_a_jpeg_small_changes_little() -> None:
    wave = np.sin(np.linspace(0, 9, 1200))[:, None] * np.cos(np.linspace(0, 7, 1600))
    pixels = np.repeat(((wave + 1) * 127)[..., None], 3, axis=-1).astype(np.uint8)
    look = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
    whole = decode(saved(Image.fromarray(pixels), "PNG"), look)
    small = decode(saved(Image.fromarray(pixels), "JPEG", quality=95), look)
    assert np.abs(whole.astype(int) - small).max() <= 6


def bad_checksum(content: bytes) -> bytes:
    place = content.index(b"IDAT") + 6
    return content[:place] + bytes([content[place] ^ 0xFF]) + content[place + 1 :]


@pytest.mark.parametrize(
    ("damage", "kind", "reason"),
    [
        (lambda _: b"", "PNG", "empty file"),
        (lambda _: b"<html>404</html>", "PNG", "is a web page, as a download leaves it that failed"),
        (lambda content: content[:20], "PNG", ""),
        (lambda content: content[: len(content) // 2], "PNG", "damaged: "),
        (lambda content: content[: len(content) // 2], "JPEG", "damaged: image file is truncated"),
        (bad_checksum, "PNG", "damaged: "),
    ],
)
def test_a_bad_image_gives_its_reason_in_one_line(
    damage: Callable[[bytes], bytes], kind: str, reason: str, noise: Callable[..., np.ndarray]
) -> None:
    content = damage(saved(Image.fromarray(noise(64, 64, 3)), kind))
    with pytest.raises(BadImageError) as error:
        decode(content, LOOK)
    assert str(error.value).startswith(reason) and str(error.value) and "\n" not in str(error.value)


def chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.filterwarnings("error::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("side", [15_000, 60_000])
def test_a_image_of_monstrous_size_is_refused_before_it_is_decoded(side: int) -> None:
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    content = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    with pytest.raises(BadImageError, match="too large"):
        decode(content, LOOK)


def test_decoding_leaves_the_filters_of_warnings_alone(encoded: Encoded) -> None:
    """`warnings.catch_warnings` in threads can leave a filter behind that silences everything (a race)."""
    before, limit = list(warnings.filters), Image.MAX_IMAGE_PIXELS
    content = encoded(kind="JPEG")
    seen = set()

    def look(_: int) -> None:
        decode(content, LOOK)
        seen.add(tuple(warnings.filters))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(look, range(200)))
    assert seen == {tuple(before)} and warnings.filters == before and limit == Image.MAX_IMAGE_PIXELS


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_large_image_is_no_reason_for_a_warning(kind: str, encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 90)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        decode(encoded(kind=kind), LOOK)


def test_our_own_limit_speaks_before_pillows() -> None:
    assert Image.MAX_IMAGE_PIXELS is not None and 2 * Image.MAX_IMAGE_PIXELS >= decoding.MAX_PIXELS
    header = struct.pack(">IIBBBBB", 15_000, 15_000, 8, 2, 0, 0, 0)
    with pytest.raises(BadImageError, match=r"^too large: 15000×15000 pixels$"):
        open_image(b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b""))


def test_a_file_whose_head_lies_about_its_size_is_too_large() -> None:
    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    inner = b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(BadImageError, match=r"^too large: an icon of 3,600,000,000 pixels$"):
        decode(icon, LOOK)


@pytest.mark.parametrize("error", [MemoryError(), OSError("out of memory when reading image file")])
def test_too_little_memory_says_nothing_about_the_image(
    error: Exception, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Image.Image, "convert", lambda *_: (_ for _ in ()).throw(error))
    with pytest.raises(MemoryError):
        decode(encoded(90, kind="PNG", mode="L"), LOOK)


def test_the_limit_counts_pixels(monkeypatch: pytest.MonkeyPatch, encoded: Encoded) -> None:
    monkeypatch.setattr(decoding, "MAX_PIXELS", 12 * 8)
    decode(encoded(size=(12, 8)), LOOK)
    with pytest.raises(BadImageError, match="too large: 13×8 pixels"):
        decode(encoded(size=(13, 8)), LOOK)


def test_rgb_is_returned_as_it_is() -> None:
    image = Image.new("RGB", (2, 2))
    assert to_rgb(image) is image


def test_documents_that_start_other_programs_are_not_opened() -> None:
    content = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n"
    with pytest.raises(BadImageError, match="not an image in a supported format"):
        decode(content, Preprocessing(size=8, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5)))
