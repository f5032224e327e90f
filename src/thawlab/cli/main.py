"""The command line: one thin function per verb. Heavy imports wait until a verb runs, so that help is immediate."""

import os
import sys
from typing import Annotated, Any

import typer
from typer.core import TyperGroup

from thawlab import process
from thawlab.cli.data import data_app, lists_app
from thawlab.cli.exchange import exchange_app
from thawlab.cli.judge import judge_app
from thawlab.cli.probe import probe_app
from thawlab.cli.serve import serve_app
from thawlab.cli.study import study_app
from thawlab.cli.train import train_app
from thawlab.errors import Interrupted, ThawlabError, UsageError


class Verbs(TyperGroup):
    """The verbs; an error meant for the user becomes one line, before typer prints it its own way."""

    def invoke(self, ctx: Any) -> Any:
        """Run a verb."""
        try:
            return super().invoke(ctx)
        except (ThawlabError, Interrupted) as error:
            if (rank := process.rank()) == 0:
                print(f"thawlab: {error}", file=sys.stderr)
            elif not isinstance(error, UsageError):  # which process 0 finds as well
                print(f"thawlab, process {rank}: {error}", file=sys.stderr)
            sys.exit(error.exit_code)
        except KeyboardInterrupt:
            sys.exit(130)
        except BrokenPipeError:
            # The reader of our output has left (`thawlab … | head`); nothing more can be said to it.
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            sys.exit(1)


app = typer.Typer(
    cls=Verbs,
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
    help="Image classification by transfer learning: from images to a trained, judged and explained classifier.\n\n"
    "Start with `thawlab demo`, then `thawlab train PHOTOS/` on a folder with a sub-folder per class.",
)
for family in (train_app, study_app, judge_app, exchange_app, probe_app, serve_app, lists_app):
    app.add_typer(family)
app.add_typer(data_app, name="data")


def _show_version(wanted: bool) -> None:
    if wanted:
        from thawlab import __version__

        print(f"thawlab {__version__}")
        raise typer.Exit


_Version = Annotated[bool, typer.Option("--version", help="Print the version and leave.", callback=_show_version, is_eager=True)]


@app.callback()
def _program(version: _Version = False) -> None: ...
