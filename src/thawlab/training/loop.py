"""The one loop: the only code that steps an optimiser."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from thawlab import progress
from thawlab.data.augmentation import scaled
from thawlab.data.batches import alternating_turns, batch_spans, prefetched
from thawlab.data.types import indicator
from thawlab.environment import on_threads
from thawlab.errors import DivergedError
from thawlab.inference.infer import infer
from thawlab.randomness import derive
from thawlab.recipe import Phase
from thawlab.results import EpochRow, PhaseResult
from thawlab.training.averaging import WeightAverage
from thawlab.training.context import Context
from thawlab.training.freezing import trainable_count
from thawlab.training.losses import l2_penalty, training_loss
from thawlab.training.optimizers import lr_factor, lr_of, make_optimizer, set_lr
from thawlab.training.phase_data import Batch, PhaseData
from thawlab.training.plateau import after_epoch
from thawlab.training.state import Best, OptimizerState, TrainingState, save, save_if_due, snapshot
from thawlab.training.validation import validate

# Batches of this many bytes are gathered in a thread of their own; smaller ones take less time than passing them on.
_WORTH_A_THREAD = 1 << 20
# A head's step of fewer products than this takes less time in one thread than waking another one does, by up to half
# (benchmarks/README.md, "Small steps").
_WORTH_THREADS = 20_000_000


class _Course(NamedTuple):
    """How an epoch's training went: its start, the last step's learning rate, and images per second if it ran whole."""

    started: float
    lr: float
    images_per_second: float | None


def train_phase(context: Context, data: PhaseData, state: TrainingState, resumed: dict[str, Any] | None) -> None:
    """Train one phase from where `state` stands to the start of the next one, and restore the best epoch's weights.

    `resumed` is the optimiser's state from the checkpoint, where training is resumed within the phase.

    Raises:
        Interrupted: after saving, when a signal asked to stop.
        DivergedError: if the loss or the weights contain NaN or infinity.
    """
    phase = data.phase
    average = WeightAverage(data.module, phase.ema) if phase.ema else None
    optimizer = OptimizerState(make_optimizer(context.classifier, phase), average)
    if resumed is not None:
        optimizer.load_state_dict(resumed)
    state.saved = time.monotonic()
    stopped = "epochs"
    left = len(data.dataset.splits.train) * (phase.epochs - state.epoch) - state.step * data.batch_size
    with progress.task(phase.name, left) as advance:
        while state.epoch < phase.epochs:
            with on_threads(_threads(data)):
                course = _train_epoch(context, data, state, optimizer, advance)
            _finish_epoch(context, data, state, optimizer, course)
            if phase.patience is not None and state.best is not None and state.epoch - state.best.epoch >= phase.patience:
                stopped = "patience"
                break
            if state.epoch < phase.epochs:
                save_if_due(context, state, optimizer, within_epoch=False)
    _finish_phase(context, data, state, optimizer, stopped)
    save(context, state, None)


def _threads(data: PhaseData) -> int:
    """Return how many threads compute a step: one where it is small."""
    size = data.phase.batch_size
    if data.rows.ndim != 2 or isinstance(size, str):  # images, or trials by which the size is yet to be found
        return torch.get_num_threads()
    products = size * sum(parameter.numel() for parameter in data.module.parameters())
    return 1 if products < _WORTH_THREADS else torch.get_num_threads()


def _train_epoch(
    context: Context, data: PhaseData, state: TrainingState, optimizer: OptimizerState, advance: progress.Advance
) -> _Course:
    """Train from `state.step` to the end of the epoch."""
    started, first_step, phase, seed = time.monotonic(), state.step, data.phase, context.recipe.seed
    positions = data.order(seed, state.phase, state.epoch)
    order = data.dataset.splits.train[positions]
    mirrored = alternating_turns(seed, state.phase, state.epoch, len(order)).numpy() if data.alternates else None
    spans = batch_spans(len(order), data.batch_size)
    lr = lr_of(phase)
    data.begin_training(context.classifier)

    def gather(step: int) -> Batch:
        chosen = slice(*spans[step])
        turned = mirrored[positions[chosen]] if mirrored is not None else None
        return data.batch(order[chosen], derive(seed, "augmentation", state.phase, state.epoch, step), turned)

    if first_step < len(spans):
        data.expect(order[spans[first_step][0] :])
    threaded = data.rows[:1].nbytes * data.batch_size > _WORTH_A_THREAD
    for step, batch in prefetched(range(first_step, len(spans)), gather, threaded):
        lr = lr_of(phase) * state.plateau.factor * lr_factor(phase, state.epoch * len(spans) + step, len(spans))
        set_lr(optimizer.optimizer, lr)
        loss = take_step(context, data, state, optimizer, batch)
        state.step += 1
        state.loss_sum += loss * batch.total
        advance(batch.total)
        if state.step < len(spans):
            save_if_due(context, state, optimizer, within_epoch=True)
    rate = len(order) / (time.monotonic() - started) if first_step == 0 else None
    return _Course(started, lr, rate)


def take_step(context: Context, data: PhaseData, state: TrainingState, optimizer: OptimizerState, batch: Batch) -> float:
    """Take one step on a batch; returns its mean loss, without an L2 penalty.

    Raises:
        DivergedError: if the loss is NaN or infinite.
    """
    phase, device, world, share = data.phase, context.device, data.world, batch.share
    _seed_dropout(context, data, state, batch)
    inputs, targets = _augmented(context, data, batch)
    if phase.sizes:
        inputs = scaled(inputs, size_of(phase, state.epoch))
    optimizer.forget_gradients()
    value, parts = 0.0, list(zip(inputs.chunk(phase.accumulate), targets.chunk(phase.accumulate), strict=True))
    for number, (part, wanted) in enumerate(parts, 1):
        weight = len(part) / len(inputs) * (share.counted / batch.total)
        with world.unfinished(data.stepped, last=number == len(parts)):
            with data.rounding(device), data.normalizing(share):
                logits = data.stepped(data.prepare(part))
            # Gradients are averaged over the processes, so that each gives its part of the mean times their number.
            loss = training_loss(logits, wanted, phase, data.terms) * (weight * world.size)
            loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item() / world.size
    if world.size > 1:
        value = context.together(value)
    if (penalty := l2_penalty(context.classifier, phase)) is not None:
        penalty.backward()  # type: ignore[no-untyped-call]
    if phase.clip is not None:
        nn.utils.clip_grad_norm_(context.classifier.parameters(), phase.clip)
    with data.rounding(device):  # for Muon's matrix products
        optimizer.step()
    if optimizer.average is not None:
        optimizer.average.update(data.module)
    if not np.isfinite(value):
        raise _diverged(phase, state, f"the loss is {value}")
    return value


def _seed_dropout(context: Context, data: PhaseData, state: TrainingState, batch: Batch) -> None:
    """Let dropout of this step be drawn from its own seed, for each image as in the whole batch (on a CPU)."""
    on_cpu, rank = context.device.type == "cpu", data.world.rank
    # Other devices draw for the images that they have: each process from a seed of its own.
    own = () if on_cpu or rank == 0 else (rank,)
    # `torch.manual_seed` would spend a tenth of a millisecond on absent devices.
    seed_dropout = torch.default_generator.manual_seed if on_cpu else torch.manual_seed
    seed_dropout(derive(context.recipe.seed, "dropout", state.phase, state.epoch, state.step, *own))
    for layer in data.dropouts:
        layer.part = batch.share.first, batch.total


def _augmented(context: Context, data: PhaseData, batch: Batch) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the images and targets that this process takes of a step, augmented as they are in the whole batch."""
    targets = batch.targets.to(context.device)
    if data.pipeline.mixes:
        targets = indicator(targets, len(data.dataset.classes))
    images = data.arrange(batch.rows.to(context.device))
    if data.pipeline.by_image:
        return data.pipeline.part(images, targets, batch.draws)
    images, targets = data.pipeline(images, targets, batch.draws.generator)
    return images[batch.share.rows], targets[batch.share.rows]


def size_of(phase: Phase, epoch: int) -> int:
    """Return the side of the images in an epoch, counted from 0, of a phase with `sizes`: each has an equal share of them."""
    return phase.sizes[epoch * len(phase.sizes) // phase.epochs]


@contextmanager
def trial_steps(context: Context, data: PhaseData) -> Iterator[OptimizerState]:
    """Give a phase's optimiser for some trial steps; weights, statistics, gradients and the random state are restored."""
    kept = snapshot(context.classifier)
    optimizer = OptimizerState(make_optimizer(context.classifier, data.phase), None)
    data.begin_training(context.classifier)
    try:
        with torch.random.fork_rng(devices=[]), on_threads(_threads(data)):
            yield optimizer
    finally:
        context.classifier.load_state_dict(kept)
        optimizer.forget_gradients()


def _diverged(phase: Phase, state: TrainingState, what: str) -> DivergedError:
    place = f"phase '{phase.name}', epoch {state.epoch + 1}, step {state.step + 1}"
    return DivergedError(f"{place}: {what}; lower its lr ({phase.lr})")


def _finish_epoch(context: Context, data: PhaseData, state: TrainingState, optimizer: OptimizerState, course: _Course) -> None:
    """Validate, remember the best epoch, and write the epoch's row."""
    phase, epoch, dataset = data.phase, state.epoch + 1, data.dataset
    module = optimizer.average.module if optimizer.average else data.module
    if not all(bool(torch.isfinite(parameter).all()) for parameter in module.parameters()):
        raise _diverged(phase, state, "the weights contain NaN or infinity")
    val = None
    data.world.copy_buffers(module)
    if count := len(dataset.splits.val):
        own = infer(module, data.rows, dataset.splits.val[data.world.share(count).rows], data.judged, context.device)
        val = validate(dataset, data.world.gathered(own, count), phase)
        # Epochs of smaller images than the phase's last do not compete: the others would be judged by images they never saw.
        competes = not phase.sizes or size_of(phase, state.epoch) == phase.sizes[-1]
        if not np.isfinite(val.loss):
            raise _diverged(phase, state, f"the validation loss is {val.loss}")
        if competes and (state.best is None or val.order(phase.monitor) > state.best.measured.order(phase.monitor)):
            state.best = Best(val.accuracy, val.loss, epoch, snapshot(module), val.balanced_accuracy, val.macro_f1)
        if phase.schedule == "plateau":
            state.plateau = after_epoch(state.plateau, phase, lr_of(phase), val.loss)
    seconds = time.monotonic() - course.started
    state.seconds += seconds
    row = EpochRow(
        phase=phase.name,
        epoch=epoch,
        step=epoch * len(batch_spans(len(dataset.splits.train), data.batch_size)),
        seconds=round(seconds, 3),
        train_loss=state.loss_sum / len(dataset.splits.train),
        val_loss=val and val.loss,
        val_accuracy=val and val.accuracy,
        lr=course.lr,
        images_per_second=round(course.images_per_second, 1) if course.images_per_second else None,
        val_balanced_accuracy=val and val.balanced_accuracy,
        val_macro_f1=val and val.macro_f1,
    )
    state.rows.append(row)
    context.write_rows(state.rows)
    shown = f", {val.described()}" if val else ""
    context.log(f"{phase.name} epoch {epoch}/{phase.epochs}: train loss {row.train_loss:.4f}{shown}, {seconds:.1f} s")
    state.epoch, state.step, state.loss_sum = epoch, 0, 0.0


def _finish_phase(context: Context, data: PhaseData, state: TrainingState, optimizer: OptimizerState, stopped: str) -> None:
    """Restore the best weights and move to the start of the next phase."""
    best = state.best
    if best is not None:
        data.module.load_state_dict(best.weights)
    elif optimizer.average is not None:
        data.module.load_state_dict(optimizer.average.module.state_dict())
    result = PhaseResult(
        name=data.phase.name,
        trainable_parameters=trainable_count(context.classifier),
        epochs_run=state.epoch,
        best_epoch=best.epoch if best else state.epoch,
        best_val_accuracy=best.accuracy if best else None,
        seconds=round(state.seconds, 3),
        stopped=stopped,
        precision="bfloat16" if data.bfloat16 else "float32",
        lr=lr_of(data.phase),
        best_val_balanced_accuracy=best and best.balanced_accuracy,
        best_val_macro_f1=best and best.macro_f1,
    )
    state.phases.append(result)
    reached = f", best {best.measured.described()} in epoch {best.epoch}" if best else ""
    context.report(f"{data.phase.name}: {state.epoch} epochs in {state.seconds:.1f} s{reached}")
    state.begin_phase(state.phase + 1)
