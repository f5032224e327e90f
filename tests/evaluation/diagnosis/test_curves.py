from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest

from thawlab.evaluation.diagnosis import Outcome, diagnose
from thawlab.results import Diagnosis, EpochRow, Results

Diagnosed = Callable[..., list[Diagnosis]]
Ids = Callable[..., list[str]]


def _rows(
    losses: Sequence[float],
    accuracies: Sequence[float | None] | None = None,
    phase: str = "all",
    lr: float = 1e-3,
    val_losses: Sequence[float] | None = None,
) -> list[EpochRow]:
    values = accuracies or [0.9] * len(losses)
    return [
        EpochRow(
            phase=phase,
            epoch=number,
            step=10 * number,
            seconds=1.0,
            train_loss=loss,
            val_loss=val_loss,
            val_accuracy=accuracy,
            lr=lr,
        )
        for number, (loss, accuracy, val_loss) in enumerate(
            zip(losses, values, val_losses or [None] * len(losses), strict=True), start=1
        )
    ]


@pytest.fixture
def diagnosed(make_results: Callable[..., Results]) -> Diagnosed:
    """Diagnose a course of training; its phases are those that the rows name."""

    def of(
        rows: Sequence[EpochRow],
        train: float = 0.95,
        gap: float = 0.05,
        stopped: str = "epochs",
        trained: int = 1000,
        **changes: Any,
    ) -> list[Diagnosis]:
        names = [row.phase for row in rows]
        phases = [
            {
                "name": name,
                "trainable_parameters": trained,
                "epochs_run": names.count(name),
                "best_epoch": names.count(name),
                "best_val_accuracy": 0.9,
                "seconds": 1.0,
                "stopped": stopped,
            }
            for name in dict.fromkeys(names)
        ]
        return diagnose(Outcome(make_results(phases=phases, train={"accuracy": train}, gap=gap, **changes), rows))

    return of


@pytest.fixture
def ids(diagnosed: Diagnosed) -> Ids:
    return lambda rows, **changes: [entry.id for entry in diagnosed(rows, **changes)]


def test_a_sound_course_has_no_diagnosis(ids: Ids) -> None:
    assert ids(_rows([1.0, 0.6, 0.45, 0.4, 0.38, 0.37])) == []


def test_a_loss_that_is_thrown_up_or_never_below_guessing_is_a_rate_too_high(ids: Ids) -> None:
    assert ids(_rows([1.0, 0.5, 0.9, 1.2])) == ["learning-rate-too-high"]
    assert ids(_rows([5.0, 2.0, 1.5, 1.6]), train=0.3) == ["learning-rate-too-high"]
    assert ids(_rows([1.0, 0.5, 0.52, 0.55])) == []


def test_a_second_phase_may_begin_above_the_first(ids: Ids) -> None:
    rows = _rows([1.0, 0.5], phase="head") + _rows([0.8, 0.3, 0.2, 0.15], phase="all")
    assert ids(rows) == []


def test_a_loss_that_hardly_falls_is_a_rate_too_low(ids: Ids) -> None:
    falling = [1.38, 1.35, 1.32, 1.29, 1.26, 1.23, 1.20, 1.17]
    assert ids(_rows(falling), train=0.5) == ["learning-rate-too-low"]
    assert ids(_rows(falling[:6], [0.3, 0.33, 0.36, 0.39, 0.42, 0.45]), train=0.5) == ["stopped-early"]


def test_accuracy_that_still_rises_asks_for_more_epochs(ids: Ids) -> None:
    rows = _rows([1.3, 0.9, 0.7, 0.6, 0.5, 0.42], [0.4, 0.5, 0.58, 0.64, 0.69, 0.73])
    assert ids(rows, train=0.78) == ["stopped-early"]
    assert ids(rows, train=0.78, stopped="patience") == []


def test_predictions_that_leave_classes_out_have_collapsed(ids: Ids) -> None:
    collapsed = [[25, 0, 0, 0]] * 4
    assert ids(_rows([1.0, 0.9, 0.8, 0.75]), test={"confusion": collapsed})[0] == "class-collapse"
    absent = [[25, 0, 0, 0], [5, 20, 0, 0], [0, 0, 0, 0], [0, 0, 0, 0]]
    assert ids(_rows([1.0, 0.9, 0.8, 0.75]), test={"confusion": absent}) == []


@pytest.mark.parametrize(("trained", "word"), [(100, "backbone"), (1000, "larger")])
def test_training_images_that_are_not_learned_are_underfitted(diagnosed: Diagnosed, trained: int, word: str) -> None:
    rows = _rows([1.2, 1.0, 0.95, 0.94, 0.94, 0.94], [0.5, 0.55, 0.56, 0.56, 0.56, 0.56])
    found = diagnosed(rows, train=0.57, gap=0.01, trained=trained)
    assert [entry.id for entry in found] == ["underfitting"]
    assert word in found[0].advice


def test_without_validation_or_test_images_nothing_breaks(ids: Ids) -> None:
    rows = _rows([1.0, 0.8, 0.7, 0.6, 0.5, 0.4], [None] * 6)
    nothing = {"n": 0, "accuracy": 0.0, "loss": 0.0}
    assert ids(rows, train=0.8, val=nothing, test={**nothing, "confusion": [[0] * 4] * 4}) == []


def test_a_gap_that_grew_while_validation_fell_is_overfitting(ids: Ids) -> None:
    losses, rising, even = [1.0, 0.6, 0.3, 0.1, 0.05], [0.9, 0.7, 0.72, 0.9, 1.1], [0.9, 0.7, 0.7, 0.72, 0.73]
    assert ids(_rows(losses, val_losses=rising), train=0.99, gap=0.2) == ["overfitting"]
    assert ids(_rows(losses, val_losses=rising), train=0.99, gap=0.05) == []
    assert ids(_rows(losses, val_losses=even), train=0.99, gap=0.2) == []


def test_a_loss_that_stays_next_to_guessing_is_a_rate_too_low_and_no_collapse(ids: Ids) -> None:
    collapsed = {"confusion": [[25, 0, 0, 0]] * 4}
    assert ids(_rows([1.386, 1.384, 1.381, 1.379, 1.377]), train=0.25, test=collapsed) == ["learning-rate-too-low"]
    assert ids(_rows([1.386, 1.387, 1.385, 1.386, 1.386]), train=0.25, test=collapsed) == ["learning-rate-too-low"]
    assert ids(_rows([1.33, 1.35, 1.33, 1.36, 1.34]), train=0.25, test=collapsed) == ["class-collapse"]


def test_a_loss_that_goes_back_to_guessing_is_a_rate_too_high(ids: Ids) -> None:
    assert ids(_rows([1.22, 1.36, 1.39, 1.38, 1.385]), train=0.4) == ["learning-rate-too-high"]


def test_a_spike_in_the_first_epoch_is_a_rate_too_high(ids: Ids) -> None:
    assert ids(_rows([9.0, 1.2, 0.9, 0.8, 0.75])) == ["learning-rate-too-high"]


def test_phases_of_the_same_name_keep_their_rows_apart(make_results: Callable[..., Results]) -> None:
    phase = {"trainable_parameters": 1000, "best_val_accuracy": 0.9, "seconds": 1.0, "stopped": "epochs", "name": "same"}
    phases = [{**phase, "epochs_run": count, "best_epoch": count} for count in (2, 4)]
    rows = _rows([1.0, 0.5, 0.8, 0.3, 0.2, 0.15], phase="same")
    outcome = Outcome(make_results(phases=phases), rows)
    assert [list(part) for _, part in outcome.rows_by_phase()] == [rows[:2], rows[2:]]
    assert list(outcome.last_rows) == rows[2:]


def test_the_rate_that_is_told_is_the_phases_own_and_not_the_schedules_at_some_epochs_end(
    make_results: Callable[..., Results],
) -> None:
    """B26: of a one-cycle phase with lr 0.1 the first epoch ends at another rate."""
    phase = {"name": "all", "trainable_parameters": 1000, "epochs_run": 4, "best_epoch": 4, "best_val_accuracy": 0.9}
    results = make_results(phases=[{**phase, "seconds": 1.0, "stopped": "epochs", "lr": 0.1}])
    [found] = diagnose(Outcome(results, _rows([9.0, 1.2, 0.9, 0.8], lr=0.0068)))
    assert found.id == "learning-rate-too-high" and "lr 0.1 " in found.evidence and "0.0068" not in found.evidence
