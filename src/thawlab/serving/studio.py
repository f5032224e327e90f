"""`thawlab studio`: pages that show all runs of a folder, and let people judge labels; it trains and deletes nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thawlab.errors import UsageError
from thawlab.run import RunFolder
from thawlab.serving import server
from thawlab.serving.app import make_app
from thawlab.serving.events import Streams
from thawlab.serving.runs_table import run_names
from thawlab.serving.shelf import Served, Shelf
from thawlab.serving.studio_routes import studio_routes

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from starlette.types import ASGIApp

    from thawlab.serving.settings import Access, Limits

_STYLES = ("base.css", "serve.css", "studio.css")
_SCRIPTS = ["pictures", "session", "studio", "table", "run", "curves", "events", "gallery", "chooser"]
_FILES = (*_STYLES, *(f"{name}.js" for name in _SCRIPTS))
PAGES = {"/": "studio.html", "/run": "run.html", "/correct": "correct.html", **{f"/{name}": name for name in _FILES}}
_KEPT_OPEN = 2  # models


def studio(
    runs: Path,
    opener: Callable[[RunFolder, str], Served],
    host: str,
    port: int,
    access: Access,
    limits: Limits,
    started: Callable[[str], None],
) -> None:
    """Show the runs of a folder until the process is told to stop.

    Args:
        runs: the folder.
        opener: loads the model of a run under a name.
        host: to listen to.
        port: to listen at; 0 for any free one.
        access: who may ask.
        limits: what is refused.
        started: is called with the page's address once it can be asked for.

    Raises:
        ThawlabError: if there is no such folder, or the address cannot be taken.
    """
    if not runs.is_dir():
        raise UsageError(f"--runs {runs}: there is no such folder; train something first, or name another one")
    streams = Streams()
    server.run(studio_app(runs, opener, access, limits, streams), host, port, limits, started, ending=streams.end)


def studio_app(
    runs: Path, opener: Callable[[RunFolder, str], Served], access: Access, limits: Limits, streams: Streams
) -> ASGIApp:
    """Return the application of the studio; what it takes is explained at `studio`."""

    def names() -> list[str]:
        return [name for name in run_names(runs) if (RunFolder(runs / name).model / "model.json").is_file()]

    shelf = Shelf(names, lambda name: opener(RunFolder(runs / name), name), keep=_KEPT_OPEN, waiting=limits.waiting)
    return make_app(shelf, access, limits, PAGES, ask_all=False, more=[studio_routes(runs, streams, access.token)])
