"""Choosing the arithmetic of a phase by timing it on this machine."""

import time
from dataclasses import replace
from typing import Literal

from thawlab.data.batches import batch_spans
from thawlab.environment import has_fast_bfloat16
from thawlab.randomness import derive
from thawlab.training.context import Context
from thawlab.training.loop import take_step, trial_steps
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import TrainingState

Precision = Literal["float32", "bfloat16"]
# Steps taken in each arithmetic, one of them to warm up; the least time counts, since others can only add to it.
_STEPS = 3
# bfloat16 must save at least this share of a step, so that noise does not decide between equals.
_WORTH = 0.1


def choose_precision(context: Context, data: PhaseData) -> tuple[Precision, str]:
    """Time some steps of a phase in float32 and in bfloat16 autocast, and put everything back as it was.

    Returns:
        The faster arithmetic, and why it was chosen.
    """
    if not has_fast_bfloat16(context.device):
        return "float32", "this machine has no native bfloat16 matrix multiplication"
    data = replace(data, phase=data.phase.model_copy(update={"sizes": ()}))  # most of the time goes into the largest images
    float32, bfloat16 = (_least_seconds(context, replace(data, bfloat16=wanted)) for wanted in (False, True))
    chosen: Precision = "bfloat16" if bfloat16 < (1 - _WORTH) * float32 else "float32"
    return chosen, f"a step takes {1000 * float32:.1f} ms in float32, {1000 * bfloat16:.1f} ms in bfloat16"


def _least_seconds(context: Context, data: PhaseData) -> float:
    """Return the least time of a step; weights, statistics and the random state are restored."""
    train, seed = data.dataset.splits.train, context.recipe.seed
    _, count = batch_spans(len(train), data.batch_size)[0]
    # Half a batch shows the ratio as well, and float32 takes no more memory for it than training will.
    samples = train[: min(count, max(8, count // 2))]
    seconds = []
    with trial_steps(context, data) as optimizer:
        for step in range(_STEPS):
            batch = data.batch(samples, derive(seed, "precision", step))
            started = time.perf_counter()
            take_step(context, data, TrainingState(phase=-1, step=step), optimizer, batch)
            seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
