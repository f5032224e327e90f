"""The feature cache: a frozen backbone is a pure function of the picture, so its output is computed once."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import numpy.typing as npt
import timm
import torch

from thawlab import progress
from thawlab.data.dataset import Dataset
from thawlab.data.listing import Indices
from thawlab.data.preprocessing import Preprocessing, to_tensor
from thawlab.data.rowstore import RowStore
from thawlab.evaluation.predictions import INFERENCE_BATCH, infer
from thawlab.models.classifier import Classifier, feature_width, weights_digest

# Rows become valid in portions, so that an interruption loses little of a long computation.
_PORTION = 32 * INFERENCE_BATCH


def cache_key(
    classifier: Classifier, architecture: str, preprocessing: Preprocessing, dataset: Dataset, device: torch.device
) -> str:
    """Return the content key of a classifier's features: equal keys mean equal numbers."""
    parts = {
        "architecture": architecture,
        "weights": weights_digest(classifier.backbone),
        "preprocessing": preprocessing.model_dump(mode="json"),
        "data": dataset.fingerprint,
        "device": device.type,
        "torch": torch.__version__,
        "timm": timm.__version__,
    }
    return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:32]


def cached_features(
    classifier: Classifier,
    architecture: str,
    preprocessing: Preprocessing,
    dataset: Dataset,
    indices: Indices,
    folder: Path,
    device: torch.device,
) -> npt.NDArray[np.float32]:
    """Return features by sample index, computing those that the cache lacks.

    Args:
        classifier: its backbone is frozen.
        architecture: the backbone's name.
        preprocessing: of the dataset's pictures.
        dataset: the pictures.
        indices: the samples whose features must be valid in the result.
        folder: of all feature caches; each key has a folder of its own in it.
        device: where the classifier is.

    Returns:
        float32, all samples × features; only the rows of `indices` are sure to be valid.
    """
    key = cache_key(classifier, architecture, preprocessing, dataset, device)
    store = RowStore(folder / key, len(dataset.ids), (feature_width(classifier.backbone),), np.float32)

    def prepare(rows: torch.Tensor) -> torch.Tensor:
        return preprocessing.normalize(to_tensor(rows))

    with store.filling():
        missing = store.missing(np.sort(indices))
        with progress.task("features", len(missing)) as advance:
            for start in range(0, len(missing), _PORTION):
                portion = missing[start : start + _PORTION]
                store.write(portion, infer(classifier.backbone, dataset.images, portion, prepare, device))
                store.commit(portion)
                advance(len(portion))
    return store.array()
