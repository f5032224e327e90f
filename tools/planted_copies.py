"""Changes that make a near-duplicate of a picture, and pairs of them: what `tools/planted_duplicates.py` plants."""

from __future__ import annotations

import io
import itertools
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageEnhance, ImageFilter

Change = Callable[[Image.Image, np.random.Generator, Image.Image], Image.Image]


def _either(rng: np.random.Generator, low: tuple[float, float], high: tuple[float, float]) -> float:
    """Draw from one of two ranges: less, or more."""
    return float(rng.uniform(*(low if rng.random() < 0.5 else high)))


def _affine(image: Image.Image, matrix: tuple[float, ...]) -> Image.Image:
    """Return what lies under a frame that is moved over a picture; beyond the edge the picture is mirrored."""
    width, height = image.size
    pixels = np.asarray(image)
    wide = Image.fromarray(np.pad(pixels, ((height // 2,) * 2, (width // 2,) * 2, (0, 0)), mode="reflect"))
    a, b, c, d, e, f = matrix
    x0, y0 = width / 2 + width // 2, height / 2 + height // 2
    shifted = (a, b, x0 + c - a * width / 2 - b * height / 2, d, e, y0 + f - d * width / 2 - e * height / 2)
    return wide.transform(image.size, Image.Transform.AFFINE, shifted, Image.Resampling.BICUBIC)


def shift(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    across, down = (_either(rng, (-0.1, -0.03), (0.03, 0.1)) for _ in range(2))
    return _affine(image, (1, 0, across * image.width, 0, 1, down * image.height))


def scale(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    wide, high = (_either(rng, (0.85, 0.95), (1.05, 1.15)) for _ in range(2))
    return _affine(image, (1 / wide, 0, 0, 0, 1 / high, 0))


def rotation(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    angle = np.deg2rad(_either(rng, (-5, -3), (3, 5)))
    cosine, sine = float(np.cos(angle)), float(np.sin(angle))
    return _affine(image, (cosine, -sine, 0, sine, cosine, 0))


def gamma(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    power = _either(rng, (0.6, 0.75), (1.35, 1.6))
    return image.point([round(255 * (k / 255) ** power) for k in range(256)] * 3)


def saturation(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return ImageEnhance.Color(image).enhance(_either(rng, (0.5, 0.7), (1.3, 1.5)))


def blur(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    return image.filter(ImageFilter.GaussianBlur(rng.uniform(0.6, 1.2) * max(1.0, min(image.size) / 64)))


def sharpening(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    radius = max(1.0, min(image.size) / 64)
    return image.filter(ImageFilter.UnsharpMask(radius, int(rng.uniform(100, 250)), 0))


def jpeg(image: Image.Image, _: np.random.Generator, __: Image.Image) -> Image.Image:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=30)
    return Image.open(buffer).convert("RGB")


def text(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    written, size = image.copy(), max(7, image.height // 9)
    place = (int(rng.uniform(0, 0.3) * image.width), int(rng.choice([0.02, 0.45, 0.82]) * image.height))
    words = "".join(rng.choice(list("abcdefghij KLMNOP.www12"), 14))
    ImageDraw.Draw(written).text(place, words, fill=tuple(rng.choice([0, 255], 3).tolist()), font_size=size)
    return written


def frame(image: Image.Image, rng: np.random.Generator, _: Image.Image) -> Image.Image:
    width, height = image.size
    edge = rng.uniform(0.04, 0.1)
    across, down = max(1, round(edge * width)), max(1, round(edge * height))
    framed = Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3).tolist()))
    inner = (width - 2 * across, height - 2 * down)
    cut = rng.random() < 0.5  # the frame covers the edge, or the picture is made smaller to fit
    part = image.crop((across, down, width - across, height - down)) if cut else image.resize(inner, Image.Resampling.BICUBIC)
    framed.paste(part, (across, down))
    return framed


def background(image: Image.Image, rng: np.random.Generator, other: Image.Image) -> Image.Image:
    """Keep an ellipse in the middle, of 40 to 55 % of the area, and put another picture or one colour around it."""
    width, height = image.size
    share = rng.uniform(0.4, 0.55)
    across = float(np.clip(np.sqrt(share * 4 / np.pi) * rng.uniform(0.9, 1.1), 0, 0.98))
    down = float(np.clip(share * 4 / np.pi / across, 0, 0.98))
    mask = Image.new("L", image.size, 0)
    box = ((1 - across) / 2 * width, (1 - down) / 2 * height, (1 + across) / 2 * width, (1 + down) / 2 * height)
    ImageDraw.Draw(mask).ellipse(box, fill=255)
    behind = (
        other.resize(image.size) if rng.random() < 0.5 else Image.new("RGB", image.size, tuple(rng.integers(0, 256, 3).tolist()))
    )
    return Image.composite(image, behind, mask.filter(ImageFilter.GaussianBlur(width / 64)))


def mirrored(image: Image.Image, _: np.random.Generator, __: Image.Image) -> Image.Image:
    return image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)


CHANGES: dict[str, Change] = {
    "shift": shift,
    "scale": scale,
    "rotation": rotation,
    "gamma": gamma,
    "saturation": saturation,
    "blur": blur,
    "sharpening": sharpening,
    "jpeg 30": jpeg,
    "text": text,
    "frame": frame,
    "background": background,
    "mirrored": mirrored,
}
PAIRS = list(itertools.combinations(CHANGES, 2))


def changed(image: Image.Image, kinds: tuple[str, ...], rng: np.random.Generator, other: Image.Image) -> Image.Image:
    """Return a near-duplicate of a picture: changed in one way, or in several."""
    for kind in kinds:
        image = CHANGES[kind](image, rng, other)
    return image
