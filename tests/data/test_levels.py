from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.data.layout import Placement, place_files
from thawlab.data.split_names import split_name
from thawlab.errors import UsageError

PETS = ("cat", "dog")


def grid(tops: list[str], inner: tuple[str, ...] | list[str]) -> list[str]:
    """Return two images in each of the inner folders of each top folder; the names differ."""
    return [f"{top}/{name}/{top.replace('/', '-')}-{number}.jpg" for top in tops for name in inner for number in range(2)]


def place(*paths: str, layout: str | None = None) -> Placement:
    return place_files(paths, "photos", layout)


def found(*paths: str, layout: str | None = None) -> tuple[str, set[tuple[str, str]]]:
    placement = place(*paths, layout=layout)
    return placement.layout, {(item.label, item.split) for item in placement.placed}


def refusal(*paths: str) -> str:
    with pytest.raises(UsageError) as error:
        place(*paths)
    assert "\n" not in str(error.value)
    return str(error.value)


def both(train: str = "train", other: str = "test") -> set[tuple[str, str]]:
    return {(label, split) for label in PETS for split in (train, other)}


@pytest.mark.parametrize(
    ("train", "other", "split"),
    [
        ("seg_train", "seg_test", "test"),
        ("training_set", "test_set", "test"),
        ("Train Set", "imgs-valid", "val"),
        ("X_train", "X_test", "test"),
        ("train2017", "val2017", "val"),
        ("trainval", "Test Images", "test"),
        ("flowers-train", "flowers-holdout", "test"),
    ],
)
def test_folders_whose_names_contain_splits_are_splits(train: str, other: str, split: str) -> None:
    assert found(*grid([train, other], PETS)) == ("split/class", both(other=split))


def test_the_layout_of_a_well_known_archive_with_every_folder_twice() -> None:
    paths = [*grid(["seg_train/seg_train", "seg_test/seg_test"], PETS), "seg_pred/seg_pred/1.jpg"]
    assert found(*paths) == ("split/*/class", both())
    assert place(*paths).ignored == [("seg_pred/seg_pred/1.jpg", "lies beside the folders of the splits")]


def test_a_copy_of_everything_beside_the_splits_is_left_out() -> None:
    paths = grid(["train", "test", "chest/train", "chest/test"], PETS)
    assert found(*paths) == ("split/class", both())
    assert len(place(*paths).ignored) == 8


def test_splits_below_the_classes_keep_their_test_images_apart() -> None:
    assert found(*grid(["cat", "dog"], ["train", "test"])) == ("class/split", both())
    assert found(*grid(["pets/cat", "pets/dog"], ["Training", "Validation"])) == ("*/class/split", both(other="val"))


def test_folds_are_groups_above_or_below_the_classes() -> None:
    above = place(*grid([f"fold{k}" for k in range(5)], PETS))
    assert above.layout == "group/class" and {item.group for item in above.placed} == {f"fold{k}" for k in range(5)}
    below = place(*grid(["cat", "dog"], ["Fold 1", "Fold 2"]))
    assert below.layout == "class/group" and {(item.label, item.group) for item in below.placed} == {
        (label, group) for label in PETS for group in ("Fold 1", "Fold 2")
    }
    inside = place(*grid(["train/part1", "train/part2", "test/part1"], PETS))
    assert inside.layout == "split/group/class" and ("cat", "test", "part1") in {item[1:] for item in inside.placed}


@pytest.mark.parametrize(
    ("paths", "words"),
    [
        (grid(["copy1/train", "copy1/test", "copy2/train", "copy2/test"], PETS), "look like data sets side by side"),
        (grid(["copy1", "copy2"], PETS), "hold folders of the same names (cat, dog)"),
        (["cat/1.jpg", "dog/2.jpg", "old/cat/1.jpg", "old/dog/2.jpg"], "'old' holds the same folders as lie beside it"),
        (["train/1.jpg", "test/2.jpg"], "test, train hold images but no folders of classes"),
        (["seg_train/1.jpg", "seg_test/2.jpg"], "seg_test, seg_train hold images but no folders of classes"),
        (["fold1/1.jpg", "fold2/2.jpg"], "fold1, fold2 hold images but no folders of classes"),
        (["train/1.jpg", "test/2.jpg", "bus/3.jpg"], "'test' may be a class like 'bus'"),
        (
            ["cat/1.jpg", "dog/2.jpg", "test/cat/3.jpg", "test/dog/4.jpg"],
            "'test' may be a class like 'cat', or the test split with",
        ),
        (
            grid(["train", "bus"], ["2020", "2021"]),
            "'train' may be a class like 'bus', or the train split with the classes 2020, 2021",
        ),
        (grid(["bullet_train", "crash_test"], ["a", "b"]), "may be a class, or the train split with the classes a, b"),
        (grid(["fold1", "fold2"], ["train", "test"]), "each of fold1, fold2 has splits of its own"),
        (
            ["cat/train/1.jpg", "cat/test/2.jpg", "dog/3.jpg"],
            "photos/dog: holds images outside of the splits that photos/cat has",
        ),
        (["cat/a/train/1.jpg", "cat/a/test/2.jpg", "dog/3.jpg"], "photos/cat/a: holds splits (test, train) below a class"),
        (["train/cat/train/1.jpg", "train/cat/test/2.jpg", "test/cat/3.jpg"], "photos/train/cat: holds splits"),
    ],
)
def test_two_readings_are_refused(paths: list[str], words: str) -> None:
    assert words in refusal(*paths)


@pytest.mark.parametrize(
    "classes", [("steam_train", "freight_train"), ("bullet_train", "crash_test", "bus"), ("train", "bus"), ("part_1", "part_2")]
)
def test_names_that_only_contain_such_a_word_may_be_classes(classes: tuple[str, ...]) -> None:
    assert found(*(f"{name}/1.jpg" for name in classes)) == ("class", {(name, "train") for name in classes})


def test_every_refusal_is_answered_by_a_layout() -> None:
    assert found(*grid(["copy1", "copy2"], PETS), layout="class")[1] == {("copy1", "train"), ("copy2", "train")}
    assert found(*grid(["copy1", "copy2"], PETS), layout="*/class")[1] == {(label, "train") for label in PETS}
    assert found("train/1.jpg", "test/2.jpg", layout="class")[1] == {("train", "train"), ("test", "train")}
    assert found(*grid(["train", "bus"], ["2020", "2021"]), layout="split/class")[1] == {("2020", "train"), ("2021", "train")}
    groups = place(*grid(["site1", "site2"], PETS), layout="group/class")
    assert {item.group for item in groups.placed} == {"site1", "site2"}
    assert found(*grid(["x/cat", "x/dog"], ["train", "test"]), layout="*/class/split")[1] == both()
    assert place(*grid(["train", "bus"], PETS), layout="split/class").ignored[0][1] == "is no folder of a split"
    with pytest.raises(UsageError, match=r"no images lie as deep as data\.layout = '\*/\*/class' says"):
        place("cat/1.jpg", "dog/1.jpg", layout="*/*/class")


WORDS = {
    "train": ["train", "training", "trn"],
    "val": ["val", "valid", "validation", "dev"],
    "test": ["test", "testing", "holdout"],
}
CLASSES = [
    "cat",
    "dog",
    "Apple Red 1",
    "0",
    "10",
    "healthy",
    "2020",
    "köter",
    "n01440764",
    "bus",
    "airplane",
    "contest",
    "strain",
]


@st.composite
def trees(draw: st.DrawFn) -> list[tuple[str, str, str]]:
    """Draw the paths of a data set with splits, each with its true class and split."""
    before = draw(st.sampled_from(["", "seg_", "imgs-", "X_", "my ", "flowers2-"]))
    after = draw(st.sampled_from(["", "_set", " Set", "set", "Images", "-2017", "_data", "2"]))
    case = draw(st.sampled_from([str, str.upper, str.title, str.lower]))
    splits = draw(st.sampled_from([("train", "test"), ("train", "val"), ("train", "val", "test")]))
    names = {split: case(before + draw(st.sampled_from(WORDS[split])) + after) for split in splits}
    classes = draw(st.lists(st.sampled_from(CLASSES), min_size=2, max_size=5, unique=True))
    top = draw(st.sampled_from(["", "archive/", "archive/data/"]))
    deeper = draw(st.sampled_from(["", "raw/", "a/b/"]))
    inner = draw(st.sampled_from(["", "images/", "@same/"]))
    below = draw(st.booleans())
    result = []
    for split, name in names.items():
        for label in classes:
            for number in range(draw(st.integers(1, 2))):
                if below:
                    path = f"{top}{label}/{name}/{number}.jpg"
                else:
                    path = f"{top}{name}/{inner.replace('@same', name)}{label}/{deeper}{number}.jpg"
                result.append((path, label, split))
    if not below and draw(st.booleans()):
        result.append((f"{top}{draw(st.sampled_from(['pred', 'extra', 'unlabelled']))}/1.jpg", "", ""))
    return result


@settings(max_examples=2000, deadline=None)
@given(trees())
def test_no_split_becomes_a_class_and_no_test_image_is_trained_on(tree: list[tuple[str, str, str]]) -> None:
    truth = {path: (label, split) for path, label, split in tree}
    try:
        placement = place_files(truth, "photos")
    except UsageError as error:
        assert "data.layout" in str(error) or "several" in str(error) or "sort" in str(error)
        return
    for item in placement.placed:
        assert split_name(item.label) is None, item
        assert item.split == truth[item.path][1] or not truth[item.path][1], item


@settings(max_examples=300, deadline=None)
@given(trees())
def test_what_has_one_reading_is_read_whole(tree: list[tuple[str, str, str]]) -> None:
    truth = {path: (label, split) for path, label, split in tree if label}
    placement = place_files(truth, "photos")
    assert {item.path: (item.label, item.split) for item in placement.placed} == truth


@pytest.mark.parametrize(
    ("tops", "split"),
    [
        (("asltrain", "asltest"), "test"),
        (("mytrain", "myvalid"), "val"),
        (("train_es", "test_es"), "test"),
        (("entrenamiento", "prueba"), "test"),
        (("Entraînement", "Test"), "test"),
        (("обучение", "тест"), "test"),
        (("обучение", "валидация"), "val"),
        (("训练集", "测试集"), "test"),
        (("訓練データ", "テストデータ"), "test"),
        (("train", "hold_out"), "test"),
        (("TREINO", "Teste"), "test"),
    ],
)
def test_splits_in_other_words_and_languages(tops: tuple[str, str], split: str) -> None:
    assert found(*grid(list(tops), PETS)) == ("split/class", both(other=split))


def test_splits_joined_with_another_word_hold_below_the_classes_too() -> None:
    assert found(*grid(["cat", "dog"], ["mytrain", "mytest"])) == ("class/split", both())
    assert {item.split for item in place("mytrain/cat/1.jpg", "mytrain/dog/2.jpg", "mytest/1.jpg").placed} == {"train"}


@pytest.mark.parametrize("other", ["train_masks", "train_unlabeled", "train - Copy", "training_old2", "masks_train"])
def test_what_else_a_split_is_called_beside_a_plain_one_is_left_out(other: str) -> None:
    paths = [*grid(["train", "test"], PETS), *grid([other], ("cat", "all"))]
    assert found(*paths) == ("split/class", both())
    assert {reason for _, reason in place(*paths).ignored} == {"lies beside 'train', the train split"}


def test_folds_beside_a_test_split_are_what_is_trained_on() -> None:
    beside = place(*grid(["fold_0", "fold_1", "fold_2", "test"], PETS))
    assert {(item.split, item.group) for item in beside.placed} == {
        ("train", "fold_0"),
        ("train", "fold_1"),
        ("train", "fold_2"),
        ("test", ""),
    }
    inside = place(*grid(["train/fold_0", "train/fold_1", "test"], PETS))
    assert {(item.label, item.split, item.group) for item in inside.placed} == {
        (label, *rest) for label in PETS for rest in (("train", "fold_0"), ("train", "fold_1"), ("test", ""))
    }


@pytest.mark.parametrize(
    "paths",
    [
        ["cat/1.png", "cat/test/9.png", "dog/1.png", "dog/test/9.png"],
        ["cat/1.png", "cat/validation/9.png", "dog/1.png"],
        ["train/cat/1.png", "train/cat/test/9.png", "train/dog/1.png"],
        ["cat/a/1.png", "cat/a/test/9.png", "dog/1.png"],
        ["cat/other/1.png", "cat/holdout/9.png", "dog/1.png"],
    ],
)
def test_a_single_split_below_a_class_is_not_trained_on(paths: list[str]) -> None:
    assert "split" in refusal(*paths)


def test_each_class_may_have_one_split_of_its_own() -> None:
    assert found("apple/train/1.png", "pear/test/2.png", "pear/train/3.png") == (
        "class/split",
        {("apple", "train"), ("pear", "test"), ("pear", "train")},
    )


def test_splits_below_the_classes_need_a_layout_that_speaks_of_them() -> None:
    paths = grid(["cat", "dog"], ["train", "test"])
    with pytest.raises(UsageError, match=r"cat: holds splits \(test, train\); write data\.layout=class/split .*=class/\* to"):
        place(*paths, layout="class")
    assert found(*paths, layout="class/split")[1] == both()
    assert found(*paths, layout="class/*")[1] == {(label, "train") for label in PETS}
