"""How much memory a phase's step takes, and in how many parts it fits."""

from dataclasses import replace

import torch

from thawlab.environment import free_memory
from thawlab.randomness import derive
from thawlab.training.context import Context
from thawlab.training.loop import take_step, trial_steps
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import TrainingState

# Images in a step where the recipe says "auto".
AUTO_BATCH_SIZE = 64
# A part has at least this many images, so that BatchNorm has something to average over.
_LEAST_PART = 2
# A part takes what its backward pass reads, and more while it is computed; tests hold networks to this factor. Of the free memory
# a fifth is left to everything else.
_MORE_THAN_SAVED, _USED = 1.5, 0.8
# A gradient and two moments of the optimiser in float32, and the average of the weights.
_BYTES_PER_PARAMETER = 16


def parts_that_fit(context: Context, data: PhaseData) -> tuple[int, str]:
    """Return in how many parts a step of `AUTO_BATCH_SIZE` images fits into the free memory, and why.

    What an image takes is measured: the bytes that the backward pass keeps of two batches of different sizes. Weights,
    statistics and the random state are restored.

    Returns:
        A power of two, 1 where the whole step fits, and the reason for the log.
    """
    free = free_memory(context.device)
    fixed = _BYTES_PER_PARAMETER * sum(one.numel() for one in data.module.parameters() if one.requires_grad)
    small, large = (_kept_bytes(context, data, count) for count in (2, 4))
    per_image = _MORE_THAN_SAVED * (large - small) / 2
    part = AUTO_BATCH_SIZE
    while part > _LEAST_PART and fixed + part * per_image > _USED * free:
        part //= 2
    needed = (fixed + part * per_image) / 2**20
    return AUTO_BATCH_SIZE // part, f"{part} images at once take about {needed:,.0f} MiB of {free / 2**20:,.0f} MiB free"


def in_parts(data: PhaseData, parts: int) -> PhaseData:
    """Return a phase's data with steps of `AUTO_BATCH_SIZE` images, computed in so many parts."""
    return replace(data, phase=data.phase.model_copy(update={"batch_size": AUTO_BATCH_SIZE, "accumulate": parts}))


def _kept_bytes(context: Context, data: PhaseData, count: int) -> int:
    """Return how many bytes the forward pass of a step keeps for the backward pass."""
    kept: dict[int, int] = {}

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    phase = data.phase.model_copy(update={"sizes": (), "accumulate": 1})  # the largest images decide
    data, train = replace(data, phase=phase), data.dataset.splits.train
    batch = data.batch(train[:count], derive(context.recipe.seed, "memory", count))
    with trial_steps(context, data) as optimizer, torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        take_step(context, data, TrainingState(phase=-1), optimizer, batch)
    return sum(kept.values())
