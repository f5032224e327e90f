from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from thawlab.evaluation.diagnosis.curves import from_curves


def _rows(
    losses: list[float],
    accuracies: list[float] | None = None,
    phase: str = "all",
    lr: float = 1e-3,
    val_losses: list[float] | None = None,
) -> list[dict[str, Any]]:
    values = accuracies or [0.9] * len(losses)
    return [
        {"phase": phase, "train_loss": loss, "val_accuracy": accuracy, "lr": lr, "val_loss": val_loss}
        for loss, accuracy, val_loss in zip(losses, values, val_losses or [None] * len(losses), strict=True)
    ]


def _results(rows: list[dict[str, Any]], **changes: Any) -> dict[str, Any]:
    confusion = changes.pop("confusion", (np.eye(4, dtype=int) * 25).tolist())
    stopped = changes.pop("stopped", "epochs")
    names = list(dict.fromkeys(row["phase"] for row in rows))
    return {
        "dataset": {"classes": list("abcd")},
        "model": {"parameters": 1000},
        "phases": [{"name": name, "stopped": stopped, "trainable_parameters": changes.get("trained", 1000)} for name in names],
        "train": {"accuracy": changes.get("train", 0.95)},
        "test": {"n": 100, "confusion": confusion},
        "gap": changes.get("gap", 0.05),
    }


def _ids(rows: list[dict[str, Any]], **changes: Any) -> list[str]:
    return [entry["id"] for entry in from_curves(rows, _results(rows, **changes))]


def test_a_sound_course_has_no_diagnosis() -> None:
    assert _ids(_rows([1.0, 0.6, 0.45, 0.4, 0.38, 0.37])) == []


def test_a_loss_that_is_thrown_up_or_never_below_guessing_is_a_rate_too_high() -> None:
    assert _ids(_rows([1.0, 0.5, 0.9, 1.2])) == ["learning-rate-too-high"]
    assert _ids(_rows([5.0, 2.0, 1.5, 1.6]), train=0.3) == ["learning-rate-too-high"]
    assert _ids(_rows([1.0, 0.5, 0.52, 0.55])) == []


def test_a_second_phase_may_begin_above_the_first() -> None:
    rows = _rows([1.0, 0.5], phase="head") + _rows([0.8, 0.3, 0.2, 0.15], phase="all")
    assert _ids(rows) == []


def test_a_loss_that_hardly_falls_is_a_rate_too_low() -> None:
    falling = [1.38, 1.35, 1.32, 1.29, 1.26, 1.23, 1.20, 1.17]
    assert _ids(_rows(falling), train=0.5) == ["learning-rate-too-low"]
    assert _ids(_rows(falling[:6], [0.3, 0.33, 0.36, 0.39, 0.42, 0.45]), train=0.5) == ["stopped-early"]


def test_accuracy_that_still_rises_asks_for_more_epochs() -> None:
    rows = _rows([1.3, 0.9, 0.7, 0.6, 0.5, 0.42], [0.4, 0.5, 0.58, 0.64, 0.69, 0.73])
    assert _ids(rows, train=0.78) == ["stopped-early"]
    assert _ids(rows, train=0.78, stopped="patience") == []


def test_predictions_that_leave_classes_out_have_collapsed() -> None:
    collapsed = [[25, 0, 0, 0]] * 4
    assert _ids(_rows([1.0, 0.9, 0.8, 0.75]), confusion=collapsed)[0] == "class-collapse"
    absent = [[25, 0, 0, 0], [5, 20, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert _ids(_rows([1.0, 0.9, 0.8, 0.75]), confusion=absent) == []


@pytest.mark.parametrize(("trained", "word"), [(100, "backbone"), (1000, "larger")])
def test_training_images_that_are_not_learnt_are_underfitted(trained: int, word: str) -> None:
    rows = _rows([1.2, 1.0, 0.95, 0.94, 0.94, 0.94], [0.5, 0.55, 0.56, 0.56, 0.56, 0.56])
    found = from_curves(rows, _results(rows, train=0.57, gap=0.01, trained=trained))
    assert [entry["id"] for entry in found] == ["underfitting"]
    assert word in found[0]["advice"]


def test_without_validation_or_test_images_nothing_breaks() -> None:
    rows = _rows([1.0, 0.8, 0.7, 0.6, 0.5, 0.4])
    for row in rows:
        row["val_accuracy"] = None
    results = _results(rows, train=0.8, confusion=[[0] * 4] * 4)
    results["test"]["n"] = 0
    assert from_curves(rows, results) == []


def test_a_gap_that_grew_while_validation_fell_is_overfitting() -> None:
    losses, rising, even = [1.0, 0.6, 0.3, 0.1, 0.05], [0.9, 0.7, 0.72, 0.9, 1.1], [0.9, 0.7, 0.7, 0.72, 0.73]
    assert _ids(_rows(losses, val_losses=rising), train=0.99, gap=0.2) == ["overfitting"]
    assert _ids(_rows(losses, val_losses=rising), train=0.99, gap=0.05) == []
    assert _ids(_rows(losses, val_losses=even), train=0.99, gap=0.2) == []


def test_a_loss_that_stays_next_to_guessing_is_a_rate_too_low_and_no_collapse() -> None:
    collapsed = [[25, 0, 0, 0]] * 4
    assert _ids(_rows([1.386, 1.384, 1.381, 1.379, 1.377]), train=0.25, confusion=collapsed) == ["learning-rate-too-low"]
    assert _ids(_rows([1.386, 1.387, 1.385, 1.386, 1.386]), train=0.25, confusion=collapsed) == ["learning-rate-too-low"]
    assert _ids(_rows([1.33, 1.35, 1.33, 1.36, 1.34]), train=0.25, confusion=collapsed) == ["class-collapse"]


def test_a_loss_that_goes_back_to_guessing_is_a_rate_too_high() -> None:
    assert _ids(_rows([1.22, 1.36, 1.39, 1.38, 1.385]), train=0.4) == ["learning-rate-too-high"]


def test_a_burst_in_the_first_epoch_is_a_rate_too_high() -> None:
    assert _ids(_rows([9.0, 1.2, 0.9, 0.8, 0.75])) == ["learning-rate-too-high"]
