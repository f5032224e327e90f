"""The list of measures: each is a function of the subject and gives one key of `results.json`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from thawlab.data.dataset import ood_datasets
from thawlab.data.preprocessing import to_tensor
from thawlab.evaluation.abstention import abstention
from thawlab.evaluation.metrics.measures import accuracy_interval, brief, full
from thawlab.evaluation.novelty import novelty
from thawlab.evaluation.predictions import predictions_of
from thawlab.evaluation.views import VIEWS, View
from thawlab.inference.infer import infer
from thawlab.judging.shift import short_form
from thawlab.judging.subject import Subject, outputs_of
from thawlab.quality.label_errors import label_suspects
from thawlab.results import LabelSuspects, NearDuplicates, Novelty, PartAccuracy, TestResult, TestTimeAugmentation, TrainResult


def _test(subject: Subject) -> TestResult:
    classes, bins = subject.context.dataset.classes, subject.context.recipe.evaluation.ece_bins
    return full(subject.tables["test"], classes, subject.temperature, bins)


def _novelty(subject: Subject) -> Novelty | None:
    if subject.reference is None:
        return None
    context, ood = subject.context, {}
    if context.recipe.evaluation.ood:
        for other in ood_datasets(context.preprocessing, context.recipe.system, context.dataset.name):
            outputs = outputs_of(context, subject.data, other, other.splits.test, "OOD images")
            ood[other.name] = subject.novelty_scores(outputs)
    val, test = (subject.novelty_scores(subject.outputs[split]) for split in ("val", "test"))
    return novelty(subject.reference, val, test, ood)


def _label_suspects(subject: Subject) -> LabelSuspects:
    tables, classes = subject.tables, subject.context.dataset.classes
    return LabelSuspects.model_validate(label_suspects(tables["val"], tables["test"], classes, subject.temperature))


def _near_duplicates(subject: Subject) -> NearDuplicates | None:
    """Return the test images that nearly repeat a training image, and the accuracy with and without them."""
    found, dataset = subject.near, subject.context.dataset
    if found is None:
        return None
    result = NearDuplicates.model_validate(found.as_json(dataset.ids))
    if not found.pairs:
        return result
    table, indices = subject.tables["test"], dataset.splits.test
    right = table.predicted == table.labels
    tested = np.isin(indices, found.tested)
    repeated = np.isin(indices, [other for _, other in (*found.pairs, *dataset.leaks)])
    parts = {"among_all": right[tested], "without": right[tested & ~repeated]}
    return result.model_copy(update={name: _part_accuracy(part) for name, part in parts.items() if len(part)})


def _part_accuracy(right: npt.NDArray[np.bool_]) -> PartAccuracy:
    correct, n = int(right.sum()), len(right)
    return PartAccuracy(n=n, accuracy=correct / n, accuracy_ci95=accuracy_interval(correct, n))


def _test_time_augmentation(subject: Subject) -> TestTimeAugmentation | None:
    """Return loss and accuracy on the test split with the mean of the logits over several views of each image."""
    context = subject.context
    views, dataset = context.recipe.evaluation.tta, context.dataset
    indices = dataset.splits.test
    if views is None or not len(indices):
        return None
    total = np.zeros((len(indices), len(dataset.classes)), dtype=np.float32)
    for view in VIEWS[views]:

        def prepare_rows(rows: torch.Tensor, view: View = view) -> torch.Tensor:
            return context.preprocessing.normalize(view.of(to_tensor(rows)))

        logits = infer(context.classifier, dataset.images, indices, prepare_rows, context.device, "test-time augmentation")
        total += np.float32(view.weight) * logits
    table = predictions_of(dataset, indices, total)
    interval = accuracy_interval(int((table.predicted == table.labels).sum()), len(indices))
    return TestTimeAugmentation(views=views, accuracy_ci95=interval, **brief(table).model_dump())


MEASURES: dict[str, Callable[[Subject], Any]] = {
    "train": lambda subject: TrainResult.model_validate(brief(subject.tables["train"]).model_dump()),
    "val": lambda subject: brief(subject.tables["val"]),
    "test": _test,
    "abstention": lambda subject: abstention(subject.tables["val"], subject.tables["test"], subject.temperature),
    "novelty": _novelty,
    "label_suspects": _label_suspects,
    "near_duplicates": _near_duplicates,
    "test_time_augmentation": _test_time_augmentation,
    "shift": short_form,
}
