"""Resolve a recipe: everything that the user may leave open becomes explicit, and every name is checked."""

from __future__ import annotations

import torch

from thawlab.data.augmentation import Pipeline
from thawlab.data.sources import canonical
from thawlab.errors import UsageError
from thawlab.models.catalog import BackboneSpec, resolve_backbone
from thawlab.recipe import Recipe

_SMALLEST = 8


def resolve(recipe: Recipe) -> tuple[Recipe, BackboneSpec]:
    """Fill in what depends on the backbone and check the names that the recipe's own types cannot check.

    Filled in: the backbone's full name and revision, whether it is pretrained, the image size (the weights' own), and each
    phase's BatchNorm mode ("eval" for pretrained weights, whose statistics are better than a small data set's; else "train").

    Raises:
        UsageError: for a wrong backbone, revision or augmentation, or settings that cannot go together.
    """
    spec = resolve_backbone(recipe.model.backbone)
    if recipe.model.revision not in (None, spec.revision or 1):
        raise UsageError(
            f"model.revision = {recipe.model.revision}: this version of thawlab builds revision {spec.revision or 1} of "
            f"'{spec.architecture}'; leave the key out to train that one"
        )
    pretrained = recipe.model.pretrained and spec.has_weights
    size = recipe.data.image_size or int(spec.config["input_size"][-1])
    if size < _SMALLEST:
        raise UsageError(f"data.image_size = {size}: must be at least {_SMALLEST}")
    phases = []
    for index, phase in enumerate(recipe.phases):
        _try_augmentation(Pipeline(phase.augment, f"phases.{index}.augment"), size)
        if phase.sizes and (phase.sizes[-1] != size or max(phase.sizes) > size):
            raise UsageError(
                f"phases.{index}.sizes = {list(phase.sizes)}: must end with data.image_size = {size} and not exceed it, "
                f"since that is what the network is judged at; [] trains at {size} px throughout"
            )
        if phase.train != "all" and not pretrained and index == 0:
            raise UsageError(
                f"phases.{index}.train = '{phase.train}': '{spec.name}' starts from random weights, "
                'which must not stay frozen; train "all" first, or use pretrained weights'
            )
        phases.append(phase.model_copy(update={"batch_norm": phase.batch_norm or ("eval" if pretrained else "train")}))
    resolved = recipe.model_copy(
        update={
            "data": recipe.data.model_copy(update={"image_size": size, "source": canonical(recipe.data.source)}),
            "model": recipe.model.model_copy(update={"backbone": spec.name, "pretrained": pretrained, "revision": spec.revision}),
            "phases": tuple(phases),
        }
    )
    return resolved, spec


def _try_augmentation(pipeline: Pipeline, size: int) -> None:
    """Augment two blank images, so that what cannot work at this size is said before training."""
    targets = torch.eye(2) if pipeline.mixes else torch.arange(2)
    pipeline(torch.zeros(2, 3, size, size, dtype=torch.uint8), targets, torch.Generator().manual_seed(0))
