"""What a server listens to, whom it lets in, and how much it takes at once."""

import ipaddress
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import final

from thawlab.errors import UsageError
from thawlab.files import user_path

_SHORTEST_TOKEN = 16


@final
@dataclass(frozen=True)
class Limits:
    """What is refused, while it is being sent.

    Attributes:
        picture_bytes: of one encoded picture.
        pictures: of one request.
        pixels: of one picture, as its head says; checked before it is decoded.
        buffered_bytes: of all pictures together that are being received or wait for a decoder.
        waiting: pictures that wait for the network; more are answered 503.
        uploads: requests that may be receiving a body at once.
        connections: open at once; further ones are closed.
        head_seconds: for a request's line and headers to arrive.
        idle_seconds: between two pieces of a body.
        body_seconds: for a whole body.
        decode_seconds: for one picture, then its decoder is stopped.
        decode_bytes: of memory that a decoder may take beside what it starts with.
        decoders: processes.
    """

    picture_bytes: int = 10_000_000
    pictures: int = 32
    pixels: int = 25_000_000
    buffered_bytes: int = 64_000_000
    waiting: int = 256
    uploads: int = 64
    connections: int = 512
    head_seconds: float = 10.0
    idle_seconds: float = 10.0
    body_seconds: float = 60.0
    decode_seconds: float = 10.0
    decode_bytes: int = 260_000_000
    decoders: int = 2


@final
@dataclass(frozen=True)
class Access:
    """Who may ask.

    Attributes:
        hosts: names that requests may be sent to, beside `localhost` and numbers: a page of another site that had its own name
            point here (DNS rebinding) is thereby refused.
        token: that requests must bring; None where none is needed.
        origins: of other sites' pages that may read answers (CORS).
    """

    hosts: frozenset[str] = field(default_factory=frozenset)
    token: str | None = field(default=None, repr=False)
    origins: frozenset[str] = field(default_factory=frozenset)

    def knows(self, host: str) -> bool:
        """Return whether a Host header names this server; the port does not matter."""
        name = _without_port(host).lower()
        return name == "localhost" or name in self.hosts or _is_number(name)


def read_access(host: str, token_file: str | Path | None, no_token: bool, hosts: Sequence[str], origins: Sequence[str]) -> Access:
    """Return who may ask a server that listens to `host`.

    Raises:
        UsageError: if it listens beyond this machine without a token, or the token cannot be used.
    """
    if token_file is not None and no_token:
        raise UsageError("--no-token and --token-file exclude each other; leave one out")
    if token_file is None and not no_token and not is_local(host):
        raise UsageError(
            f"--host {host} can be reached from other machines: give --token-file FILE with a secret that clients must send "
            "(for example: python -c 'import secrets; print(secrets.token_urlsafe())' > FILE), or say --no-token"
        )
    for name in hosts:
        if not name or not set(name).isdisjoint("/ \t@*"):
            raise UsageError(f"--allow-host '{name}': must be a name as in an address, such as photos.example")
    for origin in origins:
        if not origin.startswith(("http://", "https://")) or origin.count("/") != 2:
            raise UsageError(f"--cors {origin}: must be the origin of pages, such as https://example.org")
    names = {_without_port(name).lower() for name in (*hosts, host)}
    return Access(frozenset(names), None if token_file is None else _token(user_path(token_file)), frozenset(origins))


def is_local(host: str) -> bool:
    """Return whether only this machine reaches a server that listens to `host`."""
    return host == "localhost" or (_is_number(host) and ipaddress.ip_address(host.strip("[]")).is_loopback)


def _token(file: Path) -> str:
    try:
        lines = file.read_text(encoding="utf-8").split()
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"--token-file {file}: cannot be read: {getattr(error, 'strerror', None) or error}") from None
    if len(lines) != 1 or len(lines[0]) < _SHORTEST_TOKEN or not lines[0].isascii():
        raise UsageError(
            f"--token-file {file}: must hold one secret of at least {_SHORTEST_TOKEN} ASCII characters and nothing else"
        )
    return lines[0]


def _without_port(host: str) -> str:
    if host.startswith("["):
        return "".join(host.partition("]")[:2])
    return host.partition(":")[0] if host.count(":") == 1 else host


def _is_number(host: str) -> bool:
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    try:
        ipaddress.ip_address(bare)
    except ValueError:
        return False
    return True
