from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.neighbors import KNeighborsClassifier, NearestCentroid
from sklearn.preprocessing import normalize

from thawlab.probing.heads import HEADS, NEIGHBOURS, PENALTIES, Samples, k_nearest, linear, logistic, prototypes


def blobs(n: int, classes: int = 4, seed: int = 0, noise: float = 1.5) -> Samples:
    centres = torch.randn(classes, 20, generator=torch.Generator().manual_seed(99))
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randperm(n, generator=generator) % classes
    return Samples(centres[labels] + noise * torch.randn(n, 20, generator=generator), labels)


TRAIN, VAL, TEST = blobs(300), blobs(100, seed=1), blobs(200, seed=2)


@pytest.mark.parametrize("classes", [2, 4])
def test_logistic_is_scikit_learns_with_the_penalty_that_val_chose(classes: int) -> None:
    train, val, test = (blobs(n, classes, seed, noise=4) for n, seed in ((300, 0), (100, 1), (200, 2)))
    fitted = logistic(train, val, classes, 0)
    head = LogisticRegression(C=fitted.chosen["C"], max_iter=1000, tol=1e-6).fit(train.features.numpy(), train.labels.numpy())
    scores = fitted.score(test.features)
    torch.testing.assert_close(
        scores.softmax(dim=1), torch.from_numpy(head.predict_proba(test.features.numpy())), atol=0.01, rtol=0, check_dtype=False
    )
    accuracies = []
    for penalty in PENALTIES:
        other = LogisticRegression(C=1 / (penalty * 300), max_iter=1000).fit(train.features.numpy(), train.labels.numpy())
        accuracies.append(other.score(val.features.numpy(), val.labels.numpy()))
    assert fitted.val_accuracy >= accuracies[0]
    assert fitted.val_accuracy == pytest.approx(head.score(val.features.numpy(), val.labels.numpy()), abs=0.011)


def test_k_nearest_is_scikit_learns_with_the_k_that_val_chose() -> None:
    fitted = k_nearest(TRAIN, VAL, 4, 0)

    def reference(k: int) -> KNeighborsClassifier:
        return KNeighborsClassifier(k, metric="cosine", algorithm="brute").fit(TRAIN.features.numpy(), TRAIN.labels.numpy())

    accuracies = [reference(k).score(VAL.features.numpy(), VAL.labels.numpy()) for k in NEIGHBOURS]
    assert fitted.chosen["k"] == NEIGHBOURS[int(np.argmax(accuracies))]
    assert fitted.val_accuracy == pytest.approx(max(accuracies))
    answers = fitted.score(TEST.features).argmax(dim=1).numpy()
    np.testing.assert_array_equal(answers, reference(int(fitted.chosen["k"])).predict(TEST.features.numpy()))


def test_no_more_neighbours_are_asked_than_there_are() -> None:
    few = Samples(TRAIN.features[:4], torch.arange(4))
    assert k_nearest(few, VAL, 4, 0).chosen["k"] in (1, 3)


def test_prototypes_are_the_nearest_centroids_of_normalised_features() -> None:
    fitted = prototypes(TRAIN, VAL, 4, 0)
    reference = NearestCentroid().fit(normalize(TRAIN.features.numpy()), TRAIN.labels.numpy())
    reference.centroids_ = normalize(reference.centroids_)  # with centres of length one, the nearest is that of largest cosine
    answers = fitted.score(TEST.features).argmax(dim=1).numpy()
    np.testing.assert_array_equal(answers, reference.predict(normalize(TEST.features.numpy())))
    assert fitted.chosen == {}


def test_linear_is_as_good_as_logistic_regression_on_the_same_features() -> None:
    first, second = linear(TRAIN, VAL, 4, 0), logistic(TRAIN, VAL, 4, 0)
    right = [(fitted.score(TEST.features).argmax(dim=1) == TEST.labels).double().mean().item() for fitted in (first, second)]
    assert first.chosen["heads"] == 100
    assert first.val_accuracy >= second.val_accuracy - 0.01 and abs(right[0] - right[1]) <= 0.03


@pytest.mark.parametrize("name", HEADS)
def test_val_accuracy_is_that_of_the_head_that_is_returned(name: str) -> None:
    fitted = HEADS[name](TRAIN, VAL, 4, 0)
    scores = fitted.score(VAL.features)
    assert scores.shape == (100, 4) and scores.dtype == torch.float32
    assert fitted.val_accuracy == pytest.approx((scores.argmax(dim=1) == VAL.labels).double().mean().item())
    assert all(isinstance(value, int | float) for value in fitted.chosen.values())
