from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from thawlab.evaluation.diagnosis import after_training, before_training
from thawlab.recipe import Recipe


def _results(**changes: Any) -> dict[str, Any]:
    test = {"n": 100, "accuracy": 0.8, "accuracy_ci95": [0.7, 0.9], "ece": 0.02, "ece_calibrated": 0.01, "temperature": 1.2}
    gap = changes.pop("gap", 0.05)
    return {"dataset": {"classes": ["a", "b"]}, "test": {**test, **changes}, "gap": gap}


def _ids(found: list[dict[str, str]]) -> list[str]:
    return [diagnosis["id"] for diagnosis in found]


def test_a_sound_recipe_and_sound_results_have_no_diagnosis(recipe: Callable[..., Recipe]) -> None:
    assert before_training(recipe(), 7) == []
    assert before_training(recipe(), None) == []
    assert after_training(_results()) == []


@pytest.mark.parametrize("normalize", ["unit", "symmetric"])
def test_inputs_unlike_the_weights_pretraining_are_found(recipe: Callable[..., Recipe], normalize: str) -> None:
    assert _ids(before_training(recipe(f"data.normalize={normalize}"), 7)) == ["wrong-normalisation"]
    assert before_training(recipe(f"data.normalize={normalize}", "model.pretrained=false"), 7) == []


@pytest.mark.parametrize(("side", "expected"), [(1, ["input-too-small"]), (2, ["input-too-small"]), (3, [])])
def test_a_feature_map_of_few_cells_is_found(recipe: Callable[..., Recipe], side: int, expected: list[str]) -> None:
    assert _ids(before_training(recipe(), side)) == expected


def test_padding_is_found_where_the_backbone_was_pretrained(recipe: Callable[..., Recipe]) -> None:
    assert _ids(before_training(recipe("data.resize=pad"), 7)) == ["padded-input"]
    assert before_training(recipe("data.resize=pad", "model.pretrained=false"), 7) == []


def test_results_at_chance_are_found_and_not_called_overfitting() -> None:
    assert _ids(after_training(_results(accuracy=0.55, accuracy_ci95=[0.45, 0.65], gap=0.4))) == ["chance-level"]


def test_overfitting_is_found_by_the_gap() -> None:
    assert _ids(after_training(_results(gap=0.11))) == ["overfitting"]
    assert after_training(_results(gap=0.1)) == []


@pytest.mark.parametrize(("temperature", "name"), [(1.8, "over-confidence"), (0.6, "under-confidence")])
def test_bad_calibration_is_named_by_its_direction(temperature: float, name: str) -> None:
    assert _ids(after_training(_results(ece=0.09, temperature=temperature))) == [name]


def test_calibration_that_does_not_help_is_not_advised() -> None:
    assert after_training(_results(ece=0.09, ece_calibrated=0.1)) == []


def test_an_empty_test_split_shows_nothing() -> None:
    assert after_training(_results(n=0, accuracy=0.0, accuracy_ci95=[0.0, 1.0], gap=0.0)) == []


def test_every_diagnosis_has_its_evidence_in_numbers_and_one_action(recipe: Callable[..., Recipe]) -> None:
    found = [
        *before_training(recipe("data.normalize=unit", "data.resize=pad"), 1),
        *after_training(_results(accuracy_ci95=[0.4, 0.6], ece=0.3)),
        *after_training(_results(gap=0.3)),
    ]
    assert len(found) == 6
    for diagnosis in found:
        assert set(diagnosis) == {"id", "severity", "evidence", "advice"}
        assert diagnosis["severity"] in {"error", "warning", "info"}
        assert diagnosis["evidence"]
        assert diagnosis["advice"]
