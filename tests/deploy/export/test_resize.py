from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thawlab.data.preprocessing import Preprocessing
from thawlab.deploy.export.resize import fitted

KERNELS = ("nearest", "bilinear", "bicubic", "lanczos")


def pixels(height: int, width: int, seed: int) -> np.ndarray:
    """Noise, or black and white alone, where rounding and cutting off show most."""
    drawn = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return drawn if seed % 2 else np.where(drawn > 128, 255, 0).astype(np.uint8)


@settings(max_examples=150, deadline=None)
@given(
    height=st.integers(1, 300),
    width=st.integers(1, 300),
    size=st.integers(1, 120),
    resize=st.sampled_from(["upsample", "crop", "pad"]),
    interpolation=st.sampled_from(KERNELS),
    crop=st.floats(0.3, 1.0),
    seed=st.integers(0, 9),
)
def test_every_pixel_is_pillows(
    height: int, width: int, size: int, resize: str, interpolation: str, crop: float, seed: int
) -> None:
    look = Preprocessing(
        size=size, resize=resize, interpolation=interpolation, crop_pct=crop, mean=(0.485, 0.456, 0.406), std=(0.2, 0.2, 0.2)
    )
    image = pixels(height, width, seed)
    given_back = fitted(torch.from_numpy(image.copy())[None], look)[0].numpy()
    assert np.array_equal(given_back, look.fit(Image.fromarray(image)))


def test_images_of_a_batch_do_not_mix() -> None:
    look = Preprocessing(size=32, interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    images = np.stack([pixels(61, 43, seed) for seed in range(5)])
    together = fitted(torch.from_numpy(images), look).numpy()
    assert all(np.array_equal(one, look.fit(Image.fromarray(image))) for one, image in zip(together, images, strict=True))


@pytest.mark.parametrize("kernel", ["bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize(("height", "width"), [(60, 40), (40, 60), (64, 63), (200, 40), (150, 90), (51, 50), (53, 51)])
def test_the_columns_come_first_in_every_version_of_pillow(kernel: str, height: int, width: int) -> None:
    look = Preprocessing(size=50, interpolation=kernel, mean=(0.5,) * 3, std=(0.5,) * 3)
    image, side, method = Image.fromarray(pixels(height, width, 1)), min(height, width), Image.Resampling[kernel.upper()]
    left, top = (width - side) / 2, (height - side) / 2
    narrow = image.resize((50, height), method, box=(left, 0, left + side, height))
    expected = narrow.resize((50, 50), method, box=(0, top, 50, top + side))
    assert np.array_equal(look.fit(image), np.asarray(expected))
