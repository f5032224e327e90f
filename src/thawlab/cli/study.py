"""The verbs that run many recipes to answer one question: `thawlab study`, and `thawlab demo`, which is a study."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from thawlab.cli.console import CacheDirOption, DataDirOption, JsonOption, RunsOption, print_json, print_table
from thawlab.errors import ThawlabError

if TYPE_CHECKING:
    from thawlab.studies.study import Forecast, Outcome

study_app = typer.Typer()


@study_app.command(epilog="Example: thawlab study recipe.toml --vary data.train_size=1000,5000,10000 --seeds 3")
def study(
    target: Annotated[
        str, typer.Argument(metavar="STUDY|RECIPE|IMAGES", help="A study file (.toml), or a recipe or images with --vary.")
    ],
    overrides: Annotated[
        list[str] | None, typer.Argument(metavar="[KEY=VALUE]...", help="Settings of every cell, by dotted key.")
    ] = None,
    vary: Annotated[
        list[str] | None, typer.Option(help="KEY=VALUE,VALUE,…: try each value; with several --vary, each combination.")
    ] = None,
    seeds: Annotated[str | None, typer.Option(help="A number of seeds, or seeds separated by commas.")] = None,
    question: Annotated[str | None, typer.Option(help="What the study is to answer; shown above the answer.")] = None,
    name: Annotated[str | None, typer.Option(help="The study's name, and that of its folder in --runs.")] = None,
    parallel: Annotated[
        int | None, typer.Option(min=1, help="Cells at once; as many as cores and memory allow if omitted.")
    ] = None,
    ray: Annotated[
        str, typer.Option(metavar="ADDRESS|local", help="Run the cells on a Ray cluster: its address, auto, or local.")
    ] = "",
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="List the cells with an estimate of their time; run nothing.")
    ] = False,
    extend: Annotated[bool, typer.Option("--extend", help="Add cells to the study of that name, which is noted.")] = False,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Run every variant with several seeds, and say what makes the difference.

    Finished cells are not run again: after an interruption the same command goes on.
    """
    from thawlab.files import user_path
    from thawlab.recipe_text import parse_overrides
    from thawlab.studies.design import read_design
    from thawlab.studies.study import forecast, run_study

    settings = {key: value for key, value in (("data_dir", data_dir), ("cache_dir", cache_dir)) if value is not None}
    settings |= parse_overrides(overrides or [])
    design = read_design(target, vary=vary or [], seeds=seeds, question=question, name=name, overrides=settings)
    if dry_run:
        planned = forecast(design, user_path(runs), parallel)
        print_json(planned.as_json()) if as_json else _print_forecast(planned)
        return
    _print_outcome(run_study(design, user_path(runs), parallel, extend, ray), as_json)


@study_app.command(epilog="Example: thawlab demo")
def demo(runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Learn ten digits from 100 labelled images, without a download.

    A network with ImageNet's weights in two phases (frozen, then fine-tuned) beside the same from scratch, and beside the small
    network that comes with thawlab; five seeds of each. A study: after an interruption the same command goes on.
    """
    from thawlab.files import user_path
    from thawlab.studies.design import demo_design
    from thawlab.studies.study import run_study

    _print_outcome(run_study(demo_design(), user_path(runs)), as_json)


def _print_outcome(outcome: Outcome, as_json: bool) -> None:
    failed = outcome.conducted.failed
    if as_json:
        print_json(outcome.as_json())
    else:
        compared = outcome.comparison
        print_table(compared.question, compared.columns, compared.rows())
        for line in compared.lines():
            print(line)
        print(f"page:  {outcome.folder.page}")
        print(f"study: {outcome.folder.path}")
    if failed:
        run, reason = next(iter(failed.items()))
        raise ThawlabError(f"{len(failed)} cells failed, the first is {run}: {reason}; the same command tries them again")


def _print_forecast(planned: Forecast) -> None:
    from thawlab.studies.live import duration

    rows = [
        [cell.variant, str(cell.seed), "finished" if done else duration(cost.seconds), cell.run]
        for cell, done, cost in zip(planned.cells, planned.finished, planned.costs, strict=True)
    ]
    print_table("", ["variant", "seed", "time", "run"], rows)
    left = planned.finished.count(False)
    print(f"{left} of {len(rows)} cells to run, {planned.at_once} at once: about {duration(planned.seconds)}")
    print(f"study: {planned.folder.path}")
