"""The verb that compares backbones before anything is fine-tuned: `thawlab probe`."""

from pathlib import Path
from typing import Annotated

import typer

from thawlab.cli import console

probe_app = typer.Typer()


@probe_app.command(epilog="Example: thawlab probe photos/ --backbones bundled,resnet18 --sizes 64,96 --page probe.html")
def probe(
    source: Annotated[str, typer.Argument(help="A data set's name or a path.")],
    backbones: Annotated[str, typer.Option(help="Pretrained backbones, with commas between them.")],
    sizes: Annotated[str | None, typer.Option(help="Input sizes in pixels, e.g. 64,96; the weights' own if omitted.")] = None,
    seeds: Annotated[int, typer.Option(help="How many times a few images of each class are drawn.")] = 3,
    shots: Annotated[str, typer.Option(help="Images a class.")] = "1,5,10,all",
    train_size: Annotated[int | None, typer.Option(min=2, help="How many labelled images to use.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with figures (.html).")] = None,
    force: console.ForceOption = False,
    data_dir: console.DataDirOption = None,
    cache_dir: console.CacheDirOption = None,
    as_json: console.JsonOption = False,
) -> None:
    """Find out in minutes which backbone suits some images: many heads on frozen features, nothing fine-tuned."""
    from thawlab import api

    found = api.probe(
        source,
        _parts(backbones),
        sizes=None if sizes is None else _parts(sizes),
        seeds=seeds,
        shots=_parts(shots),
        train_size=train_size,
        page=page,
        force=force,
        data_dir=data_dir,
        cache_dir=cache_dir,
    )
    if as_json:
        console.print_json({**found.as_json(), **({} if page is None else {"page": str(page)})})
        return
    counts = ", ".join(f"{split} {count:,}" for split, count in found.n.items())
    console.print_table(f"{found.name}: {len(found.classes)} classes ({counts})", found.columns, found.rows())
    print(f"The head is the best of {len({row.head for row in found.heads})} by val; --page and --json show all.")
    print(found.verdict.text)
    for line in found.notes:
        print(f"note: {line}")
    if page is not None:
        print(f"page: {page}")


def _parts(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]
