"""The page of a data check: what was found, with the images."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.files import write_text
from thawlab.quality.data_check import DataCheck
from thawlab.quality.findings import findings
from thawlab.report.page import data_url, templates

_SHOWN = 40
_SIDE = 96


def write_data_page(check: DataCheck, path: Path) -> Path:
    """Write the page of a data check; a self-contained HTML file.

    Raises:
        ThawlabError: if the file cannot be written.
    """
    found = check.as_json(limit=_SHOWN)
    place = {identifier: index for index, identifier in enumerate(check.listing.ids)}
    side = min(_SIDE, int(np.median(check.files.sizes.max(axis=1))) or _SIDE)

    def imaged(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "url": _url(check.listing, place[entry["id"]], side)}

    def paired(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "first": imaged(entry["first"]), "second": imaged(entry["second"])}

    shown = {key: [paired(entry) for entry in found[key]["first"]] for key in ("leaks", "conflicts", "near_duplicates")}
    shown |= {key: [imaged(entry) for entry in found[key]["first"]] for key in ("label_suspects", "outliers")}
    page = (
        templates()
        .get_template("data.html")
        .render(
            found=found,
            shown=shown,
            findings=findings(found),
            sizes=[(name, values) for name, values in found["sizes"].items() if values],
            small=side <= 48,
        )
    )
    write_text(path, page)
    return path


def _url(listing: Listing, index: int, side: int) -> str:
    """Return an image as a data URL; one that cannot be read is grey."""
    look = Preprocessing(size=side, resize="pad", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    try:
        return data_url(decode(listing.images.read(index), look))
    except UNREADABLE:
        return data_url(np.asarray(Image.new("RGB", (side, side), "#9aa6b2")))
