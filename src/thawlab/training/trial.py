"""Steps that leave no trace: to find a learning rate, or the faster arithmetic, before training begins."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from thawlab.training.context import Context
from thawlab.training.freezing import set_modes
from thawlab.training.optimizers import make_optimizer
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import OptimizerState, snapshot


@contextmanager
def on_trial(context: Context, data: PhaseData) -> Iterator[OptimizerState]:
    """Give a phase's optimiser for some trial steps; weights, statistics, gradients and the random state are restored.

    Args:
        context: of the run.
        data: of the phase, whose lr is a number.
    """
    kept = snapshot(context.classifier)
    optimizer = OptimizerState(make_optimizer(context.classifier, data.phase), None)
    set_modes(context.classifier, data.phase.batch_norm or "train")
    try:
        with torch.random.fork_rng(devices=[]):
            yield optimizer
    finally:
        context.classifier.load_state_dict(kept)
        optimizer.optimizer.zero_grad(set_to_none=True)
