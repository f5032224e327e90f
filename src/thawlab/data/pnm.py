"""Large PGM, PPM and PBM files in forms that Pillow reads value by value in Python, brought to those that it reads at once."""

import re

import numpy as np
import numpy.typing as npt

# Shorter files are read in no time, whatever their form.
_SHORT = 1 << 18
_LONGEST_HEAD = 1 << 16
_GAP = rb"(?:\s|#[^\r\n]*[\r\n])+"
_HEAD = re.compile(rb"P([1-6])" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,10})(?:" + _GAP + rb"(\d{1,10}))?\s")
_BITS_HEAD = re.compile(rb"P([14])" + _GAP + rb"(\d{1,10})" + _GAP + rb"(\d{1,10})\s")
_NO_NUMBER = re.compile(rb"[^0-9\s]")
_COMMENT = re.compile(rb"#[^\r\n]*[\r\n]?")


def quick_form(content: bytes) -> bytes:
    """Return a PGM, PPM or PBM with the same pixels in the form that is read at once; other and short files as they are.

    Text becomes bytes, and values up to any maximum become those up to 255 or 65535, rounded as Pillow rounds them.

    Raises:
        ValueError: if the head does not end, or a value is none.
    """
    if len(content) <= _SHORT or content[:1] != b"P" or content[1:2] not in b"12356":
        return content
    head = (_BITS_HEAD if content[1:2] == b"1" else _HEAD).match(content, 0, _LONGEST_HEAD)
    if head is None:
        raise ValueError("its head cannot be read")
    kind, width, height, *rest = (int(group) for group in head.groups() if group is not None)
    body = memoryview(content)[head.end() :]
    count = width * height * (3 if kind in {3, 6} else 1)
    if kind == 1:
        bits = np.frombuffer(b"".join(_COMMENT.sub(b"", bytes(body)).split()), dtype=np.uint8)[:count]
        if ((bits != 48) & (bits != 49)).any():
            raise ValueError("a bit is neither 0 nor 1")
        rows = bits[: len(bits) // width * width].reshape(-1, width) if width else bits.reshape(0, 0)
        return b"P4 %d %d\n" % (width, height) + np.packbits(rows == 49, axis=1).tobytes()
    if not rest or not 0 < rest[0] < 65536:
        raise ValueError("its largest value must be from 1 to 65535")
    most, deep = rest[0], rest[0] > 255 and kind in {2, 5}
    if kind in {5, 6} and (most == 255 or (most == 65535 and deep)):
        return content
    values = _values_in_text(bytes(body), most, count) if kind in {2, 3} else _values_in_bytes(body, most)
    full = 65535 if deep else 255
    scaled = np.minimum(np.rint(np.arange(65536) / most * full), full).astype(">u2" if deep else np.uint8)
    start = b"P%d %d %d %d\n" % (5 if kind in {2, 5} else 6, width, height, full)
    return start + scaled[values[:count]].tobytes()


def _values_in_bytes(body: memoryview, most: int) -> npt.NDArray[np.uint16]:
    size = 1 if most < 256 else 2
    found = np.frombuffer(body[: len(body) // size * size], dtype=np.uint8 if size == 1 else ">u2")
    return found.astype(np.uint16)


def _values_in_text(body: bytes, most: int, count: int) -> npt.NDArray[np.uint16]:
    text = _COMMENT.sub(b"", body)
    if other := _NO_NUMBER.search(text):
        text = text[: other.start()]  # only the pixels must be numbers
    values = np.fromstring(text, dtype=np.int64, sep=" ", count=-1)[:count] if text.strip() else np.zeros(0, np.int64)
    if (values > most).any() or (values < 0).any():
        raise ValueError("a value is larger than the largest")
    return values.astype(np.uint16)
