"""Judge a saved classifier again: on the images of its own run, or on others."""

from typing import Any, NamedTuple

import torch

from thawlab.data.dataset import listing_of, load_dataset, load_other, other_listing
from thawlab.data.types import SPLITS
from thawlab.errors import ThawlabError, UsageError, nearest
from thawlab.evaluation.metrics.measures import full
from thawlab.evaluation.predictions import predictions_of
from thawlab.files import write_json
from thawlab.inference.infer import infer
from thawlab.judging.shift import Asked, whole_form
from thawlab.judging.slices import names_of, numbers_of, slices_of
from thawlab.memory import remembering
from thawlab.models.saved import load_model
from thawlab.plan.resolve import beside
from thawlab.recipe import Evaluation, System
from thawlab.results import DataSummary, TestResult, read_value
from thawlab.robustness import Shift, Slices
from thawlab.run import RunFolder


class Evaluated(NamedTuple):
    """How a saved classifier did on a split ("val", "test", or "all" images) of a source.

    `shift` is how it did on corrupted images and `slices` by properties of the pictures; None where that was not asked for.
    """

    split: str
    source: str
    measured: TestResult
    shift: Shift | None = None
    slices: Slices | None = None

    def as_json(self) -> dict[str, Any]:
        """Return the keys that `test` has in `results.json`, split and source, and what else was asked for."""
        further = {"shift": self.shift, "slices": self.slices}
        return {
            "split": self.split,
            "source": self.source,
            **self.measured.model_dump(mode="json"),
            **{key: value.model_dump(mode="json", by_alias=True) for key, value in further.items() if value is not None},
        }


def evaluate(
    folder: RunFolder,
    split: str = "test",
    source: str | None = None,
    system: System | None = None,
    *,
    shift: int = 0,
    slices: bool = False,
) -> Evaluated:
    """Evaluate a run's saved model from its files alone.

    What is asked for beyond the metrics is written into the folder, where it is about the run's own test images.

    Args:
        folder: of a finished run.
        split: "val" or "test" of the run's own data; other data are judged on their test split, or on all images where
            they have none.
        source: other data, by name or path.
        system: where data and caches are; the run's own settings if omitted.
        shift: images to corrupt at most, to measure the accuracy on them as well; 0 corrupts none.
        slices: whether to judge by properties of the pictures as well.

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
    system = system or System()
    with remembering():  # the listing is needed once more
        if source is None:
            listing = listing_of(recipe)
            dataset = load_dataset(recipe, saved.card.preprocessing, listing)
            then, now = read_value(folder.path / "data.json", DataSummary).fingerprint, dataset.fingerprint
            if now != then:
                changed = f"the data have changed since the training (fingerprint {then[:12]} then, {now[:12]} now)"
                raise ThawlabError(f"{folder.path}: {changed}")
        else:
            dataset, split = load_other(source, saved.card.classes, saved.card.preprocessing, system)
            listing = other_listing(source, system)
    place = source or recipe.data.source
    indices = dataset.indices("test" if source is not None else split)
    if len(indices) == 0:
        raise UsageError(f"{place}: its {split} split is empty")
    logits = infer(saved.classifier, dataset.images, indices, saved.card.preprocessing.inputs, torch.device("cpu"), "evaluating")
    predictions = predictions_of(dataset, indices, logits)
    measured = full(predictions, saved.card.classes, saved.card.temperature, bins)
    result = Evaluated(split, place, measured)
    own = source is None and split == "test"
    if shift:
        asked = Asked(shift, split, place, system.workers)
        found, table = whole_form(saved.classifier, dataset, listing, indices, saved.card.preprocessing, asked)
        if own:
            table.save(folder.predictions("shift"))
            write_json(folder.shift, found.model_dump(mode="json", by_alias=True))
        result = result._replace(shift=found)
    if slices:
        numbers = numbers_of(dataset, listing, indices, saved.card.preprocessing.grey_range, system.workers)
        parts = slices_of(predictions, numbers, names_of(listing, indices), split, place)
        if own:
            write_json(folder.slices, parts.model_dump(mode="json", by_alias=True))
        result = result._replace(slices=parts)
    return result
