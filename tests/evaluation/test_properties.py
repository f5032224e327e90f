from __future__ import annotations

import numpy as np
import pytest
from PIL import Image, ImageFilter

from thawlab.evaluation.properties import brightness, colourfulness, contrast, luminance, sharpness


def noise() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)


def test_luminance_is_that_of_pillow() -> None:
    assert np.abs(luminance(noise()) - np.asarray(Image.fromarray(noise()).convert("L"), dtype=float)).max() <= 0.51


def test_what_is_measured_is_what_it_is_called() -> None:
    pixels = noise()
    blurred = np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))
    grey = np.asarray(Image.fromarray(pixels).convert("L").convert("RGB"))
    assert sharpness(pixels) > 5 * sharpness(blurred)
    assert contrast(pixels) > 2 * contrast(blurred) and brightness(pixels) == pytest.approx(brightness(blurred), abs=1)
    assert brightness(pixels // 2) < 0.55 * brightness(pixels)
    assert colourfulness(grey) == 0 < colourfulness(pixels)
    red = np.zeros((5, 5, 3), dtype=np.uint8)
    red[..., 0] = 200
    assert colourfulness(red) == pytest.approx(0.3 * np.hypot(200, 100))  # Hasler & Süsstrunk: no spread, means 200 and 100


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (2, 2)])
def test_the_smallest_pictures_are_measured(size: tuple[int, int]) -> None:
    pixels = np.full((*size, 3), 50, dtype=np.uint8)
    assert [measure(pixels) for measure in (contrast, sharpness, colourfulness)] == [0, 0, 0]
    assert brightness(pixels) == pytest.approx(50)
