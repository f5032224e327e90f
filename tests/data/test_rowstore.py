from __future__ import annotations

import errno
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from thawlab.data import rowstore
from thawlab.data.rowstore import RowStore
from thawlab.errors import ThawlabError


def store_in(folder: Path, rows: int = 6) -> RowStore:
    return RowStore(folder / "store", rows, (2, 3), np.float32)


def some(count: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(count, 2, 3)).astype(np.float32)


def test_rows_come_back_as_they_went_also_in_a_store_opened_later(tmp_path: Path) -> None:
    store, rows, indices = store_in(tmp_path), some(3), np.array([4, 0, 2])
    store.write(indices, rows)
    store.commit(indices)
    for opened in (store, store_in(tmp_path)):
        assert np.array_equal(opened.array()[indices], rows)
        assert opened.missing(np.arange(6)).tolist() == [1, 3, 5]
        assert opened.array().shape == (6, 2, 3)


def test_rows_count_only_after_commit(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(np.arange(6), some(6))
    assert not store.marks().any()
    store.commit(np.array([1]))
    store.commit(np.array([3]))
    assert np.flatnonzero(store.marks()).tolist() == [1, 3]


def test_rows_that_are_not_written_take_no_room(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "big", 1000, (1000, 1000), np.uint8)
    store.write(np.array([500]), np.ones((1, 1000, 1000), np.uint8))
    file = tmp_path / "big" / "rows.bin"
    assert file.stat().st_size == 10**9 and file.stat().st_blocks * 512 < 2_000_000


def test_the_array_cannot_be_written_to(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(np.arange(6), some(6))
    before = (tmp_path / "store" / "rows.bin").read_bytes()
    with pytest.raises(ValueError, match="read-only"):
        store.array()[:] = 5
    assert (tmp_path / "store" / "rows.bin").read_bytes() == before


def _resident() -> int:
    """Return how many bytes of mapped files this process holds."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("RssFile")]
    return int(line.split()[1]) * 1024


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="needs Linux's /proc")
def test_taking_all_rows_does_not_fill_the_memory(tmp_path: Path) -> None:
    store = RowStore(tmp_path / "store", 400, (1 << 20,), np.uint8)
    values = (np.arange(400) % 256).astype(np.uint8)
    for start in range(0, 400, 50):
        store.write(np.arange(start, start + 50), np.repeat(values[start : start + 50, None], 1 << 20, axis=1))
    rows, before, most = store.array(), _resident(), 0
    order = np.random.default_rng(0).permutation(400)
    for start in range(0, 400, 8):
        taken = np.take(rows, order[start : start + 8], axis=0)
        assert type(taken) is np.ndarray and taken.flags.writeable
        assert np.array_equal(taken[:, 0], order[start : start + 8].astype(np.uint8))
        most = max(most, _resident() - before)
    assert most < 200 * 2**20  # of 400 MiB


def test_values_are_converted_and_need_not_be_contiguous(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    rows = some(6).astype(np.float64).transpose(0, 2, 1).copy().transpose(0, 2, 1)
    store.write(np.arange(6), rows)
    assert np.array_equal(store.array(), rows.astype(np.float32))


@pytest.mark.parametrize("damage", ["removed", "cut"])
def test_a_store_whose_rows_were_lost_forgets_its_marks(damage: str, tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.write(np.arange(6), some(6))
    store.commit(np.arange(6))
    file = tmp_path / "store" / "rows.bin"
    if damage == "removed":
        file.unlink()
    else:
        os.truncate(file, 30)
    assert len(store_in(tmp_path).missing(np.arange(6))) == 6


def test_damaged_marks_count_for_nothing(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    store.commit(np.arange(6))
    (tmp_path / "store" / "marks.bin").write_bytes(b"\x01\x01")
    assert not store.marks().any()


@pytest.mark.parametrize("most", [5, 17, 1000])
def test_a_disk_that_takes_a_part_gets_the_rest(most: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "pwritev", lambda descriptor, rows, offset: os.pwrite(descriptor, b"".join(rows)[:most], offset))
    store = store_in(tmp_path)
    store.write(np.arange(6), some(6))
    assert np.array_equal(store.array(), some(6))


@given(order=st.permutations(range(12)), count=st.integers(0, 12), together=st.integers(1, 5))
def test_rows_in_any_order_come_to_their_places(order: list[int], count: int, together: int) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(rowstore, "_AT_ONCE", together)
        store = rowstore.RowStore(Path(folder), 12, (3,), np.float32)
        values = np.random.default_rng(0).normal(size=(12, 3)).astype(np.float32)
        store.write(np.array(order[:count], dtype=np.int64), values[order[:count]])
        expected = np.where(np.isin(np.arange(12), order[:count])[:, None], values, 0)
        assert np.array_equal(store.array(), expected)


def test_a_row_of_another_size_is_refused_before_it_reaches_the_next(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(ValueError, match="reshape"):
        store.write(np.arange(1), np.ones((1, 1000), np.float32))
    assert not np.asarray(store.array()).any()


@pytest.mark.parametrize("call", ["pwritev", "fsync"])
def test_a_full_disk_is_said_with_the_way_out_and_no_row_counts(
    call: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: Any) -> int:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    store = store_in(tmp_path)
    monkeypatch.setattr(os, call, full)
    with pytest.raises(ThawlabError) as error:
        store.write(np.arange(6), some(6))
        store.commit(np.arange(6))
    assert str(error.value) == (
        f"{tmp_path / 'store'}: the cache cannot be written: No space left on device; "
        "free some space, or choose another place with --cache-dir"
    )
    assert not store.marks().any()


def test_a_file_in_the_way_is_said(tmp_path: Path) -> None:
    (tmp_path / "store").write_text("not a folder")
    with pytest.raises(ThawlabError, match="the cache cannot be written: File exists"):
        store_in(tmp_path)


def test_two_processes_never_fill_at_the_same_time(tmp_path: Path) -> None:
    """Each of three processes adds one to a file a hundred times, reading and writing under the lock."""
    program = (
        "import sys; from pathlib import Path; import numpy as np; from thawlab.data.rowstore import RowStore\n"
        "folder = Path(sys.argv[1]); store = RowStore(folder / 'store', 6, (2, 3), np.float32); count = folder / 'count'\n"
        "for _ in range(100):\n"
        "    with store.filling():\n"
        "        value = int(count.read_text()); count.write_text(str(value + 1))\n"
    )
    (tmp_path / "count").write_text("0")
    running = [subprocess.Popen([sys.executable, "-c", program, str(tmp_path)]) for _ in range(3)]
    assert [process.wait(60) for process in running] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "300"


HOLD = (
    "import sys; from pathlib import Path; import numpy as np; from thawlab.data.rowstore import RowStore\n"
    "with RowStore(Path(sys.argv[1]), 6, (2, 3), np.float32).filling():\n"
    "    print('held', flush=True); sys.stdin.readline()\n"
)


def test_a_wait_for_another_process_is_said_and_ends_when_that_one_is_killed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store, said = store_in(tmp_path), []
    monkeypatch.setattr(rowstore, "_PATIENCE", 0.1)
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(store.folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as other:
        assert other.stdout is not None and other.stdout.readline() == "held\n"

        def say(message: str) -> None:
            said.append(message)
            other.kill()

        monkeypatch.setattr("thawlab.progress.say", say)
        with store.filling():
            pass
    assert said == [f"waiting for another process that is filling {store.folder}"]


def test_a_lock_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    (store.folder / ".lock").mkdir()
    with pytest.raises(ThawlabError, match="the cache cannot be written: Is a directory"), store.filling():
        pass
