"""The schedule "plateau" against Keras' rule as its documentation and source state it, and against torch's scheduler."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from thawlab.recipe import Phase
from thawlab.training.optimizers import lr_factor
from thawlab.training.plateau import Plateau, after_epoch


def courses(count: int) -> list[tuple[list[float], Phase, float]]:
    """Return random loss courses that fall, stall, repeat values and change by about the least difference that counts."""
    rng, found = np.random.default_rng(0), []
    for _ in range(count):
        steps = rng.choice(
            [0.0, -1e-4, -0.5e-4, -2e-4, 1e-4, -0.1, 0.1], rng.integers(1, 60), p=[0.2, 0.15, 0.2, 0.15, 0.1, 0.1, 0.1]
        )
        settings = {"plateau_factor": float(rng.choice([0.1, 0.5, 0.9])), "plateau_patience": int(rng.integers(1, 6))}
        lr = float(rng.choice([1e-3, 0.1, 0.3]))
        least = float(rng.choice([0.0, 1e-5, lr / 3, lr]))
        found.append(
            (
                np.round(2.0 + np.cumsum(steps), 6).tolist(),
                Phase(epochs=60, schedule="plateau", lr=lr, min_lr=least, **settings),
                lr,
            )
        )
    return found


def ours(losses: list[float], phase: Phase, lr: float) -> list[float]:
    plateau, rates = Plateau(), []
    for loss in losses:
        plateau = after_epoch(plateau, phase, lr, loss)
        rates.append(lr * plateau.factor)
    return rates


def keras(losses: list[float], phase: Phase, lr: float) -> list[float]:
    """Follow `on_epoch_end` of Keras' ReduceLROnPlateau, mode "min", min_delta 1e-4, cooldown 0."""
    best, wait, rates = np.inf, 0, []
    for current in losses:
        if np.less(current, best - 1e-4):
            best = current
            wait = 0
        else:
            wait += 1
            if wait >= phase.plateau_patience and lr > phase.min_lr:
                lr = max(lr * phase.plateau_factor, phase.min_lr)
                wait = 0
        rates.append(lr)
    return rates


def in_torch(losses: list[float], phase: Phase, lr: float) -> list[float]:
    """Torch waits for more than `patience` epochs where Keras waits for as many."""
    optimizer = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    scheduler = torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer,
        factor=phase.plateau_factor,
        patience=phase.plateau_patience - 1,
        threshold=1e-4,
        threshold_mode="abs",
        min_lr=phase.min_lr,
        eps=0.0,
    )
    rates = []
    for loss in losses:
        scheduler.step(loss)
        rates.append(optimizer.param_groups[0]["lr"])
    return rates


def test_the_rate_falls_when_keras_and_torch_lower_it() -> None:
    lowered = 0
    for losses, phase, lr in courses(500):
        rates = ours(losses, phase, lr)
        assert rates == pytest.approx(keras(losses, phase, lr), rel=1e-12)
        assert rates == pytest.approx(in_torch(losses, phase, lr), rel=1e-12)
        lowered += rates[-1] < lr
    assert lowered > 100


def test_a_least_rate_above_one_that_was_found_never_raises_it() -> None:
    phase = Phase(epochs=9, schedule="plateau", lr="auto", min_lr=0.1, plateau_patience=1)
    assert ours([1.0, 1.0, 1.0], phase, 0.01) == [0.01] * 3


def test_within_an_epoch_only_the_warm_up_moves_the_rate() -> None:
    phase = Phase(epochs=4, schedule="plateau", warmup=1.0)
    factors = [lr_factor(phase, step, 5) for step in range(20)]
    assert factors[:5] == sorted(factors[:5]) and factors[0] < 0.2
    assert factors[5:] == [1.0] * 15
