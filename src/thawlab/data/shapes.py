"""Drawn images in ten classes, for tests and teaching: any size and count, made from a seed."""

import math

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw

from thawlab.data.types import Labels

SHAPES = ("arrow", "circle", "crescent", "cross", "hexagon", "ring", "square", "star", "stripes", "triangle")
_OVERSAMPLING = 3  # drawn larger and scaled down, for smooth edges

Point = tuple[float, float]


def _polygon(corners: int, inner: float = 1.0) -> list[Point]:
    """Return a regular polygon of radius 1, or a star when every second corner lies at the radius `inner`."""
    count = corners if inner == 1.0 else 2 * corners
    radii = [1.0 if inner == 1.0 or k % 2 == 0 else inner for k in range(count)]
    return [(r * math.sin(2 * math.pi * k / count), -r * math.cos(2 * math.pi * k / count)) for k, r in enumerate(radii)]


_OUTLINES: dict[str, list[Point]] = {
    "triangle": _polygon(3),
    "square": _polygon(4),
    "hexagon": _polygon(6),
    "star": _polygon(5, inner=0.4),
    "cross": [(a * 1.0, b * 1.0) for a, b in [(-0.3, -1), (0.3, -1), (0.3, -0.3), (1, -0.3), (1, 0.3), (0.3, 0.3)]]
    + [(0.3, 1), (-0.3, 1), (-0.3, 0.3), (-1, 0.3), (-1, -0.3), (-0.3, -0.3)],
    "arrow": [(0, -1), (0.8, 0), (0.3, 0), (0.3, 1), (-0.3, 1), (-0.3, 0), (-0.8, 0)],
}


def _draw(shape: str, size: int, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    canvas = size * _OVERSAMPLING
    background = rng.integers(0, 256, 3)
    colour = rng.integers(0, 256, 3)
    while np.abs(colour.astype(int) - background).sum() < 150:  # the shape must stand out from the ground
        colour = rng.integers(0, 256, 3)
    radius = canvas * rng.uniform(0.22, 0.40)
    centre = canvas / 2 + rng.uniform(-1, 1, 2) * (canvas * 0.45 - radius)
    angle = rng.uniform(-math.pi / 6, math.pi / 6)
    paper, ink = tuple(int(v) for v in background), tuple(int(v) for v in colour)

    def place(points: list[Point]) -> list[Point]:
        cos, sin = math.cos(angle), math.sin(angle)
        return [(centre[0] + radius * (x * cos - y * sin), centre[1] + radius * (x * sin + y * cos)) for x, y in points]

    def box(scale: float, shift: Point = (0.0, 0.0)) -> list[float]:
        [(x, y)] = place([shift])
        return [x - radius * scale, y - radius * scale, x + radius * scale, y + radius * scale]

    image = Image.new("RGB", (canvas, canvas), paper)
    pen = ImageDraw.Draw(image)
    if shape in _OUTLINES:
        pen.polygon(place(_OUTLINES[shape]), fill=ink)
    elif shape == "stripes":
        for y in (-0.8, 0.0, 0.8):
            pen.polygon(place([(-1, y - 0.2), (1, y - 0.2), (1, y + 0.2), (-1, y + 0.2)]), fill=ink)
    else:
        pen.ellipse(box(1.0), fill=ink)
        if shape == "ring":
            pen.ellipse(box(0.55), fill=paper)
        elif shape == "crescent":
            pen.ellipse(box(0.85, (0.45, -0.2)), fill=paper)
    pixels = np.asarray(image.resize((size, size), Image.Resampling.BOX), dtype=np.float64)
    noise = rng.normal(0, rng.uniform(2, 18), pixels.shape)
    return np.clip(np.rint(pixels + noise), 0, 255).astype(np.uint8)


def draw_shapes(count: int, size: int, seed: int) -> tuple[npt.NDArray[np.uint8], Labels]:
    """Draw images of the ten shapes, each class equally often as far as the count allows.

    Equal seeds give equal images, and a larger count begins with the images of a smaller one.

    Returns:
        uint8 images, count × size × size × 3, and int64 labels.
    """
    labels = np.arange(count, dtype=np.int64) % len(SHAPES)
    images = np.empty((count, size, size, 3), dtype=np.uint8)
    for index, label in enumerate(labels):
        images[index] = _draw(SHAPES[label], size, np.random.default_rng((seed, index)))
    return images, labels
