"""Listening: a socket, connections that may not dawdle, and an end within seconds."""

from __future__ import annotations

import asyncio
import socket
from typing import TYPE_CHECKING, Any, final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from thawlab.errors import ThawlabError

if TYPE_CHECKING:
    from collections.abc import Callable

    from starlette.types import ASGIApp

    from thawlab.serving.settings import Limits

_HEAD_BYTES = 16_384
_DRAIN_SECONDS = 4
_KEEP_SECONDS = 15


def listen(host: str, port: int) -> socket.socket:
    """Return a socket that listens; port 0 is any free one.

    Raises:
        ThawlabError: if the address cannot be taken.
    """
    try:
        [family, _, _, _, address], *_ = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        listening = socket.create_server(address[:2], family=family, backlog=512)
    except OSError as error:
        hint = "; --port 0 takes any free one" if port else ""
        raise ThawlabError(f"{host}:{port} cannot be listened to: {error.strerror or error}{hint}") from None
    # Where the protocol is not named, asyncio lets small packets wait until earlier ones are acknowledged.
    return socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP, fileno=listening.detach())


def address_of(listening: socket.socket) -> str:
    """Return the address of a page that a socket serves."""
    host, port = listening.getsockname()[:2]
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def run(
    app: ASGIApp,
    host: str,
    port: int,
    limits: Limits,
    started: Callable[[str], None],
    ending: Callable[[], object] = lambda: None,
) -> None:
    """Answer requests until the process is told to stop; those that are being answered then have a few seconds.

    Args:
        app: what answers.
        host: to listen to.
        port: to listen at; 0 for any free one.
        limits: what is refused.
        started: is called with the page's address once it can be asked for.
        ending: is called in the loop when the end begins, so that answers that never end can do so.

    Raises:
        ThawlabError: if the address cannot be taken.
    """

    @final
    class Ending(uvicorn.Server):
        async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
            ending()
            await super().shutdown(sockets)

    config = uvicorn.Config(
        app,
        http=_protocol(limits),
        ws="none",
        lifespan="on",
        log_config=None,
        access_log=False,
        server_header=False,
        timeout_keep_alive=_KEEP_SECONDS,
        timeout_graceful_shutdown=_DRAIN_SECONDS,
        h11_max_incomplete_event_size=_HEAD_BYTES,
    )
    with listen(host, port) as listening:
        started(address_of(listening))
        Ending(config).run(sockets=[listening])


def _protocol(limits: Limits) -> type[asyncio.Protocol]:
    """Return uvicorn's protocol with a time for heads and a number of connections."""

    @final
    class Hurried(H11Protocol):
        """Closes a connection whose request line and headers do not arrive in time."""

        _late: asyncio.TimerHandle | None = None

        def connection_made(self, transport: Any) -> None:
            super().connection_made(transport)
            if len(self.connections) > limits.connections:
                transport.abort()
                return
            self._expect_head()

        def data_received(self, data: bytes) -> None:
            super().data_received(data)
            if self.conn.their_state is not h11.IDLE:
                self._forget_head()
            elif self._late is None:  # the beginning of a further request's head
                self._expect_head()

        def connection_lost(self, exc: Exception | None) -> None:
            self._forget_head()
            super().connection_lost(exc)

        def _expect_head(self) -> None:
            self._late = asyncio.get_running_loop().call_later(limits.head_seconds, self.transport.abort)

        def _forget_head(self) -> None:
            if self._late is not None:
                self._late.cancel()
                self._late = None

    return Hurried
