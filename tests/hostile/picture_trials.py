"""Tasks of `ordeal.py`: decode hostile pictures as training does."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from hostile_pictures import mutated, seeds

from thawlab.data.decode import BadImageError, decode
from thawlab.data.preprocessing import Preprocessing

LOOKS = tuple(Preprocessing(size=64, resize=way, mean=(0.5,) * 3, std=(0.5,) * 3) for way in ("upsample", "pad", "crop"))


def tried(content: bytes, number: int = 0) -> str:
    """Decode a picture, and return whether it could be; any error but ours is raised."""
    try:
        pixels = decode(content, LOOKS[number % len(LOOKS)])
    except BadImageError as error:
        reason = str(error)
        if not reason or "\n" in reason:
            raise AssertionError(f"no single line: {reason!r}") from None
        return "too large" if reason.startswith("too large") else "refused"
    assert pixels.shape == (64, 64, 3)
    return "decoded"


def mutations(_: str) -> Callable[[int], str]:
    """Return the task for mutated pictures, ready: all decoders have been used once."""
    for content in seeds().values():
        tried(content)
    return lambda number: tried(mutated(number)[1], number)


def files(folder: str) -> Callable[[int], str]:
    """Return the task for the files of a folder, sorted by name."""
    tried(next(iter(seeds().values())))
    found = sorted(path for path in Path(folder).iterdir() if path.suffix != ".md")
    return lambda number: tried(found[number % len(found)].read_bytes(), number)
