"""What decoding takes is never more than was foretold: measured in processes of their own."""

from __future__ import annotations

import contextlib
import io
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from thawlab.data import decode as decoding
from thawlab.data.decode import BadImageError, decode, open_image
from thawlab.data.decoding_need import bytes_needed, overstates, why_endless
from thawlab.data.formats import plugins_here
from thawlab.data.preprocessing import Preprocessing

LOOK = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
SIDE = 3000
COLOURS = {
    "RGB": (9, 200, 30),
    "RGBA": (9, 200, 30, 99),
    "L": 77,
    "LA": (9, 99),
    "P": 3,
    "1": 1,
    "I;16": 777,
    "F": 0.5,
    "CMYK": (1, 2, 3, 4),
}
CASES: list[tuple[str, str, dict[str, Any]]] = [
    *((mode, "PNG", {}) for mode in ("RGB", "RGBA", "L", "LA", "P", "1", "I;16")),
    ("P", "PNG", {"transparency": 3}),
    ("RGB", "PNG", {"transparency": (9, 200, 30)}),
    ("RGB", "JPEG", {"progressive": True, "subsampling": 0}),
    ("RGB", "JPEG", {"progressive": True}),
    ("CMYK", "JPEG", {"progressive": True}),
    ("P", "GIF", {"transparency": 3}),
    ("RGB", "BMP", {}),
    ("RGB", "WEBP", {"lossless": True, "method": 0}),
    ("RGBA", "WEBP", {"lossless": True, "method": 0}),
    ("RGB", "TIFF", {"compression": "tiff_lzw"}),
    ("RGB", "TIFF", {"compression": "tiff_adobe_deflate", "strip_size": 10**9}),
    ("RGBA", "TIFF", {"compression": "tiff_adobe_deflate"}),
    ("F", "TIFF", {}),
    ("I;16", "TIFF", {}),
    ("L", "PPM", {}),
    ("RGB", "JPEG2000", {}),
    ("RGBA", "JPEG2000", {}),
    ("RGB", "JPEG2000", {"tile_size": (512, 512)}),
    ("RGB", "AVIF", {"speed": 10, "subsampling": "4:4:4"}),
    ("RGBA", "AVIF", {"speed": 10}),
    ("RGB", "HEIF", {}),
    ("RGBA", "TGA", {"compression": "tga_rle"}),
]
MEASURE = """
import sys
from pathlib import Path
from thawlab.data.decode import decode, open_image
from thawlab.data.preprocessing import Preprocessing
def memory(key):
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
look = Preprocessing(size=64, mean=(0.5,) * 3, std=(0.5,) * 3)
large, small = (Path(name).read_bytes() for name in sys.argv[1:])
decode(small, look)
Path("/proc/self/clear_refs").write_text("5")
start = memory("VmRSS")
decode(large, look)
print(memory("VmHWM") - start)
"""


def flat(mode: str, kind: str, side: int, options: dict[str, Any]) -> bytes:
    plugins_here()
    if kind not in Image.SAVE:
        pytest.skip(f"nothing here writes {kind}")
    buffer = io.BytesIO()
    Image.new(mode, (side, side), COLOURS[mode]).save(buffer, kind, **options)
    return buffer.getvalue()


def foretold(content: bytes) -> int:
    image = open_image(content)
    size = image.size
    if (draft := LOOK.draft_size(*size)) and image.mode in {"RGB", "L"}:
        image.draft(None, draft)
    return bytes_needed(image, content, size)


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="memory is read from Linux' /proc")
@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(("mode", "kind", "options"), CASES)
def test_no_format_takes_more_than_was_foretold(
    mode: str, kind: str, options: dict[str, Any], turned: bool, tmp_path: Path
) -> None:
    if turned:
        if kind not in {"PNG", "JPEG", "TIFF", "WEBP"}:
            pytest.skip("nothing writes an orientation into it")
        exif = Image.Exif()
        exif[0x0112] = 6
        options = {**options, "exif": exif}
    content = flat(mode, kind, SIDE, options)
    (tmp_path / "large").write_bytes(content)
    (tmp_path / "small").write_bytes(flat(mode, kind, 64, options))
    command = [sys.executable, "-W", "ignore", "-c", MEASURE, str(tmp_path / "large"), str(tmp_path / "small")]
    taken = int(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    # Beside the pixels stand the file itself and what the decoder's library keeps.
    assert taken <= foretold(content) + len(content) + 8_000_000


def test_what_takes_too_much_is_refused_before_it_is_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    content = flat("RGBA", "PNG", 1000, {})
    assert decode(content, LOOK).shape == (64, 64, 3)
    monkeypatch.setattr(decoding, "MOST_BYTES", 7_900_000)
    with pytest.raises(
        BadImageError, match=r"^too large: decoding 1000×1000 pixels of PNG takes 8 MB, more than 8; save it smaller$"
    ):
        decode(content, LOOK)
    assert decoding.BUDGET.free == decoding.BUDGET.size


def test_the_budget_is_given_back_whatever_happens() -> None:
    content = flat("RGB", "PNG", 800, {})
    for broken in (content, content[: len(content) // 2], content[:-20]):
        with contextlib.suppress(BadImageError):
            decode(broken, LOOK)
        assert decoding.BUDGET.free == decoding.BUDGET.size


def tags(count: int, size: int, order: str) -> bytes:
    mark = b"II*\0" if order == "<" else b"MM\0*"
    entries = b"".join(struct.pack(order + "HHII", 1000 + k, 7, size, 8) for k in range(count))
    return mark + struct.pack(order + "IH", 8, count) + entries + bytes(size)


@pytest.mark.parametrize("order", ["<", ">"])
def test_tags_that_are_all_the_same_bytes_are_noticed(order: str) -> None:
    assert overstates(tags(500, 40_000, order)) and overstates(b"Exif\0\0" + tags(500, 40_000, order))
    assert not overstates(tags(2, 40_000, order))
    assert not overstates(tags(500, 4, order))  # such values stand in the directory itself
    assert not any(overstates(tags(500, 40_000, order)[:end]) for end in range(60))


def test_scans_are_counted_by_the_pixels_that_they_visit() -> None:
    content = flat("RGB", "JPEG", 3000, {"progressive": True})
    image = open_image(content)
    assert why_endless(image, content, image.size) is None
    more = content + b"\xff\xda" * 1500
    assert why_endless(image, more, image.size) == "damaged: it has 1,510 scans"
    small = flat("RGB", "JPEG", 1000, {"progressive": True})
    assert why_endless(open_image(small), small + b"\xff\xda" * 1500, (1000, 1000)) is None


@pytest.mark.parametrize(
    "inner",
    [
        b"\x89PNG\r\n\x1a\n" + struct.pack(">I4sII", 13, b"IHDR", 5000, 5000),
        struct.pack("<Iii", 40, 5000, -10_000) + bytes(40),
        struct.pack("<IHH", 12, 5000, 5000) + bytes(40),
    ],
)
def test_an_icon_of_large_images_is_not_opened(inner: bytes) -> None:
    icon = struct.pack("<HHH", 0, 1, 1) + struct.pack("<BBBBHHII", 16, 16, 0, 0, 1, 32, len(inner), 22) + inner
    with pytest.raises(BadImageError, match=r"^too large: an icon of [25]\d,000,000 pixels$"):
        open_image(icon)
    small = io.BytesIO()
    Image.new("RGBA", (256, 256)).save(small, "ICO", bitmap_format="bmp")
    assert open_image(small.getvalue()).size == (256, 256)
