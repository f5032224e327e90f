"""What a trained classifier says of images at the end: logits and features, from the rows that the last phase took."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import final

import numpy as np

from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices
from thawlab.evaluation.novelty import Features
from thawlab.evaluation.predictions import Logits
from thawlab.inference.feature_cache import cached_rows
from thawlab.inference.infer import infer
from thawlab.models.classifier import WithFeatures
from thawlab.training.phase_data import Material
from thawlab.training.setup import Setup


@final
@dataclass(frozen=True)
class Outputs:
    """Logits (float32, n × classes) and pooled features (float32, n × width) of some images."""

    logits: Logits
    features: Features


# Gives the outputs of some images of a data set; shows progress under a label; leaves the features out (width 0) unless told.
OutputsOf = Callable[[Dataset, Indices, str, bool], Outputs]


def final_outputs(setup: Setup, material: Material) -> OutputsOf:
    """Return the function that gives the outputs of the classifier as it is now; the cache of the last phase is used."""
    classes = len(setup.dataset.classes)

    def of(dataset: Dataset, indices: Indices, label: str, with_features: bool) -> Outputs:
        if len(indices) == 0:
            return Outputs(np.zeros((0, classes), dtype=np.float32), np.zeros((0, 0), dtype=np.float32))
        module, network = material.module, material.network
        with_both = WithFeatures(module) if with_features else module
        if network is None:
            both = infer(with_both, dataset.images, indices, setup.preprocessing.inputs, setup.device, label)
            return Outputs(both[:, :classes], both[:, classes:])
        rows = cached_rows(network, dataset, indices, setup.feature_folder)
        if module is setup.classifier.head:  # then the rows are the features
            logits = infer(module, rows, indices, material.arrange, setup.device, label)
            return Outputs(logits, rows[indices] if with_features else rows[:0])
        both = infer(with_both, rows, indices, material.arrange, setup.device, label)
        return Outputs(both[:, :classes], both[:, classes:])

    return of
