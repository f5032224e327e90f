"""The verbs that list what there is: `thawlab models` and `thawlab datasets`."""

from typing import Annotated

import typer

from thawlab.cli.console import JsonOption, print_json, print_table

lists_app = typer.Typer()


@lists_app.command(epilog="Example: thawlab models 'mobilenet*'")
def models(
    pattern: Annotated[
        str | None, typer.Argument(help="List timm's pretrained networks whose names fit, e.g. 'resnet*'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the backbones: the bundled one, small networks from scratch, Keras' names, and timm's."""
    from thawlab import api

    rows = api.list_models(pattern)
    if as_json:
        print_json({"models": rows})
        return
    print_table("", ["backbone", "kind", "what it is"], [[row["name"], row["kind"], row["about"]] for row in rows])
    if pattern is None:
        print("Every timm network can be named as timm/NAME.TAG; `thawlab models 'convnext*'` lists those that fit.")


@lists_app.command(epilog="Example: thawlab datasets")
def datasets(as_json: JsonOption = False) -> None:
    """List the data sets that can be named; every folder, zip, tar, Parquet folder and CSV can be given by its path."""
    from thawlab import api

    rows = api.list_datasets()
    if as_json:
        print_json({"datasets": rows})
        return
    print_table("", ["data set", "what it is"], [[row["name"], row["about"]] for row in rows])
