from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from pydantic import ValidationError

from thawlab.data.preprocessing import Preprocessing, to_tensor

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def preprocessing(size: int = 8, **changes: Any) -> Preprocessing:
    return Preprocessing(size=size, **{"mean": MEAN, "std": STD, **changes})


def stripes(width: int, height: int) -> Image.Image:
    """Make an image whose red value is the column and whose green value is the row."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[..., 0] = np.arange(width)
    pixels[..., 1] = np.arange(height)[:, None]
    return Image.fromarray(pixels)


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 40),
    st.sampled_from(["upsample", "pad", "crop"]),
    st.sampled_from(["nearest", "bilinear", "bicubic", "lanczos"]),
)
def test_every_image_becomes_a_square_of_the_size(width: int, height: int, size: int, resize: str, kind: str) -> None:
    result = preprocessing(size, resize=resize, interpolation=kind, crop_pct=0.9).fit(stripes(width, height))
    assert result.shape == (size, size, 3) and result.dtype == np.uint8


@pytest.mark.parametrize("resize", ["upsample", "pad"])
def test_a_image_of_the_right_size_is_not_touched(resize: str, noise: Callable[..., np.ndarray]) -> None:
    pixels = noise(8, 8, 3)
    assert np.array_equal(preprocessing(8, resize=resize).fit(Image.fromarray(pixels)), pixels)


def test_upsample_scales_the_short_side_and_takes_the_middle_of_the_long_one() -> None:
    wide = preprocessing(8, interpolation="nearest").fit(stripes(20, 8))
    assert wide[0, :, 0].tolist() == list(range(6, 14)) and wide[:, 0, 1].tolist() == list(range(8))
    tall = preprocessing(8, interpolation="nearest").fit(stripes(4, 12))
    assert tall[0, :, 0].tolist() == [0, 0, 1, 1, 2, 2, 3, 3] and tall[:, 0, 1].tolist() == [4, 4, 5, 5, 6, 6, 7, 7]


def test_crop_takes_the_central_part_that_the_weights_were_judged_on() -> None:
    result = preprocessing(8, resize="crop", crop_pct=0.5, interpolation="nearest").fit(stripes(16, 16))
    assert result[0, :, 0].tolist() == list(range(4, 12)) and result[:, 0, 1].tolist() == list(range(4, 12))


def test_pad_never_enlarges_and_fills_with_the_mean_colour() -> None:
    result = preprocessing(8, resize="pad").fit(stripes(4, 2))
    assert np.array_equal(result[3:5, 2:6], np.asarray(stripes(4, 2)))
    frame = np.ones((8, 8), bool)
    frame[3:5, 2:6] = False
    assert (result[frame] == [124, 116, 104]).all()


def test_pad_scales_the_long_side_down() -> None:
    result = preprocessing(8, resize="pad", mean=(1.0, 1.0, 1.0)).fit(Image.new("RGB", (32, 16)))
    assert (result[2:6] == 0).all() and (result[:2] == 255).all() and (result[6:] == 255).all()


def test_scaling_down_is_anti_aliased() -> None:
    board = np.indices((64, 64)).sum(axis=0) % 2 * 255
    result = preprocessing(8).fit(Image.fromarray(np.repeat(board[..., None], 3, axis=-1).astype(np.uint8)))
    assert np.abs(result.astype(int) - 127).max() <= 2


def test_normalising_is_pixel_over_255_minus_mean_over_std(noise: Callable[..., np.ndarray]) -> None:
    pixels = noise(2, 8, 8, 3)
    expected = (pixels.astype(np.float64) / 255 - MEAN) / STD
    result = preprocessing().normalize(to_tensor(pixels))
    assert result.dtype == torch.float32 and result.is_contiguous(memory_format=torch.channels_last)
    assert np.abs(result.permute(0, 2, 3, 1).numpy() - expected).max() < 1e-5
    assert torch.equal(preprocessing().normalize(to_tensor(pixels).float()), result)


def test_unit_and_symmetric_ranges_are_exact_at_their_ends() -> None:
    ends = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 1, 1)
    unit = preprocessing(mean=(0.0,) * 3, std=(1.0,) * 3).normalize(ends)
    symmetric = preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3).normalize(ends)
    assert unit[:, 0].flatten().tolist() == pytest.approx([0, 1], abs=1e-6)
    assert symmetric[:, 0].flatten().tolist() == pytest.approx([-1, 1], abs=1e-6)


def test_to_tensor_copies_nothing(noise: Callable[..., np.ndarray]) -> None:
    pixels = noise(2, 5, 4, 3)
    tensor = to_tensor(pixels)
    assert tensor.shape == (2, 3, 5, 4)
    pixels[1, 2, 3, 0] ^= 255
    assert tensor[1, 0, 2, 3].item() == pixels[1, 2, 3, 0]


def test_the_geometry_names_what_happens_before_normalisation_and_nothing_else() -> None:
    changes: list[dict[str, Any]] = [{}, {"size": 9}, {"resize": "pad"}, {"resize": "crop"}, {"interpolation": "bicubic"}]
    changes += [{"resize": "crop", "crop_pct": 0.9}, {"resize": "pad", "mean": (0.5, 0.5, 0.5)}]
    keys = [preprocessing(**{"size": 8, **change}).geometry for change in changes]
    assert len(set(keys)) == len(keys)
    assert preprocessing(mean=(0.5,) * 3, std=(0.5,) * 3).geometry == preprocessing().geometry


@pytest.mark.parametrize("resize", ["upsample", "pad", "crop"])
@pytest.mark.parametrize(("width", "height"), [(4000, 3000), (3000, 4000), (4000, 3), (3, 4000)])
def test_a_draft_keeps_twice_the_pixels_that_are_needed(width: int, height: int, resize: str) -> None:
    look = preprocessing(64, resize=resize, crop_pct=0.875)
    draft = look.draft_size(width, height)
    used = {"upsample": 1.0, "crop": 0.875, "pad": 1.0}[resize]
    side = used * (max(width, height) if resize == "pad" else min(width, height))
    if side <= 128:
        assert draft is None
    else:
        assert draft is not None and min(draft) >= 1
        kept = used * (max(draft) if resize == "pad" else min(draft))
        assert 126 <= kept <= 128


def test_a_small_image_is_decoded_whole() -> None:
    assert preprocessing(64).draft_size(100, 120) is None


@pytest.mark.parametrize("change", [{"size": 0}, {"resize": "stretch"}, {"crop_pct": 0}, {"mean": (0.5, 0.5)}, {"colour": 1}])
def test_a_wrong_preprocessing_cannot_be_made(change: dict[str, Any]) -> None:
    with pytest.raises(ValidationError):
        preprocessing(**{"size": 8, **change})


def test_it_survives_json() -> None:
    look = preprocessing(224, resize="crop", crop_pct=0.95, interpolation="bicubic")
    assert Preprocessing.model_validate_json(look.model_dump_json()) == look
