"""The state of training between two steps, and its checkpoint: tensors and plain values only, read with `weights_only`."""

from __future__ import annotations

import copy
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, final

import torch
from torch import nn

from thawlab.errors import ThawlabError
from thawlab.run import write_atomically

_FORMAT = 1
StateDict = dict[str, torch.Tensor]


@final
@dataclass
class TrainingState:
    """Where training stands. All randomness is derived from (seed, phase, epoch, step), so no generator is part of it.

    Attributes:
        phase: index of the phase that is trained.
        epoch: epochs finished in this phase.
        step: steps finished in this epoch.
        loss_sum: of the samples of this epoch so far.
        seconds: spent in this phase so far.
        best: accuracy, negative loss, epoch and weights of the best epoch of this phase.
        rows: the metric rows of all epochs.
        phases: what `results.json` says of the finished phases.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: dict[str, Any] | None = None
    rows: list[dict[str, Any]] = field(default_factory=list)
    phases: list[dict[str, Any]] = field(default_factory=list)

    def begin_phase(self, phase: int) -> None:
        """Stand at the start of a phase."""
        self.phase, self.epoch, self.step = phase, 0, 0
        self.loss_sum, self.seconds, self.best = 0.0, 0.0, None


def snapshot(module: nn.Module) -> StateDict:
    """Return a copy of a module's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def save_checkpoint(path: Path, state: TrainingState, model: nn.Module, optimizer: torch.optim.Optimizer | None) -> None:
    """Write a checkpoint atomically; on a full disk the one before it stays."""
    content = {
        "format": _FORMAT,
        "state": copy.copy(vars(state)),
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict() if optimizer else None,
    }
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path, model: nn.Module) -> tuple[TrainingState, dict[str, Any] | None]:
    """Read a checkpoint into a model.

    Returns:
        The state, and the optimiser's state where the checkpoint was written within a phase.

    Raises:
        ThawlabError: if the checkpoint is damaged, or was written by another version or for another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if content["format"] != _FORMAT:
            raise ThawlabError(
                f"{path}: was written by another version of thawlab (format {content['format']}); "
                "start again in another --runs folder"
            )
        model.load_state_dict(content["model"])
        return TrainingState(**content["state"]), content["optimizer"]
    except ThawlabError:
        raise
    except Exception as error:  # a damaged file can fail in any part of the reader
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ThawlabError(f"{path}: this checkpoint cannot be read ({reason}); move it away to start the run again") from None
