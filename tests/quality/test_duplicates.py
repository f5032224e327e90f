from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from thawlab.data.images import content_digest
from thawlab.data.sources import open_source
from thawlab.quality.duplicates import best_correlation, near_duplicates, nearest, same_content

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


def _in(features: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    unit = torch.nn.functional.normalize(torch.from_numpy(features), dim=1)
    return nearest(unit, unit)


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
    # A shift is the hardest for the coarse description alone; a network's features find the rest.
    assert len(wanted & found.keys()) >= (0.4 if "shifted" in change else 0.95) * COUNT
    assert all(found[pair].mirrored == (change == "mirrored") for pair in wanted & found.keys())
    others = [pair for pair in found if pair not in wanted]
    assert len(others) <= 0.01 * len(photographs)


def test_features_find_the_shifted_ones_too(photographs: np.ndarray) -> None:
    copies = np.stack([_shifted(2, 2)(image) for image in photographs[:COUNT]])
    everything = np.concatenate([photographs, copies])
    # Features of a network that does not mind the shift: the same for an image and its copy.
    rng = np.random.default_rng(0)
    features = rng.normal(size=(len(photographs), 64)).astype(np.float32)
    features = np.concatenate([features, features[:COUNT]])
    found = {(pair.first, pair.second) for pair in near_duplicates(everything, _in(features))}
    assert sum((k, len(photographs) + k) in found for k in range(COUNT)) >= 0.95 * COUNT


def test_features_alone_make_no_pair_of_different_images(photographs: np.ndarray) -> None:
    same = np.ones((200, 8), dtype=np.float32)
    assert len(near_duplicates(photographs[:200], _in(same))) <= 2


def test_even_images_are_not_each_others_copies() -> None:
    plain = np.stack([np.full((32, 32, 3), shade, dtype=np.uint8) for shade in range(0, 250, 10)])
    assert near_duplicates(plain) == []


def test_one_image_or_none_has_no_copies() -> None:
    assert near_duplicates(np.zeros((0, 32, 32, 3), np.uint8)) == []
    assert near_duplicates(np.zeros((1, 32, 32, 3), np.uint8)) == []


def test_the_correlation_at_the_best_shift_is_numpys() -> None:
    rng = np.random.default_rng(0)
    one, two = rng.random((2, 4, 3, 32, 32), dtype=np.float32) * 255
    pixels, _ = best_correlation(torch.from_numpy(one), torch.from_numpy(np.roll(one, (2, -1), axis=(2, 3))))
    assert torch.allclose(pixels, torch.ones(4), atol=1e-4)
    pixels, _ = best_correlation(torch.from_numpy(one), torch.from_numpy(two))
    for k in range(4):
        middle = one[k][:, 3:29, 3:29]
        fits = []
        for down in range(7):
            for right in range(7):
                window = two[k][:, down : down + 26, right : right + 26]
                a, b = (v - v.mean(axis=(1, 2), keepdims=True) for v in (middle, window))
                fits.append(float((a * b).sum() / np.sqrt((a**2).sum() * (b**2).sum())))
        assert any(abs(float(pixels[k]) - fit) < 1e-4 for fit in fits)


def test_equal_contents_are_grouped() -> None:
    contents = [b"a", b"b", b"a", b"c", b"b", b"a"]
    assert same_content([content_digest(content) for content in contents]) == [[0, 2, 5], [1, 4]]
    array = np.zeros((2, 2, 3), np.uint8)
    assert content_digest(array) == content_digest(array.copy()) != content_digest(array + 1)
