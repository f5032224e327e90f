"""Diagnoses: known mistakes that the numbers or the recipe show, each with its evidence and one action."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from thawlab.recipe import Recipe

Diagnosis = dict[str, str]


def _diagnosis(identifier: str, severity: str, evidence: str, advice: str) -> Diagnosis:
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
            _diagnosis(
                "wrong-normalisation",
                "error",
                f"inputs are normalised as '{recipe.data.normalize}', not as in the weights' pre-training",
                'set data.normalize = "weights"',
            )
        )
    if feature_side is not None and feature_side <= 2:
        found.append(
            _diagnosis(
                "input-too-small",
                "error",
                f"at {recipe.data.image_size} px the last feature map is {feature_side}×{feature_side} cells",
                "raise data.image_size (96 or more for networks of stride 32)",
            )
        )
    if recipe.data.resize == "pad" and recipe.model.pretrained:
        found.append(
            _diagnosis(
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
    test, gap = results["test"], results["gap"]
    if test["n"] and test["accuracy_ci95"][0] <= 1 / classes:
        found.append(
            _diagnosis(
                "chance-level",
                "error",
                f"test accuracy {test['accuracy']:.3f} is not above chance (1/{classes})",
                "check the labels, then lower the learning rate",
            )
        )
    elif gap > 0.1:
        found.append(
            _diagnosis(
                "overfitting",
                "warning",
                f"training accuracy is {gap:.3f} above test accuracy",
                "add augmentation or dropout, or use more pictures",
            )
        )
    if test["n"] and test["ece"] > 0.05 and test["ece_calibrated"] < test["ece"]:
        found.append(
            _diagnosis(
                "over-confidence" if test["temperature"] > 1 else "under-confidence",
                "info",
                f"expected calibration error {test['ece']:.3f}, "
                f"after temperature {test['temperature']:.2f}: {test['ece_calibrated']:.3f}",
                "use the calibrated probabilities, as `predict` does",
            )
        )
    return found
