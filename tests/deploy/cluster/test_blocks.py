"""Sources cut into blocks: every picture in one of them, whatever lies beside it, and the same ones whoever asks."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from packing import encoded, named_pictures, parquet_of, shard_of, write_folder

from thawlab.cli.main import app
from thawlab.deploy.cluster import blocks as blocks_module
from thawlab.deploy.cluster.blocks import Block, _block_size, _spans, blocks_of
from thawlab.deploy.cluster.reading import pictures_of
from thawlab.deploy.predictor import image_files
from thawlab.errors import UsageError


@pytest.fixture
def memory() -> Iterator[Any]:
    """An empty storage in this process's memory."""
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()
    storage.pseudo_dirs[:] = [""]


def shown(blocks: list[Block]) -> list[str]:
    return [block.shown + name for block in blocks for name in block.names]


def test_a_folder_is_what_predict_takes_it_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_folder(tmp_path / "photos", named_pictures(100))
    extra = {
        "notes.txt": b"text",
        "table.parquet": b"x",
        "old.tar": b"x",
        "no-extension": encoded(7),
        ".hidden/a.png": encoded(8),
    }
    write_folder(tmp_path / "photos", extra)
    monkeypatch.chdir(tmp_path)
    for source in ("photos", "./photos/", str(tmp_path / "photos"), "photos/0"):
        assert shown(blocks_of([source])) == [str(file) for file in image_files([source])]
    assert len(blocks_of(["photos"])) == 4  # of 32
    assert shown(blocks_of(["photos/0/00000.png"])) == ["photos/0/00000.png"]


def test_an_address_is_listed_as_a_folder_is(memory: Any, tmp_path: Path) -> None:
    pictures = named_pictures(40) | {"no-extension": encoded(7)}
    write_folder(tmp_path / "photos", pictures | {"notes.txt": b"text", ".hidden.png": b""})
    for name, content in (pictures | {"notes.txt": b"text", ".hidden.png": b""}).items():
        memory.pipe(f"/bucket/photos/{name}", content)
    there = blocks_of(["memory://bucket/photos"])
    here = blocks_of([str(tmp_path / "photos")])
    assert [block.names for block in there] == [block.names for block in here]
    assert shown(there)[0] == "memory://bucket/photos/0/00000.png"
    assert shown(blocks_of(["memory://bucket/photos/0/00000.png"])) == ["memory://bucket/photos/0/00000.png"]
    with pytest.raises(UsageError, match="memory://bucket/nothing: holds neither pictures nor tar shards nor Parquet files"):
        blocks_of(["memory://bucket/nothing"])


def test_shards_and_tables_are_found_alone_in_folders_and_by_wildcards(memory: Any, tmp_path: Path) -> None:
    files = {f"train-{k}.tar": shard_of(named_pictures(3, 3 * k)) for k in range(3)} | {
        "x.parquet": parquet_of(named_pictures(30))
    }
    write_folder(tmp_path / "in", files)
    for name, content in files.items():
        memory.pipe(f"/in/{name}", content)
    kinds = ["tar"] * 3 + ["parquet"]
    assert [block.kind for block in blocks_of([str(tmp_path / "in")])] == kinds
    assert [block.kind for block in blocks_of(["memory://in"])] == kinds
    found = [block.shown.removeprefix("memory://").lstrip("/") for block in blocks_of(["memory://in/train-*.tar"])]
    assert found == [f"in/train-{k}.tar" for k in range(3)]
    [table] = blocks_of(["memory://in/x.parquet"])
    assert (table.groups, table.column) == ((0, 3), "image")


def test_the_index_beside_shards_is_no_table_of_pictures(photos: Path, tmp_path: Path) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("sys.argv", ["thawlab", "data", "shards", str(photos), str(tmp_path / "shards")])
        with pytest.raises(SystemExit) as left:
            app()
    assert not left.value.code and (tmp_path / "shards" / "index.parquet").exists()
    blocks = blocks_of([str(tmp_path / "shards")])
    flaws: list[str] = []
    assert len({picture.name for block in blocks for picture in pictures_of(block, flaws)}) == 24 and flaws == []


def test_nothing_is_in_two_blocks(tmp_path: Path) -> None:
    write_folder(tmp_path / "photos", named_pictures(50))
    folder = str(tmp_path / "photos")
    names = shown(blocks_of([folder, f"{folder}/1", f"{folder}/1/00001.png"]))
    assert sorted(names) == sorted(set(names)) and len(names) == 50


def test_parts_are_named_by_what_is_in_them(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(100))

    def parts() -> list[str]:
        return [block.part for block in blocks_of([str(folder)])]

    before = parts()
    assert before == parts() and len(set(before)) == 4
    write_folder(folder, {"2/99999.png": encoded(1)})  # sorted last: only the last block has one more
    assert parts()[:3] == before[:3] and parts()[3] != before[3]
    (folder / "0/00000.png").write_bytes(encoded(5000))
    assert parts()[0] != before[0] and parts()[1:3] == before[1:3]


def test_a_shard_of_the_same_size_written_anew_is_another_one(tmp_path: Path) -> None:
    shard = tmp_path / "a.tar"
    shard.write_bytes(shard_of({"0/a.png": encoded(1)}))
    [before] = blocks_of([str(shard)])
    os.utime(shard, ns=(1, 1))
    [after] = blocks_of([str(shard)])
    assert before.size == after.size and before.part != after.part


@given(st.lists(st.integers(1, 60), max_size=40), st.integers(1, 100))
def test_row_groups_are_each_in_one_span_and_spans_are_not_too_large(rows: list[int], most: int) -> None:
    spans = list(_spans(rows, most))
    assert [number for start, end in spans for number in range(start, end)] == list(range(len(rows)))
    assert all(sum(rows[start:end]) <= most or end - start == 1 for start, end in spans)


@given(st.integers(0, 10**7))
def test_a_block_is_never_too_large_and_rarely_changes(total: int) -> None:
    size = _block_size(total)
    assert blocks_module._LEAST <= size <= blocks_module._MOST
    assert size in {blocks_module._LEAST, blocks_module._MOST} or 64 <= total / size < 128


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("a.zip", b"PK", r"is a zip archive.*unpack it"),
        ("a.parquet", b"PAR1 and no more", r"a\.parquet: cannot be read as Parquet: .*fetch it again"),
        ("a.parquet", b"", r"a\.parquet: cannot be read as Parquet"),
    ],
)
def test_what_is_none_of_these_is_one_line(name: str, content: bytes, message: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UsageError, match=message) as told:
        blocks_of([str(tmp_path / name)])
    assert "\n" not in str(told.value)


def test_what_is_not_there_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "photos").mkdir()
    with pytest.raises(UsageError, match=r"there is no such file or folder \(did you mean 'photos'"):
        blocks_of([str(tmp_path / "photso")])
    with pytest.raises(UsageError, match="holds neither pictures"):
        blocks_of([str(tmp_path / "photos")])
    with pytest.raises(UsageError, match="nosuch://x: cannot be read here"):
        blocks_of(["nosuch://x"])


def test_a_table_without_pictures_is_one_line(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    pq.write_table(pa.table({"label": [1]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"a\.parquet: has no column of encoded images"):
        blocks_of([str(tmp_path / "a.parquet")])
    pq.write_table(pa.table({"left": [encoded(1)], "right": [encoded(2)]}), tmp_path / "a.parquet")
    with pytest.raises(UsageError, match=r"which column holds the images, left, right\? Call the one image"):
        blocks_of([str(tmp_path / "a.parquet")])


def test_the_order_of_a_storages_listing_decides_nothing(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, content in named_pictures(80).items():
        memory.pipe(f"/photos/{name}", content)
    expected = blocks_of(["memory://photos"])
    find = type(memory).find

    def shuffled(self: Any, *args: Any, **more: Any) -> Any:
        found = list(find(self, *args, **more).items())
        random.Random(1).shuffle(found)
        return dict(found)

    monkeypatch.setattr(type(memory), "find", shuffled)
    assert blocks_of(["memory://photos"]) == expected
