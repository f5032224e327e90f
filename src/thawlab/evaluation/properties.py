"""What can be said of a picture in a number, whatever it shows; measured at a shorter side of at most 256 pixels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Pixels

MEASURED_AT = 256

LUMA = np.array([0.299, 0.587, 0.114], dtype=np.float32)  # ITU-R 601


class Property(NamedTuple):
    """A number that is measured on pixels (uint8, height × width × 3).

    Attributes:
        least: what pictures with the least values are called, after "the".
        most: with the largest.
        value: measures it.
    """

    least: str
    most: str
    value: Callable[[Pixels], float]


def luminance(pixels: Pixels) -> npt.NDArray[np.float32]:
    """Return the luminance of each pixel, from 0 to 255, as ITU-R 601 weighs the channels."""
    return pixels.astype(np.float32) @ LUMA


def brightness(pixels: Pixels) -> float:
    """Return the mean luminance, from 0 to 255."""
    return float(luminance(pixels).mean())


def contrast(pixels: Pixels) -> float:
    """Return the standard deviation of the luminance (RMS contrast, Peli 1990), from 0 to 127.5."""
    return float(luminance(pixels).std())


def sharpness(pixels: Pixels) -> float:
    """Return the standard deviation of the luminance's Laplacian (Pech-Pacheco et al. 2000); 0 of fewer than 3 × 3 pixels."""
    y = luminance(pixels)
    if min(y.shape) < 3:
        return 0.0
    laplacian = y[:-2, 1:-1] + y[2:, 1:-1] + y[1:-1, :-2] + y[1:-1, 2:] - 4 * y[1:-1, 1:-1]
    return float(laplacian.std())


def colourfulness(pixels: Pixels) -> float:
    """Return the colourfulness of Hasler & Süsstrunk 2003 ("Measuring colourfulness in natural images"); 0 of grey pictures."""
    red, green, blue = np.moveaxis(pixels.astype(np.float32), 2, 0)
    opponents = red - green, 0.5 * (red + green) - blue
    spread = np.hypot(*(part.std() for part in opponents))
    return float(spread + 0.3 * np.hypot(*(part.mean() for part in opponents)))


PROPERTIES: dict[str, Property] = {
    "brightness": Property("darkest", "brightest", brightness),
    "contrast": Property("flattest", "most contrasting", contrast),
    "sharpness": Property("blurriest", "sharpest", sharpness),
    "colourfulness": Property("least colourful", "most colourful", colourfulness),
}
