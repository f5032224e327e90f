"""Corruptions keep shape and type, are pure, grow with their strength, and do what other libraries do under the same name."""

from __future__ import annotations

import colorsys
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torchvision.transforms.v2.functional as TF
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thawlab.errors import UsageError
from thawlab.evaluation.corruptions import STRENGTHS, between, corrupted, corruptions
from thawlab.evaluation.properties import luminance

NAMES = [name for name, _ in corruptions.items()]
PHOTOS = Path(__file__).resolve().parents[3] / "shared" / "data" / "imagenet-photos"
Pixels = np.ndarray


@pytest.fixture(scope="module")
def photos() -> list[tuple[str, Pixels]]:
    """Sixteen real photographs at their own size."""
    files = sorted(PHOTOS.glob("*.jpg"))[:16]
    if not files:
        pytest.skip(f"{PHOTOS} is not on this machine")
    return [(file.name, np.asarray(Image.open(file).convert("RGB"))) for file in files]


def drawn(height: int, width: int, seed: int = 0) -> Pixels:
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)


def smooth(height: int = 96, width: int = 128) -> Pixels:
    """A picture with edges and slopes."""
    down, along = np.mgrid[0:height, 0:width]
    waves = [127 + 90 * np.sin(along / 9 + k) * np.cos(down / 13 - k) for k in range(3)]
    pixels = np.stack(waves, axis=2)
    pixels[height // 3 : height // 2, width // 4 : width // 2] = (220, 40, 60)
    return pixels.astype(np.uint8)


def tensor(pixels: Pixels) -> torch.Tensor:
    return torch.from_numpy(pixels.copy()).permute(2, 0, 1)


def pixels_of(image: torch.Tensor) -> Pixels:
    return image.permute(1, 2, 0).numpy()


def off_by(one: Pixels, other: Pixels) -> float:
    return float(np.abs(one.astype(float) - other).mean())


def test_there_are_twelve_and_each_says_what_it_is() -> None:
    assert len(NAMES) == 12
    assert all((corruptions.get(name).__doc__ or "").strip() for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@given(height=st.integers(1, 48), width=st.integers(1, 48), strength=st.integers(0, 5), seed=st.integers(0, 9), word=st.text())
@settings(max_examples=25, deadline=None)
def test_shape_and_type_stay_and_equal_arguments_give_equal_pixels(
    name: str, height: int, width: int, strength: int, seed: int, word: str
) -> None:
    pixels = drawn(height, width, seed)
    before = pixels.copy()
    result = corrupted(pixels, name, strength, word)
    assert (result.shape, result.dtype) == (pixels.shape, np.uint8)
    assert np.array_equal(pixels, before), "the argument was changed"
    assert np.array_equal(corrupted(pixels, name, strength, word), result)
    if strength == 0:
        assert np.array_equal(result, pixels)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("size", [(1, 1), (1, 500), (375, 500), (500, 375), (2, 3)])
def test_all_strengths_of_all_sizes_can_be_made_and_change_a_picture_of_some_size(name: str, size: tuple[int, int]) -> None:
    pixels = drawn(*size)
    results = [corrupted(pixels, name, strength, "a") for strength in STRENGTHS]
    assert all((result.shape, result.dtype) == (pixels.shape, np.uint8) for result in results)
    if min(size) > 100:
        assert all(not np.array_equal(result, pixels) for result in results)


@pytest.mark.parametrize("side", [32, None])
@pytest.mark.parametrize("name", NAMES)
def test_the_distance_to_real_photographs_grows_with_the_strength(
    photos: list[tuple[str, Pixels]], name: str, side: int | None
) -> None:
    distances = []
    for word, photo in photos:
        pixels = photo if side is None else np.asarray(Image.fromarray(photo).resize((side, side)))
        parts = [corrupted(pixels, name, strength, word).astype(float) - pixels for strength in (0, *STRENGTHS)]
        distances.append([np.sqrt(np.square(part).mean()) for part in parts])
    means = np.mean(distances, axis=0)
    assert means[0] == 0 and (np.diff(means) > 0).all(), means.round(2)
    # And not only on average: hardly a photograph is nearer to itself when the corruption is stronger.
    falling = (np.diff(np.array(distances), axis=1) < 0).any(axis=1).mean()
    assert falling <= 0.25, falling


def test_another_process_makes_the_same_pixels_and_another_image_is_hit_elsewhere() -> None:
    code = (
        "import hashlib, numpy as np; from thawlab.evaluation.corruptions import corrupted, corruptions;"
        "pixels = np.random.default_rng(0).integers(0, 256, (40, 50, 3), dtype=np.uint8);"
        "print([hashlib.sha256(corrupted(pixels, name, 3, 'a').tobytes()).hexdigest() for name, _ in corruptions.items()])"
    )
    answers = {subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout for _ in range(2)}
    assert len(answers) == 1
    pixels = drawn(40, 50)
    for name in ("noise", "haze", "crop", "occlusion"):
        assert not np.array_equal(corrupted(pixels, name, 3, "a"), corrupted(pixels, name, 3, "b")), name


def test_names_and_strengths_that_do_not_exist_are_refused() -> None:
    with pytest.raises(UsageError, match=r"there is no corruption named 'blurr' \(did you mean 'blur'\?\)"):
        corrupted(drawn(4, 4), "blurr", 1, "a")
    with pytest.raises(ValueError, match="strength = 6: must be from 0 to 5"):
        corrupted(drawn(4, 4), "blur", 6, "a")


def test_constants_are_the_published_ones_at_their_sizes_and_lie_between_them_elsewhere() -> None:
    small, large = (0.4, 0.6, 0.7, 0.8, 1.0), (1, 2, 3, 4, 6)
    for strength in STRENGTHS:
        at = {side: between(drawn(side, side + 7), small, large, strength, length=True) for side in (16, 32, 85, 224, 448)}
        assert at[32] == pytest.approx(small[strength - 1]) and at[224] == pytest.approx(large[strength - 1])
        assert at[32] < at[85] < at[224]
        assert at[16] == pytest.approx(at[32] / 2) and at[448] == pytest.approx(2 * at[224])
        assert between(drawn(448, 448), small, large, strength) == pytest.approx(large[strength - 1])


@pytest.mark.parametrize("strength", STRENGTHS)
def test_blur_is_a_gaussian_blur(strength: int) -> None:
    pixels = drawn(224, 224)
    sigma = (1, 2, 3, 4, 6)[strength - 1]
    reference = TF.gaussian_blur(tensor(pixels), [8 * sigma + 1] * 2, [sigma] * 2)
    inner = (slice(30, -30), slice(30, -30))  # edges are continued in other ways
    assert off_by(corrupted(pixels, "blur", strength, "a")[inner], pixels_of(reference)[inner]) < 1.5
    other = TF.gaussian_blur(tensor(pixels), [8 * sigma + 1] * 2, [0.7 * sigma] * 2)
    assert off_by(pixels_of(other)[inner], pixels_of(reference)[inner]) > 1.5, "the bound would let another blur pass"


@pytest.mark.parametrize("strength", STRENGTHS)
def test_jpeg_loses_what_another_encoder_loses_at_the_same_quality(strength: int) -> None:
    pixels = smooth(224, 224)
    quality = (25, 18, 15, 10, 7)[strength - 1]
    reference = TF.jpeg(tensor(pixels), quality)
    assert off_by(corrupted(pixels, "jpeg", strength, "a"), pixels_of(reference)) < 0.5
    other = TF.jpeg(tensor(pixels), quality + 15)
    assert off_by(corrupted(pixels, "jpeg", strength, "a"), pixels_of(other)) > 0.5


def test_noise_has_the_deviation_that_is_said() -> None:
    pixels = np.full((300, 300, 3), 128, dtype=np.uint8)
    for strength, sigma in zip(STRENGTHS[:3], (0.08, 0.12, 0.18), strict=True):  # more is clipped
        result = corrupted(pixels, "noise", strength, "a").astype(float)
        assert result.std() == pytest.approx(255 * sigma, rel=0.02) and result.mean() == pytest.approx(128, abs=1)


@pytest.mark.parametrize(("name", "factors"), [("contrast", (0.75, 0.5, 0.4, 0.3, 0.15)), ("grey", (0.7, 0.45, 0.25, 0.1, 0.0))])
@pytest.mark.parametrize("strength", STRENGTHS)
def test_contrast_and_grey_are_those_of_torchvision(name: str, factors: tuple[float, ...], strength: int) -> None:
    adjust: Callable[..., torch.Tensor] = {"contrast": TF.adjust_contrast, "grey": TF.adjust_saturation}[name]
    reference = pixels_of(adjust(tensor(smooth()), factors[strength - 1]))
    assert np.abs(corrupted(smooth(), name, strength, "a").astype(int) - reference).max() <= 2


def test_brightness_adds_value_and_keeps_hue_and_saturation_or_darkens() -> None:
    pixels = smooth(24, 24)
    words = [f"image {k}" for k in range(200)]
    results = {word: corrupted(pixels, "brightness", 2, word) for word in words}
    brighter = [word for word in words if results[word].mean() > pixels.mean()]
    assert 70 < len(brighter) < 130
    for before, after in zip(pixels.reshape(-1, 3), results[brighter[0]].reshape(-1, 3), strict=True):
        hue, saturation, value = colorsys.rgb_to_hsv(*(before / 255))
        expected = 255 * np.array(colorsys.hsv_to_rgb(hue, saturation, min(value + 0.2, 1)))
        assert np.abs(after - expected).max() <= 1
    darker = next(word for word in words if word not in brighter)
    assert np.array_equal(results[darker], np.rint(pixels * 0.8))


def test_rotation_is_that_of_torchvision_inside_and_mirrors_at_the_edges() -> None:
    pixels = smooth()
    for strength, angle in zip(STRENGTHS, (4, 8, 14, 20, 28), strict=True):
        result = corrupted(pixels, "rotation", strength, "a")
        both = [
            pixels_of(TF.rotate(tensor(pixels).float(), sign * angle, TF.InterpolationMode.BILINEAR))[32:-32, 40:-40]
            for sign in (1, -1)
        ]
        assert min(off_by(result[32:-32, 40:-40], reference) for reference in both) < 1.5
    assert (corrupted(np.full((20, 30, 3), 200, np.uint8), "rotation", 5, "a") == 200).all(), "no corner is filled with black"


@pytest.mark.parametrize("strength", STRENGTHS)
def test_a_crop_is_a_part_of_the_picture_and_an_occlusion_hides_the_said_share(strength: int) -> None:
    down, along = np.mgrid[0:200, 0:300]
    places = np.stack([down, along * 0.8, 0 * down], axis=2).astype(np.uint8)
    seen = corrupted(places, "crop", strength, "a").astype(float)
    area = np.ptp(seen[..., 0]) / 199 * np.ptp(seen[..., 1]) / 239
    assert area == pytest.approx((0.9, 0.75, 0.6, 0.45, 0.3)[strength - 1], abs=0.02)
    white = np.full((200, 300, 3), 255, dtype=np.uint8)
    hidden = (corrupted(white, "occlusion", strength, "a") == 127).all(axis=2)
    assert hidden.mean() == pytest.approx((0.05, 0.1, 0.18, 0.28, 0.4)[strength - 1], abs=0.01)


def test_haze_lets_the_said_share_of_the_light_pass_and_adds_airlight() -> None:
    for strength, passing in zip(STRENGTHS, (0.83, 0.67, 0.57, 0.5, 0.4), strict=True):
        shares = []
        for word in range(20):
            black, white = (corrupted(np.full((60, 60, 3), v, np.uint8), "haze", strength, str(word)) for v in (0, 240))
            shares.append(1 - black.mean() / 240)
            assert np.abs(white.astype(int) - 240).max() <= 1, "what is as bright as the haze does not change"
        assert np.mean(shares) == pytest.approx(passing, abs=0.04)


def test_downscaling_keeps_the_mean_and_loses_detail() -> None:
    pixels = drawn(224, 224)
    deviations = [corrupted(pixels, "downscaling", strength, "a").astype(float).std() for strength in (0, *STRENGTHS)]
    assert (np.diff(deviations) < 0).all()
    assert corrupted(pixels, "downscaling", 5, "a").mean() == pytest.approx(pixels.mean(), abs=1)


def test_a_colour_cast_warms_or_cools() -> None:
    grey = np.full((4, 4, 3), 100, dtype=np.uint8)
    casts = {tuple(corrupted(grey, "colour-cast", 5, str(k))[0, 0].tolist()) for k in range(30)}
    assert casts == {(150, 100, 50), (50, 100, 150)}
    assert luminance(grey).mean() == pytest.approx(100, abs=0.01)
