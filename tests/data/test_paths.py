from __future__ import annotations

import errno
import io
import json
import os
import tarfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thawlab.data import images
from thawlab.data.listing import Listing
from thawlab.data.openers import openers
from thawlab.data.paths import open_path
from thawlab.data.sources import open_source
from thawlab.errors import ThawlabError, UsageError, listed

Tree = Callable[..., Path]
Encoded = Callable[..., bytes]
FLAT = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
SPLIT = ("train/cat/1.png", "train/cat/2.png", "train/dog/1.png", "test/cat/3.png", "test/dog/2.png")
KAGGLE = tuple(f"fruits-360_dataset/fruits-360/{path}" for path in ("Training/cat/1.png", "Training/dog/1.png", "Test/dog/2.png"))


def refusal(path: Path) -> str:
    with pytest.raises(UsageError) as error:
        open_path(path)
    assert "\n" not in str(error.value)
    return str(error.value)


def pack(folder: Path, kind: str) -> Path:
    """Pack a folder the way people do: with its members relative to it."""
    target = folder.with_name(f"packed.{kind}")
    files = sorted(entry for entry in folder.rglob("*"))
    if kind == "zip":
        with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
            for file in files:
                archive.write(file, file.relative_to(folder))
    else:
        with tarfile.open(target, f"w:{kind.partition('.')[2]}") as archive:
            for file in files:
                archive.add(file, file.relative_to(folder).as_posix(), recursive=False)
    return target


def rows(listing: Listing) -> list[tuple[str, str, str, bytes]]:
    """Return (id, class, split, content) of every image."""
    contents = [listing.images.read(index) for index in range(len(listing))]
    assert all(isinstance(content, bytes) for content in contents)
    labels = [listing.classes[label] for label in listing.labels]
    return list(zip(listing.ids, labels, listing.splits.tolist(), contents, strict=True))  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz", "tar.xz"])
@pytest.mark.parametrize("paths", [FLAT, SPLIT, KAGGLE], ids=["flat", "split", "kaggle"])
def test_folders_and_archives_of_the_same_files_are_the_same_listing(paths: Sequence[str], kind: str, tree: Tree) -> None:
    folder = tree(*paths)
    listing = open_path(folder if kind == "folder" else pack(folder, kind))
    places = {"training": "train", "train": "train", "test": "test"}
    expected = []
    for path in sorted(paths):
        *above, label, _ = path.split("/")
        expected.append((path, label, places.get(above[-1].lower() if above else "train", "train"), (folder / path).read_bytes()))
    assert rows(listing) == expected
    assert listing.classes == ("cat", "dog")
    assert listing.name == ("images" if kind == "folder" else "packed")
    assert listing.ignored == ()


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_other_files_are_ignored_by_name_and_litter_silently(kind: str, tree: Tree) -> None:
    folder = tree(*FLAT)
    (folder / "cat" / "notes.txt").write_text("a note")
    (folder / "README").write_text("read me")
    (folder / "cat" / ".DS_Store").write_text("litter")
    (folder / "__MACOSX").mkdir()
    (folder / "__MACOSX" / "1.png").write_text("litter")
    listing = open_path(folder if kind == "folder" else pack(folder, kind))
    assert listing.ids == FLAT
    assert dict(listing.ignored) == {"README": "is not an image", "cat/notes.txt": "is not an image"}


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_a_image_without_a_images_name_is_found_by_its_content(kind: str, tree: Tree, encoded: Encoded) -> None:
    folder = tree(*FLAT)
    (folder / "cat" / "3.txt").write_bytes(encoded(kind="JPEG"))
    (folder / "dog" / "4").write_bytes(encoded(kind="PNG"))
    assert open_path(folder if kind == "folder" else pack(folder, kind)).ids == (*FLAT[:2], "cat/3.txt", *FLAT[2:], "dog/4")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar", "tar.gz"])
def test_an_empty_class_folder_is_named(kind: str, tree: Tree) -> None:
    folder = tree(*FLAT)
    (folder / "emu").mkdir()
    source = folder if kind == "folder" else pack(folder, kind)
    assert refusal(source) == f"{source}/emu: this class folder is empty; put images into it or remove it"


def test_a_class_folder_with_litter_only_is_empty(tree: Tree) -> None:
    folder = tree(*FLAT)
    (folder / "emu").mkdir()
    (folder / "emu" / ".DS_Store").write_text("litter")
    assert "emu: this class folder is empty" in refusal(folder)


def test_empty_folders_inside_hidden_ones_are_nobodys_business(tree: Tree) -> None:
    folder = tree(*FLAT)
    (folder / ".git" / "refs" / "tags").mkdir(parents=True)
    assert open_path(folder).ids == FLAT


@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_no_images_at_all_is_said(kind: str, tree: Tree) -> None:
    folder = tree("cat/1.png")
    (folder / "cat" / "1.png").rename(folder / "cat" / "1.doc")
    (folder / "cat" / "1.doc").write_text("no image")
    source = folder if kind == "folder" else pack(folder, kind)
    assert refusal(source).startswith(f"{source}: no images found; expected a folder per class")


@pytest.mark.parametrize("kind", ["folder", "zip", "tar.gz"])
def test_a_class_in_test_only_is_named(kind: str, tree: Tree) -> None:
    folder = tree(*SPLIT, "test/doge/1.png")
    source = folder if kind == "folder" else pack(folder, kind)
    assert refusal(source) == (
        f"{source}: the test split has the class 'doge' that the train split lacks; rename or remove it (did you mean 'dog'?)"
    )


def test_a_folder_that_cannot_be_listed_is_no_empty_one(tree: Tree, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tree("cat/1.png", "cat/old/2.png", "dog/1.png", ".git/x/1.png")
    scandir = os.scandir
    broken = folder / "cat" / "old"

    def failing(path: Path) -> Any:
        if Path(path) == broken:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))
        return scandir(path)

    monkeypatch.setattr(os, "scandir", failing)
    with pytest.raises(ThawlabError) as error:
        open_path(folder)
    assert str(error.value) == f"{broken}: this folder cannot be listed: Input/output error; its images would be missed"
    broken = folder / ".git" / "x"
    assert len(open_path(folder)) == 3


def test_a_file_without_an_extension_whose_head_cannot_be_read_just_now_is_not_ignored(
    tree: Tree, encoded: Encoded, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = tree(*FLAT)
    (folder / "cat" / "3").write_bytes(encoded())
    opened, tries = Path.open, []

    def flaky(path: Path, *arguments: Any) -> Any:
        if path.name == "3":
            tries.append(path)
            if len(tries) < 3:
                raise OSError(errno.EIO, os.strerror(errno.EIO))
        return opened(path, *arguments)

    monkeypatch.setattr(images, "_PAUSES", (0, 0, 0))
    monkeypatch.setattr(Path, "open", flaky)
    assert "cat/3" in open_path(folder).ids and len(tries) == 3


def test_linked_class_folders_are_followed_and_circles_are_not(tree: Tree) -> None:
    folder = tree(*FLAT)
    elsewhere = tree("a.png", under="elsewhere")
    (folder / "emu").symlink_to(elsewhere)
    assert "emu/a.png" in open_path(folder).ids
    (folder / "cat" / "again").symlink_to(folder)
    (elsewhere / "back").symlink_to(folder)
    listing = open_path(folder)
    assert listing.ids == (*FLAT, "emu/a.png")
    assert dict(listing.ignored) == dict.fromkeys(["cat/again", "emu/back"], "leads back to a folder that it lies in")


@pytest.mark.parametrize("kind", ["folder", "tar", "tar.gz"])
def test_a_file_name_that_is_not_utf8_is_ignored_and_named(kind: str, tree: Tree, encoded: Encoded) -> None:
    folder = tree(*FLAT)
    with open(os.fsencode(folder) + b"/cat/caf\xe9.png", "wb") as file:  # noqa: PTH123 - a name that no Path takes
        file.write(encoded())
    listing = open_path(folder if kind == "folder" else pack(folder, kind))
    assert listing.ids == FLAT
    assert dict(listing.ignored) == {"cat/caf\\udce9.png": "has a name that is not UTF-8; rename it"}
    json.dumps(listing.ignored, ensure_ascii=False).encode("utf-8")


def test_names_in_any_script_are_kept(tree: Tree) -> None:
    paths = ("кошка/1.png", "犬/Screenshot 10.00\u202fAM.png")
    assert open_path(tree(*paths)).ids == paths


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def scrambled(path: Path) -> None:
    content = bytearray(path.read_bytes())
    middle = len(content) // 2
    content[middle - 40 : middle + 40] = b"\xff" * 80
    path.write_bytes(content)


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def replaced(path: Path) -> None:
    path.write_bytes(b"<html>404 not found</html>" * 40)


@pytest.mark.parametrize("damage", [truncated, emptied, replaced])
@pytest.mark.parametrize("kind", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_damaged_archive_is_named_in_one_line(kind: str, damage: Callable[[Path], None], tree: Tree) -> None:
    source = pack(tree(*FLAT), kind)
    damage(source)
    assert refusal(source).startswith(f"{source}: cannot be read as a {kind[:3]} archive: ")


@pytest.mark.parametrize("kind", ["tar.gz", "tar.xz", "tar.bz2"])
def test_a_compressed_archive_scrambled_inside_is_named_in_one_line(
    kind: str, tmp_path: Path, noise: Callable[..., np.ndarray]
) -> None:
    for number in range(4):
        file = tmp_path / "images" / "cat" / f"{number}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(noise(5000, seed=number).tobytes())
    source = pack(tmp_path / "images", kind)
    scrambled(source)
    assert refusal(source).startswith(f"{source}: cannot be read as a tar archive: ")


def test_a_gzipped_tar_that_is_named_tar_is_read_all_the_same(tree: Tree) -> None:
    folder = tree(*FLAT)
    source = pack(folder, "tar.gz").rename(folder.with_name("named.tar"))
    assert [content for *_, content in rows(open_path(source))] == [(folder / path).read_bytes() for path in FLAT]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("prefix", ["./", "/"])
def test_members_named_from_here_or_from_the_root_are_read(prefix: str, kind: str, tmp_path: Path, encoded: Encoded) -> None:
    source = tmp_path / f"odd.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(source, "w") as archive:
            for path in FLAT:
                archive.writestr(prefix + path, encoded())
    else:
        with tarfile.open(source, "w") as tar:
            for path in FLAT:
                member = tarfile.TarInfo(prefix + path)
                member.size = len(encoded())
                tar.addfile(member, io.BytesIO(encoded()))
    listing = open_path(source)
    assert listing.ids == FLAT
    assert all(content == encoded() for *_, content in rows(listing))


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_member_that_an_archive_holds_twice_is_listed_once_and_the_last_counts(tmp_path: Path, encoded: Encoded) -> None:
    source = tmp_path / "twice.zip"
    with zipfile.ZipFile(source, "w") as archive:
        for path in FLAT:
            archive.writestr(path, encoded())
        archive.writestr(FLAT[0], encoded((1, 2, 3)))
    listing = open_path(source)
    assert listing.ids == FLAT
    assert rows(listing)[0][3] == encoded((1, 2, 3))


def test_links_and_paths_that_leave_the_archive_are_not_followed(tmp_path: Path, encoded: Encoded) -> None:
    source = tmp_path / "sly.tar"
    with tarfile.open(source, "w") as archive:
        for path in (*FLAT, "../../cat/evil.png"):
            member = tarfile.TarInfo(path)
            member.size = len(encoded())
            archive.addfile(member, io.BytesIO(encoded()))
        link = tarfile.TarInfo("cat/link.png")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        archive.addfile(link)
    assert open_path(source).ids == ("cat/1.png", "cat/2.png", "cat/evil.png", *FLAT[2:])  # of the archive itself


@pytest.mark.parametrize("name", ["photos.7z", "photos.txt", "photo.jpg"])
def test_a_file_that_is_no_source_says_what_is(name: str, tmp_path: Path) -> None:
    (tmp_path / name).write_text("x")
    expected = f"{tmp_path / name}: not a source of images; give a folder, or a file that ends in {listed(openers)}"
    assert refusal(tmp_path / name) == expected


# CSV


def manifest(tree: Tree, text: str, encoding: str = "utf-8") -> Path:
    folder = tree(*FLAT)
    (folder / "list.csv").write_text(text, encoding=encoding)
    return folder / "list.csv"


CSV = "path,label,split\ncat/1.png,cat,train\ncat/2.png,cat,test\ndog/1.png,dog,Training\ndog/2.png,dog,val\n"


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig"])
def test_a_csv_gives_path_label_and_split(tree: Tree, encoding: str) -> None:
    file = manifest(tree, CSV, encoding)
    contents = [(file.parent / path).read_bytes() for path in FLAT]
    splits = ["train", "test", "train", "val"]
    assert rows(open_path(file)) == list(zip(FLAT, ["cat", "cat", "dog", "dog"], splits, contents, strict=True))


def test_a_csv_without_splits_is_all_train_and_other_names_of_the_columns_serve(tree: Tree) -> None:
    listing = open_path(manifest(tree, "Class,note, File_Name\na,x,cat/1.png\nb,y,dog/1.png\n"))
    assert [row[:3] for row in rows(listing)] == [("cat/1.png", "a", "train"), ("dog/1.png", "b", "train")]


def test_a_csv_may_name_files_with_blanks(tree: Tree) -> None:
    folder = tree("cat/1.png ", "dog/1.png")
    (folder / "list.csv").write_text("path,label\ncat/1.png ,cat\n dog/1.png ,dog\n")
    assert open_path(folder / "list.csv").ids == ("cat/1.png ", "dog/1.png")


def test_a_csv_may_name_images_by_absolute_path(tree: Tree) -> None:
    folder = tree(*FLAT)
    file = folder.parent / "far.csv"
    file.write_text(f"path,label\n{folder}/cat/1.png,a\n{folder}/dog/1.png,b\n")
    assert rows(open_path(file))[1][3] == (folder / "dog/1.png").read_bytes()


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("path,lable\na,b\n", ": which column is the label? Name it 'label', or write data.label_column=NAME; found lable"),
        ("where,label\na,b\n", ": which column is the path? Name it 'path', or write data.path_column=NAME; found where, label"),
        ("", ": which column is the path? Name it 'path', or write data.path_column=NAME; found none"),
        ("path,label\n", ": lists no images"),
        (CSV.replace(",test", ",tset"), ", line 3: 'tset' is not a split; write train, val or test (did you mean 'test'?)"),
        (CSV.replace(",test", ","), ", line 3: '' is not a split; write train, val or test"),
        (CSV.replace("cat/2.png", "cat/1.png"), ", line 3: 'cat/1.png' is listed twice, in the train and the test split"),
        ("path,label\na.png,x\na.png,y\n", ", line 3: 'a.png' is listed twice, in 'x' and 'y'; keep one of the rows"),
        ("path,label\na.png,\n", ": lists no images with a label"),
        ("path,label\n\n\n,x\n", ", line 4: the path is empty"),
        (CSV.replace("2.png,cat", "2.png,cats"), ": the test split has the class 'cats' that the train split lacks; rename"),
    ],
)
def test_a_wrong_csv_is_refused_with_the_line(text: str, expected: str, tree: Tree) -> None:
    file = manifest(tree, text)
    assert refusal(file).startswith(f"{file}{expected}")


def test_a_csv_that_is_no_text_is_refused(tree: Tree) -> None:
    file = manifest(tree, "")
    file.write_bytes(b"\xff\xfe\x00")
    assert refusal(file).startswith(f"{file}: cannot be read as CSV")


def test_rows_without_a_label_are_left_out_and_equal_rows_count_once(tree: Tree) -> None:
    text = "path,label\ncat/1.png,cat\n\ncat/2.png,\ncat/1.png,cat\ndog/1.png,dog\ndog/2.png\n"
    listing = open_path(manifest(tree, text))
    assert listing.ids == ("cat/1.png", "dog/1.png")
    assert listing.ignored == (("cat/2.png", "has no label"), ("dog/2.png", "has no label"))


# Parquet


def table(
    encoded: Encoded, labels: Sequence[Any], names: Sequence[str] | None = None, column: str = "image", start: int = 0
) -> pa.Table:
    """Make a table as Hugging Face's `datasets` writes it: a struct of bytes and path, and the features as metadata."""
    images = [{"bytes": encoded((start + k, 0, 0)), "path": f"{start + k}.png"} for k in range(len(labels))]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    result = pa.table({column: pa.array(images, kind), "label": pa.array(labels)})
    if names is None:
        return result
    features = {column: {"_type": "Image"}, "label": {"names": list(names), "_type": "ClassLabel"}}
    return result.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


@pytest.fixture
def parquet(tmp_path: Path, encoded: Encoded) -> Path:
    folder = tmp_path / "pets"
    folder.mkdir()
    names = ["dog", "cat"]  # the order of the metadata counts, not the alphabet
    pq.write_table(table(encoded, [0, 1, 1], names), folder / "train-00000-of-00002.parquet")
    pq.write_table(table(encoded, [1, 0], names, start=3), folder / "train-00001-of-00002.parquet")
    pq.write_table(table(encoded, [0, 1], names, start=5), folder / "test-00000-of-00001.parquet")
    return folder


def test_parquet_in_the_layout_of_hugging_face(parquet: Path, encoded: Encoded) -> None:
    listing = open_path(parquet)
    assert listing.classes == ("dog", "cat") and listing.name == "pets"
    assert [row[:3] for row in rows(listing)] == [
        ("test/5.png", "dog", "test"),
        ("test/6.png", "cat", "test"),
        ("train/0.png", "dog", "train"),
        ("train/1.png", "cat", "train"),
        ("train/2.png", "cat", "train"),
        ("train/3.png", "cat", "train"),
        ("train/4.png", "dog", "train"),
    ]
    assert rows(listing)[2][3] == encoded((0, 0, 0))


def test_parquet_may_lie_in_a_data_folder_or_be_a_single_file(parquet: Path) -> None:
    single = open_path(parquet / "train-00000-of-00002.parquet")
    assert single.ids == ("train/0.png", "train/1.png", "train/2.png")
    expected = rows(open_path(parquet))
    parquet.rename(parquet.with_name("data"))
    assert rows(open_path(parquet.parent)) == expected


def test_parquet_with_validation_text_labels_and_no_metadata(tmp_path: Path, encoded: Encoded) -> None:
    pq.write_table(table(encoded, ["cat", "dog"], column="img"), tmp_path / "train.parquet")
    pq.write_table(table(encoded, ["dog"], column="img"), tmp_path / "validation.parquet")
    listing = open_path(tmp_path)
    assert [row[:3] for row in rows(listing)] == [
        ("train/0.png", "cat", "train"),
        ("train/1.png", "dog", "train"),
        ("val/0.png", "dog", "val"),
    ]


def test_parquet_numbers_without_names_are_their_own_names(tmp_path: Path, encoded: Encoded) -> None:
    pq.write_table(table(encoded, [0, 2, 1]), tmp_path / "train.parquet")
    assert open_path(tmp_path).classes == ("0", "1", "2")


def test_equal_names_in_parquet_get_ids_of_their_own(tmp_path: Path, encoded: Encoded) -> None:
    for number in (0, 1):
        pq.write_table(table(encoded, [0, 1]), tmp_path / f"train-{number}.parquet")
    assert open_path(tmp_path).ids == ("train/0.png", "train/1.png", "train/0.png#2", "train/1.png#2")


@pytest.mark.parametrize(
    ("labels", "names", "expected"),
    [
        ([0, 5], ["dog", "cat"], "/train.parquet: the label 5 has no name among the 2 classes of the metadata"),
        ([-1, None], None, ": no row has a label in the column 'label'"),
        ([0, -2], ["dog", "cat"], "/train.parquet: the label -2 has no name among the 2 classes of the metadata"),
        ([0.5, 1.5], None, "/train.parquet: the column 'label' must hold class numbers or class names"),
        ([], None, ": holds no images; its Parquet files have no rows"),
    ],
)
def test_wrong_parquet_labels_are_refused(
    labels: list[Any], names: list[str] | None, expected: str, tmp_path: Path, encoded: Encoded
) -> None:
    pq.write_table(table(encoded, labels, names), tmp_path / "train.parquet")
    assert refusal(tmp_path) == f"{tmp_path}{expected}"


def test_parquet_without_the_columns_says_which_there_are(tmp_path: Path, encoded: Encoded) -> None:
    file = tmp_path / "train.parquet"
    pq.write_table(pa.table({"text": ["a"], "label": [0]}), file)
    assert refusal(tmp_path).startswith(f"{file}: has no column of encoded images") and "text, label" in refusal(tmp_path)
    pq.write_table(table(encoded, [0, 1]).rename_columns(["image", "mood"]), file)
    assert refusal(tmp_path) == f"{file}: which column is the label? Name it 'label', or write data.label_column=NAME; found mood"
    pq.write_table(table(encoded, [0, 1]), file)
    pq.write_table(table(encoded, [0, 1], column="img"), tmp_path / "train2.parquet")
    assert refusal(tmp_path) == f"{tmp_path / 'train2.parquet'}: lacks the column 'image' that train.parquet has"


def test_damaged_parquet_is_named(parquet: Path) -> None:
    truncated(parquet / "train-00001-of-00002.parquet")
    assert refusal(parquet).startswith(f"{parquet / 'train-00001-of-00002.parquet'}: cannot be read as Parquet: ")


# The real ones


def test_the_real_cifar10_is_listed(cifar10: Path) -> None:
    listing = open_source("cifar10", str(cifar10))
    assert listing.classes[0] == "airplane" and len(listing.classes) == 10
    assert len(listing) == len(set(listing.ids)) == 60_000
    for split, count in (("train", 5000), ("test", 1000)):
        assert np.bincount(listing.labels[listing.splits == split]).tolist() == [count] * 10


def test_the_real_fruits360_is_listed(fruits360: Path) -> None:
    listing = open_source("fruits360", str(fruits360))
    assert len(listing.classes) == 95
    assert (int((listing.splits == "train").sum()), int((listing.splits == "test").sum())) == (9_500, 2_850)
    assert listing.images.read(0)[:3] == b"\xff\xd8\xff"


def test_pipes_are_named_and_never_opened(photos: Path) -> None:
    os.mkfifo(photos / "red" / "pipe.png")
    listing = open_path(photos)
    assert len(listing) == 24
    assert ("red/pipe.png", "is not a file") in listing.ignored


def test_hard_links_in_a_tar_are_the_files_they_name(photos: Path) -> None:
    os.link(photos / "red" / "00.png", photos / "red" / "again.png")
    archive = photos.parent / "linked.tar"
    with tarfile.open(archive, "w") as file:
        file.add(photos, "photos")
    listing = open_path(archive)
    assert len(listing) == 25
    images = {name: listing.images.read(index) for index, name in enumerate(listing.ids)}
    assert images["photos/red/again.png"] == images["photos/red/00.png"]


def test_an_empty_folder_beside_images_is_nobodys_class(photos: Path) -> None:
    (photos / "red" / "later").mkdir()
    assert len(open_path(photos)) == 24


@pytest.mark.timeout(20)
def test_a_pipe_in_a_csv_is_refused_and_never_waited_for(photos: Path) -> None:
    os.mkfifo(photos / "pipe.png")
    (photos / "list.csv").write_text("path,label\nred/00.png,red\npipe.png,blue\n")
    listing = open_path(photos / "list.csv")
    with pytest.raises(OSError, match="not a file"):
        listing.images.read(listing.ids.index("pipe.png"))
