"""Diagnoses: known mistakes that the numbers or the recipe show, each with its evidence and one action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thawlab.recipe import Recipe

Diagnosis = dict[str, str]
# Classes that differ in size by this factor make plain accuracy misleading.
_IMBALANCE = 10


def diagnosis(identifier: str, severity: str, evidence: str, advice: str) -> Diagnosis:
    """Return a diagnosis: its name, "error", "warning" or "info", the numbers that show it, and one action."""
    return {"id": identifier, "severity": severity, "evidence": evidence, "advice": advice}


def before_training(recipe: Recipe, feature_side: int | None) -> list[Diagnosis]:
    """Return what is wrong with a recipe and can be known before training.

    Args:
        recipe: resolved.
        feature_side: side of the backbone's last feature map in cells, if known.
    """
    found = []
    if recipe.data.normalize != "weights" and recipe.model.pretrained:
        found.append(
            diagnosis(
                "wrong-normalisation",
                "error",
                f"inputs are normalised as '{recipe.data.normalize}', not as in the weights' pre-training",
                'set data.normalize = "weights"',
            )
        )
    if feature_side is not None and feature_side <= 2:
        found.append(
            diagnosis(
                "input-too-small",
                "error",
                f"at {recipe.data.image_size} px the last feature map is {feature_side}×{feature_side} cells",
                "raise data.image_size (96 or more for networks of stride 32)",
            )
        )
    if recipe.data.resize == "pad" and recipe.model.pretrained:
        found.append(
            diagnosis(
                "padded-input",
                "warning",
                "small pictures are padded, not enlarged: the backbone sees objects smaller than in its pre-training",
                'set data.resize = "upsample"',
            )
        )
    return found


def after_training(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Return what the results of a run show."""
    found = []
    classes = len(results["dataset"]["classes"])
    found += _imbalanced(results)
    test, gap = results["test"], results["gap"]
    if test["n"] and test["accuracy_ci95"][0] <= 1 / classes:
        found.append(
            diagnosis(
                "chance-level",
                "error",
                f"test accuracy {test['accuracy']:.3f} is not above chance (1/{classes})",
                "check the labels, then lower the learning rate",
            )
        )
    elif gap > 0.1:
        found.append(
            diagnosis(
                "overfitting",
                "warning",
                f"training accuracy is {gap:.3f} above test accuracy",
                "add augmentation or dropout, or use more pictures",
            )
        )
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


def _imbalanced(results: Mapping[str, Any]) -> list[Diagnosis]:
    """Find test classes of very different sizes, where the accuracy speaks of the large ones."""
    counts = [row["n"] for row in results["test"].get("per_class", []) if row["n"]]
    if len(counts) < 2 or max(counts) < _IMBALANCE * min(counts):
        return []
    test = results["test"]
    evidence = (
        f"the largest class has {max(counts) / min(counts):.0f} times as many test pictures as the smallest; "
        f"balanced accuracy is {test['balanced_accuracy']:.3f}, plain accuracy {test['accuracy']:.3f}"
    )
    return [
        diagnosis("class-imbalance", "warning", evidence, "judge by the macro figures, and add pictures of the small classes")
    ]
