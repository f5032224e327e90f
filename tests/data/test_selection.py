from __future__ import annotations

import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from thawlab import check_data
from thawlab.data.content import fingerprint, hash_files
from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.data.paths import open_path
from thawlab.data.selection import chosen, excluded_ids, group_numbers, open_data, without
from thawlab.data.splits import make_splits
from thawlab.errors import UsageError
from thawlab.recipe import Data, System

Tree = Callable[..., Path]


def identity(data: Data) -> str:
    listing = open_data(data, System())
    return fingerprint(listing, hash_files(listing).digests)


def listing_of(ids: list[str], labels: list[int], **more: object) -> Listing:
    return Listing(
        name="fruit",
        classes=("apple", "pear"),
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(["train"] * len(ids)),
        images=ArrayImages(np.arange(len(ids), dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)),
        **more,  # type: ignore[arg-type]
    )


def write(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    return path


def test_a_list_with_keep_takes_out_what_it_does_not_keep(tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", "path,keep,reason\na,yes,\nb,no,blurred\nc,No,\nd,,\n")
    assert excluded_ids(file) == {"b", "c"}
    assert excluded_ids(write(tmp_path / "plain.csv", "id\na\nb\n")) == {"a", "b"}


def test_a_list_that_is_none_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=r"data\.exclude: .*gone\.csv: cannot be read"):
        excluded_ids(tmp_path / "gone.csv")
    with pytest.raises(UsageError, match=r"needs a column 'path'; found colour"):
        excluded_ids(write(tmp_path / "list.csv", "colour\nred\n"))


def test_a_name_with_blanks_is_excluded_as_it_is_and_one_written_with_blanks_too(tmp_path: Path) -> None:
    listing = listing_of(["a.png ", " b.png", "c.png", "d.png"], [0, 1, 0, 1])
    file = write(tmp_path / "list.csv", "path,keep\na.png ,no\n b.png,no\n c.png ,no\n")
    assert without(listing, excluded_ids(file), "list.csv").ids == ("d.png",)


def test_images_keep_their_labels_and_pixels_when_others_leave() -> None:
    listing = listing_of(list("abcd"), [0, 1, 0, 1], columns={"farm": ("x", "y", "z", "w")}, groups=np.array([5, 6, 7, 8]))
    rest = without(listing, {"b"}, "list.csv")
    assert rest.ids == ("a", "c", "d") and rest.labels.tolist() == [0, 0, 1]
    assert [int(rest.images.read(k)[0, 0, 0]) for k in range(3)] == [0, 2, 3]
    assert rest.columns["farm"] == ("x", "z", "w") and rest.groups.tolist() == [5, 7, 8]
    assert without(listing, set(), "list.csv") is listing


def test_a_list_for_other_data_is_refused() -> None:
    with pytest.raises(UsageError, match=r"list\.csv names 'cat\.pn', which fruit does not hold \(did you mean 'cat\.png'\?\)"):
        without(listing_of(["cat.png", "dog.png"], [0, 1]), {"cat.pn"}, "list.csv")


def test_files_are_read_through_the_choice(tree: Tree) -> None:
    listing = open_path(tree("a/1.png", "a/2.png", "b/1.png", "b/2.png"))
    some = chosen(listing, np.array([3, 0]))
    assert [some.images.read(k) for k in range(2)] == [listing.images.read(3), listing.images.read(0)]


def test_what_is_left_out_changes_the_fingerprint_and_so_do_groups(tree: Tree, tmp_path: Path) -> None:
    source = str(tree("a/1.png", "a/2.png", "b/1.png", "b/2.png"))
    file = write(tmp_path / "list.csv", "path\na/2.png\n")
    made = [
        identity(Data(source=source, **more))
        for more in ({}, {"exclude": str(file)}, {"group": r"/(\d)"}, {"exclude": None, "group": None})
    ]
    assert len(set(made)) == 3 and made[0] == made[3]


def test_groups_come_from_a_column_or_a_pattern(tree: Tree) -> None:
    folder = tree("x1_a.png", "x1_b.png", "x2_a.png", "y9_a.png", under="fruit")
    file = write(folder / "list.csv", "path,label,tree\nx1_a.png,0,k\nx1_b.png,0,k\nx2_a.png,1,l\ny9_a.png,1,k\n")
    listing = open_path(file)
    assert group_numbers(listing, "tree").tolist() == [0, 0, 1, 0]
    assert group_numbers(listing, r"^(\w\d)_").tolist() == [0, 0, 1, 2]


@pytest.mark.parametrize(
    ("group", "message"),
    [
        ("tre", r"no column of fruit \(columns: tree\); a pattern needs one group"),
        ("(", "not a pattern either"),
        ("(x)(y)", "one group in parentheses"),
        ("(z)", r"does not fit 'a'"),
    ],
)
def test_a_wrong_grouping_is_explained(group: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        group_numbers(listing_of(["a", "b"], [0, 1], columns={"tree": ("k", "l")}), group)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**6), st.floats(0.05, 0.5), st.floats(0.05, 0.5), st.integers(2, 12), st.integers(1, 7))
def test_a_group_is_never_learnt_from_and_held_out(seed: int, val: float, test: float, groups: int, most: int) -> None:
    rng = np.random.default_rng(seed)
    labels, numbers = [], []
    for label in (0, 1):
        for group in range(groups):
            size = int(rng.integers(1, most + 1))
            labels += [label] * size
            numbers += [100 * label + group] * size
    order = rng.permutation(len(labels))
    listing = listing_of(
        [str(k) for k in range(len(labels))], np.array(labels)[order].tolist(), groups=np.array(numbers, dtype=np.int64)[order]
    )
    splits = make_splits(listing, seed, None, val, test)
    parts = [set(listing.groups[part].tolist()) for part in (splits.train, splits.val, splits.test)]
    assert not parts[0] & parts[1] and not parts[0] & parts[2] and not parts[1] & parts[2]
    assert len(splits.train) + len(splits.val) + len(splits.test) == len(listing)
    assert parts[2] and parts[0]
    smaller = make_splits(listing, seed, max(2, len(splits.train) // 2 + 2), val, test) if len(splits.train) > 6 else splits
    assert set(smaller.train.tolist()) <= set(splits.train.tolist()) and set(smaller.val.tolist()) <= set(splits.val.tolist())
    assert np.array_equal(smaller.test, splits.test)


def test_groups_of_one_split_as_images_without_groups_do() -> None:
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 2, 200).tolist()
    ids = [f"{k:03}" for k in range(200)]
    sizes = [len(part) for part in make_splits(listing_of(ids, labels), 0, None, 0.1, 0.2)]
    grouped = make_splits(listing_of(ids, labels, groups=np.arange(200)), 0, None, 0.1, 0.2)
    assert [len(part) for part in grouped] == sizes


def test_a_class_that_was_emptied_is_left_out_with_a_note(tmp_path: Path) -> None:
    folder = tmp_path / "pets"
    for name in ("cat ", "dog", "emu"):
        (folder / name).mkdir(parents=True)
        for number in range(3):
            Image.new("RGB", (8, 8), (number, len(name), 0)).save(folder / name / f"{number} a.png")
    rows = "".join(f'"dog/{number} a.png",no\n' for number in range(3)) + '"cat /1 a.png",no\n'
    (tmp_path / "list.csv").write_text("path,keep\n" + rows)
    listing = open_data(Data(source=str(folder), exclude=str(tmp_path / "list.csv")), System())
    assert listing.classes == ("cat", "emu") and listing.labels.tolist() == [0, 0, 1, 1, 1]
    assert listing.notes == ("classes without images are left out: dog",)
    assert listing.ids[1] == "cat /2 a.png"


def test_the_list_that_a_check_writes_is_read_back_for_every_kind_of_source(photos: Path, tmp_path: Path) -> None:
    (photos / "red" / " odd; name,1.png").write_bytes((photos / "red" / "00.png").read_bytes())
    archive = tmp_path / "photos.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(photos.rglob("*.png")):
            file.write(path, path.relative_to(photos))
    (tmp_path / "table.csv").write_text(
        "path;label\n" + "".join(f'"{path}";{path.parent.name}\n' for path in sorted(photos.rglob("*.png")))
    )
    for source in (photos, archive, tmp_path / "table.csv"):
        before = open_data(Data(source=str(source)), System())
        file = tmp_path / f"{source.name}-clean.csv"
        check_data(source, write_clean=file)
        after = open_data(Data(source=str(source), exclude=str(file)), System())
        assert len(after) == len(before) - 1 and set(after.ids) < set(before.ids)


def test_a_word_that_is_neither_yes_nor_no_is_refused(tmp_path: Path) -> None:
    file = write(tmp_path / "list.csv", "path,keep\na,yes\nb,nein\n")
    with pytest.raises(UsageError, match=r"list\.csv, line 3: 'nein' in the column 'keep' is neither yes nor no"):
        excluded_ids(file)
