"""Openers: a file's suffix leads to the function that lists the images in the file."""

from collections.abc import Callable, Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from thawlab.data.images import Images, ReadImages
from thawlab.data.layout import Placed, class_names, has_image_extension, is_litter, looks_like_image, place_files
from thawlab.data.listing import Listing
from thawlab.errors import UsageError
from thawlab.registry import Registry

# An opener is given a path and lists its images, or raises a `UsageError` that names the file.
Opener = Callable[[Path], Listing]
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
    classes = class_names(placed, origin)
    label_of = {label: index for index, label in enumerate(classes)}
    return Listing(
        name=name,
        classes=classes,
        ids=tuple(item.path for item in placed),
        labels=np.array([label_of[item.label] for item in placed], dtype=np.int64),
        splits=np.array([item.split for item in placed]),
        images=images,
        **more,
    )


def arranged_by_path(
    name: str,
    origin: str,
    folders: Iterable[str],
    files: Iterable[str],
    head_of: Callable[[str], bytes],
    read: Callable[[str], bytes],
    ignored: Sequence[tuple[str, str]] = (),
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

    Raises:
        UsageError: if a class folder is empty, or no image lies in one.
    """
    paths = sorted(files)
    _refuse_empty_classes(folders, paths, origin)
    images, others = _sift(paths, head_of)
    placed, outside = place_files(images, origin)
    content = ReadImages(lambda index: read(placed[index].path))
    return arranged(placed, content, name, origin, ignored=(*others, *ignored, *outside))


def _sift(paths: Sequence[str], head_of: Callable[[str], bytes]) -> tuple[list[str], list[tuple[str, str]]]:
    """Separate images from other files; a file without an image's extension is judged by its first bytes."""
    images, ignored = [], []
    for path in paths:
        if is_litter(path):
            continue
        if path.encode("utf-8", "replace").decode("utf-8") != path:  # an id that breaks every file it is written to
            ignored.append((ascii(path)[1:-1], "has a name that is not UTF-8; rename it"))
        elif has_image_extension(path) or looks_like_image(head_of(path)):
            images.append(path)
        else:
            ignored.append((path, "is not an image"))
    return images, ignored


def _refuse_empty_classes(folders: Iterable[str], files: Iterable[str], origin: str) -> None:
    """Refuse a class folder without any file: it is more likely a mistake than a wish.

    Raises:
        UsageError: naming the first empty folder.
    """
    content = [*folders, *(path for path in files if not is_litter(path))]
    occupied = {PurePosixPath(path).parent.as_posix() for path in content}
    # Beside images lies no class folder; an empty folder there is nobody's class.
    beside = {PurePosixPath(path).parent.as_posix() for path in content if has_image_extension(path)}
    hollow = [folder for folder in folders if folder not in occupied and not is_litter(folder)]
    empty = sorted(folder for folder in hollow if PurePosixPath(folder).parent.as_posix() not in beside)
    if empty:
        raise UsageError(f"{origin}/{empty[0]}: this class folder is empty; put images into it or remove it")
