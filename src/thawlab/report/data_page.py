"""The page of a data check: what was found, with the images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from thawlab.data.decode import UNREADABLE, decode
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.files import write_text
from thawlab.quality.data_check import DataCheck
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


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}{'' if number == 1 else 's'}"


def findings(found: dict[str, Any]) -> list[dict[str, str]]:
    """Return what stands out in a data check, the gravest first, each with its evidence and one action."""
    result = []

    def add(severity: str, title: str, evidence: str, advice: str) -> None:
        result.append({"severity": severity, "title": title, "evidence": evidence, "advice": advice})

    if found["leaks"]["count"]:
        add(
            "error",
            "Leak between splits",
            f"{_count(found['leaks']['count'], 'pair')} of the same or nearly the same image in different splits",
            "write a clean list (--write-clean list.csv) and train with data.exclude, or keep related images together with "
            "data.group",
        )
    if found["conflicts"]["count"]:
        add(
            "error",
            "Conflicting labels",
            f"{_count(found['conflicts']['count'], 'pair')} of duplicates with different labels",
            "correct them",
        )
    if found["unreadable"]["count"]:
        first = found["unreadable"]["first"][0]
        evidence = f"unreadable: {_count(found['unreadable']['count'], 'image')}, the first is {first['id']} ({first['reason']})"
        add("warning", "Unreadable images", evidence, "save them anew, or leave them out: training does so by itself")
    if found["label_suspects"]["count"]:
        share = found["label_suspects"]["count"] / found["n"]
        evidence = f"probably wrong: {_count(found['label_suspects']['count'], 'label')} ({100 * share:.1f} % of all)"
        add("warning", "Suspected labels", evidence, "look at them, the least believable first")
    copies = found["identical"]["count"]
    if copies:
        add("warning", "Identical files", f"more than once there: {_count(copies, 'image')}", "keep one of each")
    if found["imbalance"] >= 10:
        evidence = f"the largest class has {found['imbalance']:.0f} times as many images as the smallest"
        add("warning", "Imbalanced classes", evidence, "judge by macro figures; add images of the small classes")
    if found["wrong_extensions"]["count"]:
        count = found["wrong_extensions"]["count"]
        add(
            "info",
            "Wrong extensions",
            f"not what its name says: {_count(count, 'file')}",
            "rename them; they are read all the same",
        )
    return result
