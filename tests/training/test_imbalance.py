"""Small whole runs with the options for unequal classes, L2 and plateaus: interrupted or not, they end in the same bits."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from thawlab.errors import UsageError
from thawlab.files import read_json
from thawlab.recipe import Recipe
from thawlab.results import read_results, read_rows
from thawlab.run import RunFolder
from thawlab.runner import range_test, train
from thawlab.training import loop
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import TrainingState, load_checkpoint, save_checkpoint

Make = Callable[..., Recipe]


def bits(folder: RunFolder) -> tuple[bytes, list[dict[str, Any]]]:
    rows = [row.model_dump(exclude={"seconds", "images_per_second"}) for row in read_rows(folder.metrics)]
    return (folder.model / "model.safetensors").read_bytes(), rows


def interrupted_at(recipe: Recipe, runs: Path, step: int, monkeypatch: pytest.MonkeyPatch) -> RunFolder:
    """Die before a step, with a checkpoint of the step before it, and train on."""
    original, calls = loop.take_step, iter(range(10**6))

    def dying(*arguments: Any) -> float:
        if next(calls) == step:
            raise KeyboardInterrupt
        return original(*arguments)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("thawlab.training.state._OLD_SECONDS", 0.0)
        patch.setattr("thawlab.training.state._YOUNG_SECONDS", 0.0)
        patch.setattr(loop, "take_step", dying)
        train(recipe, runs)
    folder = train(recipe, runs)
    assert "resuming in phase" in (folder.path / "log.txt").read_text()
    return folder


# The rate is so low that no epoch is better than the first one by enough to count.
PLATEAU = {"optimizer": "sgd", "lr": 1e-7, "schedule": "plateau", "plateau_patience": 2, "plateau_factor": 0.5, "min_lr": 2e-8}


@pytest.mark.parametrize("step", [24, 30, 35])  # of 7 in an epoch: after the rate fell once, while it waits, between two epochs
def test_a_plateau_continues_to_the_same_bits(recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int) -> None:
    phase = {"train": "head", "epochs": 8, "batch_size": 32, "warmup": 0.5, **PLATEAU}
    two = recipe(phases=[{"name": "one", **phase}, {"name": "two", **phase, "epochs": 2}])
    whole = train(two, tmp_path / "a")
    rates = [row.lr for row in read_rows(whole.metrics)]
    assert rates == pytest.approx([1e-7] * 3 + [5e-8] * 2 + [2.5e-8] * 2 + [2e-8] + [1e-7] * 2)
    assert bits(interrupted_at(two, tmp_path / "b", step, monkeypatch)) == bits(whole)


def test_checkpoints_of_versions_without_plateaus_still_load(tmp_path: Path) -> None:
    path, model = tmp_path / "last.pt", torch.nn.Linear(2, 2)
    save_checkpoint(path, TrainingState(epoch=3), model, None)
    content = torch.load(path, weights_only=True)
    del content["state"]["plateau"]
    torch.save(content, path)
    state, _ = load_checkpoint(path, model)
    assert state == TrainingState(epoch=3, saved=state.saved)


EVERYTHING = [
    {"sampling": "balanced", "loss": "focal", "focal_gamma": 1.0, "label_smoothing": 0.1, "monitor": "macro_f1"},
    {"class_weights": "balanced", "l2_head": 0.01, "l2_backbone": 1e-4, "train": "stages:1", "monitor": "loss", "accumulate": 3},
    {
        "logit_adjustment": 1.0,
        "augment": ["cutmix", "alternate-flip"],
        "train": "last:2",
        "monitor": "balanced_accuracy",
        "ema": 0.9,
    },
]


@pytest.mark.parametrize("settings", EVERYTHING)
def test_all_options_train_together_in_bfloat16_and_continue_to_the_same_bits(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    phase = {"train": "head", "epochs": 2, "batch_size": 16, "lr": 0.01, "patience": 3, **settings}
    small = recipe("precision=bfloat16", "data.long_tail=8", phases=[phase])
    whole = train(small, tmp_path / "a")
    assert bits(interrupted_at(small, tmp_path / "b", 8, monkeypatch)) == bits(whole)
    rows = read_rows(whole.metrics)
    assert rows[-1].train_loss < rows[0].train_loss


@pytest.mark.parametrize("monitor", ["accuracy", "loss", "balanced_accuracy", "macro_f1"])
def test_what_is_monitored_picks_the_best_epoch_and_ends_the_phase(recipe: Make, tmp_path: Path, monitor: str) -> None:
    phase = {"train": "head", "epochs": 60, "lr": 0.3, "batch_size": 32, "patience": 3, "monitor": monitor}
    folder = train(recipe("data.long_tail=6", "data.val=0.4", phases=[phase]), tmp_path)
    results, rows = read_results(folder.results), read_rows(folder.metrics)
    values = [row.model_dump()[f"val_{monitor}"] * (-1 if monitor == "loss" else 1) for row in rows]
    order = [(value, -(row.val_loss or 0.0)) for value, row in zip(values, rows, strict=True)]
    [ended] = results.phases
    assert ended.best_epoch == 1 + max(range(len(order)), key=order.__getitem__)
    assert ended.stopped == "patience" and ended.epochs_run == ended.best_epoch + 3
    assert results.val.accuracy == rows[ended.best_epoch - 1].val_accuracy == ended.best_val_accuracy
    measured = {"balanced_accuracy": ended.best_val_balanced_accuracy, "macro_f1": ended.best_val_macro_f1}
    for name, best in measured.items():
        assert best == (max(values) if name == monitor else None)
        assert all((row.model_dump()[f"val_{name}"] is not None) == (name == monitor) for row in rows)


def test_balanced_sampling_shows_every_class_as_often_and_takes_as_many_steps(
    recipe: Make, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[int] = []
    original = PhaseData.batch

    def batch(self: PhaseData, samples: Any, *rest: Any) -> Any:
        seen.extend(self.dataset.labels[samples].tolist())
        return original(self, samples, *rest)

    monkeypatch.setattr(PhaseData, "batch", batch)
    phase = {"train": "head", "epochs": 1, "batch_size": 16, "lr": 0.01}
    plain = train(recipe("data.long_tail=8", phases=[phase]), tmp_path)
    counted = np.bincount(seen)
    seen.clear()
    balanced = train(recipe("data.long_tail=8", phases=[{**phase, "sampling": "balanced"}]), tmp_path)
    assert counted.max() > 4 * counted.min() and np.ptp(np.bincount(seen)) <= 1
    assert [row.step for row in read_rows(plain.metrics)] == [row.step for row in read_rows(balanced.metrics)]
    assert counted.tolist() == read_json(plain.path / "data.json")["per_class"]["train"]
    seen.clear()
    range_test(recipe("data.long_tail=8", phases=[{**phase, "sampling": "balanced"}]))  # sees what training will see
    assert np.ptp(np.bincount(seen[: counted.sum()])) <= 1


def test_what_the_data_cannot_give_is_said_before_training(recipe: Make, tmp_path: Path) -> None:
    cases = {
        "phases.0.schedule=plateau": r'data\.val = 0 leaves no validation images, which phases\.0\.schedule = "plateau" needs',
        "phases.1.monitor=macro_f1": r'data\.val = 0 leaves no validation images, which phases\.1\.monitor = "macro_f1" needs',
        "phases.0.class_weights=[1,2,3]": r"phases\.0\.class_weights: has 3 weights for 10 classes; give one for each",
    }
    for override, message in cases.items():
        with pytest.raises(UsageError, match=message):
            train(recipe(override, "data.val=0"), tmp_path)
    assert not list(tmp_path.iterdir())
