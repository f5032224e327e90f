"""Which class and split a file belongs to, from its path alone; one rule for folders, zip and tar archives."""

from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from thawlab.data.types import Split
from thawlab.errors import UsageError, listed, nearest

SPLIT_NAMES: dict[str, Split] = {"train": "train", "training": "train", "val": "val", "valid": "val", "validation": "val"}
SPLIT_NAMES |= {"dev": "val", "test": "test", "testing": "test"}
EXTENSIONS = frozenset({".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".bmp", ".gif", ".webp", ".tif", ".tiff"})
EXTENSIONS |= {".ppm", ".pgm", ".pbm", ".pnm", ".jp2", ".avif", ".ico", ".tga"}
_LITTER = frozenset({"thumbs.db", "desktop.ini", "__macosx"})


class Placed(NamedTuple):
    """A file with the class and the split that its path gives it."""

    path: str
    label: str
    split: Split


def is_litter(path: str) -> bool:
    """Return whether a path is hidden or one of the files that operating systems leave behind."""
    return any(part.startswith(".") or part.lower() in _LITTER for part in PurePosixPath(path).parts)


def has_image_extension(path: str) -> bool:
    """Return whether the file's name claims to be an image."""
    return PurePosixPath(path).suffix.lower() in EXTENSIONS


def looks_like_image(head: bytes) -> bool:
    """Return whether a file starts like one of the common image formats, whatever its name claims."""
    starts = (b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF8", b"BM", b"II*\x00", b"MM\x00*")
    return head.startswith(starts) or (head[:4] == b"RIFF" and head[8:12] == b"WEBP")


def _common_top(parts: Sequence[tuple[str, ...]]) -> int:
    """Return how many leading folders all files share without losing the class folder.

    An archive often has one extra folder on top (Kaggle's have). A single top folder is skipped while it is no split's name
    and holds folders itself; images that lie beside those folders then belong to no class.
    """
    depth = 0
    while True:
        tops = {path[depth].lower() for path in parts if len(path) > depth + 1}
        below = {path[depth + 1] for path in parts if len(path) > depth + 2}
        if len(tops) != 1 or not below or tops & SPLIT_NAMES.keys():
            return depth
        depth += 1


def _tops_are_splits(parts: Sequence[tuple[str, ...]], origin: str) -> bool:
    """Return whether the top folders are splits rather than classes: a class may be called "train" or "test".

    They are where all of them have a split's name, as in a data set to judge on. They are not where none that is called
    "train" has folders in it. Otherwise the folders beside it decide: another split's name, or the same classes inside.

    Raises:
        UsageError: if both readings are possible.
    """
    inside: dict[str, set[str]] = defaultdict(set)
    for path in parts:
        if len(path) > 1:
            inside[path[0].lower()].update(path[1:-1][:1])
    splits = inside.keys() & SPLIT_NAMES.keys()
    classes = set().union(*(inside[top] for top in splits if SPLIT_NAMES[top] == "train"))
    others = sorted(inside.keys() - splits)
    if not others or not classes:
        return not others
    unlike = [top for top in others if not inside[top] or inside[top] - classes]
    if unlike and all(SPLIT_NAMES[top] == "train" for top in splits):
        train = min(splits)
        raise UsageError(
            f"{origin}: '{train}' may be a class like '{unlike[0]}', or the train split with the classes "
            f"{listed(sorted(classes), 3)}; rename '{train}' if it is a class, or move the folders beside it elsewhere"
        )
    return True


def place_files(paths: Iterable[str], origin: str) -> tuple[list[Placed], list[tuple[str, str]]]:
    """Give each file its class and split.

    Recognised are a folder per class, the same under `train`, `val`, `test` (also `Training`, `Validation`, `Test`, in any
    case), and either of these inside one extra folder. Images may lie deeper than the class folder. The paths are relative to
    the source (`origin`), with forward slashes.

    Returns:
        The placed files in sorted order, and the files that belong to no class, with the reason.

    Raises:
        UsageError: if no class folder is found, or a folder may be a class or a split.
    """
    parts = sorted(tuple(PurePosixPath(path).parts) for path in paths)
    expected = f"expected a folder per class, for example {origin}/cat/1.jpg"
    if not parts:
        raise UsageError(f"{origin}: no images found; {expected}")
    depth = _common_top(parts)
    above = int(_tops_are_splits([path[depth:] for path in parts], origin))  # folders above the class folder
    placed, ignored = [], []
    for path in parts:
        name, rest = "/".join(path), path[depth:]
        top = rest[0].lower() if rest else ""
        if above and len(rest) > 1 and top not in SPLIT_NAMES:
            ignored.append((name, "lies beside the train folder"))
        elif len(rest) < above + 2:
            ignored.append((name, "lies in no class folder"))
        else:
            placed.append(Placed(name, rest[above], SPLIT_NAMES[top] if above else "train"))
    if not placed:
        raise UsageError(f"{origin}: images lie in no class folder; {expected}")
    return placed, ignored


def class_names(placed: Sequence[Placed], origin: str) -> tuple[str, ...]:
    """Return the class names, sorted, after checking that the splits agree on them.

    Raises:
        UsageError: if a class occurs outside the training split only: the model could never predict it.
    """
    by_split: dict[str, set[str]] = defaultdict(set)
    for item in placed:
        by_split[item.split].add(item.label)
    classes = sorted(by_split["train"] or set().union(*by_split.values()))
    for split, names in by_split.items():
        extra = sorted(names - set(classes))
        if extra:
            raise UsageError(
                f"{origin}: the {split} split has the class '{extra[0]}' that the train split lacks; rename or remove it"
                f"{nearest(extra[0], classes)}"
            )
    return tuple(classes)
