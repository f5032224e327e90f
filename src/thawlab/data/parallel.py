"""Work on many images in threads, with progress: decoding and hashing leave Python's lock, so threads share the cores."""

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.types import Indices

T = TypeVar("T")
_CHUNK = 256


def in_threads(work: Callable[[int], T], indices: Indices, workers: int | None, label: str) -> Iterator[tuple[Indices, list[T]]]:
    """Yield the results of `work` on some images, a chunk at a time and in order.

    The number of threads (`workers`, or one per usable core) changes no result; `label` names the work in the progress.
    """
    with ThreadPoolExecutor(workers or usable_cores()) as pool, progress.task(label, len(indices)) as advance:
        for start in range(0, len(indices), _CHUNK):
            chunk = indices[start : start + _CHUNK]
            yield chunk, list(pool.map(work, chunk.tolist()))
            advance(len(chunk))
