"""Images that are decoded whenever they are taken, for data whose decoded form would not fit on the disk."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import Any, final

import numpy as np
import numpy.typing as npt

from thawlab.cores import usable_cores
from thawlab.data.types import Indices, Pixels


@final
class OnDemand:
    """What training asks of an array of decoded images, n × size × size × 3, of which none is kept.

    Args:
        decode: gives the image with a number at working size.
        count: of the images.
        side: of an image in pixels.
        workers: threads that decode; as many as cores if None.
        expect: takes note of which images will be taken next, in order.
    """

    dtype, ndim = np.dtype(np.uint8), 4

    def __init__(
        self,
        decode: Callable[[int], Pixels],
        count: int,
        side: int,
        workers: int | None,
        expect: Callable[[Indices], None] | None = None,
    ) -> None:
        self._decode, self._workers, self._expect = decode, workers, expect
        self.shape = (count, side, side, 3)

    @cached_property
    def _pool(self) -> ThreadPoolExecutor:
        return ThreadPoolExecutor(self._workers or usable_cores())

    def __len__(self) -> int:
        return self.shape[0]

    def __getitem__(self, place: Any) -> npt.NDArray[np.uint8]:
        """Return one image, or those of a slice or of an array of numbers."""
        if isinstance(place, int | np.integer):
            return self._decode(range(len(self))[int(place)])
        return self.take(np.arange(len(self))[place])

    def expect(self, indices: Indices) -> None:
        """Take note of which images will be taken next, in order, so that those from afar are fetched ahead."""
        if self._expect is not None:
            self._expect(indices)

    def take(self, indices: Any, axis: int = 0, out: Any = None, mode: str = "raise") -> npt.NDArray[np.uint8]:
        """Return some images, as `numpy.take` does of an array's first axis."""
        assert axis == 0 and out is None and mode == "raise", "images are taken whole"
        chosen = np.asarray(indices)
        images = np.empty((len(chosen), *self.shape[1:]), dtype=np.uint8)
        for row, pixels in enumerate(self._pool.map(self._decode, chosen.tolist())):
            images[row] = pixels
        return images
