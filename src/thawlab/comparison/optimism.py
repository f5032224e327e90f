"""The winner's curse: how much better than it is the best of several variants looks on the images that chose it."""

import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.comparison.runs import Variant
from thawlab.randomness import derive

Table = npt.NDArray[np.float64]

_STUDIES = 10_000


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

    The optimism is that of a parametric bootstrap (Efron 1983): studies are drawn in which the variants differ by as much as
    these are estimated to differ really, with the noise of these seeds and validation images, and in each the accuracy of the
    best is held against its true one. Drawn around the accuracies as they were measured, whose noise spreads the variants
    twice, it would come out too small where the variants are equally good.

    Returns:
        None for fewer than two variants, or where they were not validated on the same images.
    """
    seeds = sorted(set.intersection(*(set(variant.runs) for variant in variants))) if variants else []
    if len(variants) < 2 or not seeds:
        return None
    tables, images = [], set()
    for seed in seeds:
        answers = [variant.runs[seed].val for variant in variants]
        if len({answer.images for answer in answers}) > 1 or not len(answers[0].right):
            return None
        images.add(answers[0].images)
        tables.append(np.stack([answer.right for answer in answers]).astype(np.float64))
    accuracy = np.mean([table.mean(axis=1) for table in tables], axis=0)
    best = int(accuracy.argmax())
    return Best(
        name=variants[best].name,
        among=len(variants),
        val_accuracy=float(accuracy[best]),
        optimism=_optimism(tables, crossed=len(images) == 1),
        test_accuracy=float(np.mean(variants[best].accuracies)),
    )


def _optimism(tables: Sequence[Table], crossed: bool) -> float:
    """Return the mean over drawn studies of how much better the chosen variant does in the study than it is.

    Args:
        tables: for each seed who is right, variants × images.
        crossed: whether all seeds have the same images.
    """
    k, seeds = len(tables[0]), len(tables)
    # What all variants of a seed or an image have in common chooses none of them.
    centred = [table - table.mean(axis=0) for table in tables]
    means = np.stack([table.mean(axis=1) for table in centred])
    of_images, single = _noise_of_images(centred, crossed)
    # Seeds are too few for covariances: their noise is taken to be the same for every variant.
    by_seed = float(np.square(means - means.mean(axis=0)).sum() / ((k - 1) * (seeds - 1))) if seeds > 1 else 0.0
    of_seeds = max(by_seed - single, 0.0) / seeds
    noise = float(np.trace(of_images)) / (k - 1) + of_seeds
    measured = means.mean(axis=0)
    spread = float(measured.var(ddof=1))
    # The measured accuracies differ by noise too: brought together until they differ by what is left.
    true = measured * math.sqrt(max(1 - noise / spread, 0.0)) if spread else measured
    rng = np.random.default_rng(derive(0, "optimism"))
    # Eigenvalues of a covariance may come out a little below zero.
    values, vectors = np.linalg.eigh(of_images)
    drawn = rng.standard_normal((_STUDIES, k)) * np.sqrt(values.clip(0.0)) @ vectors.T
    drawn += math.sqrt(of_seeds) * rng.standard_normal((_STUDIES, k))
    winners = (true + drawn).argmax(axis=1)
    return float(drawn[np.arange(_STUDIES), winners].mean())


def _noise_of_images(centred: Sequence[Table], crossed: bool) -> tuple[Table, float]:
    """Return the covariance of the mean accuracies by images, and how much of it the variance of one seed's mean contains."""
    if not crossed:
        within = np.mean([np.cov(table, bias=True) / table.shape[1] for table in centred], axis=0)
        return within / len(centred), float(np.trace(within)) / (len(within) - 1)
    mean = np.mean(centred, axis=0)
    k, n = mean.shape
    rest = 0.0
    if len(centred) > 1:
        # An image's part is the same for every seed; what is left of a single answer is not, and varies the means by seed.
        left = [table - mean - (table.mean(axis=1) - mean.mean(axis=1))[:, None] for table in centred]
        rest = float(sum(np.square(table).sum() for table in left)) / ((k - 1) * (len(centred) - 1) * n)
    return np.cov(mean, bias=True) / n, rest / n
