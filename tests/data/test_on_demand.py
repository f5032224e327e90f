"""Images that are decoded as they are taken are those that would have been kept, and nothing is kept of them."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pytest
from PIL import Image

from thawlab import progress
from thawlab.data.dataset import load_dataset
from thawlab.data.on_demand import OnDemand
from thawlab.errors import ThawlabError
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import make_preprocessing
from thawlab.plan.resolve import resolve
from thawlab.recipe import Recipe
from thawlab.results import read_rows
from thawlab.runner import train

Make = Callable[..., Recipe]


def of(one: Recipe) -> Any:
    closed = resolve(one).recipe
    assert closed.data.image_size is not None
    return load_dataset(closed, make_preprocessing(closed.data, resolve_backbone(closed.model.backbone), closed.data.image_size))


def test_it_is_taken_from_like_an_array() -> None:
    array = np.random.default_rng(0).integers(0, 256, (9, 4, 4, 3), dtype=np.uint8)
    images: Any = OnDemand(lambda index: array[index], len(array), 4, workers=2)
    assert (len(images), images.shape, images.ndim, images.dtype) == (9, array.shape, 4, array.dtype)
    for chosen in (np.array([3, 1, 1, 8]), np.array([], dtype=np.int64)):
        assert np.array_equal(np.take(images, chosen, axis=0), np.take(array, chosen, axis=0))
        assert np.array_equal(images[chosen], array[chosen])
    assert np.array_equal(images[2:7], array[2:7])
    assert np.array_equal(images[-1], array[-1])
    assert images[:1].nbytes == array[:1].nbytes
    with pytest.raises(IndexError):
        images[9]


def test_a_run_is_the_same_to_the_bit_and_has_the_same_name(recipe: Make, photos: Path, tmp_path: Path) -> None:
    (photos / "red" / "broken.png").write_bytes(b"no image at all")
    rest = (f"data.source={photos}", "data.image_size=24", "data.test=0.3", 'phases.0.augment=["flip"]')
    kept = train(recipe(*rest, f"system.cache_dir={tmp_path / 'kept'}"), tmp_path / "runs-kept")
    none = train(recipe(*rest, "data.cache=none", f"system.cache_dir={tmp_path / 'none'}"), tmp_path / "runs-none")
    assert kept.name == none.name
    assert (kept.model / "model.safetensors").read_bytes() == (none.model / "model.safetensors").read_bytes()
    losses = [[(row.train_loss, row.val_loss) for row in read_rows(run.metrics)] for run in (kept, none)]
    assert losses[0] == losses[1]
    rows = [file for file in (tmp_path / "none" / "decoded").rglob("rows.bin") if file.parent.name != "checked"]
    assert rows == []
    marks = [file.stat().st_size for file in (tmp_path / "none" / "decoded").rglob("checked/rows.bin")]
    assert marks and max(marks) < 600  # a byte per image: of these, and of those that are judged as foreign


def test_bad_images_are_found_before_training(recipe: Make, photos: Path, tmp_path: Path) -> None:
    broken = photos / "red" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    one = (f"data.source={photos}", "data.image_size=24")
    datasets = [of(recipe(*one, f"data.cache={cache}", f"system.cache_dir={tmp_path / cache}")) for cache in ("none", "decoded")]
    assert [name for name, _ in datasets[0].quarantined] == ["red/03.png"]
    assert datasets[0].quarantined == datasets[1].quarantined
    again = of(recipe(*one, "data.cache=none", f"system.cache_dir={tmp_path / 'none'}"))
    assert again.quarantined == datasets[0].quarantined


@pytest.mark.parametrize("cache", ["none", "decoded"])
@pytest.mark.parametrize("damage", [b'{"1": ', b"\xff\x00", b"[]", b'{"x": "y"}', b""])
def test_a_damaged_record_of_bad_images_is_made_anew(
    damage: bytes, cache: str, recipe: Make, photos: Path, tmp_path: Path
) -> None:
    broken = photos / "red" / "03.png"
    broken.write_bytes(broken.read_bytes()[:60])
    one = recipe(f"data.source={photos}", "data.image_size=24", f"data.cache={cache}", f"system.cache_dir={tmp_path / 'cache'}")
    before = of(one).quarantined
    [record] = (tmp_path / "cache").rglob("bad.json")
    kept = record.read_bytes()
    record.write_bytes(damage)
    assert of(one).quarantined == before
    assert record.read_bytes() == kept


def test_a_file_that_is_changed_meanwhile_stops_the_run(recipe: Make, photos: Path) -> None:
    dataset = of(recipe(f"data.source={photos}", "data.image_size=24", "data.cache=none"))
    Image.new("RGB", (30, 30)).save(photos / "blue" / "00.png")
    with pytest.raises(ThawlabError, match=r"blue/00\.png: was changed while the data were read; run the command again"):
        np.take(dataset.images, [dataset.ids.index("blue/00.png")], axis=0)


class _Usage(NamedTuple):
    total: int
    used: int
    free: int


def test_auto_keeps_what_fits_and_says_what_does_not(
    recipe: Make, photos: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    said: list[str] = []
    monkeypatch.setattr(progress, "say", said.append)
    one = recipe(f"data.source={photos}", "data.image_size=24", f"system.cache_dir={tmp_path / 'cache'}")
    needed = 24 * 24 * 24 * 3
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10 * needed, 0, 2 * needed - 2))
    assert isinstance(of(one).images, OnDemand)
    assert any("none is kept, each is decoded when it is needed" in line for line in said)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10 * needed, 0, 2 * needed))
    assert not isinstance(of(one).images, OnDemand)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: _Usage(10 * needed, 0, 0))
    assert not isinstance(of(one).images, OnDemand)  # what is there already needs no room
