"""Labels that are probably wrong, by confident learning on held-out probabilities (Northcutt et al. 2021)."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Labels
from thawlab.evaluation.predictions import Predictions

_FOLDS = 5
# Of fewer held-out images nothing is said; of more suspects than the other number the rest is counted only.
_FEWEST_JUDGED, _SHOWN = 20, 200
# The surest fifth.
_SUREST = 5
# Features are brought to unit variance; this much regularisation then suits a few hundred to some thousand of them.
_INVERSE_REGULARISATION = 0.01


class LabelScores(NamedTuple):
    """How plausible each label is.

    Attributes:
        quality: in [0, 1], one per sample; low where the label is suspected.
        suggested: the most probable class other than the label.
        suspects: the samples whose label is probably wrong, the worst first.
    """

    quality: npt.NDArray[np.float64]
    suggested: Labels
    suspects: Indices


def held_out_probabilities(
    features: npt.NDArray[np.float32], labels: Labels, groups: Indices | None = None, seed: int = 0
) -> npt.NDArray[np.float64]:
    """Return class probabilities of each sample from a linear head that was fitted without it.

    Args:
        features: float32, n × width.
        labels: int64, n; every class has at least two samples, in at least two groups.
        groups: samples of one group are always held out together.
        seed: of the folds.
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(n_splits=min(_FOLDS, fewest_parts(labels, groups)), shuffle=True, random_state=seed)
    classes = int(labels.max()) + 1
    probabilities = np.full((len(labels), classes), 1e-6)
    for fit, held in splitter.split(features, labels, groups):
        if len(np.unique(labels[fit])) < 2:
            continue  # nothing to tell apart: these are not judged
        mean, spread = features[fit].mean(axis=0), features[fit].std(axis=0) + 1e-6
        head = LogisticRegression(C=_INVERSE_REGULARISATION, max_iter=200, tol=1e-3)
        head.fit((features[fit] - mean) / spread, labels[fit])
        probabilities[np.ix_(held, head.classes_)] = head.predict_proba((features[held] - mean) / spread)
        probabilities[held[~np.isin(labels[held], head.classes_)]] = 1.0  # of classes that the head never saw: not judged either
    normalised: npt.NDArray[np.float64] = probabilities / probabilities.sum(axis=1, keepdims=True)
    return normalised


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


def fewest_parts(labels: Labels, groups: Indices | None) -> int:
    """Return into how many parts that can be held out the class with the fewest of them falls: samples, or groups."""
    parts = labels[:, None] if groups is None else np.unique(np.stack([labels, groups], axis=1), axis=0)
    return int(np.unique(parts[:, 0], return_counts=True)[1].min())


def score_labels(labels: Labels, probabilities: npt.NDArray[np.float64]) -> LabelScores:
    """Score labels against held-out probabilities.

    Args:
        labels: int64, n.
        probabilities: n × classes, of a classifier that did not see the sample.
    """
    from cleanlab.filter import find_label_issues
    from cleanlab.rank import get_label_quality_scores

    quality = get_label_quality_scores(labels, probabilities, method="normalized_margin")
    present = np.unique(labels)
    suspects = np.zeros(0, dtype=np.int64)
    if len(present) > 1:
        numbers = np.searchsorted(present, labels)
        some = probabilities[:, present] / probabilities[:, present].sum(axis=1, keepdims=True)
        suspects = np.asarray(
            find_label_issues(numbers, some, return_indices_ranked_by="normalized_margin", n_jobs=1), dtype=np.int64
        )
    without_own = probabilities.copy()
    without_own[np.arange(len(labels)), labels] = -1
    return LabelScores(quality, without_own.argmax(axis=1), suspects)
