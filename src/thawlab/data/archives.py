"""Sources that are archives, read in place; also archives in an archive, and the shards of WebDataset."""

import io
import lzma
import tarfile
import threading
import zipfile
import zlib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from thawlab.data.images import HEAD
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged_by_path, openers
from thawlab.data.webdataset import is_webdataset, open_shards
from thawlab.errors import UsageError, first_line

_DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    KeyError,
)
_TARS = (".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
SUFFIXES = (".zip", *_TARS)


class Members(NamedTuple):
    """What an archive holds.

    Attributes:
        folders: paths of its folders, with forward slashes.
        names: paths of its files.
        head_of: gives the first bytes of a file.
        read: gives all of them; safe to use from several threads.
    """

    folders: list[str]
    names: list[str]
    head_of: Callable[[str], bytes]
    read: Callable[[str], bytes]


def _member_name(name: str) -> str:
    """Return an archive member's path with forward slashes, without a leading slash or dot."""
    return PurePosixPath(name.replace("\\", "/").lstrip("/")).as_posix()


def stem_of(name: str) -> str:
    """Return the path of an archive without the suffix that makes it one."""
    return next(
        (name[: -len(suffix)] for suffix in sorted(SUFFIXES, key=len, reverse=True) if name.lower().endswith(suffix)), name
    )


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
        members = _zip_members(path) if kind == "zip" else _tar_members(path)
        if is_webdataset(members.names):
            return open_shards(path, {path.name: members}, reading)
        members = unpacked(members)
        return arranged_by_path(
            PurePosixPath(stem_of(path.name)).name.split(".")[0] if kind == "tar" else path.stem,
            str(path),
            members.folders,
            members.names,
            members.head_of,
            members.read,
            reading=reading,
        )
    except _DAMAGES as error:
        raise UsageError(f"{path}: cannot be read as a {kind} archive: {first_line(error)}") from None


def open_archives(root: Path, names: Sequence[str], ignored: Sequence[tuple[str, str]], reading: Reading) -> Listing:
    """List the images in the archives of a folder: one per class or split, or the shards of WebDataset.

    Raises:
        UsageError: if one is damaged.
    """
    shards = {name: members_of(root / name, name) for name in names}
    if all(is_webdataset(members.names) for members in shards.values()):
        return open_shards(root, shards, reading)
    members = joined({stem_of(name): of for name, of in shards.items()})
    name = root.resolve().name
    return arranged_by_path(name, str(root), members.folders, members.names, members.head_of, members.read, ignored, reading)


def members_of(source: Path | bytes, name: str) -> Members:
    """Return what an archive holds, given its file or its bytes; `name` says by its suffix what it is.

    Raises:
        UsageError: if it is damaged.
    """
    try:
        return _zip_members(source) if name.lower().endswith(".zip") else _tar_members(source)
    except _DAMAGES as error:
        raise UsageError(f"{name}: cannot be read as an archive: {first_line(error)}") from None


def unpacked(members: Members) -> Members:
    """Return the members with those that are archives replaced by folders of what is in them; these are held in memory."""
    packed = [name for name in members.names if name.lower().endswith(SUFFIXES)]
    inner = {stem_of(name): members_of(members.read(name), name) for name in packed}
    plain = members._replace(names=[name for name in members.names if name not in packed])
    return joined({"": plain, **inner}) if packed else members


def joined(parts: Mapping[str, Members]) -> Members:
    """Return the members of several archives, each below a folder of its own; "" stands for none."""

    def below(folder: str, name: str) -> str:
        return f"{folder}/{name}" if folder else name

    places = {below(folder, name): (of, name) for folder, of in parts.items() for name in of.names}
    folders = [*filter(None, parts), *(below(folder, name) for folder, of in parts.items() for name in of.folders)]

    def head_of(name: str) -> bytes:
        of, own = places[name]
        return of.head_of(own)

    def read(name: str) -> bytes:
        of, own = places[name]
        return of.read(own)

    return Members(folders, list(places), head_of, read)


def _zip_members(source: Path | bytes) -> Members:
    local = threading.local()

    def opened() -> zipfile.ZipFile:
        if not hasattr(local, "archive"):
            local.archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        archive: zipfile.ZipFile = local.archive
        return archive

    infos = opened().infolist()
    folders = [_member_name(info.filename) for info in infos if _is_folder(info)]
    members = {_member_name(info.filename): info.filename for info in infos if not _is_folder(info)}

    def head_of(name: str) -> bytes:
        with opened().open(members[name]) as file:
            return file.read(HEAD)

    def content(name: str) -> bytes:
        try:
            return opened().read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"damaged or encrypted inside the archive: {error}") from error

    return Members(folders, list(members), head_of, content)


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.is_dir() or info.filename.endswith("\\")


def _tar_members(source: Path | bytes) -> Members:
    folders: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    contents: dict[str, bytes] = {}  # only the first bytes where the archive is not compressed
    with tarfile.open(
        **({"fileobj": io.BytesIO(source)} if isinstance(source, bytes) else {"name": source}), mode="r:*"
    ) as archive:
        compressed = not isinstance(archive.fileobj, io.BufferedReader | io.BytesIO)  # whatever the name says
        for member in archive:
            name = _member_name(member.name)
            if member.isdir() and name != ".":
                folders.append(name)
            # A hard link is the file it names.
            file = archive.getmember(member.linkname) if member.islnk() else member
            if file.isreg():
                places[name] = (file.offset_data, file.size)
                contents[name] = archive.extractfile(file).read(-1 if compressed else HEAD)  # type: ignore[union-attr]
        while compressed and archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass  # to the very end, where the checksum stands
    local = threading.local()

    def content(name: str) -> bytes:
        if compressed:
            return contents[name]
        offset, size = places[name]
        if isinstance(source, bytes):
            return source[offset : offset + size]
        if not hasattr(local, "file"):
            local.file = source.open("rb")
        local.file.seek(offset)
        read: bytes = local.file.read(size)
        return read

    return Members(folders, list(places), lambda name: contents[name][:HEAD], content)
