"""Class probabilities of every image from a network that was fine-tuned without it: the best judge of labels, and the dearest."""

import hashlib
import json
import math
from dataclasses import replace
from importlib.metadata import version
from typing import NamedTuple

import numpy as np
import torch
from scipy.special import softmax

from thawlab import progress
from thawlab.data.dataset import Dataset
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.splits import Splits
from thawlab.data.types import Indices, Labels
from thawlab.environment import choose_device, deterministic, release_memory
from thawlab.files import cache_folder, sha256_of, write_atomically
from thawlab.inference.infer import infer
from thawlab.models.catalog import BackboneSpec
from thawlab.models.classifier import build_classifier
from thawlab.plan.resolve import close
from thawlab.quality.folds import unseen
from thawlab.quality.label_errors import Probabilities
from thawlab.recipe import Data, Model, Phase, Recipe, System
from thawlab.run import RunFolder
from thawlab.training.context import Context
from thawlab.training.fit import Timing, fit
from thawlab.training.interruption import watch_signals
from thawlab.training.records import restore_state

# Few epochs: enough to learn what most labels say, too few to learn the wrong ones by heart. Of few images more of them.
_EPOCHS, _MOST_EPOCHS, _STEPS, _BATCH = 2, 12, 200, 64


class Tuned(NamedTuple):
    """What is fine-tuned, and how its input is made."""

    spec: BackboneSpec
    preprocessing: Preprocessing
    system: System


def _recipe(tuned: Tuned, dataset: Dataset, labels: Labels, images: int) -> Recipe:
    """Return how the network of one fold is trained: its head on cached features, then all layers."""
    steps = math.ceil(images / _BATCH)
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
        data=Data(source=dataset.name, val=0.0, image_size=tuned.preprocessing.size),
        model=Model(backbone=tuned.spec.name),
        phases=(head, layers) if len(np.unique(labels)) > 1 else (head,),
        system=tuned.system,
    )
    return close(recipe, tuned.spec).recipe


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
        float64, images of the train split × classes; rows of equal values where nothing could be learned.

    Raises:
        Interrupted: when a signal asked to stop; the state is saved.
    """
    tuned = Tuned(spec, preprocessing, system)
    images, classes = dataset.splits.train, len(dataset.classes)
    labels = dataset.labels[images]
    probabilities = np.full((len(images), classes), 1 / classes)
    for number in range(int(folds.max()) + 1):
        held, seen = np.flatnonzero(folds == number), np.flatnonzero(folds != number)
        if not len(held) or len(np.unique(labels[seen])) < 2:
            continue
        progress.say(f"fine-tuning {tuned.spec.name} without fold {number + 1} of {int(folds.max()) + 1} ({len(held):,} images)")
        part = replace(dataset, splits=Splits(train=np.sort(images[seen]), test=images[held]))
        probabilities[held] = _of_fold(part, _recipe(tuned, dataset, labels[seen], len(seen)), tuned)
    probabilities[unseen(labels, folds)] = 1 / classes
    return probabilities


def _of_fold(part: Dataset, recipe: Recipe, tuned: Tuned) -> Probabilities:
    """Return what a network trained on the train split says of the test split, and keep it."""
    folder = cache_folder(tuned.system.cache_dir, "judges") / _key(part, recipe, tuned)
    kept = folder / "probabilities.npy"
    if kept.is_file():
        found: Probabilities = np.load(kept, allow_pickle=False)
        return found
    device = choose_device(recipe.system.device)
    run = RunFolder(folder)
    with deterministic(recipe.system.threads), watch_signals() as interruption, run.locked():
        classifier = build_classifier(recipe, tuned.spec, tuned.preprocessing.size, len(part.classes))
        classifier.to(device=device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        context = Context(recipe, tuned.spec, device, tuned.preprocessing, part, classifier, run, interruption)
        fit(context, *restore_state(context, finished=False), Timing())
        rows = infer(classifier, part.images, part.splits.test, tuned.preprocessing.inputs, device, "judging")
        release_memory()
    result: Probabilities = softmax(rows.astype(np.float64), axis=1)
    write_atomically(kept, lambda file: np.save(file, result))
    run.checkpoint.unlink(missing_ok=True)  # the probabilities are what it was for
    return result


def _key(part: Dataset, recipe: Recipe, tuned: Tuned) -> str:
    """Return what names the probabilities of a fold: equal names mean the same images, labels, network and training."""
    told = {
        "thawlab": version("thawlab"),
        "data": part.fingerprint,
        "recipe": recipe.digest,
        "preprocessing": tuned.preprocessing.model_dump(mode="json"),
        "weights": sha256_of(tuned.spec.weights) if tuned.spec.weights else tuned.spec.identity,
    }
    parts = hashlib.sha256(json.dumps(told, sort_keys=True).encode())
    for values in (part.labels[part.splits.train], part.splits.train, part.splits.test):
        parts.update(np.ascontiguousarray(values).tobytes())
    return parts.hexdigest()[:32]
