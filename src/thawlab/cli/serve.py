"""Verbs that show classifiers and runs on a page."""

from pathlib import Path
from typing import Annotated

import typer

from thawlab.cli import console

serve_app = typer.Typer()

_HostOption = Annotated[str, typer.Option(help="The address to listen to; beyond this machine it takes a token.")]
_PortOption = Annotated[int, typer.Option(min=0, max=65535, help="The port to listen at; 0 takes any free one.")]
_TokenOption = Annotated[Path | None, typer.Option("--token-file", help="A file with the secret that clients must send.")]
_NoTokenOption = Annotated[bool, typer.Option("--no-token", help="Let everybody in who reaches it.")]
_AllowOption = Annotated[list[str] | None, typer.Option("--allow-host", help="A name that it may be asked by; repeat it.")]
_DeviceOption = Annotated[str, typer.Option(help="cpu, cuda, or auto for a GPU if there is one.")]
_CorsOption = Annotated[
    list[str] | None, typer.Option("--cors", help="An origin whose pages may ask, such as https://example.org; repeat it.")
]


@serve_app.command(epilog="Example: thawlab serve runs/photos-0123456789ab")
def serve(
    run: Annotated[list[str], typer.Argument(help="Runs, by their folders' names or paths; two show each picture on both.")],
    host: _HostOption = "127.0.0.1",
    port: _PortOption = 8000,
    token_file: _TokenOption = None,
    no_token: _NoTokenOption = False,
    allow_host: _AllowOption = None,
    cors: _CorsOption = None,
    device: _DeviceOption = "auto",
    engine: console.EngineOption = None,
    runs: console.RunsOption = Path("runs"),
) -> None:
    """Serve classifiers: a page to drop pictures on, and a JSON API under /v1."""
    from thawlab import api

    api.serve(
        run,
        runs,
        host=host,
        port=port,
        token_file=token_file,
        no_token=no_token,
        allow_hosts=allow_host or (),
        origins=cors or (),
        device=device,
        engine=engine,
        started=lambda address: print(f"serving {', '.join(run)} on {address} (stop with Ctrl-C)", flush=True),
    )


@serve_app.command(epilog="Example: thawlab studio --runs runs/")
def studio(
    runs: console.RunsOption = Path("runs"),
    host: _HostOption = "127.0.0.1",
    port: _PortOption = 8001,
    token_file: _TokenOption = None,
    no_token: _NoTokenOption = False,
    allow_host: _AllowOption = None,
    cors: _CorsOption = None,
    device: _DeviceOption = "auto",
) -> None:
    """Show all runs on pages: live curves, reports, comparisons, and label corrections; it trains and deletes nothing."""
    from thawlab import api

    api.studio(
        runs,
        host=host,
        port=port,
        token_file=token_file,
        no_token=no_token,
        allow_hosts=allow_host or (),
        origins=cors or (),
        device=device,
        started=lambda address: print(f"showing {runs} on {address} (stop with Ctrl-C)", flush=True),
    )
