"""Judge a saved classifier again: on the images of its own run, or on others."""

from typing import Any, NamedTuple

import torch

from thawlab.data.dataset import load_dataset, load_other
from thawlab.data.types import SPLITS
from thawlab.errors import ThawlabError, UsageError, nearest
from thawlab.evaluation.metrics.measures import full
from thawlab.evaluation.predictions import predictions_of
from thawlab.inference.infer import infer
from thawlab.models.saved import load_model
from thawlab.plan.resolve import beside
from thawlab.recipe import Evaluation, System
from thawlab.results import DataSummary, TestResult, read_value
from thawlab.run import RunFolder


class Evaluated(NamedTuple):
    """How a saved classifier did on a split ("val", "test", or "all" images) of a source."""

    split: str
    source: str
    measured: TestResult

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `test` has in `results.json`, and split and source."""
        return {"split": self.split, "source": self.source, **self.measured.model_dump(mode="json")}


def evaluate(folder: RunFolder, split: str = "test", source: str | None = None, system: System | None = None) -> Evaluated:
    """Evaluate a run's saved model from its files alone.

    Args:
        folder: of a finished run.
        split: "val" or "test" of the run's own data; other data are judged on their test split, or on all images where
            they have none.
        source: other data, by name or path.
        system: where data and caches are; the run's own settings if omitted.

    Returns:
        All metrics, with the split and the source.

    Raises:
        UsageError: if there is no such split, or the other data have classes that the model does not know.
        ThawlabError: if the model cannot be loaded, or the run's own data have changed.
    """
    if split not in SPLITS:
        raise UsageError(f"there is no split '{split}'{nearest(split, SPLITS) or ' (known: train, val, test)'}")
    saved, bins = load_model(folder.model), Evaluation().ece_bins
    if source is None or not folder.imported.is_file():  # what was imported has no recipe, but can be judged on other data
        recipe = folder.recipe
        recipe = beside(recipe.model_copy(update={"system": system or recipe.system}), folder.path)
        system, bins = recipe.system, recipe.evaluation.ece_bins
    if source is None:
        dataset = load_dataset(recipe, saved.card.preprocessing)
        then, now = read_value(folder.path / "data.json", DataSummary).fingerprint, dataset.fingerprint
        if now != then:
            changed = f"the data have changed since the training (fingerprint {then[:12]} then, {now[:12]} now)"
            raise ThawlabError(f"{folder.path}: {changed}")
    else:
        dataset, split = load_other(source, saved.card.classes, saved.card.preprocessing, system or System())
    place = source or recipe.data.source
    indices = dataset.indices("test" if source is not None else split)
    if len(indices) == 0:
        raise UsageError(f"{place}: its {split} split is empty")
    logits = infer(saved.classifier, dataset.images, indices, saved.card.preprocessing.inputs, torch.device("cpu"), "evaluating")
    predictions = predictions_of(dataset, indices, logits)
    measured = full(predictions, saved.card.classes, saved.card.temperature, bins)
    return Evaluated(split, place, measured)
