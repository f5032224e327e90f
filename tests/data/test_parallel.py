"""Work in threads: in order, the next chunk begun while one is taken care of, and nothing waited for after an error."""

import threading
import time

import numpy as np
import pytest

from thawlab.data.parallel import in_threads


@pytest.mark.parametrize("count", [0, 1, 128, 129, 1000])
@pytest.mark.parametrize("workers", [1, 3])
def test_every_image_is_worked_on_once_and_in_order(count: int, workers: int) -> None:
    indices = np.random.default_rng(0).permutation(count)
    parts = list(in_threads(lambda index: index * 2, indices, workers, ""))
    assert [index for chunk, _ in parts for index in chunk.tolist()] == indices.tolist()
    assert [result for _, results in parts for result in results] == (indices * 2).tolist()


def test_the_next_chunk_is_begun_while_one_is_taken_care_of() -> None:
    beyond = threading.Event()
    parts = in_threads(lambda index: beyond.set() if index >= 128 else None, np.arange(1000), 1, "")
    next(parts)
    assert beyond.wait(10)
    parts.close()  # type: ignore[attr-defined]


def test_an_error_ends_the_work_at_once() -> None:
    done: list[int] = []

    def work(index: int) -> None:
        if index == 3:
            raise ValueError("damaged")
        done.append(index)
        time.sleep(0.01)

    with pytest.raises(ValueError, match="damaged"):
        list(in_threads(work, np.arange(100_000), 2, ""))
    assert len(done) < 100
