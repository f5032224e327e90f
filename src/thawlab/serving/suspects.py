"""The held-out images of a run that a person should look at: suspected labels and mistakes, and the pictures themselves."""

from __future__ import annotations

import io
import threading
from functools import lru_cache
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from PIL import Image
from pydantic import Field

from thawlab.data.arrays import DAMAGED, read_arrays
from thawlab.data.decode import UNREADABLE, decode, open_image, why_unreadable
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.selection import open_data
from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.plan.resolve import beside
from thawlab.results import DataSummary, read_results, read_value
from thawlab.run import RunFolder
from thawlab.serving.runs_table import stamps_of
from thawlab.serving.settings import Limits
from thawlab.values import Value

if TYPE_CHECKING:
    from thawlab.data.listing import Listing
    from thawlab.data.types import Pixels

_SIDE = 512
_EXACT = 96  # up to this side a picture is sent without loss
_opening = threading.Lock()


class Suspect(Value):
    """An image whose label may be wrong, or that the classifier takes for another class."""

    id: str
    split: Literal["val", "test"]
    given: Annotated[str, Field(description="Its label.")]
    predicted: Annotated[str, Field(description="The most probable other class.")]
    probability: Annotated[float, Field(description="Of that class, calibrated.")]
    reason: Literal["suspected label", "mistake"]


class Suspects(Value):
    """Images to look at, suspected labels first, then mistakes, the surest first."""

    classes: list[str]
    count: Annotated[int, Field(description="How many there are in all.")]
    suspects: list[Suspect]


def suspects_of(folder: RunFolder) -> tuple[tuple[str, ...], tuple[Suspect, ...]]:
    """Return the classes of a run, and all its held-out images to look at.

    Raises:
        ThawlabError: if the run has not finished, or a file of it is damaged.
    """
    folder.refuse_imported()
    if not folder.results.is_file():
        raise ThawlabError(f"{folder.name}: has not finished; its mistakes are known then")
    return _suspects(folder, stamps_of(folder.path))


@lru_cache(maxsize=4)
def _suspects(folder: RunFolder, _: object) -> tuple[tuple[str, ...], tuple[Suspect, ...]]:
    results = read_results(folder.results)
    classes = results.dataset.classes
    split_of: dict[str, Literal["val", "test"]] = {}
    wrong: list[Suspect] = []
    for split in ("val", "test"):
        table = load_predictions(folder.predictions(split))
        split_of |= dict.fromkeys(table.ids.tolist(), split)
        probabilities = table.probabilities(results.test.temperature)
        for row in np.flatnonzero(table.predicted != table.labels).tolist():
            names = classes[table.labels[row]], classes[table.predicted[row]]
            share = float(probabilities[row, table.predicted[row]])
            wrong.append(_suspect(str(table.ids[row]), split, *names, share, "mistake"))
    first = [
        _suspect(one.id, split_of[one.id], one.class_name, one.suggested, one.probability, "suspected label")
        for one in results.label_suspects.first
        if one.id in split_of
    ]
    named = {one.id for one in first}
    wrong.sort(key=lambda one: -one.probability)
    return classes, (*first, *(one for one in wrong if one.id not in named))


def _suspect(
    identifier: str,
    split: Literal["val", "test"],
    given: str,
    predicted: str,
    probability: float,
    reason: Literal["suspected label", "mistake"],
) -> Suspect:
    return Suspect(id=identifier, split=split, given=given, predicted=predicted, probability=probability, reason=reason)


def picture_of(folder: RunFolder, identifier: str) -> tuple[bytes, str]:
    """Return one of a run's suspects as a picture, read from the data as training reads them, and its media type.

    Raises:
        ThawlabError: if it is none of the suspects, the data are gone, or the picture cannot be read.
    """
    if not any(one.id == identifier for one in suspects_of(folder)[1]):
        raise ThawlabError(f"{folder.name}: '{identifier[:200]}' is none of its suspects or mistakes")
    with _opening:
        listing, places = _listing(folder, stamps_of(folder.path))
    if identifier not in places:
        raise ThawlabError(f"{listing.name}: holds no image '{identifier}' any more")
    try:
        return encoded(shown(listing.images.read(places[identifier])))
    except UNREADABLE as error:
        raise ThawlabError(f"{identifier}: {why_unreadable(error)}") from None


@lru_cache(maxsize=2)
def _listing(folder: RunFolder, _: object) -> tuple[Listing, dict[str, int]]:
    recipe = beside(folder.recipe, folder.path)
    # As the source has them: what was excluded meanwhile can still be looked at.
    listing = open_data(recipe.data.model_copy(update={"corrections": None}), recipe.system)
    return listing, {identifier: place for place, identifier in enumerate(listing.ids)}


def shown(content: bytes | Pixels) -> Pixels:
    """Return an image, encoded or as pixels, as a page shows it: whole, never enlarged, of at most 512 pixels a side.

    Raises:
        BadImageError: if it cannot be decoded, or has more pixels than are taken.
    """
    if isinstance(content, bytes):
        with open_image(content, Limits().pixels) as image:
            side = max(image.size)
    else:
        side = max(content.shape[:2])
    look = Preprocessing(size=min(_SIDE, side), resize="pad", interpolation="bicubic", mean=(0.5,) * 3, std=(0.5,) * 3)
    pixels = decode(content, look, Limits().pixels)
    inner = (pixels != look.fill).any(axis=2)
    rows, columns = np.flatnonzero(inner.any(axis=1)), np.flatnonzero(inner.any(axis=0))
    return pixels[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1] if len(rows) else pixels


def encoded(pixels: Pixels) -> tuple[bytes, str]:
    """Return pixels as a file for browsers, and its media type."""
    buffer = io.BytesIO()
    kind = "png" if max(pixels.shape[:2]) <= _EXACT else "jpeg"
    Image.fromarray(np.ascontiguousarray(pixels)).save(buffer, kind, quality=90)
    return buffer.getvalue(), f"image/{kind}"


class Sample(Value):
    """A training image that the run kept."""

    label: str
    url: Annotated[str, Field(description="The picture as a data URL.")]


def samples_of(folder: RunFolder) -> list[Sample]:
    """Return the training images that a finished run kept for its report.

    Raises:
        ThawlabError: if the file is missing or damaged.
    """
    from thawlab.report.page import data_url

    classes = read_value(folder.path / "data.json", DataSummary).classes
    try:
        table = read_arrays(folder.images)
        return [
            Sample(label=classes[label], url=data_url(image))
            for image, label in zip(table["samples"], table["sample_labels"].tolist(), strict=True)
        ]
    except FileNotFoundError:
        raise ThawlabError(f"{folder.name}: keeps sample pictures once it has finished") from None
    except DAMAGED:
        raise ThawlabError(f"{folder.images}: is damaged; `thawlab repair` restores it") from None
