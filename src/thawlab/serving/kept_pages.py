"""Pages that runs hold or that are made of them, served so that what another person put into a folder can do nothing."""

from __future__ import annotations

import base64
import hashlib
from functools import cache
from typing import TYPE_CHECKING

from thawlab.comparison.comparison import compare_runs
from thawlab.errors import ThawlabError
from thawlab.report.comparison_page import comparison_html
from thawlab.report.page import report_html, scripts_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from thawlab.run import RunFolder

_MOST_BYTES = 64_000_000
_PAGES = ("page.html", "comparison.html")


@cache
def page_policy() -> str:
    """Return the Content-Security-Policy of a page of thawlab's: its own scripts may run, in a world without this server.

    Scripts are known by the digests of those in the package's templates; the page itself has no say in it.
    """
    digests = [hashlib.sha256(script.encode()).digest() for name in _PAGES for script in scripts_of(name)]
    sources = " ".join(f"'sha256-{base64.b64encode(digest).decode()}'" for digest in digests)
    return (
        f"sandbox allow-scripts; default-src 'none'; script-src {sources}; style-src 'unsafe-inline'; img-src data:; "
        "base-uri 'none'; form-action 'none'; frame-ancestors 'none'"
    )


def report_of(folder: RunFolder) -> bytes:
    """Return the report of a run, made anew where none was written.

    Raises:
        ThawlabError: if the run has not finished, or the report is too large for a page.
    """
    if folder.report.is_symlink() or (folder.report.exists() and not folder.report.is_file()):
        raise ThawlabError(f"{folder.report}: is no file of its own, so that it is not shown")
    try:
        with folder.report.open("rb") as file:
            content = file.read(_MOST_BYTES + 1)
    except FileNotFoundError:
        if not folder.results.is_file():
            raise ThawlabError(f"{folder.name}: has not finished; there is a report once it has") from None
        return report_html(folder).encode()
    except OSError as error:
        raise ThawlabError(f"{folder.report}: cannot be read: {error.strerror}") from None
    if len(content) > _MOST_BYTES:
        raise ThawlabError(f"{folder.report}: is too large to be shown here; open the file itself")
    return content


def comparison_of(folders: Sequence[RunFolder]) -> str:
    """Return the page that compares some runs; nothing is written.

    Raises:
        ThawlabError: if one of them has not finished, or they cannot be compared.
    """
    for folder in folders:
        if not folder.results.is_file():
            raise ThawlabError(f"{folder.name}: has not finished; only finished runs can be compared")
    return comparison_html(compare_runs(folders))
