"""The schedule "plateau": the learning rate falls when the validation loss no longer does, as Keras' ReduceLROnPlateau."""

import math
from typing import NamedTuple

from thawlab.recipe import Phase

# Keras' default: the loss must fall by more than this to count as better.
_MIN_DELTA = 1e-4


class Plateau(NamedTuple):
    """Where the schedule stands: the rate as a share of the phase's `lr`, the least loss, and the epochs since."""

    factor: float = 1.0
    best: float = math.inf
    wait: int = 0


def after_epoch(plateau: Plateau, phase: Phase, lr: float, loss: float) -> Plateau:
    """Return where the schedule stands after an epoch.

    After `plateau_patience` epochs without a loss that is better by more than 1e-4, the rate is multiplied by `plateau_factor`,
    but stays at `min_lr` at least. There is no cooldown.

    Args:
        plateau: before the epoch.
        phase: with the settings.
        lr: the phase's peak rate.
        loss: the validation loss of the epoch.
    """
    if loss < plateau.best - _MIN_DELTA:
        return plateau._replace(best=loss, wait=0)
    if plateau.wait + 1 < phase.plateau_patience:
        return plateau._replace(wait=plateau.wait + 1)
    rate = max(lr * plateau.factor * phase.plateau_factor, phase.min_lr)
    return plateau._replace(factor=min(rate / lr, plateau.factor), wait=0)
