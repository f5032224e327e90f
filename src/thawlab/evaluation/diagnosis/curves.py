"""Diagnoses that the course of training shows: learning rates, too few epochs, collapse, overfitting."""

import math
from collections.abc import Sequence

import numpy as np

from thawlab.evaluation.diagnosis.rule import Finding, Outcome, after_training, diagnoses
from thawlab.results import EpochRow, PhaseResult

# Training loss that ends this many times above its least value has spiked out of a minimum.
_THROWN = 1.25
# Validation accuracy still rises if it gains this much between the last two thirds of a phase.
_STILL_RISING = 0.01
# Loss that still falls by this share per epoch, after falling by less than the other share in all: the steps are too small.
_STEEP, _HARDLY = 0.01, 0.35
# Training accuracy from which on more epochs or larger steps are not what is missing.
_ENOUGH = 0.9
# Fewer epochs than this show no course: whether they were too few or too small steps cannot be told.
_COURSE = 8
# A first epoch whose loss is this many times that of guessing was a spike.
_SPIKE = 2.0
# Loss above this share of that of guessing is hardly better.
_NEXT_TO = 0.9
# Validation loss that ends this many times above its least value has risen.
_RISEN = 1.15
# A generalisation gap beyond this speaks of memorised training images.
LARGE_GAP = 0.1
AGAINST_OVERFITTING = "add augmentation or dropout, or use more images"


@diagnoses.register("learning-rate-too-high")
@after_training(rank=70)
def learning_rate_too_high(outcome: Outcome) -> list[Finding]:
    """Find a loss that spikes, stays above that of guessing or ends well above its least value, in each phase."""
    found = [_too_high(outcome, phase, rows) for phase, rows in outcome.rows_by_phase() if rows]
    return [finding for finding in found if finding]


def _too_high(outcome: Outcome, phase: PhaseResult, rows: Sequence[EpochRow]) -> Finding | None:
    losses = [row.train_loss for row in rows]
    guessing, first = math.log(outcome.classes), phase is outcome.results.phases[0]
    # Runs of earlier versions lack the phase's own rate; the schedule's highest is next to it.
    rate = f"lr {phase.lr or max(row.lr for row in rows):.2g} in phase '{phase.name}'"
    lowest = int(np.argmin(losses))
    thrown = losses[-1] > _THROWN * losses[lowest] and losses[-1] - losses[lowest] > 0.1 * guessing
    died = losses[-1] > 0.97 * guessing and losses[lowest] < 0.93 * guessing
    if thrown or died:
        evidence = f"training loss rose from {losses[lowest]:.3f} (epoch {lowest + 1}) to {losses[-1]:.3f} with {rate}"
        return Finding("error", evidence, "lower the learning rate of this phase to a third")
    if first and losses[0] > _SPIKE * guessing:
        evidence = f"training loss of the first epoch is {losses[0]:.3f}, that of guessing {guessing:.3f}, with {rate}"
        return Finding("error", evidence, "lower the learning rate of this phase to a tenth")
    if first and len(rows) > 1 and min(losses[1:]) > 1.02 * guessing:
        evidence = f"training loss stays above that of guessing ({min(losses[1:]):.3f} and {guessing:.3f}) with {rate}"
        return Finding("error", evidence, "lower the learning rate of this phase to a tenth")
    return None


@diagnoses.register("learning-rate-too-low")
@after_training(rank=90)
def learning_rate_too_low(outcome: Outcome) -> Finding | None:
    """Find a loss that stays next to that of guessing, or falls slowly and steadily to the end."""
    rows = outcome.last_rows
    if not learning_rate_too_high.find(outcome) and _hardly_moved(outcome):
        evidence = (
            f"training loss fell from {rows[0].train_loss:.3f} to {rows[-1].train_loss:.3f} in {len(rows)} epochs, next to that "
            f"of guessing ({math.log(outcome.classes):.3f}), with lr {rows[-1].lr:.2g} in phase '{rows[-1].phase}'"
        )
        return Finding("warning", evidence, "raise the learning rate of this phase tenfold; check the labels if nothing changes")
    if not _cut_short(outcome) or len(rows) < _COURSE or rows[0].train_loss <= 0:
        return None
    losses = np.array([row.train_loss for row in rows])
    tail = losses[-max(3, len(losses) // 3) :]
    per_epoch = 1 - (tail[-1] / tail[0]) ** (1 / (len(tail) - 1))
    if not (per_epoch > _STEEP and 1 - losses[-1] / losses[0] < _HARDLY and (np.diff(losses) < 0).mean() > 0.8):
        return None
    evidence = (
        f"training loss fell from {losses[0]:.3f} to {losses[-1]:.3f} only, and by {100 * per_epoch:.1f} % per epoch at the end, "
        f"with lr {rows[-1].lr:.2g} in phase '{rows[-1].phase}'"
    )
    return Finding("warning", evidence, "raise the learning rate of this phase threefold")


def _hardly_moved(outcome: Outcome) -> bool:
    """Return whether the loss falls steadily, or not at all, and is still next to that of guessing at the end."""
    losses = np.array([row.train_loss for row in outcome.last_rows])
    guessing = math.log(outcome.classes)
    if len(losses) < 4 or losses[-1] < _NEXT_TO * guessing or losses[0] > 1.5 * guessing:
        return False
    return bool(losses.max() - losses.min() < 0.01 * guessing or (np.diff(losses) < 0).mean() >= 0.8)


def _cut_short(outcome: Outcome) -> bool:
    """Return whether training ended with its epochs before the training images were learned."""
    phases = outcome.results.phases
    return bool(phases) and phases[-1].stopped == "epochs" and outcome.results.train.accuracy < _ENOUGH


@diagnoses.register("class-collapse")
@after_training(rank=80)
def class_collapse(outcome: Outcome) -> Finding | None:
    """Find predictions that leave half of the classes or more out."""
    counts = np.array(outcome.results.test.confusion)
    if counts.sum() == 0 or (not learning_rate_too_high.find(outcome) and _hardly_moved(outcome)):
        return None
    present, predicted = counts.sum(axis=1) > 0, counts.sum(axis=0)
    never = int((present & (predicted == 0)).sum())
    if present.sum() < 2 or never < present.sum() / 2:
        return None
    share = predicted.max() / counts.sum()
    evidence = f"{never} of {present.sum()} classes are never predicted; one class takes {100 * share:.0f} % of the predictions"
    return Finding("error", evidence, "lower the learning rate, and check that the labels belong to the images")


@diagnoses.register("stopped-early")
@after_training(rank=130, unless=["learning-rate-too-low"])
def stopped_early(outcome: Outcome) -> Finding | None:
    """Find validation accuracy that still rises at the end."""
    rows = outcome.last_rows
    accuracies = [row.val_accuracy for row in rows if row.val_accuracy is not None]
    if not _cut_short(outcome) or len(rows) < 6 or len(accuracies) < len(rows):
        return None
    third = len(rows) // 3
    before, end = float(np.mean(accuracies[-2 * third : -third])), float(np.mean(accuracies[-third:]))
    if end - before <= _STILL_RISING or int(np.argmax(accuracies)) < len(rows) - max(2, third // 2):
        return None
    course = f"{before:.3f} in the second third of phase '{rows[-1].phase}', {end:.3f} in the last"
    return Finding("warning", f"validation accuracy still rose at the end: {course}", "train more epochs")


@diagnoses.register("underfitting")
@after_training(rank=160, unless=["learning-rate-too-high", "learning-rate-too-low", "class-collapse", "stopped-early"])
def underfitting(outcome: Outcome) -> Finding | None:
    """Find training images that are not learned, without a gap to the test images."""
    results = outcome.results
    train, gap = results.train.accuracy, results.gap
    learned = outcome.above_chance(train) > 0.7 or gap > max(0.03, 0.2 * (1 - train))
    if not outcome.last_rows or learned or not results.test.n:
        return None
    frozen = all(phase.trainable_parameters < results.model.parameters / 2 for phase in results.phases)
    advice = "let the backbone train in a second phase" if frozen else "take a larger network, or train longer"
    evidence = f"even on the training images accuracy is {train:.3f} (gap to the test images {gap:+.3f})"
    return Finding("warning", evidence, advice)


def overfitted_curve(outcome: Outcome) -> Finding | None:
    """Find a gap to the training images that grew while the validation loss rose."""
    rows, gap = outcome.last_rows, outcome.results.gap
    losses = [row.val_loss for row in rows if row.val_loss is not None]
    if len(rows) < 4 or len(losses) < len(rows) or gap <= LARGE_GAP:
        return None
    lowest, end = int(np.argmin(losses)), float(np.mean(losses[-2:]))
    if end < _RISEN * losses[lowest] or rows[-1].train_loss >= rows[lowest].train_loss:
        return None
    evidence = (
        f"validation loss rose from {losses[lowest]:.3f} (epoch {lowest + 1} of phase '{rows[-1].phase}') to {end:.3f} while "
        f"training loss fell; training accuracy is {gap:.3f} above test accuracy"
    )
    return Finding("warning", evidence, AGAINST_OVERFITTING)
