"""The few types that every part of the data shares."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    import torch

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Shards = npt.NDArray[np.int32]
Pixels = npt.NDArray[np.uint8]


def indicator(labels: torch.Tensor, classes: int) -> torch.Tensor:
    """Return a row per label, 1 at its class and 0 elsewhere: float32, n × `classes`.

    The one place where class numbers become a matrix; a task of several labels per image brings its own matrix instead.
    """
    import torch.nn.functional as F

    return F.one_hot(labels, classes).float()
