"""Sources that are archives, read in place; also archives in an archive, and the shards of WebDataset."""

import io
import lzma
import posixpath
import tarfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from thawlab.data.folders import Walk, readers
from thawlab.data.formats import has_image_extension
from thawlab.data.images import HEAD
from thawlab.data.layout import is_litter
from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged_by_path, openers
from thawlab.data.split_names import split_name
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
        ignored: what it holds and cannot give, with the reason.
    """

    folders: list[str]
    names: list[str]
    head_of: Callable[[str], bytes]
    read: Callable[[str], bytes]
    ignored: tuple[tuple[str, str], ...] = ()


def member_name(name: str) -> str:
    """Return an archive member's path with forward slashes, without a leading slash and without dots for folders."""
    return posixpath.normpath("/" + name.replace("\\", "/")).lstrip("/") or "."


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
            members.ignored,
            reading,
        )
    except _DAMAGES as error:
        raise UsageError(f"{path}: cannot be read as a {kind} archive: {first_line(error)}") from None


def open_archives(root: Path, found: Walk, packed: Sequence[str], reading: Reading) -> Listing:
    """List the images in a folder of archives: one per class or split, perhaps beside folders, or the shards of WebDataset.

    Beside images in folders an archive is read where it stands for a folder that is missing: it bears the name of a split, or
    holds images directly. What was downloaded, and unpacked beside itself, is left out.

    Raises:
        UsageError: if one is damaged.
    """
    archives = {name: members_of(root / name, name) for name in packed}
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
    members = joined({"": plain, **_apart({name: unpacked(of) for name, of in archives.items()})})
    name, ignored = root.resolve().name, [*ignored, *members.ignored]
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


def unpacked(members: Members, depth: int = 3) -> Members:
    """Return the members with those that are archives replaced by folders of what is in them; these are held in memory.

    Archives in archives are taken apart as well, at most `depth` deep.
    """
    packed = [name for name in members.names if name.lower().endswith(SUFFIXES) and not is_litter(name)]
    if not packed or not depth:
        return members
    inner = {name: unpacked(members_of(members.read(name), name), depth - 1) for name in packed}
    plain = members._replace(names=[name for name in members.names if name not in packed])
    return joined({"": plain, **_apart(inner)})


def _apart(archives: Mapping[str, Members]) -> dict[str, Members]:
    """Return archives by the folder that each stands for: its name without suffix, and within it, if two are called so."""
    counts = Counter(map(stem_of, archives))
    return {stem_of(name) if counts[stem_of(name)] == 1 else f"{stem_of(name)}/{name}": of for name, of in archives.items()}


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

    ignored = tuple((below(folder, name), why) for folder, of in parts.items() for name, why in of.ignored)
    return Members(folders, list(places), head_of, read, ignored)


def _zip_members(source: Path | bytes) -> Members:
    local = threading.local()

    def opened() -> zipfile.ZipFile:
        if not hasattr(local, "archive"):
            local.archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
        archive: zipfile.ZipFile = local.archive
        return archive

    infos = opened().infolist()
    names = [member_name(_zip_name(info)) for info in infos if not _is_folder(info)]
    folders = [member_name(_zip_name(info)) for info in infos if _is_folder(info)]
    members = {member_name(_zip_name(info)): info.filename for info in infos if not _is_folder(info)}

    def head_of(name: str) -> bytes:
        with opened().open(members[name]) as file:
            return file.read(HEAD)

    def content(name: str) -> bytes:
        try:
            return opened().read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"damaged or encrypted inside the archive: {error}") from error

    return Members(folders, list(members), head_of, content, _repeated(names))


def _repeated(names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """Return the names that stand in an archive more than once, with what becomes of them."""
    return tuple(
        (name, "stands in the archive more than once; the last one counts") for name, n in Counter(names).items() if n > 1
    )


def _zip_name(info: zipfile.ZipInfo) -> str:
    """Return a member's name: UTF-8 where its bytes are, also where the flag is missing that says so (macOS)."""
    if info.flag_bits & 0x800 or info.filename.isascii():
        return info.filename
    try:
        return info.filename.encode("cp437").decode("utf-8")
    except UnicodeError:
        return info.filename


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.is_dir() or info.filename.endswith("\\")


def _tar_members(source: Path | bytes) -> Members:
    folders: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    links: dict[str, str] = {}
    names: list[str] = []
    contents: dict[str, bytes] = {}  # only the first bytes where the archive is not compressed
    with tarfile.open(
        **({"fileobj": io.BytesIO(source)} if isinstance(source, bytes) else {"name": source}), mode="r:*"
    ) as archive:
        compressed = not isinstance(archive.fileobj, io.BufferedReader | io.BytesIO)  # whatever the name says
        for member in archive:
            name = member_name(member.name)
            if member.isdir() and name != ".":
                folders.append(name)
            # A hard link is the file it names.
            file = archive.getmember(member.linkname) if member.islnk() else member
            if file.issym():
                links[name] = member_name(posixpath.join(posixpath.dirname(name), file.linkname))
            elif file.isreg():
                names.append(name)
                places[name] = (file.offset_data, file.size)
                contents[name] = archive.extractfile(file).read(-1 if compressed else HEAD)  # type: ignore[union-attr]
        end = archive.offset
        for name, target in links.items():
            if target in places:  # others lead out of the archive, or to a folder
                places[name], contents[name] = places[target], contents[target]
        while compressed and archive.fileobj is not None and archive.fileobj.read(1 << 20):
            pass  # to the very end, where the checksum stands
    if not compressed and not _ends(source, end):
        raise tarfile.ReadError("it ends early, without the mark of its end; fetch it again")
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

    lost = tuple((name, "is a link to what the archive does not hold") for name in links if name not in places)
    return Members(folders, list(places), lambda name: contents[name][:HEAD], content, (*lost, *_repeated(names)))


def _ends(source: Path | bytes, offset: int) -> bool:
    """Return whether a tar file goes on with a block of zeros where its last member ends: one that was cut does not."""
    if isinstance(source, bytes):
        return len(source) >= offset + tarfile.BLOCKSIZE
    with source.open("rb") as file:
        file.seek(offset)
        return len(file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE
