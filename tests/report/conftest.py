"""Real runs for reports to be made of, each trained in a second or two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.recipe import parse_recipe, with_overrides
from thawlab.run import RunFolder
from thawlab.runner import train

MakeRun = Callable[..., RunFolder]


@pytest.fixture(scope="package")
def make_run(tmp_path_factory: pytest.TempPathFactory) -> MakeRun:
    """Train on noise with a folder per class name, `count` images each; overrides as on the command line."""

    def make(classes: Sequence[str], count: int, *overrides: str, file: str = "{:02d}.png") -> RunFolder:
        root, rng = tmp_path_factory.mktemp("report"), np.random.default_rng(0)
        for name in classes:
            (root / "photos" / name).mkdir(parents=True)
            for index in range(count):
                pixels = rng.integers(0, 256, (16, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / "photos" / name / file.format(index))
        table = {
            "name": "noise",
            "data": {"source": str(root / "photos"), "image_size": 16, "val": 0.25, "test": 0.25},
            "model": {"backbone": "cnn5"},
            "phases": [{"name": "first", "epochs": 2}, {"name": "second", "epochs": 1, "augment": ["flip"]}],
            "system": {"threads": 2, "cache_dir": str(root / "cache"), "device": "cpu"},
        }
        return train(parse_recipe(with_overrides(table, overrides)), root / "runs")

    return make


@pytest.fixture(scope="package")
def plain_run(make_run: MakeRun) -> RunFolder:
    """A run of three classes."""
    return make_run(["ant", "bee", "cat"], 16)


@pytest.fixture
def run_copy(plain_run: RunFolder, tmp_path: Path) -> RunFolder:
    """A copy of the run of three classes, which a test may damage."""
    shutil.copytree(plain_run.path, tmp_path / "run")
    return RunFolder(tmp_path / "run")
