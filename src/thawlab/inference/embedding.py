"""A pretrained backbone whose features are wanted, and nothing else of it."""

import torch

from thawlab.data.preprocessing import Preprocessing
from thawlab.inference.feature_cache import FrozenNetwork
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import build_backbone, load_weights


def frozen_backbone(spec: BackboneSpec, preprocessing: Preprocessing) -> FrozenNetwork:
    """Return a backbone with its pretrained weights, ready to give features of images that are preprocessed like this.

    Raises:
        ThawlabError: if the weights cannot be had.
    """
    backbone = build_backbone(spec, preprocessing.size)
    load_weights(backbone, spec, preprocessing.size)
    backbone.to(memory_format=torch.channels_last)
    return FrozenNetwork(backbone.eval(), spec.identity, preprocessing, torch.device("cpu"))
