from __future__ import annotations

import errno
import io
import json
import os
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thawlab.data import content, decoded
from thawlab.data import dataset as loading
from thawlab.data import images as reading
from thawlab.data.content import fingerprint, hash_files, leaks_between
from thawlab.data.dataset import Dataset, load_dataset, load_other
from thawlab.data.images import FileImages
from thawlab.data.listing import Listing
from thawlab.data.overview import described, warnings_before_training
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import open_source
from thawlab.data.splits import Splits
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import cache_root
from thawlab.recipe import Recipe, System, parse_recipe

Encoded = Callable[..., bytes]
LOOK = Preprocessing(size=16, mean=(0.5,) * 3, std=(0.5,) * 3)


def recipe_for(source: Path | str, system: dict[str, Any] | None = None, **data: Any) -> Recipe:
    return parse_recipe(
        {
            "data": {"source": str(source), **data},
            "model": {"backbone": "bundled"},
            "phases": [{"epochs": 1}],
            "system": system or {},
        }
    )


def load(source: Path | str, look: Preprocessing = LOOK, **data: Any) -> Dataset:
    return load_dataset(recipe_for(source, **data), look)


def identity(listing: Listing) -> str:
    return fingerprint(listing, hash_files(listing).digests)


def used(dataset: Dataset) -> np.ndarray:
    """Return the images of all splits, in the order of the source."""
    return dataset.images[np.sort(np.concatenate([dataset.indices(split) for split in ("train", "val", "test")]))]


def decodings(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Count how often an image is decoded from now on."""
    counted: list[int] = []
    decode = decoded.decode

    def count(*arguments: Any) -> Any:
        counted.append(1)
        return decode(*arguments)

    monkeypatch.setattr(decoded, "decode", count)
    return counted


def test_a_folder_becomes_arrays_labels_and_splits(photos: Path) -> None:
    dataset = load(photos)
    assert dataset.classes == ("blue", "red") and dataset.name == "photos"
    assert dataset.images.shape == (24, 16, 16, 3) and dataset.images.dtype == np.uint8
    for index, (path, label) in enumerate(zip(dataset.ids, dataset.labels, strict=True)):
        assert path.startswith(dataset.classes[label])
        with Image.open(photos / path) as image:
            assert np.array_equal(dataset.images[index], LOOK.fit(image))
    assert [len(dataset.indices(split)) for split in ("train", "val", "test")] == [16, 2, 6]


def test_a_second_load_decodes_nothing_and_gives_the_same(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = load(photos)
    counted = decodings(monkeypatch)
    second = load(photos)
    assert counted == []
    assert np.array_equal(first.images, second.images) and first.fingerprint == second.fingerprint


def test_a_larger_train_size_decodes_only_what_is_new(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = decodings(monkeypatch)
    small = load(photos, train_size=8)
    assert len(counted) == 8 + 6
    large = load(photos)
    assert len(counted) == 24
    assert np.array_equal(small.images[small.splits.train], large.images[small.splits.train])


def test_another_size_is_decoded_anew_and_beside_it(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(photos)
    counted = decodings(monkeypatch)
    assert load(photos, LOOK.model_copy(update={"size": 8})).images.shape == (24, 8, 8, 3)
    assert len(counted) == 24
    assert len(list((cache_root() / "decoded").iterdir())) == 2


def test_the_cache_goes_where_it_is_sent(photos: Path, tmp_path: Path) -> None:
    load_dataset(recipe_for(photos, {"cache_dir": str(tmp_path / "elsewhere")}), LOOK)
    assert list((tmp_path / "elsewhere" / "decoded").iterdir()) and not (cache_root() / "decoded").exists()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_one_worker_and_four_read_the_same(kind: str, photos: Path, tmp_path: Path) -> None:
    source = photos if kind == "folder" else Path(shutil.make_archive(str(tmp_path / "packed"), kind, photos))
    one, four = (
        load_dataset(recipe_for(source, {"workers": workers, "cache_dir": str(tmp_path / f"cache{workers}")}), LOOK)
        for workers in (1, 4)
    )
    assert one.fingerprint == four.fingerprint
    assert np.array_equal(one.images, four.images) and np.array_equal(used(one), used(load(photos)))


def test_loading_is_a_function_of_the_content(photos: Path, tmp_path: Path) -> None:
    moved = Path(shutil.copytree(photos, tmp_path / "moved" / "photos"))
    first, second = load(photos), load(moved)
    assert first.fingerprint == second.fingerprint and first.ids == second.ids
    for split in ("train", "val", "test"):
        assert np.array_equal(first.indices(split), second.indices(split))


def test_images_at_working_size_in_memory_are_used_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    counted = decodings(monkeypatch)
    dataset = load("shapes:40x16")
    assert counted == [] and not (cache_root() / "decoded").exists()
    assert np.array_equal(dataset.images[7], open_source("shapes:40x16").images.read(7))
    cropped = load("shapes:40x16", LOOK.model_copy(update={"resize": "crop", "crop_pct": 0.5}))
    assert not np.array_equal(cropped.images, dataset.images)


# Fingerprint


def test_the_fingerprint_sees_one_pixel_of_an_array() -> None:
    listing = open_source("shapes:40x16")
    before = identity(listing)
    assert identity(open_source("shapes:40x16")) == before
    listing.images.read(39)[15, 15, 2] ^= 1
    assert identity(listing) != before


def test_the_fingerprint_sees_one_pixel_of_a_file(photos: Path) -> None:
    before = load(photos).fingerprint
    file = photos / "red" / "03.png"
    with Image.open(file) as image:
        pixels = np.array(image)
    pixels[0, 0, 0] ^= 1
    Image.fromarray(pixels).save(file)
    assert load(photos).fingerprint != before


@pytest.mark.parametrize("what", ["labels", "splits", "ids", "classes"])
def test_the_fingerprint_sees_labels_splits_names_and_classes(what: str, photos: Path) -> None:
    listing = open_source(str(photos))
    changed = {
        "labels": np.concatenate([listing.labels[:-1], [0]]),
        "splits": np.array(["test"] + ["train"] * 23),
        "ids": ("x", *listing.ids[1:]),
        "classes": ("azure", "red"),
    }
    assert identity(replace(listing, **{what: changed[what]})) != identity(listing)


def test_the_fingerprint_does_not_depend_on_size_seed_or_train_size(photos: Path) -> None:
    prints = {load(photos).fingerprint, load(photos, LOOK.model_copy(update={"size": 8}), train_size=8, val=0.3).fingerprint}
    assert len(prints) == 1


# Bad and odd images


def write_odd(folder: Path, encoded: Encoded) -> dict[str, str]:
    """Add images of every kind that people have; return the reasons expected of those that are of no use."""
    rng = np.random.default_rng(0)
    red = folder / "red"

    def save(name: str, image: Image.Image, kind: str, **options: Any) -> None:
        image.save(red / name, kind, **options)

    save("cmyk.jpg", Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "JPEG")
    save("deep.png", Image.fromarray(rng.integers(0, 65536, (20, 20), dtype=np.uint16)), "PNG")
    save("grey.png", Image.new("L", (20, 20), 99), "PNG")
    save("grey-alpha.png", Image.new("LA", (20, 20), (99, 50)), "PNG")
    save("alpha.png", Image.new("RGBA", (20, 20), (200, 0, 0, 50)), "PNG")
    save("palette.png", Image.new("P", (20, 20), 3), "PNG", transparency=3)
    exif = Image.Exif()
    exif[0x0112] = 6
    save("turned.jpg", Image.new("RGB", (20, 30), "red"), "JPEG", exif=exif)
    frames = [Image.new("RGB", (20, 20), colour) for colour in ("red", "green")]
    save("moving.gif", frames[0], "GIF", save_all=True, append_images=frames[1:])
    (red / "a-jpeg-in-truth.png").write_bytes(encoded(kind="JPEG"))
    (red / "a-jpeg-in-truth.txt").write_bytes(encoded((1, 2, 3), kind="JPEG"))
    buffer = io.BytesIO()
    Image.fromarray(rng.integers(0, 256, (64, 64, 3), dtype=np.uint8)).save(buffer, "JPEG")
    (red / "cut.jpg").write_bytes(buffer.getvalue()[:1500])
    (red / "empty.png").write_bytes(b"")
    (red / "page.jpg").write_bytes(b"<html>404 not found</html>")
    (red / "gone.jpg").symlink_to(red / "nowhere.jpg")
    return {
        "red/cut.jpg": "damaged: image file is truncated",
        "red/empty.png": "empty file",
        "red/page.jpg": "is a web page",
        "red/gone.jpg": "cannot be read: No such file or directory",
    }


def test_odd_images_are_converted_and_bad_ones_quarantined_named_and_counted(photos: Path, encoded: Encoded) -> None:
    expected = write_odd(photos, encoded)
    files = {file: file.read_bytes() for file in photos.rglob("*.*") if file.is_file()}
    dataset = load(photos)
    reasons = dict(dataset.quarantined)
    assert reasons.keys() == expected.keys()
    assert all(reasons[name].startswith(reason) for name, reason in expected.items())
    summary = dataset.summary()
    assert summary["quarantined"]["count"] == 4
    assert {entry["id"]: entry["reason"] for entry in summary["quarantined"]["files"]} == reasons
    kept = {dataset.ids[index] for split in ("train", "val", "test") for index in dataset.indices(split)}
    assert len(kept) == 24 + 10 == sum(summary["n"].values()) and not kept & reasons.keys()
    assert {"red/cmyk.jpg", "red/deep.png", "red/a-jpeg-in-truth.txt", "red/moving.gif"} <= kept
    assert {file: file.read_bytes() for file in photos.rglob("*.*") if file.is_file()} == files
    assert warnings_before_training(dataset)[0].startswith("red/")


def test_what_was_bad_is_remembered_and_not_tried_again(photos: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch) -> None:
    write_odd(photos, encoded)
    first = load(photos)
    counted = decodings(monkeypatch)
    assert load(photos).quarantined == first.quarantined and counted == []


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Callable[..., list[int]]:
    """Make reads of red/03.png fail; returns the list of them."""
    monkeypatch.setattr(reading, "_PAUSES", (0, 0, 0))
    read = FileImages.read

    def fail(error: Exception, after: int, times: int) -> list[int]:
        reads: list[int] = []

        def flaky(self: FileImages, index: int) -> bytes:
            if self.paths[index].match("red/03.png"):
                reads.append(index)
                if after < len(reads) <= after + times:
                    raise error
            return read(self, index)

        monkeypatch.setattr(FileImages, "read", flaky)
        return reads

    return fail


HICCUPS = [OSError(number, os.strerror(number)) for number in (errno.EIO, errno.ESTALE, errno.ETIMEDOUT, errno.ENOMEM)]


@pytest.mark.parametrize("error", [*HICCUPS, MemoryError()])
@pytest.mark.parametrize("after", [0, 1])
def test_a_hiccup_of_the_machine_is_tried_again(
    error: Exception, after: int, photos: Path, failing: Callable[..., list[int]], tmp_path: Path
) -> None:
    expected = load_dataset(recipe_for(photos, {"cache_dir": str(tmp_path / "other")}), LOOK)
    assert len(failing(error, after, 3)) == 0
    dataset = load(photos)
    assert dataset.quarantined == () and dataset.fingerprint == expected.fingerprint
    assert np.array_equal(used(dataset), used(expected))


def test_a_hiccup_at_any_read_changes_nothing(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The n-th read fails once, for every n: while the folder is looked at, hashed and decoded."""
    monkeypatch.setattr(reading, "_PAUSES", (0, 0, 0))
    expected = load_dataset(recipe_for(photos, {"cache_dir": str(tmp_path / "whole")}), LOOK)
    read, counted = FileImages.read, []
    monkeypatch.setattr(FileImages, "read", lambda self, index: (counted.append(0), read(self, index))[1])
    load_dataset(recipe_for(photos, {"cache_dir": str(tmp_path / "counted"), "workers": 1}), LOOK)
    total = len(counted)
    assert total >= 2 * len(expected.ids)
    for place in range(total):
        reads: list[int] = []

        def failing_once(self: FileImages, index: int, place: int = place, reads: list[int] = reads) -> bytes:
            reads.append(index)
            if len(reads) == place + 1:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
            return read(self, index)

        monkeypatch.setattr(FileImages, "read", failing_once)
        dataset = load_dataset(recipe_for(photos, {"cache_dir": str(tmp_path / str(place)), "workers": 1}), LOOK)
        assert dataset.quarantined == () and dataset.fingerprint == expected.fingerprint
        assert np.array_equal(used(dataset), used(expected)) and len(reads) == total + 1


@pytest.mark.parametrize("error", [HICCUPS[0], MemoryError()])
@pytest.mark.parametrize("after", [0, 1])  # while hashing, while decoding
def test_a_machine_that_fails_for_good_excludes_no_image(
    error: Exception, after: int, photos: Path, failing: Callable[..., list[int]]
) -> None:
    reads = failing(error, after, 4)
    with pytest.raises(ThawlabError) as caught:
        load(photos)
    reason = "Input/output error" if isinstance(error, OSError) else "not enough memory"
    assert str(caught.value) == (
        f"red/03.png: could not be read, several times ({reason}); run the command again, or leave the image out with "
        "data.exclude"
    )
    assert len(reads) == 4 + after
    assert not any("3" in json.loads(file.read_text()) for file in cache_root().rglob("bad.json"))
    assert load(photos).quarantined == ()


def test_too_little_memory_while_decoding_is_not_remembered(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PAUSES", (0, 0, 0))
    with monkeypatch.context() as patch, pytest.raises(ThawlabError, match="not enough memory"):
        patch.setattr(Preprocessing, "fit", lambda *_: (_ for _ in ()).throw(MemoryError()))
        load(photos)
    assert load(photos).quarantined == ()


def test_what_may_not_be_read_is_quarantined_but_not_remembered(
    photos: Path, failing: Callable[..., list[int]], monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patch:
        failing(PermissionError(errno.EACCES, "Permission denied"), 0, 9)
        assert load(photos).quarantined == (("red/03.png", "cannot be read: Permission denied"),)
        assert load(photos).quarantined == (("red/03.png", "cannot be read: Permission denied"),)
        patch.undo()
    assert all(json.loads(file.read_text()) == {} for file in cache_root().rglob("bad.json"))


def test_content_that_changes_between_hash_and_decoding_is_never_kept(
    photos: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    hash_files = loading.hash_files

    def then_changed(*arguments: Any) -> Any:
        scan = hash_files(*arguments)
        (photos / "red" / "03.png").write_bytes(encoded((1, 2, 3)))
        return scan

    monkeypatch.setattr(loading, "hash_files", then_changed)
    with pytest.raises(ThawlabError, match=r"red/03\.png: was changed while the data were read; run the command again"):
        load(photos)


def test_another_way_of_decoding_has_rows_of_its_own(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load(photos)
    counted = decodings(monkeypatch)
    monkeypatch.setattr(loading, "DECODING", loading.DECODING + 1)
    load(photos)
    assert len(counted) == 24


def test_a_image_that_was_mended_is_used_again(photos: Path, encoded: Encoded) -> None:
    (photos / "red" / "03.png").write_bytes(b"")
    assert len(load(photos).quarantined) == 1
    (photos / "red" / "03.png").write_bytes(encoded())
    assert load(photos).quarantined == ()


def test_a_damaged_member_of_a_zip_is_quarantined(photos: Path, tmp_path: Path) -> None:
    for number in range(4):  # noise and repetition, so that deflate has something to say
        pixels = np.tile(np.random.default_rng(number).integers(0, 256, (40, 4, 3), dtype=np.uint8), (1, 10, 1))
        Image.fromarray(pixels).save(photos / "red" / f"big{number}.bmp")
    packed = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", photos))
    content = bytearray(packed.read_bytes())
    place = content.index(b"big2.bmp") + 60  # inside the compressed data, not in the directory at the end
    content[place : place + 40] = b"\xff" * 40
    packed.write_bytes(content)
    [(name, reason)] = load(packed).quarantined
    assert name == "red/big2.bmp" and reason.startswith("cannot be read: damaged or encrypted inside the archive")


def test_a_damaged_list_of_bad_images_cannot_be_left_by_a_crash(
    photos: Path, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_odd(photos, encoded)

    def crash(*_: Any) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr("os.fsync", crash)
        load(photos)
    assert not list((cache_root() / "decoded").rglob("bad.json"))
    assert len(load(photos).quarantined) == 4


def test_more_bad_images_than_good_ones_stop_the_work(photos: Path) -> None:
    for file in sorted(photos.rglob("*.png"))[:13]:
        file.write_bytes(b"")
    with pytest.raises(ThawlabError) as error:
        load(photos)
    assert str(error.value) == "photos: 13 of 24 images cannot be decoded, the first is blue/00.png (empty file)"


def test_a_class_without_any_readable_training_image_is_named(photos: Path) -> None:
    (photos / "green").mkdir()
    for number in range(2):
        (photos / "green" / f"{number}.png").write_bytes(b"")
    with pytest.raises(ThawlabError) as error:
        load(photos)
    assert str(error.value) == f"{photos}: no training image of 'green' can be decoded; add some or remove the class"


def test_wrong_sources_are_refused_before_anything_is_decoded(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    counted = decodings(monkeypatch)
    with pytest.raises(UsageError, match="has 18 images to train on"):
        load(photos, train_size=100)
    shutil.rmtree(photos / "blue")
    with pytest.raises(UsageError, match="has one class only"):
        load(photos)
    assert counted == []


def test_a_full_disk_while_decoding_is_said(photos: Path) -> None:
    (cache_root() / "decoded").write_text("in the way")
    with pytest.raises(ThawlabError, match="the cache cannot be written"):
        load(photos)


# Summary and warnings


def test_the_summary_is_json_and_counts_every_class(photos: Path) -> None:
    (photos / "notes.txt").write_text("a note")
    dataset = load(photos)
    summary = json.loads(json.dumps(dataset.summary()))
    assert summary["n"] == {"train": 16, "val": 2, "test": 6}
    assert summary["per_class"] == {"train": [8, 8], "val": [1, 1], "test": [3, 3]}
    assert summary["classes"] == ["blue", "red"] and summary["fingerprint"] == dataset.fingerprint
    assert summary["ignored"] == {"count": 1, "files": [{"id": "notes.txt", "reason": "is not an image"}]}
    assert summary["quarantined"] == {"count": 0, "files": []}


def test_a_clean_dataset_needs_no_warning_and_others_say_what_is_missing(photos: Path) -> None:
    dataset = load(photos)
    assert warnings_before_training(dataset) == []
    assert warnings_before_training(load(photos, val=0.0)) == ["the val split is empty"]
    many = replace(dataset, quarantined=tuple((f"{k}.png", "empty file") for k in range(8)), ignored=(("a", "is odd"),))
    lines = warnings_before_training(many)
    assert lines[0] == "0.png is left out: empty file"
    assert lines[5:] == ["… and 3 more images are left out; data.json lists them all"]
    assert described(many) == [
        f"{photos.name}: 24 images in 2 classes (blue, red); train 16, val 2, test 6",
        "read as class; left out: 1 file (is odd), the first is a",
    ]
    one_sided = replace(dataset, splits=dataset.splits._replace(test=np.flatnonzero(dataset.labels == 0)))
    assert "the test split has no image of 1 classes, the first is 'red'" in warnings_before_training(one_sided)[0]


# Judging a classifier on another source


def test_a_foreign_source_is_matched_by_class_name(photos: Path) -> None:
    dataset, what = load_other(str(photos), ("green", "red", "blue"), LOOK, System())
    assert what == "all"
    assert dataset.classes == ("green", "red", "blue")
    assert len(dataset.splits.train) == len(dataset.splits.val) == 0 and len(dataset.splits.test) == 24
    assert all(path.startswith(dataset.classes[label]) for path, label in zip(dataset.ids, dataset.labels, strict=True))


def test_of_a_foreign_source_with_a_test_split_that_alone_is_read(tree: Callable[..., Path]) -> None:
    source = tree("train/cat/1.png", "train/dog/2.png", "test/cat/3.png", "test/dog/4.png", "test/dog/5.png")
    dataset, what = load_other(str(source), ("cat", "dog"), LOOK, System())
    assert what == "test"
    assert [dataset.ids[index] for index in dataset.splits.test] == ["test/cat/3.png", "test/dog/4.png", "test/dog/5.png"]


def test_a_foreign_source_may_be_a_test_split_alone(tree: Callable[..., Path]) -> None:
    source = tree("test/cat/3.png", "test/dog/4.png")
    assert load_other(str(source), ("cat", "dog"), LOOK, System())[0].summary()["n"] == {"train": 0, "val": 0, "test": 2}
    with pytest.raises(UsageError, match="no training images of cat, dog"):
        load(tree("test/cat/5.png", "test/dog/6.png"))


def test_a_class_that_the_classifier_does_not_know_is_named(photos: Path) -> None:
    with pytest.raises(UsageError) as error:
        load_other(str(photos), ("blue", "reed"), LOOK, System())
    assert str(error.value) == f"{photos}: the classifier has no class 'red' (did you mean 'reed'?); its classes: blue, reed"


# The real ones


def test_real_fruits_are_decoded(fruits360: Path) -> None:
    listing = open_source("fruits360", str(fruits360))
    for index in np.random.default_rng(0).choice(len(listing), 40, replace=False).tolist():
        image = decoded.decode(listing.images.read(index), LOOK)
        assert image.shape == (16, 16, 3) and image.std() > 5


def test_images_of_the_same_content_in_two_splits_are_leaks() -> None:
    splits = Splits(np.array([0, 1, 2]), np.array([3, 4]), np.array([5, 6, 7]))
    digests = [b"a", b"b", b"b", b"c", b"a", b"b", b"d", b"a"]
    assert leaks_between(splits, digests) == ((0, 4), (1, 5), (0, 7))
    assert leaks_between(splits, [bytes([k]) for k in range(8)]) == ()


def test_a_copied_test_image_is_listed_in_the_summary(tmp_path: Path, encoded: Encoded) -> None:
    for split, count in (("train", 6), ("test", 4)):
        for label in ("x", "y"):
            (tmp_path / "p" / split / label).mkdir(parents=True)
            for number in range(count):
                content = encoded((number * 20, 200 * (split == "test"), 200 * (label == "x")))
                (tmp_path / "p" / split / label / f"{number}.png").write_bytes(content)
    shutil.copy(tmp_path / "p/test/x/2.png", tmp_path / "p/train/y/copy.png")
    dataset = load(tmp_path / "p", val=0.0)
    assert dataset.summary()["leaks"] == {"count": 1, "pairs": [["train/y/copy.png", "test/x/2.png"]]}


@settings(max_examples=60, deadline=None)
@given(st.lists(st.text(max_size=4), max_size=9), st.lists(st.integers(-5, 5), max_size=9), st.integers(1, 4))
def test_names_are_written_piece_by_piece_as_at_once(names: list[str], numbers: list[int], portion: int) -> None:
    value = [("a", "b"), names, np.array(numbers, dtype=np.int64), [tuple(names), tuple(names), np.array(["x"] * 3)]]
    plain = [["a", "b"], names, numbers, [names, names, ["x"] * 3]]
    before = content._AT_ONCE
    content._AT_ONCE = portion
    try:
        assert "".join(content._as_json(value)) == json.dumps(plain, ensure_ascii=False)
    finally:
        content._AT_ONCE = before


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.sampled_from([b"a", b"b", bytes(32), bytes(8) + b"c", b"unreadable", b"x" * 32]), min_size=3, max_size=12),
    st.data(),
)
def test_leaks_are_those_that_a_table_of_all_digests_finds(digests: list[bytes], data: st.DataObject) -> None:
    order = np.array(data.draw(st.permutations(range(len(digests)))), dtype=np.int64)
    first, second = sorted(data.draw(st.tuples(st.integers(0, len(order)), st.integers(0, len(order)))))
    splits = Splits(order[:first], order[first:second], order[second:])
    trained = {digests[index]: index for index in splits.train.tolist()[::-1]}
    expected = [(trained[digests[k]], k) for k in [*splits.val.tolist(), *splits.test.tolist()] if digests[k] in trained]
    assert list(leaks_between(splits, digests)) == expected
