"""The feature cache: a frozen network is a pure function of the image, so its output is computed once and kept."""

import hashlib
import itertools
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from importlib.metadata import version
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab import progress
from thawlab.data.augmentation import Pipeline
from thawlab.data.dataset import Dataset
from thawlab.data.preprocessing import Preprocessing, to_tensor
from thawlab.data.rowstore import RowStore
from thawlab.data.shared_work import portions
from thawlab.data.types import Indices
from thawlab.environment import device_name
from thawlab.files import room_for_cache
from thawlab.inference.fusing import compacted
from thawlab.inference.infer import INFERENCE_BATCH, Prepare, infer
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import build_backbone, load_weights, weights_digest
from thawlab.models.hooks import eval_mode
from thawlab.randomness import derive

# Rows become valid in portions: an interruption loses little, and several processes can share the work.
_PORTION = 16 * INFERENCE_BATCH

Rows = npt.NDArray[np.float32]


@final
@dataclass(frozen=True)
class FrozenNetwork:
    """A network without anything that changes, and what its output depends on.

    The module, which is on the device, gives one row per normalised input; the name tells the network with its arguments and,
    for a part of one, where it is cut.
    """

    module: nn.Module
    name: str
    preprocessing: Preprocessing
    device: torch.device

    @cached_property
    def compacted(self) -> nn.Module:
        """What computes the same in as few passes as can be had, made once: the weights stay as they are."""
        size = self.preprocessing.size
        with eval_mode(self.module), torch.inference_mode():
            return compacted(self.module, (3, size, size))

    def key(self, dataset: Dataset, view: str) -> str:
        """Return the content key of the rows of a data set: equal keys mean equal numbers."""
        parts = {
            "network": self.name,
            "form": "fused, at once",  # how inference computes, which changes the last bits
            "structure": hashlib.sha256(str(self.module).encode()).hexdigest(),
            "weights": weights_digest(self.module),
            "thawlab": version("thawlab"),
            "preprocessing": self.preprocessing.model_dump(mode="json"),
            "data": dataset.fingerprint,
            "view": view,
            "dtype": "float32",
            # Two processors, or two GPUs, need not round alike, and a cache folder may be shared by several machines.
            "device": device_name(self.device),
            "threads": torch.get_num_threads(),  # how sums are split between threads decides their last bits
            "batch": INFERENCE_BATCH,
            "torch": torch.__version__,
            "timm": version("timm"),
        }
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]

    def store(self, dataset: Dataset, view: str, folder: Path) -> RowStore:
        """Return the store of the rows of a data set, in a folder of its own."""
        return RowStore(folder / self.key(dataset, view), len(dataset.ids), self.row_shape(), np.float32)

    @torch.no_grad()
    def row_shape(self) -> tuple[int, ...]:
        """Return the shape of one output row, found by computing one."""
        size = self.preprocessing.size
        blank = torch.zeros(1, 3, size, size, device=self.device).contiguous(memory_format=torch.channels_last)
        with eval_mode(self.module):
            return tuple(self.module(blank).shape[1:])


def fits_on_disk(network: FrozenNetwork, samples: int, views: int, folder: Path) -> bool:
    """Return whether there is room to keep the rows of this many samples and views."""
    needed = 4 * int(np.prod(network.row_shape())) * samples * views
    return needed <= room_for_cache(folder)


def frozen_backbone(spec: BackboneSpec, preprocessing: Preprocessing) -> FrozenNetwork:
    """Return a backbone with its pretrained weights, ready to give features of images that are preprocessed like this.

    Raises:
        ThawlabError: if the weights cannot be fetched or do not fit.
    """
    backbone = build_backbone(spec, preprocessing.size)
    load_weights(backbone, spec, preprocessing.size)
    backbone.to(memory_format=torch.channels_last)
    return FrozenNetwork(backbone.eval(), spec.identity, preprocessing, torch.device("cpu"))


def cached_rows(network: FrozenNetwork, dataset: Dataset, indices: Indices, folder: Path, mirrored: bool = False) -> Rows:
    """Return a frozen network's output by sample index, computing what the cache lacks for `indices`.

    `folder` is that of all feature caches; `mirrored` flips the images left to right.

    Returns:
        float32, all samples × row shape; only the rows of `indices` are sure to be valid.
    """

    def prepare(rows: torch.Tensor) -> torch.Tensor:
        images = to_tensor(rows)
        return network.preprocessing.normalize(images.flip(-1) if mirrored else images)

    store = network.store(dataset, "mirrored" if mirrored else "plain", folder)
    _fill(store, network, dataset, np.sort(indices), lambda _start: prepare, "features")
    return store.array()


def cached_views(
    network: FrozenNetwork, dataset: Dataset, indices: Indices, folder: Path, augment: tuple[str, ...], count: int, seed: int
) -> list[Rows]:
    """Return a frozen network's output for a fixed number of random views of some samples.

    A view augments every sample once; its randomness depends on (seed, view, samples), so the key holds them all.
    """
    identity = hashlib.sha256(np.ascontiguousarray(indices).tobytes()).hexdigest()
    pipeline, unused = Pipeline(augment), torch.zeros(INFERENCE_BATCH, dtype=torch.int64)
    views = []
    for number in range(count):

        def prepare_from(start: int, number: int = number) -> Prepare:
            starts = itertools.count(start, INFERENCE_BATCH)

            def prepare(rows: torch.Tensor) -> torch.Tensor:
                generator = torch.Generator().manual_seed(derive(seed, "view", number, next(starts)))
                return network.preprocessing.normalize(pipeline(to_tensor(rows), unused, generator)[0])

            return prepare

        store = network.store(dataset, json.dumps([list(augment), seed, number, identity]), folder)
        # Portions are computed whole, since what is drawn depends on a sample's place.
        _fill(store, network, dataset, indices, prepare_from, f"view {number + 1}/{count}", whole=True)
        views.append(store.array())
    return views


def _fill(
    store: RowStore,
    network: FrozenNetwork,
    dataset: Dataset,
    indices: Indices,
    prepare_from: Callable[[int], Prepare],
    label: str,
    whole: bool = False,
) -> None:
    """Compute the rows that a store lacks, beside other processes that may be at the same."""
    with progress.task(label, len(store.missing(indices))) as advance:
        for start, portion in portions(store, indices, _PORTION, whole):
            store.write(portion, infer(network.compacted, dataset.images, portion, prepare_from(start), network.device))
            advance(len(portion))
