"""The learning curves of a comparison: where variants differ in their number of training images, error against that number."""

from collections.abc import Sequence

from thawlab.comparison.learning_curve import LearningCurve, learning_curve
from thawlab.comparison.runs import Variant
from thawlab.comparison.settings import short_keys, shown

_SIZE = "data.train_size"


def learning_curves(variants: Sequence[Variant]) -> dict[str, LearningCurve]:
    """Return the learning curve of each group of variants that differ in `data.train_size` only, by their other values.

    Sizes are the images that were trained on, without those that validated; of the seeds, those that all sizes have.
    """
    groups: dict[str, list[Variant]] = {}
    short = short_keys(list(variants[0].values))
    for variant in variants:
        if _SIZE in variant.values:
            name = ", ".join(f"{short[key]} {shown(value)}" for key, value in variant.values.items() if key != _SIZE)
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
