"""Real runs for reports to be made of, each trained in a second or two."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.probing.result import Probe, ProbedBackbone, ProbedHead, Verdict
from thawlab.recipe import parse_recipe, with_overrides
from thawlab.run import RunFolder
from thawlab.runner import train
from thawlab.study.paired import PairedComparison

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


@pytest.fixture(scope="package")
def probed() -> Probe:
    """What a probe of two backbones might have found, with names that a page must escape."""
    backbones = (
        ProbedBackbone("bundled", 32, 1_969_920, 256, 300, 300, 2.5),
        ProbedBackbone("local-dir:/a/folder/with/a/very/long/name/of/weights/large", 64, 20_000_000, 1280, 300, 300, 60.0),
    )
    rows = []
    for of, better in zip(backbones, (0.0, 0.04), strict=True):
        for shots, base in ((1, 0.4), (None, 0.7)):
            for place, head in enumerate(("linear", "logistic", "k-NN", "prototypes")):
                test = base + better + place / 100
                draws = (test - 0.05, test, test + 0.05) if shots else (test,)
                vals, chosen = tuple(value + 0.01 for value in draws), ({"rate": 0.01, "heads": 100},) * len(draws)
                interval = (test - 0.1, test + 0.1)
                rows.append(ProbedHead(of, head, shots, 10 * (shots or 18), draws, vals, chosen, interval, 1.5))
    return Probe(
        name="<img src=x onerror=console.error(1)>",
        fingerprint="0" * 64,
        classes=tuple("0123456789"),
        n={"train": 180, "val": 60, "test": 60},
        backbones=backbones,
        heads=tuple(rows),
        verdict=Verdict(rows[-1], rows[7], PairedComparison(60, 8, 5, 0.58)),
        notes=("5 images a class are left out: 'ant' has 4 training images",),
    )
