"""Labels that are probably wrong, by confident learning on held-out probabilities (Northcutt et al. 2021)."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Labels
from thawlab.evaluation.predictions import Predictions
from thawlab.evaluation.softmax import log_softmax
from thawlab.quality.candidates import Neighbours
from thawlab.quality.confident_learning import Probabilities, suspected
from thawlab.quality.folds import unseen

# What is wrong with a sample: a copy of it has another label; another class is shown; one of two classes; none that can be told.
KINDS = ("copy with another label", "another class", "between two classes", "nothing to recognise")
_BOTH, _EITHER, _LITTLE = 0.75, 0.15, 0.5
# Of fewer held-out images nothing is said; of more suspects than the other number the rest is counted only.
_FEWEST_JUDGED, _SHOWN = 20, 200
# The surest fifth.
_SUREST = 5
# Features are brought to unit variance; this much regularisation then suits a few hundred to some thousand of them, where the
# images are few; of many images the mean loss is regularised alike, so that wrong labels are not learned by heart.
_INVERSE_REGULARISATION, _PER_IMAGES = 0.01, 4000
# What neighbours say: weights that fall with their distance in feature space, against a doubt that is spread over all classes.
_NEARNESS, _DOUBT = 20.0, 0.01
# What no judge says of a class with certainty, and how many samples tell how far each judge is to be trusted.
_TINY, _POOLED = 1e-6, 20_000


class LabelScores(NamedTuple):
    """How plausible each label is.

    Attributes:
        quality: in [0, 1], one per sample: the probability of the label, low where it is suspected.
        suggested: the most probable class other than the label.
        suspects: the samples whose label is probably wrong, the worst first.
        kinds: what is probably wrong with each, were its label suspected: one of `KINDS`.
    """

    quality: npt.NDArray[np.float64]
    suggested: Labels
    suspects: Indices
    kinds: npt.NDArray[np.str_]


def held_out_probabilities(features: npt.NDArray[np.float32], labels: Labels, folds: Indices) -> Probabilities:
    """Return class probabilities of each sample from a linear head that was fitted without it.

    Args:
        features: float32, n × width.
        labels: int64, n.
        folds: of each sample; a fold is held out from the head that judges it (see `folds_of`).
    """
    from sklearn.linear_model import LogisticRegression

    probabilities = np.full((len(labels), int(labels.max()) + 1), 1e-6)
    for number in range(int(folds.max()) + 1):
        fit, held = folds != number, np.flatnonzero(folds == number)
        if len(np.unique(labels[fit])) < 2 or not len(held):
            continue  # nothing to tell apart: these are not judged
        mean, spread = features[fit].mean(axis=0), features[fit].std(axis=0) + 1e-6
        strength = _INVERSE_REGULARISATION * min(1.0, _PER_IMAGES / len(labels))
        head = LogisticRegression(C=strength, max_iter=200, tol=1e-3)
        head.fit((features[fit] - mean) / spread, labels[fit])
        probabilities[np.ix_(held, head.classes_)] = head.predict_proba((features[held] - mean) / spread)
    probabilities[unseen(labels, folds)] = 1.0  # of classes that the head never saw: not judged either
    normalised: Probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normalised


def neighbour_probabilities(neighbours: Neighbours, labels: Labels, folds: Indices) -> Probabilities:
    """Return class probabilities of each sample from the labels of its nearest neighbours in the other folds.

    Args:
        neighbours: of each sample, itself among them.
        labels: int64, n.
        folds: of each sample.
    """
    probabilities = np.full((len(labels), int(labels.max()) + 1), _DOUBT)
    for similarity, rows in zip(neighbours.similarity.T, neighbours.rows.T, strict=True):
        weight = np.exp(_NEARNESS * (similarity.astype(np.float64) - 1)) * (folds[rows] != folds)
        np.add.at(probabilities, (np.arange(len(labels)), labels[rows]), weight)
    probabilities[unseen(labels, folds)] = 1.0
    normalised: Probabilities = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normalised


def agreed(tables: Sequence[Probabilities], labels: Labels) -> Probabilities:
    """Return what several judges say together: the product of their probabilities, each to a power (a logarithmic pool).

    The powers, which weaken a judge that is often wrong or too sure, are those under which the labels are most probable.

    Args:
        tables: held-out probabilities of the same samples, n × classes each.
        labels: int64, n; most of them right.
    """
    from scipy.optimize import minimize

    logs = np.stack([np.log(table + _TINY) for table in tables])
    some = np.linspace(0, len(labels) - 1, min(_POOLED, len(labels))).astype(int)
    part, wanted = logs[:, some], labels[some]

    def loss(powers: npt.NDArray[np.float64]) -> tuple[float, npt.NDArray[np.float64]]:
        said = log_softmax(np.tensordot(powers, part, axes=1))
        chosen = (np.arange(len(wanted)), wanted)
        slopes = [(np.exp(said) * table).sum(axis=1).mean() - table[chosen].mean() for table in part]
        return float(-said[chosen].mean()), np.array(slopes)

    found = minimize(loss, np.full(len(tables), 1 / len(tables)), jac=True, method="L-BFGS-B", bounds=[(0.0, 4.0)] * len(tables))
    pooled: Probabilities = np.exp(log_softmax(np.tensordot(found.x, logs, axes=1)))
    return pooled


def label_suspects(val: Predictions, test: Predictions, classes: Sequence[str], temperature: float) -> dict[str, Any]:
    """Return what `results.json` says of suspected labels among the held-out images, the least plausible first.

    The classifier was not trained on val and test images, so that its probabilities tell something about their labels.
    """
    labels = np.concatenate([val.labels, test.labels])
    n = len(labels)
    if n < _FEWEST_JUDGED or len(np.unique(labels)) < 2:
        return {"n": n, "count": 0, "sure": 0, "contradicted_when_sure": 0, "first": []}
    probabilities = np.concatenate([table.probabilities(temperature) for table in (val, test) if len(table.labels)])
    scores = score_labels(labels, probabilities)
    ids = np.concatenate([table.ids for table in (val, test)])
    first = [
        {
            "id": str(ids[k]),
            "class": classes[labels[k]],
            "suggested": classes[scores.suggested[k]],
            "probability": float(probabilities[k, scores.suggested[k]]),
        }
        for k in scores.suspects[:_SHOWN].tolist()
    ]
    # Where a classifier is surest it is hardly ever wrong, however hard the rest may be; noise in the labels spares nothing.
    surest = np.argsort(-probabilities.max(axis=1), kind="stable")[: n // _SUREST]
    contradicted = int((probabilities[surest].argmax(axis=1) != labels[surest]).sum())
    counted = {"n": n, "count": len(scores.suspects), "sure": len(surest), "contradicted_when_sure": contradicted}
    return {**counted, "first": first}


def score_labels(labels: Labels, probabilities: Probabilities, conflicting: Collection[int] = ()) -> LabelScores:
    """Score labels against held-out probabilities.

    Args:
        labels: int64, n.
        probabilities: n × classes, of a classifier that did not see the sample.
        conflicting: samples of which a duplicate has another label.
    """
    quality = probabilities[np.arange(len(labels)), labels]
    present = np.unique(labels)
    suspects = np.zeros(0, dtype=np.int64)
    if len(present) > 1:
        numbers = np.searchsorted(present, labels)
        some = probabilities[:, present] / probabilities[:, present].sum(axis=1, keepdims=True)
        suspects = suspected(numbers, some)
    without_own = probabilities.copy()
    without_own[np.arange(len(labels)), labels] = -1
    return LabelScores(quality, without_own.argmax(axis=1), suspects, _kinds(labels, probabilities, conflicting))


def _kinds(labels: Labels, probabilities: Probabilities, conflicting: Collection[int]) -> npt.NDArray[np.str_]:
    """Return what is probably wrong with each sample, were its label suspected."""
    own = probabilities[np.arange(len(labels)), labels]
    others = probabilities.copy()
    others[np.arange(len(labels)), labels] = 0
    best = others.max(axis=1)
    both = (own + best >= _BOTH) & (np.minimum(own, best) >= _EITHER)
    chosen = [np.isin(np.arange(len(labels)), np.array([*conflicting], dtype=np.int64)), both, np.maximum(own, best) < _LITTLE]
    return np.select(chosen, [KINDS[0], KINDS[2], KINDS[3]], KINDS[1])
