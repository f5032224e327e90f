"""Requests that arrive within a few milliseconds share a batch."""

from __future__ import annotations

import asyncio
from concurrent.futures import Executor
from typing import TYPE_CHECKING, NamedTuple, final

import numpy as np

from thawlab.inference.infer import INFERENCE_BATCH
from thawlab.serving.refusals import busy

if TYPE_CHECKING:
    from collections.abc import Callable

    from thawlab.data.types import Pixels
    from thawlab.deploy.prediction import Prediction
    from thawlab.deploy.predictor import Predictor

_WAIT_SECONDS = 0.004


@final
class _Waiting(NamedTuple):
    pixels: Pixels
    top_k: int
    answer: asyncio.Future[Prediction]


@final
class Batcher:
    """Collects pictures at working size for one model and predicts them together.

    Args:
        predictor: of the model.
        compute: where the network runs: one thread for all models, which would only take the cores from one another.
        limit: pictures that may wait.
        observe: is told the size of each batch.
    """

    def __init__(self, predictor: Predictor, compute: Executor, limit: int, observe: Callable[[int], object]) -> None:
        self._predictor, self._compute, self._limit, self._observe = predictor, compute, limit, observe
        self._waiting: list[_Waiting] = []
        self._running: asyncio.Task[None] | None = None

    @property
    def waiting(self) -> int:
        """How many pictures wait."""
        return len(self._waiting)

    async def predict(self, pixels: Pixels, top_k: int) -> Prediction:
        """Predict one picture at working size, together with others that are here.

        Raises:
            RefusedError: 503 if too many wait.
        """
        if len(self._waiting) >= self._limit:
            raise busy("too many pictures are waiting", retry_after=2)
        answer: asyncio.Future[Prediction] = asyncio.get_running_loop().create_future()
        self._waiting.append(_Waiting(pixels, top_k, answer))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await answer

    async def _run(self) -> None:
        """Compute batches while pictures wait."""
        try:
            while self._waiting:
                if len(self._waiting) < INFERENCE_BATCH:
                    await asyncio.sleep(_WAIT_SECONDS)
                batch, self._waiting = self._waiting[:INFERENCE_BATCH], self._waiting[INFERENCE_BATCH:]
                batch = [one for one in batch if not one.answer.done()]  # who left needs no answer
                if batch:
                    await self._compute_batch(batch)
        finally:
            self._running = None

    async def _compute_batch(self, batch: list[_Waiting]) -> None:
        self._observe(len(batch))
        pixels, top_k = np.stack([one.pixels for one in batch]), max(one.top_k for one in batch)
        try:
            found = await asyncio.get_running_loop().run_in_executor(self._compute, self._predictor.predict_fitted, pixels, top_k)
        except Exception as error:
            for one in batch:
                if not one.answer.done():
                    one.answer.set_exception(error)
            return
        for one, prediction in zip(batch, found, strict=True):
            if not one.answer.done():
                one.answer.set_result(prediction)
