"""The verbs that look at images before training, `thawlab data show` and `check`, and those that list `models` and `datasets`."""

from pathlib import Path
from typing import Annotated

import typer

from thawlab.cli.console import CacheDirOption, DataDirOption, ForceOption, JsonOption, print_json, print_table

lists_app = typer.Typer()
data_app = typer.Typer(no_args_is_help=True, rich_markup_mode=None, help="Look at images before training on them.")
DataSettings = Annotated[
    list[str] | None,
    typer.Argument(metavar="[KEY=VALUE]...", help="How the source is read, e.g. data.layout=split/class, as for train."),
]


def _cure(layout: str) -> str:
    """Return what to write where a source was read wrongly."""
    if "class" in layout.split("/"):
        return "say what each level of folders is, e.g. data.layout=split/class or data.layout=*/class"
    return "name the columns: data.path_column=…, data.label_column=…"


@data_app.command("show", epilog="Example: thawlab data show photos/ --sheet sheet.png")
def data_show(
    source: Annotated[str, typer.Argument(help="A data set's name or a path.")],
    settings: DataSettings = None,
    sheet: Annotated[Path | None, typer.Option(help="Write an image with samples of every class to this file.")] = None,
    force: ForceOption = False,
    data_dir: DataDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Show classes, splits and counts of images, and a sheet of samples."""
    from thawlab import api
    from thawlab.recipe_text import parse_overrides

    shown = api.show_data(source, sheet=sheet, force=force, data_dir=data_dir, **parse_overrides(settings or []))
    if as_json:
        print_json(shown)
        return
    rows = [[row["class"], *(f"{row[split]:,}" for split in shown["splits"])] for row in shown["classes"]]
    total = ["all", *(f"{sum(row[split] for row in shown['classes']):,}" for split in shown["splits"])]
    print_table(f"{shown['name']}: {shown['n']:,} images, {len(rows)} classes", ["class", *shown["splits"]], [*rows, total])
    if shown["layout"]:
        print(f"read as {shown['layout']}; if that is wrong, {_cure(shown['layout'])}")
    if shown["groups"] is not None:
        print(f"groups: {shown['groups']:,}, each kept together where thawlab makes the splits")
    for note in shown["notes"]:
        print(note)
    for part in shown["left_out"]:
        print(f"left out: {part['count']:,} ({part['reason']}), the first is {part['first']}")
    if sheet is not None:
        print(f"sheet: {sheet}")


@data_app.command("check", epilog="Example: thawlab data check photos/ --page check.html --write-clean list.csv")
def data_check(
    source: Annotated[str, typer.Argument(help="A data set's name, or a path.")],
    settings: DataSettings = None,
    backbone: Annotated[str, typer.Option(help="Whose features find outliers, wrong labels and further duplicates.")] = "bundled",
    size: Annotated[int | None, typer.Option(min=4, help="The backbone's input in pixels; its own if omitted.")] = None,
    group: Annotated[str | None, typer.Option(help="Column or pattern of related images, as data.group.")] = None,
    effort: Annotated[
        str, typer.Option(help="How the labels are judged: quick, normal, or thorough (by fine-tuning).")
    ] = "normal",
    page: Annotated[Path | None, typer.Option(help="Write a page with the images (.html).")] = None,
    write_clean: Annotated[Path | None, typer.Option(help="Write which images to keep (.csv), for data.exclude.")] = None,
    force: ForceOption = False,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Find unreadable files, duplicates, leaks between splits, outliers and wrong labels. Nothing is ever deleted."""
    from thawlab import api
    from thawlab.quality.findings import findings
    from thawlab.recipe_text import parse_overrides

    found = api.check_data(
        source,
        backbone=backbone,
        size=size,
        group=group,
        effort=effort,
        page=page,
        write_clean=write_clean,
        force=force,
        data_dir=data_dir,
        cache_dir=cache_dir,
        **parse_overrides(settings or []),
    ).as_json()
    if as_json:
        print_json(found)
        return
    splits = ", ".join(f"{split} {n:,}" for split, n in found["splits"].items())
    print(f"{found['name']}: {found['n']:,} images in {len(found['classes'])} classes ({splits})")
    keys = ["unreadable", "blank", "wrong_extensions", "small", "long", "identical", "near_duplicates", "leaks", "conflicts"]
    rows = [[key.replace("_", " "), f"{found[key]['count']:,}"] for key in [*keys, "label_suspects"]]
    print_table("", ["what", "how many"], rows)
    for finding in findings(found):
        print(f"{finding.severity}: {finding.evidence}; {finding.advice}")
    for what, path in (("page", page), ("list", write_clean)):
        if path is not None:
            print(f"{what}: {path}")


@data_app.command("shards", epilog="Example: thawlab data shards photos/ shards/ --val 0.05 --test 0.1")
def data_shards(
    source: Annotated[str, typer.Argument(help="A data set's name, a path or an address.")],
    folder: Annotated[Path, typer.Argument(help="Where to write; new, or of the same writing that was interrupted.")],
    settings: DataSettings = None,
    shard_mib: Annotated[float, typer.Option(help="After so many MiB a shard ends.")] = 128,
    val: Annotated[float | None, typer.Option(help="Fraction of the training images for val shards.")] = None,
    test: Annotated[float | None, typer.Option(help="Fraction of all images for test shards.")] = None,
    data_dir: DataDirOption = None,
    cache_dir: CacheDirOption = None,
    as_json: JsonOption = False,
) -> None:
    """Write images into shards: tar files with an index and checksums, for data larger than memory or on other machines."""
    from thawlab import api
    from thawlab.recipe_text import parse_overrides

    written = api.write_shards(
        source,
        folder,
        shard_mib=shard_mib,
        val=val,
        test=test,
        data_dir=data_dir,
        cache_dir=cache_dir,
        **parse_overrides(settings or []),
    )
    if as_json:
        print_json(written)
        return
    print(f"{folder}: {written['n']:,} images in {written['shards']:,} shards, {written['bytes'] / 2**20:,.1f} MiB")
    for lost in written["unreadable"][:5]:
        print(f"left out: {lost['id']} ({lost['reason']})")
    if (more := len(written["unreadable"]) - 5) > 0:
        print(f"left out: {more:,} more; index.json lists them all")


@data_app.command("verify", epilog="Example: thawlab data verify shards/")
def data_verify(
    folder: Annotated[Path, typer.Argument(help="A folder of shards with an index.")], as_json: JsonOption = False
) -> None:
    """Read shards and compare them with their index; exit code 1 if one is damaged."""
    from thawlab import api

    found = api.verify_shards(folder)
    if as_json:
        print_json(found)
    else:
        print(f"{folder}: {found['n']:,} images in {found['shards']:,} shards; {len(found['wrong']):,} shards are damaged")
        for line in found["wrong"]:
            print(line)
    if found["wrong"]:
        raise typer.Exit(1)


@lists_app.command(epilog="Example: thawlab models 'mobilenet*'")
def models(
    pattern: Annotated[
        str | None, typer.Argument(help="List timm's pretrained networks whose names match, e.g. 'resnet*'.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """List the backbones: the bundled one, small networks from scratch, Keras' names, and timm's."""
    from thawlab import api

    _show_list("models", ["backbone", "kind", "what it is"], api.list_models(pattern), as_json)
    if pattern is None and not as_json:
        print("Every timm network can be named as timm/NAME.TAG; `thawlab models 'convnext*'` lists those that match.")


@lists_app.command(epilog="Example: thawlab datasets")
def datasets(as_json: JsonOption = False) -> None:
    """List the data sets that can be named; every folder, zip, tar, Parquet folder and CSV can be given by its path."""
    from thawlab import api

    _show_list("datasets", ["data set", "what it is"], api.list_datasets(), as_json)


def _show_list(key: str, columns: list[str], rows: list[dict[str, str]], as_json: bool) -> None:
    if as_json:
        print_json({key: rows})
    else:
        print_table("", columns, [list(row.values()) for row in rows])
