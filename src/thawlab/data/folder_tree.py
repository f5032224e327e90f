"""Folders that hold images, as a tree."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import NamedTuple, final

from thawlab.data.types import Split


@final
@dataclass
class Folder:
    """A folder that holds images, directly or further down."""

    name: str
    path: tuple[str, ...] = ()
    images: int = 0
    children: dict[str, Folder] = field(default_factory=dict)

    def walk(self) -> Iterable[Folder]:
        """Yield the folder and all below it."""
        yield self
        for child in self.children.values():
            yield from child.walk()


class Branch(NamedTuple):
    """A folder with what the levels above it say of its images."""

    folder: Folder
    split: Split | None = None
    group: str = ""


def tree_of(paths: Iterable[tuple[str, ...]]) -> Folder:
    """Return the tree of the folders that hold the given files."""
    root = Folder("")
    for path in paths:
        place = root
        for depth, name in enumerate(path[:-1], start=1):
            if name not in place.children:
                place.children[name] = Folder(name, path[:depth])
            place = place.children[name]
        place.images += 1
    return root


def only_child(folder: Folder) -> Folder | None:
    """Return the one folder in a folder, where it holds folders itself: an archive often has one extra folder on top."""
    children = list(folder.children.values())
    return children[0] if len(children) == 1 and children[0].children else None


def place(folder: Folder, origin: str) -> str:
    """Return where a folder lies, for messages."""
    return "/".join([origin, *folder.path])
