"""What is judged: a trained classifier's outputs on all splits, and what several measures share."""

from dataclasses import dataclass
from functools import cached_property
from typing import final

import numpy as np

from thawlab.errors import DivergedError
from thawlab.evaluation.metrics.calibration import fit_temperature
from thawlab.evaluation.metrics.measures import brief
from thawlab.evaluation.novelty import NoveltyScores, distances, fit_reference, sample_of
from thawlab.evaluation.predictions import Predictions, calibrated, predictions_of
from thawlab.judging.outputs import Outputs, Trained
from thawlab.models.saved import Reference
from thawlab.quality.near_leaks import NearLeaks, near_leaks


@final
@dataclass(frozen=True)
class Subject:
    """A trained classifier with what it gives for its own images.

    Attributes:
        trained: the classifier.
        outputs: by split; of train the features are those of a sample.
        tables: predictions by split.
        temperature: fitted on the val split, or 1.
    """

    trained: Trained
    outputs: dict[str, Outputs]
    tables: dict[str, Predictions]
    temperature: float

    @cached_property
    def reference(self) -> Reference | None:
        """What new images are compared with; None where nothing was held out."""
        if not (len(self.outputs["val"].logits) and len(self.outputs["test"].logits)):
            return None
        return fit_reference(self.outputs["train"].features, self.outputs["val"].features)

    @cached_property
    def near(self) -> NearLeaks | None:
        """Test images that look like training images."""
        return near_leaks(self.trained.context.dataset)

    def novelty_scores(self, outputs: Outputs) -> NoveltyScores:
        """Return distance from the reference and confidence of some images."""
        assert self.reference is not None
        confidence = calibrated(outputs.logits, self.temperature).max(axis=1)
        return NoveltyScores(distances(outputs.features, self.reference.features), confidence)


def subject_of(trained: Trained) -> Subject:
    """Compute a trained classifier's outputs on all splits; this is the one time that the test split is read.

    Raises:
        DivergedError: if the outputs contain NaN or infinity.
    """
    dataset = trained.context.dataset
    outputs = {split: trained.outputs(dataset, dataset.indices(split), f"evaluating {split}") for split in ("val", "test")}
    outputs["train"] = _of_training(trained)
    tables = {split: predictions_of(dataset, dataset.indices(split), part.logits) for split, part in outputs.items()}
    if not all(np.isfinite(table.logits).all() and np.isfinite(brief(table).loss) for table in tables.values()):
        raise DivergedError("the trained classifier's outputs contain NaN or infinity; lower the lr of its phases")
    calibrate = trained.context.recipe.evaluation.calibrate
    temperature = fit_temperature(tables["val"].logits, tables["val"].labels) if calibrate else 1.0
    return Subject(trained, outputs, tables, temperature)


def _of_training(trained: Trained) -> Outputs:
    """Return the logits of all training images, with the features of a sample: those of all would fill the memory."""
    dataset = trained.context.dataset
    train = dataset.splits.train
    sample = sample_of(dataset.labels[train], trained.context.recipe.seed)
    rest = np.setdiff1d(np.arange(len(train)), sample)
    some = trained.outputs(dataset, train[sample], "evaluating train")
    logits = np.empty((len(train), len(dataset.classes)), dtype=np.float32)
    logits[sample], logits[rest] = some.logits, trained.logits(dataset, train[rest], "evaluating train")
    return Outputs(logits, some.features)
