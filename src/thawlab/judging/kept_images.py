"""The images that a run keeps for its report: samples, mistakes with Grad-CAM maps, suspected labels, leaks."""

import numpy as np
import torch
from PIL import Image

from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices, Labels
from thawlab.evaluation.gradcam import explain
from thawlab.evaluation.metrics.measures import most_confused
from thawlab.evaluation.predictions import Predictions
from thawlab.files import write_atomically
from thawlab.judging.judge import Judgement
from thawlab.randomness import derive
from thawlab.training.context import Context

_SAMPLES, _MISTAKES, _THUMBNAIL = 40, 24, 96
# A small image is kept of at most this many mistakes, so that the report can show what is behind a number.
_WRONG, _SMALL = 1000, 48
# Mistakes that are explained of each pair of classes that are confused most.
_OF_A_PAIR = 3


def keep_images(context: Context, judgement: Judgement) -> None:
    """Write the few images that the report shows into the run's folder, given how the run was judged."""
    dataset, test, near = context.dataset, judgement.test, judgement.near
    suspects = [entry.id for entry in judgement.results.label_suspects.first]  # the most suspicious first
    wanted = set(suspects[:_MISTAKES])
    place = {identifier: index for index, identifier in enumerate(dataset.ids) if identifier in wanted}
    samples = _samples(dataset, context.recipe.seed)
    wrong = np.flatnonzero(test.predicted != test.labels)
    wrong = wrong[np.argsort(-test.probabilities().max(axis=1)[wrong], kind="stable")]
    mistakes, confused = wrong[:_MISTAKES], _of_confused_pairs(test, wrong, len(dataset.classes))
    explained = np.concatenate([mistakes, confused, confused])
    classes = np.concatenate([test.predicted[mistakes], test.predicted[confused], test.labels[confused]])
    maps = _explained(context, dataset.splits.test[explained], classes)
    near_pairs = np.array(near.pairs[:_MISTAKES] if near else (), dtype=np.int64).reshape(-1, 2)
    images = {
        "samples": _thumbnails(dataset, samples),
        "sample_labels": dataset.labels[samples],
        "mistakes": _thumbnails(dataset, dataset.splits.test[mistakes]),
        "mistake_rows": mistakes,
        "mistake_maps": maps[: len(mistakes)],
        "confused": _thumbnails(dataset, dataset.splits.test[confused]),
        "confused_rows": confused,
        # For each image what speaks for the predicted class, and then for each what speaks for the true one.
        "confused_maps": maps[len(mistakes) :],
        "wrong": _thumbnails(dataset, dataset.splits.test[wrong[:_WRONG]], _SMALL),
        "wrong_rows": wrong[:_WRONG],
        "suspects": _thumbnails(dataset, np.array([place[name] for name in suspects[:_MISTAKES]], dtype=np.int64)),
        "leaks": _thumbnails(dataset, np.array([index for _, index in dataset.leaks[:_MISTAKES]], dtype=np.int64)),
        "near": _thumbnails(dataset, near_pairs.flatten()),
    }
    write_atomically(context.folder.images, lambda file: np.savez_compressed(file, **images))  # type: ignore[arg-type]


def _samples(dataset: Dataset, seed: int) -> Indices:
    """Return some training images: one of each class in turn, until there are enough."""
    train = dataset.splits.train
    order = np.random.default_rng(derive(seed, "report")).permutation(len(train))
    rank = np.zeros(len(train), dtype=np.int64)
    for label in range(len(dataset.classes)):
        members = order[dataset.labels[train[order]] == label]
        rank[members] = np.arange(len(members))
    return train[np.lexsort((dataset.labels[train], rank))[:_SAMPLES]]


def _of_confused_pairs(test: Predictions, wrong: Indices, classes: int) -> Indices:
    """Return the most confident mistakes of each pair of classes that are confused most, pair by pair."""
    matrix = np.zeros((classes, classes), dtype=np.int64)
    np.add.at(matrix, (test.labels[wrong], test.predicted[wrong]), 1)
    chosen = [
        wrong[(test.labels[wrong] == row) & (test.predicted[wrong] == column)][:_OF_A_PAIR]
        for row, column, _ in most_confused(matrix.tolist())
    ]
    return np.concatenate(chosen) if chosen else wrong[:0]


def _explained(context: Context, indices: Indices, classes: Labels) -> np.ndarray:
    """Return what speaks for a class in some images, uint8; none where the network has no feature map."""
    inputs = context.preprocessing.inputs(torch.from_numpy(np.take(context.dataset.images, indices, axis=0)).to(context.device))
    try:
        maps = explain(context.classifier, inputs, classes)
    except ValueError as error:
        context.folder.log(f"mistakes are not explained: {error}")
        return np.zeros((0, 1, 1), dtype=np.uint8)
    side = min(_THUMBNAIL, context.preprocessing.size)
    return np.stack([np.asarray(Image.fromarray(np.uint8(255 * m)).resize((side, side))) for m in maps]) if len(maps) else maps


def _thumbnails(dataset: Dataset, indices: Indices, most: int = _THUMBNAIL) -> np.ndarray:
    side = min(most, dataset.images.shape[1])
    thumbnails = np.zeros((len(indices), side, side, 3), np.uint8)
    for place, index in enumerate(indices.tolist()):
        thumbnails[place] = Image.fromarray(np.asarray(dataset.images[index])).resize((side, side))
    return thumbnails
