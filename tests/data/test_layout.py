from __future__ import annotations

import pytest

from thawlab.data.formats import has_image_extension, looks_like_image
from thawlab.data.layout import Placed, class_names, is_litter, place_files
from thawlab.errors import UsageError


def placed(*paths: str) -> set[tuple[str, str, str]]:
    return {(item.path, item.label, item.split) for item in place_files(paths, "photos").placed}


def ignored(*paths: str) -> dict[str, str]:
    return dict(place_files(paths, "photos").ignored)


def layout(*paths: str) -> str:
    return place_files(paths, "photos").layout


def refusal(*paths: str) -> str:
    with pytest.raises(UsageError) as error:
        place_files(paths, "photos")
    assert "\n" not in str(error.value)
    return str(error.value)


def test_a_folder_per_class_is_all_train() -> None:
    assert placed("dog/1.jpg", "cat/2.jpg") == {("dog/1.jpg", "dog", "train"), ("cat/2.jpg", "cat", "train")}


@pytest.mark.parametrize(
    ("train", "val", "test"),
    [("train", "val", "test"), ("Training", "Validation", "Test"), ("TRAIN", "valid", "testing"), ("training", "dev", "TEST")],
)
def test_splits_on_top_are_recognised_in_any_case(train: str, val: str, test: str) -> None:
    assert placed(f"{train}/cat/1.jpg", f"{val}/cat/1.jpg", f"{test}/cat/1.jpg") == {
        (f"{train}/cat/1.jpg", "cat", "train"),
        (f"{val}/cat/1.jpg", "cat", "val"),
        (f"{test}/cat/1.jpg", "cat", "test"),
    }


@pytest.mark.parametrize("extra", ["fruits-360", "fruits-360_dataset/fruits-360"])
def test_extra_folders_on_top_are_skipped(extra: str) -> None:
    assert placed(f"{extra}/Training/Apple/1.jpg", f"{extra}/Test/Apple/2.jpg") == {
        (f"{extra}/Training/Apple/1.jpg", "Apple", "train"),
        (f"{extra}/Test/Apple/2.jpg", "Apple", "test"),
    }


def test_an_extra_folder_over_classes_is_skipped_too() -> None:
    assert {label for _, label, _ in placed("photos/cat/1.jpg", "photos/dog/1.jpg")} == {"cat", "dog"}


def test_a_single_class_is_not_taken_for_an_extra_folder() -> None:
    assert placed("cat/1.jpg", "cat/2.jpg") == {("cat/1.jpg", "cat", "train"), ("cat/2.jpg", "cat", "train")}


def test_a_train_folder_alone_is_a_split_and_no_extra_folder() -> None:
    assert placed("train/cat/1.jpg", "train/dog/1.jpg") == {
        ("train/cat/1.jpg", "cat", "train"),
        ("train/dog/1.jpg", "dog", "train"),
    }


def test_a_single_class_under_train_keeps_its_name() -> None:
    paths = ("train/cat/may/1.jpg", "train/cat/june/2.jpg")
    assert {(label, split) for _, label, split in placed(*paths)} == {("cat", "train")}


def test_a_test_split_alone_is_a_split() -> None:
    assert placed("test/cat/1.jpg", "test/dog/1.jpg") == {("test/cat/1.jpg", "cat", "test"), ("test/dog/1.jpg", "dog", "test")}


def test_images_may_lie_deeper_than_the_class_folder() -> None:
    assert placed("cat/2024/may/1.jpg", "dog/1.jpg") == {("cat/2024/may/1.jpg", "cat", "train"), ("dog/1.jpg", "dog", "train")}


def test_images_in_a_test_folder_beside_classes_are_refused_until_their_owner_says_what_they_are() -> None:
    paths = ("test/1.jpg", "other/1.jpg")
    assert refusal(*paths) == (
        "photos: 'test' may be a class like 'other', or images of the test split in no class; write data.layout=class if it is a "
        "class, or else move it elsewhere"
    )
    assert {(item.label, item.split) for item in place_files(paths, "photos", "class").placed} == {
        ("test", "train"),
        ("other", "train"),
    }


def test_files_come_out_sorted_whatever_the_order_they_came_in() -> None:
    paths = ["dog/2.jpg", "cat/9.jpg", "dog/1.jpg"]
    assert [item.path for item in place_files(paths, "photos").placed] == sorted(paths)
    assert place_files(paths[::-1], "photos") == place_files(paths, "photos")


def test_images_of_no_class_are_ignored_with_the_reason() -> None:
    assert ignored("cat/1.jpg", "dog/1.jpg", "logo.jpg") == {"logo.jpg": "lies in no class folder"}
    assert ignored("train/cat/1.jpg", "train/loose.jpg", "test/cat/1.jpg", "papers/cat/1.jpg") == {
        "train/loose.jpg": "lies in no class folder",
        "papers/cat/1.jpg": "lies beside the folders of the splits",
    }
    assert ignored("top/cat/1.jpg", "top/dog/1.jpg", "logo.jpg") == {"logo.jpg": "lies in no class folder"}


@pytest.mark.parametrize(("paths", "expected"), [([], "no images found"), (["1.jpg", "2.jpg"], "images lie in no class folder")])
def test_nothing_to_learn_from_says_what_is_expected(paths: list[str], expected: str) -> None:
    with pytest.raises(UsageError) as error:
        place_files(paths, "photos")
    assert str(error.value) == f"photos: {expected}; expected a folder per class, for example photos/cat/1.jpg"


def test_classes_are_sorted_and_come_from_train() -> None:
    items = [Placed("a", "dog", "train"), Placed("b", "cat", "train"), Placed("c", "cat", "test")]
    assert class_names(items, "photos") == ("cat", "dog")
    assert class_names([Placed("c", "cat", "test")], "photos") == ("cat",)


def test_a_class_outside_train_only_is_named_with_the_nearest_class() -> None:
    items = [Placed("a", "Apple", "train"), Placed("b", "Pear", "train"), Placed("c", "Aple", "test")]
    with pytest.raises(UsageError) as error:
        class_names(items, "photos")
    assert str(error.value) == (
        "photos: the test split has the class 'Aple' that the train split lacks; rename or remove it (did you mean 'Apple'?)"
    )


@pytest.mark.parametrize("path", [".git/1.jpg", "cat/.hidden.jpg", "cat/Thumbs.db", "__MACOSX/cat/1.jpg", "cat/._1.jpg"])
def test_what_operating_systems_leave_behind_is_litter(path: str) -> None:
    assert is_litter(path)


@pytest.mark.parametrize("name", ["@eaDir", "$RECYCLE.BIN", "System Volume Information", "lost+found", ".Trash-1000", "#recycle"])
def test_what_disks_and_network_drives_keep_for_themselves_is_litter(name: str) -> None:
    assert is_litter(f"cat/{name}/1.jpg") and is_litter(name.lower())


def test_other_files_are_no_litter() -> None:
    assert not is_litter("cat/1.jpg") and not is_litter("cat/thumbs.db.jpg")


@pytest.mark.parametrize(
    ("head", "is_image"),
    [
        (b"\xff\xd8\xff\xe0", True),
        (b"\x89PNG\r\n\x1a\n", True),
        (b"GIF89a", True),
        (b"RIFF\x00\x00\x00\x00WEBP", True),
        (b"RIFF\x00\x00\x00\x00WAVE", False),
        (b"hello", False),
        (b"", False),
    ],
)
def test_images_are_known_by_their_first_bytes(head: bytes, is_image: bool) -> None:
    assert looks_like_image(head) is is_image


def test_extensions_count_in_any_case() -> None:
    assert has_image_extension("a/b.JPeG") and not has_image_extension("a/jpg") and not has_image_extension("a.txt")


def test_a_class_may_be_called_train() -> None:
    found = place_files(["bus/1.png", "car/2.png", "train/3.png"], "vehicles")
    assert {(item.label, item.split) for item in found.placed} == {("bus", "train"), ("car", "train"), ("train", "train")}
    assert not found.ignored


STEAM = ("train/diesel/1.png", "train/steam/2.png")


@pytest.mark.parametrize(
    "others", [("bus/1.png", "car/2.png"), ("bus/city/1.png", "car/sedan/2.png"), ("bus/steam/1.png", "bus/diesel/2.png")]
)
def test_a_class_called_train_with_folders_in_it_is_not_taken_for_a_split(others: tuple[str, ...]) -> None:
    with pytest.raises(UsageError) as error:
        place_files([*others, *STEAM], "vehicles")
    assert str(error.value) == (
        "vehicles: 'train' may be a class like 'bus', or the train split with the classes diesel, steam; write data.layout=class "
        "or data.layout=split/class, whichever is true"
    )


def test_train_beside_another_split_is_a_split_whatever_lies_beside_them() -> None:
    paths = (*STEAM, "test/steam/3.png", "papers/1.png", "drafts/x/2.png")
    assert {split for _, _, split in placed(*paths)} == {"train", "test"}
    assert ignored(*paths) == dict.fromkeys(["drafts/x/2.png", "papers/1.png"], "lies beside the folders of the splits")
