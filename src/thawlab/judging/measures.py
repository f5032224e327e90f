"""The list of measures: each is a function of the subject and gives one key of `results.json`."""

from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from thawlab.data.dataset import foreign_datasets
from thawlab.data.preprocessing import to_tensor
from thawlab.evaluation.abstention import abstention
from thawlab.evaluation.metrics.measures import accuracy_interval, brief, full
from thawlab.evaluation.novelty import novelty
from thawlab.evaluation.predictions import predictions_of
from thawlab.evaluation.views import VIEWS, View
from thawlab.inference.infer import infer
from thawlab.judging.subject import Subject
from thawlab.quality.label_errors import label_suspects
from thawlab.results import (
    Abstention,
    LabelSuspects,
    NearDuplicates,
    Novelty,
    SplitResult,
    TestResult,
    TestTimeAugmentation,
    TrainResult,
)


def _train(subject: Subject) -> TrainResult:
    measured = brief(subject.tables["train"])
    return TrainResult(loss=measured.loss, accuracy=measured.accuracy)


def _val(subject: Subject) -> SplitResult:
    return brief(subject.tables["val"])


def _test(subject: Subject) -> TestResult:
    context = subject.trained.context
    return full(subject.tables["test"], context.dataset.classes, subject.temperature, context.recipe.evaluation.ece_bins)


def _abstention(subject: Subject) -> Abstention | None:
    return abstention(subject.tables["val"], subject.tables["test"], subject.temperature)


def _novelty(subject: Subject) -> Novelty | None:
    if subject.reference is None:
        return None
    context = subject.trained.context
    others = (
        foreign_datasets(context.preprocessing, context.recipe.system, context.dataset.name)
        if context.recipe.evaluation.ood
        else ()
    )
    ood = {
        other.name: subject.novelty_scores(subject.trained.outputs(other, other.splits.test, "OOD images")) for other in others
    }
    val, test = (subject.novelty_scores(subject.outputs[split]) for split in ("val", "test"))
    return novelty(subject.reference, val, test, ood)


def _label_suspects(subject: Subject) -> LabelSuspects:
    tables, classes = subject.tables, subject.trained.context.dataset.classes
    return LabelSuspects.model_validate(label_suspects(tables["val"], tables["test"], classes, subject.temperature))


def _near_duplicates(subject: Subject) -> NearDuplicates | None:
    ids = subject.trained.context.dataset.ids
    return NearDuplicates.model_validate(subject.near.as_json(ids)) if subject.near else None


def _test_time_augmentation(subject: Subject) -> TestTimeAugmentation | None:
    """Return loss and accuracy on the test split with the mean of the logits over several views of each image."""
    context = subject.trained.context
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
    "train": _train,
    "val": _val,
    "test": _test,
    "abstention": _abstention,
    "novelty": _novelty,
    "label_suspects": _label_suspects,
    "near_duplicates": _near_duplicates,
    "test_time_augmentation": _test_time_augmentation,
}
