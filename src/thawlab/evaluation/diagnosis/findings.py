"""Diagnoses: known mistakes that the numbers or the recipe show, each with its evidence and one action."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.recipe import Recipe

Diagnosis = dict[str, str]
# Classes that differ in size by this factor make plain accuracy misleading.
_IMBALANCE = 10
# Stored and measured means of a BatchNorm layer differ by so many deviations only where something is wrong.
_FAR = 1.5
# Among its surest answers a classifier contradicts so many labels only where these are wrong; fewer answers tell nothing.
_NOISE, _ENOUGH_SURE = 0.05, 40
# The share of the way from chance to perfection from which on a classifier counts as one that has learnt.
_LEARNT = 0.4
_BY_HEART = 0.97
# A classifier that went less than this share of the way from chance to perfection has learnt nothing worth the name.
_HARDLY_ABOVE = 0.03
# So far above the test accuracy the training accuracy speaks of memory.
LARGE_GAP = 0.1
AGAINST_OVERFITTING = "add augmentation or dropout, or use more images"
# Half the width of an interval of validation accuracy beyond which choices are chance.
_WIDE = 0.08
# More than this share of test images that look like training images is no accident.
_LOOK_ALIKE = 0.1
# Causes come before their consequences.
_ORDER = (
    "wrong-normalisation",
    "input-too-small",
    "leakage",
    "near-leakage",
    "batch-norm-mismatch",
    "padded-input",
    "learning-rate-too-high",
    "class-collapse",
    "learning-rate-too-low",
    "chance-level",
    "class-imbalance",
    "label-noise",
    "stopped-early",
    "validation-too-small",
    "overfitting",
    "underfitting",
    "over-confidence",
    "under-confidence",
)


def diagnosis(identifier: str, severity: str, evidence: str, advice: str) -> Diagnosis:
    """Return a diagnosis: its name, "error", "warning" or "info", the numbers that show it, and one action."""
    return {"id": identifier, "severity": severity, "evidence": evidence, "advice": advice}


def ordered(found: Sequence[Diagnosis]) -> list[Diagnosis]:
    """Return diagnoses with causes before what follows from them: who mends the first may be rid of the rest."""
    return sorted(found, key=lambda entry: _ORDER.index(entry["id"]))


def before_training(
    recipe: Recipe,
    feature_side: int | None,
    leaks: int = 0,
    train_counts: Sequence[int] = (),
    batch_norm: float | None = None,
) -> list[Diagnosis]:
    """Return what is wrong with a recipe or its data and can be known before training.

    Args:
        recipe: resolved.
        feature_side: side of the backbone's last feature map in cells, if known.
        leaks: how many images of val and test are learnt from as well.
        train_counts: training images per class.
        batch_norm: distance of the data from what the backbone's BatchNorm layers stored, in deviations, if known.
    """
    found = [*_leaking(leaks), *_imbalanced_classes(train_counts)]
    if batch_norm is not None and batch_norm > _FAR and recipe.data.normalize == "weights":
        found.append(
            diagnosis(
                "batch-norm-mismatch",
                "warning",
                f"the data's means lie {batch_norm:.1f} standard deviations from those that a BatchNorm layer of the backbone "
                "has stored",
                'check that the weights and their config.json belong together; a phase with batch_norm = "train" adapts them',
            )
        )
    too_small = feature_side is not None and feature_side <= 2
    cells = f"{feature_side}×{feature_side}"
    if recipe.data.normalize != "weights" and recipe.model.pretrained:
        found.append(
            diagnosis(
                "wrong-normalisation",
                "error",
                f"inputs are normalised as '{recipe.data.normalize}', not as in the weights' pre-training"
                + (f", and at {recipe.data.image_size} px the last feature map has {cells} cells" if too_small else ""),
                'set data.normalize = "weights"' + (" and raise data.image_size" if too_small else ""),
            )
        )
    if too_small:
        found.append(
            diagnosis(
                "input-too-small",
                "error",
                f"at {recipe.data.image_size} px the last feature map has {cells} cells",
                "raise data.image_size (96 or more for networks of stride 32)",
            )
        )
    if recipe.data.resize == "pad" and recipe.model.pretrained:
        found.append(
            diagnosis(
                "padded-input",
                "warning",
                "small images are padded, not enlarged: the backbone sees objects smaller than in its pre-training",
                'set data.resize = "upsample"',
            )
        )
    return found


def _leaking(leaks: int) -> list[Diagnosis]:
    if not leaks:
        return []
    evidence = f"{leaks} images of the val or test split are learnt from as well, file for file; data.json names them"
    advice = "look at `thawlab data check`, write a clean list (--write-clean list.csv) and train with data.exclude"
    return [diagnosis("leakage", "error", evidence, advice)]


def _nearly_leaking(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Find a test split of which a good part looks like training images; a few look-alikes are in every large data set."""
    near = results.get("near_duplicates", {})
    told, count = near.get("looked_at", 0) - near.get("too_smooth", 0), near.get("count", 0)
    if not told or accuracy_interval(count, told)[0] <= _LOOK_ALIKE:
        return []
    evidence = f"{count} of {told} test images look almost like a training image ({100 * count / told:.0f} %)"
    advice = "look at the pairs in the report; if they show the same things, keep these in one split with data.group"
    return [diagnosis("near-leakage", "warning", evidence, advice)]


def _imbalanced_classes(counts: Sequence[int]) -> list[Diagnosis]:
    """Find classes of very different sizes, where the accuracy speaks of the large ones."""
    present = [count for count in counts if count]
    if len(present) < 2 or max(present) < _IMBALANCE * min(present):
        return []
    evidence = (
        f"the largest class has {max(present) / min(present):.0f} times as many training images as the smallest "
        f"({max(present):,} and {min(present):,})"
    )
    return [diagnosis("class-imbalance", "warning", evidence, "judge by the macro figures, and add images of the small classes")]


def after_training(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Return what the results of a run show."""
    found = []
    classes = len(results["dataset"]["classes"])
    found += _nearly_leaking(results) + _noisy_labels(results) + _small_validation(results)
    test, gap = results["test"], results["gap"]
    above_chance = (test["accuracy"] - 1 / classes) / (1 - 1 / classes)
    if test["n"] and (test["accuracy_ci95"][0] <= 1 / classes or above_chance < _HARDLY_ABOVE):
        found.append(
            diagnosis(
                "chance-level",
                "error",
                f"test accuracy {test['accuracy']:.3f} is not above chance (1/{classes})",
                "check the labels, then lower the learning rate",
            )
        )
    elif gap > LARGE_GAP and not results.get("val", {}).get("n"):  # with a val split the curves tell more
        evidence = f"training accuracy is {gap:.3f} above test accuracy"
        found.append(diagnosis("overfitting", "warning", evidence, AGAINST_OVERFITTING))
    if test["n"] and test["ece"] > 0.05 and test["ece_calibrated"] < test["ece"]:
        found.append(
            diagnosis(
                "over-confidence" if test["temperature"] > 1 else "under-confidence",
                "info",
                f"expected calibration error {test['ece']:.3f}, "
                f"after temperature {test['temperature']:.2f}: {test['ece_calibrated']:.3f}",
                "use the calibrated probabilities, as `predict` does",
            )
        )
    return found


def _noisy_labels(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Find held-out labels that a classifier which never saw them contradicts with confidence."""
    suspects = results.get("label_suspects", {})
    sure, wrong = suspects.get("sure", 0), suspects.get("contradicted_when_sure", 0)
    if sure < _ENOUGH_SURE or accuracy_interval(wrong, sure)[0] <= _NOISE:
        return []
    # Who has hardly learnt anything, or has learnt his images by heart, is wrong where he is surest, too.
    chance = 1 / len(results["dataset"]["classes"])
    if (results["test"]["accuracy"] - chance) / (1 - chance) < _LEARNT or results["train"]["accuracy"] > _BY_HEART:
        return []
    evidence = (
        f"of the {sure} held-out images on which the classifier is surest, {wrong} bear another label "
        f"({100 * wrong / sure:.0f} %), where next to none should"
    )
    advice = "look at the suspected labels below, and at `thawlab data check` for those of training"
    return [diagnosis("label-noise", "warning", evidence, advice)]


def _small_validation(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Find a validation split on which the chosen epochs and phases cannot be told apart."""
    val = results.get("val", {})
    if not val.get("n"):
        return []
    half = 1.96 * math.sqrt(max(val["accuracy"] * (1 - val["accuracy"]), 0.01) / val["n"])
    if half <= _WIDE:
        return []
    evidence = (
        f"epochs and phases are chosen by an accuracy on {val['n']} validation images, which tells no differences below "
        f"{100 * half:.0f} points"
    )
    return [diagnosis("validation-too-small", "warning", evidence, "give data.val a larger share, or repeat with several seeds")]
