"""The pictures of a request, taken from its body while it arrives; what is too large is refused before it is held."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncGenerator, AsyncIterator
from typing import TYPE_CHECKING, final

from python_multipart import multipart
from starlette.requests import ClientDisconnect

from thawlab.serving.refusals import RefusedError, busy

if TYPE_CHECKING:
    from starlette.requests import Request

    from thawlab.serving.settings import Limits

FIELD = "pictures"
_HEAD_BYTES = 4_096  # of the headers of one part
_RAW = ("image/", "application/octet-stream")


@final
class Budget:
    """How many bytes of pictures are held in all; what goes beyond is refused, never waited for."""

    def __init__(self, size: int) -> None:
        self.size, self.taken = size, 0

    def take(self, count: int) -> None:
        """Take a number of bytes.

        Raises:
            RefusedError: 503 if there are not as many left.
        """
        if self.taken + count > self.size:
            raise busy("too many pictures are being sent at once")
        self.taken += count

    def give(self, count: int) -> None:
        """Give bytes back."""
        self.taken -= count


@final
class _Parts:
    """Collects the parts of a multipart body, and refuses what is no picture or too much."""

    def __init__(self, boundary: bytes, limits: Limits, budget: Budget) -> None:
        self._limits, self._budget = limits, budget
        self.whole: list[bytes] = []
        self.held = self.count = 0
        self.ended = False
        self._chunks: list[bytes] = []
        self._size = self._head = 0
        self._key = b""
        self._headers: dict[bytes, bytes] = {}
        self._value = b""
        self.parser = multipart.MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._on_key,
                "on_header_value": self._on_value,
                "on_header_end": self._end_header,
                "on_headers_finished": self._named,
                "on_part_data": self._on_data,
                "on_part_end": self._end,
                "on_end": self._finish,
            },
        )

    def _begin(self) -> None:
        self.count += 1
        if self.count > self._limits.pictures:
            raise RefusedError(413, f"more than {self._limits.pictures} pictures in one request; send them in several")
        self._headers, self._chunks, self._size, self._head = {}, [], 0, 0

    def _counted(self, piece: bytes) -> bytes:
        self._head += len(piece)
        if self._head > _HEAD_BYTES:
            raise RefusedError(431, "the headers of a part are too long; shorten the file name")
        return piece

    def _on_key(self, data: bytes, start: int, end: int) -> None:
        self._key += self._counted(data[start:end])

    def _on_value(self, data: bytes, start: int, end: int) -> None:
        self._value += self._counted(data[start:end])

    def _end_header(self) -> None:
        self._headers[self._key.lower()] = self._value
        self._key = self._value = b""

    def _named(self) -> None:
        kind, options = multipart.parse_options_header(self._headers.get(b"content-disposition", b""))
        if kind != b"form-data" or options.get(b"name") != FIELD.encode():
            raise RefusedError(422, f"every part must be a picture in a field named '{FIELD}': curl -F {FIELD}=@photo.jpg")

    def _on_data(self, data: bytes, start: int, end: int) -> None:
        self._size += end - start
        check_size(self._size, self._limits)
        self._budget.take(end - start)
        self.held += end - start
        self._chunks.append(data[start:end])

    def _end(self) -> None:
        self.whole.append(b"".join(self._chunks))
        self._chunks = []

    def _finish(self) -> None:
        self.ended = True

    def forget(self) -> None:
        """Let go of all bytes at once: parser and parts refer to each other, and would stay until garbage is collected."""
        self._chunks, self.whole = [], []
        self.parser.callbacks = {}


def check_size(size: int, limits: Limits) -> None:
    """Refuse a picture of too many bytes."""
    if size > limits.picture_bytes:
        raise RefusedError(413, f"a picture has more than {limits.picture_bytes / 1e6:g} MB; send a smaller version")


def pictures_of(request: Request, limits: Limits, budget: Budget) -> AsyncGenerator[bytes]:
    """Yield the encoded pictures of a body, each as soon as it has arrived; who takes one gives its bytes back to the budget.

    A body is one picture itself (`image/…` or `application/octet-stream`), or several parts of `multipart/form-data`.

    Raises:
        RefusedError: if it is something else, too large, too many or too slow.
    """
    kind, options = multipart.parse_options_header(request.headers.get("content-type", ""))
    if kind == b"multipart/form-data":
        return _parts(request, limits, budget, options.get(b"boundary", b""))
    if kind.decode("latin-1").startswith(_RAW):
        return _raw(request, limits, budget)
    raise RefusedError(
        415, f"send a picture as the body with its own content type (image/jpeg), or several as fields named '{FIELD}'"
    )


async def _raw(request: Request, limits: Limits, budget: Budget) -> AsyncGenerator[bytes]:
    chunks, size = [], 0
    try:
        async for chunk in _chunks(request, limits):
            check_size(size + len(chunk), limits)
            budget.take(len(chunk))
            size += len(chunk)
            chunks.append(chunk)
        content = b"".join(chunks)
        if not content:
            raise RefusedError(422, "the body is empty; send a picture")
        chunks, size = [], 0
        yield content
    finally:
        budget.give(size)


async def _parts(request: Request, limits: Limits, budget: Budget, boundary: bytes) -> AsyncGenerator[bytes]:
    try:
        parts = _Parts(boundary, limits, budget)
    except multipart.FormParserError as error:
        raise RefusedError(400, f"the body cannot be read as multipart/form-data: {error}") from None
    if not boundary:
        raise RefusedError(400, "the content type multipart/form-data lacks its boundary")
    total = 0
    try:
        async for chunk in _chunks(request, limits):
            total += len(chunk)
            if total > limits.pictures * (limits.picture_bytes + 2 * _HEAD_BYTES):
                raise RefusedError(413, "the body is too large")
            try:
                parts.parser.write(chunk)
            except multipart.FormParserError as error:
                raise RefusedError(400, f"the body cannot be read as multipart/form-data: {error}") from None
            while parts.whole:
                picture = parts.whole.pop(0)
                parts.held -= len(picture)
                yield picture
        if not parts.ended:
            raise RefusedError(400, "the body ends in the middle of multipart/form-data")
        if not parts.count:
            raise RefusedError(422, f"there is no picture in the body; send at least one field named '{FIELD}'")
    finally:
        budget.give(parts.held)
        parts.forget()


async def _chunks(request: Request, limits: Limits) -> AsyncIterator[bytes]:
    """Yield the body as it arrives; a client that stops sending, or dribbles, is let go."""
    deadline = time.monotonic() + limits.body_seconds
    stream = request.stream()
    while True:
        left = deadline - time.monotonic()
        try:
            async with asyncio.timeout(max(0.0, min(left, limits.idle_seconds))):
                chunk = await anext(stream, None)
        except TimeoutError:
            raise RefusedError(408, "the body came too slowly") from None
        except ClientDisconnect:
            raise RefusedError(400, "the client left while it was sending") from None
        if chunk is None:
            return
        if chunk:
            yield chunk
