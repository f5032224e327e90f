"""What every request passes, whatever it asks for: who may ask, what a browser may do with the answer, and the log."""

from __future__ import annotations

import hmac
import re
import time
import traceback
import uuid
from typing import TYPE_CHECKING, Any, final

from starlette.responses import JSONResponse

from thawlab.serving.answers import Failure, Refused
from thawlab.serving.observing import Observed, log
from thawlab.serving.passes import has_pass
from thawlab.serving.refusals import RefusedError

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from thawlab.serving.settings import Access

_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}")
# No script, style, frame or picture of another site, and no script within a page.
CONTENT_POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' blob: data:; connect-src 'self'; "
    "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
)
_HEADERS = {
    "content-security-policy": CONTENT_POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-resource-policy": "same-origin",
    "cross-origin-opener-policy": "same-origin",
    "x-frame-options": "DENY",
    "cache-control": "no-store",
}


@final
class Guard:
    """Lets a request through to the application, or answers it with the reason why not.

    Args:
        app: what answers.
        access: who may ask.
        open_paths: need no token.
        observed: counts requests.
    """

    def __init__(self, app: ASGIApp, access: Access, open_paths: frozenset[str], observed: Observed) -> None:
        self._app, self._access, self._open, self._observed = app, access, open_paths, observed

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        headers: dict[bytes, list[bytes]] = {}
        for key, value in scope["headers"]:
            headers.setdefault(key, []).append(value)
        given = headers.get(b"x-request-id", [b""])[0].decode("latin-1")
        number = given if _REQUEST_ID.fullmatch(given) else uuid.uuid4().hex
        scope.setdefault("state", {})["request_id"] = number
        start, status = time.perf_counter(), 0

        async def with_headers(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                own = {key for key, _ in message["headers"]}
                more = {**_HEADERS, "x-request-id": number}
                message["headers"] += [(k.encode(), v.encode()) for k, v in more.items() if k.encode() not in own]
            await send(message)

        try:
            check(scope, headers, self._access, self._open)
            await self._app(scope, receive, with_headers)
        except RefusedError as refused:
            await refusal(refused.status, refused.message, number, refused.retry_after)(scope, receive, with_headers)
        except Exception:
            log("failure", id=number, error=traceback.format_exc(limit=8))
            if status:  # the answer has begun; only breaking off tells the client
                raise
            await refusal(500, "the server failed; its log says why", number)(scope, receive, with_headers)
        finally:
            self._note(scope, number, status, start)

    def _note(self, scope: Scope, number: str, status: int, start: float) -> None:
        route = getattr(scope.get("route"), "path_format", "other")
        seconds = round(time.perf_counter() - start, 4)
        self._observed.requests.labels(route, str(status)).inc()
        self._observed.seconds.labels(route).observe(seconds)
        client = scope.get("client") or ("", 0)
        told = {"method": scope["method"], "path": scope["path"][:200], "status": status, "seconds": seconds}
        log("request", id=number, client=client[0], **told, **scope["state"].get("told", {}))


def check(scope: Scope, headers: dict[bytes, list[bytes]], access: Access, open_paths: frozenset[str]) -> None:
    """Refuse a request that is ambiguous, meant for another server, sent by another site's page, or lacks the token.

    Raises:
        RefusedError: with the reason.
    """
    if b"transfer-encoding" in headers and b"content-length" in headers:
        raise RefusedError(400, "Transfer-Encoding and Content-Length exclude each other")
    hosts = headers.get(b"host", [])
    if len(hosts) != 1:
        raise RefusedError(400, "exactly one Host header is needed")
    host = hosts[0].decode("latin-1")
    if not access.knows(host):
        raise RefusedError(421, "the Host header names another server; start this one with --allow-host NAME to answer to it")
    origin = headers.get(b"origin", [b""])[0].decode("latin-1")
    if origin and origin.partition("://")[2] != host and origin not in access.origins:
        raise RefusedError(403, "pages of other sites may not ask this server; start it with --cors ORIGIN to let one")
    token = access.token
    if token is not None and scope["path"] not in open_paths and not (_has_token(headers, token) or _has_pass(scope, token)):
        raise RefusedError(401, "a token is needed: send the header Authorization: Bearer TOKEN")


def _has_pass(scope: Scope, token: str) -> bool:
    path, query = scope.get("raw_path", b""), scope.get("query_string", b"")
    return scope["method"] == "GET" and has_pass(path.decode("latin-1"), query.decode("latin-1"), token)


def _has_token(headers: dict[bytes, list[bytes]], token: str) -> bool:
    scheme, _, given = headers.get(b"authorization", [b""])[0].partition(b" ")
    return scheme.lower() == b"bearer" and hmac.compare_digest(given.strip(), token.encode())


def refusal(status: int, message: str, number: str, retry_after: int | None = None) -> JSONResponse:
    """Return the answer to a refused request."""
    headers: dict[str, Any] = {} if retry_after is None else {"retry-after": str(retry_after)}
    headers |= {"www-authenticate": "Bearer"} if status == 401 else {}
    content = Refused(error=Failure(status=status, message=message, request_id=number)).model_dump(mode="json")
    return JSONResponse(content, status, headers)
