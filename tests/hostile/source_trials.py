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
from thawlab.errors import ThawlabError

_LOOKED_AT = 300


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
    check_line(" ".join((*listing.classes, *listing.notes, *listing.ids)))
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
    if not text.isprintable() and not text.replace("\xa0", " ").replace("�", "").isprintable():
        raise AssertionError(f"no line for people: {text[:300]!r}")


def sources(folder: str) -> Callable[[int], str]:
    """Return the task for the sources in a folder, sorted by name; warm, so that imports do not count."""
    found = sorted(Path(folder).iterdir())
    warm = Path(folder).parent / "warm"
    warm.mkdir(exist_ok=True)
    (warm / "x.csv").write_text("path,label\n")
    opened(warm / "x.csv")
    return lambda number: opened(found[number])
