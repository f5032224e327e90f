"""The verbs that look at images before training: `thawlab data show` and `thawlab data check`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from thawlab.cli.console import CacheDirOption, DataDirOption, JsonOption, print_json, print_table

data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at images before training on them.")


@data_app.command("show", epilog="Example: thawlab data show photos/ --sheet sheet.png")
def data_show(
    source: Annotated[str, typer.Argument(help="A data set's name or a path.")],
    sheet: Annotated[Path | None, typer.Option(help="Write an image with samples of every class to this file.")] = None,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show classes, splits and counts of some images, and a sheet of samples."""
    from thawlab.data.overview import overview, write_sheet
    from thawlab.data.sources import open_source

    listing = open_source(source, data_dir)
    shown = overview(listing)
    if sheet is not None:
        write_sheet(listing, sheet)
        shown["sheet"] = str(sheet)
    if as_json:
        print_json(shown)
        return
    rows = [[row["class"], *(f"{row[split]:,}" for split in shown["splits"])] for row in shown["classes"]]
    total = ["all", *(f"{sum(row[split] for row in shown['classes']):,}" for split in shown["splits"])]
    print_table(f"{shown['name']}: {shown['n']:,} images, {len(rows)} classes", ["class", *shown["splits"]], [*rows, total])
    if shown["ignored"]:
        print(
            f"{len(shown['ignored'])} files ignored, the first is {shown['ignored'][0]['id']} ({shown['ignored'][0]['reason']})"
        )
    if sheet is not None:
        print(f"sheet: {sheet}")


@data_app.command("check", epilog="Example: thawlab data check photos/ --page check.html --write-clean list.csv")
def data_check(
    source: Annotated[str, typer.Argument(help="A data set's name, or a path.")],
    backbone: Annotated[str, typer.Option(help="Whose features find outliers, wrong labels and further duplicates.")] = "bundled",
    size: Annotated[int | None, typer.Option(min=4, help="The backbone's input in pixels; its own if omitted.")] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of related images, as data.group.")] = None,
    page: Annotated[Path | None, typer.Option(help="Write a page with the images (.html).")] = None,
    write_clean: Annotated[Path | None, typer.Option(help="Write which images to keep (.csv), for data.exclude.")] = None,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find unreadable files, duplicates, leaks between splits, outliers and wrong labels. Nothing is ever deleted."""
    from thawlab.data.selection import open_data
    from thawlab.data.sources import canonical
    from thawlab.files import write_text
    from thawlab.quality.data_check import check_data, clean_list, write_rows
    from thawlab.quality.findings import findings
    from thawlab.recipe import parse_recipe
    from thawlab.report.data_page import write_data_page

    data = {"source": canonical(source), "image_size": size, "group": group}
    system = {"data_dir": data_dir, "cache_dir": cache_dir}
    phase = {"train": "head", "epochs": 1}
    recipe = parse_recipe({"data": data, "model": {"backbone": backbone}, "phases": [phase], "system": system}, "data check")
    check = check_data(open_data(recipe.data, recipe.system), recipe)
    if page is not None:
        write_data_page(check, page)
    if write_clean is not None:
        write_text(write_clean, write_rows(clean_list(check)))
    found = check.as_json()
    if as_json:
        print_json(found)
        return
    splits = ", ".join(f"{split} {n:,}" for split, n in found["splits"].items())
    print(f"{found['name']}: {found['n']:,} images in {len(found['classes'])} classes ({splits})")
    keys = ["unreadable", "wrong_extensions", "small", "long", "identical", "near_duplicates", "leaks", "conflicts"]
    rows = [[key.replace("_", " "), f"{found[key]['count']:,}"] for key in [*keys, "label_suspects"]]
    print_table("", ["what", "how many"], rows)
    for finding in findings(found):
        print(f"{finding.severity}: {finding.evidence}; {finding.advice}")
    for what, path in (("page", page), ("list", write_clean)):
        if path is not None:
            print(f"{what}: {path}")
