"""Work on many images in threads, with progress: decoding and hashing leave Python's lock, so threads share the cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.types import Indices

T = TypeVar("T")
_CHUNK = 128


def in_threads(work: Callable[[int], T], indices: Indices, workers: int | None, label: str) -> Iterator[tuple[Indices, list[T]]]:
    """Yield the results of `work` on some images, a chunk at a time and in order; the threads begin the next one meanwhile.

    The number of threads (`workers`, or one per usable core) changes no result; `label` names the work in the progress.
    """
    chunks = (indices[start : start + _CHUNK] for start in range(0, len(indices), _CHUNK))
    with ThreadPoolExecutor(workers or usable_cores()) as pool, progress.task(label, len(indices)) as advance:
        begun = ((chunk, pool.map(work, chunk.tolist())) for chunk in chunks)
        ahead = next(begun, None)
        try:
            while ahead is not None:
                (chunk, results), ahead = ahead, next(begun, None)
                yield chunk, list(results)
                advance(len(chunk))
        finally:
            pool.shutdown(cancel_futures=True)  # what was begun ahead is not waited for after an error
