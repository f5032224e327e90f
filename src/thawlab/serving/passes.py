"""Passes for links: a browser that follows a link sends no token, so the page asks for an address that holds for a minute."""

import hashlib
import hmac
import time
from urllib.parse import parse_qsl, urlencode

_SECONDS = 60
_KEY = "pass"


def with_pass(address: str, token: str, now: float | None = None) -> str:
    """Return an address on this server (path and query) with a pass that lets anybody follow it for a minute."""
    until = int((time.time() if now is None else now) + _SECONDS)
    sign = "&" if "?" in address else "?"
    return f"{address}{sign}{urlencode({_KEY: f'{until}.{_seal(address, until, token)}'})}"


def has_pass(path: str, query: str, token: str, now: float | None = None) -> bool:
    """Return whether an address ends in a pass that was made for it and still holds."""
    rest, _, last = query.rpartition("&")
    given = dict(parse_qsl(last)).get(_KEY, "")
    until, _, seal = given.partition(".")
    if not (until.isascii() and until.isdecimal()) or len(until) > 12 or (time.time() if now is None else now) > int(until):
        return False
    wanted = _seal(f"{path}?{rest}" if rest else path, int(until), token)
    return hmac.compare_digest(seal.encode(), wanted.encode())


def _seal(address: str, until: int, token: str) -> str:
    return hmac.new(token.encode(), f"{until} {address}".encode(), hashlib.sha256).hexdigest()
