"""The few types that every part of the data shares."""

from __future__ import annotations

from typing import Literal

import numpy as np
import numpy.typing as npt

Split = Literal["train", "val", "test"]
SPLITS: tuple[Split, ...] = ("train", "val", "test")
Labels = npt.NDArray[np.int64]
Indices = npt.NDArray[np.int64]
Pixels = npt.NDArray[np.uint8]
