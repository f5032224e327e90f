"""What a phase trains on: images, or the cached output of the part of the network that is frozen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab.data.augmentation import Pipeline
from thawlab.data.preprocessing import to_tensor
from thawlab.data.types import Indices, Labels
from thawlab.inference.feature_cache import FrozenNetwork, cached_rows, cached_views, fits_on_disk
from thawlab.inference.prefix import agrees, from_rows, split_backbone
from thawlab.recipe import Phase
from thawlab.training.freezing import is_frozen, set_modes
from thawlab.training.setup import Setup

Rows = npt.NDArray[Any]
# Draws the view of each sample of a batch.
Draw = Callable[[int, torch.Generator], torch.Tensor]
_ALTERNATE = "alternate-flip"


@final
@dataclass(frozen=True)
class Material:
    """What a phase trains on: rows of all samples, and the module that takes them.

    Attributes:
        rows: uint8 images, or cached output of the frozen part, indexed by sample.
        views: what training takes in place of `rows`: one array, or several of which each sample draws one.
        draw: draws the views of a batch, where there are several.
        alternates: whether the rows of an epoch are seen mirrored in turn.
        pipeline: augmentation of what was taken.
        labels: int64 by sample.
        train: samples to learn from.
        val: samples to choose the best epoch with; may be empty.
        classes: how many classes there are.
        module: the classifier, or the part of it above the cache.
        arrange: from a batch of rows to what augmentations take.
        prepare: from a batch of augmented rows to the module's input.
        network: the frozen part whose output the rows are; None where they are images.
        note: how the phase is cached, for the log.
    """

    rows: Rows
    views: tuple[Rows, ...]
    draw: Draw | None
    alternates: bool
    pipeline: Pipeline
    labels: Labels
    train: Indices
    val: Indices
    classes: int
    module: nn.Module
    arrange: Callable[[torch.Tensor], torch.Tensor]
    prepare: Callable[[torch.Tensor], torch.Tensor]
    network: FrozenNetwork | None
    note: str

    @property
    def cached(self) -> bool:
        """Whether the frozen part is cached."""
        return self.network is not None

    @property
    def row_bytes(self) -> int:
        """How many bytes a sample takes."""
        return self.rows.itemsize * int(np.prod(self.rows.shape[1:]))

    def take(self, samples: Indices, generator: torch.Generator, mirrored: npt.NDArray[np.bool_] | None = None) -> torch.Tensor:
        """Return the rows of some samples, each in a view that the generator draws, or mirrored as the epoch wants it."""
        if self.draw is None:
            rows = np.take(self.views[0], samples, axis=0)
            if mirrored is not None:
                rows[mirrored] = rows[mirrored, :, ::-1]
            return torch.from_numpy(rows)
        drawn = self.draw(len(samples), generator).numpy() if mirrored is None else mirrored
        taken = np.empty((len(samples), *self.rows.shape[1:]), dtype=self.rows.dtype)
        for number, view in enumerate(self.views):
            chosen = np.flatnonzero(drawn == number)
            taken[chosen] = np.take(view, samples[chosen], axis=0)
        return torch.from_numpy(taken)


@final
class _Upper(nn.Module):
    """The part of a classifier above the cache."""

    def __init__(self, suffix: nn.Module, head: nn.Module) -> None:
        super().__init__()
        self.backbone, self.head = suffix, head

    def forward(self, rows: torch.Tensor) -> torch.Tensor:
        logits: torch.Tensor = self.head(self.backbone(rows))
        return logits


def unchanged(rows: torch.Tensor) -> torch.Tensor:
    """Return rows as they are."""
    return rows


def on_images(setup: Setup, phase: Phase, note: str = "") -> Material:
    """Return the material of a phase that computes the whole network in every epoch."""
    dataset = setup.dataset
    return Material(
        rows=dataset.images,
        views=(dataset.images,),
        draw=None,
        alternates=_ALTERNATE in phase.augment,
        pipeline=Pipeline([step for step in phase.augment if step != _ALTERNATE]),
        labels=dataset.labels,
        train=dataset.splits.train,
        val=dataset.splits.val,
        classes=len(dataset.classes),
        module=setup.classifier,
        arrange=to_tensor,
        prepare=setup.preprocessing.normalize,
        network=None,
        note=note,
    )


def material_of(setup: Setup, phase: Phase, as_before: bool | None = None) -> Material:
    """Return what a phase trains on, from the cache as far as the network is frozen.

    A phase with augmentation is cached where its views can be: `flip` or `alternate-flip` alone has two, and `views = N` asks
    for N fixed random views of each image. Otherwise the images differ in every epoch and nothing can be kept.

    Args:
        setup: its classifier is frozen as the phase wants it.
        phase: what will be trained.
        as_before: whether a phase that is continued was cached when it began; its checkpoint fits only the same choice.
    """
    dataset, classifier, folder = setup.dataset, setup.classifier, setup.feature_folder
    if all(parameter.requires_grad for parameter in classifier.backbone.parameters()):
        return on_images(setup, phase)
    set_modes(classifier, phase.batch_norm or "train")
    pipeline = Pipeline(phase.augment)
    flips = phase.augment in {("flip",), (_ALTERNATE,)}
    if phase.augment and not flips and (phase.views is None or pipeline.mixes):
        why = "its augmentation mixes images" if pipeline.mixes else "its augmentation changes the images in every epoch"
        remedy = "" if pipeline.mixes else "; views = N would train on N fixed views"
        return on_images(setup, phase, f"not cached, since {why}{remedy}")
    parts = _frozen_part(setup)
    if parts is None:
        return on_images(setup, phase)
    network, module, arrange = parts
    train, val = dataset.splits.train, dataset.splits.val
    views_kept = 2 if flips else (phase.views or 0) + 1
    if as_before is False or (as_before is None and not fits_on_disk(network, len(train) + len(val), views_kept, folder)):
        return on_images(setup, phase, f"not cached, since {folder} has too little room")
    rows = cached_rows(network, dataset, np.concatenate([train, val]), folder)
    views: tuple[Rows, ...] = (rows,)
    draw: Draw | None = None
    note = f"{network.name} is frozen and cached"
    if flips:
        views, draw = (rows, cached_rows(network, dataset, train, folder, mirrored=True)), _draw_flip
        note += ", in two views (plain and mirrored)"
    elif phase.augment:
        count = phase.views or 1
        views = tuple(cached_views(network, dataset, train, folder, phase.augment, count, setup.recipe.seed))
        draw = lambda n, generator: torch.randint(0, count, (n,), generator=generator)  # noqa: E731
        note += f", in {count} fixed random views of each image"
    return Material(
        rows=rows,
        views=views,
        draw=draw,
        alternates=phase.augment == (_ALTERNATE,),
        pipeline=Pipeline(()),
        labels=dataset.labels,
        train=train,
        val=val,
        classes=len(dataset.classes),
        module=module,
        arrange=arrange,
        prepare=unchanged,
        network=network,
        note=note,
    )


def _draw_flip(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw as the augmentation `flip` does, so that cached and uncached training see the same images."""
    return (torch.rand(count, generator=generator) < 0.5).long()


def _frozen_part(setup: Setup) -> tuple[FrozenNetwork, nn.Module, Callable[[torch.Tensor], torch.Tensor]] | None:
    """Return the frozen lower part, the module above it and how it takes rows; None where nothing can be kept."""
    classifier, preprocessing, device = setup.classifier, setup.preprocessing, setup.device
    architecture, size = setup.spec.identity, setup.preprocessing.size
    if is_frozen(classifier.backbone):
        return FrozenNetwork(classifier.backbone, architecture, preprocessing, device), classifier.head, unchanged
    split = split_backbone(classifier.backbone)
    probe = torch.rand(2, 3, size, size, device=device, generator=torch.Generator(device).manual_seed(0))
    if split is None or not agrees(split, classifier.backbone, probe.contiguous(memory_format=torch.channels_last)):
        return None
    name = f"{architecture} up to operation {split.depth}"
    return FrozenNetwork(split.prefix, name, preprocessing, device), _Upper(split.suffix, classifier.head), from_rows
