"""From an image's bytes to uint8 RGB at working size; what cannot be decoded is named with its reason."""

import contextlib
import io
import struct
import traceback
from collections.abc import Iterator
from typing import Protocol

import numpy as np
import PIL
from PIL import Image, ImageOps

from thawlab.data.decoding_need import ICON, SHORT, SMALL, bytes_needed, overstates, why_endless, why_exhausting
from thawlab.data.formats import kind_of, plugins_here
from thawlab.data.grey import Range, is_deep, is_white_at_zero, own_range, to_bytes
from thawlab.data.pixel_budget import PixelBudget
from thawlab.data.pnm import quick_form
from thawlab.data.salvage import ended, exif_of, has_all_scans, lacks_end, orientation, padded, without_metadata, without_padding
from thawlab.data.types import Pixels
from thawlab.errors import first_line

# Part of the key of every cache of decoded images; raise it with each change by which equal bytes become other pixels.
DECODING = 4
# Who finds out which images can be decoded; another version may decide otherwise.
DECODER = f"Pillow {PIL.__version__}/decoding {DECODING}"
# An image of more pixels is refused: decoding it could exhaust the memory. Some of Pillow's readers have the same limit.
MAX_PIXELS = 178_956_970
# An image that takes more bytes while it is decoded is refused as well: four for each of those pixels.
MOST_BYTES = 720_000_000
# Bytes of all threads together; an image that takes more is decoded alone.
BUDGET = PixelBudget(480_000_000)
# Formats of images only: Pillow's readers of documents (EPS) would start other programs.
Image.init()
_WANTED: tuple[str, ...] = ("JPEG", "PNG", "GIF", "BMP", "WEBP", "TIFF", "PPM", "JPEG2000", "AVIF", "ICO", "TGA")
_WANTED += tuple(plugin.reader for plugin in plugins_here())
# Mean of a drawing's colours, from 0 to 255, above which white would hide it.
_LIGHT = 208.0
# Pixels of a band of rows.
_BAND = 1 << 18
# Bytes of two patterns: what is missing at an image's end may by chance be one of them.
_FILLERS = (b"\x55" * 512, b"\xaa" * 512)
_TURNS = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_READERS = tuple(Image.OPEN[name] for name in _WANTED if name in Image.OPEN)


class Fit(Protocol):
    """The size at which an image is wanted; a `Preprocessing` says it, for one."""

    @property
    def grey_range(self) -> Range | None:
        """The values of black and white in grey images of more than 8 bits."""

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least size that a JPEG of `width` × `height` may be decoded at, or None for its own."""

    def fit(self, image: Image.Image) -> Pixels:
        """Bring an image in mode RGB to the size that is wanted: uint8, height × width × 3."""


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
    except (BadImageError, MemoryError) as error:
        traceback.clear_frames(error.__traceback__)  # they hold pixels for as long as the error lives
        raise
    except Image.DecompressionBombError:  # the file holds more than its head says
        raise BadImageError(f"too large: more than {MAX_PIXELS:,} pixels") from None
    except Exception as error:
        traceback.clear_frames(error.__traceback__)
        reason = first_line(error)
        if "out of memory" in reason:
            raise MemoryError from None
        raise BadImageError(f"damaged: {reason}") from None


@_one_error()
def open_image(content: bytes, max_pixels: int | None = None) -> Image.Image:
    """Open an encoded image without decoding it; the format is judged by the content, never by the file's name.

    Pillow's own `open` warns of large images, and silencing it would change the filters of the whole process.

    Raises:
        BadImageError: if the file is empty, damaged, in no supported format, or holds too many pixels.
    """
    if not content:
        raise BadImageError("empty file")
    if len(content) > SHORT or content.startswith(ICON):
        if reason := why_exhausting(content):
            raise BadImageError(reason)
        content = quick_form(content)
    for factory, accept in _READERS:
        accepted = accept is None or accept(content[:16])
        if accepted and not isinstance(accepted, str):  # a text tells what Pillow lacks for the format
            with contextlib.suppress(SyntaxError, IndexError, TypeError, struct.error):  # as Pillow does: the next may know it
                image = factory(io.BytesIO(content), "")
                break
    else:
        raise BadImageError(kind_of(content[:512]) or "not an image in a supported format")
    width, height = image.size
    if width * height > (max_pixels or MAX_PIXELS):
        raise BadImageError(f"too large: {width}×{height} pixels")
    return image


def to_rgb(image: Image.Image, grey: Range | None = None) -> Image.Image:
    """Convert an image of any mode to RGB.

    Transparency is laid on white, or on black where the drawing itself is so light that white would hide it.

    Args:
        image: to convert.
        grey: the range of grey values of more than 8 bits.
    """
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
    if is_deep(image):
        return Image.fromarray(to_bytes(np.asarray(image), grey)).convert("RGB")
    if image.mode in {"RGBA", "LA", "PA", "La", "RGBa"} or "transparency" in image.info:
        layered = image if image.mode == "RGBA" else image.convert("RGBA")
        ground, result = 0 if _is_light(layered) else 255, Image.new("RGB", layered.size)
        for top, band in _bands(layered):
            behind = Image.new("RGBA", band.size, (ground, ground, ground, 255))
            result.paste(Image.alpha_composite(behind, band).convert("RGB"), (0, top))
        return result
    return image.convert("RGB")


def _bands(image: Image.Image) -> Iterator[tuple[int, Image.Image]]:
    """Yield an image in bands of rows, each with the row that it starts at: copies of large images take much memory."""
    rows = max(1, _BAND // image.width) if image.width else 1
    for top in range(0, image.height, rows):
        yield top, image.crop((0, top, image.width, min(top + rows, image.height)))


def _is_light(layered: Image.Image) -> bool:
    """Return whether what is drawn on a transparent ground is nearly white on average."""
    total = light = 0
    for _, band in _bands(layered):
        pixels = np.asarray(band).reshape(-1, 4)
        weight = pixels[:, 3].astype(np.int64)
        total += int(weight.sum())
        light += int((weight @ pixels[:, :3].astype(np.int64)).sum())
    if total in {0, 255 * layered.width * layered.height}:  # nothing is drawn, or nothing is transparent
        return False
    return light / (3 * total) > _LIGHT


def upright(image: Image.Image, noted: int | None = None) -> Image.Image:
    """Return an image turned as the camera noted; nothing else of the metadata is read.

    Args:
        image: as it is stored.
        noted: the orientation, if it was read already.
    """
    exif = image.info.get("exif")
    turn = noted or (orientation(exif) if isinstance(exif, bytes) else None)
    if turn is None and not (isinstance(exif, bytes) and overstates(exif)):
        with contextlib.suppress(Exception):  # other places that Pillow knows, such as XMP; odd ones cost no image
            turn = image.getexif().get(0x0112)
    method = _TURNS.get(turn) if isinstance(turn, int) else None
    return image if method is None else image.transpose(method)


def decode(content: bytes | Pixels, preprocessing: Fit, max_pixels: int | None = None) -> Pixels:
    """Decode an image and bring it to working size.

    The orientation that a camera noted is applied; of an animation the first frame is taken. Damaged metadata, or a JPEG's
    missing end marker, do not keep whole pixels from being decoded.

    Args:
        content: an encoded file, or uint8 pixels (height × width × 3).
        preprocessing: says the size and how to reach it.
        max_pixels: of an encoded file, MAX_PIXELS if omitted; one with more is refused before it is decoded.

    Returns:
        uint8, height × width × 3; of a `Preprocessing` size × size × 3.

    Raises:
        BadImageError: if the image is empty, truncated, in no supported format, or too large.
        MemoryError: if there is too little memory just now.
    """
    if isinstance(content, np.ndarray):
        return preprocessing.fit(Image.fromarray(content))
    try:
        if padded(content):  # a decoder would take the zeros for pixels
            raise BadImageError("damaged: truncated, and filled up with zeros")
        return _decoded(content, preprocessing, max_pixels)
    except BadImageError as error:
        if len(content) < 4:
            raise
        content = without_padding(content)
        bare = without_metadata(content) or content
        noted = orientation(exif_of(content))
        with contextlib.suppress(BadImageError):
            if bare is not content:
                return _decoded(bare, preprocessing, max_pixels, noted)
        with contextlib.suppress(BadImageError):
            if lacks_end(bare) and has_all_scans(bare):
                pixels = _decoded(ended(bare), preprocessing, max_pixels, noted)
                # Where pixels are missing, the decoder takes the further bytes for them.
                if all(
                    np.array_equal(pixels, _decoded(ended(bare, more), preprocessing, max_pixels, noted)) for more in _FILLERS
                ):
                    return pixels
        raise error from None


@_one_error()
def _decoded(content: bytes, preprocessing: Fit, max_pixels: int | None, noted: int | None = None) -> Pixels:
    image = open_image(content, max_pixels)
    size = image.size
    draft = preprocessing.draft_size(*size)
    if draft and image.mode in {"RGB", "L"}:
        image.draft(None, draft)
    # Most pictures of most data sets are too small to be worth counting, and are decoded in no time.
    is_small = size[0] * size[1] <= SMALL and len(content) <= SHORT and image.format != "TIFF"
    taken = 0 if is_small else BUDGET.take(_allowed(image, content, size))
    try:
        image.load()
        grey, inverted = None, is_white_at_zero(image)
        if is_deep(image):
            grey = own_range(image, content) or preprocessing.grey_range
        image = upright(image, noted)  # under one name: what is no longer needed is let go
        image = to_rgb(image, grey)
        return preprocessing.fit(ImageOps.invert(image) if inverted else image)
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise
    finally:
        del image  # before others are given its room
        if taken:
            BUDGET.give(taken)


@contextlib.contextmanager
def loaded(content: bytes) -> Iterator[Image.Image]:
    """Open and decode an image as it is stored, and hold its share of the budget for as long as it is used.

    Raises:
        BadImageError: if it cannot be opened or decoded, or takes too much.
    """
    with _one_error(), open_image(content) as image:
        taken = BUDGET.take(_allowed(image, content, image.size))
        try:
            image.load()
            yield image
        finally:
            BUDGET.give(taken)


def _allowed(image: Image.Image, content: bytes, size: tuple[int, int]) -> int:
    """Return the bytes that decoding an image takes.

    Raises:
        BadImageError: if they are too many, or decoding would take far longer than the image's size says.
    """
    if reason := why_endless(image, content, size):
        raise BadImageError(reason)
    need = bytes_needed(image, content, size)
    if need > MOST_BYTES:
        width, height = size
        raise BadImageError(
            f"too large: decoding {width}×{height} pixels of {image.format} takes {need / 1e6:,.0f} MB, more than "
            f"{MOST_BYTES / 1e6:,.0f}; save it smaller"
        )
    return need
