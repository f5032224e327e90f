"""OOD images: distance in feature space, with a limit from held-out images.

The distance is one minus the cosine to the k-th nearest training image in the features of the trained backbone (Sun et al.
2022, "Out-of-distribution detection with deep nearest neighbors"), who also found that a sample of the training images
serves nearly as well as all.
"""

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch

from thawlab.data.types import Indices, Labels
from thawlab.evaluation.metrics.ranking import roc_auc
from thawlab.models.saved import Reference
from thawlab.randomness import derive
from thawlab.results import Novelty, OodSource, Separation

Features = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

NEIGHBOUR = 5
# Training images that are kept to compare with, equally many of each class as far as they go.
_REFERENCE = 2000
# This share of held-out images lies within the limit.
_WITHIN = 0.99
_AT_ONCE = 1024


class NoveltyScores(NamedTuple):
    """Two scores of each image: distance from the reference, and confidence (the largest calibrated probability)."""

    distance: Scores
    confidence: Scores


def sample_of(labels: Labels, seed: int, count: int = _REFERENCE) -> Indices:
    """Return the places of a sample in which every class has equally many members as far as it has them, sorted."""
    rng = np.random.default_rng(derive(seed, "known"))
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    rank = np.arange(len(labels)) - np.searchsorted(labels[by_class], labels[by_class])
    return np.sort(by_class[np.argsort(rank, kind="stable")[:count]])


def unit(features: Features) -> npt.NDArray[np.float16]:
    """Return features scaled to unit length, in half precision."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float16] = (features / np.maximum(lengths, 1e-12)).astype(np.float16)
    return scaled


def distances(features: Features, reference: npt.NDArray[np.float16] | Features) -> Scores:
    """Return how far images lie from the reference: one minus the cosine to the fifth nearest, in [0, 2].

    Args:
        features: float32, n × width.
        reference: float16 or the same values in float32, m × width, of unit length; where there are fewer than five the farthest
            of them counts.
    """
    # By torch, whose threads are there already: those of NumPy would wait for more, and take the cores from the next batch.
    bank = torch.from_numpy(np.asarray(reference, dtype=np.float32)).T
    neighbour = min(NEIGHBOUR, bank.shape[1])
    result = np.zeros(len(features))
    for start in range(0, len(features), _AT_ONCE):
        cosines = (torch.from_numpy(unit(features[start : start + _AT_ONCE]).astype(np.float32)) @ bank).numpy()
        result[start : start + _AT_ONCE] = 1 - np.partition(cosines, -neighbour, axis=1)[:, -neighbour]
    return result


def fit_reference(training: Features, held_out: Features) -> Reference:
    """Return the reference from features of training images, with a limit from held-out ones.

    The limit is the conformal quantile: a new image of the same kind exceeds it with a probability of at most 1 %, or, with
    fewer than 99 held-out images, it is the largest distance among them.
    """
    reference = unit(training)
    within = np.sort(distances(held_out, reference))
    rank = min(int(np.ceil((len(within) + 1) * _WITHIN)), len(within))
    return Reference(reference, float(within[rank - 1]))


def separation(inside: Scores, outside: Scores) -> Separation:
    """Return how well a score separates in-distribution from OOD images; higher scores must mean farther out.

    The false-positive rate is the share of OOD images that pass where 95 % of the others do.
    """
    truth = np.concatenate([np.zeros(len(inside)), np.ones(len(outside))])
    passing = np.quantile(inside, 0.95, method="higher")
    auroc = roc_auc(truth, np.concatenate([inside, outside]))
    return Separation(auroc=auroc, fpr95=float((outside <= passing).mean()))


def combined(scores: NoveltyScores, held_out: NoveltyScores) -> Scores:
    """Combine distance and confidence into one score by Fisher's method (Fisher 1925), higher for what is farther out.

    Each becomes the share of held-out images that are at least as far out; the score is minus the sum of their logarithms.
    """
    n = len(held_out.distance)
    pairs = ((np.sort(held_out.distance), scores.distance), (np.sort(-held_out.confidence), -scores.confidence))
    shares = [(n - np.searchsorted(own, values) + 1) / (n + 1) for own, values in pairs]
    return -np.log(shares[0]) - np.log(shares[1])


def novelty(
    reference: Reference, held_out: NoveltyScores, test: NoveltyScores, ood: Mapping[str, NoveltyScores] | None = None
) -> Novelty:
    """Return the limit and how well it separates OOD images, as `results.json` holds it.

    Args:
        reference: with the limit.
        held_out: scores of the val split.
        test: of the test split, the in-distribution images.
        ood: of OOD images, by source.
    """
    inside = combined(test, held_out)
    return Novelty(
        limit=reference.limit,
        reference=len(reference.features),
        n_held_out=len(held_out.distance),
        test_beyond_limit=float((test.distance > reference.limit).mean()),
        ood={
            name: OodSource(
                n=len(scores.distance),
                beyond_limit=float((scores.distance > reference.limit).mean()),
                distance=separation(test.distance, scores.distance),
                confidence=separation(-test.confidence, -scores.confidence),
                both=separation(inside, combined(scores, held_out)),
            )
            for name, scores in (ood or {}).items()
        },
    )
