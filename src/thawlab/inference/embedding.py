"""Features of all images of a source from a pretrained backbone, from the cache where they were computed before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.listing import Listing
from thawlab.data.types import Indices
from thawlab.errors import UsageError
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import FrozenNetwork, cached_rows
from thawlab.models.catalog import resolve_backbone
from thawlab.models.classifier import build_backbone, load_weights, make_preprocessing
from thawlab.recipe import Recipe


@final
@dataclass(frozen=True)
class Embedding:
    """Images as points in the feature space of a backbone.

    Attributes:
        backbone: its name.
        features: float32, n × width, in the order of the listing; only the rows of `valid` mean something.
        valid: indices of the images that could be decoded.
        dataset: the decoded images, all of them in its train split.
    """

    backbone: str
    features: npt.NDArray[np.float32]
    valid: Indices
    dataset: Dataset


def embed(listing: Listing, recipe: Recipe) -> Embedding:
    """Compute the features of all images of a listing.

    Args:
        listing: the images.
        recipe: names the backbone, the image size (the weights' own where it is open) and the cache.

    Raises:
        UsageError: if there is no such backbone.
        ThawlabError: if its weights cannot be had, or the images cannot be read.
    """
    spec = resolve_backbone(recipe.model.backbone)
    if not spec.has_weights:
        raise UsageError(f"--backbone {spec.name}: has no pretrained weights; take bundled, or a backbone of timm's")
    size = recipe.data.image_size or int(spec.config["input_size"][-1])
    preprocessing = make_preprocessing(recipe, spec, size)
    backbone = build_backbone(spec, size)
    load_weights(backbone, spec, size)
    backbone.to(memory_format=torch.channels_last)
    dataset = decode_all(listing, preprocessing, recipe.system)
    network = FrozenNetwork(backbone.eval(), spec.identity, preprocessing, torch.device("cpu"))
    features = cached_rows(network, dataset, dataset.splits.train, cache_folder(recipe.system.cache_dir, "features"))
    return Embedding(spec.name, features, dataset.splits.train, dataset)
