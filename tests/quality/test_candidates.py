from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from thawlab.quality import candidates
from thawlab.quality.candidates import MIDDLE, WHOLE, Table, View, descriptions, nearest_features


def drawn(count: int, seed: int = 0) -> np.ndarray:
    """Smooth images of random colours."""
    small = np.random.default_rng(seed).integers(0, 256, (count, 3, 6, 6)).astype(np.float32)
    images = F.interpolate(torch.from_numpy(small), (32, 32), mode="bilinear")
    return images.round().byte().permute(0, 2, 3, 1).numpy()


def test_the_graph_finds_what_comparing_all_finds(monkeypatch: pytest.MonkeyPatch) -> None:
    vectors = F.normalize(torch.randn(3000, 32, generator=torch.Generator().manual_seed(0)), dim=1)
    exact = Table(vectors, 32).nearest(vectors, 4)
    monkeypatch.setattr(candidates, "_EXACT", 100)
    monkeypatch.setattr(candidates, "_FEW", 100)
    by_graph = Table(vectors, 32)
    found = by_graph.nearest(vectors, 4)
    assert (found.rows[:, 0] == np.arange(3000)).mean() > 0.999
    shared = [len(set(a) & set(b)) / 4 for a, b in zip(exact.rows.tolist(), found.rows.tolist(), strict=True)]
    assert np.mean(shared) > 0.9
    assert np.allclose(found.similarity[:, 0], 1, atol=2e-3)
    assert (Table(vectors, 32).nearest(vectors, 4).rows == found.rows).all()  # the same graph again


def test_a_mirrored_description_is_that_of_the_mirrored_image() -> None:
    images = drawn(20)
    for view, other in ((WHOLE, WHOLE), (MIDDLE, MIDDLE), (View(0.5, 0.1, 0.05), View(0.5, -0.1, 0.05))):
        [own], [mirrored] = descriptions(images, [view]), descriptions(candidates.mirrored(images), [other])
        assert F.cosine_similarity(own.flip(3).flatten(1), mirrored.flatten(1)).min() > 0.9999


def test_a_middle_is_found_at_its_place_in_a_shifted_image() -> None:
    images = drawn(200)
    shifted = np.roll(images, (3, 3), axis=(1, 2))
    pairs = {
        tuple(pair) for flip, part in candidates.candidates(images, shifted, both_ways=True) if not flip for pair in part.tolist()
    }
    assert sum((k, k) in pairs for k in range(200)) >= 190


def test_features_neighbours_are_those_of_scikit_learn(monkeypatch: pytest.MonkeyPatch) -> None:
    from sklearn.neighbors import NearestNeighbors

    features = np.random.default_rng(0).normal(size=(500, 160)).astype(np.float32)
    distance, rows = NearestNeighbors(n_neighbors=7, metric="cosine", algorithm="brute").fit(features).kneighbors(features)
    found = nearest_features(features)
    assert (found.rows[:, 1] == rows[:, 1]).mean() > 0.99
    assert np.allclose(found.similarity, 1 - distance, atol=1e-5)
    monkeypatch.setattr(candidates, "_EXACT", 100)
    monkeypatch.setattr(candidates, "_FEW", 100)
    shortened = nearest_features(features)
    assert (shortened.rows[:, 0] == np.arange(500)).all()
    assert (np.diff(shortened.similarity, axis=1) <= 1e-6).all()  # the most similar first, by all components
