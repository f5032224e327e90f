"""Sources that are archives, read in place; also archives in an archive, and the shards of WebDataset."""

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from thawlab.data.archive_members import DAMAGES, Members, apart, joined, members_of, read_members, stem_of, unpacked
from thawlab.data.folders import Walk, readers
from thawlab.data.formats import has_image_extension
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged_by_path, openers
from thawlab.data.split_names import split_name
from thawlab.data.unpacking import Room
from thawlab.data.webdataset import is_webdataset, open_shards
from thawlab.errors import UsageError, first_line


@openers.register(".zip")
def open_zip(path: Path, reading: Reading) -> Listing:
    """List a zip archive; each thread that reads images opens it once."""
    return _open(path, "zip", reading)


@openers.register(".tar")
@openers.register(".tgz")
@openers.register(".tar.gz")
@openers.register(".tar.xz")
@openers.register(".tar.bz2")
def open_tar(path: Path, reading: Reading) -> Listing:
    """List a tar archive; a compressed one is read into memory once, since it has no random access.

    Each thread that reads images opens an uncompressed one once.
    """
    return _open(path, "tar", reading)


def _open(path: Path, kind: str, reading: Reading) -> Listing:
    try:
        room = Room(path.stat().st_size)
        members = read_members(path, kind == "zip", room)
        if is_webdataset(members.names):
            return open_shards(path, {path.name: members}, reading)
        members = unpacked(members, room)
        return arranged_by_path(
            PurePosixPath(stem_of(path.name)).name.split(".")[0] if kind == "tar" else path.stem,
            str(path),
            members.folders,
            members.names,
            members.head_of,
            members.read,
            members.ignored,
            reading,
        )
    except DAMAGES as error:
        raise UsageError(f"{path}: cannot be read as a {kind} archive: {first_line(error)}") from None


def open_archives(root: Path, found: Walk, packed: Sequence[str], reading: Reading) -> Listing:
    """List the images in a folder of archives: one per class or split, perhaps beside folders, or the shards of WebDataset.

    Beside images in folders an archive is read where it stands for a folder that is missing: it bears the name of a split, or
    holds images directly. What was downloaded, and unpacked beside itself, is left out.

    Raises:
        UsageError: if one is damaged.
    """
    room = Room(sum((root / name).stat().st_size for name in packed))
    archives = {name: members_of(root / name, name, room) for name in packed}
    has_images = any(has_image_extension(name) for name in found.files)
    if not has_images and all(is_webdataset(members.names) for members in archives.values()):
        return open_shards(root, archives, reading)
    ignored = list(found.ignored)
    if has_images:
        there = {folder.casefold() for folder in found.folders}
        for name in packed:
            stem = stem_of(name)
            is_flat = any("/" not in member and has_image_extension(member) for member in archives[name].names)
            if stem.casefold() in there or not (is_flat or split_name(PurePosixPath(stem).name) is not None):
                ignored.append((name, "is an archive beside folders of images; unpack it if it belongs to them"))
                del archives[name]
    plain = Members(found.folders, [name for name in found.files if name not in packed], *readers(root))
    members = joined({"": plain, **apart({name: unpacked(of, room) for name, of in archives.items()})})
    name, ignored = root.resolve().name, [*ignored, *members.ignored]
    return arranged_by_path(name, str(root), members.folders, members.names, members.head_of, members.read, ignored, reading)
