"""What happens to photos on their way to a classifier: twelve corruptions of five strengths, each a pure function of pixels.

Where Hendrycks & Dietterich 2019 ("Benchmarking neural network robustness to common corruptions and perturbations", ICLR) have
the corruption, the strengths are theirs. They give two tables of constants, for pictures of 224 pixels (ImageNet-C) and of 32
(CIFAR-10-C); where the effect depends on the picture's size, as that of a blur does, a picture of another size gets what lies
between them: the geometric mean, weighted by the logarithm of its shorter side. Lengths in pixels grow on in proportion beyond
these two sizes, all else stays. The other strengths are chosen so that a person still knows what the picture shows.
"""

import hashlib
import io
import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageFilter

from thawlab.data.types import Pixels
from thawlab.evaluation.properties import luminance
from thawlab.registry import Registry

# Part of what names a corrupted image; raise it with each change by which equal arguments give other pixels.
VERSION = 1
STRENGTHS = (1, 2, 3, 4, 5)
_SMALL, _LARGE = 32, 224  # sides that the published constants are for
_AIRLIGHT = 240.0

Floats = npt.NDArray[np.float32]
# A corruption is given the pixels (uint8, height × width × 3), a strength from 1 to 5 and what it draws at random from, which
# is the same at every strength: a stronger one does the same thing further.
Corruption = Callable[[Pixels, int, np.random.Generator], Pixels]
corruptions: Registry[Corruption] = Registry("corruption")


def corrupted(pixels: Pixels, corruption: str, strength: int, name: str) -> Pixels:
    """Corrupt an image; equal arguments give equal pixels.

    Args:
        pixels: uint8, height × width × 3.
        corruption: the name of a registered one.
        strength: from 1 to 5; 0 leaves the image as it is.
        name: of the image: what is drawn at random, such as where it is occluded, is drawn by it.

    Returns:
        uint8 of the same shape.

    Raises:
        UsageError: if there is no such corruption.
        ValueError: if the strength is none of 0 to 5.
    """
    corrupt = corruptions.get(corruption)
    if strength not in (0, *STRENGTHS):
        raise ValueError(f"strength = {strength}: must be from 0 to {STRENGTHS[-1]}")
    if strength == 0:
        return pixels
    seed = hashlib.sha256(f"{corruption}/{name}".encode("utf-8", "surrogatepass")).digest()[:8]
    return corrupt(pixels, strength, np.random.default_rng(int.from_bytes(seed, "big")))


def between(pixels: Pixels, small: Sequence[float], large: Sequence[float], strength: int, length: bool = False) -> float:
    """Return a constant for an image from those for 32 and for 224 pixels; a `length` is one in pixels."""
    side = min(pixels.shape[:2])
    inside = min(max(side, _SMALL), _LARGE)
    share = math.log(inside / _SMALL) / math.log(_LARGE / _SMALL)
    value = float(small[strength - 1] ** (1 - share) * large[strength - 1] ** share)
    return value * side / inside if length else value


@corruptions.register("blur")
def blur(pixels: Pixels, strength: int, _draw: np.random.Generator) -> Pixels:
    """Out of focus: a Gaussian blur with the standard deviations of "gaussian_blur" (0.4 to 1 px of 32, 1 to 6 of 224).

    Pillow approximates the Gaussian by three box filters.
    """
    sigma = between(pixels, (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6), strength, length=True)
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(sigma)))


@corruptions.register("noise")
def noise(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Too little light: Gaussian noise with the standard deviations of "gaussian_noise" (0.04 to 0.1 of 1, 0.08 to 0.38)."""
    sigma = 255 * between(pixels, (0.04, 0.06, 0.08, 0.09, 0.10), (0.08, 0.12, 0.18, 0.26, 0.38), strength)
    return _to_bytes(pixels + np.float32(sigma) * draw.standard_normal(pixels.shape, dtype=np.float32))


@corruptions.register("jpeg")
def jpeg(pixels: Pixels, strength: int, _draw: np.random.Generator) -> Pixels:
    """Saved too small: JPEG of the qualities of "jpeg_compression" (80 to 40 at 32 pixels, 25 to 7 at 224)."""
    quality = round(between(pixels, (80, 65, 58, 50, 40), (25, 18, 15, 10, 7), strength))
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=quality)
    return np.asarray(Image.open(buffer).convert("RGB"))


@corruptions.register("brightness")
def brightness(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Wrongly exposed: half of the images are brightened as by "brightness" (0.1 to 0.5 more value), the others darkened.

    The value of the darkened ones is multiplied by 0.9 to 0.5; hue and saturation stay.
    """
    change = (0.1, 0.2, 0.3, 0.4, 0.5)[strength - 1]
    if draw.random() < 0.5:
        return _to_bytes(pixels * np.float32(1 - change))
    value = pixels.max(axis=2, keepdims=True).astype(np.float32)
    wanted = np.minimum(value + np.float32(255 * change), 255)
    return _to_bytes(np.where(value > 0, pixels * (wanted / np.maximum(value, 1)), wanted))


@corruptions.register("contrast")
def contrast(pixels: Pixels, strength: int, _draw: np.random.Generator) -> Pixels:
    """Flat light: the contrast around the mean luminance times 0.75 to 0.15, as "contrast" of CIFAR-10-C.

    ImageNet-C goes down to a twentieth, which hardly occurs.
    """
    kept = np.float32((0.75, 0.5, 0.4, 0.3, 0.15)[strength - 1])
    mean = luminance(pixels).mean()
    return _to_bytes(mean + kept * (pixels - mean))


@corruptions.register("haze")
def haze(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Fog or a dirty lens: Koschmieder's law (1924), light lost over a drawn distance and airlight in its place.

    0.83 to 0.4 of the light pass at the mean distance, which are the shares of "fog" in CIFAR-10-C; the distance grows upwards
    and varies smoothly.
    """
    passing = (0.83, 0.67, 0.57, 0.5, 0.4)[strength - 1]
    height, width = pixels.shape[:2]
    down = (np.arange(height, dtype=np.float32)[:, None] + 0.5) / height
    along = (np.arange(width, dtype=np.float32)[None, :] + 0.5) / width
    waves = np.zeros((height, width), dtype=np.float32)
    for _ in range(3):
        turns, phase = draw.uniform(-1.5, 1.5, 2), draw.uniform(0, 2 * np.pi)
        waves += np.cos(2 * np.pi * (np.float32(turns[0]) * down + np.float32(turns[1]) * along) + np.float32(phase))
    transmission = (np.float32(passing) ** (1.25 - 0.5 * down + waves / 12))[..., None]
    return _to_bytes(pixels * transmission + np.float32(_AIRLIGHT) * (1 - transmission))


@corruptions.register("crop")
def crop(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Cut off: 0.9 to 0.3 of the area, from a drawn place, enlarged to the image's size."""
    left, top, right, bottom = _window((0.9, 0.75, 0.6, 0.45, 0.3)[strength - 1], draw)
    height, width = pixels.shape[:2]
    box = left * width, top * height, right * width, bottom * height
    return np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR, box=box))


@corruptions.register("rotation")
def rotation(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Held askew: rotated by 4 to 28 degrees to a drawn side; the corners are filled with the image mirrored at its edges."""
    angle = (4, 8, 14, 20, 28)[strength - 1] * (1 if draw.random() < 0.5 else -1)
    height, width = pixels.shape[:2]
    sine, cosine = abs(math.sin(math.radians(angle))), math.cos(math.radians(angle))
    across = max(0, math.ceil((width * cosine + height * sine - width) / 2)) + 1
    along = max(0, math.ceil((width * sine + height * cosine - height) / 2)) + 1
    padded = np.pad(pixels, ((along, along), (across, across), (0, 0)), mode="symmetric")
    turned = np.asarray(Image.fromarray(padded).rotate(angle, Image.Resampling.BILINEAR))
    return turned[along : along + height, across : across + width]


@corruptions.register("downscaling")
def downscaling(pixels: Pixels, strength: int, _draw: np.random.Generator) -> Pixels:
    """Too few pixels: shrunk by the factors of "pixelate" (0.95 to 0.65 at 32 pixels, 0.6 to 0.25 at 224) and enlarged again."""
    factor = between(pixels, (0.95, 0.9, 0.85, 0.75, 0.65), (0.6, 0.5, 0.4, 0.3, 0.25), strength)
    height, width = pixels.shape[:2]
    small = max(1, round(width * factor)), max(1, round(height * factor))
    # Boxes, as in the benchmark, shift a picture of 32 pixels by parts of a pixel, by the more the weaker the corruption.
    shrunk = Image.fromarray(pixels).resize(small, Image.Resampling.BICUBIC)
    return np.asarray(shrunk.resize((width, height), Image.Resampling.BILINEAR))


@corruptions.register("colour-cast")
def colour_cast(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Wrong white balance: half of the images too warm (red times 1.1 to 1.5, blue times 0.9 to 0.5), the others too cool.

    The last is about what daylight balance makes of a light bulb. How much it costs classifiers: Afifi & Brown 2019 ("What else
    can fool deep learning?", ICCV).
    """
    change = (0.1, 0.2, 0.3, 0.4, 0.5)[strength - 1] * (1 if draw.random() < 0.5 else -1)
    return _to_bytes(pixels * np.array([1 + change, 1, 1 - change], dtype=np.float32))


@corruptions.register("occlusion")
def occlusion(pixels: Pixels, strength: int, draw: np.random.Generator) -> Pixels:
    """Something in front: a grey rectangle over 0.05 to 0.4 of the area, at a drawn place (DeVries & Taylor 2017, "Cutout")."""
    left, top, right, bottom = _window((0.05, 0.1, 0.18, 0.28, 0.4)[strength - 1], draw)
    height, width = pixels.shape[:2]
    hidden = pixels.copy()
    hidden[round(top * height) : round(bottom * height), round(left * width) : round(right * width)] = 127
    return hidden


@corruptions.register("grey")
def grey(pixels: Pixels, strength: int, _draw: np.random.Generator) -> Pixels:
    """Faded colours: 0.7 of the saturation is left, and none at strength 5."""
    kept = np.float32((0.7, 0.45, 0.25, 0.1, 0.0)[strength - 1])
    y = luminance(pixels)[..., None]
    return _to_bytes(y + kept * (pixels - y))


def _window(area: float, draw: np.random.Generator) -> tuple[float, float, float, float]:
    """Return left, top, right and bottom of a window of the image's shape, in [0, 1]; of one place smaller ones lie in larger."""
    across, down = draw.random(2).tolist()
    side = math.sqrt(area)
    return across * (1 - side), down * (1 - side), across * (1 - side) + side, down * (1 - side) + side


def _to_bytes(values: npt.NDArray[Any]) -> Pixels:
    pixels: Pixels = np.clip(np.rint(values), 0, 255).astype(np.uint8)
    return pixels
