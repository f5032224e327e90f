"""What stays the same through all phases of a run, made ready from a resolved recipe."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path
from typing import final

import torch

from thawlab import progress
from thawlab.data.dataset import Dataset, fingerprint, load_dataset
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.selection import open_data
from thawlab.data.sources import cache_root
from thawlab.errors import ThawlabError, UsageError
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
        if phase.patience is not None and len(dataset.splits.val) == 0:
            raise UsageError(f"phases.{index}.patience: early stopping needs a validation split; set data.val above 0")
        trained_names(classifier.backbone, phase.train, f"phases.{index}.train")
    return Setup(recipe, spec, device, preprocessing, dataset, classifier)


def weights_file_digest(spec: BackboneSpec) -> dict[str, str]:
    """Return the SHA-256 of a backbone's weights where they are a file of the user's, under the key "weights"."""
    if spec.folder is None:
        return {}
    with (spec.folder / "model.safetensors").open("rb") as file:
        return {"weights": hashlib.file_digest(file, "sha256").hexdigest()}


def input_digests(recipe: Recipe, spec: BackboneSpec) -> dict[str, str]:
    """Return the digests of a recipe's pictures and weights as they are now, decoding nothing.

    Pictures that are gone have no digest: a finished run can be shown without them.
    """
    try:
        pictures = {"fingerprint": fingerprint(open_data(recipe.data, recipe.system), recipe.system.workers)}
    except ThawlabError as error:
        progress.say(f"note: the run's pictures cannot be checked: {error}")
        pictures = {}
    return {**pictures, **weights_file_digest(spec)}
