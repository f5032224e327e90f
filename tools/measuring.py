"""What the tools that measure finders share: what they ran on, and a source opened for a backbone and in memory."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import torch

from thawlab.data.decode import decode
from thawlab.data.images import ArrayImages
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import open_source
from thawlab.environment import environment
from thawlab.models.catalog import BackboneSpec
from thawlab.plan.resolve import pretrained_input
from thawlab.process import keep_memory
from thawlab.recipe import Data, System

Look = tuple[BackboneSpec, Preprocessing, System]


def machine() -> dict[str, Any]:
    """Return when, on which processor, with how many threads and with which packages this runs."""
    told = environment({}, torch.device("cpu"))
    return {key: told[key] for key in ("time", "processor", "threads", "packages")}


def opened(
    source: str, data_dir: str | None, cache_dir: str | None, backbone: str, size: int | None = None
) -> tuple[Listing, Look]:
    """Open a source, and a backbone with what it needs to look at it."""
    keep_memory()
    listing = open_source(source, data_dir)
    return listing, (
        *pretrained_input(backbone, Data(source=source, image_size=size)),
        System(data_dir=data_dir, cache_dir=cache_dir),
    )


def in_memory(listing: Listing) -> tuple[Listing, np.ndarray]:
    """Return a listing of 32-pixel images with its pixels in memory."""
    as_it_is = Preprocessing(size=32, mean=(0, 0, 0), std=(1, 1, 1))
    pixels = np.stack([decode(listing.images.read(k), as_it_is) for k in range(len(listing))])
    return replace(listing, images=ArrayImages(pixels)), pixels
