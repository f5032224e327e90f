"""Which images of a source a recipe uses, and which of them belong together."""

import re
from dataclasses import replace
from pathlib import Path

import numpy as np

from thawlab.data.corrections import corrected, read_corrections
from thawlab.data.csv_table import NO, YES, pick_column, read_table
from thawlab.data.listing import Listing, Reading, chosen
from thawlab.data.shards.remote_store import Keeping
from thawlab.data.sources import open_recorded
from thawlab.data.types import Indices
from thawlab.errors import UsageError, listed, nearest
from thawlab.files import found_path
from thawlab.recipe import Data, System

_YES = YES | {""}
_ID_COLUMNS = ("path", "id", "file", "filename")


def open_data(data: Data, system: System) -> Listing:
    """List the images of a resolved recipe: those of its source without the excluded ones, with corrections and groups.

    Raises:
        UsageError: if the source, the list of excluded images, the corrections or the grouping is wrong.
        ThawlabError: if a download is needed and fails.
    """
    reading = Reading(data.layout, data.path_column, data.label_column)
    keeping = Keeping(system.cache_dir, data.cache, data.shuffle_buffer)
    listing = source = open_recorded(data.source, system.data_dir, reading, system.base_dirs, keeping)
    if data.exclude is not None:
        listing = without(source, excluded_ids(found_path(data.exclude, system.base_dirs)), data.exclude)
    if data.group is not None:
        listing = replace(listing, groups=group_numbers(listing, data.group))
    if data.corrections is not None:
        corrections = read_corrections(found_path(data.corrections, system.base_dirs))
        listing = corrected(listing, corrections, data.corrections, set(source.ids).difference(listing.ids))
    return without_absent_classes(listing)


def excluded_ids(path: Path) -> set[str]:
    """Read which images a CSV takes out: those whose column `keep` says no, or all of them where it has no such column.

    Raises:
        UsageError: if the file is absent or has no column that names images.
    """
    columns, rows = read_table(path, "data.exclude")
    name, keep = pick_column(columns, _ID_COLUMNS), pick_column(columns, ["keep"])
    if name is None:
        raise UsageError(f"data.exclude: {path} needs a column 'path'; found {listed(columns) or 'none'}")
    if keep is None:
        return {row[name] for _, row in rows}
    words = [(number, row[keep].strip().lower()) for number, row in rows]
    if wrong := next(((number, word) for number, word in words if word not in _YES | NO), None):
        raise UsageError(f"data.exclude: {path}, line {wrong[0]}: '{wrong[1]}' in the column '{keep}' is neither yes nor no")
    return {row[name] for (_, row), (_, word) in zip(rows, words, strict=True) if word in NO}


def without(listing: Listing, excluded: set[str], origin: str) -> Listing:
    """Return a listing without some images.

    Raises:
        UsageError: if one of them is not in the listing: a list made for other data takes out the wrong ones, or none.
    """
    there = set(listing.ids)
    excluded = {name if name in there else name.strip() for name in excluded}
    unknown = sorted(excluded - there)
    if unknown:
        raise UsageError(
            f"data.exclude: {origin} names '{unknown[0]}', which {listing.name} does not hold{nearest(unknown[0], listing.ids)}"
        )
    kept = np.array([index for index, identifier in enumerate(listing.ids) if identifier not in excluded], dtype=np.int64)
    return listing if len(kept) == len(listing) else chosen(listing, kept)


def without_absent_classes(listing: Listing) -> Listing:
    """Return a listing whose classes all have images, with a note on those that have none; labels are numbered anew."""
    if listing.uncorrected is not None:
        listing = replace(listing, uncorrected=without_absent_classes(listing.uncorrected))
    present = np.bincount(listing.labels, minlength=len(listing.classes)) > 0
    if present.all() or not len(listing):
        return listing
    absent = [name for name, is_there in zip(listing.classes, present, strict=True) if not is_there]
    numbers = np.cumsum(present) - 1
    return replace(
        listing,
        classes=tuple(name for name, is_there in zip(listing.classes, present, strict=True) if is_there),
        labels=numbers[listing.labels].astype(np.int64),
        notes=(*listing.notes, f"classes without images are left out: {listed(absent, 5)}"),
    )


def group_numbers(listing: Listing, group: str) -> Indices:
    """Return a number per image, equal for images of one group.

    Args:
        listing: the images.
        group: the name of a column of the manifest, or a regular expression with one group in parentheses, which is searched
            for in each image's id.

    Raises:
        UsageError: if there is no such column, the pattern is invalid, or it does not fit every image.
    """
    names = list(listing.columns[group]) if group in listing.columns else _matched(listing, group)
    _, numbers = np.unique(np.array(names, dtype=np.str_), return_inverse=True)
    return numbers.reshape(-1).astype(np.int64)


def _matched(listing: Listing, group: str) -> list[str]:
    try:
        pattern = re.compile(group)
    except re.error as error:
        raise UsageError(f"data.group = '{group}': no column of {listing.name}, and not a pattern either: {error}") from None
    if pattern.groups != 1:
        columns = f" (columns: {listed(listing.columns)})" if listing.columns else ""
        raise UsageError(
            f"data.group = '{group}': no column of {listing.name}{columns}; a pattern needs one group in parentheses, "
            "for example '([^/]+)_[0-9]+[.]jpg'"
        )
    found = [(pattern.search(identifier) or [None, None])[1] for identifier in listing.ids]
    if None in found:
        raise UsageError(f"data.group = '{group}': does not fit '{listing.ids[found.index(None)]}'")
    return [name for name in found if name is not None]
