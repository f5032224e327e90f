"""The state of training between two steps, and its checkpoint: tensors and plain values only, read with `weights_only`."""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple, Self, final

import torch
from torch import nn

from thawlab.environment import on_threads
from thawlab.errors import Interrupted, ThawlabError, first_line
from thawlab.files import write_atomically
from thawlab.results import EpochRow, PhaseResult
from thawlab.training.averaging import WeightAverage
from thawlab.training.context import Context
from thawlab.training.plateau import Plateau
from thawlab.training.validation import Validation

_FORMAT = 1
# Weights that one thread updates sooner than two do.
_FEW = 1 << 17
# A checkpoint at an epoch's end is skipped when the last one is younger than this, since epochs on cached features take
# milliseconds; within an epoch one is written when the last one is older than the other bound.
_YOUNG_SECONDS = 5.0
_OLD_SECONDS = 90.0
StateDict = dict[str, torch.Tensor]


class Best(NamedTuple):
    """The best epoch of a phase, by what the phase monitors and then loss, with its weights."""

    accuracy: float
    loss: float
    epoch: int
    weights: StateDict
    balanced_accuracy: float | None = None
    macro_f1: float | None = None

    @property
    def measured(self) -> Validation:
        """How it did on the validation split."""
        return Validation(self.accuracy, self.loss, self.balanced_accuracy, self.macro_f1)


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
        best: the best epoch of this phase.
        plateau: where the schedule "plateau" stands in this phase.
        rows: the metric rows of all epochs.
        phases: what `results.json` says of the finished phases.
        found_lr: the learning rates of the phases that leave them open, as they were found.
        found_precision: the arithmetic of the phases whose recipe leaves it to be timed.
        found_parts: in how many parts the steps of phases are computed whose recipe leaves the batch size open.
        cached: whether this phase trains on cached output of its frozen part; None before it has begun.
        processes: how many train it together.
        saved: when the last checkpoint was written, in seconds of the process's own clock.
    """

    phase: int = 0
    epoch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    seconds: float = 0.0
    best: Best | None = None
    plateau: Plateau = field(default_factory=Plateau)
    rows: list[EpochRow] = field(default_factory=list)
    phases: list[PhaseResult] = field(default_factory=list)
    found_lr: dict[int, float] = field(default_factory=dict)
    found_precision: dict[int, str] = field(default_factory=dict)
    found_parts: dict[int, int] = field(default_factory=dict)
    cached: bool | None = None
    processes: int = 1
    saved: float = field(default_factory=time.monotonic)

    def begin_phase(self, phase: int) -> None:
        """Move to the start of a phase."""
        self.phase, self.epoch, self.step = phase, 0, 0
        self.loss_sum, self.seconds, self.best, self.cached = 0.0, 0.0, None, None
        self.plateau = Plateau()

    def as_plain(self) -> dict[str, Any]:
        """Return plain values and tensors, as a checkpoint holds them."""
        rows, phases = ([value.model_dump() for value in part] for part in (self.rows, self.phases))
        best, plateau = self.best and self.best._asdict(), self.plateau._asdict()
        plain = {**vars(self), "best": best, "plateau": plateau, "rows": rows, "phases": phases}
        return {key: value for key, value in plain.items() if key != "saved"}

    @classmethod
    def from_plain(cls, plain: dict[str, Any]) -> Self:
        """Return the state that `as_plain` was called on; versions without the schedule "plateau" wrote none."""
        best = plain["best"] and Best(**plain["best"])
        rows, phases = [EpochRow(**row) for row in plain["rows"]], [PhaseResult(**phase) for phase in plain["phases"]]
        plateau = Plateau(**plain.get("plateau", {}))
        return cls(**{**plain, "best": best, "plateau": plateau, "rows": rows, "phases": phases})


class OptimizerState(NamedTuple):
    """What changes within a phase beside the model: the optimiser, and the average of the weights if there is one."""

    optimizer: torch.optim.Optimizer
    average: WeightAverage | None

    def forget_gradients(self) -> None:
        """Let the gradients go, without the note for a profiler that torch's own `zero_grad` makes in every step."""
        for group in self.optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None

    def step(self) -> None:
        """Let the optimiser take its step; of few weights in one thread, since to wake another one takes longer."""
        few = sum(parameter.numel() for group in self.optimizer.param_groups for parameter in group["params"]) <= _FEW
        with on_threads(1 if few else torch.get_num_threads()):
            self.optimizer.step()

    def state_dict(self) -> dict[str, Any]:
        """Return what a checkpoint must hold."""
        return {"optimizer": self.optimizer.state_dict(), "average": self.average.state_dict() if self.average else None}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from a checkpoint."""
        self.optimizer.load_state_dict(state["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(state["average"])


def snapshot(module: nn.Module) -> StateDict:
    """Return a copy of a module's parameters and buffers."""
    return {name: tensor.detach().clone() for name, tensor in module.state_dict().items()}


def save(context: Context, state: TrainingState, optimizer: OptimizerState | None) -> None:
    """Write a run's checkpoint; of several processes, one does."""
    if context.world.writes:
        save_checkpoint(context.folder.checkpoint, state, context.classifier, optimizer)
    state.saved = time.monotonic()


def save_checkpoint(path: Path, state: TrainingState, model: nn.Module, optimizer: OptimizerState | None) -> None:
    """Write a checkpoint atomically; on a full disk the one before it stays."""
    content = {
        "format": _FORMAT,
        "state": state.as_plain(),
        "model": model.state_dict(),
        "moving": optimizer.state_dict() if optimizer else None,  # the key of format 1
    }
    write_atomically(path, lambda file: torch.save(content, file))


def load_checkpoint(path: Path, model: nn.Module) -> tuple[TrainingState, dict[str, Any] | None]:
    """Read a checkpoint into a model.

    Returns:
        The state, and that of `OptimizerState` where the checkpoint was written within a phase.

    Raises:
        ThawlabError: if the checkpoint is damaged, or was written by another version or for another network.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        if (number := content["format"]) == _FORMAT:
            model.load_state_dict(content["model"])
            return TrainingState.from_plain(content["state"]), content["moving"]
    except Exception as error:  # a damaged file can fail in any part of the reader
        reason = first_line(error)
        raise ThawlabError(f"{path}: this checkpoint cannot be read ({reason}); move it away to start the run again") from None
    raise ThawlabError(
        f"{path}: was written by another version of thawlab (format {number}); start again in another --runs folder"
    )


def save_if_due(context: Context, state: TrainingState, optimizer: OptimizerState, within_epoch: bool) -> None:
    """Save unless the last checkpoint is young, and stop after saving where a signal asked to.

    Raises:
        Interrupted: after saving, when a signal asked to stop.
    """
    requested = context.interruption.requested
    if requested is None and time.monotonic() - state.saved < (_OLD_SECONDS if within_epoch else _YOUNG_SECONDS):
        return
    save(context, state, optimizer)
    if requested is not None:
        raise Interrupted(f"saved after epoch {state.epoch}; run the same command to resume", requested)
