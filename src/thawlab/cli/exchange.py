"""Verbs that take classifiers along: export them, import those of others."""

from pathlib import Path
from typing import Annotated

import typer

from thawlab.cli import console
from thawlab.errors import UsageError

exchange_app = typer.Typer()


@exchange_app.command(epilog="Example: thawlab export runs/photos-0123456789ab --format onnx --format onnx-int8")
def export(
    run: console.RunArgument,
    form: Annotated[
        list[str] | None,
        typer.Option("--format", help="onnx, onnx-float16, onnx-int8, bfloat16, torch, timm or keras; repeat it for several."),
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The folder to write; exports/FORMAT in the run's folder if omitted.")] = None,
    max_loss: Annotated[float, typer.Option(min=0.0, max=100.0, help="Points of accuracy that rounding may cost.")] = 1.0,
    force: console.ForceOption = False,
    data: Annotated[
        str | None,
        typer.Option(help="Check it on these images instead of those that the run held out: a data set's name or a path."),
    ] = None,
    data_dir: console.DataDirOption = None,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Export a classifier with its preprocessing and thresholds; a file that disagrees with `predict` does not stay."""
    from thawlab import api

    formats = [name.strip() for text in form or ["onnx"] for name in text.split(",") if name.strip()]
    done = api.export(run, formats, out=out, max_loss=max_loss, force=force, source=data, runs=runs, data_dir=data_dir)
    if as_json:
        console.print_json({"exports": [{"folder": str(one.folder), "bytes": one.size, **one.parity} for one in done]})
        return
    columns = ["format", "size", "images/s", "pictures", "same class", "largest difference", "accuracy"]
    rows = []
    for one in done:
        parity, accuracy = one.parity, one.parity["accuracy"]
        beside = f"{api.percent(accuracy['exported'])} beside {api.percent(accuracy['original'])}" if accuracy else ""
        measured = [f"{parity['images_per_second']:.0f}", f"{parity['n']:,}", api.percent(parity["agreement"])]
        rows.append([one.format, f"{one.size / 1e6:.1f} MB", *measured, f"{parity['largest']:.1g}", beside])
    console.print_table("", columns, rows)
    for one in done:
        print(f"{one.format}: {one.folder}")


@exchange_app.command("import", epilog="Example: thawlab import resnet50_model.h5 --classes photos/ --scaling caffe")
def import_model(
    file: Annotated[Path, typer.Argument(help="A classifier that Keras saved: .keras, or .h5 of Keras 2 or 3.")],
    classes: Annotated[
        str | None,
        typer.Option(
            help="Names in the order of the outputs: with commas between them, a text file with one a line, or the folder of a "
            "sub-folder per class that it was trained on. Numbers if omitted."
        ),
    ] = None,
    scaling: Annotated[
        str | None,
        typer.Option(
            help="Of its inputs, where the file does not say it: unit (0 to 1), symmetric (-1 to 1), raw, caffe or torch."
        ),
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, help="Side of its input in pixels, where the file leaves it open.")] = None,
    name: Annotated[str | None, typer.Option(help="Of the run; the file's if omitted.")] = None,
    runs: console.RunsOption = Path("runs"),
    as_json: console.JsonOption = False,
) -> None:
    """Turn a classifier of Keras into a run that predicts, is evaluated and exported; nothing in the file is executed."""
    from thawlab import api

    names = None if classes is None else _names(classes)
    opened = api.import_model(file, name=name, classes=names, size=size, scaling=scaling, runs=runs)
    source = opened.imported
    if as_json:
        console.print_json({"run": str(opened.path), **source})
        return
    print(f"{file}: {len(opened.predictor.classes):,} classes at {source['size']} px, inputs {source['scaling']}")
    print(f"run:    {opened.path}")


def _names(text: str) -> list[str]:
    """Return class names from a list, a file or a folder; Keras numbers folders in the order of their names."""
    from thawlab.files import user_path

    path = user_path(text)
    if path.is_dir():
        return sorted(entry.name for entry in path.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if path.is_file():
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except (OSError, UnicodeDecodeError) as error:
            raise UsageError(f"--classes {text}: cannot be read as text: {error}") from None
        return [line.strip() for line in lines if line.strip()]
    return [part.strip() for part in text.split(",") if part.strip()]
