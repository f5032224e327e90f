"""Diagnoses: problems that the recipe, the curves or the results show. To add one, copy its neighbour."""

from thawlab.evaluation.diagnosis import curves, outcome, start  # noqa: F401 - their rules are registered in this order
from thawlab.evaluation.diagnosis.rule import (
    Finding,
    Outcome,
    Start,
    after_training,
    before_training,
    diagnose,
    diagnoses,
    ordered,
)

__all__ = ["Finding", "Outcome", "Start", "after_training", "before_training", "diagnose", "diagnoses", "ordered"]
