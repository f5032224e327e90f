from __future__ import annotations

import io
import json
import tarfile
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from thawlab.data.layout import Placed, one_spelling
from thawlab.data.listing import Reading
from thawlab.data.paths import open_path
from thawlab.errors import UsageError

Encoded = Callable[..., bytes]


def zipped(files: dict[str, bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: dict[str, bytes], mode: str = "w") -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return buffer.getvalue()


def test_backslashes_in_names_are_slashes(tmp_path: Path, encoded: Encoded) -> None:
    source = tmp_path / "win.zip"
    source.write_bytes(
        zipped(
            {
                "pets\\train\\cat\\1.png": encoded(),
                "pets\\train\\dog\\1.png": encoded(),
                "pets\\test\\cat\\2.png": encoded((1, 2, 3)),
            }
        )
    )
    listing = open_path(source)
    assert listing.ids == ("pets/test/cat/2.png", "pets/train/cat/1.png", "pets/train/dog/1.png")
    assert listing.splits.tolist() == ["test", "train", "train"] and listing.images.read(0) == encoded((1, 2, 3))


@pytest.mark.parametrize("outer", ["zip", "tar", "folder"])
@pytest.mark.parametrize("mode", ["zip", "w", "w:gz"])
def test_an_archive_per_class_or_split_is_a_folder(outer: str, mode: str, tmp_path: Path, encoded: Encoded) -> None:
    def pack(files: dict[str, bytes]) -> bytes:
        return zipped(files) if mode == "zip" else tarred(files, mode)

    suffix = {"zip": "zip", "w": "tar", "w:gz": "tar.gz"}[mode]
    classes = {
        f"{name}.{suffix}": pack({"1.png": encoded((k, 0, 0)), "a/2.png": encoded((k, 9, 0))})
        for k, name in enumerate(["cat", "dog"])
    }
    splits = {
        f"{split}.{suffix}": pack({f"{split}/{name}/1.png": encoded((k, len(split), 0)) for k, name in enumerate(["cat", "dog"])})
        for split in ("train", "test")
    }
    for which, files in (("classes", classes), ("splits", splits)):
        source = tmp_path / which
        if outer == "folder":
            source.mkdir()
            for name, content in files.items():
                (source / name).write_bytes(content)
        else:
            source = source.with_suffix(f".{outer}")
            source.write_bytes(zipped(files) if outer == "zip" else tarred(files))
        listing = open_path(source)
        assert listing.classes == ("cat", "dog")
        if which == "classes":
            assert listing.ids == ("cat/1.png", "cat/a/2.png", "dog/1.png", "dog/a/2.png")
            assert listing.images.read(3) == encoded((1, 9, 0))
        else:
            assert listing.layout == "split/*/class" and listing.splits.tolist() == ["test", "test", "train", "train"]
            assert listing.images.read(2) == encoded((0, 5, 0))


def test_a_damaged_inner_archive_is_named(tmp_path: Path, encoded: Encoded) -> None:
    (tmp_path / "outer.zip").write_bytes(zipped({"cat.zip": zipped({"1.png": encoded()}), "dog.zip": b"PK\x03\x04 no zip"}))
    with pytest.raises(UsageError, match=r"dog\.zip: cannot be read as an archive: "):
        open_path(tmp_path / "outer.zip")


def samples(encoded: Encoded, count: int, start: int = 0, form: str = ".cls") -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for k in range(start, start + count):
        label = str(k % 2) if form == ".cls" else json.dumps({"id": k, "label": ["cat", "dog"][k % 2]})
        files |= {f"{k:06d}.jpg": encoded((k, 0, 0), kind="JPEG"), f"{k:06d}{form}": label.encode()}
    return files


def test_webdataset_in_one_file_or_in_shards(tmp_path: Path, encoded: Encoded) -> None:
    (tmp_path / "pets.tar").write_bytes(tarred(samples(encoded, 4)))
    listing = open_path(tmp_path / "pets.tar")
    assert listing.classes == ("0", "1") and listing.labels.tolist() == [0, 1, 0, 1] and set(listing.splits) == {"train"}
    shards = tmp_path / "shards"
    shards.mkdir()
    (shards / "train-0000.tar").write_bytes(tarred(samples(encoded, 4, form=".json")))
    (shards / "train-0001.tar.gz").write_bytes(tarred(samples(encoded, 2, 4, form=".json"), "w:gz"))
    (shards / "test-0000.tar").write_bytes(tarred(samples(encoded, 2, 6, form=".json")))
    listing = open_path(shards)
    assert listing.classes == ("cat", "dog")
    assert listing.splits.tolist() == ["test"] * 2 + ["train"] * 6
    assert listing.images.read(0) == encoded((6, 0, 0), kind="JPEG")
    (shards / "train-0002.tar").write_bytes(tarred({"1.jpg": encoded(kind="JPEG"), "1.json": b"{}"}))
    with pytest.raises(UsageError, match=r"1\.json in train-0002\.tar: holds no label"):
        open_path(shards)


def test_annotations_beside_images_in_class_folders_are_no_labels(tmp_path: Path, encoded: Encoded) -> None:
    (tmp_path / "a.tar").write_bytes(
        tarred({f"{name}/1.{kind}": encoded() if kind == "png" else b"{}" for name in ("cat", "dog") for kind in ("png", "json")})
    )
    assert open_path(tmp_path / "a.tar").classes == ("cat", "dog")


def test_names_that_look_the_same_are_one_class() -> None:
    composed, taken_apart = unicodedata.normalize("NFC", "Käse"), unicodedata.normalize("NFD", "Käse")
    items = [
        Placed("1", composed, "train"),
        Placed("2", taken_apart, "test"),
        Placed("3", "cat ", "train"),
        Placed("4", "cat", "test"),
    ]
    found, notes = one_spelling(items)
    assert [item.label for item in found] == [composed, composed, "cat", "cat"]
    assert notes == ("'Ka\\u0308se', 'K\\xe4se' are read as one class, 'Käse'", "'cat', 'cat ' are read as one class, 'cat'")
    assert one_spelling(items[3:]) == (items[3:], ())


def test_shards_in_folders_of_splits_keep_their_test_images_apart(tmp_path: Path, encoded: Encoded) -> None:
    for place, start in (("train/0.tar", 0), ("test/0.tar", 4), ("val/shard-1.tar", 8)):
        (tmp_path / place).parent.mkdir()
        (tmp_path / place).write_bytes(tarred(samples(encoded, 2, start)))
    assert open_path(tmp_path).splits.tolist() == ["test", "test", "train", "train", "val", "val"]


def test_a_record_of_several_images_has_one_to_classify(tmp_path: Path, encoded: Encoded) -> None:
    record = {"1.png": encoded((1, 0, 0)), "1.mask.png": encoded((9, 9, 9)), "1.cls": b"cat"}
    record |= {"2.mask.png": encoded((9, 9, 9)), "2.image.png": encoded((2, 0, 0)), "2.cls": b"dog"}
    (tmp_path / "x.tar").write_bytes(tarred(record))
    listing = open_path(tmp_path / "x.tar")
    assert [listing.images.read(k) for k in range(2)] == [encoded((1, 0, 0)), encoded((2, 0, 0))]
    assert [name for name, _ in listing.ignored] == ["x.tar/1.mask.png", "x.tar/2.mask.png"]
    (tmp_path / "x.tar").write_bytes(tarred({"1.left.png": encoded(), "1.right.png": encoded(), "1.cls": b"cat"}))
    with pytest.raises(UsageError, match=r"which of 1\.left\.png, 1\.right\.png is the image\? Call it KEY\.image\.png"):
        open_path(tmp_path / "x.tar")


def test_records_without_a_label_are_left_out_with_a_note(tmp_path: Path, encoded: Encoded) -> None:
    record = {f"{k}.png": encoded((k, 0, 0)) for k in range(6)} | {"0.cls": b"0", "1.cls": b"1", "2.cls": b"-1"}
    record |= {"0.json": b'{"width": 3}', "3.json": b'{"label": null}', "4.json": b'{"label": "1"}'}
    (tmp_path / "x.tar").write_bytes(tarred(record))
    listing = open_path(tmp_path / "x.tar")
    assert listing.classes == ("0", "1") and listing.ids == ("x.tar/0.png", "x.tar/1.png", "x.tar/4.png")
    assert listing.ignored == tuple((f"x.tar/{k}.png", "has no label") for k in (2, 3, 5))


def test_links_and_detours_in_an_archive_lead_to_their_images(tmp_path: Path, encoded: Encoded) -> None:
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("cat/1.png", "dog/1.png", "../pets/cow/1.png", "pig/../pig/1.png"):
            content, info = encoded((len(name), 0, 0)), tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
        for name, target in (("bird/1.png", "../dog/1.png"), ("fish/1.png", "../../elsewhere.png")):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = tarfile.SYMTYPE, target
            archive.addfile(info)
    listing = open_path(tmp_path / "x.tar", Reading(layout="class"))
    assert set(listing.classes) == {"bird", "cat", "dog", "pig", "pets"}
    assert ("fish/1.png", "is a link to what the archive does not hold") in listing.ignored
    assert listing.images.read(listing.ids.index("bird/1.png")) == encoded((len("dog/1.png"), 0, 0))


def test_a_tar_file_that_was_cut_is_refused_wherever(tmp_path: Path, encoded: Encoded) -> None:
    whole = tarred({f"{name}/{k}.png": encoded((k, 0, 0)) for name in ("cat", "dog") for k in range(4)})
    file = tmp_path / "x.tar"
    file.write_bytes(whole)
    assert len(open_path(file)) == 8
    end = max(start for start in range(0, len(whole), 512) if any(whole[start : start + 512])) + 512
    for cut in range(512, end + 1, 256):
        file.write_bytes(whole[:cut])
        with pytest.raises(UsageError, match="cannot be read as a tar archive"):
            open_path(file)
        (tmp_path / "y.zip").write_bytes(zipped({"pets.tar": whole[:cut]}))
        with pytest.raises(UsageError, match="cannot be read as an archive"):
            open_path(tmp_path / "y.zip")


def test_two_archives_of_one_name_are_both_read(tmp_path: Path, encoded: Encoded) -> None:
    (tmp_path / "cat.zip").write_bytes(zipped({"1.png": encoded((1, 0, 0)), "2.png": encoded((2, 0, 0))}))
    (tmp_path / "cat.tar").write_bytes(tarred({"1.png": encoded((3, 0, 0))}))
    (tmp_path / "dog.zip").write_bytes(zipped({"1.png": encoded((4, 0, 0))}))
    listing = open_path(tmp_path)
    assert [listing.classes[label] for label in listing.labels] == ["cat", "cat", "cat", "dog"]
    assert {listing.images.read(k) for k in range(4)} == {encoded((k, 0, 0)) for k in (1, 2, 3, 4)}


def test_archives_lie_in_archives_however_deep(tmp_path: Path, encoded: Encoded) -> None:
    def pets(start: int) -> bytes:
        return zipped({f"{name}.zip": zipped({"1.png": encoded((start + k, 0, 0))}) for k, name in enumerate(("cat", "dog"))})

    (tmp_path / "train.zip").write_bytes(pets(1))
    (tmp_path / "test.zip").write_bytes(pets(3))
    expected = [
        ("test/cat/1.png", "test"),
        ("test/dog/1.png", "test"),
        ("train/cat/1.png", "train"),
        ("train/dog/1.png", "train"),
    ]
    listing = open_path(tmp_path)
    assert list(zip(listing.ids, listing.splits, strict=True)) == expected
    (tmp_path / "all").mkdir()
    (tmp_path / "all" / "x.tar").write_bytes(tarred({"train.zip": pets(1), "test.zip": pets(3)}))
    listing = open_path(tmp_path / "all" / "x.tar")
    assert list(zip(listing.ids, listing.splits, strict=True)) == expected


def test_an_archive_stands_for_the_folder_that_is_missing_beside_others(tmp_path: Path, encoded: Encoded) -> None:
    for name in ("bird", "fish"):
        (tmp_path / "a" / name).mkdir(parents=True)
        (tmp_path / "a" / name / "1.png").write_bytes(encoded())
        (tmp_path / "b" / "train" / name).mkdir(parents=True)
        (tmp_path / "b" / "train" / name / "1.png").write_bytes(encoded())
    (tmp_path / "a" / "cat.zip").write_bytes(zipped({"1.png": encoded(), "2.png": encoded()}))
    assert open_path(tmp_path / "a").ids == ("bird/1.png", "cat/1.png", "cat/2.png", "fish/1.png")
    (tmp_path / "b" / "test.zip").write_bytes(zipped({"bird/1.png": encoded(), "fish/2.png": encoded()}))
    listing = open_path(tmp_path / "b")
    assert list(zip(listing.ids, listing.splits, strict=True)) == [
        ("test/bird/1.png", "test"),
        ("test/fish/2.png", "test"),
        ("train/bird/1.png", "train"),
        ("train/fish/1.png", "train"),
    ]


@pytest.mark.parametrize("name", ["archive.zip", "bird.zip", "old/pets.zip"])
def test_what_was_unpacked_beside_itself_is_left_out(name: str, tmp_path: Path, encoded: Encoded) -> None:
    for folder in ("bird", "fish", "old"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "1.png").write_bytes(encoded())
    members = {"1.png": encoded()} if name == "bird.zip" else {"bird/1.png": encoded(), "fish/1.png": encoded()}
    (tmp_path / name).write_bytes(zipped(members))
    listing = open_path(tmp_path)
    assert listing.ids == ("bird/1.png", "fish/1.png", "old/1.png")
    assert listing.ignored == ((name, "is an archive beside folders of images; unpack it if it belongs to them"),)


def test_names_in_a_zip_without_the_flag_of_utf_8_are_read_as_such(tmp_path: Path, encoded: Encoded) -> None:
    content = zipped({"Köter/1.png": encoded(), "dog/1.png": encoded()})
    plain = bytearray(content)
    for mark, place in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):  # the flag of each local and central header
        start = plain.find(mark)
        while start >= 0:
            plain[start + place + 1] &= ~0x08
            start = plain.find(mark, start + 4)
    (tmp_path / "x.zip").write_bytes(bytes(plain))
    listing = open_path(tmp_path / "x.zip")
    assert listing.classes == ("dog", "Köter") and listing.images.read(0) and listing.images.read(1)


@pytest.mark.parametrize("kind", ["zip", "tar", "shard"])
def test_a_name_that_stands_twice_is_said_and_the_last_one_counts(kind: str, tmp_path: Path, encoded: Encoded) -> None:
    first, last, other = encoded((1, 2, 3)), encoded((200, 2, 3)), encoded((1, 200, 3))
    label = (("a.cls", b"0"), ("b.cls", b"1"))
    members = [("x/a.png", first), ("x/a.png", last), ("y/b.png", other)]
    if kind == "shard":
        members = [("a.png", first), ("a.png", last), ("b.png", other), *label]
    path = tmp_path / ("set.zip" if kind == "zip" else "set.tar")
    if kind == "zip":
        with zipfile.ZipFile(path, "w") as zipfile_:
            for name, content in members:
                zipfile_.writestr(name, content)
    else:
        with tarfile.open(path, "w") as archive:
            for name, content in members:
                member = tarfile.TarInfo(name)
                member.size = len(content)
                archive.addfile(member, io.BytesIO(content))
    listing = open_path(path)
    [found] = [place for place, name in enumerate(listing.ids) if name.endswith("a.png")]
    assert len(listing) == 2 and listing.images.read(found) == last
    assert [why for name, why in listing.ignored if name.endswith("a.png")] == [
        "stands in the archive more than once; the last one counts"
    ]
