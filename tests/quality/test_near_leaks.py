from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from thawlab.data.dataset import Dataset, load_dataset
from thawlab.data.splits import Splits
from thawlab.models.classifier import make_preprocessing
from thawlab.plan.resolve import resolve
from thawlab.quality.near_leaks import near_leaks
from thawlab.recipe import Recipe

Make = Callable[..., Recipe]


def loaded(recipe: Recipe) -> Dataset:
    resolved, spec = resolve(recipe)
    assert resolved.data.image_size is not None
    return load_dataset(resolved, make_preprocessing(resolved.data, spec, resolved.data.image_size))


@pytest.fixture
def real(recipe: Make, cifar10: Path) -> Dataset:
    """600 real images to learn from and 10,000 to test on."""
    table = {"source": "cifar10", "train_size": 600, "image_size": 32}
    return loaded(recipe(f"system.data_dir={cifar10}", data=table))


def with_planted(dataset: Dataset, change: Callable[[np.ndarray], np.ndarray], count: int = 20) -> Dataset:
    """Put changed training images in place of the first test images; of the test split 300 remain."""
    images = np.array(dataset.images)
    train, test = dataset.splits.train, dataset.splits.test[:300]
    for one, other in zip(train[:count], test[:count], strict=True):
        images[other] = change(images[one])
    return replace(dataset, images=images, splits=Splits(train=train, val=dataset.splits.val, test=test))


@pytest.mark.parametrize(
    "change",
    [lambda p: p[:, ::-1], lambda p: np.clip(p * 1.1, 0, 255).astype(np.uint8), lambda p: p[:, [0, 0, *range(30)]]],
    ids=["mirrored", "brighter", "shifted"],
)
def test_training_images_that_were_changed_a_little_are_found_in_the_test_split(
    real: Dataset, change: Callable[[np.ndarray], np.ndarray]
) -> None:
    planted = with_planted(real, change)
    found = near_leaks(planted)
    assert found is not None
    wanted = set(zip(planted.splits.train[:20].tolist(), planted.splits.test[:20].tolist(), strict=True))
    assert found.looked_at == 300
    assert len(set(found.pairs) & wanted) >= 20 - found.too_smooth
    assert len(set(found.pairs) - wanted) <= 2
    assert list(found.similarities) == sorted(found.similarities, reverse=True)
    entry = found.as_json(planted.ids)["first"][0]
    assert entry["train"] in planted.ids and entry["test"] in planted.ids and entry["similarity"] >= 0.9


def test_images_of_the_very_same_content_are_leaks_already_and_not_named_twice(real: Dataset) -> None:
    planted = with_planted(real, lambda image: image, count=3)
    pairs = tuple(zip(planted.splits.train[:3].tolist(), planted.splits.test[:3].tolist(), strict=True))
    found = near_leaks(replace(planted, leaks=pairs))
    assert found is not None
    assert not set(found.pairs) & set(pairs)


def test_handwriting_at_eight_pixels_is_too_smooth_to_tell(recipe: Make) -> None:
    found = near_leaks(loaded(recipe(data={"source": "digits", "image_size": 32})))
    assert found is not None
    assert found.looked_at > 300
    assert found.too_smooth > 0.95 * found.looked_at
    assert len(found.pairs) < 0.01 * found.looked_at


@pytest.mark.parametrize("size", [16, 32, 64])
def test_drawn_shapes_of_any_size_are_hardly_ever_near_duplicates(recipe: Make, size: int) -> None:
    found = near_leaks(loaded(recipe(data={"source": f"shapes:600x{size}", "image_size": size})))
    assert found is not None
    assert found.looked_at > 100
    assert len(found.pairs) < 0.05 * found.looked_at


def test_what_was_found_is_kept_for_the_same_images_and_splits(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dataset = loaded(recipe())
    first = near_leaks(dataset, tmp_path)
    assert first == near_leaks(dataset)
    looked: list[int] = []
    monkeypatch.setattr("thawlab.quality.near_leaks._look", lambda _dataset: looked.append(1))
    assert near_leaks(dataset, tmp_path) == first and looked == []
    other = replace(dataset, splits=dataset.splits._replace(test=dataset.splits.test[:-1]))
    assert near_leaks(other, tmp_path) is None and looked == [1]
    [file] = tmp_path.glob("*.json")
    file.write_text('{"looked_at": 1}')
    assert near_leaks(dataset, tmp_path) is None and looked == [1, 1]
