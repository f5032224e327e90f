"""The verb that trains: `thawlab train`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thawlab import process
from thawlab.cli.console import CacheDirOption, DataDirOption, JsonOption, RunsOption, print_json, print_table
from thawlab.errors import UsageError

train_app = typer.Typer()


@train_app.command(epilog="Example: thawlab train photos/ --backbone resnet50 --size 224 phases.1.lr=5e-5")
def train(
    target: Annotated[
        str,
        typer.Argument(
            metavar="RECIPE|IMAGES", help="A recipe (.toml), a data set's name, or a path: folder, zip, tar, Parquet folder, CSV."
        ),
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings by dotted key, e.g. data.train_size=10000.")
    ] = None,
    backbone: Annotated[
        str | None,
        typer.Option(help="model.backbone: timm/NAME.TAG, bundled, cnn5, local-dir:FOLDER, keras:FILE, … (`thawlab models`)."),
    ] = None,
    size: Annotated[int | None, typer.Option(help="data.image_size: side of the input in pixels.")] = None,
    train_size: Annotated[int | None, typer.Option(help="data.train_size: use this many training images only.")] = None,
    seed: Annotated[int | None, typer.Option(help="The seed of everything random.")] = None,
    name: Annotated[str | None, typer.Option(help="The run's name.")] = None,
    device: Annotated[str | None, typer.Option(help="auto, cpu, cuda or mps.")] = None,
    devices: Annotated[int, typer.Option(min=1, help="Train on this many devices of this machine together.")] = 1,
    lr_find: Annotated[bool, typer.Option("--lr-find", help="Only find a learning rate for the first phase.")] = False,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Train a classifier, judge it on the test split and write its report.

    The same recipe is the same run: unfinished, it resumes where it stopped; finished, its results are shown.
    """
    options = locals()
    from thawlab import api
    from thawlab.recipe_text import SHORT, parse_overrides

    if "=" in target and not Path(target).exists():
        raise UsageError(f"'{target}' is an override; name the recipe or the images first: thawlab train RECIPE.toml {target}")
    settings = {key: options[key] for key in (*SHORT, "seed", "name") if options[key] is not None}
    settings |= parse_overrides(overrides or [])
    if lr_find:
        if devices != 1:
            raise UsageError("--devices: has no effect on --lr-find; leave it out")
        found = api.find_lr(target, **settings)
        if as_json:
            print_json(found.as_json())
            return
        rows = [[f"{rate:.2e}", f"{loss:.4f}"] for rate, loss in zip(found.rates[::5], found.losses[::5], strict=True)]
        print_table("", ["lr", "smoothed loss"], rows)
        print(f"suggestion for the first phase: lr = {found.suggestion:.2e}")
        return
    run = api.train(target, runs=runs, devices=devices, report=True, **settings)
    if process.rank():
        return  # process 0 says it
    results = run.results
    if as_json:
        print_json({"run": str(run.path), **results.as_json()})
        return
    for finding in results.diagnoses:
        print(f"{finding.severity}: {finding.evidence}; {finding.advice}")
    interval = " to ".join(map(api.percent, results.test.accuracy_ci95))
    print(
        f"test accuracy {api.percent(results.test.accuracy)} (95 % interval {interval}, n = {results.test.n:,}), "
        f"train − test {100 * results.gap:+.2f} points"
        if results.test.n
        else f"not tested: there are no test images; training accuracy {api.percent(results.train.accuracy)}"
    )
    print(f"report: {run.folder.report}")
    print(f"run:    {run.path}")
