"""Confident learning against cleanlab, whose counts are rounded by our own rule here: it leaves ties to the order of a sort."""

from __future__ import annotations

import cleanlab.count
import numpy as np
import pytest
from cleanlab.filter import find_label_issues
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from thawlab.quality import confident_learning
from thawlab.quality.confident_learning import confident_joint, suspected


def _noisy(seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Return labels of which up to half are wrong, and probabilities that tell something about the right ones."""
    rng = np.random.default_rng(seed)
    classes = int(rng.integers(2, 25))
    n = int(rng.integers(classes, 1500))
    truth = np.append(np.arange(classes), rng.integers(0, classes, n - classes))
    logits = rng.uniform(0.3, 2) * rng.normal(size=(n, classes))
    logits[np.arange(n), truth] += rng.uniform(0, 5)
    wrong = rng.random(n) < rng.uniform(0, 0.5)
    wrong[:classes] = False
    table = np.exp(logits)
    return np.where(wrong, rng.integers(0, classes, n), truth), table / table.sum(axis=1, keepdims=True)


def _by_our_rounding(matrix: np.ndarray) -> np.ndarray:
    return np.stack([confident_learning._rounded(row) for row in matrix])


@pytest.mark.parametrize("seed", range(40))
def test_suspects_are_those_of_cleanlab(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    labels, probabilities = _noisy(seed)
    monkeypatch.setattr(cleanlab.count, "round_preserving_row_totals", _by_our_rounding)
    theirs = find_label_issues(labels, probabilities, return_indices_ranked_by="self_confidence", n_jobs=1)
    ours = suspected(labels, probabilities)
    # The last digit of a scaled count may decide how it is rounded.
    assert len(set(theirs.tolist()) ^ set(ours.tolist())) <= 1
    assert np.all(np.diff(probabilities[ours, labels[ours]]) >= 0)


@pytest.mark.parametrize("seed", range(10))
def test_the_joint_is_that_of_cleanlab_but_for_how_ties_are_rounded(seed: int) -> None:
    labels, probabilities = _noisy(seed)
    joint = confident_joint(labels, probabilities)
    assert np.array_equal(joint.sum(axis=1), np.bincount(labels))
    assert np.abs(joint - cleanlab.count.compute_confident_joint(labels, probabilities)).max() <= 1


def test_a_hopeless_classifier_leaves_each_label_a_sample() -> None:
    labels = np.array([0, 0, 0, 1, 1, 1])
    probabilities = np.array([[0.1, 0.9]] * 3 + [[0.9, 0.1]] * 3)
    kept = np.delete(labels, suspected(labels, probabilities))
    assert set(kept.tolist()) == {0, 1}


def test_a_label_with_one_sample_is_not_suspected() -> None:
    labels = np.array([0] * 30 + [1])
    probabilities = np.tile([0.9, 0.1], (31, 1))
    assert len(suspected(labels, probabilities)) == 0


def test_where_the_classifier_agrees_with_all_labels_nothing_is_suspected() -> None:
    labels = np.arange(60) % 3
    probabilities = np.where(np.eye(3)[labels] > 0, 0.8, 0.1)
    assert len(suspected(labels, probabilities)) == 0


@given(arrays(np.float64, st.integers(1, 30), elements=st.floats(0, 1000)))
def test_rounding_keeps_the_sum_and_moves_no_number_by_one(row: np.ndarray) -> None:
    rounded = confident_learning._rounded(row)
    assert rounded.sum() == round(row.sum())
    assert np.abs(rounded - row).max() <= 1
