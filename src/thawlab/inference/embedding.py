"""Features of all images of a source from a pretrained backbone, from the cache where they were computed before."""

from __future__ import annotations

from dataclasses import dataclass
from typing import final

import numpy as np
import numpy.typing as npt
import torch

from thawlab.data.dataset import Dataset, decode_all
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Indices
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import FrozenNetwork, cached_rows
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import build_backbone, load_weights
from thawlab.recipe import System


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


def embed(listing: Listing, spec: BackboneSpec, preprocessing: Preprocessing, system: System) -> Embedding:
    """Compute the features of all images of a listing.

    Args:
        listing: the images.
        spec: a backbone with pretrained weights.
        preprocessing: of its input.
        system: where caches are.

    Raises:
        ThawlabError: if the weights cannot be had, or the images cannot be read.
    """
    backbone = build_backbone(spec, preprocessing.size)
    load_weights(backbone, spec, preprocessing.size)
    backbone.to(memory_format=torch.channels_last)
    dataset = decode_all(listing, preprocessing, system)
    network = FrozenNetwork(backbone.eval(), spec.identity, preprocessing, torch.device("cpu"))
    features = cached_rows(network, dataset, dataset.splits.train, cache_folder(system.cache_dir, "features"))
    return Embedding(spec.name, features, dataset.splits.train, dataset)
