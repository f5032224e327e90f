"""Steps that leave no trace: to find a learning rate, or the faster arithmetic, before training begins."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from thawlab.recipe import Phase
from thawlab.training.freezing import set_modes
from thawlab.training.loop import Job
from thawlab.training.optimizers import make_optimizer
from thawlab.training.state import Moving, snapshot


@contextmanager
def on_trial(job: Job, phase: Phase) -> Iterator[Moving]:
    """Give what moves in a phase for some trial steps; weights, statistics, gradients and the random state are restored.

    Args:
        job: the run; its classifier is frozen as the phase wants it.
        phase: with a number as its lr.
    """
    kept = snapshot(job.classifier)
    moving = Moving(make_optimizer(job.classifier, phase), None)
    set_modes(job.classifier, phase.batch_norm or "train")
    try:
        with torch.random.fork_rng(devices=[]):
            yield moving
    finally:
        job.classifier.load_state_dict(kept)
        moving.optimizer.zero_grad(set_to_none=True)
