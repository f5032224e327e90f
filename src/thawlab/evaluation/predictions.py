"""Predictions: a table of ids, labels and logits of one split; everything that is measured is a function of it."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.arrays import DAMAGED, read_arrays
from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices, Labels
from thawlab.errors import ThawlabError, first_line
from thawlab.evaluation.softmax import softmax
from thawlab.files import write_atomically

Logits = npt.NDArray[np.float32]


class Predictions(NamedTuple):
    """The logits of a classifier on a split, beside ids and labels.

    Attributes:
        ids: a name per image.
        labels: int64, the truth.
        logits: float32, n × classes.
    """

    ids: npt.NDArray[np.str_]
    labels: Labels
    logits: Logits

    @property
    def predicted(self) -> Labels:
        """The class with the largest logit per image."""
        result: Labels = self.logits.argmax(axis=1).astype(np.int64)
        return result

    def probabilities(self, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        """Return softmax(logits / temperature), float64, n × classes."""
        return calibrated(self.logits, temperature)

    def save(self, path: Path) -> None:
        """Write the table as a compressed npz file, atomically."""
        write_atomically(path, lambda file: np.savez_compressed(file, **self._asdict()))


def calibrated(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    """Return softmax(logits / temperature), float64, n × classes."""
    return softmax(logits.astype(np.float64) / temperature)


def load_predictions(path: Path) -> Predictions:
    """Read a table of predictions.

    Raises:
        ThawlabError: if the file is missing or damaged.
    """
    try:
        table = read_arrays(path)
        found = Predictions(table["ids"], table["labels"], table["logits"])
        if found.logits.ndim != 2 or not len(found.ids) == len(found.labels) == len(found.logits):
            raise ValueError("its columns are not of one length")
        if (found.ids.dtype.kind, found.labels.dtype.kind, found.logits.dtype.kind) != ("U", "i", "f"):
            raise ValueError("its columns are not texts, whole numbers and fractions")
    except FileNotFoundError:
        raise ThawlabError(f"{path}: is missing; finish the training, or let `thawlab repair` restore it") from None
    except DAMAGED as error:
        raise ThawlabError(f"{path}: cannot be read: {first_line(error)}") from None
    return found


def predictions_of(dataset: Dataset, indices: Indices, logits: Logits) -> Predictions:
    """Return the predictions of samples from their logits."""
    ids = np.array([dataset.ids[index] for index in indices.tolist()], dtype=np.str_)
    return Predictions(ids, dataset.labels[indices], logits)
