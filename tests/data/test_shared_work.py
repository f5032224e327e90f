from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from thawlab.data import shared_work
from thawlab.data.rowstore import RowStore
from thawlab.data.shared_work import portions

ROWS = 400


def store_in(folder: Path) -> RowStore:
    return RowStore(folder / "store", ROWS, (2,), np.float32)


def fill(store: RowStore, indices: np.ndarray, size: int, whole: bool = False) -> list[tuple[int, list[int]]]:
    given = []
    for start, portion in portions(store, indices, size, whole):
        store.write(portion, np.repeat(portion[:, None], 2, axis=1))
        given.append((start, portion.tolist()))
    return given


def test_one_process_is_given_what_is_missing_in_order(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    assert fill(store, np.array([1, 3]), 10) == [(0, [1, 3])]
    assert fill(store, np.arange(7), 3) == [(0, [0, 2, 4]), (0, [5, 6])]
    assert fill(store, np.arange(7), 3) == []
    assert np.array_equal(store.array()[:7, 0], np.arange(7))
    assert not list(store.folder.glob("claim-*"))


def test_whole_portions_keep_their_places(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    order = np.array([9, 8, 7, 6, 5])
    fill(store, np.array([9, 8, 6]), 10)
    assert fill(store, order, 2, whole=True) == [(2, [7, 6]), (4, [5])]


def test_what_was_given_but_not_written_is_given_again(tmp_path: Path) -> None:
    store = store_in(tmp_path)
    with pytest.raises(RuntimeError):
        for _ in portions(store, np.arange(4), 2):
            raise RuntimeError("a failure while computing")
    assert not store.marks().any()
    assert fill(store, np.arange(4), 2) == [(0, [0, 1]), (0, [2, 3])]


WORKER = (
    "import sys, time; from pathlib import Path; import numpy as np\n"
    "from thawlab.data.rowstore import RowStore; from thawlab.data.shared_work import portions\n"
    f"store = RowStore(Path(sys.argv[1]) / 'store', {ROWS}, (2,), np.float32)\n"
    "print('ready', flush=True); sys.stdin.readline()\n"
    f"for start, portion in portions(store, np.arange({ROWS}), 10, sys.argv[2] == 'whole'):\n"
    "    print(*portion, flush=True)\n"
    "    time.sleep(0.02); store.write(portion, np.repeat(portion[:, None], 2, axis=1))\n"
)


def start_worker(folder: Path, mode: str = "rows") -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(folder), mode]
    worker = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert worker.stdout is not None and worker.stdout.readline() == "ready\n"
    return worker


@pytest.mark.parametrize("mode", ["rows", "whole"])
def test_three_processes_share_the_rows_and_compute_none_twice(tmp_path: Path, mode: str) -> None:
    workers = [start_worker(tmp_path, mode) for _ in range(3)]
    for worker in workers:
        assert worker.stdin is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
    done = [[int(row) for row in (worker.communicate(timeout=60)[0] or "").split()] for worker in workers]
    assert sorted(row for rows in done for row in rows) == list(range(ROWS))
    assert sum(len(rows) > 0 for rows in done) >= 2  # on a busy machine one may come too late
    assert np.array_equal(store_in(tmp_path).array()[:, 0], np.arange(ROWS))


def test_what_a_killed_process_had_taken_is_given_to_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said: list[str] = []
    monkeypatch.setattr(shared_work, "_PATIENCE_SECONDS", 0.1)
    program = WORKER.replace("time.sleep(0.02)", "time.sleep(600)")
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path), "rows"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as worker:
        assert worker.stdin is not None and worker.stdout is not None
        worker.stdin.write("go\n")
        worker.stdin.flush()
        worker.stdout.readline()
        taken = [int(row) for row in worker.stdout.readline().split()]

        def say(message: str) -> None:
            said.append(message)
            worker.kill()

        monkeypatch.setattr("thawlab.progress.say", say)
        given = fill(store_in(tmp_path), np.arange(20), 5)
    assert taken == list(range(10))
    assert given == [(0, [10, 11, 12, 13, 14]), (0, [15, 16, 17, 18, 19]), (0, [0, 1, 2, 3, 4]), (0, [5, 6, 7, 8, 9])]
    assert said == [f"waiting for another process that is filling {tmp_path / 'store'}"]
