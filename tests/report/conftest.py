"""Real runs for reports to be made of, each trained in a second or two."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.comparison.comparison import Comparison, compare_runs
from thawlab.comparison.paired import PairedComparison
from thawlab.evaluation.predictions import Predictions
from thawlab.files import read_json
from thawlab.probing.result import Probe, ProbedBackbone, ProbedHead, Verdict
from thawlab.recipe import parse_recipe
from thawlab.recipe_text import read_toml, with_overrides
from thawlab.run import RunFolder, run_folder
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


Compared = Callable[..., Comparison]


def copy_as_variant(
    source: RunFolder, runs: Path, overrides: Sequence[str], seed: int, skill: float, own_images: bool
) -> RunFolder:
    """Copy a run as one with another recipe and seed that got about `skill` of 60 test images right."""
    recipe = parse_recipe(with_overrides(read_toml(source.recipe_file), [*overrides, f"seed={seed}"]))
    folder = run_folder(recipe, runs)
    shutil.copytree(source.path, folder.path, ignore=shutil.ignore_patterns("checkpoints", "model", "figures"))
    folder.recipe_file.write_text(recipe.to_toml(), encoding="utf-8")
    rng = np.random.default_rng([seed, *folder.name.encode()])
    labels = np.arange(60) % 3
    accuracy = {}
    for split in ("val", "test"):
        ids = np.array([f"{split} {number} of {seed if own_images else 0}" for number in range(60)])
        predicted = np.where(rng.random(60) < skill, labels, (labels + 1) % 3)
        accuracy[split] = float((predicted == labels).mean())
        Predictions(ids, labels, np.eye(3, dtype=np.float32)[predicted]).save(folder.predictions(split))
    results = read_json(folder.results)
    results.update(seed=seed, name=recipe.name, gap=0.99 - accuracy["test"])
    results["seconds"]["total"] = float(10 + 10 * rng.random())
    results["seconds"]["train"] = results["seconds"]["total"] / 2
    results["dataset"].update(n_test=60, n_train=recipe.data.train_size or 500)
    for split in ("val", "test"):
        results[split].update(accuracy=accuracy[split], n=60)
    results["test"]["accuracy_ci95"] = [max(accuracy["test"] - 0.1, 0), min(accuracy["test"] + 0.1, 1)]
    folder.results.write_text(json.dumps(results), encoding="utf-8")
    rows = [json.loads(line) for line in folder.metrics.read_text(encoding="utf-8").splitlines()]
    lines = [json.dumps({**row, "val_accuracy": float(accuracy["val"] * (1 - 0.5 / row["step"]))}) for row in rows]
    folder.metrics.write_text("\n".join(lines) + "\n", encoding="utf-8")
    return folder


@pytest.fixture(scope="package")
def compared(plain_run: RunFolder, tmp_path_factory: pytest.TempPathFactory) -> Compared:
    """Compare copies of a run: variants as a skill by overrides (joined by blanks), each with some seeds; names by overrides."""

    def compare(
        skills: Mapping[str, float],
        seeds: int = 3,
        question: str = "",
        names: Mapping[str, str] | None = None,
        own_images: bool = False,
    ) -> Comparison:
        runs = tmp_path_factory.mktemp("compared")
        folders = {
            (variant, seed): copy_as_variant(plain_run, runs, variant.split(), seed, skill, own_images)
            for variant, skill in skills.items()
            for seed in range(seeds)
        }
        given = {folder.name: (names or {})[variant] for (variant, _), folder in folders.items() if variant in (names or {})}
        return compare_runs(list(folders.values()), given, question)

    return compare


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
