"""The page of a data check: what was found, with the images."""

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.depth import with_grey_range
from thawlab.data.preprocessing import Preprocessing
from thawlab.quality.data_check import DataCheck
from thawlab.quality.findings import findings
from thawlab.report.page import data_url, write_page

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
    look = Preprocessing(size=side, resize="pad", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    look = with_grey_range(look, check.listing)

    def imaged(entry: dict[str, Any]) -> dict[str, Any]:
        try:
            pixels = decode(check.listing.images.read(place[entry["id"]]), look)
        except UNREADABLE:
            pixels = np.asarray(Image.new("RGB", (side, side), "#9aa6b2"))  # grey
        return {**entry, "url": data_url(pixels)}

    def paired(entry: dict[str, Any]) -> dict[str, Any]:
        return {**entry, "first": imaged(entry["first"]), "second": imaged(entry["second"])}

    shown = {key: [paired(entry) for entry in found[key]["first"]] for key in ("leaks", "conflicts", "near_duplicates")}
    shown |= {key: [imaged(entry) for entry in found[key]["first"]] for key in ("label_suspects", "outliers", "blank")}
    sizes = [(name, values) for name, values in found["sizes"].items() if values]
    return write_page("data.html", path, found=found, shown=shown, findings=findings(found), sizes=sizes, small=side <= 48)
