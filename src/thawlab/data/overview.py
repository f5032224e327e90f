"""A look at images before training: counts per class and split, and a sheet of samples."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.types import SPLITS
from thawlab.errors import ThawlabError

_PER_CLASS, _TILE, _GAP, _LABEL = 8, 64, 4, 150
_MOST_CLASSES = 100


def overview(listing: Listing) -> dict[str, Any]:
    """Return name, count, classes with their counts per split, and ignored files."""
    present = [split for split in SPLITS if (listing.splits == split).any()]
    counts = {split: np.bincount(listing.labels[listing.splits == split], minlength=len(listing.classes)) for split in present}
    return {
        "name": listing.name,
        "n": len(listing),
        "splits": present,
        "classes": [
            {"class": name, **{split: int(counts[split][k]) for split in present}} for k, name in enumerate(listing.classes)
        ],
        "ignored": [{"id": path, "reason": reason} for path, reason in listing.ignored],
    }


def write_sheet(listing: Listing, path: Path) -> None:
    """Write an image with some samples of every class, the first ones by id; at most 100 classes.

    Raises:
        ThawlabError: if the file cannot be written.
    """
    look = Preprocessing(size=_TILE, resize="upsample", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
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
