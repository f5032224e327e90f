from __future__ import annotations

import numpy as np
import pytest

from thawlab.evaluation.novelty import NoveltyScores, combined, distances, fit_reference, novelty, sample_of, separation, unit


def clouds(rng: np.random.Generator, n: int, centre: float) -> np.ndarray:
    direction = np.zeros(16)
    direction[int(centre)] = 10
    return (direction + rng.normal(size=(n, 16))).astype(np.float32)


def test_the_distance_is_that_of_a_full_sort() -> None:
    rng = np.random.default_rng(0)
    features, bank = rng.normal(size=(50, 8)).astype(np.float32), unit(rng.normal(size=(30, 8)).astype(np.float32))
    cosines = unit(features).astype(np.float64) @ bank.astype(np.float64).T
    assert np.allclose(distances(features, bank), 1 - np.sort(cosines, axis=1)[:, -5], atol=1e-6)
    assert np.allclose(distances(features, bank[:3]), 1 - cosines[:, :3].min(axis=1), atol=1e-6)


def test_a_limit_lets_99_of_100_new_images_pass() -> None:
    rng = np.random.default_rng(1)
    beyond = []
    for _ in range(100):
        reference = fit_reference(clouds(rng, 100, 0), clouds(rng, 199, 0))
        beyond.append((distances(clouds(rng, 500, 0), reference.features) > reference.limit).mean())
    assert 0.006 < np.mean(beyond) < 0.0135  # 1 % is promised; (n + 1) · 0.99 = 198 of 199 leaves exactly that


def test_few_held_out_images_give_the_largest_distance() -> None:
    rng = np.random.default_rng(2)
    training, held_out = clouds(rng, 50, 0), clouds(rng, 10, 0)
    reference = fit_reference(training, held_out)
    assert reference.limit == distances(held_out, reference.features).max()


def test_ood_images_are_told_from_in_distribution_ones() -> None:
    rng = np.random.default_rng(3)
    reference = fit_reference(clouds(rng, 300, 0), clouds(rng, 200, 0))

    def scores(features: np.ndarray, low: float) -> NoveltyScores:
        return NoveltyScores(distances(features, reference.features), rng.uniform(low, 1, len(features)))

    held_out, test = scores(clouds(rng, 200, 0), 0.6), scores(clouds(rng, 300, 0), 0.6)
    ood = {"other": scores(clouds(rng, 300, 5), 0.3), "same": scores(clouds(rng, 300, 0), 0.6)}
    found = novelty(reference, held_out, test, ood)
    assert (found.limit, found.reference, found.n_held_out) == (reference.limit, 300, 200)
    other, same = found.ood["other"], found.ood["same"]
    assert other.distance.auroc > 0.999 and other.distance.fpr95 == 0 and other.beyond_limit == 1
    assert other.both.auroc > other.confidence.auroc
    assert 0.42 < same.distance.auroc < 0.58 and 0.88 < same.distance.fpr95 < 1
    assert found.test_beyond_limit < 0.04
    without = novelty(reference, held_out, test)
    assert without == found.model_copy(update={"ood": {}})


def test_separation_equals_what_is_known() -> None:
    inside, outside = np.arange(100.0), np.arange(100.0) + 50
    found = separation(inside, outside)
    wins = (outside[:, None] > inside).mean() + 0.5 * (outside[:, None] == inside).mean()
    assert found.auroc == pytest.approx(wins)
    assert found.fpr95 == pytest.approx(0.46)  # 95 or more of those inside lie at 95 at most, and so do 46 of those outside


def test_the_combined_score_grows_with_distance_and_falls_with_confidence() -> None:
    rng = np.random.default_rng(4)
    held_out = NoveltyScores(rng.uniform(0, 1, 100), rng.uniform(0, 1, 100))
    scores = NoveltyScores(np.array([0.01, 0.99, 0.99]), np.array([0.99, 0.99, 0.01]))
    near_sure, far_sure, far_unsure = combined(scores, held_out)
    assert near_sure < far_sure < far_unsure


def test_the_sample_has_equally_many_of_each_class_as_far_as_they_go() -> None:
    labels = np.repeat([0, 1, 2], [500, 20, 300])
    chosen = sample_of(labels, 0, 120)
    assert np.bincount(labels[chosen]).tolist() == [50, 20, 50]
    assert len(np.unique(chosen)) == 120 and (np.diff(chosen) > 0).all()
    assert np.array_equal(chosen, sample_of(labels, 0, 120)) and not np.array_equal(chosen, sample_of(labels, 1, 120))
    assert np.array_equal(sample_of(labels, 0, 5000), np.arange(820))
