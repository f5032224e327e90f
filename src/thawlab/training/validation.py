"""How a classifier does on the validation split after an epoch, and which of two epochs is the better one."""

from typing import NamedTuple

from thawlab.data.dataset import Dataset
from thawlab.evaluation.metrics.calibration import log_loss
from thawlab.evaluation.metrics.metric import Scored
from thawlab.evaluation.metrics.standard import balanced_accuracy, macro_f1
from thawlab.evaluation.predictions import Logits, predictions_of
from thawlab.recipe import Phase


class Validation(NamedTuple):
    """Measures of the validation split; balanced accuracy and macro F1 where the phase monitors them."""

    accuracy: float
    loss: float
    balanced_accuracy: float | None = None
    macro_f1: float | None = None

    def order(self, monitor: str) -> tuple[float, float]:
        """Return what is larger for a better epoch: the monitored measure, and the lower loss among equals."""
        values = {"accuracy": self.accuracy, "balanced_accuracy": self.balanced_accuracy, "macro_f1": self.macro_f1}
        value = -self.loss if monitor == "loss" else values[monitor]
        assert value is not None, "what is monitored is measured"
        return value, -self.loss

    def described(self) -> str:
        """Return the measures in words, for the log."""
        words = f"val accuracy {self.accuracy:.4f}"
        if self.balanced_accuracy is not None:
            words += f", balanced {self.balanced_accuracy:.4f}"
        return words + (f", macro F1 {self.macro_f1:.4f}" if self.macro_f1 is not None else "")


def validate(dataset: Dataset, logits: Logits, phase: Phase) -> Validation:
    """Return the measures of the validation split (not empty) from its logits."""
    labels = dataset.labels[dataset.splits.val]
    measured = Validation(float((logits.argmax(axis=1) == labels).mean()), log_loss(logits, labels))
    scored = Scored(predictions_of(dataset, dataset.splits.val, logits))
    if phase.monitor == "balanced_accuracy":
        return measured._replace(balanced_accuracy=balanced_accuracy.value(scored))
    if phase.monitor == "macro_f1":
        return measured._replace(macro_f1=macro_f1.value(scored))
    return measured
