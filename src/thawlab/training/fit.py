"""Training the phases of a run that are left."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, final

from thawlab.environment import release_memory
from thawlab.errors import Interrupted
from thawlab.training.context import Context
from thawlab.training.loop import train_phase
from thawlab.training.lr_finder import find_lr
from thawlab.training.memory_need import AUTO_BATCH_SIZE, in_parts, parts_that_fit
from thawlab.training.phase_data import PhaseData, on_images, phase_data
from thawlab.training.precision import choose_precision
from thawlab.training.state import TrainingState, save


@final
class Timing:
    """Seconds spent per part of a run."""

    def __init__(self) -> None:
        self._started = time.monotonic()
        self.parts = {"data": 0.0, "cache": 0.0, "train": 0.0, "evaluate": 0.0}

    @contextmanager
    def measure(self, part: str) -> Iterator[None]:
        """Add the time of a block to a part."""
        started = time.monotonic()
        try:
            yield
        finally:
            self.parts[part] += time.monotonic() - started

    def summary(self, trained: float) -> dict[str, float]:
        """Return all parts and the total, rounded to milliseconds; `trained` counts the phases of earlier processes too."""
        rest = time.monotonic() - self._started - self.parts["train"]
        return {key: round(value, 3) for key, value in {**self.parts, "train": trained, "total": rest + trained}.items()}


def fit(context: Context, state: TrainingState, resumed: dict[str, Any] | None, timing: Timing) -> PhaseData:
    """Train the phases that are left from where `state` stands, and return what the last phase trains on.

    `resumed` is the optimiser's state, where the checkpoint was written within a phase.

    Raises:
        Interrupted: after saving, when a signal asked to stop.
        DivergedError: if the loss or the weights contain NaN or infinity.
    """
    data: PhaseData | None = None
    for index in range(state.phase, len(context.recipe.phases)):
        with timing.measure("cache"):
            data = phase_data(context, context.recipe.phases[index], state.cached)
            state.cached = data.network is not None
        if data.note:
            context.report(f"{data.phase.name}: {data.note}")
        with timing.measure("train"):
            data = _settled(context, data, index, state)
            with context.interruption.deferring():
                train_phase(context, data, state, resumed)
        resumed = None
        context.world.copy_tensors(context.classifier)
        if (requested := context.stop_requested()) is not None:
            raise Interrupted("saved at the end of a phase; run the same command to resume", requested)
    if data is not None:
        return data
    last = context.recipe.phases[-1]  # training ended in an earlier process
    return phase_data(context, last) if context.folder.checkpoint.is_file() else on_images(context, last)


def _settled(context: Context, data: PhaseData, index: int, state: TrainingState) -> PhaseData:
    """Return a phase's data with the batches, the learning rate and the arithmetic that the recipe leaves to be measured.

    Batches and arithmetic are saved at once: a phase that began with one must be resumed with the same.
    """
    if data.phase.batch_size == "auto":
        if index not in state.found_parts:
            parts, why = parts_that_fit(context, data)
            state.found_parts[index] = context.world.largest(parts)
            release_memory()
            context.report(f"{data.phase.name}: {_batches(state.found_parts[index])}, since {why}")
            save(context, state, None)
        data = in_parts(data, state.found_parts[index])
    phase = data.phase
    if phase.lr == "auto":
        if index not in state.found_lr:
            state.found_lr[index] = find_lr(context, data).suggestion
            context.report(f"{phase.name}: lr = {state.found_lr[index]:.3g} was found by a range test")
        data = replace(data, phase=phase.model_copy(update={"lr": state.found_lr[index]}))
    if context.recipe.precision == "auto":
        if index not in state.found_precision:
            state.found_precision[index], why = context.world.agreed(choose_precision(context, data))
            release_memory()
            context.report(f"{phase.name}: precision = {state.found_precision[index]}, since {why}")
            save(context, state, None)
        data = replace(data, bfloat16=state.found_precision[index] == "bfloat16")
    return data


def _batches(parts: int) -> str:
    computed = "at once" if parts == 1 else f"in {parts} parts"
    return f"batch_size = {AUTO_BATCH_SIZE}, computed {computed}"
