"""What archives hold, read in place: zip and tar files, and those within them."""

import bz2
import copy
import gzip
import io
import lzma
import posixpath
import struct
import tarfile
import threading
import zipfile
import zlib
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO, NamedTuple

from thawlab.data.images import HEAD
from thawlab.data.layout import is_litter
from thawlab.data.unpacking import (
    BombError,
    Member,
    Room,
    Watched,
    refuse_hollow_tar,
    refuse_hollow_zip,
    unpacked_member,
    why_not_unpacked,
)
from thawlab.errors import UsageError, first_line

DAMAGES = (
    zipfile.BadZipFile,
    tarfile.TarError,
    OSError,
    EOFError,
    RuntimeError,
    NotImplementedError,
    zlib.error,
    lzma.LZMAError,
    KeyError,
    BombError,
)
# What readers raise besides on bytes that are none of an archive.
_ANY_DAMAGE = (*DAMAGES, ValueError, TypeError, AttributeError, LookupError, ArithmeticError, MemoryError, struct.error)
_COMPRESSED: dict[bytes, Callable[[IO[bytes]], IO[bytes]]] = {b"\x1f\x8b": gzip.open, b"BZh": bz2.open, b"\xfd7zXZ\0": lzma.open}  # type: ignore[dict-item]
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


def members_of(source: Path | bytes, name: str, room: Room) -> Members:
    """Return what an archive holds, given its file or its bytes; `name` says by its suffix what it is.

    Raises:
        UsageError: if it is damaged, or takes more than there is room for.
    """
    try:
        return read_members(source, name.lower().endswith(".zip"), room)
    except DAMAGES as error:
        raise UsageError(f"{name}: cannot be read as an archive: {first_line(error)}") from None


def read_members(source: Path | bytes, is_zip: bool, room: Room) -> Members:
    """Return what an archive holds; the many errors that a damaged one causes become one of `DAMAGES`."""
    try:
        return _zip_members(source, room) if is_zip else _tar_members(source, room)
    except DAMAGES:
        raise
    except _ANY_DAMAGE as error:
        raise zipfile.BadZipFile(first_line(error)) from None


def unpacked(members: Members, room: Room, depth: int = 3) -> Members:
    """Return the members with those that are archives replaced by folders of what is in them; these are held in memory.

    Archives in archives are taken apart as well, at most `depth` deep.
    """
    packed = [name for name in members.names if name.lower().endswith(SUFFIXES) and not is_litter(name)]
    if not packed or not depth:
        return members
    inner = {}
    for name in packed:
        try:
            content = members.read(name)
            room.take_archive(content)
        except DAMAGES as error:
            raise UsageError(f"{name}: cannot be read as an archive: {first_line(error)}") from None
        inner[name] = unpacked(members_of(content, name, room), room, depth - 1)
    plain = members._replace(names=[name for name in members.names if name not in inner])
    return joined({"": plain, **apart(inner)})


def apart(archives: Mapping[str, Members]) -> dict[str, Members]:
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


def _zip_members(source: Path | bytes, room: Room) -> Members:
    refuse_hollow_zip(source)
    archive = zipfile.ZipFile(io.BytesIO(source) if isinstance(source, bytes) else source)
    opening = threading.Lock()  # of which reading itself needs none
    infos = archive.infolist()
    room.take_names(len(infos))
    files = [info for info in infos if not _is_folder(info)]
    folders = [member_name(_zip_name(info)) for info in infos if _is_folder(info)]
    names = [member_name(_zip_name(info)) for info in files]
    members = dict(zip(names, files, strict=True))

    def opened(info: zipfile.ZipInfo) -> IO[bytes]:
        with opening:
            return archive.open(info)

    def first(info: zipfile.ZipInfo, size: int) -> bytes:
        odd = info.compress_type in {zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA}
        file = opened(_as_stored(info) if odd else info)
        try:
            return unpacked_member(file.read(info.compress_size), info, size) if odd else file.read(size)
        finally:
            with opening:
                file.close()

    def head_of(name: str) -> bytes:
        try:
            return first(members[name], HEAD)
        except _ANY_DAMAGE:
            return b""

    def content(name: str) -> bytes:
        info = members[name]
        if reason := why_not_unpacked(info.file_size, info.compress_size):
            raise OSError(reason)
        try:
            return first(info, info.file_size)  # what a head that lies leaves out is not unpacked
        except OSError:
            raise
        except _ANY_DAMAGE as error:
            raise OSError(f"damaged or encrypted inside the archive: {first_line(error)}") from error

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


def _as_stored(info: zipfile.ZipInfo) -> zipfile.ZipInfo:
    """Return a member that is read without being unpacked."""
    bare = copy.copy(info)
    bare.compress_type, bare.file_size = zipfile.ZIP_STORED, info.compress_size
    del bare.CRC  # that of the unpacked bytes
    return bare


def _is_folder(info: zipfile.ZipInfo) -> bool:
    return info.is_dir() or info.filename.endswith("\\")


def _tar_members(source: Path | bytes, room: Room) -> Members:
    file: IO[bytes] = source.open("rb") if isinstance(source, Path) else io.BytesIO(source)
    with file:
        mark = file.read(6)
        file.seek(0)
        unpack = next((unpack for start, unpack in _COMPRESSED.items() if mark.startswith(start)), None)  # whatever the name says
        found = _in_tar(file if unpack is None else unpack(file), room, unpack is not None)
    if unpack is None and not _ends(source, found.end):
        raise tarfile.ReadError("it ends early, without the mark of its end; fetch it again")
    local = threading.local()

    def content(name: str) -> bytes:
        if unpack is not None:
            return found.contents[name]
        offset, size = found.places[name]
        if isinstance(source, bytes):
            return source[offset : offset + size]
        if not hasattr(local, "file"):
            local.file = source.open("rb")
        local.file.seek(offset)
        read: bytes = local.file.read(size)
        return read

    return Members(found.folders, list(found.places), lambda name: found.contents[name][:HEAD], content, tuple(found.lost))


class _InTar(NamedTuple):
    """What a tar file holds: folders, where files lie, their bytes (the first ones where it is not compressed), what is lost."""

    folders: list[str]
    places: dict[str, tuple[int, int]]
    contents: dict[str, bytes]
    lost: list[tuple[str, str]]
    end: int = 0


def _in_tar(file: IO[bytes], room: Room, compressed: bool) -> _InTar:
    watched = Watched(file, room if compressed else None)
    found, links, names = _InTar([], {}, {}, []), dict[str, str](), list[str]()
    members = empty = 0
    with tarfile.TarFile(fileobj=watched, tarinfo=Member) as archive:  # type: ignore[arg-type]
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined]  # it would keep them all
            name = member_name(member.name)
            members, empty = members + 1, empty + (member.size == 0 and not member.islnk() and not member.issym())
            refuse_hollow_tar(members, empty)
            room.take_names(1)
            if member.isdir():
                found.folders.extend([name] if name != "." else [])
            elif member.islnk():  # a hard link is the file it names, which stands before it
                links[name] = member_name(member.linkname)
            elif member.issym():
                links[name] = member_name(posixpath.join(posixpath.dirname(name), member.linkname))
            elif reason := _why_no_member(member):
                found.lost.append((name, reason))
            else:
                watched.seek(member.offset_data)
                names.append(name)
                found.places[name] = (member.offset_data, member.size)
                found.contents[name] = watched.read(member.size if compressed else min(HEAD, member.size))
        end = archive.offset
        while compressed and watched.read(1 << 16):
            pass  # to the very end, where the checksum stands
    for name, target in links.items():
        if target in found.places:  # others lead out of the archive, or to a folder
            found.places[name], found.contents[name] = found.places[target], found.contents[target]
    lost = (name for name in links if name not in found.places)
    found.lost.extend((name, "is a link to what the archive does not hold") for name in lost)
    found.lost.extend(_repeated(names))
    return found._replace(end=end)


def _why_no_member(member: tarfile.TarInfo) -> str | None:
    """Return why a member of a tar file that is no folder and no link is left out; None where it is a file that can be read."""
    if not member.isreg():
        return "is a device or a pipe"
    return "is stored with holes" if member.issparse() else why_not_unpacked(member.size, member.size)


def _ends(source: Path | bytes, offset: int) -> bool:
    """Return whether a tar file goes on with a block of zeros where its last member ends: one that was cut does not."""
    if isinstance(source, bytes):
        return len(source) >= offset + tarfile.BLOCKSIZE
    with source.open("rb") as file:
        file.seek(offset)
        return len(file.read(tarfile.BLOCKSIZE)) == tarfile.BLOCKSIZE
