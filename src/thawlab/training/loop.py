"""The one loop: the only code that steps an optimiser."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from thawlab import progress
from thawlab.data.augmentation import scaled
from thawlab.data.batches import alternating_turns, batch_spans, epoch_order, prefetched
from thawlab.errors import ThawlabError
from thawlab.evaluation.metrics.calibration import log_loss
from thawlab.inference.infer import infer
from thawlab.models.classifier import Classifier
from thawlab.randomness import derive
from thawlab.recipe import Phase
from thawlab.run import RunFolder
from thawlab.training.averaging import WeightAverage
from thawlab.training.freezing import set_modes, trainable_count
from thawlab.training.interruption import Interruption
from thawlab.training.optimizers import lr_factor, lr_of, make_optimizer, set_lr
from thawlab.training.phase_data import Material
from thawlab.training.state import Moving, Saver, TrainingState, save_checkpoint, snapshot

# Batches of so many bytes are gathered in a thread of their own; smaller ones take less time than passing them on.
_WORTH_A_THREAD = 1 << 20


@final
@dataclass(frozen=True)
class Job:
    """What stays the same through all phases of a run."""

    folder: RunFolder
    classifier: Classifier
    seed: int
    device: torch.device
    bfloat16: bool
    interruption: Interruption


def train_phase(job: Job, phase: Phase, material: Material, state: TrainingState, moving_state: dict[str, Any] | None) -> None:
    """Train one phase from where `state` stands to its end, and restore the best epoch's weights.

    Args:
        job: the run.
        phase: what to do; the classifier's parameters are frozen accordingly already.
        material: what to train on.
        state: is advanced; afterwards it stands at the start of the next phase.
        moving_state: of the checkpoint, when training continues within the phase.

    Raises:
        Interrupted: after saving, when a signal asked to stop.
        ThawlabError: if the loss is not a number any more.
    """
    average = WeightAverage(material.module, phase.ema) if phase.ema else None
    moving = Moving(make_optimizer(job.classifier, phase), average)
    if moving_state is not None:
        moving.load_state_dict(moving_state)
    saver = Saver(job.folder.checkpoint, state, job.classifier, moving, job.interruption)
    stopped = "epochs"
    left = len(material.train) * (phase.epochs - state.epoch) - state.step * phase.batch_size
    with progress.task(phase.name, left) as advance:
        while state.epoch < phase.epochs:
            started = time.monotonic()
            first_step = state.step
            lr = _train_epoch(job, phase, material, state, moving, saver, advance)
            trained = time.monotonic() - started
            done = len(material.train) if first_step == 0 else None
            _finish_epoch(job, phase, material, state, average, lr, done / trained if done else None, started)
            if phase.patience is not None and state.best is not None and state.epoch - state.best["epoch"] >= phase.patience:
                stopped = "patience"
                break
            if state.epoch < phase.epochs:
                saver.at_epoch_end()
    _finish_phase(job, phase, material, state, average, stopped)
    save_checkpoint(job.folder.checkpoint, state, job.classifier, None)


def _train_epoch(
    job: Job,
    phase: Phase,
    material: Material,
    state: TrainingState,
    moving: Moving,
    saver: Saver,
    advance: progress.Advance,
) -> float:
    """Train from `state.step` to the end of the epoch; returns the last learning rate."""
    positions = epoch_order(job.seed, state.phase, state.epoch, len(material.train)).numpy()
    order = material.train[positions]
    turns = alternating_turns(job.seed, state.phase, state.epoch, len(order)).numpy() if material.alternates else None
    spans = batch_spans(len(order), phase.batch_size)
    lr = lr_of(phase)
    set_modes(job.classifier, phase.batch_norm or "train")

    def generator_of(step: int) -> torch.Generator:
        return torch.Generator().manual_seed(derive(job.seed, "augmentation", state.phase, state.epoch, step))

    def gather(step: int) -> torch.Tensor:
        start, end = spans[step]
        mirrored = turns[positions[start:end]] if turns is not None else None
        return material.take(order[start:end], generator_of(step), mirrored)

    for step, rows in prefetched(range(state.step, len(spans)), gather, material.row_bytes * phase.batch_size > _WORTH_A_THREAD):
        start, end = spans[step]
        targets = torch.from_numpy(material.labels[order[start:end]])
        lr = lr_of(phase) * lr_factor(phase, state.epoch * len(spans) + step, len(spans))
        set_lr(moving.optimizer, lr)
        loss = take_step(job, phase, material, state, moving, rows, targets, generator_of(step))
        state.step += 1
        state.loss_sum += loss * len(rows)
        advance(len(rows))
        if state.step < len(spans):
            saver.within_epoch()
    return lr


def take_step(
    job: Job,
    phase: Phase,
    material: Material,
    state: TrainingState,
    moving: Moving,
    rows: torch.Tensor,
    targets: torch.Tensor,
    generator: torch.Generator,
) -> float:
    """Take one step on a batch; returns its mean loss."""
    _seed_dropout(job.device, derive(job.seed, "dropout", state.phase, state.epoch, state.step))
    targets = targets.to(job.device)
    if material.pipeline.mixes:
        targets = F.one_hot(targets, material.classes).float()
    inputs, targets = material.pipeline(material.arrange(rows.to(job.device)), targets, generator)
    if phase.sizes:
        inputs = scaled(inputs, phase.sizes[state.epoch * len(phase.sizes) // phase.epochs])  # an equal share of the epochs each
    moving.optimizer.zero_grad(set_to_none=True)
    value = 0.0
    for part, wanted in zip(inputs.chunk(phase.accumulate), targets.chunk(phase.accumulate), strict=True):
        with torch.autocast(job.device.type, torch.bfloat16, enabled=job.bfloat16):
            logits = material.module(material.prepare(part))
        loss = F.cross_entropy(logits.float(), wanted, label_smoothing=phase.label_smoothing) * (len(part) / len(inputs))
        loss.backward()  # type: ignore[no-untyped-call]
        value += loss.item()
    if phase.clip is not None:
        nn.utils.clip_grad_norm_(job.classifier.parameters(), phase.clip)
    with torch.autocast(job.device.type, torch.bfloat16, enabled=job.bfloat16):  # for Muon's matrix products
        moving.optimizer.step()
    if moving.average is not None:
        moving.average.update(material.module)
    if not np.isfinite(value):
        raise _diverged(phase, state, f"the loss is {value}")
    return value


def _seed_dropout(device: torch.device, seed: int) -> None:
    """Seed the generator that layers draw from; `torch.manual_seed` would spend a tenth of a millisecond on absent devices."""
    if device.type == "cpu":
        torch.default_generator.manual_seed(seed)
    else:
        torch.manual_seed(seed)


def _diverged(phase: Phase, state: TrainingState, what: str) -> ThawlabError:
    place = f"phase '{phase.name}', epoch {state.epoch + 1}, step {state.step + 1}"
    return ThawlabError(f"{place}: {what}; lower its lr ({phase.lr})")


def _finish_epoch(
    job: Job,
    phase: Phase,
    material: Material,
    state: TrainingState,
    average: WeightAverage | None,
    lr: float,
    rate: float | None,
    started: float,
) -> None:
    """Validate, remember the best epoch, and write the epoch's row."""
    val_loss = val_accuracy = None
    judged = average.module if average else material.module
    if not all(bool(torch.isfinite(parameter).all()) for parameter in judged.parameters()):
        raise _diverged(phase, state, "the weights are no numbers any more")
    if len(material.val):
        logits = infer(
            judged,
            material.rows,
            material.val,
            lambda rows: material.prepare(material.arrange(rows)),
            job.device,
        )
        labels = material.labels[material.val]
        val_loss, val_accuracy = log_loss(logits, labels), float((logits.argmax(axis=1) == labels).mean())
        if not np.isfinite(val_loss):
            raise _diverged(phase, state, f"the validation loss is {val_loss}")
        better = state.best is None or (val_accuracy, -val_loss) > (state.best["accuracy"], -state.best["loss"])
        if better:
            state.best = {
                "accuracy": val_accuracy,
                "loss": val_loss,
                "epoch": state.epoch + 1,
                "weights": snapshot(judged),
            }
    seconds = time.monotonic() - started
    state.seconds += seconds
    state.rows.append(
        {
            "phase": phase.name,
            "epoch": state.epoch + 1,
            "step": (state.epoch + 1) * len(batch_spans(len(material.train), phase.batch_size)),
            "seconds": round(seconds, 3),
            "train_loss": state.loss_sum / len(material.train),
            "val_loss": val_loss,
            "val_accuracy": val_accuracy,
            "lr": lr,
            "images_per_second": round(rate, 1) if rate else None,
        }
    )
    job.folder.write_metrics(state.rows)
    shown = f", val accuracy {val_accuracy:.4f}" if val_accuracy is not None else ""
    job.folder.log(
        f"{phase.name} epoch {state.epoch + 1}/{phase.epochs}: "
        f"train loss {state.rows[-1]['train_loss']:.4f}{shown}, {seconds:.1f} s"
    )
    state.epoch, state.step, state.loss_sum = state.epoch + 1, 0, 0.0


def _finish_phase(
    job: Job, phase: Phase, material: Material, state: TrainingState, average: WeightAverage | None, stopped: str
) -> None:
    """Restore the best weights and stand at the start of the next phase."""
    if state.best is not None:
        material.module.load_state_dict(state.best["weights"])
    elif average is not None:
        material.module.load_state_dict(average.module.state_dict())
    result = {
        "name": phase.name,
        "trainable_parameters": trainable_count(job.classifier),
        "epochs_run": state.epoch,
        "best_epoch": state.best["epoch"] if state.best else state.epoch,
        "best_val_accuracy": state.best["accuracy"] if state.best else None,
        "seconds": round(state.seconds, 3),
        "stopped": stopped,
        "precision": "bfloat16" if job.bfloat16 else "float32",
    }
    state.phases.append(result)
    message = f"{phase.name}: {state.epoch} epochs in {state.seconds:.1f} s"
    if state.best is not None:
        message += f", best val accuracy {result['best_val_accuracy']:.4f} in epoch {result['best_epoch']}"
    job.folder.log(message)
    progress.say(message)
    state.begin_phase(state.phase + 1)
