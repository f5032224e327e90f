from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from thawlab.evaluation.diagnosis import Start, diagnose
from thawlab.recipe import Recipe
from thawlab.results import Diagnosis


def _found(recipe: Recipe, feature_side: int | None = 7, **known: Any) -> list[Diagnosis]:
    return diagnose(Start(recipe, feature_side, **known))


def _ids(recipe: Recipe, feature_side: int | None = 7, **known: Any) -> list[str]:
    return [entry.id for entry in _found(recipe, feature_side, **known)]


def test_a_sound_recipe_has_no_diagnosis(recipe: Callable[..., Recipe]) -> None:
    assert _found(recipe(), 7) == []
    assert _found(recipe(), None) == []


@pytest.mark.parametrize("normalize", ["unit", "symmetric"])
def test_inputs_unlike_the_weights_pretraining_are_found(recipe: Callable[..., Recipe], normalize: str) -> None:
    assert _ids(recipe(f"data.normalize={normalize}")) == ["wrong-normalisation"]
    assert _found(recipe(f"data.normalize={normalize}", "model.pretrained=false")) == []


@pytest.mark.parametrize(("side", "expected"), [(1, ["input-too-small"]), (2, ["input-too-small"]), (3, [])])
def test_a_feature_map_of_few_cells_is_found(recipe: Callable[..., Recipe], side: int, expected: list[str]) -> None:
    assert _ids(recipe(), side) == expected


def test_a_test_split_with_corrected_labels_is_said(recipe: Callable[..., Recipe]) -> None:
    [found] = _found(recipe(), corrected_test=4)
    assert (found.id, found.severity) == ("corrected-test", "info") and "4 test images" in found.evidence


def test_padding_is_found_where_the_backbone_was_pretrained(recipe: Callable[..., Recipe]) -> None:
    assert _ids(recipe("data.resize=pad")) == ["padded-input"]
    assert _found(recipe("data.resize=pad", "model.pretrained=false")) == []


def test_images_that_are_trained_and_tested_on_are_found(recipe: Callable[..., Recipe]) -> None:
    [found] = _found(recipe(), leaks=3)
    assert found.id == "leakage" and found.evidence.startswith("3 images") and found.severity == "error"


@pytest.mark.parametrize(("counts", "expected"), [([500, 50], ["class-imbalance"]), ([500, 51], []), ([500, 0], []), ([5], [])])
def test_training_classes_of_very_different_sizes_are_found(
    recipe: Callable[..., Recipe], counts: list[int], expected: list[str]
) -> None:
    assert _ids(recipe(), train_counts=counts) == expected


def test_the_advice_for_unequal_classes_leaves_out_what_is_done_already(recipe: Callable[..., Recipe]) -> None:
    [found] = _found(recipe(), train_counts=[500, 5])
    assert "logit_adjustment = 1.0" in found.advice
    [done] = _found(recipe('phases.0.class_weights="balanced"'), train_counts=[500, 5])
    assert "logit_adjustment" not in done.advice and "macro metrics" in done.advice


def test_batch_norm_far_from_the_data_is_found_unless_the_scaling_explains_it(recipe: Callable[..., Recipe]) -> None:
    assert _ids(recipe(), batch_norm=2.0) == ["batch-norm-mismatch"]
    assert _found(recipe(), batch_norm=0.9) == []
    assert "batch-norm-mismatch" not in _ids(recipe("data.normalize=unit"), batch_norm=5.0)


def test_the_two_faults_of_the_tutorials_are_named_together(recipe: Callable[..., Recipe]) -> None:
    first, second = _found(recipe("data.normalize=unit", "data.image_size=32"), 1)
    assert "'unit'" in first.evidence and "1×1 cells" in first.evidence and "image_size" in first.advice
    assert second.id == "input-too-small"
