"""From an image's bytes to uint8 RGB at working size; what cannot be decoded is named with its reason."""

from __future__ import annotations

import io
import warnings

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Pixels
from thawlab.errors import first_line

# An image of more pixels than this is refused: decoding it could exhaust the memory.
MAX_PIXELS = 200_000_000
# Formats of images only: Pillow's readers of documents (EPS) would start other programs.
Image.init()
_WANTED = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
_FORMATS = tuple(name for name in _WANTED if name in Image.OPEN)


class BadImageError(Exception):
    """An image that cannot be used; the message is the reason."""


def why_unreadable(error: BadImageError | OSError) -> str:
    """Return the reason that an image could not be read or decoded, for people."""
    return str(error) if isinstance(error, BadImageError) else f"cannot be read: {error.strerror or error}"


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


def decode(content: bytes | Pixels, preprocessing: Preprocessing) -> Pixels:
    """Decode an image and bring it to working size.

    The orientation that a camera noted is applied; of an animation the first frame is taken. The format is judged by the
    content, never by the file's name.

    Args:
        content: an encoded file, or uint8 pixels (height × width × 3).
        preprocessing: says the size and how to reach it.

    Returns:
        uint8, size × size × 3.

    Raises:
        BadImageError: if the image is empty, truncated, of no known format, or too large.
    """
    if isinstance(content, np.ndarray):
        return preprocessing.fit(Image.fromarray(content))
    if not content:
        raise BadImageError("empty file")
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow warns of large images; the limit below is ours
            with Image.open(io.BytesIO(content), formats=_FORMATS) as image:
                width, height = image.size
                if width * height > MAX_PIXELS:
                    raise BadImageError(f"too large: {width}×{height} pixels")
                draft = preprocessing.draft_size(width, height)
                if draft and image.mode in {"RGB", "L"}:
                    image.draft(None, draft)
                upright = ImageOps.exif_transpose(image)
                return preprocessing.fit(to_rgb(upright))
    except UnidentifiedImageError:
        raise BadImageError("not an image of a known format") from None
    except (Image.DecompressionBombError, MemoryError):
        raise BadImageError("too large to decode") from None
    except BadImageError:
        raise
    except Exception as error:  # decoders raise many kinds on damaged data; all of them mean the same to the user
        reason = first_line(error)
        raise BadImageError(f"damaged: {reason}") from None
