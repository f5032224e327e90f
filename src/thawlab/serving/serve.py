"""`thawlab serve`: a page and an API for given classifiers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from thawlab.serving import server
from thawlab.serving.app import make_app
from thawlab.serving.settings import Access, Limits
from thawlab.serving.shelf import Served, Shelf

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_FILES = ("base.css", "serve.css", "serve.js", "session.js", "pictures.js")
PAGES = {"/": "index.html", **{f"/{name}": name for name in _FILES}}


def serve(models: Sequence[Served], host: str, port: int, access: Access, limits: Limits, started: Callable[[str], None]) -> None:
    """Answer for pictures until the process is told to stop.

    Args:
        models: by unlike names; the first is the default.
        host: to listen to.
        port: to listen at; 0 for any free one.
        access: who may ask.
        limits: what is refused.
        started: is called with the page's address once it can be asked for.

    Raises:
        ThawlabError: if the address cannot be taken.
    """
    by_name = {model.name: model for model in models}
    shelf = Shelf(lambda: list(by_name), by_name.__getitem__, keep=len(by_name), waiting=limits.waiting)
    server.run(make_app(shelf, access, limits, PAGES, ask_all=True), host, port, limits, started)
