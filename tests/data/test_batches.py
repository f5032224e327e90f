from __future__ import annotations

import threading

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from thawlab.data.batches import alternating_turns, balanced_order, batch_spans, buffered_order, epoch_order, prefetched


@given(st.integers(0, 2**40), st.integers(0, 10), st.integers(0, 1000), st.integers(0, 300))
def test_the_order_is_a_permutation_and_a_function_of_its_arguments(seed: int, phase: int, epoch: int, count: int) -> None:
    state = torch.get_rng_state()
    order = epoch_order(seed, phase, epoch, count)
    assert order.dtype == torch.int64 and sorted(order.tolist()) == list(range(count))
    torch.rand(3)  # draws from elsewhere must not matter
    assert torch.equal(order, epoch_order(seed, phase, epoch, count))
    torch.set_rng_state(state)


def test_the_order_draws_nothing_from_the_global_generator() -> None:
    state = torch.get_rng_state()
    epoch_order(0, 0, 0, 100)
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_every_seed_phase_and_epoch_has_an_order_of_its_own(other: tuple[int, int, int]) -> None:
    assert not torch.equal(epoch_order(0, 0, 0, 100), epoch_order(*other, 100))


@given(st.integers(0, 2**40), st.integers(0, 10), st.integers(0, 300))
def test_each_sample_is_mirrored_in_every_second_epoch(seed: int, phase: int, count: int) -> None:
    turns = [alternating_turns(seed, phase, epoch, count) for epoch in range(4)]
    assert torch.equal(turns[0], ~turns[1]) and torch.equal(turns[0], turns[2]) and torch.equal(turns[1], turns[3])
    if count > 60:
        assert 0.2 < float(turns[0].float().mean()) < 0.8


@given(st.integers(0, 500), st.integers(1, 120))
def test_spans_cover_every_sample_exactly_once_and_end_on_no_lonely_one(count: int, batch_size: int) -> None:
    spans = batch_spans(count, batch_size)
    assert [index for start, stop in spans for index in range(start, stop)] == list(range(count))
    lengths = [stop - start for start, stop in spans]
    assert all(length == batch_size for length in lengths[:-1])
    assert all(0 < length <= batch_size + 1 for length in lengths[-1:])
    if len(lengths) > 1:
        assert lengths[-1] > 1


def test_a_last_sample_alone_joins_the_batch_before_it() -> None:
    assert batch_spans(9, 4) == [(0, 4), (4, 9)]
    assert batch_spans(10, 4) == [(0, 4), (4, 8), (8, 10)]
    assert batch_spans(1, 4) == [(0, 1)]


def test_items_come_in_order_with_what_was_prepared_for_them() -> None:
    pairs = [(item, int(value)) for item, value in prefetched([3, 1, 2], lambda item: torch.tensor(10 * item))]
    assert pairs == [(3, 30), (1, 10), (2, 20)]
    assert list(prefetched([], torch.tensor)) == []


def test_the_next_item_is_prepared_while_the_current_one_is_in_use() -> None:
    started = [threading.Event() for _ in range(3)]

    def prepare(item: int) -> torch.Tensor:
        started[item].set()
        return torch.tensor(item)

    for item, _ in prefetched([0, 1, 2], prepare):
        if item < 2:
            assert started[item + 1].wait(10)
            assert not any(event.is_set() for event in started[item + 2 :])


def test_an_error_while_preparing_reaches_the_one_who_waits_for_the_item() -> None:
    def prepare(item: int) -> torch.Tensor:
        if item == 1:
            raise OSError("gone")
        return torch.tensor(item)

    batches = prefetched([0, 1, 2], prepare)
    assert next(batches)[0] == 0
    with pytest.raises(OSError, match="gone"):
        next(batches)


@given(st.integers(0, 2**40), st.integers(0, 10), st.integers(0, 1000), st.lists(st.integers(0, 40), min_size=1, max_size=8))
def test_a_balanced_order_shows_every_class_and_every_image_of_a_class_as_often(
    seed: int, phase: int, epoch: int, counts: list[int]
) -> None:
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(len(counts)), counts))
    if not len(labels):
        return
    state = torch.get_rng_state()
    order = balanced_order(seed, phase, epoch, labels)
    assert order.dtype == np.int64 and len(order) == len(labels)
    shown = np.bincount(labels[order], minlength=len(counts))
    present = np.array(counts) > 0
    assert np.ptp(shown[present]) <= 1 and not shown[~present].any()
    times = np.bincount(order, minlength=len(labels))
    assert all(np.ptp(times[labels == label]) <= 1 for label in np.flatnonzero(present))
    assert np.array_equal(order, balanced_order(seed, phase, epoch, labels))
    assert torch.equal(state, torch.get_rng_state())


@pytest.mark.parametrize("other", [(1, 0, 0), (0, 1, 0), (0, 0, 1)])
def test_every_seed_phase_and_epoch_has_a_balanced_order_of_its_own(other: tuple[int, int, int]) -> None:
    labels = np.repeat(np.arange(3), [50, 40, 10])
    assert not np.array_equal(balanced_order(0, 0, 0, labels), balanced_order(*other, labels))
    assert set(np.concatenate([balanced_order(0, 0, epoch, labels) for epoch in range(20)]).tolist()) == set(range(100))


@settings(max_examples=50, deadline=None)
@given(
    counts=st.lists(st.integers(0, 7), min_size=1, max_size=9),
    buffer=st.integers(2, 30),
    seed=st.integers(0, 5),
    epoch=st.integers(0, 3),
)
def test_a_shuffle_buffer_reads_shards_one_after_the_other(counts: list[int], buffer: int, seed: int, epoch: int) -> None:
    shards = np.repeat(np.arange(len(counts)), counts)
    order = buffered_order(seed, 0, epoch, shards, buffer)
    assert sorted(order.tolist()) == list(range(len(shards)))
    assert np.array_equal(order, buffered_order(seed, 0, epoch, shards, buffer))
    # Within a buffer only the shards of a stretch of the epoch's order of shards occur.
    seen: list[int] = []
    for start in range(0, len(order), buffer):
        now = set(shards[order[start : start + buffer]].tolist())
        assert not now & set(seen[:-1])  # a shard that was left behind does not come back
        seen += [shard for shard in sorted(now) if shard not in seen]
        last = set(shards[order[start + buffer :]].tolist()) & now
        assert len(last) <= 1  # at most one goes on into the next buffer
        seen = [shard for shard in seen if shard not in last] + sorted(last)


def test_a_shuffle_buffer_mixes_and_every_epoch_differs() -> None:
    shards = np.repeat(np.arange(20), 50)
    orders = [
        buffered_order(seed, phase, epoch, shards, 200) for seed, phase, epoch in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    ]
    for place, one in enumerate(orders):
        assert all(not np.array_equal(one, other) for other in orders[:place])
        assert len({tuple(shards[one[start : start + 200]].tolist()) for start in range(0, 1000, 200)}) == 5
        first = shards[one[:200]]
        assert len(set(first.tolist())) == 4 and (np.diff(first) != 0).mean() > 0.5
