"""A look at images before training: counts per class and split, and a sheet of samples."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thawlab.data.corrections import changes_of
from thawlab.data.dataset import Dataset
from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.depth import with_grey_range
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.splits import absent_classes
from thawlab.data.types import SPLITS
from thawlab.errors import ThawlabError, listed

_PER_CLASS, _TILE, _GAP, _LABEL = 8, 64, 4, 150
_MOST_CLASSES = 100


def overview(listing: Listing) -> dict[str, Any]:
    """Return name, count, how the source was read, classes with their counts per split, and what was left out and why."""
    present = [split for split in SPLITS if (listing.splits == split).any()]
    counts = {split: np.bincount(listing.labels[listing.splits == split], minlength=len(listing.classes)) for split in present}
    return {
        "name": listing.name,
        "n": len(listing),
        "layout": listing.layout,
        "groups": None if listing.groups is None else len(np.unique(listing.groups)),
        "notes": [*listing.notes, *_corrections(listing)],
        "splits": present,
        "classes": [
            {"class": name, **{split: int(counts[split][k]) for split in present}} for k, name in enumerate(listing.classes)
        ],
        "left_out": left_out(listing.ignored),
        "ignored": [{"id": path, "reason": reason} for path, reason in listing.ignored],
    }


def _corrections(listing: Listing) -> list[str]:
    """Return the line on what corrections changed; how much of the test split is known only where the source has one."""
    before = listing.uncorrected
    test = None if before is None or not (before.splits == "test").any() else np.flatnonzero(before.splits == "test")
    changes = changes_of(listing, test)
    return [] if changes is None else [changes.line]


def left_out(ignored: Iterable[tuple[str, str]]) -> list[dict[str, Any]]:
    """Return each reason for which files are left out, with their number and the first of them; the most frequent first."""
    reasons: dict[str, list[str]] = {}
    for path, reason in ignored:
        reasons.setdefault(reason, []).append(path)
    found = sorted(reasons.items(), key=lambda item: -len(item[1]))
    return [{"reason": reason, "count": len(paths), "first": paths[0]} for reason, paths in found]


def described(dataset: Dataset) -> list[str]:
    """Return what was read, in two lines: images, classes and splits, and how; one line where that is no question."""
    sizes = ", ".join(f"{split} {len(dataset.indices(split)):,}" for split in SPLITS)
    count = sum(len(part) for part in dataset.splits)
    lines = [f"{dataset.name}: {count:,} images in {len(dataset.classes)} classes ({listed(dataset.classes, 4)}); {sizes}"]
    reasons = [
        f"{_files(part['count'])} ({part['reason']}), the first is {part['first']}" for part in left_out(dataset.ignored)[:3]
    ]
    parts = [f"read as {dataset.layout}"] if dataset.layout else []
    parts += list(dataset.notes) + ([f"left out: {'; '.join(reasons)}"] if reasons else [])
    return lines + (["; ".join(parts)] if parts else [])


def _files(count: int) -> str:
    return f"{count:,} file" + ("s" if count > 1 else "")


def warnings_before_training(dataset: Dataset) -> list[str]:
    """Return the warnings about the data, one line each."""
    lines = [f"{identifier} is left out: {reason}" for identifier, reason in dataset.quarantined[:5]]
    if len(dataset.quarantined) > 5:
        lines.append(f"… and {len(dataset.quarantined) - 5} more images are left out; data.json lists them all")
    for split in ("val", "test"):
        indices = dataset.indices(split)
        missing = absent_classes(indices, dataset.labels, dataset.classes)
        if not len(indices):
            lines.append(f"the {split} split is empty")
        elif missing:
            counted = f"{len(missing)} classes, the first is '{missing[0]}'"
            lines.append(f"the {split} split has no image of {counted}; their scores are not measured")
    return lines


def write_sheet(listing: Listing, path: Path) -> None:
    """Write an image with some samples of every class, the first ones by id; at most 100 classes.

    Raises:
        ThawlabError: if the file cannot be written.
    """
    look = Preprocessing(size=_TILE, resize="upsample", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    look = with_grey_range(look, listing)
    classes = listing.classes[:_MOST_CLASSES]
    step = _TILE + _GAP
    canvas = Image.new("RGB", (_LABEL + _PER_CLASS * step + _GAP, len(classes) * step + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    font = ImageFont.load_default(13)
    for row, name in enumerate(classes):
        top = _GAP + row * step
        pen.text((_GAP * 2, top + _TILE / 2), name[:22], fill="#1d232b", font=font, anchor="lm")
        for column, index in enumerate(np.flatnonzero(listing.labels == row)[:_PER_CLASS].tolist()):
            try:
                tile = Image.fromarray(decode(listing.images.read(index), look))
            except UNREADABLE:
                tile = Image.new("RGB", (_TILE, _TILE), "#d5dbe2")
            canvas.paste(tile, (_LABEL + column * step, top))
    try:
        canvas.save(path)
    except (OSError, ValueError) as error:
        raise ThawlabError(f"{path}: the sheet cannot be written: {error}; give a name that ends in .png or .jpg") from None
