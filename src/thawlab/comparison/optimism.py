"""The winner's curse: how much better than it is the best of several variants looks on the images that chose it."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from thawlab.comparison.runs import Variant
from thawlab.randomness import derive

_RESAMPLES = 1000


class Best(NamedTuple):
    """The variant with the best mean accuracy on validation images, and what that choice does to its accuracy.

    Attributes:
        name: of the variant.
        among: how many variants it was chosen from.
        val_accuracy: mean over its runs.
        optimism: how much of that the choice itself is expected to have made up.
        test_accuracy: mean over its runs, on images that chose nothing.
    """

    name: str
    among: int
    val_accuracy: float
    optimism: float
    test_accuracy: float

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON values."""
        return self._asdict()


def best_of(variants: Sequence[Variant]) -> Best | None:
    """Return the best of several variants on validation, with its expected optimism.

    The optimism is a bootstrap's (Efron 1983): seeds and validation images are drawn with replacement, the best variant of the
    draw is chosen, and its accuracy in the draw is held against its accuracy on all of them.

    Returns:
        None for fewer than two variants, or where they were not validated on the same images.
    """
    seeds = sorted(set.intersection(*(set(variant.runs) for variant in variants))) if variants else []
    if len(variants) < 2 or not seeds:
        return None
    tables = []
    for seed in seeds:
        answers = [variant.runs[seed].val for variant in variants]
        if len({answer.images for answer in answers}) > 1 or not len(answers[0].right):
            return None
        tables.append(np.stack([answer.right for answer in answers]).astype(np.float32))
    means = np.stack([table.mean(axis=1) for table in tables])
    accuracy = means.mean(axis=0)
    best = int(accuracy.argmax())
    return Best(
        name=variants[best].name,
        among=len(variants),
        val_accuracy=float(accuracy[best]),
        optimism=_optimism(tables, accuracy),
        test_accuracy=float(np.mean(variants[best].accuracies)),
    )


def _optimism(tables: Sequence[np.ndarray], accuracy: np.ndarray) -> float:
    """Return the mean over draws of how much better the chosen variant does in the draw than on all images and seeds."""
    rng = np.random.default_rng(derive(0, "optimism"))
    # Drawn for each seed: the accuracies of all variants on as many images as there are, drawn with replacement.
    drawn = [
        rng.multinomial(table.shape[1], np.full(table.shape[1], 1 / table.shape[1]), _RESAMPLES) @ table.T for table in tables
    ]
    by_seed = np.stack([counts / table.shape[1] for counts, table in zip(drawn, tables, strict=True)])
    chosen = rng.integers(0, len(tables), (_RESAMPLES, len(tables)))
    sums = np.stack([by_seed[places, row].mean(axis=0) for row, places in enumerate(chosen)])
    winners = sums.argmax(axis=1)
    return float((sums[np.arange(_RESAMPLES), winners] - accuracy[winners]).mean())
