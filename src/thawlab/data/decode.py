"""From an image's bytes to uint8 RGB at working size; what cannot be decoded is named with its reason."""

import contextlib
import io
import struct
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps

from thawlab.data.formats import plugins_here
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.errors import first_line

# Part of the key of every cache of decoded images; raise it with each change by which equal bytes become other pixels.
DECODING = 1
# An image of more pixels is refused: decoding it could exhaust the memory. Some of Pillow's readers have the same limit.
MAX_PIXELS = 178_956_970
# Formats of images only: Pillow's readers of documents (EPS) would start other programs.
Image.init()
_WANTED: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
_WANTED += tuple(plugin.reader for plugin in plugins_here())
_READERS = tuple(Image.OPEN[name] for name in _WANTED if name in Image.OPEN)


class BadImageError(Exception):
    """An image whose bytes cannot be used; the message is the reason."""


# What reading and decoding an image may raise.
UNREADABLE = (BadImageError, OSError, MemoryError)


def why_unreadable(error: BadImageError | OSError | MemoryError) -> str:
    """Return the reason that an image could not be read or decoded, for people."""
    if isinstance(error, OSError):
        return f"cannot be read: {error.strerror or error}"
    return str(error) or "not enough memory to decode it"


@contextlib.contextmanager
def _one_error() -> Iterator[None]:
    """Turn the many errors that decoders raise on damaged data into `BadImageError`."""
    try:
        yield
    except (BadImageError, MemoryError):
        raise
    except Image.DecompressionBombError:  # the file holds more than its head says
        raise BadImageError(f"too large: more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:
        reason = first_line(error)
        if "out of memory" in reason:
            raise MemoryError from None
        raise BadImageError(f"damaged: {reason}") from None


@_one_error()
def open_image(content: bytes) -> Image.Image:
    """Open an encoded image without decoding it; the format is judged by the content, never by the file's name.

    Pillow's own `open` warns of large images, and silencing it would change the filters of the whole process.

    Raises:
        BadImageError: if the file is empty, damaged, in no supported format, or holds too many pixels.
    """
    if not content:
        raise BadImageError("empty file")
    for factory, accept in _READERS:
        accepted = accept is None or accept(content[:16])
        if accepted and not isinstance(accepted, str):  # a text tells what Pillow lacks for the format
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Pillow does: the next may know it
                image = factory(io.BytesIO(content), "")
                break
    else:
        raise BadImageError("not an image in a supported format")
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise BadImageError(f"too large: {width}×{height} pixels")
    return image


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to RGB: 16-bit values are scaled, transparency is laid on white, grey is repeated."""
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if image.mode in {"I", "F"} or image.mode.startswith("I;16"):
        return Image.fromarray(_scale_deep(np.asarray(image))).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layered = image.convert("RGBA")
        ground = Image.new("RGBA", layered.size, (255, 255, 255, 255))
        return Image.alpha_composite(ground, layered).convert("RGB")
    return image.convert("RGB")


def _scale_deep(values: np.ndarray) -> Pixels:
    """Bring grey values of more than 8 bits to a byte; 16 bits are assumed where the file does not say."""
    numbers = np.nan_to_num(values.astype(np.float64))
    top = float(numbers.max(initial=0.0))
    full = 1.0 if top <= 1.0 and values.dtype.kind == "f" else 255.0 if top <= 255 and values.dtype.kind == "f" else 65535.0
    scaled: Pixels = np.clip(np.rint(numbers * (255.0 / full)), 0, 255).astype(np.uint8)
    return scaled


@_one_error()
def decode(content: bytes | Pixels, preprocessing: Preprocessing) -> Pixels:
    """Decode an image and bring it to working size.

    The orientation that a camera noted is applied; of an animation the first frame is taken.

    Args:
        content: an encoded file, or uint8 pixels (height × width × 3).
        preprocessing: says the size and how to reach it.

    Returns:
        uint8, size × size × 3.

    Raises:
        BadImageError: if the image is empty, truncated, in no supported format, or too large.
        MemoryError: if there is too little memory just now.
    """
    if isinstance(content, np.ndarray):
        return preprocessing.fit(Image.fromarray(content))
    with open_image(content) as image:
        draft = preprocessing.draft_size(*image.size)
        if draft and image.mode in {"RGB", "L"}:
            image.draft(None, draft)
        return preprocessing.fit(to_rgb(ImageOps.exif_transpose(image)))
