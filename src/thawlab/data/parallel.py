"""Work on many images in threads, with progress: decoding and hashing leave Python's lock, so threads share the cores."""

import threading
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from typing import TypeVar

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.types import Indices

T = TypeVar("T")
_CHUNK = 128
# A thread is handed several images at once, for handing over one costs as much as decoding a small one; so many that all threads
# still end a chunk together.
_RUN, _RUNS_PER_THREAD = 8, 4


def in_threads(work: Callable[[int], T], indices: Indices, workers: int | None, label: str) -> Iterator[tuple[Indices, list[T]]]:
    """Yield the results of `work` on some images, a chunk at a time and in order; the threads begin the next one meanwhile.

    The number of threads (`workers`, or one per usable core) changes no result; `label` names the work in the progress.
    """
    threads = workers or usable_cores()
    size = max(1, min(_RUN, _CHUNK // (_RUNS_PER_THREAD * threads)))
    ended = threading.Event()

    def work_on(run: Sequence[int]) -> list[T]:
        return [work(index) for index in run if not ended.is_set()]

    chunks = (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))
    with ThreadPoolExecutor(threads) as pool, progress.task(label, len(indices)) as advance:
        begun = ((chunk, pool.map(work_on, _runs(chunk.tolist(), size))) for chunk in chunks)
        ahead = next(begun, None)
        try:
            while ahead is not None:
                (chunk, results), ahead = ahead, next(begun, None)
                yield chunk, list(chain.from_iterable(results))
                advance(len(chunk))
        finally:
            ended.set()  # what was begun ahead is not waited for after an error
            pool.shutdown(cancel_futures=True)


def _runs(indices: list[int], size: int) -> Iterator[list[int]]:
    return (indices[start : start + size] for start in range(0, len(indices), size))
