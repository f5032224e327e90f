"""What is taken from archives that were made to exhaust memory or time, before it is taken."""

import bz2
import io
import lzma
import re
import struct
import tarfile
import zipfile
import zlib
from pathlib import Path
from typing import IO, Any, final

from thawlab.data.images import MOST_BYTES

# Any source may unpack to so much in memory, and a larger one to so many times its own size: images hardly shrink.
_FREE, _TIMES = 1 << 28, 10
# What an archive in an archive, and a name, count at least.
_LEAST_ARCHIVE, _LEAST_NAME = 1 << 14, 256
# A member that unpacks to more than this must not be over a hundred times as large as it is stored.
_SUSPICIOUS, _MOST_TIMES = 1 << 25, 100
# From these sizes on, names must not be most of what an archive holds.
_MANY_NAMES, _LARGE_DIRECTORY, _DIRECTORY_SHARE = 30_000, 1 << 24, 0.4
_MOST_HEADER = 1 << 16
_ENDLESS_NUMBER = re.compile(rb"\d{64}")
_HEADERS = {tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.SOLARIS_XHDTYPE, tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK}


class BombError(Exception):
    """An archive that unpacks to far more than it is; the message is the reason."""


@final
class Room:
    """How many bytes a source may still unpack to in memory; all archives in it share them.

    Args:
        size: of the source's own files.
    """

    def __init__(self, size: int) -> None:
        self.left = self.whole = max(_FREE, _TIMES * size)

    def take(self, count: int) -> None:
        """Take bytes.

        Raises:
            BombError: if there are not as many left.
        """
        self.left -= count
        if self.left < 0:
            raise BombError(f"it unpacks to more than {self.whole / 1e6:,.0f} MB, far more than it is; unpack it yourself")

    def take_archive(self, content: bytes) -> None:
        """Take the bytes of an archive in an archive."""
        self.take(max(len(content), _LEAST_ARCHIVE))

    def take_names(self, count: int) -> None:
        """Take what so many names of members need."""
        self.take(_LEAST_NAME * count)


def why_not_unpacked(size: int, stored: int) -> str | None:
    """Return why a member is not read, given its size and the bytes that it is stored in; None where it may be."""
    if size > MOST_BYTES:
        return f"too large: a file of {size / 1e6:,.0f} MB"
    if size > _SUSPICIOUS and size > _MOST_TIMES * stored:
        return f"unpacks to {size / 1e6:,.0f} MB, over {_MOST_TIMES} times what it is stored in"
    return None


def unpacked_member(packed: bytes, info: zipfile.ZipInfo, most: int) -> bytes:
    """Unpack the first bytes of a zip's member that bzip2 or LZMA has packed: `zipfile` would unpack all, whatever it claims.

    Args:
        packed: as it is stored.
        info: of the member; all of it must fit its checksum.
        most: bytes to return.

    Raises:
        OSError, EOFError, lzma.LZMAError or zipfile.BadZipFile: if it is damaged.
    """
    if info.compress_type == zipfile.ZIP_BZIP2:
        content = bz2.BZ2Decompressor().decompress(packed, most)
    else:
        packing, size = struct.unpack_from("<BI", packed, 4)
        places = {"lc": packing % 9, "lp": packing // 9 % 5, "pb": packing // 45}
        filters = [{"id": lzma.FILTER_LZMA1, "dict_size": size, **places}]
        content = lzma.LZMADecompressor(lzma.FORMAT_RAW, filters=filters).decompress(packed[9:], most)
    if most >= info.file_size and (len(content) != info.file_size or zlib.crc32(content) != info.CRC):
        raise zipfile.BadZipFile("it is not what its checksum says")
    return content


def refuse_hollow_zip(source: Path | bytes) -> None:
    """Refuse a zip that is mostly a list of names, before the list is read: millions of them need gigabytes.

    Raises:
        BombError: if it is.
    """
    with source.open("rb") if isinstance(source, Path) else io.BytesIO(source) as file:
        size = file.seek(0, io.SEEK_END)
        tail_start = max(0, size - (1 << 16) - 22)
        file.seek(tail_start)
        tail = file.read()
        place = tail.rfind(b"PK\5\6")
        if place < 0 or place + 22 > len(tail):
            return
        [directory] = struct.unpack_from("<I", tail, place + 12)
        wide = tail.rfind(b"PK\6\6", 0, place)
        if directory == 0xFFFFFFFF and wide >= 0 and wide + 48 <= len(tail):
            [directory] = struct.unpack_from("<Q", tail, wide + 40)
    if directory > _LARGE_DIRECTORY and directory > _DIRECTORY_SHARE * size:
        raise BombError(f"it holds hardly anything but names: {directory / 1e6:,.0f} MB of its {size / 1e6:,.0f}")


def refuse_hollow_tar(members: int, empty: int) -> None:
    """Refuse a tar of which most members are empty, while it is read.

    Raises:
        BombError: if there are many, and most are.
    """
    if empty > _MANY_NAMES and 2 * empty > members:
        raise BombError(f"it holds hardly anything but names: {empty:,} of its first {members:,} members are empty")


@final
class Watched:
    """A tar file as its reader sees it: not longer than there is room for, and without headers that are made to be slow.

    Args:
        file: the archive, unpacked where it is compressed.
        room: what is read takes from it; None where nothing is unpacked.
    """

    def __init__(self, file: IO[bytes], room: Room | None) -> None:
        self._file, self._room, self._reached = file, room, 0
        self.is_header = False

    def read(self, size: int = -1) -> bytes:
        """Read bytes.

        Raises:
            BombError: if there is no room for them.
            tarfile.ReadError: if they are a header without an end.
        """
        start, before = self._file.tell(), self._reached
        self._take(start + max(size, 0))
        content = self._file.read(size)
        if self._room is not None and len(content) < size:  # at the end: what is not there takes nothing
            reached = max(before, start + len(content))
            self._room.left += self._reached - reached
            self._reached = reached
        if self.is_header:
            self.is_header = False
            # Readers look for numbers by patterns whose time grows with the square of their length (CVE-2024-6232).
            if _ENDLESS_NUMBER.search(content):
                raise tarfile.ReadError("a header holds an endless number")
        return content

    def seek(self, place: int) -> int:
        """Go to a place; in a compressed archive, all before it is unpacked.

        Raises:
            BombError: if there is no room for it.
        """
        self._take(place)
        return self._file.seek(place)

    def tell(self) -> int:
        """Return the place."""
        return self._file.tell()

    def _take(self, place: int) -> None:
        """Take the room for all up to a place, before it is unpacked."""
        if self._room is not None and place > self._reached:
            self._room.take(place - self._reached)
            self._reached = place


@final
class Member(tarfile.TarInfo):
    """A member of a tar file whose headers are watched."""

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type in _HEADERS:
            if self.size > _MOST_HEADER:
                raise tarfile.ReadError("a header is too long")
            watched: Any = archive.fileobj
            watched.is_header = True
        member: tarfile.TarInfo = super()._proc_member(archive)  # type: ignore[misc]
        return member
