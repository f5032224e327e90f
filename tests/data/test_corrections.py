from __future__ import annotations

import csv
import errno
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.data import corrections as module
from thawlab.data.content import fingerprint, hash_files
from thawlab.data.corrections import COLUMNS, Changes, Correction, append_correction, changes_of, corrected, read_corrections
from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.data.overview import overview
from thawlab.data.selection import open_data
from thawlab.data.splits import make_splits
from thawlab.errors import BusyError, ThawlabError, UsageError
from thawlab.recipe import Data, System

Tree = Callable[..., Path]
HEADER = ",".join(COLUMNS)
KEY = r"^data\.corrections: "


def listing_of(ids: list[str], labels: list[int], classes: tuple[str, ...] = ("apple", "pear", "fig"), **more: object) -> Listing:
    return Listing(
        name="fruit",
        classes=classes,
        ids=tuple(ids),
        labels=np.array(labels, dtype=np.int64),
        splits=np.array(["train"] * len(ids)),
        images=ArrayImages(np.arange(len(ids), dtype=np.uint8).reshape(-1, 1, 1, 1).repeat(3, axis=3)),
        **more,  # type: ignore[arg-type]
    )


FRUIT = listing_of(["a.png", "b.png", "c.png", "d.png"], [0, 1, 0, 2])


def write(path: Path, text: str) -> Path:
    path.write_bytes(text.encode())
    return path


def labels_of(listing: Listing) -> dict[str, str]:
    return {name: listing.classes[label] for name, label in zip(listing.ids, listing.labels, strict=True)}


def test_rows_are_read_in_order_with_their_lines_and_other_columns_are_passed_over(tmp_path: Path) -> None:
    rows = ["Keep,x,a.png,,", " relabel,,b.png,fig,pear", ",,,,", "exclude,blurred,c.png,,apple", "unsure,,d.png,,"]
    text = "\n".join(["decision,note,ID , label,given", *rows])
    found = read_corrections(write(tmp_path / "list.csv", text))
    assert found == (
        Correction("a.png", "keep"),
        Correction("b.png", "relabel", "fig", given="pear"),
        Correction("c.png", "exclude", given="apple"),
        Correction("d.png", "unsure"),
    )
    assert [one.line for one in found] == [2, 3, 5, 6]


@pytest.mark.parametrize(
    "text", ["\ufeffid,decision,label\r\na.png,relabel,pear\r\n", "sep=;\nid;decision;label\na.png;relabel;pear"]
)
def test_what_spreadsheets_write_is_read(tmp_path: Path, text: str) -> None:
    assert read_corrections(write(tmp_path / "list.csv", text)) == (Correction("a.png", "relabel", "pear"),)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ("a,relable,x", r"list\.csv, line 3: 'relable' is no decision \(did you mean 'relabel'\?\)$"),
        ("a,7,", r"line 3: '7' is no decision \(known: keep, relabel, exclude, unsure\)$"),
        ("a,,", r"line 3: '' is no decision"),
        ("a,relabel,", r"line 3: relabel needs the new class of 'a' in the column 'label'$"),
        ("a,keep,pear", r"line 3: 'a' has the label 'pear', which goes with relabel and not with keep; change one of the two$"),
        (",keep,", r"line 3: the id is empty$"),
        ('a,"ke\nep",', r"line 4: 'ke ep' is no decision"),
        ("a,keep,,,,,x", r"line 3 has more values than the header has columns"),
        ('"a,keep,', r"line 3: a quote is opened and never closed$"),
    ],
)
def test_a_row_that_makes_no_sense_is_named_in_one_line(tmp_path: Path, rows: str, message: str) -> None:
    with pytest.raises(UsageError, match=KEY + ".*" + message) as caught:
        read_corrections(write(tmp_path / "list.csv", f"id,decision,label\nz,unsure,\n{rows}"))
    assert len(str(caught.value).splitlines()) == 1 and caught.value.exit_code == 2


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "needs a column 'id'; found none$"),
        (b"id,decison,label\na,keep,\n", "needs a column 'decision'; found id, decison, label$"),
        (b"id,decision\na,keep\n", "needs a column 'label'; found id, decision$"),
        (b"a.png,keep,\n", "cannot be read as CSV: it has no header"),
        (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR\xff\xd8" * 40, ""),
        (b"\x01\x02\x03,\x04\n", "is no table of text$"),
        (None, r"list\.csv: cannot be read as CSV: .*No such file"),
    ],
)
def test_a_file_that_is_no_table_of_corrections_is_refused(tmp_path: Path, content: bytes | None, message: str) -> None:
    if content is not None:
        (tmp_path / "list.csv").write_bytes(content)
    with pytest.raises(UsageError, match=KEY + ".*" + message) as caught:
        read_corrections(tmp_path / "list.csv")
    assert len(str(caught.value).splitlines()) == 1


def test_the_last_row_of_an_image_holds() -> None:
    rows = [
        Correction("a.png", "exclude"),
        Correction("b.png", "relabel", "fig"),
        Correction("c.png", "exclude"),
        Correction("a.png", "relabel", "pear"),
        Correction("b.png", "keep"),
        Correction("d.png", "unsure"),
    ]
    found = corrected(FRUIT, rows)
    assert labels_of(found) == {"a.png": "pear", "b.png": "pear", "d.png": "fig"}
    assert [int(found.images.read(k)[0, 0, 0]) for k in range(3)] == [0, 1, 3]
    assert found.uncorrected is FRUIT and FRUIT.labels.tolist() == [0, 1, 0, 2]


def test_what_changes_nothing_gives_the_same_listing() -> None:
    rows = [Correction("a.png", "keep"), Correction("b.png", "unsure"), Correction("c.png", "relabel", "apple")]
    assert corrected(FRUIT, rows) is FRUIT and corrected(FRUIT, []) is FRUIT
    assert changes_of(FRUIT) is None


def test_names_with_blanks_are_meant_as_they_are_and_without() -> None:
    listing = listing_of(["a ", "b"], [0, 1])
    found = corrected(listing, [Correction("a ", "relabel", " pear "), Correction(" b", "relabel", "fig", given=" pear")])
    assert labels_of(found) == {"a ": "pear", "b": "fig"}


@pytest.mark.parametrize(
    ("correction", "message"),
    [
        (Correction("a.pgn", "keep", line=7), r"list\.csv, line 7: fruit has no image 'a\.pgn' \(did you mean 'a\.png'\?\)$"),
        (Correction("a.png", "relabel", "paer", line=2), r"line 2: fruit has no class 'paer' \(did you mean 'pear'\?\)$"),
        (Correction("a.png", "relabel", "zzz", line=2), r"line 2: fruit has no class 'zzz' \(classes: apple, pear, fig\)$"),
        (
            Correction("a.png", "keep", given="pear", line=3),
            r"line 3: 'a\.png' was judged when its label was 'pear', and now it is",
        ),
        (Correction("x\ny", "keep"), r"the correction of 'x y': fruit has no image 'x y'$"),
    ],
)
def test_a_correction_of_other_data_is_refused_by_its_row(correction: Correction, message: str) -> None:
    with pytest.raises(UsageError, match=KEY + ".*" + message) as caught:
        corrected(FRUIT, [correction], "list.csv")
    assert caught.value.exit_code == 2


def test_an_image_may_be_judged_again_after_it_was_corrected() -> None:
    first, again = Correction("a.png", "relabel", "pear", given="apple"), Correction("a.png", "relabel", "fig", given="pear")
    assert labels_of(corrected(FRUIT, [first, again]))["a.png"] == "fig"
    assert labels_of(corrected(FRUIT, [first, Correction("a.png", "keep", given="apple")]))["a.png"] == "apple"
    with pytest.raises(UsageError, match="the data changed since"):  # the first was made on another label, too
        corrected(FRUIT, [Correction("a.png", "relabel", "pear", given="fig"), again])
    # A row that was made on a label of long ago does no harm once the image was judged again.
    assert corrected(FRUIT, [Correction("a.png", "keep", given="fig"), Correction("a.png", "keep", given="apple")]) is FRUIT


def test_changes_are_counted_with_those_in_test() -> None:
    rows = [Correction("a.png", "relabel", "pear"), Correction("b.png", "exclude"), Correction("c.png", "relabel", "fig")]
    found = corrected(FRUIT, rows)
    assert changes_of(found) == Changes(2, 1, None)
    changes = changes_of(found, np.array([1, 2, 3]))
    assert changes is not None and changes.line == "corrections: 2 relabelled, 1 excluded (of them 2 in test)"
    assert overview(found)["notes"] == ["corrections: 2 relabelled, 1 excluded"]


def test_the_fingerprint_sees_what_the_table_changes_and_not_what_it_says(tree: Tree, tmp_path: Path) -> None:
    source = tree(*(f"{name}/{number}.png" for name in "ab" for number in range(3)))

    def identity(text: str) -> str:
        file = write(tmp_path / "list.csv", f"id,decision,label\n{text}")
        listing = open_data(Data(source=str(source), corrections=str(file)), System())
        return fingerprint(listing, hash_files(listing).digests)

    plain = open_data(Data(source=str(source)), System())
    assert identity("") == identity("a/1.png,keep,\n") == fingerprint(plain, hash_files(plain).digests)
    texts = ["", "a/1.png,relabel,b\n", "a/1.png,exclude,\n", "a/2.png,exclude,\n", "a/1.png,exclude,\na/2.png,exclude,\n"]
    assert len({identity(text) for text in texts}) == len(texts)


def test_a_table_is_found_beside_the_recipe_and_among_the_photos(tree: Tree, tmp_path: Path) -> None:
    source = tree(*(f"{name}/{number}.png" for name in "ab" for number in range(3)), under="photos")
    append_correction(source / "list.csv", Correction("a/1.png", "relabel", "b", given="a"))
    data, system = Data(source="photos", corrections="photos/list.csv"), System(base_dirs=(str(tmp_path),))
    listing = open_data(data, system)
    assert listing.classes == ("a", "b") and labels_of(listing)["a/1.png"] == "b" and len(listing) == 6
    with pytest.raises(UsageError, match=KEY + "other.csv: cannot be read"):
        open_data(Data(source="photos", corrections="other.csv"), system)


def test_corrections_go_with_a_list_of_excluded_images(tree: Tree, tmp_path: Path) -> None:
    source = tree(*(f"{name}/{number}.png" for name in "abc" for number in range(3)))
    clean = write(tmp_path / "clean.csv", "path\na/0.png\nc/0.png\nc/1.png\nc/2.png\n")
    file = write(tmp_path / "list.csv", "id,decision,label\na/0.png,relabel,b\na/1.png,exclude,\na/2.png,relabel,c\n")
    listing = open_data(Data(source=str(source), exclude=str(clean), corrections=str(file), group=r"(\d)"), System())
    assert labels_of(listing) == {"a/2.png": "c", "b/0.png": "b", "b/1.png": "b", "b/2.png": "b"}
    assert listing.classes == ("b", "c") and listing.groups is not None and listing.groups.tolist() == [2, 0, 1, 2]
    assert listing.notes == ("classes without images are left out: a",)
    assert listing.uncorrected is not None and listing.uncorrected.classes == ("a", "b")
    write(file, "id,decision,label\na/9.png,keep,\n")
    with pytest.raises(UsageError, match=r"has no image 'a/9\.png'"):
        open_data(Data(source=str(source), exclude=str(clean), corrections=str(file)), System())


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.integers(0, 12), st.booleans(), st.sampled_from([None, 40]))
def test_no_correction_moves_an_image_from_one_split_to_another(
    seed: int, count: int, grouped: bool, train_size: int | None
) -> None:
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(50), 2) if grouped else None
    before = listing_of(
        [f"{k:03}" for k in range(100)], rng.permutation(np.arange(100) % 2).tolist(), ("no", "yes"), groups=groups
    )
    rows = [
        Correction(f"{k:03}", *((("exclude",), ("relabel", "yes"), ("relabel", "no"))[int(rng.integers(3))]))
        for k in rng.choice(100, count, replace=False).tolist()
    ]
    after = corrected(before, rows)
    one, other = (make_splits(listing, seed, train_size, 0.1, 0.2) for listing in (before, after))
    out = {row.id for row in rows if row.decision == "exclude"}
    for part, same in zip(one, other, strict=True):
        assert [after.ids[k] for k in same] == [before.ids[k] for k in part if before.ids[k] not in out]


def test_what_corrections_leave_untrained_is_refused() -> None:
    listing = listing_of([str(k) for k in range(20)], [0, 1] * 10, ("no", "yes"))
    with pytest.raises(UsageError, match="no training images of yes"):
        test = set(make_splits(listing, 0, None, 0.1, 0.2).test.tolist())
        make_splits(
            corrected(listing, [Correction(str(k), "exclude") for k in range(1, 20, 2) if k not in test]), 0, None, 0.1, 0.2
        )


names = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\0"), min_size=1, max_size=12) | st.sampled_from(
    ["=1+1", "-a", "+b", "@c", '"', ",", ";", "\r", "\n", "\r\n", " ", "#x", "sep=;", "a\u2028b", "\ufeff", "né.png", "a\\b"]
)


rows_of_names = st.builds(Correction, names, st.just("relabel"), names, names | st.just(""), names | st.just(""), st.just("now"))


@settings(max_examples=150, deadline=None)
@given(st.lists(rows_of_names, max_size=4))
def test_what_is_appended_is_read_back(tmp_path_factory: pytest.TempPathFactory, rows: list[Correction]) -> None:
    file = tmp_path_factory.mktemp("round") / "list.csv"
    append_correction(file, Correction("first", "exclude", time="2026-11-29"))
    for row in rows:
        append_correction(file, row)
    assert read_corrections(file) == (Correction("first", "exclude", time="2026-11-29"), *rows)
    if rows:
        classes = tuple(dict.fromkeys([rows[0].given or "no class", *(row.label for row in rows)]))
        listing = listing_of([row.id for row in rows[:1]], [0], classes)
        assert labels_of(corrected(listing, [read_corrections(file)[1]])) == {rows[0].id: rows[0].label}


def test_a_new_table_has_a_header_and_later_rows_are_added_to_it(tmp_path: Path) -> None:
    file = tmp_path / "deep" / "list.csv"
    append_correction(file, Correction("a.png", "relabel", "pear", "test", "apple", "2026-11-29T12:00:00"))
    append_correction(file, Correction("b, c.png", "keep"))
    assert file.read_text("utf-8") == f'{HEADER}\na.png,relabel,pear,test,apple,2026-11-29T12:00:00\n"b, c.png",keep,,,,\n'


@pytest.mark.parametrize("start", [f"\ufeff{HEADER}\r\nz,keep,,,,\r\n", f"{HEADER}\nz,keep,,,,", HEADER, "", "\ufeff"])
def test_rows_are_added_to_what_a_person_has_touched(tmp_path: Path, start: str) -> None:
    file = write(tmp_path / "list.csv", start)
    append_correction(file, Correction("a.png", "exclude"))
    assert file.read_bytes().startswith(start.encode())
    assert [row.id for row in read_corrections(file)] == (["z"] if "z" in start else []) + ["a.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"path,keep\na,yes\n", f"its first line is not {HEADER}, so that no row is added"),
        (b"id;decision;label;split;given;time\n", "its first line is not"),
        (b"\n", "its first line is not"),
        (b"\x89PNG\r\n", "is not UTF-8"),
        (f"{HEADER}\nz\xe9,keep,,,,\n".encode("latin-1"), "is not UTF-8"),
        (f'{HEADER}\n"z,keep,,,,\n'.encode(), "line 2: a quote is opened and never closed"),
    ],
)
def test_a_file_of_another_kind_is_left_as_it_is(tmp_path: Path, content: bytes, message: str) -> None:
    file = tmp_path / "list.csv"
    file.write_bytes(content)
    with pytest.raises(UsageError, match=message):
        append_correction(file, Correction("a.png", "exclude"))
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("correction", "message"),
    [
        (Correction("a", "relabel"), "relabel needs the new class of 'a'"),
        (Correction("a", "drop"), "'drop' is no decision"),  # type: ignore[arg-type]
        (Correction("", "keep"), "the id is empty"),
        (Correction("a\0", "keep"), "zero byte"),
        (Correction("a\udcff", "keep"), r"'a\\udcff' or its label is not UTF-8"),
    ],
)
def test_a_correction_that_could_not_be_read_is_not_written(tmp_path: Path, correction: Correction, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        append_correction(tmp_path / "list.csv", correction)
    assert not (tmp_path / "list.csv").exists()


def test_a_full_disk_loses_no_row_and_leaves_no_half(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "list.csv"
    append_correction(file, Correction("a.png", "exclude"))
    before = file.read_bytes()

    def full(_: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    with monkeypatch.context() as patch, pytest.raises(ThawlabError, match="cannot be written: No space left on device"):
        patch.setattr(module.os, "fsync", full)
        append_correction(file, Correction("b.png", "exclude"))
    assert file.read_bytes() == before


def test_a_table_that_another_process_keeps_is_not_waited_for_without_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_PATIENCE_SECONDS", 0.05)
    with FileLock(tmp_path / ".list.csv.lock"), pytest.raises(BusyError, match="another process is writing to it"):
        append_correction(tmp_path / "list.csv", Correction("a.png", "exclude"))


def test_several_processes_add_to_one_table(tmp_path: Path) -> None:
    program = (
        "import sys; from pathlib import Path; from thawlab.data.corrections import Correction, append_correction\n"
        "for k in range(40): append_correction(Path(sys.argv[1]), Correction(f'{sys.argv[2]} {k}.png', 'exclude'))"
    )
    file = tmp_path / "list.csv"
    processes = [subprocess.Popen([sys.executable, "-c", program, str(file), name]) for name in "abc"]
    assert [process.wait(timeout=120) for process in processes] == [0, 0, 0]
    with file.open(newline="", encoding="utf-8") as stream:
        rows = list(csv.reader(stream))
    assert rows[0] == list(COLUMNS) and len(rows) == 121
    for name in "abc":
        assert [row[0] for row in rows if row[0].startswith(name)] == [f"{name} {k}.png" for k in range(40)]
