"""What the verbs of the command line share: options that mean the same everywhere, and how results are printed."""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

RunArgument = Annotated[str, typer.Argument(help="A run, by its folder's name or path.")]
RunsOption = Annotated[Path, typer.Option("--runs", help="The folder of all runs.")]
EngineOption = Annotated[
    str | None, typer.Option("--engine", help="Compute with an export of the run: onnx, onnx-float16, onnx-int8, bfloat16.")
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print one JSON document on standard output, and nothing else there.")]
ForceOption = Annotated[bool, typer.Option("--force", help="Let what is written replace files that exist.")]
DataDirOption = Annotated[
    str | None, typer.Option("--data-dir", help="A local copy of the named data set; downloads go there too.")
]
CacheDirOption = Annotated[str | None, typer.Option("--cache-dir", help="Where decoded images and features are kept.")]


def print_json(value: Any) -> None:
    """Print a value as one JSON document; characters that the stream cannot encode are escaped."""
    unicode = (sys.stdout.encoding or "utf-8").lower().replace("-", "") == "utf8"
    print(json.dumps(value, ensure_ascii=not unicode, indent=2))


def print_table(title: str, columns: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a table; columns that hold numbers are aligned to the right."""
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    if title:
        print(title)
    table = Table()
    for index, column in enumerate(columns):
        numeric = all(row[index][:1] in "+-0123456789" for row in rows)
        table.add_column(column, justify="right" if numeric else "left", overflow="fold")
    for row in rows:
        table.add_row(*map(escape, row))
    # Away from a terminal nobody wraps lines; a narrow guess would cut paths into pieces.
    Console(width=None if sys.stdout.isatty() else 160).print(table)
