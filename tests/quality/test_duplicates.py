from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.data.images import content_digest
from thawlab.data.sources import open_source
from thawlab.quality.candidates import nearest_features
from thawlab.quality.duplicates import near_duplicates, pairs_between, same_content

COUNT = 60


def _jpeg(image: np.ndarray) -> np.ndarray:
    buffer = io.BytesIO()
    Image.fromarray(image).save(buffer, "JPEG", quality=50)
    return np.asarray(Image.open(buffer))


def _shifted(down: int, right: int) -> Callable[[np.ndarray], np.ndarray]:
    def change(image: np.ndarray) -> np.ndarray:
        wide = np.pad(image, ((4, 4), (4, 4), (0, 0)), mode="edge")
        return wide[4 + down : 36 + down, 4 + right : 36 + right]

    return change


def _brighter(factor: float) -> Callable[[np.ndarray], np.ndarray]:
    return lambda image: np.clip(image * factor, 0, 255).astype(np.uint8)


CHANGES: dict[str, Callable[[np.ndarray], np.ndarray]] = {
    "as it is": lambda image: image,
    "JPEG": _jpeg,
    "shifted down": _shifted(2, 0),
    "shifted aside": _shifted(0, -2),
    "brighter": _brighter(1.1),
    "darker": _brighter(0.9),
    "mirrored": lambda image: image[:, ::-1],
}


@pytest.fixture
def photographs(cifar10: Path) -> np.ndarray:
    """Real images of 32 × 32."""
    listing = open_source("cifar10", str(cifar10))
    return np.stack([np.asarray(Image.open(io.BytesIO(listing.images.read(k)))) for k in range(1200)])


@pytest.mark.parametrize("change", list(CHANGES))
def test_a_changed_copy_is_found_among_real_images(photographs: np.ndarray, change: str) -> None:
    copies = np.stack([CHANGES[change](image) for image in photographs[:COUNT]])
    pairs = near_duplicates(np.concatenate([photographs, copies]))
    found = {(pair.first, pair.second): pair for pair in pairs}
    wanted = {(k, len(photographs) + k) for k in range(COUNT)}
    assert len(wanted & found.keys()) >= 0.95 * COUNT
    assert all(found[pair].mirrored == (change == "mirrored") for pair in wanted & found.keys())
    others = [pair for pair in found if pair not in wanted]
    assert len(others) <= 0.01 * len(photographs)


def test_it_is_said_how_copies_differ(photographs: np.ndarray) -> None:
    for change, word in (("mirrored", "mirrored"), ("shifted down", "shifted 6 %"), ("as it is", "saved anew")):
        copies = np.stack([CHANGES[change](image) for image in photographs[:COUNT]])
        pairs = near_duplicates(np.concatenate([photographs[:COUNT], copies]))
        said = [word in pair.how for pair in pairs if pair.second == pair.first + COUNT]
        assert len(said) >= 0.95 * COUNT and np.mean(said) >= 0.9


def test_pairs_between_two_sets_are_those_of_one(photographs: np.ndarray) -> None:
    copies = np.stack([CHANGES["shifted aside"](image) for image in photographs[:COUNT]])
    between = {(pair.first, pair.second) for pair in pairs_between(photographs, copies)}
    assert len({(k, k) for k in range(COUNT)} & between) >= 0.95 * COUNT
    assert pairs_between(photographs[:0], copies) == [] == pairs_between(photographs, copies[:0])


def test_features_find_what_the_pixels_do_not(photographs: np.ndarray, monkeypatch: pytest.MonkeyPatch) -> None:
    copies = np.stack([_shifted(2, 2)(image) for image in photographs[:COUNT]])
    everything = np.concatenate([photographs, copies])
    features = np.random.default_rng(0).normal(size=(len(photographs), 64)).astype(np.float32)
    features = np.concatenate([features, features[:COUNT]])  # of a network that does not mind the shift
    monkeypatch.setattr("thawlab.quality.duplicates.candidates", lambda *_: iter(()))
    found = {(pair.first, pair.second) for pair in near_duplicates(everything, nearest_features(features))}
    assert sum((k, len(photographs) + k) in found for k in range(COUNT)) >= 0.95 * COUNT


def test_features_alone_make_no_pair_of_different_images(photographs: np.ndarray) -> None:
    same = np.ones((200, 8), dtype=np.float32)
    assert len(near_duplicates(photographs[:200], nearest_features(same))) <= 2


def test_even_images_are_not_each_others_copies() -> None:
    plain = np.stack([np.full((32, 32, 3), shade, dtype=np.uint8) for shade in range(0, 250, 10)])
    assert near_duplicates(plain) == []


def test_one_image_or_none_has_no_copies() -> None:
    assert near_duplicates(np.zeros((0, 32, 32, 3), np.uint8)) == []
    assert near_duplicates(np.zeros((1, 32, 32, 3), np.uint8)) == []


def test_equal_contents_are_grouped() -> None:
    contents = [b"a", b"b", b"a", b"c", b"b", b"a"]
    assert same_content([content_digest(content) for content in contents]) == [[0, 2, 5], [1, 4]]
    array = np.zeros((2, 2, 3), np.uint8)
    assert content_digest(array) == content_digest(array.copy()) != content_digest(array + 1)
