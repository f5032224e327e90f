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
