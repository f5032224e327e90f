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

from thawlab import process
from thawlab.data.decode import UNREADABLE, decode, open_image, why_unreadable

if TYPE_CHECKING:
    from collections.abc import Sequence

    from PIL import Image

    from thawlab.data.preprocessing import Preprocessing
    from thawlab.data.types import Pixels
    from thawlab.serving.settings import Limits

# Pictures of more pixels are decoded by a process of their own, one at a time and after all others.
_LARGE = 4_000_000
_PATIENT = 10  # its niceness


@final
class Decoders:
    """Processes that turn encoded pictures into pixels at working size; a large picture keeps no other waiting."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._quick, self._large = _Decoder(limits.decoders, 0, limits), _Decoder(1, _PATIENT, limits)

    async def start(self) -> None:
        """Start the processes, so that the first picture does not wait for them."""
        tries = [self._quick.fit(b"", (), 0) for _ in range(self._limits.decoders)]
        await asyncio.gather(*tries, self._large.fit(b"", (), 0))

    async def fit(self, content: bytes, preprocessings: Sequence[Preprocessing]) -> list[Pixels] | str:
        """Return a picture as each preprocessing fits it, or why it cannot be read."""
        found = await self._quick.fit(content, preprocessings, min(_LARGE, self._limits.pixels))
        if found is None:
            found = await self._large.fit(content, preprocessings, self._limits.pixels)
        return found or []

    def stop(self) -> None:
        """End the processes, whatever they do."""
        self._quick.stop()
        self._large.stop()


@final
class _Decoder:
    """Some processes, started anew when something kills them all."""

    def __init__(self, processes: int, niceness: int, limits: Limits) -> None:
        self._processes, self._niceness, self._limits = processes, niceness, limits
        self._pool = self._started()

    def _started(self) -> ProcessPool:
        context = multiprocessing.get_context("spawn")  # a fork would copy torch's locks as they happen to be
        arguments = [self._limits.decode_bytes, self._niceness, os.getpid()]
        return ProcessPool(self._processes, initializer=_prepare, initargs=arguments, context=context)

    async def fit(self, content: bytes, preprocessings: Sequence[Preprocessing], pixels: int) -> list[Pixels] | str | None:
        """Return what `fitted` does, or why it could not."""
        try:
            return await self._fit(content, preprocessings, pixels)
        except BrokenExecutor:  # something killed all processes while they had nothing to do
            return await self._fit(content, preprocessings, pixels)

    async def _fit(self, content: bytes, preprocessings: Sequence[Preprocessing], pixels: int) -> list[Pixels] | str | None:
        if not self._pool.active:
            self._pool = self._started()
        arguments = [content, tuple(preprocessings), pixels, self._limits.pixels]
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


def fitted(content: bytes, preprocessings: tuple[Preprocessing, ...], pixels: int, most_pixels: int) -> list[Pixels] | str | None:
    """Decode a picture once for each preprocessing, as `Predictor.predict` does; runs in a decoder.

    Args:
        content: an encoded picture.
        preprocessings: how it is brought to working size.
        pixels: of the largest picture that is decoded here.
        most_pixels: of the largest picture that is decoded at all.

    Returns:
        The pixels, why the picture cannot be read, or None if it is too large to be decoded here.
    """
    with contextlib.suppress(*UNREADABLE), open_image(content, most_pixels) as image:
        if max((_decoded_pixels(image, preprocessing) for preprocessing in preprocessings), default=0) > pixels:
            return None
    try:
        return [decode(content, preprocessing, most_pixels) for preprocessing in preprocessings]
    except UNREADABLE as error:
        # Some readers do not say that it was memory that they lacked.
        unsaid = "; or it takes more memory than a picture may: send a smaller version" * (pixels > _LARGE)
        return why_unreadable(error) + unsaid


def _decoded_pixels(image: Image.Image, preprocessing: Preprocessing) -> float:
    """Return how many pixels decoding makes of an image: a JPEG is decoded at a half, quarter or eighth where that suffices."""
    draft = preprocessing.draft_size(*image.size) if image.format == "JPEG" else None
    scale = 1 if draft is None else max(part for part in (1, 2, 4, 8) if part * draft[0] <= image.width)
    return image.width * image.height / scale**2


def _prepare(extra_bytes: int, niceness: int, parent: int) -> None:
    """Bound the memory of a decoder, leave interruptions to the server, and die with it."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with contextlib.suppress(ImportError, OSError, ValueError, AttributeError):  # where the system has no such limits
        import resource

        os.nice(niceness)
        resource.setrlimit(resource.RLIMIT_AS, (_address_space() + extra_bytes,) * 2)
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    process.end_with(parent, signal.SIGKILL)


def _address_space() -> int:
    """Return how much address space this process has, in bytes (Linux)."""
    import resource

    with open("/proc/self/statm", encoding="ascii") as file:  # noqa: PTH123 - a file of the kernel
        return int(file.read().split()[0]) * resource.getpagesize()
