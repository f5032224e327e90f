"""Class probabilities of every image from a network that was fine-tuned without it: the best judge of labels, and the dearest."""

import hashlib
import json
import math
from dataclasses import replace
from importlib.metadata import version

import numpy as np

from thawlab import progress
from thawlab.data.dataset import Dataset
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.splits import Splits
from thawlab.data.types import Indices
from thawlab.environment import choose_device, deterministic, release_memory
from thawlab.evaluation.predictions import Predictions, load_predictions, predictions_of
from thawlab.files import cache_folder, sha256_of
from thawlab.inference.infer import infer
from thawlab.models.catalog import BackboneSpec
from thawlab.plan.resolve import close
from thawlab.quality.confident_learning import Probabilities
from thawlab.quality.folds import unseen
from thawlab.recipe import Data, Model, Phase, Recipe, System
from thawlab.run import RunFolder
from thawlab.training.context import prepare_on
from thawlab.training.fit import Timing, fit
from thawlab.training.interruption import watch_signals
from thawlab.training.records import restore_state

# Few epochs: enough to learn what most labels say, too few to learn the wrong ones by heart. Of few images more of them.
_EPOCHS, _MOST_EPOCHS, _STEPS, _BATCH = 2, 12, 200, 64


def _recipe(spec: BackboneSpec, system: System, dataset: Dataset, size: int) -> Recipe:
    """Return how a network is trained on a train split: its head on cached features, then all layers."""
    steps = math.ceil(len(dataset.splits.train) / _BATCH)
    epochs = min(_MOST_EPOCHS, max(_EPOCHS, math.ceil(_STEPS / steps)))
    head = Phase(name="head", train="head", epochs=10, batch_size=_BATCH, lr=1e-3)
    layers = Phase(
        name="fine-tune",
        epochs=epochs,
        batch_size=_BATCH,
        optimizer="adamw",
        lr=1e-3,
        weight_decay=0.02,
        schedule="cosine",
        warmup=0.2,
        layer_decay=0.9,
        label_smoothing=0.1,
        augment=("flip", "shift:0.08", "zoom:0.1"),
    )
    recipe = Recipe(
        name="label-judge",
        data=Data(source=dataset.name, val=0.0, image_size=size),
        model=Model(backbone=spec.name),
        phases=(head, layers),
        system=system,
    )
    return close(recipe, spec).recipe


def cross_validated(
    spec: BackboneSpec, system: System, dataset: Dataset, preprocessing: Preprocessing, folds: Indices
) -> Probabilities:
    """Fine-tune a network without each fold in turn, and return what it says of the images of that fold.

    What is finished, fold by fold, is kept in the cache folder; interrupted, the same call goes on where it stopped.

    Args:
        spec: the backbone with its pretrained weights.
        system: says where caches are, and on what to train.
        dataset: with the images to judge as its train split.
        preprocessing: that made its images.
        folds: of each of these.

    Returns:
        float64, images of the train split × classes up to the last one shown; rows of equal values where nothing could be
        learned.

    Raises:
        Interrupted: when a signal asked to stop; the state is saved.
        ThawlabError: if what was kept is damaged.
    """
    images = dataset.splits.train
    labels = dataset.labels[images]
    classes = int(labels.max()) + 1
    probabilities = np.full((len(images), classes), 1 / classes)
    for number in range(int(folds.max()) + 1):
        held, seen = np.flatnonzero(folds == number), np.flatnonzero(folds != number)
        if not len(held) or len(np.unique(labels[seen])) < 2:
            continue
        progress.say(f"fine-tuning {spec.name} without fold {number + 1} of {int(folds.max()) + 1} ({len(held):,} images)")
        part = replace(dataset, splits=Splits(train=np.sort(images[seen]), test=images[held]))
        said = _of_fold(part, preprocessing, _recipe(spec, system, part, preprocessing.size), spec)
        probabilities[held] = said.probabilities()[:, :classes]
    probabilities[unseen(labels, folds)] = 1 / classes
    return probabilities


def _of_fold(part: Dataset, preprocessing: Preprocessing, recipe: Recipe, spec: BackboneSpec) -> Predictions:
    """Return what a network trained on the train split says of the test split, and keep it."""
    run = RunFolder(cache_folder(recipe.system.cache_dir, "judges") / _key(part, preprocessing, recipe, spec))
    kept = run.predictions("test")
    if kept.is_file():
        return load_predictions(kept)
    device = choose_device(recipe.system.device)
    with deterministic(recipe.system.threads), watch_signals() as interruption, run.locked():
        context = prepare_on(part, preprocessing, recipe, spec, device, run, interruption)
        fit(context, *restore_state(context, finished=False), Timing())
        logits = infer(context.classifier, part.images, part.splits.test, preprocessing.inputs, device, "judging")
        release_memory()
    said = predictions_of(part, part.splits.test, logits)
    said.save(kept)
    run.checkpoint.unlink(missing_ok=True)  # the predictions are what it was for
    return said


def _key(part: Dataset, preprocessing: Preprocessing, recipe: Recipe, spec: BackboneSpec) -> str:
    """Return what names the predictions of a fold: equal names mean the same images, labels, network and training."""
    told = {
        "thawlab": version("thawlab"),
        "data": part.fingerprint,
        "recipe": recipe.digest,
        "preprocessing": preprocessing.model_dump(mode="json"),
        "weights": sha256_of(spec.weights) if spec.weights else spec.identity,
    }
    parts = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for values in (part.labels[part.splits.train], part.splits.train, part.splits.test):
        parts.update(np.ascontiguousarray(values).tobytes())
    return parts.hexdigest()[:32]
