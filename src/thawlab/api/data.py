"""Images before anything is trained on them: shown, checked, written into shards; and what can be named."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from thawlab.api.arguments import data_of, outputs
from thawlab.errors import UsageError, listed, nearest
from thawlab.files import user_path, write_text
from thawlab.recipe import System, parse_part
from thawlab.registry import about

if TYPE_CHECKING:
    from thawlab.quality.data_check import DataCheck


def show_data(
    source: str | Path,
    *,
    sheet: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Return how a source is understood: classes, splits, groups, counts and what is left out; write a sheet of samples if asked.

    Args:
        source: images by name or path.
        sheet: the file (.png or .jpg) to write samples of every class to.
        force: whether it may replace a file.
        data_dir: a local copy of the named data set.
        **settings: how the source is read, by dotted key, e.g. `**{"data.layout": "split/class"}`.

    Raises:
        UsageError: if there are no such images, or the sheet exists already and `force` is false.
        ThawlabError: if a download fails or the sheet cannot be written.
    """
    from thawlab.data.overview import overview, write_sheet
    from thawlab.data.selection import open_data

    [file] = outputs(force, [source, data_dir], sheet=sheet)
    system = parse_part(System, {"data_dir": data_dir}, "data show")
    listing = open_data(data_of(source, settings, "data show"), system)
    if file is not None:
        write_sheet(listing, file)
    return overview(listing) | ({} if file is None else {"sheet": str(file)})


def check_data(
    source: str | Path,
    *,
    backbone: str = "bundled",
    size: int | None = None,
    group: str | None = None,
    effort: str = "normal",
    page: str | Path | None = None,
    write_clean: str | Path | None = None,
    force: bool = False,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **settings: Any,
) -> DataCheck:
    """Find unreadable files, duplicates, leaks between splits, outliers and wrong labels; nothing is ever deleted.

    Args:
        source: images by name or path.
        backbone: a pretrained one whose features find outliers, wrong labels and further duplicates.
        size: of its input in pixels; the weights' own if omitted.
        group: column or pattern of related images, as `data.group`.
        effort: how the labels are judged: "quick" by heads on the backbone's features, "normal" by those of mirrored images,
            too, "thorough" also by networks that are fine-tuned, each without the third of the images that it judges.
        page: write a page with the images (.html).
        write_clean: write which images to keep (.csv), for `data.exclude`.
        force: whether these may replace files.
        data_dir: a local copy of the named data set.
        cache_dir: where decoded images and features are kept.
        **settings: how the source is read, by dotted key, e.g. `**{"data.layout": "split/class"}`.

    Raises:
        UsageError: if there are no such images or backbone, or a file to write exists already.
        ThawlabError: if the weights cannot be loaded, or half of the images cannot be read.

    Example:
        >>> import thawlab
        >>> check = thawlab.check_data("shapes:100x32", write_clean="list.csv")
        >>> len(check.leaks), len(check.listing)
        (0, 100)
    """
    from thawlab.data.selection import open_data
    from thawlab.plan.resolve import pretrained_input
    from thawlab.quality.data_check import EFFORTS, clean_list, write_rows
    from thawlab.quality.data_check import check_data as check
    from thawlab.report.data_page import write_data_page

    page, write_clean = outputs(force, [source, data_dir], page=page, write_clean=write_clean)
    given = {key: value for key, value in (("image_size", size), ("group", group)) if value is not None}
    data = data_of(source, settings, "data check", **given)
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "data check")
    if effort not in EFFORTS:
        raise UsageError(f"effort: '{effort}' is none of {listed(EFFORTS)}{nearest(effort, EFFORTS)}")
    spec, preprocessing = pretrained_input(backbone, data)
    tuned = None
    if effort == "thorough":
        from thawlab.judging.cross_validation import cross_validated  # training takes a while to load

        tuned = partial(cross_validated, spec, system)
    found = check(open_data(data, system), spec, preprocessing, system, EFFORTS[EFFORTS.index(effort)], tuned)
    if page is not None:
        write_data_page(found, page)
    if write_clean is not None:
        write_text(write_clean, write_rows(clean_list(found)))
    return found


def write_shards(
    source: str | Path,
    folder: str | Path,
    *,
    shard_mib: float = 128,
    val: float | None = None,
    test: float | None = None,
    data_dir: str | Path | None = None,
    cache_dir: str | Path | None = None,
    **settings: Any,
) -> dict[str, Any]:
    """Write the images of a source into shards: tar files with an index, which are read in any order, here or from afar.

    Args:
        source: images by name, path or address.
        folder: to write into; new, empty, or of the same writing that was interrupted.
        shard_mib: after so many MiB a shard ends.
        val: the fraction of the images to train on that goes into shards for validation; if omitted, the source's own split.
        test: the fraction of all images that goes into shards for testing; if omitted, the source's own split.
        data_dir: a local copy of the named data set.
        cache_dir: where copies of remote sources are kept.
        **settings: how the source is read, by dotted key.

    Returns:
        The number of images, shards and bytes, and what was left out.

    Raises:
        UsageError: if there are no such images, or the folder holds something else.
        ThawlabError: if images cannot be read, or the disk does not take the shards.
    """
    from thawlab.data.selection import open_data
    from thawlab.data.shards.splitting import with_fixed_splits
    from thawlab.data.shards.writer import write_shards as write

    if not 0 < shard_mib <= 1 << 20:
        raise UsageError(f"--shard-mib {shard_mib:g}: must be above 0, and at most 1,048,576")
    system = parse_part(System, {"data_dir": data_dir, "cache_dir": cache_dir}, "data shards")
    listing = with_fixed_splits(open_data(data_of(source, settings, "data shards"), system), val, test)
    index, unreadable = write(listing, user_path(folder), int(shard_mib * (1 << 20)))
    return {
        "folder": str(folder),
        "n": sum(shard.images for shard in index.shards),
        "shards": len(index.shards),
        "bytes": sum(shard.bytes for shard in index.shards),
        "unreadable": [{"id": name, "reason": reason} for name, reason in unreadable],
    }


def verify_shards(folder: str | Path) -> dict[str, Any]:
    """Read all shards of a folder and compare them with their index.

    Returns:
        The number of shards and images, and a line on each shard that is not what the index says.

    Raises:
        UsageError: if the folder holds no shards with an index, or the index is damaged.
    """
    from thawlab.data.shards.source import read_index
    from thawlab.data.shards.writer import verify_shards as verify

    path = user_path(folder)
    index = read_index(path)
    wrong = verify(path, index)
    return {"folder": str(folder), "shards": len(index.shards), "n": sum(s.images for s in index.shards), "wrong": wrong}


def list_models(pattern: str | None = None) -> list[dict[str, str]]:
    """Return name, kind and description of the backbones; with a wildcard, also of timm's pretrained ones that match it.

    Raises:
        UsageError: if none matches.
    """
    from thawlab.models.overview import backbone_table

    rows = backbone_table(pattern)
    if pattern is not None and not rows:
        raise UsageError(f"no backbone matches '{pattern}'; try a wildcard, for example '{pattern}*'")
    return rows


def list_datasets() -> list[dict[str, str]]:
    """Return name and description of the data sets that can be named."""
    from thawlab.data.sources import datasets

    return [{"name": name, "about": about(datasets.get(name))} for name in datasets]
