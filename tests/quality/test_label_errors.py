from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import roc_auc_score

from thawlab.evaluation.predictions import Predictions
from thawlab.quality.candidates import Neighbours, nearest_features
from thawlab.quality.folds import folds_of
from thawlab.quality.label_errors import agreed, held_out_probabilities, label_suspects, neighbour_probabilities, score_labels


def _clouds(rng: np.random.Generator, n: int, classes: int, width: int = 16) -> tuple[np.ndarray, np.ndarray]:
    centres = rng.normal(0, 2, (classes, width))
    labels = rng.integers(0, classes, n)
    return (centres[labels] + rng.normal(0, 1, (n, width))).astype(np.float32), labels.astype(np.int64)


@pytest.mark.parametrize("share", [0.01, 0.03, 0.05])
def test_planted_label_errors_are_ranked_first(share: float) -> None:
    rng = np.random.default_rng(0)
    features, truth = _clouds(rng, 3000, 5)
    wrong = rng.random(3000) < share
    labels = np.where(wrong, (truth + rng.integers(1, 5, 3000)) % 5, truth)
    scores = score_labels(labels, held_out_probabilities(features, labels, folds_of(labels, None, [], 5)))
    assert roc_auc_score(wrong, -scores.quality) >= 0.95
    assert (scores.suggested[wrong] == truth[wrong]).mean() > 0.9
    suspected = np.zeros(3000, dtype=bool)
    suspected[scores.suspects] = True
    assert suspected[wrong].mean() > 0.8 and suspected[~wrong].mean() < 0.02


def test_probabilities_come_from_a_head_that_did_not_see_the_sample() -> None:
    rng = np.random.default_rng(1)
    # Labels that nothing tells: a head that had seen the sample would fit it, one that had not is at chance.
    features, labels = rng.normal(size=(400, 200)).astype(np.float32), rng.integers(0, 2, 400)
    probabilities = held_out_probabilities(features, labels, folds_of(labels, None, [], 5))
    assert abs((probabilities.argmax(axis=1) == labels).mean() - 0.5) < 0.1
    assert np.allclose(probabilities.sum(axis=1), 1)


def test_groups_are_held_out_together() -> None:
    rng = np.random.default_rng(2)
    # Twenty images that are nearly the same per group, and labels drawn per group: only leakage could predict them.
    groups = np.repeat(np.arange(40), 20)
    features = (rng.normal(size=(40, 50))[groups] + 0.01 * rng.normal(size=(800, 50))).astype(np.float32)
    labels = rng.integers(0, 2, 40)[groups]
    leaking = held_out_probabilities(features, labels, folds_of(labels, None, [], 5))
    honest = held_out_probabilities(features, labels, folds_of(labels, groups, [], 5))
    assert (leaking.argmax(axis=1) == labels).mean() > 0.95
    assert (honest.argmax(axis=1) == labels).mean() < 0.75


def test_an_absent_class_number_stays_improbable() -> None:
    rng = np.random.default_rng(3)
    features, labels = _clouds(rng, 200, 2)
    labels = np.where(labels == 1, 3, 0)
    scores = score_labels(labels, held_out_probabilities(features, labels, folds_of(labels, None, [], 5)))
    assert set(scores.suggested.tolist()) <= {0, 3}


def test_the_same_labels_have_the_same_scores() -> None:
    features, labels = _clouds(np.random.default_rng(4), 300, 3)
    one, two = (score_labels(labels, held_out_probabilities(features, labels, folds_of(labels, None, [], 5))) for _ in range(2))
    assert np.array_equal(one.quality, two.quality) and np.array_equal(one.suspects, two.suspects)


def test_judges_count_as_far_as_they_can_be_trusted() -> None:
    rng = np.random.default_rng(5)
    labels = rng.integers(0, 4, 2000)
    good = np.full((2000, 4), 0.1)
    good[np.arange(2000), np.where(rng.random(2000) < 0.9, labels, rng.integers(0, 4, 2000))] = 0.7
    loud = np.full((2000, 4), 1e-4)  # sure of itself, and at chance
    loud[np.arange(2000), rng.integers(0, 4, 2000)] = 1 - 3e-4
    pooled = agreed([good, loud], labels)
    assert np.allclose(pooled.sum(axis=1), 1)
    assert (pooled.argmax(axis=1) == good.argmax(axis=1)).mean() > 0.99
    right = pooled[np.arange(2000), good.argmax(axis=1)].mean()
    assert abs(right - (good.argmax(axis=1) == labels).mean()) < 0.03  # and what they say together is calibrated


def test_neighbours_of_the_own_fold_say_nothing() -> None:
    features, labels = _clouds(np.random.default_rng(6), 400, 3)
    folds = folds_of(labels, None, [], 5)
    said = neighbour_probabilities(nearest_features(features), labels, folds)
    assert np.allclose(said.sum(axis=1), 1) and (said.argmax(axis=1) == labels).mean() > 0.95
    alone = Neighbours(np.ones((4, 2), np.float32), np.array([[0, 1], [1, 0], [2, 3], [3, 2]]))
    said = neighbour_probabilities(alone, np.array([0, 1, 0, 1]), np.array([0, 0, 1, 1]))
    assert np.allclose(said, 0.5)  # each has neighbours of its own fold only


def test_kinds_tell_what_is_shown() -> None:
    labels = np.zeros(5, dtype=np.int64)
    probabilities = np.array([[0.02, 0.95, 0.03], [0.4, 0.55, 0.05], [0.35, 0.33, 0.32], [0.97, 0.02, 0.01], [0.1, 0.2, 0.7]])
    kinds = score_labels(labels, probabilities, {3}).kinds.tolist()
    assert kinds == ["another class", "between two classes", "nothing to recognise", "copy with another label", "another class"]


def test_suspects_among_held_out_images_are_those_that_were_changed() -> None:
    rng = np.random.default_rng(3)
    truth = rng.integers(0, 4, 400)
    logits = (6 * np.eye(4)[truth] + rng.normal(0, 0.5, (400, 4))).astype(np.float32)
    labels = truth.copy()
    labels[:20] = (truth[:20] + 1) % 4
    ids = np.array([f"p{k}" for k in range(400)])
    val, test = (Predictions(ids[part], labels[part], logits[part]) for part in (slice(0, 100), slice(100, None)))
    found = label_suspects(val, test, ("a", "b", "c", "d"), 1.0)
    assert found["n"] == 400 and found["count"] == 20 and found["sure"] == 80
    assert 0 <= found["contradicted_when_sure"] < 16
    assert {entry["id"] for entry in found["first"]} == {f"p{k}" for k in range(20)}
    for entry in found["first"]:
        place = int(entry["id"][1:])
        assert entry["suggested"] == "abcd"[truth[place]] and entry["class"] == "abcd"[labels[place]]


def test_few_held_out_images_say_nothing() -> None:
    few = Predictions(np.array(["a"]), np.array([0]), np.zeros((1, 2), dtype=np.float32))
    none = Predictions(np.zeros(0, dtype=np.str_), np.zeros(0, dtype=np.int64), np.zeros((0, 2), dtype=np.float32))
    assert label_suspects(none, few, ("x", "y"), 1.0)["count"] == 0


@pytest.mark.parametrize("seed", range(12))
def test_few_groups_leave_some_labels_unjudged_and_none_suspected_for_it(seed: int) -> None:
    rng = np.random.default_rng(seed)
    features, labels = _clouds(rng, 24, 2)
    groups = np.where(labels == 0, rng.integers(0, 2, 24), rng.integers(1, 3, 24))
    groups[labels == 0][:2], groups[labels == 1][:2] = (0, 1), (1, 2)
    probabilities = held_out_probabilities(features, labels, folds_of(labels, groups.astype(np.int64), [], 2, seed))
    assert np.allclose(probabilities.sum(axis=1), 1) and (probabilities[np.arange(24), labels] > 0.01).all()
