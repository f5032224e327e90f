"""Work on many images in threads, with progress: decoding and hashing leave Python's lock, so threads share the cores."""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.types import Indices

T = TypeVar("T")
_CHUNK = 128
# A thread is handed several images at once, since handing over takes Python's lock; so many that all threads still end a chunk
# together.
_RUN, _RUNS_PER_THREAD = 8, 4


def in_threads(work: Callable[[int], T], indices: Indices, workers: int | None, label: str) -> Iterator[tuple[Indices, list[T]]]:
    """Yield the results of `work` on some images, a chunk at a time and in order; the threads begin the next one meanwhile.

    The number of threads (`workers`, or one per usable core) changes no result; `label` names the work in the progress.
    """
    threads = workers or usable_cores()
    size = max(1, min(_RUN, _CHUNK // (_RUNS_PER_THREAD * threads)))
    ended = threading.Event()

    def work_on(run: Indices) -> list[T]:
        return [work(index) for index in run.tolist() if not ended.is_set()]

    with ThreadPoolExecutor(threads) as pool, progress.task(label, len(indices)) as advance:
        begun = ((chunk, pool.map(work_on, _cut(chunk, size))) for chunk in _cut(indices, _CHUNK))
        ahead = next(begun, None)
        try:
            while ahead is not None:
                (chunk, results), ahead = ahead, next(begun, None)
                yield chunk, list(chain.from_iterable(results))
                advance(len(chunk))
        finally:
            ended.set()  # what was begun ahead is not waited for after an error
            pool.shutdown(cancel_futures=True)


def _cut(indices: Indices, size: int) -> Iterator[Indices]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
