"""A plug-in as a newcomer writes it: a diagnosis, copied from `chance_level` in thawlab's own."""

from __future__ import annotations

from thawlab.evaluation.diagnosis import Finding, Outcome, after_training, diagnoses


@diagnoses.register("few-test-images")
@after_training(rank=145)
def few_test_images(outcome: Outcome) -> Finding | None:
    """Find a test split on which accuracies a few points apart cannot be told."""
    n = outcome.results.test.n
    if not 0 < n < 100:
        return None
    return Finding("info", f"the test split holds {n} images only", "collect more test images before comparing classifiers")
