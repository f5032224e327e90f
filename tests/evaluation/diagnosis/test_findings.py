from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from thawlab.evaluation.diagnosis.findings import _ORDER, after_training, before_training, diagnosis, ordered
from thawlab.recipe import Recipe


def _results(**changes: Any) -> dict[str, Any]:
    test = {"n": 100, "accuracy": 0.8, "accuracy_ci95": [0.7, 0.9], "ece": 0.02, "ece_calibrated": 0.01, "temperature": 1.2}
    gap = changes.pop("gap", 0.05)
    return {
        "dataset": {"classes": ["a", "b"]},
        "train": {"accuracy": 0.8},
        "val": {"n": 0},
        "test": {**test, **changes},
        "gap": gap,
    }


def _ids(found: list[dict[str, str]]) -> list[str]:
    return [entry["id"] for entry in found]


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
    for entry in found:
        assert set(entry) == {"id", "severity", "evidence", "advice"}
        assert entry["severity"] in {"error", "warning", "info"}
        assert entry["evidence"]
        assert entry["advice"]


def test_images_that_are_learnt_and_tested_on_are_found(recipe: Callable[..., Recipe]) -> None:
    [found] = before_training(recipe(), 7, leaks=3)
    assert found["id"] == "leakage" and found["evidence"].startswith("3 images") and found["severity"] == "error"


@pytest.mark.parametrize(("counts", "expected"), [([500, 50], ["class-imbalance"]), ([500, 51], []), ([500, 0], []), ([5], [])])
def test_training_classes_of_very_different_sizes_are_found(
    recipe: Callable[..., Recipe], counts: list[int], expected: list[str]
) -> None:
    assert _ids(before_training(recipe(), 7, train_counts=counts)) == expected


def test_batch_norm_far_from_the_data_is_found_unless_the_scaling_explains_it(recipe: Callable[..., Recipe]) -> None:
    assert _ids(before_training(recipe(), 7, batch_norm=2.0)) == ["batch-norm-mismatch"]
    assert before_training(recipe(), 7, batch_norm=0.9) == []
    assert "batch-norm-mismatch" not in _ids(before_training(recipe("data.normalize=unit"), 7, batch_norm=5.0))


@pytest.mark.parametrize(
    ("sure", "wrong", "expected"), [(200, 30, ["label-noise"]), (200, 12, []), (200, 0, []), (20, 3, []), (0, 0, [])]
)
def test_labels_that_contradict_the_surest_answers_are_found(sure: int, wrong: int, expected: list[str]) -> None:
    results = _results() | {
        "label_suspects": {"n": 1000, "count": 100, "sure": sure, "contradicted_when_sure": wrong, "first": []}
    }
    assert _ids(after_training(results)) == expected


@pytest.mark.parametrize(("n", "expected"), [(20, ["validation-too-small"]), (500, []), (0, [])])
def test_a_validation_split_that_tells_nothing_apart_is_found(n: int, expected: list[str]) -> None:
    assert _ids(after_training(_results() | {"val": {"n": n, "accuracy": 0.8, "loss": 0.5}})) == expected


@pytest.mark.parametrize(
    ("looked_at", "count", "expected"), [(500, 100, ["near-leakage"]), (500, 40, []), (10, 2, []), (0, 0, [])]
)
def test_a_test_split_that_looks_like_training_is_found(looked_at: int, count: int, expected: list[str]) -> None:
    near = {"looked_at": looked_at, "too_smooth": 0, "count": count, "first": []}
    assert _ids(after_training(_results() | {"near_duplicates": near})) == expected
    assert after_training(_results() | {"near_duplicates": {}}) == []
    # Images that cannot be judged say nothing, either way.
    smooth = {"looked_at": 1000, "too_smooth": 500, "count": 80, "first": []}
    assert _ids(after_training(_results() | {"near_duplicates": smooth})) == ["near-leakage"]
    assert after_training(_results() | {"near_duplicates": {**smooth, "too_smooth": 1000, "count": 0}}) == []


def test_causes_come_before_consequences_and_every_name_has_its_place() -> None:
    names = ["overfitting", "leakage", "over-confidence", "label-noise"]
    assert _ids(ordered([diagnosis(name, "info", "", "") for name in names])) == [
        "leakage",
        "label-noise",
        "overfitting",
        "over-confidence",
    ]
    import re
    from pathlib import Path

    import thawlab.evaluation as package

    sources = "".join(path.read_text() for path in Path(str(package.__file__)).parent.glob("*diagnosis.py"))
    assert set(re.findall(r'diagnosis\(\s*"([a-z-]+)"', sources)) <= set(_ORDER)


def test_the_two_faults_of_the_tutorials_are_named_together(recipe: Callable[..., Recipe]) -> None:
    first, second = before_training(recipe("data.normalize=unit", "data.image_size=32"), 1)
    assert "'unit'" in first["evidence"] and "1×1 cells" in first["evidence"] and "image_size" in first["advice"]
    assert second["id"] == "input-too-small"
