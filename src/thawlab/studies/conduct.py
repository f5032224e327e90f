"""Conduct a study: run the cells that are missing, several at once, until none is left or somebody asks to stop."""

import queue
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from types import FrameType
from typing import Any, NamedTuple

from thawlab import progress
from thawlab.errors import Interrupted
from thawlab.studies.folder import Entry, Record, StudyFolder
from thawlab.studies.live import Table
from thawlab.studies.workers import LocalPool, Pool

_POLL_SECONDS = 0.2
_BUSY_SECONDS = 2.0


class Conducted(NamedTuple):
    """How a study went: cells that were run now, cells that had finished before, and the reasons of those that failed."""

    ran: int
    before: int
    failed: dict[str, str]


class Places(NamedTuple):
    """Where the cells of a study run.

    Attributes:
        at_once: how many on this machine.
        ray: the address of a Ray cluster that runs them in its place, or "local"; empty for none.
        wants_gpu: whether a cell computes on a GPU where the cluster has some.
    """

    at_once: int
    ray: str = ""
    wants_gpu: bool = False

    def pool(self, threads: int, study: StudyFolder) -> Pool:
        """Return what runs them.

        Raises:
            UsageError: if Ray is not installed.
            ThawlabError: if there is no such cluster.
        """
        if not self.ray:
            return LocalPool(self.at_once, threads, study.log)
        from thawlab.studies.ray_pool import RayPool

        return RayPool(self.ray, threads, study.path, self.wants_gpu)


def conduct(study: StudyFolder, record: Record, places: Places) -> Conducted:
    """Run the cells of a study that have not finished, each in the order of the record.

    Raises:
        Interrupted: after every running cell was saved, when a signal asked to stop.
    """
    left = [entry for entry in record.entries if study.status(entry) != "finished"]
    table = Table(study, record)
    failed: dict[str, str] = {}
    if left:
        with pool_of(places, record.threads, study) as pool, table.shown():
            failed = _run_all(study, pool, left, table)
    return Conducted(len(left) - len(failed), len(record.entries) - len(left), failed)


def _run_all(study: StudyFolder, pool: Pool, entries: Sequence[Entry], table: Table) -> dict[str, str]:
    by_name = {entry.run: entry for entry in entries}
    waiting, failed = list(entries), dict[str, str]()
    elsewhere: dict[str, float] = {}
    while waiting or pool.running or elsewhere or not pool.answers.empty():
        for name, when in list(elsewhere.items()):
            if time.monotonic() >= when:  # another process had it; it is finished there, or free again
                del elsewhere[name]
                waiting.append(by_name[name])
        while waiting and pool.has_room:
            entry = waiting.pop(0)
            table.started(entry)
            pool.give(entry.run, study.recipe(entry), study.path)
        answer = next_answer(pool)
        table.refresh()
        if answer is not None:
            name, content = answer
            if content["status"] == "busy":
                elsewhere[name] = time.monotonic() + _BUSY_SECONDS
            elif content["status"] != "finished":
                failed[name] = content.get("reason", "was interrupted by somebody else")
            table.ended(by_name[name], content)
    return failed


def next_answer(pool: Pool) -> tuple[str, dict[str, Any]] | None:
    """Return the next answer of a worker, or None after a moment without one."""
    try:
        return pool.answers.get(timeout=_POLL_SECONDS)
    except queue.Empty:
        return None


@contextmanager
def pool_of(places: Places, threads: int, study: StudyFolder) -> Iterator[Pool]:
    """Yield workers, and end them afterwards; a signal lets the running cells be saved first, a second one does not wait.

    Raises:
        Interrupted: when a signal asked to stop.
    """
    pool = places.pool(threads, study)
    received: list[int] = []

    def receive(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            pool.kill()
        raise Interrupted(f"{study.path}: stopped; run the same command to go on", number)

    watching = threading.current_thread() is threading.main_thread()
    before = {number: signal.signal(number, receive) for number in (signal.SIGINT, signal.SIGTERM)} if watching else {}
    try:
        yield pool
        pool.close()
    except Interrupted:
        progress.say(f"saving {len(pool.running)} running cells; press Ctrl-C again to lose their current epoch")
        pool.stop_all()
        pool.close()
        raise
    except BaseException:
        pool.stop_all()
        pool.close()
        raise
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
