"""Diagnoses that the results of a run show."""

from thawlab.evaluation.diagnosis.curves import AGAINST_OVERFITTING, LARGE_GAP, overfitted_curve
from thawlab.evaluation.diagnosis.rule import Finding, Outcome, after_training, diagnoses
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.results import TestResult

# Among its most confident answers a classifier contradicts this share of labels only where these are wrong; fewer answers
# than the other number tell nothing.
_NOISE, _ENOUGH_SURE = 0.05, 40
# The share of the way from chance to perfection from which on a classifier counts as one that has learned.
_LEARNED = 0.4
_MEMORISED = 0.97
# A classifier that went less than this share of the way from chance to perfection has learned nothing worth the name.
_HARDLY_ABOVE = 0.03
# Where an accuracy may well be this share of the way, too few images were tested to call it chance.
_UNTOLD = 0.5
# Half the width of an interval of validation accuracy beyond which choices are chance.
_WIDE = 0.08
# More than this share of test images that look like training images is no accident.
_LOOK_ALIKE = 0.1


@diagnoses.register("near-leakage")
@after_training(rank=40)
def near_leakage(outcome: Outcome) -> Finding | None:
    """Find a test split of which a good part looks like training images; a few look-alikes are in every large data set."""
    near = outcome.results.near_duplicates
    if (
        near is None
        or not (judged := near.looked_at - near.too_smooth)
        or accuracy_interval(near.count, judged)[0] <= _LOOK_ALIKE
    ):
        return None
    evidence = f"{near.count} of {judged} test images look almost like a training image ({100 * near.count / judged:.0f} %)"
    advice = "look at the pairs in the report; if they show the same things, keep these in one split with data.group"
    return Finding("warning", evidence, advice)


@diagnoses.register("label-noise")
@after_training(rank=120)
def label_noise(outcome: Outcome) -> Finding | None:
    """Find held-out labels that a classifier which never saw them contradicts with confidence."""
    results = outcome.results
    sure, wrong = results.label_suspects.sure, results.label_suspects.contradicted_when_sure
    if sure < _ENOUGH_SURE or accuracy_interval(wrong, sure)[0] <= _NOISE:
        return None
    # A classifier that has barely learned, or has memorised its training set, is also wrong where it is most confident.
    if outcome.above_chance(results.test.accuracy) < _LEARNED or results.train.accuracy > _MEMORISED:
        return None
    evidence = (
        f"of the {sure} held-out images on which the classifier is most confident, {wrong} have another label "
        f"({100 * wrong / sure:.0f} %), where next to none should"
    )
    advice = "look at the suspected labels in the report, and run `thawlab data check` for those of training"
    return Finding("warning", evidence, advice)


@diagnoses.register("validation-too-small")
@after_training(rank=140)
def validation_too_small(outcome: Outcome) -> Finding | None:
    """Find a validation split too small to choose epochs and phases with."""
    val = outcome.results.val
    low, high = accuracy_interval(round(val.accuracy * val.n), val.n)
    half = (high - low) / 2
    if not val.n or half <= _WIDE:
        return None
    evidence = (
        f"epochs and phases are chosen by the accuracy on {val.n} validation images, which shows no difference below "
        f"{100 * half:.0f} points"
    )
    return Finding("warning", evidence, "give data.val a larger share, or repeat with several seeds")


@diagnoses.register("chance-level")
@after_training(rank=100)
def chance_level(outcome: Outcome) -> Finding | None:
    """Find an accuracy that chance explains."""
    test, chance = outcome.results.test, 1 / outcome.classes
    low, high = test.accuracy_ci95
    if not test.n or (low > chance and outcome.above_chance(test.accuracy) >= _HARDLY_ABOVE):
        return None
    if outcome.above_chance(high) >= _UNTOLD:
        return None  # too few images to tell: one of one that is right is not evidence against the classifier
    evidence = f"test accuracy {test.accuracy:.3f} is not above chance (1/{outcome.classes})"
    return Finding("error", evidence, "check the labels, then lower the learning rate")


@diagnoses.register("overfitting")
@after_training(rank=150)
def overfitting(outcome: Outcome) -> Finding | None:
    """Find a gap that grew while validation loss rose or, without a validation split, a large gap."""
    results = outcome.results
    if results.val.n:
        return overfitted_curve(outcome)
    if not results.test.n or results.gap <= LARGE_GAP or chance_level.find(outcome):
        return None
    return Finding("warning", f"training accuracy is {results.gap:.3f} above test accuracy", AGAINST_OVERFITTING)


def _confidence(test: TestResult, over: bool) -> Finding | None:
    if not test.n or test.ece <= 0.05 or test.ece_calibrated >= test.ece or (test.temperature > 1) != over:
        return None
    evidence = f"expected calibration error {test.ece:.3f}, after temperature {test.temperature:.2f}: {test.ece_calibrated:.3f}"
    return Finding("info", evidence, "use the calibrated probabilities, as `predict` does")


@diagnoses.register("over-confidence")
@after_training(rank=170)
def over_confidence(outcome: Outcome) -> Finding | None:
    """Find confidence above the accuracy, which temperature scaling corrects."""
    return _confidence(outcome.results.test, over=True)


@diagnoses.register("under-confidence")
@after_training(rank=180)
def under_confidence(outcome: Outcome) -> Finding | None:
    """Find confidence below the accuracy, which temperature scaling corrects."""
    return _confidence(outcome.results.test, over=False)
