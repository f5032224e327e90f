"""The verb `thawlab predict`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thawlab.cli.console import JsonOption, RunArgument, RunsOption, print_json, print_table
from thawlab.errors import ThawlabError

if TYPE_CHECKING:
    from thawlab.deploy.predictor import Prediction

predict_app = typer.Typer()


@predict_app.command(epilog="Example: thawlab predict runs/photos-0123456789ab holiday/ --top-k 3")
def predict(
    run: RunArgument,
    images: Annotated[list[str], typer.Argument(help="Files, and folders of images.")],
    top_k: Annotated[int, typer.Option(min=1, help="How many classes to show per image.")] = 3,
    explain: Annotated[
        Path | None, typer.Option(help="Write each image beside what speaks for its class (Grad-CAM) into this folder.")
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Predict the classes of images with calibrated probabilities, through the model's own preprocessing."""
    from thawlab import api

    opened = api.open_run(run, runs)
    results = api.predict(opened, images, top_k, explain=explain)
    if as_json:
        print_json({"run": str(opened.path), "predictions": [result.as_json() for result in results]})
    else:
        print_table("", ["image", "classes", ""], [_row(result) for result in results])
    failed = sum(result.error is not None for result in results)
    if failed == len(results):
        raise ThawlabError(f"none of the {failed} images could be read")


def _row(result: Prediction) -> list[str]:
    pairs = zip(result.classes, result.probabilities, strict=True)
    shown = result.error or ", ".join(f"{name} {100 * p:.1f} %" for name, p in pairs)
    return [result.source, shown, "not like anything in training" if result.novel else "unsure" if result.unsure else ""]
