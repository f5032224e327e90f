"""The order of an epoch, its batches, and the next batch prepared while the current one computes."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import torch

from thawlab.randomness import derive

T = TypeVar("T")
R = TypeVar("R")


def epoch_order(seed: int, phase: int, epoch: int, count: int) -> torch.Tensor:
    """Return the order of an epoch's samples, a function of its arguments alone.

    Returns:
        int64, a permutation of 0 … count − 1.
    """
    generator = torch.Generator().manual_seed(derive(seed, "order", phase, epoch))
    return torch.randperm(count, generator=generator)


def alternating_turns(seed: int, phase: int, epoch: int, count: int) -> torch.Tensor:
    """Return which samples are seen mirrored in an epoch: a random half in the first, the others in the next, and so on.

    Two epochs in a row so show each sample once either way (Jordan 2024, airbench), where a fair coin would often repeat.

    Returns:
        bool, `count` values.
    """
    generator = torch.Generator().manual_seed(derive(seed, "alternate-flip", phase))
    return (torch.rand(count, generator=generator) < 0.5) ^ bool(epoch % 2)


def batch_spans(count: int, batch_size: int) -> list[tuple[int, int]]:
    """Cut an epoch into spans of at most `batch_size`; a last span of one sample joins the one before it.

    BatchNorm cannot be trained on a single value per channel, and a gradient from one sample would be an outlier.
    """
    spans = [(start, min(start + batch_size, count)) for start in range(0, count, batch_size)]
    if len(spans) > 1 and spans[-1][1] - spans[-1][0] == 1:
        spans[-2:] = [(spans[-2][0], count)]
    return spans


def prefetched(items: Sequence[T], prepare: Callable[[T], R], threaded: bool = True) -> Iterator[tuple[T, R]]:
    """Yield each item with what is prepared of it, preparing the next one in a thread meanwhile.

    Without a thread (`threaded` is false) each is prepared when it is asked for: small batches take less time than passing
    them on.
    """
    if not (threaded and items):
        yield from zip(items, map(prepare, items), strict=True)
        return
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(prepare, items[0])
        for index, item in enumerate(items):
            ready = future.result()
            if index + 1 < len(items):
                future = pool.submit(prepare, items[index + 1])
            yield item, ready
