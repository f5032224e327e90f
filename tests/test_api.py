from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image

import thawlab
from thawlab.recipe import Recipe


def test_the_python_face_mirrors_the_verbs(recipe: Callable[..., Recipe], photos: Path, tmp_path: Path) -> None:
    small = recipe(f"data.source={photos}", "data.image_size=32", "phases.0.epochs=4")
    run = thawlab.train(small, runs=tmp_path)
    assert run.results.test.n == len(run.predictions("test").labels)
    assert run.recipe.model.backbone == "bundled"
    assert run.report().read_text(encoding="utf-8").startswith("<!doctype html>")
    predictor = thawlab.load(run)
    file = photos / "red" / "00.png"
    from_file = predictor.predict(file)
    from_image = predictor.predict(Image.open(file).convert("RGB"))
    from_pixels = predictor.predict(np.asarray(Image.open(file).convert("RGB")))
    assert from_file.probabilities == from_image.probabilities == from_pixels.probabilities
    assert thawlab.load(run.path.name, runs=tmp_path).predict(file) == from_file
