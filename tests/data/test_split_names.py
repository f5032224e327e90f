from __future__ import annotations

import pytest

from thawlab.data.split_names import is_filler, is_fold, split_name, words_of


@pytest.mark.parametrize(
    ("names", "split"),
    [
        (["train", "Training", "TRAIN", "training_set", "Train Set", "trainset", "TrainData", "X_train", "train2017"], "train"),
        (["train_images", "images-train", "imgs.train", "trainval", "train_and_val", "train-00000-of-00006", "trn"], "train"),
        (["val", "valid", "Validation", "imgs-valid", "valset", "dev", "ValidationImages", "val_256", "eval data"], "val"),
        (["test", "Testing", "test_set", "testset", "TestImages", "test-2", "x_test", "holdout", "Test Set (final)"], "test"),
    ],
)
def test_what_people_call_a_split(names: list[str], split: str) -> None:
    for name in names:
        found = split_name(name)
        assert found is not None and (found.split, found.is_plain or name == "train_and_val") == (split, True), name


@pytest.mark.parametrize(
    ("name", "split", "rest"),
    [("seg_train", "train", ("seg",)), ("bullet_train", "train", ("bullet",)), ("covid-test-2020", "test", ("covid",))],
)
def test_what_else_a_name_says_is_kept(name: str, split: str, rest: tuple[str, ...]) -> None:
    assert split_name(name) == (split, rest)


@pytest.mark.parametrize(
    "name",
    ["cat", "", "2017", "trainer", "strain", "contest", "latest", "attestation", "invalid", "value", "train_test_split", "Devon"],
)
def test_other_names_speak_of_no_split(name: str) -> None:
    assert split_name(name) is None


@pytest.mark.parametrize("name", ["fold0", "Fold 3", "FOLD_12", "k-fold-1", "cv2", "split-2", "part_a", "batch 10", "partition3"])
def test_numbered_parts_are_folds(name: str) -> None:
    assert is_fold(name)


@pytest.mark.parametrize("name", ["fold", "folder1", "cvsx", "party", "batches", "cat1", "1", "splitter"])
def test_other_names_are_no_folds(name: str) -> None:
    assert not is_fold(name)


def test_words_are_told_apart_by_case_digits_and_signs() -> None:
    assert words_of("SegTrain_2017-IMGs") == ["seg", "train", "2017", "im", "gs"]
    assert words_of("ＴＲＡＩＮ") == ["train"]  # full width
    assert is_filler("Images") and is_filler("data_set") and not is_filler("cat images") and not is_filler("")
