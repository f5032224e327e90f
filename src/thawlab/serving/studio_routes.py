"""The routes of the studio: the table of runs, what each run holds, comparisons, and corrections by people."""

import asyncio
import contextlib
import gzip
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Annotated, Any, TypeVar, final

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import ValidationError

from thawlab.errors import BusyError, ThawlabError, nearest
from thawlab.results import EpochRow
from thawlab.run import RunFolder
from thawlab.serving import correcting, kept_pages, suspects
from thawlab.serving.answers import refusals
from thawlab.serving.events import Streams, Tail, Watching
from thawlab.serving.passes import with_pass
from thawlab.serving.predicting import Desk
from thawlab.serving.refusals import RefusedError, busy
from thawlab.serving.runs_table import Rows, Table, run_names
from thawlab.values import Value

V = TypeVar("V")
_MOST_COMPARED = 12
_MOST_BODY = 16_384
_MOST_WAITING = 64
_REFUSED = refusals(401, 403, 404, 421, 422, 503)
_HTML = {"content": {"text/html": {"schema": {"type": "string"}}}}
_BODY = {"required": True, "content": {"application/json": {"schema": correcting.Decided.model_json_schema()}}}


class Epochs(Value):
    """The epochs of a run so far."""

    rows: list[EpochRow]
    problem: Annotated[str, Query(description="What is wrong with a row; empty where nothing is.")] = ""


class Samples(Value):
    """Pictures of a run's training data."""

    samples: list[suspects.Sample]


class Passed(Value):
    """An address that a browser can follow without a token."""

    address: str


@final
class Reading:
    """Reads folders beside the event loop: few at once, in a bounded queue, so that predictions do not wait for it.

    Args:
        runs: the folder of all runs.
        streams: of events.
        token: that clients send; None where they need none.
    """

    def __init__(self, runs: Path, streams: Streams, token: str | None) -> None:
        self.runs, self.streams, self.token, self.table = runs, streams, token, Table(runs)
        self._waiting = 0
        self._threads = ThreadPoolExecutor(2, thread_name_prefix="reading")
        self._pages = ThreadPoolExecutor(1, thread_name_prefix="pages")  # matplotlib draws in one thread at a time

    async def do(self, work: Callable[[], V], page: bool = False) -> V:
        """Return what some work on folders gives.

        Raises:
            RefusedError: 503 if too much is asked for, 422 with the reason if a folder does not give it.
        """
        if self._waiting >= _MOST_WAITING:
            raise busy("too many pages are being read")
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pages if page else self._threads, work)
        except BusyError as error:
            raise busy(str(error)) from None
        except ThawlabError as error:
            raise RefusedError(422, str(error)) from None
        finally:
            self._waiting -= 1

    async def folder(self, name: str) -> RunFolder:
        """Return the run of a name that the folder lists; what a request says is never part of a path before that.

        Raises:
            RefusedError: 404 if there is no such run.
        """
        known = await self.do(lambda: run_names(self.runs))
        if name not in known:
            raise RefusedError(404, f"there is no run '{name[:100]}'{nearest(name[:100], known)}; /api/runs lists them")
        return RunFolder(self.runs / known[known.index(name)])


def studio_routes(runs: Path, streams: Streams, token: str | None) -> Callable[[Desk], APIRouter]:
    """Return what makes the routes of the studio, as `make_app` takes it."""
    reading = Reading(runs, streams, token)

    def routes(_: Desk) -> APIRouter:
        router = APIRouter(tags=["runs"])
        _add_table(router, reading)
        _add_run(router, reading)
        _add_pages(router, reading)
        _add_corrections(router, reading)
        return router

    return routes


def _add_table(router: APIRouter, reading: Reading) -> None:
    @router.get("/api/runs", summary="All runs, or those that changed", response_model=Rows, responses=refusals(401, 403, 503))
    async def all_runs(
        request: Request, since: Annotated[str, Query(max_length=64, description="A version that was given out before.")] = ""
    ) -> Response:
        content = await reading.do(lambda: reading.table.look(since).model_dump_json(by_alias=True).encode())
        packs = len(content) > _MOST_BODY and "gzip" in request.headers.get("accept-encoding", "")
        headers = {"content-encoding": "gzip"} if packs else {}
        packed = await reading.do(lambda: gzip.compress(content, 1)) if packs else content
        return Response(packed, media_type="application/json", headers=headers)


def _add_run(router: APIRouter, reading: Reading) -> None:
    chosen = Depends(reading.folder)

    @router.get("/api/runs/{name:path}/metrics", summary="The epochs of a run so far", responses=_REFUSED)
    async def metrics(run: Annotated[RunFolder, chosen]) -> Epochs:
        found = await reading.do(lambda: Tail(run.metrics).read())
        return Epochs(rows=found.rows, problem=found.problem)

    @router.get("/api/runs/{name:path}/events", summary="The epochs as they come, until the run is over", responses=_REFUSED)
    async def events(name: str, run: Annotated[RunFolder, chosen]) -> Response:
        return Watching(reading.streams, run, name)

    @router.get("/api/runs/{name:path}/samples", summary="Some pictures of its training data", responses=_REFUSED)
    async def samples(run: Annotated[RunFolder, chosen]) -> Samples:
        return Samples(samples=await reading.do(lambda: suspects.samples_of(run)))


def _add_pages(router: APIRouter, reading: Reading) -> None:
    chosen = Depends(reading.folder)
    answers = {**_REFUSED, 200: {**_HTML, "description": "A page that may not reach this server."}}

    def page(content: bytes | str) -> Response:
        policy = {"content-security-policy": kept_pages.page_policy()}
        return Response(content, media_type="text/html; charset=utf-8", headers=policy)

    @router.get("/runs/{name:path}/report", summary="The report of a run", response_class=Response, responses=answers)
    async def report(run: Annotated[RunFolder, chosen]) -> Response:
        return page(await reading.do(lambda: kept_pages.report_of(run), page=True))

    @router.get("/compare", summary="Compare finished runs", response_class=Response, responses=answers)
    async def compare(
        run: Annotated[list[str], Query(min_length=2, max_length=_MOST_COMPARED, description="Their names; 2 to 12.")],
    ) -> Response:
        folders = [await reading.folder(name) for name in run]
        return page(await reading.do(lambda: kept_pages.comparison_of(folders), page=True))

    @router.get("/api/pass", summary="An address to follow without the token", responses=refusals(401, 403, 422))
    async def passed(to: Annotated[str, Query(max_length=4096, pattern=r"^/(runs/|compare\?)[!-~]*$")]) -> Passed:
        return Passed(address=to if reading.token is None else with_pass(to, reading.token))


def _add_corrections(router: APIRouter, reading: Reading) -> None:
    chosen = Depends(reading.folder)

    @router.get("/api/runs/{name:path}/suspects", summary="Suspected labels and mistakes", responses=_REFUSED)
    async def to_look_at(
        run: Annotated[RunFolder, chosen], limit: Annotated[int, Query(ge=1, le=1000)] = 200
    ) -> suspects.Suspects:
        classes, found = await reading.do(lambda: suspects.suspects_of(run))
        return suspects.Suspects(classes=list(classes), count=len(found), suspects=list(found[:limit]))

    image: dict[int | str, dict[str, Any]] = {
        200: {"content": {"image/png": {}, "image/jpeg": {}}, "description": "At most 512 pixels a side."}
    }

    @router.get("/api/runs/{name:path}/image", summary="One of them", response_class=Response, responses={**_REFUSED, **image})
    async def picture(run: Annotated[RunFolder, chosen], id: Annotated[str, Query(min_length=1, max_length=4096)]) -> Response:
        content, kind = await reading.do(lambda: suspects.picture_of(run, id))
        return Response(content, media_type=kind)

    @router.get("/api/runs/{name:path}/corrections", summary="What was decided so far", responses=_REFUSED)
    async def decided(run: Annotated[RunFolder, chosen]) -> correcting.Corrections:
        return await reading.do(lambda: correcting.corrections_of(run, reading.runs))

    @router.post(
        "/api/runs/{name:path}/corrections",
        summary="Decide on an image",
        responses={**_REFUSED, **refusals(413, 415)},
        openapi_extra={"requestBody": _BODY},
    )
    async def decide(run: Annotated[RunFolder, chosen], request: Request) -> correcting.Corrections:
        decision = await _json_of(request)
        await reading.do(lambda: correcting.correct(run, reading.runs, decision))
        return await reading.do(lambda: correcting.corrections_of(run, reading.runs))


async def _json_of(request: Request) -> correcting.Decided:
    """Return the decision that a request brings; forms of other sites cannot send this type."""
    if request.headers.get("content-type", "").partition(";")[0].strip().lower() != "application/json":
        raise RefusedError(415, "send the decision as application/json")
    body = b""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(10):
            async for piece in request.stream():
                body += piece
                if len(body) > _MOST_BODY:
                    raise RefusedError(413, "a decision is not that long")
            try:
                return correcting.Decided.model_validate_json(body)
            except ValidationError as error:
                first = error.errors(include_url=False)[0]
                place = ".".join(map(str, first["loc"])) or "body"
                raise RefusedError(422, f"{place}: {first['msg'].lower()}") from None
    raise RefusedError(408, "the body came too slowly")
