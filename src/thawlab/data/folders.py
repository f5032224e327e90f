"""Walking through folders of images: one function for training, prediction and the checks."""

import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from thawlab.data.formats import has_image_extension
from thawlab.data.images import FileImages, patiently
from thawlab.data.layout import is_litter
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged_by_path, is_image
from thawlab.errors import ThawlabError
from thawlab.files import is_ours


class Walk(NamedTuple):
    """What lies below a folder; paths are relative to it, with forward slashes.

    Attributes:
        files: all but litter, images or not, in the order of their names.
        folders: all but litter.
        ignored: what was not entered or cannot be read as a file, with the reason.
    """

    files: list[str]
    folders: list[str]
    ignored: list[tuple[str, str]]


def walk(root: Path) -> Walk:
    """List what lies below a folder, through symbolic links, without litter and without what thawlab wrote itself.

    Raises:
        ThawlabError: if a folder cannot be listed, since its images would be missed.
    """
    found = Walk([], [], [])

    def refuse(error: OSError) -> None:
        raise ThawlabError(f"{error.filename}: this folder cannot be listed: {error.strerror}; its images would be missed")

    for folder, folders, names in os.walk(root, onerror=refuse, followlinks=True):
        relative = Path(folder).relative_to(root)
        folders[:] = [name for name in sorted(folders) if _is_entered(root, relative / name, found.ignored)]
        found.folders.extend((relative / name).as_posix() for name in folders)
        for name in sorted(names):
            path = (relative / name).as_posix()
            reason = "" if (root / path).is_file() else _why_no_file(root / path)
            if reason:
                found.ignored.append((path, reason))
            elif not is_litter(name):
                found.files.append(path)
    return found._replace(files=sorted(found.files), folders=_without_hollow(found))


def _why_no_file(path: Path) -> str:
    """Return why what stands in a folder is left out; "" where whoever reads it will say."""
    if path.exists():
        return "is not a file"  # a pipe would block whoever reads it
    return "is a link that leads nowhere" if path.is_symlink() and not has_image_extension(path.name) else ""


def _is_entered(root: Path, relative: Path, ignored: list[tuple[str, str]]) -> bool:
    """Return whether a folder is walked through; what is left out, other than litter, is written down."""
    if is_litter(relative.name):
        return False
    path = root / relative
    if path.is_symlink() and path.resolve() in {(root / above).resolve() for above in relative.parents}:
        ignored.append((relative.as_posix(), "leads back to a folder that it lies in"))
        return False
    if is_ours(path):
        ignored.append((relative.as_posix(), "was written by thawlab"))
        return False
    return True


def _without_hollow(found: Walk) -> list[str]:
    """Return the folders without those that hold nothing but what was not entered, such as the folder of all runs."""
    left_out = [path for path, _ in found.ignored]
    kept = {parent for path in (*found.files, *found.folders) for parent in _above(path)}
    parents = {parent for path in left_out for parent in _above(path)}
    return [folder for folder in found.folders if folder not in parents or folder in kept]


def _above(path: str) -> list[str]:
    parts = path.split("/")
    return ["/".join(parts[:depth]) for depth in range(1, len(parts))]


def open_folder(root: Path, reading: Reading, found: Walk) -> Listing:
    """List the images of a folder, of which `found` lies below it.

    Raises:
        UsageError: if no folders of classes are found, or they can be read in two ways.
    """
    return arranged_by_path(root.resolve().name, str(root), found.folders, found.files, *readers(root), found.ignored, reading)


def readers(root: Path) -> tuple[Callable[[str], bytes], Callable[[str], bytes]]:
    """Return what gives the first bytes, and all bytes, of a file by its path below a folder."""
    return lambda path: head(root / path), lambda path: FileImages((root / path,)).read(0)


def image_files_below(root: Path) -> list[Path]:
    """Return the files below a folder that training would take for images."""
    return [root / path for path in walk(root).files if is_image(path, lambda path: head(root / path))]


def head(path: Path) -> bytes:
    """Return the first bytes of a file; none where it cannot be read."""
    try:
        return patiently(lambda: FileImages((path,)).head(0), str(path))
    except OSError:
        return b""
