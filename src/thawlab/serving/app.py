"""The application: pages, routes and what guards them, put together."""

from __future__ import annotations

from contextlib import asynccontextmanager
from importlib.metadata import version
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.exceptions import HTTPException
from starlette.middleware.cors import CORSMiddleware

from thawlab.serving.answers import Health, refusals
from thawlab.serving.decoding import Decoders
from thawlab.serving.guard import Guard, refusal
from thawlab.serving.predicting import Desk, prediction_routes
from thawlab.serving.refusals import RefusedError, busy

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Sequence

    from fastapi import APIRouter
    from starlette.types import ASGIApp

    from thawlab.serving.settings import Access, Limits
    from thawlab.serving.shelf import Shelf

_KINDS = {".html": "text/html; charset=utf-8", ".css": "text/css; charset=utf-8", ".js": "text/javascript; charset=utf-8"}
_OPEN = frozenset({"/healthz", "/readyz"})


def make_app(
    shelf: Shelf,
    access: Access,
    limits: Limits,
    pages: dict[str, str],
    ask_all: bool,
    more: Sequence[Callable[[Desk], APIRouter]] = (),
) -> ASGIApp:
    """Return the application.

    Args:
        shelf: the models.
        access: who may ask.
        limits: what is refused.
        pages: files of `page/` by the path that they are served at.
        ask_all: as `prediction_routes` takes it; all models are then opened at the start.
        more: further routes.
    """
    decoders = Decoders(limits)
    desk = Desk(shelf, decoders, limits)
    shelf.observed.watch(lambda: shelf.waiting, lambda: desk.budget.taken)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        await decoders.start()
        if ask_all:
            for name in shelf.names:
                await shelf.get(name)
        yield
        decoders.stop()
        shelf.compute.shutdown(wait=False, cancel_futures=True)

    app = FastAPI(
        title="thawlab",
        version=version("thawlab"),
        summary="Predictions of image classifiers.",
        docs_url=None,  # both pages load scripts from elsewhere
        redoc_url=None,
        lifespan=lifespan,
    )
    app.include_router(prediction_routes(desk, ask_all))
    for routes in more:
        app.include_router(routes(desk))
    _add_health(app, desk)
    _add_pages(app, pages)
    _add_failures(app)
    guarded: ASGIApp = Guard(app, access, _OPEN | frozenset(pages), shelf.observed)
    if access.origins:
        headers = ["authorization", "content-type", "x-request-id"]
        guarded = CORSMiddleware(guarded, sorted(access.origins), allow_methods=["GET", "POST"], allow_headers=headers)
    return guarded


def _add_health(app: FastAPI, desk: Desk) -> None:
    @app.get("/healthz", tags=["health"], summary="Whether the process answers")
    async def healthz() -> Health:
        return Health(status="ok")

    @app.get("/readyz", tags=["health"], summary="Whether pictures are taken just now", responses=refusals(503))
    async def readyz() -> Health:
        if desk.shelf.waiting >= desk.limits.waiting:
            raise busy("no more pictures are taken just now")
        return Health(status="ok")

    @app.get("/metrics", tags=["health"], summary="Figures for Prometheus", response_class=Response, responses=refusals(401))
    async def metrics() -> Response:
        return Response(desk.shelf.observed.text(), media_type="text/plain; version=0.0.4; charset=utf-8")


def _add_pages(app: FastAPI, pages: dict[str, str]) -> None:
    """Serve some files of the package; no path of a request reaches the file system."""
    templates = Environment(
        loader=PackageLoader("thawlab.serving", "page"), autoescape=True, undefined=StrictUndefined, trim_blocks=True
    )
    for path, name in pages.items():
        file = files("thawlab.serving").joinpath("page", name)
        content = templates.get_template(name).render() if name.endswith(".html") else file.read_text(encoding="utf-8")
        kind = _KINDS[name[name.rindex(".") :]]

        def page(content: str = content, kind: str = kind) -> Response:
            return Response(content, media_type=kind)

        app.add_api_route(path, page, methods=["GET"], include_in_schema=False)


def _add_failures(app: FastAPI) -> None:
    """Give every failure the same form."""

    def number(request: Request) -> str:
        return str(request.state.request_id)

    async def refused(request: Request, error: Any) -> Response:
        return refusal(error.status, error.message, number(request), error.retry_after)

    async def invalid(request: Request, error: Any) -> Response:
        first = error.errors()[0]
        place = ".".join(map(str, first["loc"][1:])) or "request"
        return refusal(422, f"{place}: {first['msg'].lower()}", number(request))

    async def missing(request: Request, error: Any) -> Response:
        said = {404: "there is no such page", 405: "this method is not allowed here"}
        response = refusal(error.status_code, said.get(error.status_code, str(error.detail)), number(request))
        response.headers.update(error.headers or {})
        return response

    async def failed(request: Request, _: Exception) -> Response:
        return refusal(500, "the server failed; its log says why", number(request))

    app.add_exception_handler(RefusedError, refused)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(HTTPException, missing)
    app.add_exception_handler(Exception, failed)
