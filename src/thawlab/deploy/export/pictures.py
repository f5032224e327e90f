"""The pictures that an export is checked on: a run's own held-out images, as they are and in every form that files come in."""

import io
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from thawlab.data.dataset import judged_part, listing_of
from thawlab.data.decode import UNREADABLE, open_image, to_rgb, upright
from thawlab.data.images import Images
from thawlab.data.sources import open_source
from thawlab.data.types import Labels, Pixels
from thawlab.errors import ThawlabError
from thawlab.evaluation.predictions import load_predictions
from thawlab.plan.resolve import beside
from thawlab.randomness import derive
from thawlab.recipe import System
from thawlab.run import RunFolder

Draw = Callable[[Image.Image, np.random.Generator], bytes]


class HeldOut(NamedTuple):
    """Images that a classifier was not trained on: names, labels, and a function that reads one of them by its place."""

    split: str
    names: tuple[str, ...]
    labels: Labels
    read: Callable[[int], bytes | Pixels]


def held_out(folder: RunFolder, system: System) -> HeldOut | None:
    """Return the images of a run's val split, or of its test split where it has none; None where both are empty.

    Args:
        folder: of a finished run.
        system: where data are.

    Raises:
        ThawlabError: if the run's images cannot be found any more.
    """
    recipe = folder.recipe
    listing = listing_of(beside(recipe.model_copy(update={"system": system}), folder.path))
    places = {name: place for place, name in enumerate(listing.ids)}
    for wanted in ("val", "test"):
        table = load_predictions(folder.predictions(wanted))
        known = [
            (str(name), places[str(name)], label) for name, label in zip(table.ids, table.labels, strict=True) if name in places
        ]
        if len(known) < len(table.ids):
            lost = len(table.ids) - len(known)
            raise ThawlabError(f"{folder.path}: {lost:,} of its {len(table.ids):,} {wanted} images are no longer in its data")
        if known:
            order = np.random.default_rng(derive(0, "parity")).permutation(len(known))
            names, where, labels = zip(*(known[k] for k in order), strict=True)
            return HeldOut(wanted, names, np.array(labels, dtype=np.int64), partial(_read, listing.images, where))
    return None


def other_images(source: str, classes: tuple[str, ...], system: System) -> HeldOut:
    """Return the images of a source, of its test split where it has one; those of classes that the model lacks have the label −1.

    Raises:
        UsageError: if there is no such source, or it is empty.
    """
    listing = open_source(source, system.data_dir)
    chosen, _ = judged_part(listing)
    order = np.random.default_rng(derive(0, "parity")).permutation(len(chosen))
    numbers = np.array([classes.index(name) if name in classes else -1 for name in listing.classes], dtype=np.int64)
    where = chosen[order].tolist()
    names = tuple(str(listing.ids[place]) for place in where)
    return HeldOut(source, names, numbers[listing.labels[where]], partial(_read, listing.images, where))


def _read(images: Images, where: Sequence[int], place: int) -> bytes | Pixels:
    return images.read(where[place])


def write_pictures(source: HeldOut, count: int, place: Path) -> list[Path]:
    """Write image files into a folder: every other one as it was given, the others grey, transparent, turned, large and so on.

    Where there are fewer images than are wanted, they come again in further forms.

    Args:
        source: the images.
        count: of files.
        place: an empty folder.

    Returns:
        The files, named by number and form.
    """
    rng, files = np.random.default_rng(derive(0, "forms")), []
    forms = _endless()
    for number in range(count):
        content = source.read(number % len(source.names))
        plain = number % 2 == 0 and number < len(source.names)
        name, draw = ("as-it-is", None) if plain else next(forms)
        try:
            image = Image.fromarray(content) if isinstance(content, np.ndarray) else upright(open_image(content))
            changed = content if draw is None and isinstance(content, bytes) else (draw or _png)(to_rgb(image), rng)
        except UNREADABLE:
            continue
        assert isinstance(changed, bytes)
        file = place / f"{number:05d}-{name}"
        file.write_bytes(changed)
        files.append(file)
    return files


def _endless() -> Iterator[tuple[str, Draw]]:
    while True:
        yield from _FORMS.items()


def _saved(image: Image.Image, kind: str, **options: object) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def _png(image: Image.Image, _rng: np.random.Generator) -> bytes:
    return _saved(image, "PNG")


def _veiled(image: Image.Image, mode: str) -> Image.Image:
    """Return an image that fades out towards its corners."""
    width, height = image.size
    y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j] if min(width, height) > 1 else np.zeros((2, height, width))
    alpha = np.clip(510 * (1.1 - np.hypot(x, y)), 0, 255).astype(np.uint8)
    result = image.convert(mode)
    result.putalpha(Image.fromarray(alpha))
    return result


def _turned(image: Image.Image, rng: np.random.Generator) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = int(rng.integers(2, 9))
    return _saved(image, "JPEG", quality=95, exif=exif)


def _scaled(image: Image.Image, rng: np.random.Generator, low: float, high: float) -> Image.Image:
    size = (max(1, round(side * float(rng.uniform(low, high)))) for side in image.size)
    width, height = size
    return image.resize((min(width, 2000), min(height, 2000)), Image.Resampling.BILINEAR)


def _strip(image: Image.Image, rng: np.random.Generator, tall: bool) -> bytes:
    width, height = image.size
    share = float(rng.uniform(0.2, 0.7))
    size = (max(1, int(width * share)), height) if tall else (width, max(1, int(height * share)))
    return _saved(image.crop((0, 0, *size)), "PNG")


def _deep(image: Image.Image, _rng: np.random.Generator) -> bytes:
    return _saved(Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257), "PNG")


# What files come as: a name, and how one is made from an RGB image.
_FORMS: dict[str, Draw] = {
    "grey": lambda image, _: _saved(image.convert("L"), "PNG"),
    "turned": _turned,
    "large-jpeg": lambda image, rng: _saved(_scaled(image, rng, 3, 9), "JPEG", quality=90),
    "alpha": lambda image, _: _saved(_veiled(image, "RGBA"), "PNG"),
    "cmyk": lambda image, _: _saved(image.convert("CMYK"), "JPEG", quality=95),
    "tall": lambda image, rng: _strip(image, rng, tall=True),
    "palette": lambda image, _: _saved(image.quantize(64), "PNG"),
    "larger": lambda image, rng: _saved(_scaled(image, rng, 1.1, 3), "PNG"),
    "grey-jpeg": lambda image, rng: _saved(_scaled(image, rng, 1, 4).convert("L"), "JPEG"),
    "wide": lambda image, rng: _strip(image, rng, tall=False),
    "grey-alpha": lambda image, _: _saved(_veiled(image.convert("L"), "L"), "PNG"),
    "smaller": lambda image, rng: _saved(_scaled(image, rng, 0.2, 0.9), "WEBP", lossless=True),
    "grey-16": _deep,
}
