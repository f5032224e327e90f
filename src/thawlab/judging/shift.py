"""Accuracy under corruptions: which a sample of the test images goes through in every run, and more of them when asked."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab.data.dataset import Dataset
from thawlab.data.listing import Listing
from thawlab.data.originals import MOST_KEPT, by_name
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import Indices, Labels
from thawlab.evaluation.corruptions import STRENGTHS, corruptions
from thawlab.evaluation.metrics.measures import accuracy_interval
from thawlab.evaluation.shifted import shifted, ways
from thawlab.evaluation.softmax import normal_quantile
from thawlab.files import write_atomically
from thawlab.inference.infer import infer
from thawlab.judging.shift_words import in_words
from thawlab.judging.subject import Subject, outputs_of
from thawlab.models.classifier import Classifier
from thawlab.models.hooks import eval_mode, forward_hooks
from thawlab.registry import about
from thawlab.robustness import Pictures, Shift, Strength, UnderCorruption
from thawlab.values import Interval

# The drop that is looked for: from which strength on is the accuracy ten points lower?
FALL = 0.10
# Images that are corrupted in all ways where no other number is asked for.
SHIFTED = 500
# What every run measures: the middle strength.
_SHORT = (3,)
# A corrupted image may be one of this share of the images that pass through the network in a run; or, where that is few, as many
# as so many multiplications allow, a second's work, but no more than these.
_SHARE, _OPERATIONS, _MOST_QUICK, _LEAST = 0.03, 20e9, 40, 8

Right = npt.NDArray[np.bool_]


class Sample(NamedTuple):
    """What was corrupted: images of a split of a source, of how many, and as what they were at hand."""

    split: str
    source: str
    of: int
    pictures: Pictures


class Asked(NamedTuple):
    """How much of what is corrupted: at most so many images of a split of a source, and the threads that make them."""

    images: int
    split: str
    source: str
    workers: int | None


class ShiftTable(NamedTuple):
    """The class that each image was taken for in each way, by which two classifiers can be compared.

    Attributes:
        ids: a name per image.
        labels: int64, the truth.
        predicted: int32, images × ways.
        ways: the corruption and its strength; strength 0 is the clean image.
    """

    ids: npt.NDArray[np.str_]
    labels: Labels
    predicted: npt.NDArray[np.int32]
    ways: npt.NDArray[np.str_]

    def save(self, path: Path) -> None:
        """Write the table as a compressed npz file, atomically."""
        write_atomically(path, lambda file: np.savez_compressed(file, **self._asdict()))


def short_form(subject: Subject) -> Shift | None:
    """Return the accuracy of a trained classifier on a few test images in corruptions of the middle strength.

    How many images there are is what `affordable` says: the same recipe gives the same numbers.

    Returns:
        None where there are no test images.
    """
    context = subject.context
    dataset, workers = context.dataset, context.recipe.system.workers
    test = dataset.splits.test
    if not len(test):
        return None
    kept = np.array(list(dataset.originals), dtype=np.int64)
    at_hand = bool(len(kept))  # an enormous file is not kept
    chosen = kept if at_hand else by_name(dataset.ids, test)[:MOST_KEPT]
    read = dataset.originals.__getitem__ if at_hand else None
    corrupted = shifted(dataset, chosen, read, context.preprocessing, _SHORT, workers)
    count, each = min(len(chosen), affordable(subject)), len(ways(_SHORT))
    rows = np.arange(count * each)
    network, label = subject.data.network, "corrupted images"
    if (
        network is not None and len(network.row_shape()) == 1
    ):  # features are kept for the next head; whole maps would fill the disk
        logits = outputs_of(context, subject.data, corrupted, rows, label, features=False).logits
    else:
        logits = infer(context.classifier, corrupted.images, rows, context.preprocessing.inputs, context.device, label)
    right = (logits.argmax(axis=1) == corrupted.labels[rows]).reshape(count, each)
    sample = Sample("test", context.recipe.data.source, len(test), "originals" if at_hand else "decoded rows")
    return shift_of(right, _SHORT, sample)


def whole_form(
    classifier: Classifier, dataset: Dataset, listing: Listing, indices: Indices, preprocessing: Preprocessing, asked: Asked
) -> tuple[Shift, ShiftTable]:
    """Return the accuracy on a sample of some images in all corruptions and strengths, and which class each was taken for.

    Args:
        classifier: a trained one, on the processor.
        dataset: that the images are from.
        listing: access to their files, in the dataset's order.
        indices: of the images that a sample is taken of, by their names alone.
        preprocessing: that of the classifier.
        asked: how many images, and what they are called.
    """
    chosen = by_name(dataset.ids, indices)[: asked.images]
    read, all_ways = listing.images.read, ways(STRENGTHS)
    corrupted = shifted(dataset, chosen, read, preprocessing, STRENGTHS, asked.workers)
    rows = np.arange(len(corrupted.ids))
    logits = infer(classifier, corrupted.images, rows, preprocessing.inputs, torch.device("cpu"), "corrupted images")
    predicted = logits.argmax(axis=1).reshape(len(chosen), len(all_ways)).astype(np.int32)
    labels = dataset.labels[chosen]
    ids = np.array([dataset.ids[index] for index in chosen.tolist()], dtype=np.str_)
    sample = Sample(asked.split, asked.source, len(indices), "originals")
    shift = shift_of(predicted == labels[:, None], STRENGTHS, sample)
    return shift, ShiftTable(ids, labels, predicted, np.array([f"{way.corruption} {way.strength}" for way in all_ways]))


def affordable(subject: Subject) -> int:
    """Return how many images the short form may corrupt: a small share of what the run computed anyway, or a second's work.

    It depends on numbers of images and of operations only, so that no clock decides what is measured.
    """
    context, each = subject.context, len(ways(_SHORT))
    passed = subject.trained + sum(map(len, context.dataset.splits))
    quick = min(_MOST_QUICK, int(_OPERATIONS / (each * _operations(context.classifier, context.preprocessing.size))))
    return max(_LEAST, quick, int(_SHARE * passed / each))


def _operations(classifier: Classifier, size: int) -> int:
    """Return how many multiplications the convolutions and linear layers of a network take for one image."""
    counts: list[int] = []

    def count(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        if isinstance(layer, nn.Conv2d | nn.Linear):
            counts.append(output.numel() * layer.weight[0].numel())

    blank = torch.zeros(1, 3, size, size, device=next(classifier.parameters()).device)
    with eval_mode(classifier), torch.no_grad(), forward_hooks(classifier.modules(), count):
        classifier(blank.contiguous(memory_format=torch.channels_last))
    return max(1, sum(counts))


def shift_of(right: Right, strengths: Sequence[int], sample: Sample) -> Shift:
    """Return accuracies and drops from which images were classified correctly in which way.

    Args:
        right: images × ways, in the order of `ways`: the clean ones first.
        strengths: that were measured.
        sample: what the images are.
    """
    names = [name for name, _ in corruptions.items()]
    clean = right[:, 0]
    under = right[:, 1:].reshape(len(right), len(names), len(strengths))
    drops = clean[:, None, None].astype(np.float64) - under
    each = tuple(_under(name, about(corruptions.get(name)), under[:, k], drops[:, k], strengths) for k, name in enumerate(names))
    by_corruption = under.mean(axis=2)
    fastest = int(np.argmin(by_corruption.mean(axis=0)))
    falls = each[fastest].drop > 0
    result = Shift(
        split=sample.split,
        source=sample.source,
        n=len(right),
        n_split=sample.of,
        pictures=sample.pictures,
        clean_accuracy=float(clean.mean()),
        clean_accuracy_ci95=accuracy_interval(int(clean.sum()), len(clean)),
        accuracy=float(under.mean()),
        accuracy_ci95=_mean_interval(under.mean(axis=(1, 2)), (0, 0, 1, 1)),
        drop=float(drops.mean()),
        drop_ci95=drop_interval(drops.mean(axis=(1, 2))),
        fall=FALL,
        fastest=names[fastest] if falls else None,
        fastest_shown=falls and _is_fastest(by_corruption, fastest),
        corruptions=each,
        words=(),
    )
    return result.model_copy(update={"words": tuple(in_words(result))})


def drop_interval(drops: npt.NDArray[np.float64], level: float = 0.05) -> Interval:
    """Return the interval of a mean paired difference over images, each in [-1, 1].

    Of single answers (-1, 0 or 1) it is the adjusted Wald interval of Bonett & Price 2012: an image of each kind of change is
    added, without which no change in few images would look like certainty. Means over several answers are treated alike.
    """
    return _mean_interval(drops, (-1, 1), level)


def _mean_interval(values: npt.NDArray[np.float64], added: Sequence[float], level: float = 0.05) -> Interval:
    """Return the Wald interval of a mean, with some values added; those of Agresti & Coull 1998 for shares are 0, 0, 1 and 1."""
    more = np.concatenate([values, added])
    half = -normal_quantile(level / 2) * float(more.std()) / math.sqrt(len(more))
    mean = float(more.mean())
    return max(mean - half, float(min(added))), min(mean + half, float(max(added)))


def _under(name: str, text: str, right: Right, drops: npt.NDArray[np.float64], strengths: Sequence[int]) -> UnderCorruption:
    cells = tuple(
        Strength(
            strength=strength,
            accuracy=float(right[:, k].mean()),
            accuracy_ci95=accuracy_interval(int(right[:, k].sum()), len(right)),
            drop=float(drops[:, k].mean()),
            drop_ci95=drop_interval(drops[:, k]),
        )
        for k, strength in enumerate(strengths)
    )
    fallen = next((cell for cell in cells if cell.drop >= FALL), None)
    return UnderCorruption(
        corruption=name,
        about=text,
        accuracy=float(right.mean()),
        drop=float(drops.mean()),
        drop_ci95=drop_interval(drops.mean(axis=1)),
        falls_at=fallen and fallen.strength,
        fall_shown=fallen is not None and fallen.drop_ci95[0] > 0,
        strengths=cells,
    )


def _is_fastest(right: npt.NDArray[np.float64], fastest: int) -> bool:
    """Return whether a corruption is shown to cost more than each other one; Bonferroni's correction pays for the choice."""
    others = [k for k in range(right.shape[1]) if k != fastest]
    return all(drop_interval(right[:, k] - right[:, fastest], 0.05 / len(others))[0] > 0 for k in others)
