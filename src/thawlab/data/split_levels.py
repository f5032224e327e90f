"""Which folders side by side are splits, or numbered parts, of the data, rather than classes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from thawlab.data.folder_tree import Branch, Folder, only_child, place
from thawlab.data.split_names import SplitName, is_filler, is_fold, split_name, split_names
from thawlab.data.types import Split
from thawlab.errors import UsageError, listed


def is_plain_split(folder: Folder) -> bool:
    """Return whether the name of a folder says nothing but a split."""
    name = split_name(folder.name)
    return name is not None and name.is_plain


def inside_wrappers(branch: Branch) -> Branch:
    """Go into the folders of a split that mean nothing: `train/images/cat`, `seg_train/seg_train/cat`."""
    folder = branch.folder
    while (only := only_child(folder)) is not None and (
        only.name == folder.name or is_filler(only.name) or split_name(only.name) is not None
    ):
        folder = only
    return branch._replace(folder=folder)


def is_split_level(folder: Folder, origin: str) -> bool:
    """Return whether the folders in a folder are splits rather than classes: a class may be called "train".

    Raises:
        UsageError: if both readings are possible, or splits hold no classes.
    """
    names = split_names(folder.children)
    if not names:
        return False
    others = [name for name in folder.children if name not in names]
    deep = [name for name in names if folder.children[name].children]
    if not deep:
        return _flat_is_split_level(folder, names, others, origin)
    if others and all(map(is_fold, others)) and all(found.is_plain for found in names.values()):
        return True  # the folds are what is trained on, beside a test split of its own
    if spoken_of(names):
        if "train" in {names[name].split for name in deep} or not others:
            return True
    elif not others and all(found.is_plain for found in names.values()):
        return True
    raise _unclear(folder, names, others, origin)


def spoken_of(names: Iterable[str]) -> set[Split]:
    """Return the splits that folders side by side stand for by their names; empty unless there are two of them.

    "train" and "seg_test" are, and so are "seg_train" and "seg_test"; "bullet_train" and "crash_test" are not.
    """
    found = split_names(names).values()
    splits = {name.split for name in found}
    together = any(len({other.split for other in found if other.rest == name.rest}) > 1 for name in found)
    return splits if len(splits) > 1 and (together or any(name.is_plain for name in found)) else set()


def _flat_is_split_level(folder: Folder, names: Mapping[str, SplitName], others: Sequence[str], origin: str) -> bool:
    """Judge folders with names of splits that hold images and no folders."""
    plain = {found.split for found in names.values() if found.is_plain}
    if not spoken_of(names) and others and plain == {"train"}:
        return False  # a class among others may be called "train"; "test" may be images without labels
    if not spoken_of(names) and not plain:
        return False  # steam-train and freight-train; bullet_train and crash_test
    if others:
        raise _unclear(folder, names, others, origin)
    raise UsageError(
        f"{place(folder, origin)}: {listed(sorted(names), 3)} hold images but no folders of classes; put a folder per class "
        "into each, give a CSV with the columns path, label and split, or, if they are the classes, write data.layout=class"
    )


def _unclear(folder: Folder, names: Mapping[str, SplitName], others: Sequence[str], origin: str) -> UsageError:
    first = min(names)
    inside = sorted(folder.children[first].children)
    beside = f" like '{min(others)}'" if others else ""
    depth = "*/" * len(folder.path)
    if not inside:
        return UsageError(
            f"{place(folder, origin)}: '{first}' may be a class{beside}, or images of the {names[first].split} split in no "
            f"class; write data.layout={depth}class if it is a class, or else move it elsewhere"
        )
    return UsageError(
        f"{place(folder, origin)}: '{first}' may be a class{beside}, or the {names[first].split} split with the classes "
        f"{listed(inside, 3)}; write data.layout={depth}class or data.layout={depth}split/class, whichever is true"
    )


def split_branches(top: Folder, aside: dict[tuple[str, ...], str]) -> list[Branch]:
    """Return the folders of splits, and write down why the others are left out.

    Beside "train", folders such as "train_masks" or "train - copy" are something else of the same split, or the same again.
    """
    found = split_names(top.children)
    plain = {said.split: name for name, said in found.items() if said.is_plain}
    branches = []
    for name, child in top.children.items():
        if name not in found and plain and is_fold(name):
            branches.append(Branch(child, "train", name))
        elif name not in found:
            aside[child.path] = "lies beside the folders of the splits"
        elif not found[name].is_plain and found[name].split in plain:
            aside[child.path] = f"lies beside '{plain[found[name].split]}', the {found[name].split} split"
        else:
            branches.append(Branch(child, found[name].split))
    return branches


def is_group_level(folder: Folder, origin: str) -> bool:
    """Return whether the folders in a folder are numbered parts of the data, each with folders of classes.

    Raises:
        UsageError: if they hold images and no folders of classes, or splits.
    """
    children = list(folder.children.values())
    if not children or not all(is_fold(child.name) for child in children):
        return False
    inside = sorted({name for child in children for name in child.children})
    if not inside and all(child.name.lower().startswith("part") for child in children):
        return False  # parts of a machine
    names = listed(sorted({child.name for child in children}), 3)
    if not inside:
        raise UsageError(
            f"{origin}: {names} hold images but no folders of classes; put a folder per class into each, or, if they are the "
            f"classes, write data.layout={'*/' * len(folder.path)}class"
        )
    if split_names(inside).keys() == set(inside):
        raise UsageError(f"{origin}: each of {names} has splits of its own ({listed(inside, 3)}); give one of them as the source")
    return True
