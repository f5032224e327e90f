"""Finding a learning rate: train a copy for a while at ever larger rates, and see where the loss falls fastest (Smith 2017)."""

from dataclasses import replace
from typing import Any, NamedTuple

import numpy as np

from thawlab.data.batches import batch_spans
from thawlab.errors import DivergedError, ThawlabError
from thawlab.randomness import derive
from thawlab.training.context import Context
from thawlab.training.loop import take_step, trial_steps
from thawlab.training.optimizers import set_lr
from thawlab.training.phase_data import PhaseData
from thawlab.training.state import TrainingState

# The rates that are tried are equally spaced on a logarithmic scale.
_LOWEST, _HIGHEST, _STEPS = 1e-6, 10.0, 100
_SMOOTHING = 0.9
# The test ends when the smoothed loss exceeds the least one by this factor: from there on it only explodes.
_DIVERGED = 4.0


class LrFinding(NamedTuple):
    """What the test found.

    Attributes:
        rates: learning rates that were tried, rising.
        losses: smoothed training loss at each.
        suggestion: the rate where the loss falls fastest, an order of magnitude below where it stops falling at most.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    suggestion: float

    def as_json(self) -> dict[str, Any]:
        """Return the finding as JSON values."""
        return {"suggestion": self.suggestion, "rates": list(self.rates), "losses": list(self.losses)}


def find_lr(context: Context, data: PhaseData) -> LrFinding:
    """Run a learning-rate range test with a phase's optimiser and batch size, and put everything back as it was.

    Weights, BatchNorm statistics and the random state are restored; the result of a following training is unchanged.

    Raises:
        ThawlabError: if the loss is NaN or infinite at the lowest rates already.
    """
    rates, losses = [], []
    mean, lowest = 0.0, float("inf")
    # One size of images for all rates, the full one, since a change of size would show in the losses.
    data = replace(data, phase=data.phase.model_copy(update={"lr": _LOWEST, "sizes": ()}))
    train, seed = data.dataset.splits.train, context.recipe.seed
    spans = batch_spans(len(train), data.batch_size)
    with trial_steps(context, data) as optimizer:
        for step in range(_STEPS):
            rate = _LOWEST * (_HIGHEST / _LOWEST) ** (step / (_STEPS - 1))
            set_lr(optimizer.optimizer, rate)
            epoch, place = divmod(step, len(spans))  # the epochs of the test have orders of their own
            order = train[data.order(seed, -1, epoch)]
            batch = data.batch(order[slice(*spans[place])], derive(seed, "lr-find", step))
            try:
                loss = take_step(context, data, TrainingState(phase=-1, epoch=epoch, step=place), optimizer, batch)
            except DivergedError:
                break  # the end of the test
            mean = _SMOOTHING * mean + (1 - _SMOOTHING) * loss
            smoothed = mean / (1 - _SMOOTHING ** (step + 1))
            if smoothed > _DIVERGED * lowest:
                break
            lowest = min(lowest, smoothed)
            rates.append(rate)
            losses.append(smoothed)
    if len(rates) < _STEPS // 10:
        raise ThawlabError(f"phase '{data.phase.name}': no learning rate can be found; training diverges at {_LOWEST:g} already")
    return LrFinding(tuple(rates), tuple(losses), _suggest(np.array(rates), np.array(losses)))


def _suggest(rates: np.ndarray, losses: np.ndarray) -> float:
    """Return the rate of the steepest fall before the least loss, but at most a tenth of the rate at the least loss."""
    bottom = int(losses.argmin())
    if bottom < 2:
        return float(rates[0])
    slopes = np.gradient(losses[: bottom + 1], np.log(rates[: bottom + 1]))
    return float(min(rates[int(slopes.argmin())], rates[bottom] / 10))
