"""Images unlike anything in training: distance in feature space, with a limit from held-out images.

The distance is one minus the cosine to the k-th nearest training image in the features of the trained backbone (Sun et al.
2022, "Out-of-distribution detection with deep nearest neighbors"), who also found that a sample of the training images
serves nearly as well as all.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Labels
from thawlab.models.saved import Known
from thawlab.randomness import derive

Features = npt.NDArray[np.float32]
Scores = npt.NDArray[np.float64]

_NEIGHBOUR = 5
# So many training images are kept to compare with, equally many of each class as far as they go.
_KNOWN = 2000
# This share of held-out images lies within the limit.
_WITHIN = 0.99
_AT_ONCE = 1024


def sample_of(labels: Labels, seed: int, count: int = _KNOWN) -> Indices:
    """Return the places of a sample in which every class has equally many members as far as it has them, sorted."""
    rng = np.random.default_rng(derive(seed, "known"))
    order = rng.permutation(len(labels))
    by_class = order[np.argsort(labels[order], kind="stable")]
    starts = np.searchsorted(labels[by_class], labels[by_class])
    rank = np.arange(len(labels)) - starts
    chosen: Indices = np.sort(by_class[np.argsort(rank, kind="stable")[:count]])
    return chosen


def unit(features: Features) -> npt.NDArray[np.float16]:
    """Return features scaled to unit length, in half precision."""
    lengths = np.linalg.norm(features, axis=1, keepdims=True)
    scaled: npt.NDArray[np.float16] = (features / np.maximum(lengths, 1e-12)).astype(np.float16)
    return scaled


def distances(features: Features, known: npt.NDArray[np.float16]) -> Scores:
    """Return how far images lie from the known ones: one minus the cosine to the fifth nearest, in [0, 2].

    Args:
        features: float32, n × width.
        known: float16, m × width, of unit length; where there are fewer than five the farthest of them counts.
    """
    bank = known.astype(np.float32).T
    neighbour = min(_NEIGHBOUR, bank.shape[1])
    result = np.zeros(len(features))
    for start in range(0, len(features), _AT_ONCE):
        cosines = unit(features[start : start + _AT_ONCE]).astype(np.float32) @ bank
        result[start : start + _AT_ONCE] = 1 - np.partition(cosines, -neighbour, axis=1)[:, -neighbour]
    return result


def fit_known(training: Features, held_out: Features) -> Known:
    """Return what is known from features of training images, and of held-out ones for the limit.

    The limit is the conformal quantile: a new image of the same kind exceeds it with a probability of at most 1 %, or, with
    fewer than 99 held-out images, it is the largest distance among them.
    """
    known = unit(training)
    within = np.sort(distances(held_out, known))
    rank = min(int(np.ceil((len(within) + 1) * _WITHIN)), len(within))
    return Known(known, float(within[rank - 1]))


def separation(familiar: Scores, foreign: Scores) -> dict[str, float]:
    """Return how well a score parts familiar images from foreign ones; higher scores must mean more foreign.

    Returns:
        `auroc`, and `fpr95`: the share of foreign images that pass where 95 % of the familiar ones do.
    """
    from sklearn.metrics import roc_auc_score

    truth = np.concatenate([np.zeros(len(familiar)), np.ones(len(foreign))])
    passing = np.quantile(familiar, 0.95, method="higher")
    return {
        "auroc": float(roc_auc_score(truth, np.concatenate([familiar, foreign]))),
        "fpr95": float((foreign <= passing).mean()),
    }


def both(distance: Scores, confidence: Scores, held_out: tuple[Scores, Scores]) -> Scores:
    """Combine distance and confidence into one score by Fisher's method (Fisher 1925), higher for what is more foreign.

    Each becomes the share of held-out images that are at least as strange; the score is minus the sum of their logarithms.

    Args:
        distance: of the images.
        confidence: their largest calibrated probability.
        held_out: the same two of held-out images.
    """
    far, unsure = np.sort(held_out[0]), np.sort(-held_out[1])
    n = len(far)
    shares = [(n - np.searchsorted(own, values) + 1) / (n + 1) for own, values in ((far, distance), (unsure, -confidence))]
    combined: Scores = -np.log(shares[0]) - np.log(shares[1])
    return combined


def measured(
    known: Known, held_out: tuple[Scores, Scores], test: tuple[Scores, Scores], foreign: Mapping[str, tuple[Scores, Scores]]
) -> dict[str, Any]:
    """Return what `results.json` says of novelty.

    Args:
        known: with the limit.
        held_out: distance and confidence of the val split.
        test: of the test split, the familiar images.
        foreign: of images of other kinds, by name.
    """
    scores = {name: (*pair, both(*pair, held_out)) for name, pair in {"test": test, **foreign}.items()}
    return {
        "limit": known.limit,
        "known": len(known.features),
        "n_held_out": len(held_out[0]),
        "test_beyond_limit": float((test[0] > known.limit).mean()),
        "foreign": {
            name: {
                "n": len(pair[0]),
                "beyond_limit": float((pair[0] > known.limit).mean()),
                "distance": separation(scores["test"][0], scores[name][0]),
                "confidence": separation(-scores["test"][1], -scores[name][1]),
                "both": separation(scores["test"][2], scores[name][2]),
            }
            for name, pair in foreign.items()
        },
    }
