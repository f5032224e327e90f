"""Batches: which sizes hold some rows the quickest, and that none changes a bit."""

import threading

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from thawlab.environment import on_threads
from thawlab.inference.infer import INFERENCE_BATCH, equal_batches, infer, infer_parts, quickest

SECONDS = st.dictionaries(st.sampled_from([1, 2, 4, 8, 16]), st.floats(0.01, 1.0)).map(lambda some: {**some, 32: 1.0})


@given(st.integers(0, 200), SECONDS)
def test_every_row_is_in_exactly_one_batch_and_only_the_last_is_filled_up(count: int, seconds: dict[int, float]) -> None:
    batches = quickest(count, seconds)
    end = 0
    for start, size in batches:
        assert start == end
        assert start < count
        assert size in seconds
        end = start + size
    assert count <= end


def covers(count: int, sizes: list[int]) -> list[list[int]]:
    if count <= 0:
        return [[]]
    return [[size, *rest] for size in sizes for rest in covers(count - size, [one for one in sizes if one <= size])]


@given(st.integers(1, 31), SECONDS)
def test_no_other_batches_of_these_sizes_are_quicker(count: int, seconds: dict[int, float]) -> None:
    sizes = sorted((size for size in seconds if size >= 4), reverse=True)
    seconds = {size: seconds[size] for size in sizes}
    least = min(sum(seconds[size] for size in cover) for cover in covers(count, sizes))
    assert np.isclose(sum(seconds[size] for _, size in quickest(count, seconds)), least)


def test_more_rows_than_the_largest_batch_fill_it_first() -> None:
    assert quickest(70, {4: 0.1, 8: 0.19, 32: 1.0}) == [(0, 32), (32, 32), (64, 8)]
    assert quickest(70, {4: 0.1, 8: 0.21, 32: 1.0}) == [(0, 32), (32, 32), (64, 4), (68, 4)]


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 5)).eval()


def prepare(pixels: torch.Tensor) -> torch.Tensor:
    return pixels.permute(0, 3, 1, 2).float() / 255


def test_sizes_that_were_found_equal_change_no_bit_of_any_number_of_rows() -> None:
    module, device = network(), torch.device("cpu")
    rows = np.random.default_rng(1).integers(0, 256, (45, 16, 16, 3), dtype=np.uint8)
    seconds = equal_batches(module, rows.shape[1:], prepare, device)
    assert seconds[INFERENCE_BATCH] > 0
    for count in (1, 3, 5, 31, 32, 33, 45):
        whole = infer(module, rows, np.arange(count), prepare, device)
        [few] = infer_parts(module, rows, np.arange(count), prepare, device, seconds=seconds)
        assert few.shape == (count, 5)
        np.testing.assert_array_equal(few, whole)


@pytest.mark.parametrize("side", [8, 300])
def test_batches_are_of_one_size_and_rows_do_not_depend_on_their_neighbours(side: int) -> None:
    seen: list[int] = []

    def counted(pixels: torch.Tensor) -> torch.Tensor:
        seen.append(len(pixels))
        return prepare(pixels)

    rows = np.random.default_rng(2).integers(0, 256, (5, side, side, 3), dtype=np.uint8)
    found = infer(network(), rows, np.array([3, 0, 4] * 4), counted, torch.device("cpu"))
    assert set(seen) == {INFERENCE_BATCH}
    np.testing.assert_array_equal(found[:3], found[9:])


class DependsOnTheBatch(nn.Module):
    """Gives other numbers in a batch of eight."""

    def forward(self, inputs: torch.Tensor) -> torch.Tensor:
        return inputs.mean(dim=(2, 3)) + (len(inputs) == 8)


def test_a_size_that_changes_a_bit_is_left_out() -> None:
    assert sorted(equal_batches(DependsOnTheBatch(), (16, 16, 3), prepare, torch.device("cpu"))) == [1, 4, 16, 32]


@pytest.mark.parametrize("count", [0, 1, 32, 33, 150])
def test_batches_that_are_computed_at_once_give_the_same_bits(count: int) -> None:
    module, rows = network(), np.random.default_rng(4).integers(0, 256, (40, 16, 16, 3), dtype=np.uint8)
    indices, device, found = np.resize(np.arange(40), count), torch.device("cpu"), []
    seen: set[tuple[bool, int]] = set()
    main = threading.main_thread()
    module[-1].register_forward_hook(lambda *_: seen.add((threading.current_thread() is main, torch.get_num_threads())))
    for number, expected in ((1, (True, 1)), (2, (False, 1)), (3, (False, 1)), (4, (False, 1)), (5, (True, 5)), (8, (False, 2))):
        with on_threads(number):
            seen.clear()
            found.append(infer(module, rows, indices, prepare, device))
            assert torch.get_num_threads() == number and seen >= ({expected} if count else set())
    assert all(np.array_equal(one, found[0]) for one in found) and len(found[0]) == count


def test_what_fails_in_one_of_several_batches_is_raised() -> None:
    rows = np.zeros((100, 16, 16, 3), dtype=np.uint8)

    class Failing(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            raise MemoryError(f"no more than {len(x)}")

    module = nn.Sequential(nn.Conv2d(3, 8, 3), Failing()).train()
    with on_threads(2):
        with pytest.raises(MemoryError, match="no more than 32"):
            infer(module, rows, np.arange(100), prepare, torch.device("cpu"))
        assert torch.get_num_threads() == 2 and module.training


def test_batches_are_prepared_once_and_in_order_however_many_are_computed_at_once() -> None:
    rows, drawn = np.zeros((170, 16, 16, 3), dtype=np.uint8), []
    for threads in (1, 2, 4):
        generator = torch.Generator().manual_seed(0)
        with on_threads(threads):
            drawn.append(
                infer(
                    network(),
                    rows,
                    np.arange(170),
                    lambda pixels, generator=generator: prepare(pixels) + torch.rand(len(pixels), 1, 1, 1, generator=generator),
                    torch.device("cpu"),
                )
            )
    assert np.array_equal(drawn[0], drawn[1]) and np.array_equal(drawn[0], drawn[2])
