from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.paths import open_path
from thawlab.errors import UsageError

Encoded = Callable[..., bytes]
STRUCT = pa.struct([("bytes", pa.binary()), ("path", pa.string())])


def refusal(path: Path, reading: Reading = UNSAID) -> str:
    with pytest.raises(UsageError) as error:
        open_path(path, reading)
    assert "\n" not in str(error.value)
    return str(error.value)


def columns(encoded: Encoded, count: int, start: int = 0) -> pa.Array:
    return pa.array([{"bytes": encoded((start + k, 0, 0)), "path": f"{start + k}.png"} for k in range(count)], STRUCT)


def write(file: Path, encoded: Encoded, labels: Sequence[Any], start: int = 0) -> None:
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table({"image": columns(encoded, len(labels), start), "label": pa.array(labels)}), file)


def test_of_several_columns_of_images_the_one_called_image_is_taken(tmp_path: Path, encoded: Encoded) -> None:
    file = tmp_path / "x.parquet"
    table = pa.table({"mask": columns(encoded, 2, 100), "image": columns(encoded, 2), "label": ["cat", "dog"]})
    pq.write_table(table, file)
    assert open_path(file).images.read(0) == encoded((0, 0, 0))
    assert open_path(file, Reading(path_column="mask")).images.read(0) == encoded((100, 0, 0))
    pq.write_table(table.rename_columns(["before", "after", "label"]), file)
    assert refusal(file) == f"{file}: which column holds the images, before, after? Write data.path_column=NAME"
    assert "holds no encoded images, but string" in refusal(file, Reading(path_column="label", label_column="label"))


@pytest.mark.parametrize(
    ("names", "splits"),
    [
        (("pets-train.parquet", "pets-test.parquet"), ("train", "test")),
        (("data/train-00000-of-00001.parquet", "data/validation-00000-of-00001.parquet"), ("train", "val")),
        (("default/train/0000.parquet", "default/test/0000.parquet"), ("train", "test")),
        (("train/0.parquet", "test/0.parquet"), ("train", "test")),
        (("a.parquet", "b.parquet"), ("train", "train")),
    ],
)
def test_names_of_files_and_folders_speak_of_splits(
    names: tuple[str, str], splits: tuple[str, str], tmp_path: Path, encoded: Encoded
) -> None:
    for k, name in enumerate(names):
        write(tmp_path / name, encoded, ["cat", "dog"], 2 * k)
    listing = open_path(tmp_path)
    found = {np.asarray(listing.images.read(k)).tobytes(): str(listing.splits[k]) for k in range(4)}
    assert found == {np.asarray(encoded((k, 0, 0))).tobytes(): splits[k // 2] for k in range(4)}


def test_several_data_sets_are_not_mixed(tmp_path: Path, encoded: Encoded) -> None:
    for name in ("plain/train-0.parquet", "cropped/train-0.parquet"):
        write(tmp_path / name, encoded, ["cat", "dog"])
    assert refusal(tmp_path) == f"{tmp_path}: holds several data sets (cropped, plain); name one of the folders as the source"


def test_a_table_among_images_is_no_source(tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "cat" / "meta.parquet", encoded, ["x"])
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir(exist_ok=True)
        (tmp_path / name / "1.png").write_bytes(encoded())
    assert open_path(tmp_path).ids == ("cat/1.png", "dog/1.png")


@pytest.mark.parametrize("labels", [[1, 2, 1, 3], [1355868, 4_000_000_000, 1355868, 7], [1.0, 2.0, 1.0, 3.0], [-5, -3, -5, 0]])
def test_classes_are_the_numbers_that_occur(labels: list[float], tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "x.parquet", encoded, labels)
    listing = open_path(tmp_path)
    known = sorted({int(label) for label in labels})
    assert listing.classes == tuple(map(str, known))
    assert listing.labels.tolist() == [known.index(int(label)) for label in labels]


def test_rows_without_a_label_are_left_out(tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "train.parquet", encoded, [0, 1, None, 1])
    write(tmp_path / "test.parquet", encoded, [-1, -1], 4)
    listing = open_path(tmp_path)
    assert listing.ids == ("train/0.png", "train/1.png", "train/3.png") and listing.classes == ("0", "1")
    assert listing.images.read(2) == encoded((3, 0, 0))
    assert [reason for _, reason in listing.ignored] == ["has no label"] * 3


def test_plain_bytes_are_images_and_paths_are_none(tmp_path: Path, encoded: Encoded) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table({"jpg": [encoded((k, 0, 0)) for k in range(2)], "cls": ["a", "b"]}), file)
    assert "which column is the label?" in refusal(file)
    listing = open_path(file, Reading(label_column="cls"))
    assert listing.images.read(1) == encoded((1, 0, 0)) and listing.ids == ("train/0", "train/1")
    paths = pa.array([{"bytes": None, "path": "a/1.png"}, {"bytes": None, "path": "a/2.png"}], STRUCT)
    pq.write_table(pa.table({"image": paths, "label": ["a", "b"]}), file)
    assert refusal(file).startswith(f"{file}: the column 'image' holds no images, only paths such as 'a/1.png'; ")
    pq.write_table(pa.table({"image": ["a/1.png"], "label": ["a"]}), file)
    assert "where one holds paths, give a CSV with the columns path and label instead" in refusal(file)


def test_a_listing_is_the_same_however_much_else_the_file_holds(tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "a" / "x.parquet", encoded, ["cat", "dog"])
    table = pq.read_table(tmp_path / "a" / "x.parquet")
    (tmp_path / "b").mkdir()
    pq.write_table(table.append_column("embedding", pa.array([[1.0] * 50] * 2)), tmp_path / "b" / "x.parquet")
    one, other = open_path(tmp_path / "a"), open_path(tmp_path / "b")
    assert isinstance(one, Listing) and (one.ids, one.classes) == (other.ids, other.classes)


def write_columns(file: Path, encoded: Encoded, **more: Sequence[Any]) -> None:
    count = len(next(iter(more.values())))
    file.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table({"image": columns(encoded, count), **{name: pa.array(values) for name, values in more.items()}}), file
    )


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("split", ["train", "test", "train", "val"]),
        ("set", ["Training", "Testing", "training", "valid"]),
        ("what", ["train", "test", "train", "val"]),
        ("fold", ["train", "test", "train", "val"]),
    ],
)
def test_a_column_says_the_split_where_there_is_one(name: str, values: list[str], tmp_path: Path, encoded: Encoded) -> None:
    write_columns(tmp_path / "x.parquet", encoded, label=["a", "b", "b", "a"], **{name: values})
    listing = open_path(tmp_path / "x.parquet")
    assert listing.splits.tolist() == ["train", "test", "train", "val"] and listing.groups is None
    assert listing.layout == f"image is the image, label the class, {name} the split"


def test_flags_and_folds_in_columns_count(tmp_path: Path, encoded: Encoded) -> None:
    write_columns(tmp_path / "x.parquet", encoded, label=[0, 1, 0], is_test=[False, True, False], fold=[1, 1, 2])
    listing = open_path(tmp_path / "x.parquet")
    assert listing.splits.tolist() == ["train", "test", "train"]
    assert listing.groups is not None and listing.groups.tolist() == [0, 0, 1]
    texts = [f"a caption of its own, {k}" for k in range(60)]
    write_columns(tmp_path / "y.parquet", encoded, label=[0, 1] * 30, caption=texts)
    assert set(open_path(tmp_path / "y.parquet").splits) == {"train"}


def test_each_file_has_class_names_of_its_own(tmp_path: Path, encoded: Encoded) -> None:
    for name, names in (("train", ["cat", "dog"]), ("test", ["dog", "cat"])):
        features = f'{{"info": {{"features": {{"label": {{"names": ["{names[0]}", "{names[1]}"]}}}}}}}}'
        table = pa.table({"image": columns(encoded, 2), "label": [0, 1]})
        pq.write_table(table.replace_schema_metadata({"huggingface": features}), tmp_path / f"{name}.parquet")
    listing = open_path(tmp_path)
    assert listing.ids == ("test/0.png", "test/1.png", "train/0.png", "train/1.png")
    assert [listing.classes[label] for label in listing.labels] == ["dog", "cat", "cat", "dog"]
    write(tmp_path / "val.parquet", encoded, [0, 1])
    assert "some of its files hold class numbers, others class names" in refusal(tmp_path)


def test_bytes_that_are_no_images_are_none(tmp_path: Path, encoded: Encoded) -> None:
    file = tmp_path / "x.parquet"
    more = {"mask": columns(encoded, 2, 100), "image": [encoded((0, 0, 0)), encoded((1, 0, 0))], "label": ["a", "b"]}
    pq.write_table(pa.table(more), file)
    assert open_path(file).images.read(1) == encoded((1, 0, 0))
    pq.write_table(pa.table({"phash": [b"\1\2\3\4", b"\5\6\7\x08"], "label": ["a", "b"]}), file)
    assert "has no column of encoded images" in refusal(file)
    pq.write_table(pa.table({"phash": [b"\1", b"\2"], "scan": more["image"], "label": ["a", "b"]}), file)
    assert open_path(file).images.read(0) == encoded((0, 0, 0))


def test_no_table_is_overlooked_beside_another(tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "train.parquet", encoded, ["cat", "dog"])
    write(tmp_path / "held" / "test" / "x.parquet", encoded, ["cat", "dog"], 2)
    assert "holds several data sets" in refusal(tmp_path)
    write(tmp_path / "b" / "train.parquet", encoded, ["cat", "dog"])
    write(tmp_path / "b" / "test" / "X.PARQUET", encoded, ["cat", "dog"], 2)
    assert sorted(open_path(tmp_path / "b").splits.tolist()) == ["test", "test", "train", "train"]


def test_tables_and_folders_of_images_are_told_apart(tmp_path: Path, encoded: Encoded) -> None:
    for name in ("cat", "dog"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.png").write_bytes(encoded())
    pq.write_table(pa.table({"name": ["1.png"], "width": [8]}), tmp_path / "features.parquet")
    listing = open_path(tmp_path)
    assert listing.ids == ("cat/1.png", "dog/1.png") and ("features.parquet", "is not an image") in listing.ignored
    write(tmp_path / "train.parquet", encoded, ["cat", "dog"])
    assert refusal(tmp_path) == (
        f"{tmp_path}: holds images both in train.parquet and in folders (cat/1.png); give one of them as the source"
    )


def test_labels_mean_the_same_as_in_a_table(tmp_path: Path, encoded: Encoded) -> None:
    write(tmp_path / "x.parquet", encoded, ["tea ", " tea", "caf\u00e9", "cafe\u0301", "-1", "nan", "cake"])
    listing = open_path(tmp_path / "x.parquet")
    assert listing.classes == ("café", "cake", "tea") and len(listing) == 5


def test_rows_and_sizes_that_no_file_can_hold_are_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.parquet"
    pq.write_table(pa.table([pa.nulls(1_200_000, pa.binary()), pa.nulls(1_200_000, pa.int64())], names=["image", "label"]), file)
    with pytest.raises(UsageError, match="it says that it holds 1,200,000 rows"):
        open_path(file)
    image = pa.DictionaryArray.from_arrays(
        pa.array([0] * 400, pa.int32()), pa.array([b"\x89PNG" + bytes(2_000_000)], pa.binary())
    )
    table = pa.table({"image": image, "label": pa.array([k % 2 for k in range(400)])})
    pq.write_table(table, file, compression="zstd", dictionary_pagesize_limit=1 << 30, store_schema=False)
    with pytest.raises(UsageError, match="cannot be read as Parquet: it unpacks to more than 268 MB"):
        open_path(file)
    file.write_bytes(b"PAR1" + bytes(100) + b"\xff\xff\xff\x7fPAR1")
    with pytest.raises(UsageError, match="its description has 2,147 MB"):
        open_path(file)
