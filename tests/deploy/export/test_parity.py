from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from thawlab.data.decode import decode
from thawlab.data.types import Pixels
from thawlab.deploy.export import standalone
from thawlab.deploy.export.card import description
from thawlab.deploy.export.formats import Exporter, Outputs, named
from thawlab.deploy.export.graph import ExportedGraph, outputs_of
from thawlab.deploy.export.parity import check
from thawlab.deploy.export.pictures import HeldOut, write_pictures
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError
from thawlab.models.saved import Reference, SavedModel, load_model
from thawlab.recipe import parse_recipe
from thawlab.run import RunFolder
from thawlab.runner import train

EXACT = Exporter(lambda _material, _folder: None, lambda _folder: lambda _images: {})


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> RunFolder:
    root = tmp_path_factory.mktemp("parity")
    recipe = parse_recipe(
        {
            "data": {"source": "shapes:400x24", "image_size": 24},
            "model": {"backbone": "cnn5"},
            "phases": [{"train": "all", "epochs": 3, "batch_size": 16, "lr": 0.003}],
            "system": {"threads": 1, "cache_dir": str(root / "cache"), "device": "cpu"},
        }
    )
    return train(recipe, root / "runs")


@pytest.fixture(scope="module")
def model(run: RunFolder) -> SavedModel:
    return load_model(run.model)


@pytest.fixture(scope="module")
def source() -> HeldOut:
    rng = np.random.default_rng(0)
    images = []
    for number in range(40):
        height, width = rng.integers(16, 90, 2)
        y, x = np.mgrid[0:height, 0:width]
        centre, radius = rng.uniform(0.3, 0.7, 2) * (height, width), rng.uniform(0.2, 0.4) * min(height, width)
        inside = (
            np.hypot(y - centre[0], x - centre[1]) < radius if number % 2 else abs(y - centre[0]) + abs(x - centre[1]) < radius
        )
        colours = rng.integers(0, 256, (2, 3))
        noisy = np.where(inside[..., None], *colours) + rng.normal(0, 12, (height, width, 3))
        images.append(np.clip(noisy, 0, 255).astype(np.uint8))
    return HeldOut("val", tuple(map(str, range(40))), np.zeros(40, dtype=np.int64), images.__getitem__)


def session(model: SavedModel, change: Callable[[Pixels], Pixels] = lambda images: images) -> Callable[[Pixels], Outputs]:
    graph = ExportedGraph(model).eval()

    def answer(images: Pixels) -> Outputs:
        with torch.inference_mode():
            parts = graph(torch.from_numpy(np.ascontiguousarray(change(images)).copy()))
        return named(outputs_of(model), [part.numpy() for part in parts])

    return answer


def card_of(model: SavedModel) -> dict[str, Any]:
    return description(model.card, outputs_of(model), "run", "0" * 64, "0")


def test_the_same_classifier_passes(model: SavedModel, source: HeldOut) -> None:
    found = check(EXACT, session(model), Predictor(model), card_of(model), source, None, 0.01)
    assert found.n == 256 and found.agreement == 1.0 and found.largest < 1e-5 and found.decisions == 1.0


def _with_look(model: SavedModel, **changes: object) -> SavedModel:
    return model._replace(
        card=model.card.model_copy(update={"preprocessing": model.card.preprocessing.model_copy(update=changes)})
    )


def _permuted(model: SavedModel) -> Callable[[Pixels], Outputs]:
    inner = session(model)
    return lambda images: {**(found := inner(images)), "probabilities": np.roll(found["probabilities"], 1, axis=1)}


# What goes wrong in exports, each planted alone.
PLANTED: dict[str, Callable[[SavedModel], Callable[[Pixels], Outputs]]] = {
    "BGR": lambda model: session(model, lambda images: images[..., ::-1]),
    "mean": lambda model: session(_with_look(model, mean=(0.485, 0.456, 0.406))),
    "std": lambda model: session(_with_look(model, std=(0.27, 0.27, 0.27))),
    "interpolation": lambda model: session(_with_look(model, interpolation="lanczos")),
    "nearest": lambda model: session(_with_look(model, interpolation="nearest")),
    "padding": lambda model: session(_with_look(model, resize="pad")),
    "crop": lambda model: session(_with_look(model, resize="crop", crop_pct=0.875)),
    "classes": _permuted,
    "temperature": lambda model: session(
        model._replace(card=model.card.model_copy(update={"temperature": 1.1 * model.card.temperature}))
    ),
    "turned": lambda model: session(model, lambda images: images.transpose(0, 2, 1, 3)),
    "mirrored": lambda model: session(model, lambda images: images[:, :, ::-1]),
    "one pixel off": lambda model: session(model, lambda images: np.roll(images, 1, axis=2)),
    "not known": lambda model: session(model._replace(reference=_shifted(model.reference))),
}


def _shifted(reference: Reference | None) -> Reference:
    assert reference is not None
    return Reference(reference.features[::-1, ::-1].copy(), reference.limit)


@pytest.mark.parametrize("fault", PLANTED)
def test_a_planted_difference_is_caught(fault: str, model: SavedModel, source: HeldOut) -> None:
    with pytest.raises(ThawlabError, match="nothing was kept"):
        check(EXACT, PLANTED[fault](model), Predictor(model), card_of(model), source, None, 0.01)


def test_a_batch_that_mixes_its_images_is_caught(model: SavedModel, source: HeldOut) -> None:
    inner = session(model)

    def mixing(images: Pixels) -> Outputs:
        outputs = inner(images)
        return {**outputs, "probabilities": outputs["probabilities"].mean(axis=0, keepdims=True).repeat(len(images), axis=0)}

    with pytest.raises(ThawlabError, match="in batches of 7 than one by one"):
        check(EXACT, mixing, Predictor(model), card_of(model), source, None, 0.01)


def test_a_loss_of_accuracy_is_caught_and_said_with_its_interval(model: SavedModel, source: HeldOut) -> None:
    pixels = np.stack([model.card.preprocessing.fit(Image.fromarray(source.read(k))) for k in range(40)])
    judged = source._replace(labels=Predictor(model).logits(pixels).argmax(axis=1))
    fitted = Exporter(EXACT.write, EXACT.open, calibrated=True)
    card = card_of(model)
    good = check(fitted, session(model), Predictor(model), card, source, (judged, pixels), 0.01)
    assert good.accuracy is not None and good.accuracy.loss == 0 and good.accuracy.original == 1
    with pytest.raises(ThawlabError, match=r"rounding costs 100\.00 points of val accuracy \(0\.00 % beside 100\.00 %, 40 im"):
        check(fitted, _permuted(model), Predictor(model), card, source, (judged, pixels), 0.01)


def test_the_pictures_come_in_every_form_and_are_read_as_by_the_predictor(
    model: SavedModel, source: HeldOut, tmp_path: Path
) -> None:
    card, files = card_of(model), write_pictures(source, 128, tmp_path)
    kinds = {(Image.open(file).format, Image.open(file).mode, 0x0112 in Image.open(file).getexif()) for file in files}
    assert {mode for _, mode, _ in kinds} == {"RGB", "L", "RGBA", "LA", "CMYK", "P", "I;16"}
    assert {is_turned for *_, is_turned in kinds} == {False, True}
    assert len({Image.open(file).size for file in files}) > 60
    look = model.card.preprocessing
    for file in files:
        assert np.array_equal(look.fit(Image.fromarray(standalone.read(file, card))), decode(file.read_bytes(), look)), file.name
