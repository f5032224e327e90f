"""What is judged: a trained classifier's outputs on all splits, and what several measures share."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import NamedTuple, final

import numpy as np

from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices
from thawlab.errors import DivergedError
from thawlab.evaluation.metrics.calibration import fit_temperature
from thawlab.evaluation.metrics.measures import brief
from thawlab.evaluation.novelty import Features, NoveltyScores, distances, fit_reference, sample_of
from thawlab.evaluation.predictions import Logits, Predictions, calibrated, predictions_of
from thawlab.files import cache_folder
from thawlab.inference.feature_cache import cached_rows
from thawlab.inference.infer import Prepare, infer, infer_parts
from thawlab.models.classifier import WithFeatures
from thawlab.models.saved import Reference
from thawlab.quality.near_leaks import NearLeaks, near_leaks
from thawlab.results import PhaseResult
from thawlab.training.context import Context
from thawlab.training.phase_data import PhaseData, Rows


class Outputs(NamedTuple):
    """Logits (float32, n × classes) and pooled features (float32, n × width; width 0 where they were not asked for)."""

    logits: Logits
    features: Features


def outputs_of(
    context: Context, data: PhaseData, dataset: Dataset, indices: Indices, label: str, features: bool = True
) -> Outputs:
    """Return a trained classifier's outputs for some images, computed from the rows that its last phase took."""
    none = np.zeros((0, 0), np.float32)
    if len(indices) == 0:
        return Outputs(np.zeros((0, len(context.dataset.classes)), np.float32), none)
    rows: Rows = dataset.images
    prepare: Prepare = context.preprocessing.inputs
    if data.network is not None:
        rows, prepare = cached_rows(data.network, dataset, indices, context.feature_folder), data.arrange
    on_features = data.module is context.classifier.head  # then the rows are the features
    if features and not on_features:
        return Outputs(*infer_parts(WithFeatures(data.module), rows, indices, prepare, context.device, label))
    logits = infer(data.module, rows, indices, prepare, context.device, label)
    return Outputs(logits, rows[indices] if features else none)


@final
@dataclass(frozen=True)
class Subject:
    """A trained classifier with its outputs and predictions by split, and the temperature fitted on the val split, or 1.

    `data` is what its last phase was trained on; the features of the train split are those of a sample. `trained` counts the
    images that passed in training through more than the head, in every epoch anew.
    """

    context: Context
    data: PhaseData
    outputs: dict[str, Outputs]
    tables: dict[str, Predictions]
    temperature: float
    trained: int

    @cached_property
    def reference(self) -> Reference | None:
        """What new images are compared with; None where nothing was held out."""
        if not (len(self.outputs["val"].logits) and len(self.outputs["test"].logits)):
            return None
        return fit_reference(self.outputs["train"].features, self.outputs["val"].features)

    @cached_property
    def near(self) -> NearLeaks | None:
        """Test images that look like training images."""
        return near_leaks(self.context.dataset, cache_folder(self.context.recipe.system.cache_dir, "near"))

    def novelty_scores(self, outputs: Outputs) -> NoveltyScores:
        """Return distance from the reference and confidence of some images."""
        assert self.reference is not None
        confidence = calibrated(outputs.logits, self.temperature).max(axis=1)
        return NoveltyScores(distances(outputs.features, self.reference.features), confidence)


def subject_of(context: Context, data: PhaseData, phases: Sequence[PhaseResult]) -> Subject:
    """Compute a trained classifier's outputs on all splits; this is the one time that the test split is read.

    Raises:
        DivergedError: if the outputs contain NaN or infinity.
    """
    dataset = context.dataset
    outputs = {
        split: outputs_of(context, data, dataset, dataset.indices(split), f"evaluating {split}") for split in ("val", "test")
    }
    outputs["train"] = _of_training(context, data)
    tables = {split: predictions_of(dataset, dataset.indices(split), part.logits) for split, part in outputs.items()}
    if not all(np.isfinite(table.logits).all() and np.isfinite(brief(table).loss) for table in tables.values()):
        raise DivergedError("the trained classifier's outputs contain NaN or infinity; lower the learning rate of its phases")
    calibrate = context.recipe.evaluation.calibrate
    temperature = fit_temperature(tables["val"].logits, tables["val"].labels) if calibrate else 1.0
    asked = zip(phases, context.recipe.phases, strict=True)
    trained = sum(phase.epochs_run for phase, of in asked if of.train != "head") * len(dataset.splits.train)
    return Subject(context, data, outputs, tables, temperature, trained)


def _of_training(context: Context, data: PhaseData) -> Outputs:
    """Return the logits of all training images, with the features of a sample: those of all would fill the memory."""
    dataset, label = context.dataset, "evaluating train"
    train = dataset.splits.train
    sample = sample_of(dataset.labels[train], context.recipe.seed)
    rest = np.setdiff1d(np.arange(len(train)), sample)
    some = outputs_of(context, data, dataset, train[sample], label)
    logits = np.empty((len(train), len(dataset.classes)), dtype=np.float32)
    logits[sample] = some.logits
    logits[rest] = outputs_of(context, data, dataset, train[rest], label, features=False).logits
    return Outputs(logits, some.features)
