"""Running a network over many rows: batches of one shape, so that no sample's numbers depend on its neighbours."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import closing, contextmanager
from functools import partial

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab import progress
from thawlab.data.batches import ahead, prefetched
from thawlab.data.types import Indices
from thawlab.environment import on_threads
from thawlab.heap import keeping_large
from thawlab.inference.fusing import compacted
from thawlab.models.hooks import eval_mode

# All inference outside the training step runs in batches of exactly this many rows, the last one filled up: the shape of a
# batch can decide which kernel computes it, and a sample's numbers must not depend on how many others stood beside it.
INFERENCE_BATCH = 32
_SMALLER = (1, 4, 8, 16)
# Batches of images up to this size are computed at once, a thread each: threads that share a batch wait for each other after
# every layer. Of larger ones several batches crowd each other out of the caches (benchmarks/README.md, "Images at once").
_APART = 128
_MOST_AT_ONCE = 4
_TIMED = 3  # trials of a batch size; the quickest counts

Prepare = Callable[[torch.Tensor], torch.Tensor]
Rows = npt.NDArray[np.generic]
Floats = npt.NDArray[np.float32]


def infer(module: nn.Module, rows: Rows, indices: Indices, prepare: Prepare, device: torch.device, label: str = "") -> Floats:
    """Apply a module in eval mode to some rows of an array.

    Args:
        module: gives one float row per input row.
        rows: of all samples, e.g. uint8 images.
        indices: which rows, in which order.
        prepare: turns a batch of rows on the device into the module's input.
        device: where the module is.
        label: shows progress under this name; empty shows none.

    Returns:
        float32, len(indices) × outputs.
    """
    [outputs] = infer_parts(module, rows, indices, prepare, device, label) or [np.zeros((0, 0), dtype=np.float32)]
    return outputs


def infer_parts(
    module: nn.Module,
    rows: Rows,
    indices: Indices,
    prepare: Prepare,
    device: torch.device,
    label: str = "",
    seconds: Mapping[int, float] | None = None,
) -> list[Floats]:
    """Apply a module that gives one or several tensors, as `infer` does; returns an array for each, or none without rows.

    The rows are computed in the quickest batches of the sizes in `seconds`, which says what a batch of each takes, and the last
    one is filled up; `equal_batches` gives the sizes that change no bit. Without `seconds` there is one size, `INFERENCE_BATCH`.
    """
    batches_of = quickest(len(indices), seconds or {INFERENCE_BATCH: 1.0})

    def gather(part: tuple[int, int]) -> torch.Tensor:
        start, size = part
        filled = np.resize(indices[start : start + size], size)  # repeats from the start to fill up
        return torch.from_numpy(np.take(rows, filled, axis=0))

    batches: list[list[Floats]] = []
    total = len(indices) if label else 0
    with keeping_large(), eval_mode(module), torch.inference_mode(), progress.task(label, total) as advance:
        # One after the other and in order, wherever they are computed: what prepares them may draw at random.
        prepared = (prepare(gathered.to(device)) for _, gathered in prefetched(batches_of, gather))
        if (first := next(prepared, None)) is None:
            return []
        compute = partial(_outputs, compacted(module, first.shape[1:]))
        with _computed(compute, itertools.chain([first], prepared), _at_once(first)) as computed:
            for (start, size), parts in zip(batches_of, computed, strict=True):
                count = min(size, len(indices) - start)
                batches.append([part[:count] for part in parts])
                if label:
                    advance(count)
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


@torch.inference_mode()
def _outputs(network: nn.Module, inputs: torch.Tensor) -> list[Floats]:
    outputs = network(inputs)
    return [part.float().cpu().numpy() for part in (outputs if isinstance(outputs, tuple) else (outputs,))]


def _at_once(inputs: torch.Tensor) -> int:
    """Return how many batches like this are computed at once, torch's threads shared out among them.

    It does not depend on how many there are: how sums are split between threads may decide their last bits.
    """
    if inputs.device.type != "cpu" or inputs.ndim != 4 or inputs.shape[-1] > _APART:
        return 1
    threads = torch.get_num_threads()
    return max(count for count in range(1, _MOST_AT_ONCE + 1) if threads % count == 0)


@contextmanager
def _computed(
    compute: Callable[[torch.Tensor], list[Floats]], every: Iterable[torch.Tensor], at_once: int
) -> Iterator[Iterator[list[Floats]]]:
    """Give what is computed of each batch, in order; nothing is left running afterwards, whatever happens within."""
    if at_once == 1:
        yield map(compute, every)
        return
    with on_threads(torch.get_num_threads() // at_once), closing(ahead(every, compute, at_once)) as computed:
        yield computed


def quickest(count: int, seconds: Mapping[int, float]) -> list[tuple[int, int]]:
    """Return batches that hold some rows, as pairs of the first row and the size, in the least time together.

    Args:
        count: of the rows.
        seconds: that a batch takes, by its size; all but the last are full, and in falling size.
    """
    largest = max(seconds)
    best: list[tuple[float, list[int]]] = [(0.0, [])]
    for rows in range(1, count % largest + 1):
        covers = ((size, *best[max(0, rows - size)]) for size in seconds)
        best.append(min((seconds[size] + spent, sorted([size, *others], reverse=True)) for size, spent, others in covers))
    sizes = [largest] * (count // largest) + best[-1][1]
    return list(zip(itertools.accumulate(sizes, initial=0), sizes, strict=False))


def equal_batches(module: nn.Module, shape: tuple[int, ...], prepare: Prepare, device: torch.device) -> dict[int, float]:
    """Return the batch sizes, up to `INFERENCE_BATCH`, that give every bit as that one does, and their seconds, by trying.

    Which kernel computes a batch, and in which order it sums, depends on shapes and not on values: where all outputs of random
    images are equal, the sums were taken alike.

    Args:
        module: as `infer_parts` takes it, folded already.
        shape: of one row of uint8.
        prepare: as `infer_parts` takes it.
        device: where the module is.
    """
    usual = INFERENCE_BATCH
    noise = np.random.default_rng(0).integers(0, 256, (usual, *shape), dtype=np.uint8)
    everything = np.arange(usual)

    def computed(size: int) -> list[Floats]:
        return infer_parts(module, noise, everything, prepare, device, seconds={size: 1.0})

    def trial(size: int) -> float:
        start = time.perf_counter()
        infer_parts(module, noise, everything[:size], prepare, device, seconds={size: 1.0})
        return time.perf_counter() - start

    whole = computed(usual)
    equal = [size for size in _SMALLER if size < usual and all(map(np.array_equal, computed(size), whole))]
    return {size: min(trial(size) for _ in range(_TIMED)) for size in (*equal, usual)}
