from __future__ import annotations

import csv
import io
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from thawlab.data.csv_table import read_table
from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.paths import open_path
from thawlab.errors import UsageError

Tree = Callable[..., Path]
FLAT = ("cat/1.png", "cat/2.png", "dog/1.png", "dog/2.png")
ROWS = [("cat/1.png", "cat"), ("cat/2.png", "cat"), ("dog/1.png", "dog"), ("dog/2.png", "dog")]


def listed(tree: Tree, text: str, encoding: str = "utf-8", reading: Reading = UNSAID, name: str = "list.csv") -> Listing:
    file = tree(*FLAT) / name
    file.write_bytes(text.encode(encoding))
    return open_path(file, reading)


@pytest.mark.parametrize("separator", [",", ";", "\t", "|"])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "cp1252"])
def test_separators_and_encodings_as_spreadsheets_write_them(separator: str, encoding: str, tree: Tree) -> None:
    text = "".join(f"{path}{separator}{label.replace('cat', 'Kätzchen')}\r\n" for path, label in [("Path", "Class"), *ROWS])
    listing = listed(tree, text, encoding, name="list.tsv")
    assert listing.ids == FLAT and listing.classes == ("dog", "Kätzchen")
    assert listing.layout == "Path is the path, Class the class"


def test_columns_are_found_by_many_names_or_named_by_the_recipe(tree: Tree) -> None:
    assert listed(tree, "image_id;Species\ncat/1.png;cat\ndog/1.png;dog\n").classes == ("cat", "dog")
    text = "no,where,what\n1,cat/1.png,cat\n2,dog/1.png,dog\n"
    with pytest.raises(UsageError, match=r"which column is the path\? Name it 'path', or write data\.path_column=NAME"):
        listed(tree, text)
    assert listed(tree, text, reading=Reading(path_column="where", label_column="what")).ids == ("cat/1.png", "dog/1.png")
    with pytest.raises(UsageError, match=r"data\.label_column: .* has no column 'wat' \(did you mean 'what'\?\)"):
        listed(tree, text, reading=Reading(path_column="where", label_column="wat"))
    with pytest.raises(UsageError, match=r"data\.layout: has no effect on a table"):
        listed(tree, text, reading=Reading(layout="class"))


@pytest.mark.parametrize(
    "written", ["cat\\1.png", "./cat/1.png", "cat/1", "/home/eve/pets/cat/1.png", "C:\\pets\\cat\\1.png", " cat/1.png "]
)
def test_paths_are_found_as_they_were_meant(written: str, tree: Tree) -> None:
    listing = listed(tree, f"path,label\n{written},cat\ndog/2.png,dog\n")
    assert [Path(name).as_posix() for name in listing.ids] == ["cat/1.png", "dog/2.png"]
    assert listing.images.read(0) == (tree(*FLAT) / "cat/1.png").read_bytes()


def test_ids_without_folder_or_extension_are_found_where_only_one_file_bears_them(tree: Tree) -> None:
    folder = tree("photos/a17.png", "photos/b4.png", "x/1.png", "y/1.png")
    (folder / "list.csv").write_text("id,label\na17,cat\nb4.png,dog\n")
    assert open_path(folder / "list.csv").ids == ("photos/a17.png", "photos/b4.png")
    (folder / "list.csv").write_text("id,label\n1,cat\nz/b4.png,dog\n")
    assert open_path(folder / "list.csv").ids == ("1", "z/b4.png")  # two files of that name; a folder that is not there


def test_a_name_is_found_however_its_letters_are_composed(tree: Tree) -> None:
    folder = tree("photos/Ka\u0308se.png", "photos/b.png")
    (folder / "list.csv").write_text("path,label\nphotos/K\u00e4se.png,cat\nphotos/b.png,dog\n")
    listing = open_path(folder / "list.csv")
    assert listing.ids == ("photos/Ka\u0308se.png", "photos/b.png") and listing.images.read(0)


def test_folds_are_groups_and_flags_are_splits(tree: Tree) -> None:
    listing = listed(tree, "path,label,fold\ncat/1.png,cat,0\ncat/2.png,cat,1\ndog/1.png,dog,0\ndog/2.png,dog,\n")
    assert listing.groups is not None and listing.groups.tolist() == [0, 1, 0, 2]
    assert set(listing.splits) == {"train"} and listing.layout.endswith("fold the group")
    listing = listed(tree, "path,label,is_valid\ncat/1.png,cat,False\ncat/2.png,cat,True\ndog/1.png,dog,0\n")
    assert listing.splits.tolist() == ["train", "val", "train"]
    with pytest.raises(UsageError, match=r"line 2: 'perhaps' in the column 'is_test' is neither True nor False"):
        listed(tree, "path,label,is_test\ncat/1.png,cat,perhaps\n")


def test_splits_are_named_as_folders_are(tree: Tree) -> None:
    text = "path,label,split\ncat/1.png,cat,Training Set\ncat/2.png,cat,test_set\ndog/1.png,dog,train\ndog/2.png,dog,imgs-valid\n"
    assert listed(tree, text).splits.tolist() == ["train", "test", "train", "val"]


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    rows=st.lists(
        st.tuples(st.text(st.characters(codec="cp1252", exclude_characters="\0\r\n"), min_size=1), st.text("abc ,;\t|\"'é€")),
        min_size=2,
    ),
    separator=st.sampled_from(",;\t|"),
    encoding=st.sampled_from(["utf-8", "utf-8-sig", "utf-16", "cp1252"]),
    quoting=st.sampled_from([csv.QUOTE_MINIMAL, csv.QUOTE_ALL, csv.QUOTE_NONNUMERIC]),
    line=st.sampled_from(["\n", "\r\n"]),
)
def test_any_dialect_is_read_back(
    rows: list[tuple[str, str]], separator: str, encoding: str, quoting: int, line: str, tmp_path: Path
) -> None:
    buffer = io.StringIO(newline="")
    writer = csv.writer(buffer, delimiter=separator, quoting=quoting, lineterminator=line)  # type: ignore[arg-type]
    writer.writerows([("path", "label"), *rows])
    file = tmp_path / "any.csv"
    file.write_bytes(buffer.getvalue().encode(encoding))
    try:
        buffer.getvalue().encode(encoding).decode("utf-8")
        alike = encoding != "cp1252"
    except UnicodeDecodeError:
        alike = True
    columns, read = read_table(file)
    assert list(columns) == ["path", "label"]
    if alike or buffer.getvalue().isascii():
        assert [(row["path"], row["label"]) for _, row in read] == rows


@pytest.mark.parametrize("header", ["data set", "data_split", "Split Name", "type", "train_val_test", "fold", "Usage", "what"])
def test_a_column_whose_values_are_splits_says_the_split(header: str, tree: Tree) -> None:
    listing = listed(tree, f"path,{header},label\ncat/1.png,train,cat\ncat/2.png,test,cat\ndog/1.png,Train,dog\n")
    assert listing.splits.tolist() == ["train", "test", "train"] and listing.groups is None
    assert f"{header} the split" in listing.layout


@pytest.mark.parametrize(
    ("header", "values", "expected"),
    [
        ("is_train", ("1", "0", "1"), ["train", "test", "train"]),
        ("IsTraining", ("True", "False", "True"), ["train", "test", "train"]),
        ("is_test", ("0", "1", "0"), ["train", "test", "train"]),
        ("is_validation", ("no", "yes", "no"), ["train", "val", "train"]),
    ],
)
def test_flags_of_many_names_say_the_split(header: str, values: tuple[str, ...], expected: list[str], tree: Tree) -> None:
    rows = zip(("cat/1.png", "cat/2.png", "dog/1.png"), values, ("cat", "cat", "dog"), strict=True)
    text = "".join(f"{path},{value},{label}\n" for path, value, label in rows)
    assert listed(tree, f"path,{header},label\n{text}").splits.tolist() == expected


def test_columns_that_contradict_each_other_are_refused(tree: Tree) -> None:
    text = "path,label,a,b\ncat/1.png,cat,train,test\ndog/1.png,dog,test,train\n"
    with pytest.raises(UsageError, match="a, b each say a split, and not the same; name the right one 'split'"):
        listed(tree, text)
    text = "path,label,is_val,is_test\ncat/1.png,cat,1,1\ndog/1.png,dog,0,0\n"
    with pytest.raises(UsageError, match="line 2: is in several splits"):
        listed(tree, text)


def test_other_columns_say_no_split(tree: Tree) -> None:
    text = "path,label,note,train\ncat/1.png,cat,train,1\ndog/1.png,dog,bus,0\n"
    listing = listed(tree, text)
    assert set(listing.splits) == {"train"} and "split" not in listing.layout


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("path,label\ncat/1.png,Doe, John\ndog/1.png,dog\n", "line 2 has more values than the header has columns (2)"),
        ("path,label\ndog/1.png,dog\na,b.png,cat\n", "line 3 has more values"),
        ('path,label\ncat/1.png,cat\ndog/1.png,"dog\ndog/2.png,dog\n', "line 3: a quote is opened and never closed"),
        ('path,label,note\ncat/1.png,cat,"fine\n"\ndog/1.png,dog,"not\nso\n', "line 4: a quote is opened and never closed"),
    ],
)
def test_rows_that_do_not_fit_the_header_are_refused(text: str, words: str, tree: Tree) -> None:
    with pytest.raises(UsageError) as caught:
        listed(tree, text)
    assert words in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize("other", ["./cat/1.png", "dog/../cat/1.png", "cat//1.png", "ABSOLUTE/cat/1.png"])
def test_one_file_in_two_spellings_is_one_file(other: str, tree: Tree) -> None:
    written = other.replace("ABSOLUTE", str(tree(*FLAT)))
    assert listed(tree, f"path,label\ncat/1.png,cat\n{written},cat\ndog/1.png,dog\n").ids == ("cat/1.png", "dog/1.png")
    with pytest.raises(UsageError, match=r"'cat/1.png' is listed twice, in 'cat' and 'dog'"):
        listed(tree, f"path,label\ncat/1.png,cat\n{written},dog\ndog/1.png,dog\n")


def test_a_file_beside_the_tables_folder_keeps_a_name_that_holds_elsewhere(tree: Tree) -> None:
    folder = tree("images/cat/1.png", "images/dog/1.png", "tables/x.png")
    (folder / "tables" / "list.csv").write_text("path,label\n../images/cat/1.png,cat\n../images/dog/1.png,dog\n")
    assert open_path(folder / "tables" / "list.csv").ids == ("../images/cat/1.png", "../images/dog/1.png")


@pytest.mark.parametrize("before", ["sep=;\n", "# made by hand\n\n", "\n\n", "\ufeff# x\nsep=;\n"])
def test_what_stands_before_the_header_does_not_matter(before: str, tree: Tree) -> None:
    assert listed(tree, f"{before}path;label\ncat/1.png;cat\ndog/1.png;dog\n").ids == ("cat/1.png", "dog/1.png")
    with pytest.raises(UsageError, match=f"line {before.count(chr(10)) + 3} has more values"):
        listed(tree, f"{before}path;label\ncat/1.png;cat\ndog/1.png;dog;x\n")


def test_a_table_without_a_header_says_so(tree: Tree) -> None:
    with pytest.raises(UsageError, match="it has no header; write a first line that names the columns, such as path,label"):
        listed(tree, "cat/1.png,cat\ndog/1.png,dog\n")


def test_a_column_is_named_whatever_its_case_and_blanks(tree: Tree) -> None:
    text = "where , what\ncat/1.png,cat\ndog/1.png,dog\n"
    assert listed(tree, text, reading=Reading(path_column="Where", label_column="what")).ids == ("cat/1.png", "dog/1.png")


def test_files_that_are_not_there_are_counted(tree: Tree) -> None:
    listing = listed(tree, "path,label\ncat/1.png,cat\ndog/1.png,dog\ndog/9.png,dog\n")
    assert listing.notes == ("1 of the 3 files that it lists are not there; the first is dog/9.png",)


def test_one_number_in_two_spellings_is_one_class(tree: Tree) -> None:
    rows = [("cat/1.png", "1"), ("cat/2.png", "1.0"), ("dog/1.png", "2"), ("dog/2.png", "2.50")]
    listing = listed(tree, "path,label\n" + "".join(f"{path},{label}\n" for path, label in rows))
    assert listing.classes == ("1", "2", "2.50")
    assert "'1' and '1.0' are read as one class, '1'" in listing.notes


def test_a_version_number_alone_keeps_its_spelling(tree: Tree) -> None:
    listing = listed(tree, "path,label\ncat/1.png,1.0\ndog/1.png,2.0\n")
    assert listing.classes == ("1.0", "2.0") and listing.notes == ()


def test_a_table_made_to_exhaust_its_reader_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "x.csv"
    file.write_text(",".join(f"c{k}" for k in range(10_001)) + "\n")
    with pytest.raises(UsageError, match="it has 10,001 columns"):
        open_path(file)
    file.write_text(",".join(f"c{k}" for k in range(9_000)) + "\n" + "x\n" * 200)
    with pytest.raises(UsageError, match=r"line \d+: the rows have far fewer values than the header has columns"):
        open_path(file)


def test_names_that_a_terminal_would_obey_are_left_out(tmp_path: Path) -> None:
    (tmp_path / "x.csv").write_text("path,label\n\x1b[31m.png,cat\na.png,d\x07og\nb.png,cat\n" + f"{'n' * 5000}.png,cat\n")
    listing = open_path(tmp_path / "x.csv")
    assert listing.classes == ("cat", "d\\x07og")
    assert listing.ignored == (("\\x1b[31m.png", "has control characters in its name; rename it"),)
