"""Running a network over many rows: batches of one shape, so that no sample's numbers depend on its neighbours."""

from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab import progress
from thawlab.data.batches import prefetched
from thawlab.data.types import Indices
from thawlab.inference.folding import folded
from thawlab.models.hooks import eval_mode

# All inference outside the training step runs in batches of exactly this many rows, the last one filled up: the shape of a
# batch can decide which kernel computes it, and a sample's numbers must not depend on how many others stood beside it.
INFERENCE_BATCH = 32
_SMALLER = (1, 4, 8, 16)


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
    sizes: Sequence[int] = (INFERENCE_BATCH,),
) -> list[Floats]:
    """Apply a module that gives one or several tensors, as `infer` does; returns an array for each, or none without rows.

    The last batch is filled up to the least of `sizes`, in rising order, that holds it: `equal_batches` gives those which change
    no bit.
    """
    starts = list(range(0, len(indices), INFERENCE_BATCH))

    def gather(start: int) -> torch.Tensor:
        chosen = indices[start : start + INFERENCE_BATCH]
        size = next(size for size in sizes if size >= len(chosen))
        filled = np.resize(chosen, size)  # repeats from the start to fill up
        return torch.from_numpy(np.take(rows, filled, axis=0))

    batches: list[list[Floats]] = []
    network: nn.Module | None = None
    with eval_mode(module), torch.inference_mode(), progress.task(label, len(indices) if label else 0) as advance:
        for start, gathered in prefetched(starts, gather):
            count = min(INFERENCE_BATCH, len(indices) - start)
            inputs = prepare(gathered.to(device))
            network = folded(module, inputs.shape[1:]) if network is None else network
            outputs = network(inputs)
            parts = outputs if isinstance(outputs, tuple) else (outputs,)
            batches.append([part[:count].float().cpu().numpy() for part in parts])
            if label:
                advance(count)
    return [np.concatenate(parts) for parts in zip(*batches, strict=True)]


def equal_batches(module: nn.Module, shape: tuple[int, ...], prepare: Prepare, device: torch.device) -> tuple[int, ...]:
    """Return the batch sizes, up to INFERENCE_BATCH, that give every bit as INFERENCE_BATCH does, found by trying.

    Which kernel computes a batch, and in which order it sums, depends on shapes and not on values: where all outputs of random
    images are equal, the sums were taken alike.

    Args:
        module: as `infer_parts` takes it, folded already.
        shape: of one row of uint8.
        prepare: as `infer_parts` takes it.
        device: where the module is.
    """
    draws = np.random.default_rng(0)
    noise = draws.integers(0, 256, (INFERENCE_BATCH, *shape), dtype=np.uint8)
    everything = np.arange(INFERENCE_BATCH)
    whole = infer_parts(module, noise, everything, prepare, device)
    equal = [INFERENCE_BATCH]
    for batch in _SMALLER:
        pieces = [
            infer_parts(module, noise, few, prepare, device, sizes=(batch,)) for few in np.split(everything, len(noise) // batch)
        ]
        parts = [np.concatenate(part) for part in zip(*pieces, strict=True)]
        if all(np.array_equal(part, full) for part, full in zip(parts, whole, strict=True)):
            equal.append(batch)
    return tuple(sorted(equal))
