"""Openers: a file's suffix leads to the function that lists the images in the file."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from thawlab.data.formats import has_image_extension, is_document, is_unread, kind_of, looks_like_image, why_no_image
from thawlab.data.images import Images, ReadImages
from thawlab.data.layout import Placed, Placement, class_names, is_litter, one_spelling, place_files
from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.types import Indices
from thawlab.errors import UsageError, plain
from thawlab.registry import Registry

_LONGEST_PATH, _DEEPEST = 4096, 100
# An opener is given a path, and what the owner says of it, and lists its images, or raises a `UsageError` that names the file.
Opener = Callable[[Path, Reading], Listing]
openers: Registry[Opener] = Registry("opener")


def opener_of(path: Path) -> Opener | None:
    """Return the opener of a file by the longest suffix that its name ends in; None where there is none."""
    fitting = [suffix for suffix in openers if path.name.lower().endswith(suffix)]
    return openers.get(max(fitting, key=len)) if fitting else None


def arranged(placed: Sequence[Placed], images: Images, name: str, origin: str, **more: Any) -> Listing:
    """Return the listing of images that have a class and a split; `placed` is in the order of `images`.

    Raises:
        UsageError: if the splits do not agree on the classes.
    """
    placed, notes = one_spelling(placed)
    classes = class_names(placed, origin)
    label_of = {label: index for index, label in enumerate(classes)}
    if any(item.group for item in placed) and "groups" not in more:
        more["groups"] = grouped([item.group for item in placed])
    return Listing(
        name=name,
        classes=classes,
        ids=tuple(item.path for item in placed),
        labels=np.array([label_of[item.label] for item in placed], dtype=np.int64),
        splits=np.array([item.split for item in placed]),
        images=images,
        notes=notes,
        **more,
    )


def grouped(names: Sequence[str]) -> Indices:
    """Return a number per image, equal for images of one group; an image with an empty name stands for itself."""
    numbers: dict[str, int] = {}
    return np.array([numbers.setdefault(name or f"\0{index}", len(numbers)) for index, name in enumerate(names)], dtype=np.int64)


def arranged_by_path(
    name: str,
    origin: str,
    folders: Iterable[str],
    files: Iterable[str],
    head_of: Callable[[str], bytes],
    read: Callable[[str], bytes],
    ignored: Sequence[tuple[str, str]] = (),
    reading: Reading = UNSAID,
) -> Listing:
    """Return the listing of files whose paths tell class and split.

    Args:
        name: of the data.
        origin: the source's name, for messages.
        folders: paths of all folders.
        files: paths of all files, images or not.
        head_of: gives the first bytes of a file.
        read: gives all of them.
        ignored: further files that are no images, with the reason.
        reading: what the owner says of the folders.

    Raises:
        UsageError: if a class folder is empty, or no image lies in one.
    """
    folders = [folder for folder in folders if not _is_endless(folder)]
    paths = sorted(path for path in files if not _is_endless(path))
    endless = [(f"{plain(path[:60])}…", "has a path that is too long") for path in files if _is_endless(path)]
    _refuse_empty_classes(folders, paths, origin)
    images, others = _sift(paths, head_of)
    reading.refuse("path_column", "label_column", what="folders of images")
    if not images and (unread := [item for item in others if not is_document(item[0])]):
        path, reason = unread[0]
        raise UsageError(f"{origin}: none of {len(unread):,} files can be read as an image; the first, {path}, {reason}")
    found = place_files(images, origin, reading.layout)
    placed = found.placed
    _refuse_unread_classes(found, others, origin)
    content = ReadImages(lambda index: read(placed[index].path), lambda index: head_of(placed[index].path))
    return arranged(placed, content, name, origin, ignored=(*others, *ignored, *endless, *found.ignored), layout=found.layout)


def _sift(paths: Sequence[str], head_of: Callable[[str], bytes]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separate images from other files; a file without an image's extension is judged by its first bytes."""
    images, ignored = [], []
    for path in paths:
        if is_litter(path):
            continue
        if path.encode("utf-8", "replace").decode("utf-8") != path:  # an id that breaks every file it is written to
            ignored.append((ascii(path)[1:-1], "has a name that is not UTF-8; rename it"))
        elif plain(path) != path:  # a terminal obeys them
            ignored.append((plain(path), "has control characters in its name; rename it"))
        elif is_image(path, head_of):
            images.append(path)
        else:
            ignored.append((path, (not PurePosixPath(path).suffix and kind_of(head_of(path))) or why_no_image(path)))
    return images, ignored


def _is_endless(path: str) -> bool:
    """Return whether a path is longer, or leads deeper, than that of any file on a disk."""
    return len(path) > _LONGEST_PATH or path.count("/") > _DEEPEST


def is_image(path: str, head_of: Callable[[str], bytes]) -> bool:
    """Return whether a file is named like an image or starts like one."""
    if has_image_extension(path):
        return True
    # Raw files of many cameras begin as a TIFF does, and hold a thumbnail where a TIFF has its image.
    return not is_unread(path) and looks_like_image(head_of(path))


def _refuse_unread_classes(found: Placement, others: Iterable[tuple[str, str]], origin: str) -> None:
    """Refuse a folder beside those of the classes that holds files, but none that can be read: a class would be missing.

    Raises:
        UsageError: naming the first one, with its first file and what would let it be read.
    """
    levels = {PurePosixPath(home).parent for home in found.homes}
    with_images = {parent for path, _ in found.ignored for parent in PurePosixPath(path).parents}
    for path, reason in others:
        for folder in (
            [] if is_document(path) and reason == "is not an image" else PurePosixPath(path).parents[:-1]
        ):  # the last one is the source itself
            if folder.parent in levels and folder.as_posix() not in found.homes and folder not in with_images:
                raise UsageError(f"{origin}/{folder}: no file of this class can be read as an image; {path} {reason}")


def _refuse_empty_classes(folders: Iterable[str], files: Iterable[str], origin: str) -> None:
    """Refuse a class folder without any file: it is more likely a mistake than a wish.

    Raises:
        UsageError: naming the first empty folder.
    """
    content = [*folders, *(path for path in files if not is_litter(path))]
    occupied = {
        parent.as_posix() for folder in {PurePosixPath(path).parent for path in content} for parent in (folder, *folder.parents)
    }
    # Beside images lies no class folder; an empty folder there is nobody's class.
    beside = {PurePosixPath(path).parent.as_posix() for path in content if has_image_extension(path)}
    hollow = [folder for folder in folders if folder not in occupied and not is_litter(folder)]
    empty = sorted(folder for folder in hollow if PurePosixPath(folder).parent.as_posix() not in beside)
    if empty:
        raise UsageError(f"{origin}/{empty[0]}: this class folder is empty; put images into it or remove it")
