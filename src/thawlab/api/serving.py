"""Classifiers and runs on pages: what `thawlab serve` and `thawlab studio` show."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from thawlab.api.arguments import folder_of
from thawlab.api.prediction import load
from thawlab.errors import UsageError
from thawlab.files import user_path
from thawlab.opened import Run
from thawlab.registry import optional
from thawlab.run import RunFolder

if TYPE_CHECKING:
    from thawlab.serving.shelf import Served


def serve(
    models: Sequence[Run | str | Path],
    runs: str | Path = "runs",
    *,
    host: str = "127.0.0.1",
    port: int = 8000,
    token_file: str | Path | None = None,
    no_token: bool = False,
    allow_hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    device: str = "auto",
    engine: str | None = None,
    started: Callable[[str], None] = print,
) -> None:
    """Serve classifiers until the process is told to stop: a page to drop pictures on, and a JSON API under `/v1`.

    Args:
        models: runs, by value, name or path; the first is the default.
        runs: the folder of all runs.
        host: to listen to; beyond this machine, it needs a token.
        port: to listen at; 0 for any free one.
        token_file: with the secret that clients must send.
        no_token: let everybody in who reaches it.
        allow_hosts: names that it may be asked by, beside `localhost` and numbers.
        origins: of other sites' pages that may ask (CORS).
        device: where it computes: "cpu", "cuda", or "auto" for a GPU if there is one.
        engine: an export of the runs, which computes in their place.
        started: is called with the page's address.

    Raises:
        UsageError: if there is no such run, or everybody would be let in unsaid.
        ThawlabError: if a model is damaged, or the address cannot be taken.
    """
    optional("fastapi", "serve", "thawlab serve")
    from thawlab.serving.serve import serve as answer
    from thawlab.serving.settings import Limits, read_access
    from thawlab.serving.shelf import served

    access = read_access(host, token_file, no_token, allow_hosts, origins)
    folders = list({folder.path.resolve(): folder for folder in (folder_of(model, runs) for model in models)}.values())
    if len({folder.name for folder in folders}) < len(folders):
        raise UsageError("two of these runs have the same name; serve one of them, or rename a folder")
    shown = [served(folder, load(Run(folder), device=device, engine=engine), engine) for folder in folders]
    answer(shown, host, port, access, Limits(), started)


def studio(
    runs: str | Path = "runs",
    *,
    host: str = "127.0.0.1",
    port: int = 8001,
    token_file: str | Path | None = None,
    no_token: bool = False,
    allow_hosts: Sequence[str] = (),
    origins: Sequence[str] = (),
    device: str = "auto",
    started: Callable[[str], None] = print,
) -> None:
    """Show all runs of a folder on pages until the process is told to stop: curves, reports, comparisons, label corrections.

    It trains and deletes nothing; what people decide on labels is written into a table beside the data.

    Args:
        runs: the folder of all runs.
        host: to listen to; beyond this machine, it needs a token.
        port: to listen at; 0 for any free one.
        token_file: with the secret that clients must send.
        no_token: let everybody in who reaches it.
        allow_hosts: names that it may be asked by, beside `localhost` and numbers.
        origins: of other sites' pages that may ask (CORS).
        device: where models compute: "cpu", "cuda", or "auto" for a GPU if there is one.
        started: is called with the page's address.

    Raises:
        UsageError: if there is no such folder, or everybody would be let in unsaid.
        ThawlabError: if the address cannot be taken.
    """
    optional("fastapi", "serve", "thawlab studio")
    from thawlab.serving.settings import Limits, read_access
    from thawlab.serving.shelf import served
    from thawlab.serving.studio import studio as show

    access = read_access(host, token_file, no_token, allow_hosts, origins)
    if device not in {"auto", "cpu"}:  # said now, and not when somebody first asks for a model
        from thawlab.environment import choose_device

        choose_device(device)

    def opened(folder: RunFolder, name: str) -> Served:
        return served(folder, load(Run(folder), device=device), None, name)

    show(user_path(runs), opened, host, port, access, Limits(), started)
