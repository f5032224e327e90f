"""Diagnoses that the course of training shows: learning rates, too few epochs, features that do not suffice, collapse."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from thawlab.evaluation.diagnosis.findings import AGAINST_OVERFITTING, LARGE_GAP, Diagnosis, diagnosis

Row = Mapping[str, Any]
# Training loss that ends so many times above its least value was thrown out of a minimum.
_THROWN = 1.25
# A rising end: so many points of accuracy between the last two thirds of a phase.
_STILL_RISING = 0.01
# Loss that still falls by this share per epoch, after falling by less than the other share in all: the steps are too small.
_STEEP, _HARDLY = 0.01, 0.35
_ENOUGH = 0.9
# Fewer epochs than this show no course: whether they were too few or too small steps cannot be told.
_COURSE = 8
# A first epoch that costs so many times what guessing costs was a burst.
_BURST = 2.0
# Loss above this share of what guessing costs is hardly better.
_NEXT_TO = 0.9
# Validation loss that ends so many times above its least value has risen.
_RISEN = 1.15


def from_curves(rows: Sequence[Row], results: Mapping[str, Any]) -> list[Diagnosis]:
    """Return what the epochs of a finished run show, the gravest first.

    Args:
        rows: of `metrics.jsonl`.
        results: as `results.json` holds them.
    """
    classes = len(results["dataset"]["classes"])
    found: list[Diagnosis | None] = []
    phases = results["phases"]
    for index, phase in enumerate(phases):
        own = [row for row in rows if row["phase"] == phase["name"]]
        if own:
            found.append(_too_high(own, classes, first=index == 0))
    last = [row for row in rows if phases and row["phase"] == phases[-1]["name"]]
    hardly = _hardly_moved(last, classes) if last and not any(found) else None
    found += [hardly] if hardly else [_collapsed(results["test"]["confusion"])]
    if last and not hardly and phases[-1]["stopped"] == "epochs" and results["train"]["accuracy"] < _ENOUGH:
        found.append(_too_low(last) or _too_short(last))
    if last and not any(found):
        found.append(_underfitted(results, classes))
    found.append(_overfitted(last, results))
    return [entry for entry in found if entry is not None]


def _collapsed(confusion: Sequence[Sequence[int]]) -> Diagnosis | None:
    """Find predictions that leave most classes out."""
    counts = np.array(confusion)
    if counts.sum() == 0:
        return None
    present, predicted = counts.sum(axis=1) > 0, counts.sum(axis=0)
    never = int((present & (predicted == 0)).sum())
    if present.sum() < 2 or never < present.sum() / 2:
        return None
    share = predicted.max() / counts.sum()
    return diagnosis(
        "class-collapse",
        "error",
        f"{never} of {present.sum()} classes are never predicted; one class takes {100 * share:.0f} % of the predictions",
        "lower the learning rate, and check that the labels belong to the images",
    )


def _too_high(rows: Sequence[Row], classes: int, first: bool) -> Diagnosis | None:
    """Find losses that were thrown upwards, or that are worse than guessing after an epoch."""
    losses = [row["train_loss"] for row in rows]
    guessing = math.log(classes)
    lowest = int(np.argmin(losses))
    rate = f"lr {rows[0]['lr']:.2g} in phase '{rows[0]['phase']}'"
    thrown = losses[-1] > _THROWN * losses[lowest] and losses[-1] - losses[lowest] > 0.1 * guessing
    died = losses[-1] > 0.97 * guessing and losses[lowest] < 0.93 * guessing
    if thrown or died:
        evidence = f"training loss rose from {losses[lowest]:.3f} (epoch {lowest + 1}) to {losses[-1]:.3f} with {rate}"
        return diagnosis("learning-rate-too-high", "error", evidence, "lower the learning rate of this phase to a third")
    if first and losses[0] > _BURST * guessing:
        evidence = f"training loss of the first epoch is {losses[0]:.3f}, where guessing costs {guessing:.3f}, with {rate}"
        return diagnosis("learning-rate-too-high", "error", evidence, "lower the learning rate of this phase to a tenth")
    if first and len(rows) > 1 and min(losses[1:]) > 1.02 * guessing:
        evidence = f"training loss stays above guessing ({min(losses[1:]):.3f}, guessing {guessing:.3f}) with {rate}"
        return diagnosis("learning-rate-too-high", "error", evidence, "lower the learning rate of this phase to a tenth")
    return None


def _hardly_moved(rows: Sequence[Row], classes: int) -> Diagnosis | None:
    """Find a loss that falls evenly, or not at all, and is still next to guessing at the end."""
    losses = np.array([row["train_loss"] for row in rows])
    if len(losses) < 4 or losses[-1] < _NEXT_TO * math.log(classes) or losses[0] > 1.5 * math.log(classes):
        return None
    still = losses.max() - losses.min() < 0.01 * math.log(classes)
    if not still and (np.diff(losses) < 0).mean() < 0.8:
        return None
    evidence = (
        f"training loss fell from {losses[0]:.3f} to {losses[-1]:.3f} in {len(losses)} epochs, next to guessing "
        f"({math.log(classes):.3f}), with lr {rows[-1]['lr']:.2g} in phase '{rows[-1]['phase']}'"
    )
    return diagnosis(
        "learning-rate-too-low",
        "warning",
        evidence,
        "raise the learning rate of this phase to ten times as much; check the labels if nothing changes",
    )


def _overfitted(rows: Sequence[Row], results: Mapping[str, Any]) -> Diagnosis | None:
    """Find a gap to the training images that grew while the validation loss rose."""
    losses = [row["val_loss"] for row in rows]
    if len(losses) < 4 or any(value is None for value in losses) or results["gap"] <= LARGE_GAP:
        return None
    lowest = int(np.argmin(losses))
    end = float(np.mean(losses[-2:]))
    if end < _RISEN * losses[lowest] or rows[-1]["train_loss"] >= rows[lowest]["train_loss"]:
        return None
    evidence = (
        f"validation loss rose from {losses[lowest]:.3f} (epoch {lowest + 1} of phase '{rows[-1]['phase']}') to {end:.3f} while "
        f"training loss fell; training accuracy is {results['gap']:.3f} above test accuracy"
    )
    return diagnosis("overfitting", "warning", evidence, AGAINST_OVERFITTING)


def _too_low(rows: Sequence[Row]) -> Diagnosis | None:
    """Find a loss that falls evenly, and hardly, to the end."""
    losses = np.array([row["train_loss"] for row in rows])
    if len(losses) < _COURSE or losses[0] <= 0:
        return None
    fall = 1 - losses[-1] / losses[0]
    tail = losses[-max(3, len(losses) // 3) :]
    per_epoch = 1 - (tail[-1] / tail[0]) ** (1 / (len(tail) - 1))
    if not (per_epoch > _STEEP and fall < _HARDLY and (np.diff(losses) < 0).mean() > 0.8):
        return None
    evidence = (
        f"training loss fell from {losses[0]:.3f} to {losses[-1]:.3f} only, and by {100 * per_epoch:.1f} % per epoch at the end, "
        f"with lr {rows[-1]['lr']:.2g} in phase '{rows[-1]['phase']}'"
    )
    return diagnosis("learning-rate-too-low", "warning", evidence, "raise the learning rate of this phase to three times as much")


def _too_short(rows: Sequence[Row]) -> Diagnosis | None:
    """Find validation accuracy that still rises at the end."""
    accuracies = [row["val_accuracy"] for row in rows]
    if len(rows) < 6 or any(value is None for value in accuracies):
        return None
    third = len(rows) // 3
    before, end = float(np.mean(accuracies[-2 * third : -third])), float(np.mean(accuracies[-third:]))
    if end - before <= _STILL_RISING or int(np.argmax(accuracies)) < len(rows) - max(2, third // 2):
        return None
    where = f"phase '{rows[-1]['phase']}'"
    evidence = f"validation accuracy still rose at the end: {before:.3f} in the second third of {where}, {end:.3f} in the last"
    return diagnosis("stopped-early", "warning", evidence, "train more epochs")


def _underfitted(results: Mapping[str, Any], classes: int) -> Diagnosis | None:
    """Find training images that are not learnt, without a gap to the test images."""
    train, gap = results["train"]["accuracy"], results["gap"]
    chance = 1 / classes
    if (train - chance) / (1 - chance) > 0.7 or gap > max(0.03, 0.2 * (1 - train)) or not results["test"]["n"]:
        return None
    frozen = all(phase["trainable_parameters"] < results["model"]["parameters"] / 2 for phase in results["phases"])
    advice = "let the backbone train in a second phase" if frozen else "take a larger network, or train longer"
    evidence = f"even on the training images accuracy is {train:.3f}, {gap:+.3f} above the test images"
    return diagnosis("underfitting", "warning", evidence, advice)
