from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from thawlab.errors import ThawlabError
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import Classifier, build_classifier, feature_width, make_preprocessing
from thawlab.models.saved import Reference, load_model, model_card, save_model
from thawlab.recipe import Recipe

CLASSES = ("cat", "Käse 🧀", '"<b>"')


def known(classifier: Classifier) -> Reference:
    return Reference(np.eye(4, feature_width(classifier.backbone), dtype=np.float16), 0.5)


def _save(folder: Path, recipe: Recipe, size: int = 16) -> Classifier:
    """Save a classifier whose BatchNorm statistics have moved, and return it."""
    spec = resolve_backbone(recipe.model.backbone)
    classifier = build_classifier(recipe, spec, size, len(CLASSES))
    with torch.no_grad():
        classifier.train()(torch.rand(16, 3, size, size))
    preprocessing, reference = make_preprocessing(recipe.data, spec, size), known(classifier)
    card = model_card(
        spec,
        recipe.model,
        classes=CLASSES,
        preprocessing=preprocessing,
        temperature=1.75,
        set_threshold=0.25,
        novelty_limit=reference and reference.limit,
    )
    save_model(folder, classifier, card, reference)
    return classifier.eval()


@pytest.mark.parametrize(
    ("backbone", "size"),
    [("cnn5", 20), ("vgg10", 16), ("resnet20", 16), ("speednet", 16), ("test_resnet", 32), ("test_vit", 160), ("test_vit", 64)],
)
def test_a_classifier_comes_back_with_the_same_logits_bit_for_bit(
    tmp_path: Path, recipe: Callable[..., Recipe], backbone: str, size: int
) -> None:
    chosen = recipe(f"model.backbone={backbone}", "model.pretrained=false", "model.head=[12, 7]", "model.dropout=[0.5, 0.1]")
    classifier = _save(tmp_path, chosen, size).to(memory_format=torch.channels_last)
    saved = load_model(tmp_path)
    x = torch.randn(8, 3, size, size).contiguous(memory_format=torch.channels_last)
    with torch.inference_mode():
        assert torch.equal(saved.classifier(x), classifier(x))
    assert not any(module.training for module in saved.classifier.modules())


def test_the_card_says_everything_that_prediction_needs(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    chosen = recipe("model.backbone=resnet20", "model.head=[5]", "model.dropout=[0.25]")
    _save(tmp_path, chosen)
    card = load_model(tmp_path).card
    assert card.classes == CLASSES
    assert (card.backbone, card.architecture, card.head, card.dropout, card.temperature) == (
        "resnet20",
        "resnet20",
        (5,),
        (0.25,),
        1.75,
    )
    assert (card.set_threshold, card.novelty_limit) == (0.25, 0.5)
    reference = load_model(tmp_path).reference
    assert reference is not None and reference.limit == 0.5
    assert np.array_equal(reference.features, known(load_model(tmp_path).classifier).features)
    assert card.preprocessing == make_preprocessing(chosen.data, resolve_backbone("resnet20"), 16)
    assert json.loads((tmp_path / "model.json").read_text(encoding="utf-8"))["schema"] == 1


def test_the_same_values_give_the_same_bytes(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    for name in ("a", "b"):
        torch.manual_seed(0)
        _save(tmp_path / name, recipe("model.backbone=speednet"))
    for file in ("known.safetensors", "model.safetensors", "model.json"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()
    assert sorted(entry.name for entry in (tmp_path / "a").iterdir()) == ["known.safetensors", "model.json", "model.safetensors"]


def test_loading_leaves_the_global_random_state_as_it_was(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    before = torch.get_rng_state()
    load_model(tmp_path)
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.parametrize("missing", ["model.json", "model.safetensors"])
def test_a_missing_file_is_named(tmp_path: Path, recipe: Callable[..., Recipe], missing: str) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    (tmp_path / missing).unlink()
    with pytest.raises(ThawlabError, match="is missing") as caught:
        load_model(tmp_path)
    assert str(tmp_path / missing) in str(caught.value)


@pytest.mark.parametrize("damaged", ["model.json", "model.safetensors"])
@pytest.mark.parametrize("keep", [0, 7, 0.5])
def test_a_damaged_file_is_named(tmp_path: Path, recipe: Callable[..., Recipe], damaged: str, keep: float) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    file = tmp_path / damaged
    content = file.read_bytes()
    file.write_bytes(content[: int(len(content) * keep) if keep < 1 else int(keep)])
    with pytest.raises(ThawlabError) as caught:
        load_model(tmp_path)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_weights_of_another_network_are_refused(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    _save(tmp_path / "a", recipe("model.backbone=cnn5"))
    _save(tmp_path / "b", recipe("model.backbone=resnet20"))
    (tmp_path / "b" / "model.safetensors").replace(tmp_path / "a" / "model.safetensors")
    with pytest.raises(ThawlabError, match=r"model\.safetensors: does not fit model\.json"):
        load_model(tmp_path / "a")


def test_a_model_of_another_revision_of_our_own_network_is_refused(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    _save(tmp_path, recipe("model.backbone=speednet"))
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "revision": 1}))
    with pytest.raises(ThawlabError, match=r"model\.json: holds revision 1 of 'speednet'.*the version that trained it"):
        load_model(tmp_path)


def test_a_card_with_a_wrong_value_names_its_key(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "revision": "x"}))
    with pytest.raises(ThawlabError, match=r"model\.json: cannot be read: revision: .*integer") as caught:
        load_model(tmp_path)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("schema", [99, 0, "1", None])
def test_a_card_of_another_schema_is_refused_by_its_number(tmp_path: Path, recipe: Callable[..., Recipe], schema: object) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    file = tmp_path / "model.json"
    card = {**json.loads(file.read_text(encoding="utf-8")), "schema": schema, "key_of_another_version": 1}
    file.write_text(json.dumps(card), encoding="utf-8")
    with pytest.raises(ThawlabError, match=rf"model\.json: has schema {schema}, this thawlab reads 1; use the version"):
        load_model(tmp_path)


def test_a_card_with_an_unknown_key_is_refused(tmp_path: Path, recipe: Callable[..., Recipe]) -> None:
    _save(tmp_path, recipe("model.backbone=cnn5"))
    file = tmp_path / "model.json"
    file.write_text(json.dumps({**json.loads(file.read_text()), "code": "import os"}))
    with pytest.raises(ThawlabError, match=r"model\.json: cannot be read"):
        load_model(tmp_path)
