"""The pictures of a block are those that stand in it, once each, also where a shard ends in the middle."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from packing import encoded, named_pictures, parquet_of, shard_of, tar_of, write_folder

from thawlab.deploy.cluster import places, reading
from thawlab.deploy.cluster.blocks import Block, blocks_of
from thawlab.deploy.cluster.places import UnreachedError
from thawlab.deploy.cluster.reading import pictures_of, predicted
from thawlab.deploy.opening import open_predictor
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError
from thawlab.run import RunFolder


@pytest.fixture(scope="module")
def predictor(shapes_run: RunFolder) -> Predictor:
    return open_predictor(shapes_run, "cpu")


@pytest.fixture
def memory() -> Iterator[Any]:
    storage = fsspec.filesystem("memory")
    yield storage
    storage.store.clear()


def contents(blocks: list[Block]) -> tuple[dict[str, bytes], list[str]]:
    """Return the pictures of some blocks by their names, and the flaws."""
    found: dict[str, bytes] = {}
    flaws: list[str] = []
    for block in blocks:
        for name, content in pictures_of(block, flaws):
            assert name not in found
            found[name] = content if isinstance(content, bytes) else content()
    return found, flaws


def of_tar(content: bytes, folder: Path, name: str = "a.tar") -> tuple[dict[str, bytes], list[str]]:
    (folder / name).write_bytes(content)
    found, flaws = contents(blocks_of([str(folder / name)]))
    start = f"{folder / name}/"
    assert all(key.startswith(start) for key in found)
    return {key.removeprefix(start): value for key, value in found.items()}, flaws


@pytest.mark.parametrize("form", ["folder", "w", "w:gz", "w:bz2", "w:xz", "parquet", "bytes"])
@pytest.mark.parametrize("remote", [False, True])
def test_every_form_gives_the_same_pictures(form: str, remote: bool, memory: Any, tmp_path: Path) -> None:
    pictures = named_pictures(70)
    if form == "folder":
        files = {f"in/{name}": content for name, content in pictures.items()}
    elif form in {"parquet", "bytes"}:
        files = {"in/a.parquet": parquet_of(pictures, plain=form == "bytes")}
    else:
        files = {f"in/a.tar{form.replace('w', '').replace(':', '.')}": shard_of(pictures, form)}
    write_folder(tmp_path, files)
    for name, content in files.items():
        memory.pipe(f"/{name}", content)
    found, flaws = contents(blocks_of(["memory://in" if remote else str(tmp_path / "in")]))
    assert list(found.values()) == [pictures[name] for name in (sorted(pictures) if form == "folder" else pictures)]
    assert not flaws
    begin = "memory://in" if remote else str(tmp_path / "in")
    first = {"folder": "", "parquet": "/a.parquet#0", "bytes": "/a.parquet#0"}.get(form, "/" + next(iter(files))[3:])
    assert next(iter(found)) == begin + first + ("" if form == "bytes" else "/0/00000.png")


def test_a_shard_cut_anywhere_gives_what_stands_before_the_cut(tmp_path: Path) -> None:
    pictures = named_pictures(6)
    whole = shard_of(pictures)
    with tarfile.open(fileobj=io.BytesIO(whole)) as archive:
        ends = [member.offset_data + member.size for member in archive if member.name in pictures]
        end = max(member.offset_data + -(-member.size // 512) * 512 for member in archive)
    assert of_tar(whole, tmp_path) == (pictures, [])
    assert of_tar(whole[: end + 512], tmp_path) == (pictures, [])  # the mark of the end is there
    for cut in [*range(0, end + 512, 173), *range(0, end + 1, 512)]:
        found, [flaw] = of_tar(whole[:cut], tmp_path)
        assert list(found.items()) == list(pictures.items())[: sum(one <= cut for one in ends)]
        assert f"a.tar: is damaged after {len(found)} pictures" in flaw and "fetch it again" in flaw


@pytest.mark.parametrize("form", ["w:gz", "w:bz2", "w:xz"])
def test_a_compressed_shard_that_is_cut_says_so(form: str, tmp_path: Path) -> None:
    pictures, name = named_pictures(30), f"a.tar.{form[2:]}"
    whole = shard_of(pictures, form)
    for cut in range(0, len(whole) - 1, len(whole) // 9):
        found, [flaw] = of_tar(whole[:cut], tmp_path, name)
        assert list(found.items()) == list(pictures.items())[: len(found)]
        assert "is damaged after" in flaw
    spoilt = bytearray(whole)
    spoilt[len(whole) // 2] ^= 255
    found, [flaw] = of_tar(bytes(spoilt), tmp_path, name)
    assert "is damaged after" in flaw


def test_a_shard_spoilt_in_the_middle_says_so(tmp_path: Path) -> None:
    pictures = named_pictures(6)
    whole = bytearray(shard_of(pictures))
    with tarfile.open(fileobj=io.BytesIO(bytes(whole))) as archive:
        header = archive.getmember("0/00003.png").offset
    whole[header : header + 512] = b"\xff" * 512
    found, [flaw] = of_tar(bytes(whole), tmp_path)
    assert list(found) == list(pictures)[:3] and "is damaged after 3 pictures" in flaw


def test_what_is_no_tar_file_says_so(tmp_path: Path) -> None:
    found, [flaw] = of_tar(b"no archive at all" * 100, tmp_path)
    assert found == {} and "a.tar: is damaged after 0 pictures" in flaw


def test_a_name_that_stands_twice_counts_once_and_is_told(tmp_path: Path) -> None:
    first, second = encoded(1), encoded(2)
    found, [flaw] = of_tar(tar_of([("0/a.png", first), ("0/b.png", second), ("./0/a.png", second)]), tmp_path)
    assert found == {"0/a.png": first, "0/b.png": second}
    assert "1 names stand in it twice, the first is 0/a.png; the pictures that came first count" in flaw


def test_links_are_the_pictures_that_they_lead_to(tmp_path: Path) -> None:
    def with_links(mode: str) -> bytes:
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode=mode) as archive:  # type: ignore[call-overload]
            info = tarfile.TarInfo("0/a.png")
            info.size = len(encoded(1))
            archive.addfile(info, io.BytesIO(encoded(1)))
            for name, kind, target in (
                ("0/hard.png", tarfile.LNKTYPE, "0/a.png"),
                ("1/soft.png", tarfile.SYMTYPE, "../0/a.png"),
                ("1/gone.png", tarfile.SYMTYPE, "nowhere.png"),
            ):
                link = tarfile.TarInfo(name)
                link.type, link.linkname = kind, target
                archive.addfile(link)
        return buffer.getvalue()

    flaws: list[str] = []
    (tmp_path / "a.tar").write_bytes(with_links("w"))
    (tmp_path / "b.tar.gz").write_bytes(with_links("w:gz"))
    plain, compressed = ([*pictures_of(block, flaws)] for block in blocks_of([str(tmp_path)]))
    assert [picture.content for picture in plain[:3]] == [encoded(1)] * 3
    for picture, reason in [(plain[3], "which the archive lacks"), (compressed[1], "in an archive that is compressed")]:
        assert callable(picture.content)
        with pytest.raises(OSError, match=reason):
            picture.content()
    assert flaws == [] and len(compressed) == 4


def test_a_connection_that_is_cut_is_not_the_end_of_a_shard(memory: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "_PAUSES", (0.0, 0.0, 0.0))
    monkeypatch.setattr(places, "_PIECE", 4096)
    pictures = named_pictures(30)
    memory.pipe("/a.tar", shard_of(pictures))
    memory.pipe("/a.parquet", parquet_of(pictures))
    [shard], [table] = blocks_of(["memory://a.tar"]), blocks_of(["memory://a.parquet"])
    right, count, ever = type(memory).cat_file, 0, 3

    def cat_file(self: Any, path: str, start: int | None = None, end: int | None = None, **more: Any) -> bytes:
        nonlocal count
        count += 1
        content: bytes = right(self, path, start, end, **more)
        return content if count % ever else content[: len(content) // 2]

    monkeypatch.setattr(type(memory), "cat_file", cat_file)
    for block in (shard, table):
        found, flaws = contents([block])
        assert list(found.values()) == list(pictures.values()) and flaws == []
    ever = 1
    for block in (shard, table):
        with pytest.raises(UnreachedError, match="tried 4 times"):
            contents([block])


def test_a_damaged_page_of_a_table_is_one_line(tmp_path: Path) -> None:
    whole = bytearray(parquet_of(named_pictures(30)))
    (tmp_path / "a.parquet").write_bytes(bytes(whole))
    blocks = blocks_of([str(tmp_path / "a.parquet")])
    whole[4:400] = b"\xff" * 396
    (tmp_path / "a.parquet").write_bytes(bytes(whole))
    with pytest.raises(ThawlabError, match=r"a\.parquet: cannot be read as Parquet: .*; fetch it again") as told:
        contents(blocks)
    assert "\n" not in str(told.value)


def test_a_picture_that_this_node_does_not_see_is_no_row(tmp_path: Path) -> None:
    folder = write_folder(tmp_path / "photos", named_pictures(3))
    [block] = blocks_of([str(folder)])
    (folder / "1/00001.png").unlink()
    with pytest.raises(UnreachedError, match=r"photos/1/00001\.png: was listed, and cannot be found here"):
        contents([block])
    with pytest.raises(UnreachedError, match="cannot be read here: No such file"):
        contents([block._replace(kind="tar", place=str(tmp_path / "gone.tar"))])


@pytest.mark.parametrize("form", ["folder", "tar", "parquet"])
def test_predictions_are_those_of_predict_to_the_bit(
    form: str, predictor: Predictor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pictures = named_pictures(300) | {"1/bad.png": b"no image", "1/empty.png": b"", "2/cut.png": encoded(3)[:200]}
    folder = write_folder(tmp_path / "photos", pictures)
    sources = {"folder": folder, "tar": tmp_path / "a.tar", "parquet": tmp_path / "a.parquet"}
    sources["tar"].write_bytes(shard_of(pictures))
    sources["parquet"].write_bytes(parquet_of(pictures))
    monkeypatch.setattr(reading, "_PORTION", 64)  # other neighbours in a batch than `predict` gives
    expected = {one.source: one for one in predictor.stream([folder / name for name in pictures], 3)}
    flaws: list[str] = []
    found = [one for block in blocks_of([str(sources[form])]) for one in predicted(predictor, pictures_of(block, flaws), 3, 2)]
    assert len(found) == len(pictures) and flaws == []
    for one in found:
        name = next(name for name in ("/".join(one.source.split("/")[-2:]),) if name in pictures)
        other = expected[str(folder / name)]
        assert (one.classes, one.probabilities, one.prediction_set) == (other.classes, other.probabilities, other.prediction_set)
        assert (one.unsure, one.novel, one.error) == (other.unsure, other.novel, other.error)
        assert one.image is None
    assert sum(one.error is not None for one in found) == 3


def test_few_pictures_are_held_at_a_time(predictor: Predictor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "_PORTION", 8)
    taken, content = 0, encoded(1)

    def endless() -> Iterator[reading.Picture]:
        nonlocal taken
        while True:
            taken += 1
            yield reading.Picture(str(taken), content)

    stream = predicted(predictor, endless(), 1, 2)
    most = 0
    for number in range(1, 100):
        next(stream)
        most = max(most, taken - number)
    stream.close()  # type: ignore[attr-defined]
    assert most <= 2 * 8 + 2 * reading._ASKED_AT_ONCE


def test_gpu_or_not_the_numbers_are_of_one_kind(predictor: Predictor) -> None:
    [one] = predicted(predictor, iter([reading.Picture("a", encoded(1))]), 3, 1)
    assert np.isclose(sum(one.probabilities), 1) or len(one.classes) < len(predictor.classes)
    assert all(isinstance(value, float) for value in one.probabilities)
