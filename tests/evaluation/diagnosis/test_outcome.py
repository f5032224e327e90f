from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from thawlab.evaluation.diagnosis import Outcome, diagnose
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.results import Diagnosis, Results

Found = Callable[..., list[Diagnosis]]


@pytest.fixture
def found(make_results: Callable[..., Results]) -> Found:
    """Diagnose the results of two classes without a validation split; further keys are those of the test split."""

    def of(
        gap: float = 0.05,
        val: dict[str, Any] | None = None,
        near_duplicates: dict[str, Any] | None = None,
        label_suspects: dict[str, Any] | None = None,
        **test: Any,
    ) -> list[Diagnosis]:
        standard = {"accuracy": 0.8, "accuracy_ci95": [0.7, 0.9], "confusion": [[40, 10], [10, 40]]}
        results = make_results(
            dataset={"classes": ["a", "b"]},
            train={"accuracy": 0.8},
            val=val or {"n": 0, "accuracy": 0.0, "loss": 0.0},
            test={**standard, **test},
            gap=gap,
            near_duplicates=near_duplicates,
            **({"label_suspects": label_suspects} if label_suspects else {}),
        )
        return diagnose(Outcome(results))

    return of


def _ids(entries: list[Diagnosis]) -> list[str]:
    return [entry.id for entry in entries]


def test_sound_results_have_no_diagnosis(found: Found) -> None:
    assert found() == []


def test_results_at_chance_are_found_and_not_called_overfitting(found: Found) -> None:
    assert _ids(found(accuracy=0.55, accuracy_ci95=[0.45, 0.65], gap=0.4)) == ["chance-level"]


def test_overfitting_is_found_by_the_gap(found: Found) -> None:
    assert _ids(found(gap=0.11)) == ["overfitting"]
    assert found(gap=0.1) == []


@pytest.mark.parametrize(("temperature", "name"), [(1.8, "over-confidence"), (0.6, "under-confidence")])
def test_bad_calibration_is_named_by_its_direction(found: Found, temperature: float, name: str) -> None:
    assert _ids(found(ece=0.09, temperature=temperature)) == [name]


def test_calibration_that_does_not_help_is_not_advised(found: Found) -> None:
    assert found(ece=0.09, ece_calibrated=0.1) == []


def test_an_empty_test_split_shows_nothing(found: Found) -> None:
    assert found(n=0, accuracy=0.0, accuracy_ci95=[0.0, 1.0], gap=0.0, confusion=[[0, 0], [0, 0]]) == []


@pytest.mark.parametrize(
    ("sure", "wrong", "expected"), [(200, 30, ["label-noise"]), (200, 12, []), (200, 0, []), (20, 3, []), (0, 0, [])]
)
def test_labels_that_contradict_the_most_confident_answers_are_found(
    found: Found, sure: int, wrong: int, expected: list[str]
) -> None:
    suspects = {"n": 1000, "count": 100, "sure": sure, "contradicted_when_sure": wrong, "first": []}
    assert _ids(found(label_suspects=suspects)) == expected


@pytest.mark.parametrize(("n", "expected"), [(20, ["validation-too-small"]), (500, []), (0, [])])
def test_a_validation_split_that_tells_nothing_apart_is_found(found: Found, n: int, expected: list[str]) -> None:
    assert _ids(found(val={"n": n, "accuracy": 0.8, "loss": 0.5})) == expected


@pytest.mark.parametrize(
    ("looked_at", "count", "expected"), [(500, 100, ["near-leakage"]), (500, 40, []), (10, 2, []), (0, 0, [])]
)
def test_a_test_split_that_looks_like_training_is_found(found: Found, looked_at: int, count: int, expected: list[str]) -> None:
    near = {"looked_at": looked_at, "too_smooth": 0, "count": count, "first": []}
    assert _ids(found(near_duplicates=near)) == expected
    assert found(near_duplicates=None) == []
    # Images that cannot be judged say nothing, either way.
    smooth = {"looked_at": 1000, "too_smooth": 500, "count": 80, "first": []}
    assert _ids(found(near_duplicates=smooth)) == ["near-leakage"]
    assert found(near_duplicates={**smooth, "too_smooth": 1000, "count": 0}) == []


@pytest.mark.parametrize(
    ("right", "n", "expected"), [(1, 1, []), (4, 8, []), (10, 20, ["chance-level"]), (500, 1000, ["chance-level"])]
)
def test_too_few_test_images_are_no_evidence_of_chance(found: Found, right: int, n: int, expected: list[str]) -> None:
    interval = list(accuracy_interval(right, n))
    assert _ids(found(n=n, accuracy=right / n, accuracy_ci95=interval)) == expected


def test_what_was_not_tested_does_not_overfit(found: Found) -> None:
    assert _ids(found(gap=0.99, n=0, accuracy=0.0, accuracy_ci95=[0.0, 1.0], confusion=[[0, 0], [0, 0]])) == []


def test_eight_of_eight_right_are_still_few(found: Found) -> None:
    entries = found(val={"n": 8, "accuracy": 1.0, "loss": 0.1})
    assert _ids(entries) == ["validation-too-small"] and "below 16 points" in entries[0].evidence
