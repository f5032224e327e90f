"""A pretrained backbone whose features describe images."""

from __future__ import annotations

import torch

from thawlab.errors import UsageError
from thawlab.inference.feature_cache import FrozenNetwork
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import build_backbone, load_weights, make_preprocessing
from thawlab.recipe import Recipe


def frozen_backbone(recipe: Recipe) -> tuple[str, FrozenNetwork]:
    """Return the name and the network of a recipe's backbone, at the recipe's image size or else the weights' own.

    Raises:
        UsageError: if there is no such backbone.
        ThawlabError: if its weights cannot be had.
    """
    spec = resolve_backbone(recipe.model.backbone)
    if not spec.has_weights:
        raise UsageError(f"--backbone {spec.name}: has no pretrained weights; take bundled, or a backbone of timm's")
    size = recipe.data.image_size or int(spec.config["input_size"][-1])
    backbone = build_backbone(spec, size)
    load_weights(backbone, spec, size)
    backbone.to(memory_format=torch.channels_last)
    preprocessing = make_preprocessing(recipe, spec, size)
    return spec.name, FrozenNetwork(backbone.eval(), spec.identity, preprocessing, torch.device("cpu"))
