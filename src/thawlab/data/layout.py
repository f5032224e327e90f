"""Which class and split a file belongs to, from its path alone; one rule for folders, zip and tar archives."""

import re
import unicodedata
from collections import defaultdict
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath
from typing import NamedTuple

from thawlab.data.folder_tree import tree_of
from thawlab.data.levels import by_roles, understand
from thawlab.data.split_names import split_names
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed, nearest, plain

# What operating systems, network drives and other programs leave behind, beside all that begins with a dot.
_LITTER = frozenset({"thumbs.db", "ehthumbs.db", "desktop.ini", "__macosx", "@eadir", "#recycle", "@recycle", "$recycle.bin"})
_LITTER |= {"lost.dir", "recycled", "~snapshot", "network trash folder", "temporary items", "@tmp", "@synoresource", "_gsdata_"}
_LITTER |= {
    "config.msi",
    "wpsystem",
    "android_secure",
    "recycler",
    "system volume information",
    "lost+found",
    "__pycache__",
    "@recently-snapshot",
    "#snapshot",
}
_LITTER_STARTS = (".", "synofile_thumb", "@__thumb", "~$")


# Pieces that a check of a disk found, and an editor's copies.
_LEFT_BEHIND = re.compile(r"found\.\d{3}|.+~")


class Placed(NamedTuple):
    """A file with what its path says of it.

    Attributes:
        path: relative to the source.
        label: the name of its class.
        split: the split that it belongs to.
        group: equal for files that belong together; "" where nothing is said.
    """

    path: str
    label: str
    split: Split
    group: str = ""


class Placement(NamedTuple):
    """Where files belong.

    Attributes:
        placed: those of a class, in sorted order.
        ignored: the others, with the reason.
        layout: what the levels of folders were taken for, e.g. "split/class".
        homes: the folders of the classes.
    """

    placed: list[Placed]
    ignored: list[tuple[str, str]]
    layout: str
    homes: frozenset[str]


def is_litter(path: str) -> bool:
    """Return whether a path is hidden or something that operating systems, network drives and programs leave behind."""
    parts = [part.lower() for part in PurePosixPath(path).parts]
    return any(part in _LITTER or part.startswith(_LITTER_STARTS) or _LEFT_BEHIND.fullmatch(part) for part in parts)


def natural(name: str) -> tuple[list[tuple[int, int, str]], str]:
    """Return a key that sorts names as people do: 2 before 10, and "Apple" beside "apple"."""
    parts = [part for part in re.split(r"([0-9]+)", name) if part]
    return [(0, int(part), "") if part.isdigit() else (1, 0, part.casefold()) for part in parts], name


def place_files(paths: Iterable[str], origin: str, layout: str | None = None) -> Placement:
    """Give each file its class and split.

    Args:
        paths: relative to the source, with forward slashes.
        origin: the source, for messages.
        layout: what each level of folders stands for (see `levels.by_roles`); None to find it out (see `levels.understand`).

    Raises:
        UsageError: if no class folder is found, or a folder may be a class or a split.
    """
    parts = sorted(tuple(PurePosixPath(path).parts) for path in paths)
    expected = f"expected a folder per class, for example {origin}/cat/1.jpg"
    if not parts:
        raise UsageError(f"{origin}: no images found; {expected}")
    tree = tree_of(parts)
    if not tree.children:
        raise UsageError(f"{origin}: images lie in no class folder; {expected}")
    found = understand(tree, origin) if layout is None else by_roles(tree, layout, origin)
    placed, ignored = [], []
    homes = [next((path[:depth] for depth in range(1, len(path)) if path[:depth] in found.classes), None) for path in parts]
    named = split_names({path[len(home)] for path, home in zip(parts, homes, strict=True) if home and len(path) > len(home) + 1})
    for path, home in zip(parts, homes, strict=True):
        if home is None:
            above = (path[:depth] for depth in range(1, len(path)))
            reason = next((found.aside[folder] for folder in above if folder in found.aside), "lies in no class folder")
            ignored.append(("/".join(path), reason))
            continue
        branch, split, group = found.classes[home], found.classes[home].split, found.classes[home].group
        deeper = path[len(home)] if len(path) > len(home) + 1 else ""
        if found.below == "split" and deeper in named:
            split = named[deeper].split
        elif found.below == "split":
            ignored.append(("/".join(path), "is in no folder of a split"))
            continue
        if found.below == "group":
            group = deeper
        placed.append(Placed("/".join(path), home[-1], split or "train", group or branch.group))
    if not placed:
        raise UsageError(f"{origin}: images lie in no class folder; {expected}")
    return Placement(placed, ignored, found.layout, frozenset("/".join(home) for home in found.classes))


def plain_spelling(label: str) -> str:
    """Return a class's name in Unicode's composed form, with control characters written out and without blanks around it."""
    return plain(unicodedata.normalize("NFC", label).strip() or label)


def one_spelling(placed: Sequence[Placed]) -> tuple[list[Placed], tuple[str, ...]]:
    """Return the files with class names that differ by Unicode's normal form or by blanks around them made one, with a note.

    "Café" written on one system with one character and on another with two is one class; nobody sees the difference.
    """
    meant: dict[str, set[str]] = defaultdict(set)
    for item in placed:
        meant[plain_spelling(item.label)].add(item.label)
    if all(len(spellings) == 1 and name in spellings for name, spellings in meant.items()):
        return list(placed), ()
    name_of = {spelling: name for name, spellings in meant.items() for spelling in spellings}
    notes = [
        f"{listed([ascii(spelling) for spelling in sorted(spellings)], 3)} are read as one class, '{name}'"
        for name, spellings in meant.items()
        if len(spellings) > 1
    ]
    return [item._replace(label=name_of[item.label]) for item in placed], tuple(notes)


def class_names(placed: Sequence[Placed], origin: str) -> tuple[str, ...]:
    """Return the class names in their natural order, after checking that the splits agree on them.

    Raises:
        UsageError: if a class occurs outside the training split only: the model could never predict it.
    """
    by_split: dict[str, set[str]] = defaultdict(set)
    for item in placed:
        by_split[item.split].add(item.label)
    classes = sorted(by_split["train"] or set().union(*by_split.values()), key=natural)
    for split, names in by_split.items():
        extra = sorted(names - set(classes))
        if extra:
            raise UsageError(
                f"{origin}: the {split} split has the class '{extra[0]}' that the train split lacks; rename or remove it"
                f"{nearest(extra[0], classes)}"
            )
    return tuple(classes)
