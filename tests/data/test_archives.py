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
