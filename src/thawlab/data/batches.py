"""The order of an epoch, its batches, and the next batch prepared while the current one computes."""

from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import TypeVar

import numpy as np
import torch

from thawlab.data.types import Indices, Labels, Shards
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


def buffered_order(seed: int, phase: int, epoch: int, shards: Shards, buffer: int) -> Indices:
    """Return the order of an epoch in which shards are read one after the other, as a stream with a shuffle buffer has it.

    The shards are drawn in a new order, and what follows one another in it is shuffled, `buffer` samples at a time. A function
    of its arguments alone, so that it is known at every position without reading what comes before.

    Args:
        seed: of the recipe.
        phase: its index.
        epoch: counted from 0.
        shards: int32, the shard of each sample.
        buffer: samples that are shuffled together, at least 2.

    Returns:
        int64, a permutation of the positions in `shards`.
    """
    generator = np.random.default_rng(derive(seed, "buffered-order", phase, epoch))
    ranks = generator.permutation(int(shards.max(initial=0)) + 1)
    order = np.argsort(ranks[shards], kind="stable")
    for start in range(0, len(order), buffer):
        generator.shuffle(order[start : start + buffer])
    return order


def balanced_order(seed: int, phase: int, epoch: int, labels: Labels) -> Indices:
    """Return the order of an epoch of as many samples as there are, in which every class occurs equally often.

    What cannot be shared out evenly goes to classes drawn anew. A small class is gone through again and again, each time in
    a new order; of a large one each epoch draws other samples. A function of its arguments alone.

    Args:
        seed: of the recipe.
        phase: its index.
        epoch: counted from 0.
        labels: int64 class numbers of the samples.

    Returns:
        int64, positions in `labels`, as many as it has.
    """
    generator = np.random.default_rng(derive(seed, "balanced-order", phase, epoch))
    counts = np.bincount(labels)
    classes = np.split(np.argsort(labels, kind="stable"), np.cumsum(counts)[:-1])
    members = [one for one in classes if len(one)]
    share, rest = divmod(len(labels), len(members))
    shares = np.full(len(members), share)
    shares[generator.permutation(len(members))[:rest]] += 1
    drawn = [
        np.concatenate([generator.permutation(own) for _ in range(-(-wanted // len(own)))] or [own[:0]])[:wanted]
        for own, wanted in zip(members, shares.tolist(), strict=True)
    ]
    return generator.permutation(np.concatenate(drawn))


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
    yield from zip(items, ahead(items, prepare, 1), strict=True)


def ahead(items: Iterable[T], work: Callable[[T], R], threads: int) -> Generator[R]:
    """Yield what is made of each item, in order; each of so many threads has begun with a later one meanwhile."""
    left = iter(items)
    with ThreadPoolExecutor(threads) as pool:
        begun = deque(pool.submit(work, item) for item in islice(left, threads))
        while begun:
            made = begun.popleft().result()
            begun.extend(pool.submit(work, item) for item in islice(left, 1))
            yield made
