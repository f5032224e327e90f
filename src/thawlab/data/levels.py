"""What each level of a tree of folders stands for: splits, classes, groups, or nothing.

Wrong data must not be read silently. A level of splits never becomes the classes: where names and structure leave two
readings, the tree is refused with the words that decide (`data.layout`).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, final

from thawlab.data.split_names import SplitName, is_filler, is_fold, split_name
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed


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


class Understood(NamedTuple):
    """How a tree is read.

    Attributes:
        layout: the roles of its levels from the top, e.g. "split/class".
        classes: for the path of each class folder, what the levels above it say.
        below: the role of the level below the classes: "split", "group" or "".
        aside: why folders that belong to no class were left out, by path.
    """

    layout: str
    classes: Mapping[tuple[str, ...], Branch]
    below: str
    aside: Mapping[tuple[str, ...], str]


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


def understand(root: Folder, origin: str) -> Understood:
    """Tell what each level of a tree stands for.

    Recognised are a folder per class; the same below folders of splits or of numbered parts (folds), which become groups; the
    splits or folds below the classes; and all of these inside further folders that mean nothing.

    Raises:
        UsageError: where two readings are possible, or the folders of splits hold no folders of classes.
    """
    aside: dict[tuple[str, ...], str] = {}
    roles: list[str] = []
    top = root
    while (only := _only_child(top)) is not None and not _is_plain_split(only):
        top, roles = only, [*roles, "*"]
    branches = [Branch(top)]
    if _is_split_level(top, origin):
        branches = _split(top, aside)
        roles.append("split")
        inner = [_inside_wrappers(branch) for branch in branches]
        if inner != branches:
            branches, roles = inner, [*roles, "*"]
    if _is_group_level([branch.folder for branch in branches], origin):
        branches = [
            branch._replace(folder=child, group=child.name) for branch in branches for child in branch.folder.children.values()
        ]
        roles.append("group")
    split_above = "split" in roles
    below = _role_below([child for branch in branches for child in branch.folder.children.values()], split_above, origin)
    prefix = "".join(f"{role}/" for role in roles)
    classes = {child.path: branch for branch in branches for child in branch.folder.children.values()}
    if not below:
        _refuse_copies(branches, prefix, origin)
    _refuse_hidden_splits(branches, 2 if below else 1, origin)
    return Understood(f"{prefix}class{'/' if below else ''}{below}", classes, below, aside)


def _only_child(folder: Folder) -> Folder | None:
    """Return the one folder in a folder, where it holds folders itself: an archive often has one extra folder on top."""
    children = list(folder.children.values())
    return children[0] if len(children) == 1 and children[0].children else None


def _is_plain_split(folder: Folder) -> bool:
    name = split_name(folder.name)
    return name is not None and name.is_plain


def _inside_wrappers(branch: Branch) -> Branch:
    """Go into the folders of a split that mean nothing: `train/images/cat`, `seg_train/seg_train/cat`."""
    folder = branch.folder
    while (only := _only_child(folder)) is not None and (
        only.name == folder.name or is_filler(only.name) or split_name(only.name) is not None
    ):
        folder = only
    return branch._replace(folder=folder)


def _is_split_level(folder: Folder, origin: str) -> bool:
    """Return whether the folders in a folder are splits rather than classes: a class may be called "train".

    Raises:
        UsageError: if both readings are possible, or splits hold no classes.
    """
    names = {name: found for name in folder.children if (found := split_name(name)) is not None}
    if not names:
        return False
    others = [name for name in folder.children if name not in names]
    deep = [name for name in names if folder.children[name].children]
    if not deep:
        return _flat_is_split_level(folder, names, others, origin)
    if _spoken_of(names):
        if "train" in {names[name].split for name in deep} or not others:
            return True
    elif not others and all(found.is_plain for found in names.values()):
        return True
    raise _unclear(folder, names, others, origin)


def _spoken_of(names: Iterable[str]) -> set[Split]:
    """Return the splits that folders side by side stand for by their names; empty unless there are two of them.

    "train" and "seg_test" are, and so are "seg_train" and "seg_test"; "bullet_train" and "crash_test" are not.
    """
    found = [name for name in map(split_name, names) if name is not None]
    splits = {name.split for name in found}
    together = any(len({other.split for other in found if other.rest == name.rest}) > 1 for name in found)
    return splits if len(splits) > 1 and (together or any(name.is_plain for name in found)) else set()


def _flat_is_split_level(folder: Folder, names: Mapping[str, SplitName], others: Sequence[str], origin: str) -> bool:
    """Judge folders with names of splits that hold images and no folders."""
    plain = {found.split for found in names.values() if found.is_plain}
    if not _spoken_of(names) and others and plain == {"train"}:
        return False  # a class among others may be called "train"; "test" may be images without labels
    if not _spoken_of(names) and not plain:
        return False  # steam-train and freight-train; bullet_train and crash_test
    if others:
        raise _unclear(folder, names, others, origin)
    raise UsageError(
        f"{_place(folder, origin)}: {listed(sorted(names), 3)} hold images but no folders of classes; put a folder per class "
        "into each, give a CSV with the columns path, label and split, or, if they are the classes, write data.layout=class"
    )


def _unclear(folder: Folder, names: Mapping[str, SplitName], others: Sequence[str], origin: str) -> UsageError:
    first = min(names)
    inside = sorted(folder.children[first].children)
    beside = f" like '{min(others)}'" if others else ""
    depth = "*/" * len(folder.path)
    if not inside:
        return UsageError(
            f"{_place(folder, origin)}: '{first}' may be a class{beside}, or images of the {names[first].split} split in no "
            f"class; write data.layout={depth}class if it is a class, or else move it elsewhere"
        )
    return UsageError(
        f"{_place(folder, origin)}: '{first}' may be a class{beside}, or the {names[first].split} split with the classes "
        f"{listed(inside, 3)}; write data.layout={depth}class or data.layout={depth}split/class, whichever is true"
    )


def _place(folder: Folder, origin: str) -> str:
    return "/".join([origin, *folder.path])


def _split(top: Folder, aside: dict[tuple[str, ...], str]) -> list[Branch]:
    branches = []
    for name, child in top.children.items():
        found = split_name(name)
        if found is None:
            aside[child.path] = "lies beside the folders of the splits"
        else:
            branches.append(Branch(child, found.split))
    return branches


def _is_group_level(folders: Sequence[Folder], origin: str) -> bool:
    """Return whether the folders in folders are numbered parts of the data, each with folders of classes.

    Raises:
        UsageError: if they hold images and no folders of classes, or splits.
    """
    children = [child for folder in folders for child in folder.children.values()]
    if len(children) < 2 or not all(is_fold(child.name) for child in children):
        return False
    inside = sorted({name for child in children for name in child.children})
    if not inside and all(child.name.lower().startswith("part") for child in children):
        return False  # parts of a machine
    names = listed(sorted({child.name for child in children}), 3)
    if not inside:
        raise UsageError(
            f"{origin}: {names} hold images but no folders of classes; put a folder per class into each, or, if they are the "
            f"classes, write data.layout={'*/' * len(folders[0].path)}class"
        )
    if all(split_name(name) is not None for name in inside):
        raise UsageError(f"{origin}: each of {names} has splits of its own ({listed(inside, 3)}); give one of them as the source")
    return True


def _role_below(classes: Sequence[Folder], split_above: bool, origin: str) -> str:
    """Return the role of the level below the class folders: "split", "group" or "".

    Raises:
        UsageError: if it is one of splits in some classes only, or the class folders are data sets of their own.
    """
    parted = [folder for folder in classes if _spoken_of(folder.children)]
    if parted and not split_above:
        sets = [folder for folder in parted if any(child.children for child in folder.children.values())]
        if sets:
            names = listed(sorted(folder.name for folder in classes), 3)
            raise UsageError(
                f"{origin}: {names} look like data sets side by side, each with splits of its own; give one of them as the source"
            )
        strange = [folder for folder in classes if folder.images or not _holds_only(folder, _names_split)]
        if strange:
            raise UsageError(
                f"{_place(strange[0], origin)}: holds images outside of the splits that {_place(parted[0], origin)} has "
                f"({listed(sorted(parted[0].children), 3)}); sort them into such folders, or remove them"
            )
        return "split"
    if any(len(folder.children) > 1 for folder in classes):
        return "group" if all(_holds_only(folder, is_fold) and not folder.images for folder in classes) else ""
    return ""


def _names_split(name: str) -> bool:
    return split_name(name) is not None


def _holds_only(folder: Folder, fits: Callable[[str], bool]) -> bool:
    return bool(folder.children) and all(fits(name) for name in folder.children)


def _refuse_copies(branches: Sequence[Branch], prefix: str, origin: str) -> None:
    """Refuse folders that may be data sets or parts of one rather than classes: they hold folders of the same names.

    Raises:
        UsageError: naming them.
    """
    inside: dict[str, set[str]] = {}
    images: set[str] = set()
    for branch in branches:
        for top in branch.folder.children.values():
            inside.setdefault(top.name, set()).update(_inside_wrappers(Branch(top)).folder.children)
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


def _refuse_hidden_splits(branches: Sequence[Branch], depth: int, origin: str) -> None:
    """Refuse splits further down than they are looked for: their test images would be trained on.

    Raises:
        UsageError: naming the first folder that holds them.
    """
    for branch in branches:
        for folder in branch.folder.walk():
            if len(folder.path) < len(branch.folder.path) + depth:
                continue
            if _spoken_of(folder.children):
                raise UsageError(
                    f"{_place(folder, origin)}: holds splits ({listed(sorted(folder.children), 3)}) below a class; move them "
                    "above the classes, or directly below each class"
                )


def by_roles(root: Folder, layout: str, origin: str) -> Understood:
    """Read a tree as its owner says.

    Args:
        root: of the tree.
        layout: the role of each level from the top: one "class", at most one "split" and one "group", and "*" for what means
            nothing; e.g. "*/split/class".
        origin: for messages.

    Raises:
        UsageError: if a folder at the level of splits names none.
    """
    above, _, below = layout.partition("class")
    aside: dict[tuple[str, ...], str] = {}
    branches = [Branch(root)]
    for role in above.split("/")[:-1]:
        inner = []
        for branch in branches:
            for child in branch.folder.children.values():
                found = split_name(child.name) if role == "split" else None
                if role == "split" and found is None:
                    aside[child.path] = "is no folder of a split"
                    continue
                split, group = found.split if found else branch.split, child.name if role == "group" else branch.group
                inner.append(Branch(child, split, group))
        branches = inner
    classes = {child.path: branch for branch in branches for child in branch.folder.children.values()}
    if not classes:
        raise UsageError(f"{origin}: no images lie as deep as data.layout = '{layout}' says")
    return Understood(layout, classes, below.strip("/*"), aside)
