"""What all tests share: a cache of their own, quiet progress, and the real data where they are at hand."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

# Before torch is loaded: tests run beside other work, where threads that spin for each other make them crawl.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# Keras is an oracle of some tests; it computes with what is there anyway.
os.environ.setdefault("KERAS_BACKEND", "torch")

import numpy as np
import pytest
from PIL import Image

from thawlab import progress
from thawlab.recipe import Recipe, parse_recipe
from thawlab.recipe_text import with_overrides

CHROMIUM = Path("/usr/bin/chromium")
# Real data and weights lie beside the project on its makers' machines; users do not have them.
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(autouse=True)
def _own_cache(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("THAWLAB_CACHE", str(tmp_path_factory.mktemp("cache")))
    progress.silence()
    yield
    progress.silence(False)


def _shared(relative: str) -> Path:
    path = SHARED / relative
    if not path.exists():
        pytest.skip(f"{path} is not on this machine")
    return path


@pytest.fixture
def cifar10() -> Path:
    """The real CIFAR-10 as a folder of Parquet files."""
    return _shared("data/cifar10")


@pytest.fixture
def fruits360() -> Path:
    """95 classes of the real Fruits-360 as a tar archive."""
    return _shared("data/fruits360-95.tar")


@pytest.fixture
def mobilenet() -> str:
    """A small real pretrained backbone."""
    return f"local-dir:{_shared('weights/mobilenetv2_035.in1k')}"


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """A Chromium that is already on the machine, driven by Playwright; for one module, since its event loop bars others."""
    playwright = pytest.importorskip("playwright.sync_api")
    if not CHROMIUM.exists():
        pytest.skip("there is no Chromium on this machine")
    with playwright.sync_playwright() as driver:
        arguments = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        chromium = driver.chromium.launch(executable_path=str(CHROMIUM), args=arguments)
        yield chromium
        chromium.close()


@pytest.fixture(scope="session")
def recipe() -> Callable[..., Recipe]:
    """Make a small recipe, trained in about a second; overrides as on the command line."""

    def make(*overrides: str, **tables: Any) -> Recipe:
        base: dict[str, Any] = {
            "name": "small",
            "data": {"source": "shapes:300x16", "image_size": 16},
            "model": {"backbone": "bundled"},
            "system": {"threads": 1},  # several test runs at once must not fight for the cores
            "phases": [
                {"name": "head", "train": "head", "epochs": 3, "lr": 0.01, "batch_size": 32},
                {"name": "all", "train": "all", "epochs": 2, "lr": 1e-3, "batch_size": 32, "augment": ["flip", "shift:0.1"]},
            ],
        }
        return parse_recipe(with_overrides({**base, **tables}, overrides))

    return make


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of images, a sub-folder per class: 12 red and 12 blue ones of several sizes."""
    root = tmp_path / "photos"
    rng = np.random.default_rng(0)
    for label, colour in (("blue", (30, 30, 200)), ("red", (200, 30, 30))):
        (root / label).mkdir(parents=True)
        for index in range(12):
            height, width = rng.integers(24, 60, 2)
            pixels = np.clip(np.array(colour) + rng.normal(0, 25, (height, width, 3)), 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(root / label / f"{index:02d}.png")
    return root
