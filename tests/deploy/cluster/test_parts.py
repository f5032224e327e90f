"""The folder of parts holds whole parts of one command, or the command says why it does not touch it."""

from __future__ import annotations

import json
import multiprocessing
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from thawlab.deploy.cluster.parts import SUMMARY, Identity, Part, add_part, held, part_of, parts_in, seal, unseal
from thawlab.deploy.prediction import Prediction
from thawlab.errors import BusyError, ThawlabError, UsageError

OURS = Identity("digest", 2, ("photos",))
ROWS = [Prediction("photos/a.png", ("cat", "dog"), (0.75, 0.25)), Prediction("photos/\udce9.png", error="damaged")]


def part(identity: Identity = OURS, flaws: tuple[str, ...] = ()) -> bytes:
    return part_of(iter(ROWS), identity, list(flaws))


def test_a_part_says_what_it_holds(tmp_path: Path) -> None:
    with held(tmp_path / "a" / "out"):
        folder = tmp_path / "a" / "out"
        assert parts_in(folder, OURS) == {}
        assert add_part(folder, "part-1.parquet", part(flaws=("a.tar: is cut",))) == Part(2, 1, ("a.tar: is cut",))
        assert parts_in(folder, OURS) == {"part-1.parquet": Part(2, 1, ("a.tar: is cut",))}
        seal(folder, OURS, parts_in(folder, OURS))
    summary = json.loads((folder / SUMMARY).read_text())
    assert (summary["count"], summary["failed"], summary["parts"], summary["flaws"]) == (2, 1, 1, ["a.tar: is cut"])
    rows = pq.read_table(folder).to_pylist()  # what lies beside the parts is passed over
    assert [row["source"] for row in rows] == ["photos/a.png", "photos/\\udce9.png"]
    assert [row["probability"] for row in rows] == [0.75, None] and rows[1]["error"] == "damaged"
    unseal(folder)
    assert not (folder / SUMMARY).exists()


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        (Identity("another", 2, ("photos",)), "holds predictions of another model, or with another --engine"),
        (Identity("digest", 3, ("photos",)), "holds predictions with --top-k 3"),
        (Identity("digest", 2, ("photos", "s3://more")), "holds predictions of photos, s3://more"),
    ],
)
def test_another_commands_parts_are_refused(theirs: Identity, words: str, tmp_path: Path) -> None:
    add_part(tmp_path, "part-1.parquet", part(theirs))
    with pytest.raises(UsageError, match=rf"part-1\.parquet: {words}; move it away"):
        parts_in(tmp_path, OURS)


def test_what_is_no_part_is_refused_and_kept(tmp_path: Path) -> None:
    for name in ("notes.txt", "table.parquet", "part-2.parquet", "folder"):
        folder = tmp_path / name.partition(".")[0]
        folder.mkdir()
        if name.endswith(".parquet"):
            pq.write_table(pa.table({"x": [1]}), folder / name)
        elif name == "folder":
            (folder / name).mkdir()
        else:
            (folder / name).write_text("mine")
        with held(folder), pytest.raises(UsageError, match="is none of this command's parts; move it away"):
            parts_in(folder, OURS)
        assert (folder / name).exists()


def test_a_damaged_part_is_named(tmp_path: Path) -> None:
    (tmp_path / "part-1.parquet").write_bytes(part()[:-9])
    with pytest.raises(ThawlabError, match=r"part-1\.parquet: is damaged; delete it, and the same command predicts"):
        parts_in(tmp_path, OURS)


def test_a_part_is_whole_or_absent(tmp_path: Path) -> None:
    (tmp_path / ".part-1.parquet.99.tmp").write_bytes(part()[:100])  # of a process that was killed
    with held(tmp_path):
        assert parts_in(tmp_path, OURS) == {}
        assert not list(tmp_path.glob("*.tmp"))


def _hold(folder: Path, ready: object, done: object) -> None:
    with held(folder):
        ready.set()  # type: ignore[attr-defined]
        done.wait(60)  # type: ignore[attr-defined]


def test_two_processes_do_not_write_into_one_folder(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    ready, done = context.Event(), context.Event()
    other = context.Process(target=_hold, args=(tmp_path / "out", ready, done))
    other.start()
    assert ready.wait(60)
    with pytest.raises(BusyError, match="another process is predicting into it"), held(tmp_path / "out"):
        pass
    done.set()
    other.join()
    with held(tmp_path / "out"):
        pass


def test_what_cannot_be_written_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    with pytest.raises(UsageError, match="is a file; with --ray predictions go to a folder"), held(tmp_path / "file"):
        pass
    with pytest.raises(ThawlabError, match="cannot be written"), held(Path("/proc/no/out")):
        pass
