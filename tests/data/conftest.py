"""What the tests of the data share: small encoded images, and folders of them."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

# A cat and a dog folder of 3 and 2 images, with a split on top.
TREE = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/3.png", "test/dog/2.png")


@pytest.fixture
def encoded() -> Callable[..., bytes]:
    """Encode one image of a plain colour."""

    def encode(colour: Any = (200, 30, 30), size: tuple[int, int] = (12, 8), kind: str = "PNG", mode: str = "RGB") -> bytes:
        buffer = io.BytesIO()
        Image.new(mode, size, colour).save(buffer, kind)
        return buffer.getvalue()

    return encode


@pytest.fixture
def tree(tmp_path: Path, encoded: Callable[..., bytes]) -> Callable[..., Path]:
    """Write images of different greys under the given relative paths."""

    def write(*paths: str, under: str = "images") -> Path:
        for number, path in enumerate(paths):
            file = tmp_path / under / path
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(encoded((number, 2 * number, 3 * number)))
        return tmp_path / under

    return write


@pytest.fixture
def noise() -> Callable[..., np.ndarray]:
    """Make reproducible random pixels."""

    def make(*shape: int, seed: int = 0) -> np.ndarray:
        return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)

    return make
