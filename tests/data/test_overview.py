from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from thawlab.data.overview import overview, write_sheet
from thawlab.data.sources import open_source
from thawlab.errors import ThawlabError

Tree = Callable[..., Path]


def test_classes_are_counted_per_split(tree: Tree) -> None:
    source = tree("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/1.png", "test/notes.png")
    table = overview(open_source(str(source)))
    assert table == {
        "name": "images",
        "n": 4,
        "layout": "split/class",
        "groups": None,
        "notes": [],
        "splits": ["train", "test"],
        "classes": [{"class": "cat", "train": 2, "test": 1}, {"class": "dog", "train": 1, "test": 0}],
        "left_out": [{"reason": "lies in no class folder", "count": 1, "first": "test/notes.png"}],
        "ignored": [{"id": "test/notes.png", "reason": "lies in no class folder"}],
    }


def test_the_sheet_has_a_row_per_class_and_shows_its_images(photos: Path, tmp_path: Path) -> None:
    write_sheet(open_source(str(photos)), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        sheet = np.asarray(image.convert("RGB")).astype(int)
    assert sheet.shape == (2 * 68 + 4, 150 + 8 * 68 + 4, 3)
    for column in range(8):
        left = 150 + column * 68
        blue, red = (sheet[top : top + 64, left : left + 64].mean(axis=(0, 1)) for top in (4, 72))
        assert np.abs(blue - (30, 30, 200)).max() < 15 and np.abs(red - (200, 30, 30)).max() < 15
    assert (sheet[:, :150] < 100).any()  # the names


def test_a_bad_image_leaves_a_grey_tile_and_fewer_images_leave_white(tree: Tree, tmp_path: Path) -> None:
    source = tree("cat/1.png", "cat/2.png", "dog/1.png")
    (source / "cat" / "2.png").write_bytes(b"")
    write_sheet(open_source(str(source)), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        colours = [image.getpixel((150 + column * 68 + 30, 34)) for column in range(3)]
    assert colours == [(0, 0, 0), (0xD5, 0xDB, 0xE2), (255, 255, 255)]


@pytest.mark.parametrize("name", ["sheet.xyz", "absent/sheet.png", "sheet"])
def test_a_sheet_that_cannot_be_written_is_said(name: str, photos: Path, tmp_path: Path) -> None:
    with pytest.raises(ThawlabError) as error:
        write_sheet(open_source(str(photos)), tmp_path / name)
    assert str(error.value).startswith(f"{tmp_path / name}: the sheet cannot be written") and "\n" not in str(error.value)


def test_a_sheet_of_very_many_classes_shows_a_hundred(tree: Tree, tmp_path: Path) -> None:
    source = tree(*(f"class{number:03d}/1.png" for number in range(105)))
    write_sheet(open_source(str(source)), tmp_path / "sheet.png")
    with Image.open(tmp_path / "sheet.png") as image:
        assert image.height == 100 * 68 + 4
