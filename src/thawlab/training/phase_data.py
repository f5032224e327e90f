"""What a phase trains on: images, or the cached output of the part of the network that it leaves frozen."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab.data.augmentation import Draws, Pipeline, scaled
from thawlab.data.batches import balanced_order, buffered_order, epoch_order
from thawlab.data.dataset import Dataset
from thawlab.data.on_demand import OnDemand
from thawlab.data.preprocessing import to_tensor
from thawlab.data.types import Indices
from thawlab.inference.feature_cache import FrozenNetwork, cached_rows, cached_views, fits_on_disk
from thawlab.inference.folding import foldable
from thawlab.inference.prefix import agrees, from_rows, split_backbone
from thawlab.models.classifier import Classifier
from thawlab.models.dropout import Dropout
from thawlab.models.quicker import quicker
from thawlab.recipe import Phase
from thawlab.training.context import Context
from thawlab.training.freezing import freeze, is_frozen, set_modes
from thawlab.training.losses import ClassTerms, class_terms
from thawlab.training.synced import SyncedBatchNorm
from thawlab.training.world import ALONE, Share, World

Rows = npt.NDArray[Any]
_ALTERNATE = "alternate-flip"


class Batch(NamedTuple):
    """What this process takes of a step: rows, targets (int64), what their augmentation is drawn from, and its share.

    The rows are those of the share, or of the whole batch where an augmentation needs them all.
    """

    rows: torch.Tensor
    targets: torch.Tensor
    draws: Draws
    share: Share
    total: int


def _unchanged(rows: torch.Tensor) -> torch.Tensor:
    return rows


@final
@dataclass(frozen=True)
class PhaseData:
    """What a phase trains on: rows of all samples, and the module that takes them.

    Attributes:
        phase: what to do; its `lr` and `batch_size` are numbers before training begins.
        dataset: labels and splits of the samples.
        rows: uint8 images, or cached output of the frozen part, indexed by sample.
        views: what training takes in place of `rows`: one array, or several of which each sample draws one.
        module: the classifier, or the part of it above the cache.
        bfloat16: whether the module computes in bfloat16 while it trains.
        terms: what the loss knows of the classes.
        network: the frozen part whose output the rows are; None where they are images.
        note: how the phase is cached, for the log.
        alternates: whether every sample is mirrored in every other epoch.
        pipeline: augmentation of what was taken.
        arrange: from a batch of rows to what augmentations take.
        prepare: from a batch of augmented rows to the module's input.
        world: the processes that share the batches.
        buffer: samples that are shuffled together where they are read shard by shard; None to shuffle all.
    """

    phase: Phase
    dataset: Dataset
    rows: Rows
    views: tuple[Rows, ...]
    module: nn.Module
    bfloat16: bool
    terms: ClassTerms
    network: FrozenNetwork | None = None
    note: str = ""
    alternates: bool = False
    pipeline: Pipeline = field(default_factory=lambda: Pipeline(()))
    arrange: Callable[[torch.Tensor], torch.Tensor] = from_rows
    prepare: Callable[[torch.Tensor], torch.Tensor] = _unchanged
    world: World = ALONE
    buffer: int | None = None

    @property
    def batch_size(self) -> int:
        """Images in a step; where the recipe says "auto", it has been settled by now."""
        assert not isinstance(self.phase.batch_size, str), "the batch size is settled before the phase is trained"
        return self.phase.batch_size

    @cached_property
    def stepped(self) -> nn.Module:
        """What takes the steps in the module's place: the same function of the same weights, quicker; over all processes."""
        if self.rows.ndim != 4:
            return self.world.parallel(self.module)
        height, width, channels = self.rows.shape[1:]
        shapes = [(channels, height, width), *((channels, size, size) for size in set(self.phase.sizes))]
        fixed = foldable(self.module) if self.phase.batch_norm == "eval" else ()
        return self.world.parallel(quicker(self.module, shapes, fixed))

    @cached_property
    def dropouts(self) -> list[Dropout]:
        """The layers that draw for each image what they would draw for it in the whole batch."""
        return [layer for layer in self.stepped.modules() if isinstance(layer, Dropout)] if self.world.size > 1 else []

    def rounding(self, device: torch.device) -> AbstractContextManager[object]:
        """Return the context of a step's arithmetic: within it operations may round to bfloat16."""
        return torch.autocast(device.type, torch.bfloat16) if self.bfloat16 else nullcontext()

    def normalizing(self, share: Share) -> AbstractContextManager[object]:
        """Return the context of a step's forward pass: within it BatchNorm may take the images of all processes together."""
        together = self.phase.batch_norm == "sync" and self.world.size > 1
        return SyncedBatchNorm(share.counted > 0) if together else nullcontext()

    def judged(self, rows: torch.Tensor) -> torch.Tensor:
        """Return a batch of rows as the module takes it to be judged: at the last of the phase's sizes.

        A phase that ends with smaller images prepares for a later one: the larger ones would judge it by what it never saw.
        """
        arranged = self.arrange(rows)
        return self.prepare(scaled(arranged, self.phase.sizes[-1]) if self.phase.sizes else arranged)

    def begin_training(self, classifier: Classifier) -> None:
        """Put the classifier, and what takes the steps, into the modes that the phase trains in."""
        set_modes(classifier, self.phase.batch_norm or "train")
        if self.stepped is not self.module:
            set_modes(self.stepped, self.phase.batch_norm or "train")

    def order(self, seed: int, number: int, epoch: int) -> Indices:
        """Return the order of an epoch of the phase with this number: positions within the train split."""
        train = self.dataset.splits.train
        if self.phase.sampling == "balanced":
            return balanced_order(seed, number, epoch, self.dataset.labels[train])
        if self.buffer is not None and self.dataset.shards is not None:
            return buffered_order(seed, number, epoch, self.dataset.shards[train], self.buffer)
        order: Indices = epoch_order(seed, number, epoch, len(train)).numpy()
        return order

    def expect(self, samples: Indices) -> None:
        """Take note of which samples come next, in order: images that are decoded as they are taken may come from afar."""
        images: object = self.views[0]  # an array in all that is asked of it elsewhere
        if isinstance(images, OnDemand):
            images.expect(samples)

    def batch(self, samples: Indices, seed: int, mirrored: npt.NDArray[np.bool_] | None = None) -> Batch:
        """Return some samples for a step; the views and the augmentation are each drawn from the seed."""
        share, total = self.world.share(len(samples)), len(samples)
        taken = share.rows if self.pipeline.by_image else slice(None)
        rows = self.take(samples, torch.Generator().manual_seed(seed), mirrored, taken)
        draws = Draws(torch.Generator().manual_seed(seed), taken.start or 0, total)
        return Batch(rows, torch.from_numpy(self.dataset.labels[samples[taken]]), draws, share, total)

    def take(
        self,
        samples: Indices,
        generator: torch.Generator,
        mirrored: npt.NDArray[np.bool_] | None = None,
        part: slice = slice(None),
    ) -> torch.Tensor:
        """Return the rows of a part of some samples, each in a view that is drawn, or mirrored as the epoch wants it."""
        if len(self.views) == 1:
            samples, mirrored = samples[part], None if mirrored is None else mirrored[part]
            rows = np.take(self.views[0], samples, axis=0)
            if mirrored is not None:
                rows[mirrored] = rows[mirrored, :, ::-1]
            return torch.from_numpy(rows)
        if mirrored is not None:
            drawn: npt.NDArray[Any] = mirrored
        elif _flips_only(self.phase):  # drawn as the augmentation `flip` does: cached and uncached training see the same images
            drawn = (torch.rand(len(samples), generator=generator) < 0.5).numpy()
        else:
            drawn = torch.randint(0, len(self.views), (len(samples),), generator=generator).numpy()
        samples, drawn = samples[part], drawn[part]
        taken = np.empty((len(samples), *self.rows.shape[1:]), dtype=self.rows.dtype)
        for number, view in enumerate(self.views):
            chosen = np.flatnonzero(drawn == number)
            taken[chosen] = np.take(view, samples[chosen], axis=0)
        return torch.from_numpy(taken)


def phase_data(context: Context, phase: Phase, as_before: bool | None = None) -> PhaseData:
    """Freeze what a phase does not train and return what it trains on, from the cache as far as the network is frozen.

    Args:
        context: of the run.
        phase: what will be trained.
        as_before: whether a phase that is resumed was cached when it began; its checkpoint fits only the same choice.
    """
    classifier, splits, folder = context.classifier, context.dataset.splits, context.feature_folder
    freeze(classifier, phase.train)
    set_modes(classifier, phase.batch_norm or "train")
    if all(parameter.requires_grad for parameter in classifier.backbone.parameters()):
        return on_images(context, phase)
    if why := _why_uncached(phase):
        return on_images(context, phase, f"not cached, since {why}")
    parts = _parts(context)
    if parts is None:
        return on_images(context, phase)
    if as_before is None:
        views = 2 if _flips_only(phase) else (phase.views or 0) + 1
        as_before = context.world.agreed(fits_on_disk(parts[0], len(splits.train) + len(splits.val), views, folder))
    if not as_before:
        return on_images(context, phase, f"not cached, since {folder} has too little room")
    return _on_cache(context, phase, *parts)


def on_images(context: Context, phase: Phase, note: str = "") -> PhaseData:
    """Return the data of a phase that computes the whole network in every epoch."""
    return PhaseData(
        phase,
        context.dataset,
        context.dataset.images,
        (context.dataset.images,),
        context.classifier,
        context.recipe.precision == "bfloat16",
        _terms(context, phase),
        note=note,
        alternates=_ALTERNATE in phase.augment,
        pipeline=Pipeline([step for step in phase.augment if step != _ALTERNATE]),
        arrange=to_tensor,
        prepare=context.preprocessing.normalize,
        world=context.world,
        buffer=context.recipe.data.shuffle_buffer,
    )


def _terms(context: Context, phase: Phase) -> ClassTerms:
    dataset = context.dataset
    return class_terms(phase, dataset.labels[dataset.splits.train], len(dataset.classes), context.device)


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


def trains_on_features(phase: Phase) -> bool:
    """Return whether a phase trains the head alone, on features that are computed once."""
    return phase.train == "head" and not _why_uncached(phase)


def _on_cache(context: Context, phase: Phase, network: FrozenNetwork, module: nn.Module) -> PhaseData:
    """Return the data of a phase whose frozen part is computed once."""
    dataset, folder = context.dataset, context.feature_folder
    train = dataset.splits.train
    rows = cached_rows(network, dataset, np.concatenate([train, dataset.splits.val]), folder)
    views, note = [rows], f"{network.name} is frozen and cached"
    if _flips_only(phase):
        views.append(cached_rows(network, dataset, train, folder, mirrored=True))
        note += ", in two views (plain and mirrored)"
    elif phase.augment:
        views = cached_views(network, dataset, train, folder, phase.augment, phase.views or 1, context.recipe.seed)
        note += f", in {len(views)} fixed random views of each image"
    # A head's step takes less time than exchanging its gradients: each process takes whole batches, and all take the same steps.
    world = ALONE if module is context.classifier.head else context.world
    return PhaseData(
        phase,
        dataset,
        rows,
        tuple(views),
        module,
        context.recipe.precision == "bfloat16",
        _terms(context, phase),
        network,
        note,
        alternates=phase.augment == (_ALTERNATE,),
        world=world,
        buffer=context.recipe.data.shuffle_buffer,
    )


def _parts(context: Context) -> tuple[FrozenNetwork, nn.Module] | None:
    """Return the frozen lower part and the module above it; None where nothing can be cached."""
    classifier, preprocessing, device = context.classifier, context.preprocessing, context.device
    architecture, size = context.spec.identity, preprocessing.size
    if is_frozen(classifier.backbone):
        return FrozenNetwork(classifier.backbone, architecture, preprocessing, device), classifier.head
    split = split_backbone(classifier.backbone)
    probe = torch.rand(2, 3, size, size, device=device, generator=torch.Generator(device).manual_seed(0))
    if split is None or not agrees(split, classifier.backbone, probe.contiguous(memory_format=torch.channels_last)):
        return None
    name = f"{architecture} up to operation {split.depth}"
    return FrozenNetwork(split.prefix, name, preprocessing, device), Classifier(split.suffix, classifier.head)
