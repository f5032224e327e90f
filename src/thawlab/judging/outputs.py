"""What a trained classifier gives for images at the end: logits and features, from the rows that the last phase took."""

from dataclasses import dataclass
from typing import final

import numpy as np

from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices
from thawlab.evaluation.novelty import Features
from thawlab.evaluation.predictions import Logits
from thawlab.inference.feature_cache import cached_rows
from thawlab.inference.infer import infer, infer_parts
from thawlab.models.classifier import WithFeatures
from thawlab.training.context import Context
from thawlab.training.phase_data import PhaseData


@final
@dataclass(frozen=True)
class Outputs:
    """Logits (float32, n × classes) and pooled features (float32, n × width; width 0 where they were not asked for)."""

    logits: Logits
    features: Features


@final
@dataclass(frozen=True)
class Trained:
    """A trained classifier, and what its last phase kept of the frozen part."""

    context: Context
    data: PhaseData

    def outputs(self, dataset: Dataset, indices: Indices, label: str) -> Outputs:
        """Return logits and features of some images; shows progress under the label."""
        if len(indices) == 0:
            return Outputs(np.zeros((0, len(self.context.dataset.classes)), np.float32), np.zeros((0, 0), np.float32))
        context, data = self.context, self.data
        if data.network is None:
            both = infer_parts(
                WithFeatures(data.module), dataset.images, indices, context.preprocessing.inputs, context.device, label
            )
            return Outputs(*both)
        rows = cached_rows(data.network, dataset, indices, context.feature_folder)
        if data.module is context.classifier.head:  # then the rows are the features
            return Outputs(infer(data.module, rows, indices, data.arrange, context.device, label), rows[indices])
        return Outputs(*infer_parts(WithFeatures(data.module), rows, indices, data.arrange, context.device, label))

    def logits(self, dataset: Dataset, indices: Indices, label: str) -> Logits:
        """Return the logits of some images; shows progress under the label."""
        context, data = self.context, self.data
        if len(indices) == 0:
            return np.zeros((0, len(context.dataset.classes)), dtype=np.float32)
        if data.network is None:
            return infer(data.module, dataset.images, indices, context.preprocessing.inputs, context.device, label)
        rows = cached_rows(data.network, dataset, indices, context.feature_folder)
        return infer(data.module, rows, indices, data.arrange, context.device, label)
