"""Decoding in processes of their own: a picture made to exhaust time or memory costs its decoder, which is started anew."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import signal
from concurrent.futures import BrokenExecutor
from concurrent.futures import TimeoutError as TookTooLong
from typing import TYPE_CHECKING, final

from pebble import ProcessExpired, ProcessPool

from thawlab.data.decode import UNREADABLE, decode, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thawlab.data.preprocessing import Preprocessing
    from thawlab.data.types import Pixels
    from thawlab.serving.settings import Limits

_PARENT_DIED = 1  # PR_SET_PDEATHSIG of Linux' prctl


@final
class Decoders:
    """Processes that turn encoded pictures into pixels at working size."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._pool, self._scheduled = self._started(), False  # it starts with the first picture

    def _started(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's locks as they happen to be
        arguments = [self._limits.decode_bytes, os.getpid()]
        return ProcessPool(self._limits.decoders, initializer=_prepare, initargs=arguments, context=context)

    async def fit(self, content: bytes, preprocessings: Sequence[Preprocessing]) -> list[Pixels] | str:
        """Return a picture as each preprocessing fits it, or why it cannot be read."""
        try:
            return await self._fit(content, preprocessings)
        except BrokenExecutor:  # something killed all decoders while they had nothing to do
            return await self._fit(content, preprocessings)

    async def _fit(self, content: bytes, preprocessings: Sequence[Preprocessing]) -> list[Pixels] | str:
        if self._scheduled and not self._pool.active:
            self._pool = self._started()
        self._scheduled = True
        arguments = [content, tuple(preprocessings), self._limits.pixels]
        try:
            future = self._pool.schedule(fitted, args=arguments, timeout=self._limits.decode_seconds)
            return await asyncio.wrap_future(future)
        except TookTooLong:
            return f"decoding it takes longer than {self._limits.decode_seconds:g} s"
        except ProcessExpired:
            return "decoding it broke the decoder"

    def stop(self) -> None:
        """End the processes, whatever they do."""
        self._pool.stop()
        self._pool.join()


def fitted(content: bytes, preprocessings: tuple[Preprocessing, ...], max_pixels: int) -> list[Pixels] | str:
    """Decode a picture once for each preprocessing, as `Predictor.predict` does; runs in a decoder."""
    try:
        return [decode(content, preprocessing, max_pixels) for preprocessing in preprocessings]
    except UNREADABLE as error:
        return why_unreadable(error)


def _prepare(extra_bytes: int, parent: int) -> None:
    """Bound the memory of a decoder, leave interruptions to the server, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, OSError, ValueError):  # where the system has no such limits
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + extra_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError, AttributeError):
        import ctypes

        ctypes.CDLL(None).prctl(_PARENT_DIED, signal.SIGKILL)
        if os.getppid() != parent:  # it died before that was said
            os._exit(1)


def _address_space() -> int:
    """Return how much address space this process has, in bytes (Linux)."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[0]) * resource.getpagesize()
