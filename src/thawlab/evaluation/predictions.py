"""Predictions: a table of ids, labels and logits of one split; everything that is measured is a function of it."""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from thawlab import progress
from thawlab.data.batches import prefetched
from thawlab.data.dataset import Dataset
from thawlab.data.listing import Indices, Labels
from thawlab.errors import ThawlabError
from thawlab.models.folding import folded
from thawlab.run import write_atomically

# All inference outside the training step runs in batches of exactly this many rows, the last one filled up: the shape of a
# batch can decide which kernel computes it, and a sample's numbers must not depend on how many others stood beside it.
INFERENCE_BATCH = 32

Logits = npt.NDArray[np.float32]


@final
@dataclass(frozen=True)
class Predictions:
    """What a classifier said about a split.

    Attributes:
        ids: a name per picture.
        labels: int64, the truth.
        logits: float32, n × classes.
    """

    ids: npt.NDArray[np.str_]
    labels: Labels
    logits: Logits

    @property
    def predicted(self) -> Labels:
        """The class with the largest logit per picture."""
        result: Labels = self.logits.argmax(axis=1).astype(np.int64)
        return result

    def probabilities(self, temperature: float = 1.0) -> npt.NDArray[np.float64]:
        """Return softmax(logits / temperature), float64, n × classes."""
        return calibrated(self.logits, temperature)

    def save(self, path: Path) -> None:
        """Write the table as a compressed npz file, atomically."""
        buffer = io.BytesIO()
        np.savez_compressed(buffer, ids=self.ids, labels=self.labels, logits=self.logits)
        write_atomically(path, lambda file: file.write(buffer.getvalue()))


def calibrated(logits: Logits, temperature: float) -> npt.NDArray[np.float64]:
    """Return softmax(logits / temperature), float64, n × classes."""
    from scipy.special import softmax

    result: npt.NDArray[np.float64] = softmax(logits.astype(np.float64) / temperature, axis=1)
    return result


def load_predictions(path: Path) -> Predictions:
    """Read a table of predictions.

    Raises:
        ThawlabError: if the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as table:
            return Predictions(table["ids"], table["labels"], table["logits"])
    except FileNotFoundError:
        raise ThawlabError(f"{path}: is missing from the run; was the training finished?") from None
    except (OSError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise ThawlabError(f"{path}: cannot be read: {error}") from None


@contextmanager
def eval_mode(module: nn.Module) -> Iterator[None]:
    """Run a module in eval mode, and give every layer its own mode back."""
    modes = [(part, part.training) for part in module.modules()]
    module.eval()
    try:
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def infer(
    module: nn.Module,
    rows: npt.NDArray[np.generic],
    indices: Indices,
    prepare: Callable[[torch.Tensor], torch.Tensor],
    device: torch.device,
    label: str = "",
) -> npt.NDArray[np.float32]:
    """Apply a module in eval mode to some rows of an array.

    Args:
        module: gives one float row per input row.
        rows: of all samples, e.g. uint8 pictures.
        indices: which rows, in which order.
        prepare: turns a batch of rows on the device into the module's input.
        device: where the module is.
        label: shows progress under this name; empty shows none.

    Returns:
        float32, len(indices) × outputs.
    """
    starts = list(range(0, len(indices), INFERENCE_BATCH))

    def gather(start: int) -> torch.Tensor:
        chosen = indices[start : start + INFERENCE_BATCH]
        filled = np.resize(chosen, INFERENCE_BATCH)  # repeats from the start to fill up
        return torch.from_numpy(np.take(rows, filled, axis=0))

    outputs: list[npt.NDArray[np.float32]] = []
    network: nn.Module | None = None
    with eval_mode(module), torch.inference_mode(), progress.task(label, len(indices) if label else 0) as advance:
        for start, batch in prefetched(starts, gather):
            count = min(INFERENCE_BATCH, len(indices) - start)
            inputs = prepare(batch.to(device))
            network = folded(module, inputs.shape[1:]) if network is None else network
            outputs.append(network(inputs)[:count].float().cpu().numpy())
            if label:
                advance(count)
    return np.concatenate(outputs) if outputs else np.zeros((0, 0), dtype=np.float32)


def predictions_of(dataset: Dataset, indices: Indices, logits: Logits) -> Predictions:
    """Put the ids and labels of some samples beside their logits."""
    ids = np.array([dataset.ids[index] for index in indices.tolist()], dtype=np.str_)
    return Predictions(ids, dataset.labels[indices], logits)
