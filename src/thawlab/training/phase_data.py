"""What a phase trains on: images, or the kept output of the part of the network that it leaves frozen."""

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
from thawlab.training.context import Context
from thawlab.training.freezing import freeze, is_frozen, set_modes

Rows = npt.NDArray[Any]
# Draws the view of each sample of a batch.
Draw = Callable[[int, torch.Generator], torch.Tensor]
_ALTERNATE = "alternate-flip"


@final
@dataclass(frozen=True)
class PhaseData:
    """What a phase trains on: rows of all samples, and the module that takes them.

    Attributes:
        phase: what to do; its `lr` is a number before training begins.
        rows: uint8 images, or cached output of the frozen part, indexed by sample.
        views: what training takes in place of `rows`: one array, or several of which each sample draws one.
        draw: draws the views of a batch, where there are several.
        alternates: whether every sample is mirrored in every other epoch.
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
        bfloat16: whether the module computes in bfloat16 while it trains.
    """

    phase: Phase
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
    bfloat16: bool

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


# The frozen lower part, the module above it, and how that takes rows.
_Parts = tuple[FrozenNetwork, nn.Module, Callable[[torch.Tensor], torch.Tensor]]


def _unchanged(rows: torch.Tensor) -> torch.Tensor:
    return rows


def phase_data(context: Context, phase: Phase, as_before: bool | None = None) -> PhaseData:
    """Freeze what a phase leaves alone and return what it trains on, from the cache as far as the network is frozen.

    Args:
        context: of the run.
        phase: what will be trained.
        as_before: whether a phase that is resumed was cached when it began; its checkpoint fits only the same choice.
    """
    classifier = context.classifier
    freeze(classifier, phase.train)
    set_modes(classifier, phase.batch_norm or "train")
    if all(parameter.requires_grad for parameter in classifier.backbone.parameters()):
        return on_images(context, phase)
    if why := _why_uncached(phase):
        return on_images(context, phase, f"not cached, since {why}")
    parts = _parts(context)
    if parts is None:
        return on_images(context, phase)
    samples = len(context.dataset.splits.train) + len(context.dataset.splits.val)
    folder = context.feature_folder
    if as_before is None and not fits_on_disk(parts[0], samples, _views_kept(phase), folder):
        as_before = False
    return (
        on_images(context, phase, f"not cached, since {folder} has too little room")
        if as_before is False
        else (_on_cache(context, phase, parts))
    )


def on_images(context: Context, phase: Phase, note: str = "") -> PhaseData:
    """Return the data of a phase that computes the whole network in every epoch."""
    return _data(
        context,
        phase,
        rows=context.dataset.images,
        pipeline=Pipeline([step for step in phase.augment if step != _ALTERNATE]),
        alternates=_ALTERNATE in phase.augment,
        module=context.classifier,
        arrange=to_tensor,
        prepare=context.preprocessing.normalize,
        note=note,
    )


def _data(context: Context, phase: Phase, rows: Rows, **rest: Any) -> PhaseData:
    dataset = context.dataset
    fields: dict[str, Any] = {
        "views": (rows,),
        "draw": None,
        "pipeline": Pipeline(()),
        "network": None,
        "labels": dataset.labels,
        "train": dataset.splits.train,
        "val": dataset.splits.val,
        "classes": len(dataset.classes),
        "bfloat16": context.recipe.precision == "bfloat16",
    }
    return PhaseData(phase=phase, rows=rows, **(fields | rest))


def _flips_only(phase: Phase) -> bool:
    return phase.augment in {("flip",), (_ALTERNATE,)}


def _why_uncached(phase: Phase) -> str:
    """Return why a phase with a frozen part cannot be cached; empty where it can.

    It can where its views can be listed: `flip` or `alternate-flip` alone has two, and `views = N` asks for N fixed random views
    of each image. Otherwise the images differ in every epoch.
    """
    if not phase.augment or _flips_only(phase):
        return ""
    if Pipeline(phase.augment).mixes:
        return "its augmentation mixes images"
    return "" if phase.views else "its augmentation changes the images in every epoch; views = N would train on N fixed views"


def _views_kept(phase: Phase) -> int:
    return 2 if _flips_only(phase) else (phase.views or 0) + 1


def _on_cache(context: Context, phase: Phase, parts: _Parts) -> PhaseData:
    """Return the data of a phase whose frozen part is computed once."""
    (network, module, arrange), dataset, folder = parts, context.dataset, context.feature_folder
    train = dataset.splits.train
    rows = cached_rows(network, dataset, np.concatenate([train, dataset.splits.val]), folder)
    views: dict[str, Any] = {}
    note = f"{network.name} is frozen and cached"
    if _flips_only(phase):
        views = {"views": (rows, cached_rows(network, dataset, train, folder, mirrored=True)), "draw": _draw_flip}
        note += ", in two views (plain and mirrored)"
    elif phase.augment:
        count = phase.views or 1
        kept = cached_views(network, dataset, train, folder, phase.augment, count, context.recipe.seed)
        views = {"views": tuple(kept), "draw": lambda n, generator: torch.randint(0, count, (n,), generator=generator)}
        note += f", in {count} fixed random views of each image"
    return _data(
        context,
        phase,
        rows=rows,
        alternates=phase.augment == (_ALTERNATE,),
        module=module,
        arrange=arrange,
        prepare=_unchanged,
        network=network,
        note=note,
        **views,
    )


def _draw_flip(count: int, generator: torch.Generator) -> torch.Tensor:
    """Draw as the augmentation `flip` does, so that cached and uncached training see the same images."""
    return (torch.rand(count, generator=generator) < 0.5).long()


def _parts(context: Context) -> _Parts | None:
    """Return the frozen lower part, the module above it and how it takes rows; None where nothing can be kept."""
    classifier, preprocessing, device = context.classifier, context.preprocessing, context.device
    architecture, size = context.spec.identity, preprocessing.size
    if is_frozen(classifier.backbone):
        return FrozenNetwork(classifier.backbone, architecture, preprocessing, device), classifier.head, _unchanged
    split = split_backbone(classifier.backbone)
    probe = torch.rand(2, 3, size, size, device=device, generator=torch.Generator(device).manual_seed(0))
    if split is None or not agrees(split, classifier.backbone, probe.contiguous(memory_format=torch.channels_last)):
        return None
    name = f"{architecture} up to operation {split.depth}"
    return FrozenNetwork(split.prefix, name, preprocessing, device), _Upper(split.suffix, classifier.head), from_rows
