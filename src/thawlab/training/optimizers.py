"""Optimisers with learning rates by layer and kind of parameter, and schedules as pure functions of the step."""

import math
from typing import Any

import torch

from thawlab.models.classifier import Classifier
from thawlab.recipe import Phase
from thawlab.training.freezing import layer_groups
from thawlab.training.muon import Muon

# One-cycle (Smith and Topin 2018): from lr/25 up to lr in this share of the steps, then down to almost nothing.
_ONE_CYCLE_RISE = 0.3
_ONE_CYCLE_START = 1 / 25
_ONE_CYCLE_END = 1e-4


def parameter_groups(classifier: Classifier, phase: Phase) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning-rate scale, weight decay, and whether Muon turns them.

    The head has scale `head_lr`; a backbone layer k groups below it has `layer_decay`^k (as in BEiT, Bao et al. 2022). Biases
    and normalisation parameters have their layer's scale times `bias_lr`, and are not decayed. Muon turns the filters and
    matrices of the backbone's convolutions and linear layers, which keep their norm and so are not decayed either.
    """
    kinds = (torch.nn.Conv2d, torch.nn.Linear)
    matrices = {id(module.weight) for module in classifier.backbone.modules() if isinstance(module, kinds)}
    depth: dict[str, int] = {}
    if phase.layer_decay < 1:
        groups = layer_groups(classifier.backbone, coarse=False)
        deepest = max(groups.values()) + 1
        depth = {f"backbone.{name}": deepest - group for name, group in groups.items()}
    table: dict[tuple[float, float, bool], list[torch.nn.Parameter]] = {}
    for name, parameter in classifier.named_parameters():
        if parameter.requires_grad:
            in_head, is_vector = name.startswith("head."), parameter.ndim < 2
            scale = phase.head_lr if in_head else phase.layer_decay ** depth.get(name, 0)
            key = (
                scale * phase.bias_lr if is_vector else scale,
                0.0 if is_vector else phase.weight_decay,
                phase.optimizer == "muon" and id(parameter) in matrices,
            )
            table.setdefault(key, []).append(parameter)
    return [
        {"params": members, "scale": scale, "weight_decay": decay, "turned": turned}
        for (scale, decay, turned), members in sorted(table.items(), reverse=True)
    ]


def make_optimizer(classifier: Classifier, phase: Phase) -> torch.optim.Optimizer:
    """Build a phase's optimiser over the parameters that receive gradients."""
    groups, lr = parameter_groups(classifier, phase), lr_of(phase)
    if phase.optimizer == "sgd":
        return torch.optim.SGD(groups, lr=lr, momentum=phase.momentum, nesterov=phase.momentum > 0, fused=True)
    if phase.optimizer == "muon":
        return Muon(groups, lr=lr, momentum=phase.momentum)
    kind = torch.optim.Adam if phase.optimizer == "adam" else torch.optim.AdamW
    return kind(groups, lr=lr, fused=True)


def lr_of(phase: Phase) -> float:
    """Return a phase's peak learning rate, which must have been found by now where the recipe says "auto"."""
    assert not isinstance(phase.lr, str), "the learning rate is found before the phase is trained"
    return phase.lr


def lr_factor(phase: Phase, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate at a step, counted from the start of the phase, as a fraction of the phase's `lr`."""
    total = phase.epochs * steps_per_epoch
    warmup = phase.warmup * steps_per_epoch
    if step < warmup:
        return (step + 1) / (warmup + 1)
    if phase.schedule in ("constant", "plateau"):  # the state of training holds how far a plateau has lowered it
        return 1.0
    if phase.schedule == "linear":
        return 1 - (step - warmup) / max(total - warmup, 1)
    if phase.schedule == "cosine":
        return _anneal(1.0, 0.0, (step - warmup) / max(total - warmup, 1))
    rise = _ONE_CYCLE_RISE * total if warmup == 0 else warmup
    if step < rise:
        return _anneal(_ONE_CYCLE_START, 1.0, step / rise)
    return _anneal(1.0, _ONE_CYCLE_END, (step - rise) / max(total - rise, 1))


def _anneal(start: float, end: float, part: float) -> float:
    return end + (start - end) * 0.5 * (1 + math.cos(math.pi * part))


def set_lr(optimizer: torch.optim.Optimizer, lr: float) -> None:
    """Set the learning rate of all groups, each with its own scale."""
    for group in optimizer.param_groups:
        group["lr"] = lr * group["scale"]
