"""The learning curves of a comparison: where variants differ in their number of training images, error against that number."""

from collections.abc import Sequence

from thawlab.comparison.learning_curve import LearningCurve, learning_curve
from thawlab.comparison.runs import Variant
from thawlab.comparison.settings import short_keys, shown

SIZE = "data.train_size"


def learning_curves(variants: Sequence[Variant]) -> dict[str, LearningCurve]:
    """Return the learning curve of each group of variants that differ in `data.train_size` only, by their other values.

    Sizes are the images that were trained on, without those that validated; of the seeds, those that all sizes have.
    """
    groups: dict[str, list[Variant]] = {}
    short = short_keys(list(variants[0].values))
    for variant in variants:
        if SIZE in variant.values:
            name = ", ".join(f"{short[key]} {shown(value)}" for key, value in variant.values.items() if key != SIZE)
            groups.setdefault(name, []).append(variant)
    found = {name: _curve(members) for name, members in groups.items() if len(members) > 1}
    return {name: curve for name, curve in found.items() if curve is not None}


def _curve(variants: Sequence[Variant]) -> LearningCurve | None:
    seeds = sorted(set.intersection(*(set(variant.runs) for variant in variants)))
    if not seeds:
        return None
    firsts = [next(iter(variant.runs.values())).results for variant in variants]
    errors = [[1 - variant.runs[seed].results.test.accuracy for seed in seeds] for variant in variants]
    return learning_curve([first.dataset.n_train for first in firsts], errors, firsts[0].dataset.n_test)


def in_words(name: str, curve: LearningCurve) -> str:
    """Return what a learning curve says, or why there is none; `name` is that of its group of variants, or empty."""
    head = f"learning curve{f' of {name}' if name else ''}"
    if curve.refusal or curve.error is None or curve.gain is None:
        return f"{head}: {curve.refusal}"
    error, gain = ([100 * value for value in found] for found in (curve.error, curve.gain))
    return (
        f"{head}: {error[0]:.2f} % error with {curve.n:,} training images ({error[1]:.2f} to {error[2]:.2f}); twice as many "
        f"would take {gain[0]:.2f} points off it ({gain[1]:.2f} to {gain[2]:.2f})"
    )
