"""Tasks of `ordeal.py`: open hostile sources as `data check` and training do, read their pictures and decode them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from picture_trials import LOOKS

from thawlab.data.decode import BadImageError, decode
from thawlab.data.depth import with_grey_range
from thawlab.data.listing import Listing
from thawlab.data.paths import open_path
from thawlab.errors import ThawlabError, plain
from thawlab.recipe import parse_recipe
from thawlab.recipe_text import read_recipe, with_overrides

_LOOKED_AT = 300
_SMALL = {
    "data": {"source": "digits"},
    "model": {"backbone": "bundled"},
    "phases": [{"name": "head", "train": "head", "epochs": 1, "lr": 0.01}],
}


def opened(path: Path) -> str:
    """Open a source and read the pictures in it; return how it ended. Any error but ours is raised."""
    try:
        listing = open_path(path)
        with_grey_range(LOOKS[0], listing)
    except ThawlabError as error:
        check_line(str(error))
        return "refused"
    for name, reason in listing.ignored:
        check_line(f"{name}: {reason}")
    check_line(" ".join((listing.name, *listing.classes, *listing.notes, *listing.ids)))
    with ThreadPoolExecutor(4) as pool:
        read = sum(pool.map(lambda index: _read(listing, index), range(min(len(listing), _LOOKED_AT))))
    return "read" if read == len(listing) and not listing.ignored else "read in part"


def _read(listing: Listing, index: int) -> bool:
    try:
        decode(listing.images.read(index), LOOKS[0])
    except (BadImageError, OSError) as error:
        check_line(str(error))
        return False
    return True


def check_line(text: str) -> None:
    """Refuse what is not one line, or what a terminal would obey."""
    if not text or plain(text) != text:
        raise AssertionError(f"no line for people: {text[:300]!r}")


def sources(folder: str) -> Callable[[int], str]:
    """Return the task for the sources in a folder, sorted by name; warm, so that imports do not count."""
    found = sorted(Path(folder).iterdir())
    warm = Path(folder).parent / "warm"
    warm.mkdir(exist_ok=True)
    (warm / "x.csv").write_text("path,label\n")
    opened(warm / "x.csv")
    return lambda number: opened(found[number])


def recipes(folder: str) -> Callable[[int], str]:
    """Return the task for recipes in a folder: read, as a file and as an override."""
    found = sorted(Path(folder).iterdir())
    parse_recipe(_SMALL)

    def read(number: int) -> str:
        try:
            read_recipe(found[number])
        except ThawlabError as error:
            check_line(str(error))
            return "refused"
        return "read"

    return read


def values(folder: str) -> Callable[[int], str]:
    """Return the task for the recipes' texts as values of an override."""
    found = sorted(Path(folder).iterdir())

    def read(number: int) -> str:
        text = found[number].read_bytes()[:200_000].decode("latin-1")
        try:
            parse_recipe(with_overrides(_SMALL, [f"name={text}", f"data.classes={text}"]))
        except ThawlabError as error:
            check_line(str(error))
            return "refused"
        return "read"

    return read
