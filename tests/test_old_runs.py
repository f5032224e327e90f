"""Run folders that 0.1.0 wrote open, judge, predict and show as they did; the digests of committed recipes stay."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from thawlab.deploy.predictor import Predictor
from thawlab.evaluation.predictions import load_predictions
from thawlab.judging.evaluate import evaluate
from thawlab.models.saved import load_model
from thawlab.plan.resolve import resolve
from thawlab.recipe_text import read_recipe
from thawlab.report.page import write_report
from thawlab.results import read_results
from thawlab.run import RunFolder
from thawlab.runner import damaged

ROOT = Path(__file__).resolve().parents[1]
[OLD] = (ROOT / "tests" / "fixtures").glob("made-by-0.1.0-*")


@pytest.fixture
def old(tmp_path: Path) -> RunFolder:
    shutil.copytree(OLD, tmp_path / OLD.name)
    return RunFolder(tmp_path / OLD.name)


def test_an_old_run_opens_and_judges_as_it_did(old: RunFolder) -> None:
    results = read_results(old.results)
    assert old.status == "finished" and damaged(old) == "" and old.recipe.digest == results.digest
    again = evaluate(old).measured
    # Another processor may round the logits otherwise; what depends on the classes alone must be equal.
    assert again.confusion == results.test.confusion and again.accuracy == results.test.accuracy
    assert again.loss == pytest.approx(results.test.loss, rel=1e-4)
    assert [phase.name for phase in results.phases] == ["train", "train"]
    page = write_report(old).read_text(encoding="utf-8")
    assert f"{100 * results.test.accuracy:.2f}&nbsp;%" in page


def test_an_old_model_predicts(old: RunFolder) -> None:
    predictor = Predictor(load_model(old.model))
    images = np.random.default_rng(0).integers(0, 256, (3, 20, 20, 3), dtype=np.uint8)
    assert all(len(prediction.classes) == 5 for prediction in predictor.predict_many(list(images)))
    assert load_predictions(old.predictions("test")).logits.shape == (30, 10)


def test_phases_of_one_name_are_told_apart(old: RunFolder) -> None:
    """0.1.0 gave unnamed phases one name; their curves must not be read as one (two phases, so no rise of the loss)."""
    from thawlab.evaluation.diagnosis import Outcome
    from thawlab.results import read_rows

    parts = Outcome(read_results(old.results), read_rows(old.metrics)).rows_by_phase()
    assert [[row.epoch for row in rows] for _, rows in parts] == [[1], [1, 2]]


# First digits of the digest of each committed recipe, as it is written and closed, computed with 0.1.0.
DIGESTS = {
    "cifar10-10k-mobilenetv2": ("889d0ee29dee", "09a8f39691db"),
    "cnn5": ("280bbb30bee7", "253e184c20b9"),
    "fruits360-mobilenetv2": ("a3d6a3f2c97c", "f3226ca7d96e"),
    "resnet20": ("862bf0b11991", "dada4230683a"),
    "resnet56": ("51f78ccf71ed", "4ba5cd648086"),
    "speednet": ("08816b7b832f", "1ddaf7629b82"),
    "vgg10": ("f1cd5c9f0fc7", "c4279a53c99c"),
    "wrn16-4": ("8a4b3a25f571", "39a4a595e48d"),
    "wrong-scaling": ("c4fe8b6695be", "2179d34dc597"),
}


@pytest.mark.parametrize("name", sorted(DIGESTS))
def test_the_committed_recipes_keep_their_digests(name: str) -> None:
    written, closed = DIGESTS[name]
    recipe = read_recipe(ROOT / "recipes" / f"{name}.toml")
    assert recipe.digest.startswith(written)
    folder = Path(recipe.model.backbone.removeprefix("local-dir:"))
    if recipe.model.backbone.startswith("local-dir:") and not folder.is_dir():
        pytest.skip(f"{folder} is not on this machine")
    assert resolve(recipe)[0].digest.startswith(closed)
