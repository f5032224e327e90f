"""What each level of a tree of folders stands for: splits, classes, groups, or nothing.

Wrong data must not be read silently. A level of splits never becomes the classes: where names and structure leave two
readings, the tree is refused with the words that decide (`data.layout`).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from thawlab.data.below_classes import refuse_copies, refuse_hidden_splits, refuse_splits_in_classes, role_below
from thawlab.data.folder_tree import Branch, Folder, only_child
from thawlab.data.split_levels import inside_wrappers, is_group_level, is_plain_split, is_split_level, split_branches
from thawlab.data.split_names import split_names
from thawlab.errors import UsageError


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
    while (only := only_child(top)) is not None and not is_plain_split(only):
        top, roles = only, [*roles, "*"]
    branches = [Branch(top)]
    if is_split_level(top, origin):
        branches = split_branches(top, aside)
        roles.append("split")
        inner = [inside_wrappers(branch) for branch in branches]
        if inner != branches:
            branches, roles = inner, [*roles, "*"]
    grouped = [branch for branch in branches if is_group_level(branch.folder, origin)]
    if grouped:
        parts = [
            branch._replace(folder=child, group=child.name) for branch in grouped for child in branch.folder.children.values()
        ]
        branches = [*(branch for branch in branches if branch not in grouped), *parts]
        roles.append("group")
    split_above = "split" in roles
    below = role_below([child for branch in branches for child in branch.folder.children.values()], split_above, origin)
    prefix = "".join(f"{role}/" for role in roles)
    classes = {child.path: branch for branch in branches for child in branch.folder.children.values()}
    if not below:
        refuse_copies(branches, prefix, origin)
    refuse_hidden_splits(branches, 2 if below else 1, origin)
    return Understood(f"{prefix}class{'/' if below else ''}{below}", classes, below, aside)


def by_roles(root: Folder, layout: str, origin: str) -> Understood:
    """Read a tree as its owner says.

    Args:
        root: of the tree.
        layout: the role of each level from the top: one "class", at most one "split" and one "group", and "*" for what means
            nothing; e.g. "*/split/class". "class/*" takes all that lies below a class, splits or not.
        origin: for messages.

    Raises:
        UsageError: if no images lie so deep, or a class holds splits of which the layout says nothing.
    """
    above, _, below = layout.partition("class")
    aside: dict[tuple[str, ...], str] = {}
    branches = [Branch(root)]
    for role in above.split("/")[:-1]:
        inner = []
        named = split_names(name for branch in branches for name in branch.folder.children)
        for branch in branches:
            for child in branch.folder.children.values():
                found = named.get(child.name) if role == "split" else None
                if role == "split" and found is None:
                    aside[child.path] = "is no folder of a split"
                    continue
                split, group = found.split if found else branch.split, child.name if role == "group" else branch.group
                inner.append(Branch(child, split, group))
        branches = inner
    classes = {child.path: branch for branch in branches for child in branch.folder.children.values()}
    if not classes:
        raise UsageError(f"{origin}: no images lie as deep as data.layout = '{layout}' says")
    if not below:
        refuse_splits_in_classes(branches, layout, origin)
    return Understood(layout, classes, below.strip("/*"), aside)
