"""What stays the same through all phases of a run, made ready from a closed recipe."""

import signal
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import torch

from thawlab import progress
from thawlab.data.dataset import Dataset, listing_of, load_dataset
from thawlab.data.depth import with_grey_range
from thawlab.data.preprocessing import Preprocessing
from thawlab.errors import UsageError
from thawlab.evaluation.diagnosis import Start, diagnose
from thawlab.files import cache_folder
from thawlab.inference.batch_statistics import batch_norm_distance
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_classifier, check_size, feature_map_side, make_preprocessing
from thawlab.models.whitening import fit_whitening
from thawlab.recipe import Phase, Recipe
from thawlab.results import Diagnosis, EpochRow, write_rows
from thawlab.run import RunFolder
from thawlab.training.freezing import trained_names
from thawlab.training.interruption import Interruption
from thawlab.training.world import ALONE, World

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
# Training images that are examined before training.
_LOOKED_AT = 32
# The whitening of a first layer is estimated from at most this many images, or pixels: millions of patches.
_WHITENED_BY, _PIXELS = 5000, 5000 * 32 * 32


@final
@dataclass(frozen=True)
class Context:
    """A closed recipe with everything it names at hand, and where its run lies; the classifier is on the device.

    Of several processes that train one run, each has its own; one of them writes.
    """

    recipe: Recipe
    spec: BackboneSpec
    device: torch.device
    preprocessing: Preprocessing
    dataset: Dataset
    classifier: Classifier
    folder: RunFolder
    interruption: Interruption
    world: World = ALONE

    @property
    def feature_folder(self) -> Path:
        """The folder of all feature caches."""
        return cache_folder(self.recipe.system.cache_dir, "features")

    def log(self, message: str) -> None:
        """Keep a line in the run's log."""
        if self.world.writes:
            self.folder.log(message)

    def report(self, message: str) -> None:
        """Print a line and keep it in the run's log."""
        self.log(message)
        progress.say(message)

    def together(self, value: float) -> float:
        """Return the sum of a value over all processes that train the run; a signal that asked one of them to stop asks all."""
        if self.world.size == 1:
            return value
        requested = self.interruption.requested
        total, *asked = self.world.total([value, *(float(requested == number) for number in _SIGNALS)])
        if any(asked):
            self.interruption.requested = _SIGNALS[asked.index(max(asked))]
        return total

    def stop_requested(self) -> int | None:
        """Return the signal that asked one of the processes that train the run to stop, if one did."""
        self.together(0.0)
        return self.interruption.requested

    def write_rows(self, rows: Sequence[EpochRow]) -> None:
        """Write the metric rows of all epochs."""
        if self.world.writes:
            write_rows(self.folder.metrics, rows)

    def some_inputs(self, count: int) -> torch.Tensor:
        """Return at most `count` normalised training images, spread over the split."""
        train = self.dataset.splits.train
        some = train[np.linspace(0, len(train) - 1, min(count, len(train))).astype(int)]
        images = torch.from_numpy(np.take(self.dataset.images, some, axis=0)).to(self.device)
        return self.preprocessing.inputs(images)


def prepare(
    recipe: Recipe, spec: BackboneSpec, device: torch.device, folder: RunFolder, interruption: Interruption, world: World = ALONE
) -> Context:
    """Load the data and build the classifier of a closed recipe.

    Raises:
        UsageError: if the data are wrong, or a phase trains more layers than the backbone has.
        ThawlabError: if images or weights cannot be read.
    """
    assert recipe.data.image_size is not None, "a closed recipe has an image size"
    listing = listing_of(recipe)
    preprocessing = with_grey_range(make_preprocessing(recipe.data, spec, recipe.data.image_size), listing)
    dataset = load_dataset(recipe, preprocessing, listing)
    del listing  # which may hold all files
    return prepare_on(dataset, preprocessing, recipe, spec, device, folder, interruption, world)


def prepare_on(
    dataset: Dataset,
    preprocessing: Preprocessing,
    recipe: Recipe,
    spec: BackboneSpec,
    device: torch.device,
    folder: RunFolder,
    interruption: Interruption,
    world: World = ALONE,
) -> Context:
    """Build the classifier of a closed recipe for data that are at hand.

    Raises:
        UsageError: if a phase asks of the data what they cannot give, or trains more layers than the backbone has.
        ThawlabError: if weights cannot be read.
    """
    classifier = build_classifier(recipe, spec, preprocessing.size, len(dataset.classes))
    classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for index, phase in enumerate(recipe.phases):
        _check_phase(phase, f"phases.{index}", dataset, recipe.data.val)
        trained_names(classifier.backbone, phase.train, f"phases.{index}.train")
        for size in sorted(set(phase.sizes)):
            check_size(classifier.backbone, spec, size, f"phases.{index}.sizes")
    context = Context(recipe, spec, device, preprocessing, dataset, classifier, folder, interruption, world)
    if not recipe.model.pretrained:
        count = max(1, min(_WHITENED_BY, _PIXELS // preprocessing.size**2))
        fit_whitening(classifier.backbone, lambda: context.some_inputs(count))
    return context


def _check_phase(phase: Phase, place: str, dataset: Dataset, val: float) -> None:
    """Refuse what a phase asks of data that cannot give it."""
    if len(dataset.splits.val) == 0:
        wishes = {
            "patience (early stopping)": phase.patience is not None,
            'schedule = "plateau"': phase.schedule == "plateau",
            f'monitor = "{phase.monitor}"': phase.monitor != "accuracy",
        }
        for wish in (wish for wish, is_set in wishes.items() if is_set):
            why = (
                "data.val = 0 leaves no validation images" if not val else f"data.val = {val:g} leaves no validation images here"
            )
            raise UsageError(f"{why}, which {place}.{wish} needs; raise data.val, or leave out that key")
    weights, classes = phase.class_weights, len(dataset.classes)
    if isinstance(weights, tuple) and len(weights) != classes:
        raise UsageError(f"{place}.class_weights: has {len(weights)} weights for {classes} classes; give one for each")


def diagnose_start(context: Context) -> list[Diagnosis]:
    """Return the diagnoses that can be made before training: from the recipe, the data and a few images."""
    recipe, dataset, backbone = context.recipe, context.dataset, context.classifier.backbone
    distance = None
    trusted = recipe.phases[0].train == "head" or recipe.phases[0].batch_norm == "eval"
    if recipe.model.pretrained and context.spec.has_weights and trusted:
        distance = batch_norm_distance(backbone, context.some_inputs(_LOOKED_AT))
    counts = np.bincount(dataset.labels[dataset.splits.train], minlength=len(dataset.classes)).tolist()
    side = feature_map_side(backbone, context.preprocessing.size)
    return diagnose(Start(recipe, side, len(dataset.leaks), counts, distance, dataset.corrected_test))
