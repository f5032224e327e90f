"""What lies below the folders of classes: splits, groups, or what must not be there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from thawlab.data.folder_tree import Branch, Folder, place
from thawlab.data.split_levels import inside_wrappers, spoken_of
from thawlab.data.split_names import is_fold, split_name, split_names
from thawlab.errors import UsageError, listed


def role_below(classes: Sequence[Folder], split_above: bool, origin: str) -> str:
    """Return the role of the level below the class folders: "split", "group" or "".

    Raises:
        UsageError: if it is one of splits in some classes only, or the class folders are data sets of their own.
    """
    parted = [folder for folder in classes if _holds_splits(folder)]
    if parted and not split_above:
        sets = [folder for folder in parted if any(child.children for child in folder.children.values())]
        if sets:
            names = listed(sorted(folder.name for folder in classes), 3)
            raise UsageError(
                f"{origin}: {names} look like data sets side by side, each with splits of its own; give one of them as the source"
            )
        named = split_names(child for folder in classes for child in folder.children)
        strange = [folder for folder in classes if folder.images or not _holds_only(folder, named.__contains__)]
        if strange:
            raise UsageError(
                f"{place(strange[0], origin)}: holds images outside of the splits that {place(parted[0], origin)} has "
                f"({listed(sorted(parted[0].children), 3)}); sort them into such folders, or remove them"
            )
        return "split"
    if any(len(folder.children) > 1 for folder in classes):
        return "group" if all(_holds_only(folder, is_fold) and not folder.images for folder in classes) else ""
    return ""


def _holds_splits(folder: Folder) -> bool:
    """Return whether a folder holds splits: several, or one that is kept from training and says nothing else ("test")."""
    alone = [name for name in map(split_name, folder.children) if name is not None and name.is_plain]
    only = len(alone) == len(folder.children) and not folder.images
    return bool(spoken_of(folder.children)) or (bool(alone) and (only or any(name.split != "train" for name in alone)))


def _holds_only(folder: Folder, fits: Callable[[str], bool]) -> bool:
    return bool(folder.children) and all(fits(name) for name in folder.children)


def refuse_copies(branches: Sequence[Branch], prefix: str, origin: str) -> None:
    """Refuse folders that may be data sets or parts of one rather than classes: they hold folders of the same names.

    Raises:
        UsageError: naming them.
    """
    inside: dict[str, set[str]] = {}
    images: set[str] = set()
    for branch in branches:
        for top in branch.folder.children.values():
            inside.setdefault(top.name, set()).update(inside_wrappers(Branch(top)).folder.children)
            images.update([top.name] if top.images else [])
    for name, children in inside.items():
        twice = sorted(children & (inside.keys() - {name}))
        if len(twice) > 1:
            raise UsageError(
                f"{origin}: '{name}' holds the same folders as lie beside it ({listed(twice, 3)}): a copy of the data set, or a "
                f"class? Remove it, or write data.layout={prefix}class"
            )
    counts = Counter(child for children in inside.values() for child in children)
    shared = sorted(name for name, count in counts.items() if count > 1)
    if len(shared) > 1 and len(shared) > len(counts) / 2 and not images:
        raise UsageError(
            f"{origin}: {listed(sorted(inside), 3)} hold folders of the same names ({listed(shared, 3)}); which are the classes? "
            f"Write data.layout={prefix}class for the former, data.layout={prefix}*/class for the latter, or give one of the "
            "folders as the source if they are copies"
        )


def refuse_hidden_splits(branches: Sequence[Branch], depth: int, origin: str) -> None:
    """Refuse splits further down than they are looked for: their test images would be trained on.

    Raises:
        UsageError: naming the first folder that holds them.
    """
    for branch in branches:
        for folder in branch.folder.walk():
            if len(folder.path) < len(branch.folder.path) + depth:
                continue
            if _holds_splits(folder):
                raise UsageError(
                    f"{place(folder, origin)}: holds splits ({listed(sorted(folder.children), 3)}) below a class; move them "
                    "above the classes, or directly below each class"
                )


def refuse_splits_in_classes(branches: Sequence[Branch], layout: str, origin: str) -> None:
    """Refuse splits below the classes of a layout that does not speak of them.

    Raises:
        UsageError: naming the first folder that holds them, and both layouts that do speak of them.
    """
    for branch in branches:
        for folder in branch.folder.children.values():
            if _holds_splits(folder):
                raise UsageError(
                    f"{place(folder, origin)}: holds splits ({listed(sorted(folder.children), 3)}); write "
                    f"data.layout={layout}/split to keep them apart, or data.layout={layout}/* to take all of it as one class"
                )
