"""What stays the same through all phases of a run, made ready from a resolved recipe."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from thawlab.data.dataset import Dataset, load_dataset
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.sources import cache_root
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import Classifier, build_classifier, make_preprocessing
from thawlab.recipe import Recipe
from thawlab.training.freezing import trained_names


@final
@dataclass(frozen=True)
class Setup:
    """A recipe with everything it names at hand.

    Attributes:
        recipe: resolved.
        spec: of the backbone.
        device: where the classifier is.
        preprocessing: of the pictures.
        dataset: decoded pictures with splits.
        classifier: with the weights training starts from.
    """

    recipe: Recipe
    spec: BackboneSpec
    device: torch.device
    preprocessing: Preprocessing
    dataset: Dataset
    classifier: Classifier

    @property
    def feature_folder(self) -> Path:
        """The folder of all feature caches."""
        chosen = self.recipe.system.cache_dir
        return (Path(chosen) if chosen else cache_root()) / "features"


def prepare(recipe: Recipe, spec: BackboneSpec, device: torch.device) -> Setup:
    """Load the data and build the classifier of a resolved recipe.

    Raises:
        UsageError: if the data are wrong, or a phase trains more layers than the backbone has.
        ThawlabError: if pictures or weights cannot be read.
    """
    assert recipe.data.image_size is not None, "a resolved recipe has an image size"
    preprocessing = make_preprocessing(recipe, spec, recipe.data.image_size)
    dataset = load_dataset(recipe, preprocessing)
    classifier = build_classifier(recipe, spec, preprocessing.size, len(dataset.classes))
    classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    for index, phase in enumerate(recipe.phases):
        trained_names(classifier.backbone, phase.train, f"phases.{index}.train")
    return Setup(recipe, spec, device, preprocessing, dataset, classifier)
