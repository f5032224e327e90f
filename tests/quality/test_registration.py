"""Registration against maps, colours and covers that are known."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from thawlab.data.sources import open_source
from thawlab.quality.differences import differences
from thawlab.quality.duplicates import surety
from thawlab.quality.registration import STARTS, _common, alike, has_structure, laid, refined, rough_fit, roughly_refined, spectra

COUNT = 64


@pytest.fixture
def images(cifar10: Path) -> torch.Tensor:
    listing = open_source("cifar10", str(cifar10))
    pixels = np.stack([np.asarray(Image.open(io.BytesIO(listing.images.read(k)))) for k in range(2 * COUNT)])
    return torch.from_numpy(pixels).permute(0, 3, 1, 2).float()


def under(images: torch.Tensor, affine: list[list[float]]) -> torch.Tensor:
    grid = F.affine_grid(torch.tensor([affine]).expand(len(images), 2, 3), list(images.shape), align_corners=False)
    return F.grid_sample(images, grid, padding_mode="reflection", align_corners=False)


def register(one: torch.Tensor, two: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    _, starts = rough_fit(spectra(one, len(STARTS)), spectra(two), 2)
    return refined(one, two, *roughly_refined(one, two, starts))


MAPS = {
    "as it is": [[1.0, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "wider": [[1 / 1.12, 0.0, 0.0], [0.0, 1.0, 0.0]],
    "smaller and aside": [[1.1, 0.0, 0.1], [0.0, 1.08, -0.06]],
    "turned": [[0.9962, -0.0872, 0.0], [0.0872, 0.9962, 0.0]],
}


@pytest.mark.parametrize("name", list(MAPS))
def test_the_map_is_found(images: torch.Tensor, name: str) -> None:
    one = images[:COUNT]
    maps, middle = register(one, under(one, MAPS[name]))
    wrong = (maps - torch.tensor(MAPS[name])).abs().amax(dim=(1, 2))
    assert (wrong < 0.03).float().mean() >= 0.95  # half a pixel of 32 at the edge
    assert middle.median() > 0.6


@pytest.mark.parametrize(
    "recoloured",
    [
        lambda images: 255 * (images / 255) ** 1.6,
        lambda images: images * torch.tensor([1.0, 0.8, 0.6]).view(1, 3, 1, 1) + 20,
        lambda images: 0.5 * images + 0.5 * images.mean(dim=1, keepdim=True),
    ],
    ids=["gamma", "cast", "paler"],
)
def test_colours_do_not_matter(images: torch.Tensor, recoloured) -> None:
    one = images[:COUNT]
    maps, _ = register(one, recoloured(one))
    found = laid(one, recoloured(one), maps)
    assert (found.local > 0.45).float().mean() >= 0.95
    assert (surety(found) > 0.9).float().mean() >= 0.95


def test_what_covers_a_part_is_left_out_and_said(images: torch.Tensor) -> None:
    one, two = images[:COUNT], images[:COUNT].clone()
    two[:, :, :, :10] = images[COUNT:, :, :, :10]
    maps, _ = register(one, two)
    found = laid(one, two, maps)
    assert (found.local > 0.45).float().mean() >= 0.9
    assert 0.5 < found.agreeing.median() < 0.85
    assert (surety(found) > 0.5).float().mean() >= 0.9
    words = differences(one, two, found, mirrored=False)
    assert sum("partly covered" in text for text in words) >= 0.5 * COUNT


def test_other_images_do_not_fit(images: torch.Tensor) -> None:
    one, two = images[:COUNT], images[COUNT:]
    maps, _ = register(one, two)
    assert (surety(laid(one, two, maps)) < 0.5).all()


def test_what_is_alike_after_rough_steps_is_told_from_what_is_not(images: torch.Tensor) -> None:
    one, two = images[:COUNT], images[COUNT:]
    same = 255 * (under(one, MAPS["turned"]) / 255) ** 1.6
    for other, share in ((same, (0.95, 1.0)), (two, (0.0, 0.3))):
        _, starts = rough_fit(spectra(one, len(STARTS)), spectra(other), 2)
        found = (alike(one, other, roughly_refined(one, other, starts)[1]) > 0.26).float().mean()
        assert share[0] <= found <= share[1]


def test_the_rough_fit_is_the_correlation_by_shift(images: torch.Tensor) -> None:
    one, two = spectra(images[:COUNT], 1), spectra(images[COUNT:])
    slow = torch.fft.irfft2(one.conj() * two, s=(16, 16)).roll((3, 3), dims=(2, 3))[:, 0, :7, :7] / _common()
    fits, maps = rough_fit(one, two, 1)
    at = slow.flatten(1).argmax(dim=1)
    shifts = torch.stack([at % 7 - 3, at // 7 - 3], dim=1) * (-2 / 16) @ STARTS[0, :, :2]
    torch.testing.assert_close(maps[:, 0, :, 2], shifts)
    assert ((fits[:, 0] >= slow.flatten(1).amax(dim=1) - 1e-6) & (fits[:, 0] <= 1.6 * slow.flatten(1).amax(dim=1))).all()


def test_the_rough_fit_names_the_shift(images: torch.Tensor) -> None:
    one = images[:COUNT]
    two = torch.roll(one, (2, -4), dims=(2, 3))  # one pixel down and two to the left of the small ones
    fits, maps = rough_fit(spectra(one, len(STARTS)), spectra(two), 1)
    expected = torch.tensor([[1.0, 0.0, 4 / 16], [0.0, 1.0, -2 / 16]])
    assert ((maps[:, 0] - expected).abs().amax(dim=(1, 2)) < 1e-6).float().mean() >= 0.9
    assert (fits > 0.6).float().mean() >= 0.9


def test_images_of_one_colour_give_numbers() -> None:
    plain = torch.full((2, 3, 32, 32), 120.0)
    maps, _ = register(plain, plain + 5)
    assert not torch.isnan(surety(laid(plain, plain + 5, maps))).any()
    assert not has_structure(plain).any()


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda images: 255 * (images / 255) ** 1.6, "darker"),
        (lambda images: 0.5 * images + 0.5 * images.mean(dim=1, keepdim=True), "paler"),
        (lambda images: F.avg_pool2d(images, 3, 1, 1, count_include_pad=False), "blurred"),
        (lambda images: under(images, MAPS["smaller and aside"]), "shifted"),
        (lambda images: under(images, MAPS["wider"]), "wider"),
        (lambda images: under(images, MAPS["turned"]), "turned"),
    ],
    ids=["darker", "paler", "blurred", "shifted", "wider", "turned"],
)
def test_the_difference_is_said(images: torch.Tensor, change, word: str) -> None:
    one = images[:COUNT]
    two = change(one)
    maps, _ = register(one, two)
    said = differences(one, two, laid(one, two, maps), mirrored=False)
    assert sum(word in text for text in said) >= 0.75 * COUNT
