"""Large PGM, PPM and PBM files in slow forms: the same pixels as Pillow's own reader gives, in far less time."""

from __future__ import annotations

import io
import time

import numpy as np
import pytest
from PIL import Image

from thawlab.data import pnm
from thawlab.data.decode import BadImageError, decode
from thawlab.data.pnm import quick_form
from thawlab.data.preprocessing import Preprocessing

LOOK = Preprocessing(size=8, mean=(0.5,) * 3, std=(0.5,) * 3)


def drawn(kind: int, most: int, width: int = 23, height: int = 17) -> bytes:
    rng = np.random.default_rng(most)
    values = rng.integers(0, most, height * width * (3 if kind in {3, 6} else 1), endpoint=True)
    head = b"P%d # a comment\n%d\t%d " % (kind, width, height) + (b"" if kind in {1, 4} else b"\n# another\r%d\n" % most)
    if kind == 1:
        return head + b"\n".join(b"".join(b"%d" % value for value in row) for row in values.reshape(height, width))
    if kind in {2, 3}:
        return (
            head + b"\n# and one\n".join(b" ".join(b"%d" % value for value in row) for row in values.reshape(height, -1)) + b"\n"
        )
    return head + values.astype(">u2" if most > 255 else np.uint8).tobytes()


@pytest.mark.parametrize(
    ("kind", "most"),
    [
        (1, 1),
        (2, 9),
        (2, 255),
        (2, 4095),
        (2, 65535),
        (3, 255),
        (3, 1000),
        (5, 1),
        (5, 100),
        (5, 255),
        (5, 4095),
        (5, 65535),
        (6, 7),
        (6, 255),
        (6, 1023),
        (6, 65535),
    ],
)
@pytest.mark.parametrize("cut", [0, 30])
def test_the_quick_form_has_the_pixels_of_the_slow_one(kind: int, most: int, cut: int, monkeypatch: pytest.MonkeyPatch) -> None:
    content = drawn(kind, most)
    content = content[: len(content) - cut]
    monkeypatch.setattr(pnm, "_SHORT", 0)
    quick, slow = Image.open(io.BytesIO(quick_form(content))), Image.open(io.BytesIO(content))
    assert quick.size == slow.size == (23, 17) and quick.mode == slow.mode
    if cut:
        for image in (quick, slow):
            with pytest.raises((ValueError, OSError)):
                image.load()
    else:
        assert np.array_equal(np.asarray(quick), np.asarray(slow))


def test_short_files_and_others_are_left_alone() -> None:
    for content in (drawn(5, 100), b"P9" + bytes(1 << 20), b"\xff\xd8" + bytes(1 << 20)):
        assert quick_form(content) is content


def test_a_large_one_is_read_at_once() -> None:
    content = b"P5 3000 3000 100\n" + bytes(range(100)) * 90_000
    start = time.thread_time()
    assert decode(content, LOOK).shape == (8, 8, 3)
    assert time.thread_time() - start < 2


@pytest.mark.parametrize(
    "content",
    [
        b"P5" + b" " * (1 << 20),
        b"P5 9 9 100000 " + bytes(1 << 20),
        b"P2 999 999 9 " + b"10 " * (1 << 20),
        b"P1 999 999 " + b"7" * (1 << 20),
    ],
)
def test_what_is_none_is_refused_at_once(content: bytes) -> None:
    start = time.thread_time()
    with pytest.raises(BadImageError, match="damaged: "):
        decode(content, LOOK)
    assert time.thread_time() - start < 2
