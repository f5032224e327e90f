"""Choosing the arithmetic of a phase by timing it on this machine."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Literal

import torch

from thawlab.data.batches import batch_spans
from thawlab.randomness import derive
from thawlab.recipe import Phase
from thawlab.training.loop import Job, take_step
from thawlab.training.phase_data import Material
from thawlab.training.state import TrainingState
from thawlab.training.trial import on_trial

Precision = Literal["float32", "bfloat16"]
# Steps taken in each arithmetic, one of them to warm up; the least time counts, since others can only add to it.
_STEPS = 3
# bfloat16 must save at least this share of a step, so that noise does not decide between equals.
_WORTH = 0.1
_LEAST = 8


def has_fast_bfloat16(device: torch.device) -> bool:
    """Say whether a device computes products in bfloat16 itself; elsewhere they are emulated, and slower."""
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type == "cpu":
        return bool(torch.cpu._is_avx512_bf16_supported() or torch.cpu._is_amx_tile_supported())
    return False


def choose_precision(job: Job, phase: Phase, material: Material) -> tuple[Precision, str]:
    """Time some steps of a phase in float32 and in bfloat16 autocast, and put everything back as it was.

    Args:
        job: the run; its classifier is frozen as the phase wants it.
        phase: with a number as its lr.
        material: of the phase.

    Returns:
        The faster arithmetic, and why it was chosen.
    """
    if not has_fast_bfloat16(job.device):
        return "float32", "this machine has no bfloat16 products"
    phase = phase.model_copy(update={"sizes": ()})  # most of the time goes into the largest images
    seconds = {
        "float32": _least_seconds(replace(job, bfloat16=False), phase, material),
        "bfloat16": _least_seconds(replace(job, bfloat16=True), phase, material),
    }
    chosen: Precision = "bfloat16" if seconds["bfloat16"] < (1 - _WORTH) * seconds["float32"] else "float32"
    milliseconds = {name: f"{1000 * value:.1f} ms" for name, value in seconds.items()}
    return chosen, f"a step takes {milliseconds['float32']} in float32, {milliseconds['bfloat16']} in bfloat16"


def _least_seconds(job: Job, phase: Phase, material: Material) -> float:
    """Return the least time of a step; weights, statistics and the random state are restored."""
    start, end = batch_spans(len(material.train), phase.batch_size)[0]
    # A part of a batch tells the ratio as well, and float32 takes no more memory for it than training will.
    samples = material.train[start : min(end, start + max(_LEAST, (end - start) // 2))]
    seconds = []
    with on_trial(job, phase) as moving:
        for step in range(_STEPS):
            seed = derive(job.seed, "precision", step)
            rows = material.take(samples, torch.Generator().manual_seed(seed))
            targets = torch.from_numpy(material.labels[samples])
            state = TrainingState(phase=-1, step=step)
            started = time.perf_counter()
            take_step(job, phase, material, state, moving, rows, targets, torch.Generator().manual_seed(seed))
            seconds.append(time.perf_counter() - started)
    return min(seconds[1:])
