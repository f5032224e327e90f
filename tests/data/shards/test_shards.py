"""What is read from shards is what was written; what is not what was written is said."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from thawlab import api
from thawlab.cli.main import app
from thawlab.data.dataset import Dataset, load_dataset
from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.on_demand import OnDemand
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.shards import writer
from thawlab.data.shards.index import INDEX, ROWS
from thawlab.data.shards.source import open_shard_folder
from thawlab.data.shards.splitting import with_fixed_splits
from thawlab.data.shards.writer import write_shards
from thawlab.data.sources import open_source
from thawlab.errors import ThawlabError, UsageError
from thawlab.recipe import Recipe, parse_recipe

LOOK = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)
SMALL = 4096  # bytes of a shard: a few images


@pytest.fixture
def listing(photos: Path) -> Listing:
    """Photographs of several formats and modes, one of them damaged, in a source with splits of its own."""
    (photos / "red" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n, and no more")
    Image.effect_noise((40, 30), 50).save(photos / "red" / "grey.jpg")
    Image.new("CMYK", (20, 20), (9, 90, 9, 0)).save(photos / "blue" / "cmyk.tif")
    (photos / "blue" / "notes.txt").write_text("a note")
    return with_fixed_splits(open_source(str(photos)), 0.2, 0.3)


def recipe_for(source: Path, **data: Any) -> Recipe:
    return parse_recipe({"data": {"source": str(source), **data}, "model": {"backbone": "bundled"}, "phases": [{"epochs": 1}]})


def load(source: Path, **data: Any) -> Dataset:
    return load_dataset(recipe_for(source, **data), LOOK)


def test_what_was_written_is_read(listing: Listing, tmp_path: Path) -> None:
    written = write_shards(listing, tmp_path / "out", SMALL)
    found = open_source(str(tmp_path / "out"))
    assert len(written.shards.shards) > 4 and not written.unreadable
    assert (found.name, found.classes, found.layout) == (listing.name, listing.classes, listing.layout)
    assert found.ignored == listing.ignored
    place = {name: index for index, name in enumerate(listing.ids)}
    assert sorted(found.ids) == sorted(listing.ids) and len(found) == len(listing)
    for index, name in enumerate(found.ids):
        assert found.images.read(index) == listing.images.read(place[name])
        assert found.labels[index] == listing.labels[place[name]] and found.splits[index] == listing.splits[place[name]]
    assert found.known is not None
    assert {found.ids[index] for index in found.known.reasons} == {"red/broken.png"}


def test_the_shards_are_those_that_other_readers_of_webdataset_know(listing: Listing, tmp_path: Path) -> None:
    written = write_shards(listing, tmp_path / "out", SMALL).shards
    seen: list[str] = []
    for shard in written.shards:
        with tarfile.open(tmp_path / "out" / shard.name) as archive:
            members = {member.name: archive.extractfile(member) for member in archive}
        images = {name.partition(".")[0]: name for name in members if not name.endswith(".cls")}
        assert {name.removesuffix(".cls") for name in members if name.endswith(".cls")} == set(images)
        seen += images.values()
    assert len(seen) == len(set(seen)) == len(listing)
    assert {name.partition(".")[2] for name in seen} == {"png", "jpg", "tif"}


def test_who_reads_the_shards_leaves_out_what_who_reads_the_source_leaves_out(
    listing: Listing, photos: Path, tmp_path: Path
) -> None:
    write_shards(listing, tmp_path / "out", SMALL)
    whole, kept = load(photos), load(tmp_path / "out")
    taken = load(tmp_path / "out", cache="none")
    assert kept.quarantined == taken.quarantined == whole.quarantined
    assert isinstance(taken.images, OnDemand) and not isinstance(kept.images, OnDemand)
    assert kept.fingerprint == taken.fingerprint
    place = {name: index for index, name in enumerate(whole.ids)}
    for split in ("train", "val", "test"):
        for index in kept.indices(split).tolist():
            pixels = whole.images[place[kept.ids[index]]]
            assert np.array_equal(kept.images[index], pixels) and np.array_equal(taken.images[index], pixels)


def test_pixels_without_a_file_lose_nothing(tmp_path: Path) -> None:
    drawn = open_source("shapes:40x16")
    write_shards(drawn, tmp_path / "out", SMALL)
    data = load(tmp_path / "out", test=0.5)
    place = {name: index for index, name in enumerate(drawn.ids)}
    for index in range(40):
        assert np.array_equal(data.images[index], drawn.images.read(place[data.ids[index]]))


def test_equal_images_give_equal_shards(listing: Listing, tmp_path: Path) -> None:
    first, second = (write_shards(listing, tmp_path / name, SMALL).shards for name in ("one", "two"))
    assert first == second


def test_interrupted_writing_goes_on_behind_the_last_whole_shard(
    listing: Listing, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = write_shards(listing, tmp_path / "whole", SMALL).shards
    taken: list[str] = []
    write_one = writer._write_shard

    def counted(of: Listing, order: Any, path: Path, size: int) -> Any:
        taken.append(path.name)
        if len(taken) == 3:
            raise KeyboardInterrupt
        return write_one(of, order, path, size)

    monkeypatch.setattr(writer, "_write_shard", counted)
    with pytest.raises(KeyboardInterrupt):
        write_shards(listing, tmp_path / "out", SMALL)
    with pytest.raises(UsageError):  # no index yet: no source
        open_shard_folder(tmp_path / "out", UNSAID)
    (tmp_path / "out" / "train-00001.tar").write_bytes(b"cut")
    assert write_shards(listing, tmp_path / "out", SMALL).shards == whole
    assert taken[3:] == ["train-00001.tar", *taken[2:3], *taken[5:]] and "train-00000.tar" not in taken[1:]
    assert sorted(file.name for file in (tmp_path / "out").iterdir()) == sorted(
        file.name for file in (tmp_path / "whole").iterdir()
    )


def test_nothing_of_the_users_is_written_over(listing: Listing, tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "letter.txt").write_text("dear")
    with pytest.raises(UsageError, match="other files; name a new one"):
        write_shards(listing, tmp_path / "mine", SMALL)
    with pytest.raises(UsageError, match="is a file; name a folder"):
        write_shards(listing, tmp_path / "mine" / "letter.txt", SMALL)
    write_shards(listing, tmp_path / "out", SMALL)
    with pytest.raises(UsageError, match="holds shards already"):
        write_shards(listing, tmp_path / "out", SMALL)
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["letter.txt"]


def test_an_image_that_cannot_be_read_is_in_no_shard_and_is_named(listing: Listing, photos: Path, tmp_path: Path) -> None:
    lost = listing.ids[0]
    (photos / lost).unlink()
    found = write_shards(listing, tmp_path / "out", SMALL)
    assert found.unreadable == ((lost, "cannot be read: No such file or directory"),)
    again = open_source(str(tmp_path / "out"))
    assert lost not in set(again.ids) and found.unreadable[0] in again.ignored


def spoil(name: str, change: Callable[[bytes], bytes | None]) -> Callable[[Path], None]:
    def apply(folder: Path) -> None:
        content = change((folder / name).read_bytes())
        (folder / name).unlink()
        if content is not None:
            (folder / name).write_bytes(content)

    return apply


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (spoil(INDEX, lambda content: content.replace(b'"thawlab shards 1"', b'"thawlab shards 9"')), "update it"),
        (spoil(INDEX, lambda content: content.replace(b'"images"', b'"pictures"', 1)), "is damaged: shards.0.images"),
        (spoil(INDEX, lambda content: content.replace(b"train-00000.tar", b"../../x.tar", 1)), "is damaged: shards.0.name"),
        (spoil(ROWS, lambda content: content[:-1]), "is not the table"),
        (spoil(ROWS, lambda _: None), "index.parquet: is missing"),
        (spoil("train-00001.tar", lambda _: None), "train-00001.tar: is missing"),
        (spoil("train-00001.tar", lambda content: content[: len(content) // 2]), "it was cut or changed"),
    ],
)
def test_an_index_that_does_not_fit_is_refused(
    change: Callable[[Path], None], message: str, listing: Listing, tmp_path: Path
) -> None:
    write_shards(listing, tmp_path / "out", SMALL)
    change(tmp_path / "out")
    with pytest.raises(UsageError, match=message) as raised:
        open_source(str(tmp_path / "out"))
    assert "\n" not in str(raised.value)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"label": [9]}, "a label that is no class"),
        ({"split": ["dev"]}, "a split that is none of"),
        ({"offset": [1 << 40]}, "ends behind its shard"),
        ({"shard": [1]}, "counts the images of the shards otherwise"),
        ({"shard": [1 << 20]}, "names a shard that index.json does not"),
        ({"shard": [-1]}, "names a shard that index.json does not"),
        ({"shard": [1 << 40]}, "a number in the column 'shard' is too large"),
        ({"size": [None]}, "a value of the column 'size' is missing"),
        ({"digest": [b"short"]}, "cannot be read as a table of images"),
        ({"id": ["red/grey.jpg"]}, "names the image 'red/grey.jpg' twice"),
    ],
)
def test_a_table_that_lies_is_refused(change: dict[str, list[Any]], message: str, listing: Listing, tmp_path: Path) -> None:
    import hashlib

    import pyarrow as pa
    import pyarrow.parquet as pq

    write_shards(listing, tmp_path / "out", SMALL)
    table = pq.read_table(tmp_path / "out" / ROWS).to_pydict()
    for column, values in change.items():
        place = next(k for k, name in enumerate(table["id"]) if name != "red/grey.jpg")
        table[column][place] = values[0] if table[column][place] != values[0] else 0
    pq.write_table(pa.table(table), tmp_path / "out" / ROWS)
    index = json.loads((tmp_path / "out" / INDEX).read_text())
    index["rows_sha256"] = hashlib.sha256((tmp_path / "out" / ROWS).read_bytes()).hexdigest()
    (tmp_path / "out" / INDEX).write_text(json.dumps(index))
    with pytest.raises(UsageError, match=message):
        open_source(str(tmp_path / "out"))


def test_training_stops_where_an_image_is_not_what_was_written(listing: Listing, tmp_path: Path) -> None:
    write_shards(listing, tmp_path / "out", SMALL)
    found = open_source(str(tmp_path / "out"))
    data = load(tmp_path / "out", cache="none")
    images: Any = found.images
    index = int(data.splits.train[0])
    path = tmp_path / "out" / f"train-{images.rows.shards[index]:05d}.tar"
    content = bytearray(path.read_bytes())
    content[int(images.rows.offsets[index]) + 20] ^= 1
    path.write_bytes(content)
    fresh = load(tmp_path / "out", cache="none")
    with pytest.raises(ThawlabError, match="is not what the index of the shards says"):
        np.take(fresh.images, [index], axis=0)
    [line] = api.verify_shards(tmp_path / "out")["wrong"]
    assert line == f"{path.name}: has other content than the index says"


def test_an_index_among_other_files_is_no_index_of_shards(photos: Path) -> None:
    for content in ("[1, 2]", '{"format": "coco"}', "no JSON"):
        (photos / INDEX).write_text(content)
        assert len(open_source(str(photos))) == 24


def test_the_index_says_how_it_is_read(listing: Listing, tmp_path: Path) -> None:
    write_shards(listing, tmp_path / "out", SMALL)
    with pytest.raises(UsageError, match=r"data.layout: has no effect on shards with an index"):
        open_shard_folder(tmp_path / "out", Reading(layout="class"))


def test_another_version_looks_for_bad_images_itself(listing: Listing, tmp_path: Path) -> None:
    write_shards(listing, tmp_path / "out", SMALL)
    text = (tmp_path / "out" / INDEX).read_text()
    (tmp_path / "out" / INDEX).write_text(text.replace('"checked_by": "Pillow', '"checked_by": "Pillow 1'))
    assert [name for name, _ in load(tmp_path / "out", cache="none").quarantined] == ["red/broken.png"]


def test_splits_that_are_fixed_are_those_of_a_recipe(photos: Path) -> None:
    source = open_source(str(photos))
    both, none = with_fixed_splits(source, 0.25, 0.25), with_fixed_splits(source, None, None)
    assert none is source
    assert {name: int((both.splits == name).sum()) for name in ("train", "val", "test")} == {"train": 12, "val": 6, "test": 6}
    assert (with_fixed_splits(source, 0.25, None).splits == "test").sum() == 0
    with pytest.raises(UsageError, match="has a val split already"):
        with_fixed_splits(both, 0.1, None)
    with pytest.raises(UsageError, match="above 0 and below 1"):
        with_fixed_splits(source, None, 1.5)


def test_settings_that_do_nothing_are_refused(photos: Path) -> None:
    with pytest.raises(UsageError, match="does not lie in shards with an index"):
        load(photos, shuffle_buffer=4)
    with pytest.raises(UsageError, match="this one lies here"):
        load(photos, cache="encoded")


def test_the_command_writes_and_verifies(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    app(["data", "shards", str(photos), str(tmp_path / "out"), "--val", "0.2"], standalone_mode=False)
    assert capsys.readouterr().out.startswith(f"{tmp_path / 'out'}: 24 images in 2 shards, ")
    app(["data", "verify", str(tmp_path / "out"), "--json"], standalone_mode=False)
    assert json.loads(capsys.readouterr().out) == {"folder": str(tmp_path / "out"), "shards": 2, "n": 24, "wrong": []}
    with pytest.raises(UsageError, match="holds no shards"):
        api.verify_shards(photos)
    with pytest.raises(UsageError, match=r"--shard-mib 0: must be above 0"):
        api.write_shards(photos, tmp_path / "new", shard_mib=0)
