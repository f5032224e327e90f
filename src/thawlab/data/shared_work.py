"""Several processes fill one store of rows together: each computes what no other one is computing.

A process says what it has taken in a file, and holds a lock beside it that its death frees; what a dead one had taken is
given to another.
"""

import os
import platform
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import numpy as np
from filelock import FileLock, Timeout

from thawlab import progress
from thawlab.data.arrays import DAMAGED
from thawlab.data.rowstore import RowStore
from thawlab.data.types import Indices

_POLL_SECONDS, _PATIENCE_SECONDS = 0.05, 1.0


def portions(store: RowStore, indices: Indices, size: int, whole: bool = False) -> Iterator[tuple[int, Indices]]:
    """Yield portions of the rows that a store lacks until it lacks none; the caller writes each before it asks for the next.

    Args:
        store: to be filled.
        indices: the rows that are needed, in order.
        size: of a portion, in rows.
        whole: whether portions are fixed stretches of `indices`, each given with all its rows as soon as one is missing.

    Yields:
        Where the portion starts in `indices` (0 unless `whole`), and its rows.
    """
    if not len(store.missing(indices)):
        return
    waiting_since: float | None = None
    with _claim(store) as claim:
        while True:
            with store.filling():
                start, portion = _next_portion(store, indices, size, whole)
                if len(portion):
                    np.save(claim, portion, allow_pickle=False)
            if len(portion):
                yield start, portion
                with store.filling():
                    store.commit(portion)
                    claim.unlink()
                waiting_since = None
            elif not len(store.missing(indices)):
                return
            else:
                now = time.monotonic()
                if waiting_since is None:
                    waiting_since = now
                elif now - waiting_since > _PATIENCE_SECONDS:
                    progress.say(f"waiting for another process that is filling {store.folder}")
                    waiting_since = float("inf")  # said once
                time.sleep(_POLL_SECONDS)


@contextmanager
def _claim(store: RowStore) -> Iterator[Path]:
    """Yield the file for what this process has taken, under a lock that lasts as long."""
    claim = store.folder / f"claim-{platform.node()}-{os.getpid()}-{threading.get_ident()}.npy"
    lock = FileLock(claim.with_suffix(".lock"))
    with store.filling():
        lock.acquire()
    try:
        yield claim
    finally:
        with store.filling():
            claim.unlink(missing_ok=True)
            lock.release()
            claim.with_suffix(".lock").unlink(missing_ok=True)


def _next_portion(store: RowStore, indices: Indices, size: int, whole: bool) -> tuple[int, Indices]:
    """Return the first portion that nobody has taken, and where it starts; an empty one if there is none."""
    free = ~store.marks()
    free[taken := _taken_by_others(store)] = False
    if not whole:
        return 0, indices[free[indices]][:size]
    for start in range(0, len(indices), size):
        portion = indices[start : start + size]
        if free[portion].any() and not np.isin(portion, taken).any():
            return start, portion
    return 0, indices[:0]


def _taken_by_others(store: RowStore) -> Indices:
    """Return the rows that living processes are computing; forget those of dead ones."""
    taken = [np.zeros(0, dtype=np.int64)]
    for claim in store.folder.glob("claim-*.npy"):
        try:
            with FileLock(claim.with_suffix(".lock"), timeout=0):
                claim.unlink(missing_ok=True)
        except Timeout:
            with suppress(*DAMAGED), claim.open("rb") as file:
                rows = np.lib.format.read_array(file, allow_pickle=False)
                if rows.dtype == np.int64 and rows.ndim == 1 and ((rows >= 0) & (rows < store.rows)).all():
                    taken.append(rows)
    return np.concatenate(taken)
