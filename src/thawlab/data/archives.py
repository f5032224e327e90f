"""Sources that are archives, read in place."""

import io
import lzma
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from thawlab.data.listing import Listing, Reading
from thawlab.data.openers import arranged_by_path, openers
from thawlab.errors import UsageError, first_line


def _member_name(name: str) -> str:
    """Return an archive member's path without a leading slash or dot."""
    return PurePosixPath(name.lstrip("/")).as_posix()


@openers.register(".zip")
def open_zip(path: Path, reading: Reading) -> Listing:
    """List a zip archive; each thread that reads images opens it once."""
    local = threading.local()

    def content(name: str) -> bytes:
        try:
            if not hasattr(local, "archive"):
                local.archive = zipfile.ZipFile(path)
            read: bytes = local.archive.read(members[name])
        except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, NotImplementedError) as error:
            raise OSError(f"damaged or encrypted inside the archive: {error}") from error
        return read

    try:
        with zipfile.ZipFile(path) as archive:
            folders = [_member_name(info.filename) for info in archive.infolist() if info.is_dir()]
            members = {_member_name(info.filename): info.filename for info in archive.infolist() if not info.is_dir()}

            def head_of(name: str) -> bytes:
                with archive.open(members[name]) as file:
                    return file.read(16)

            return arranged_by_path(path.stem, str(path), folders, members, head_of, content, reading=reading)
    except (zipfile.BadZipFile, OSError, EOFError, RuntimeError, zlib.error, lzma.LZMAError) as error:
        raise UsageError(f"{path}: cannot be read as a zip archive: {first_line(error)}") from None


@openers.register(".tar")
@openers.register(".tgz")
@openers.register(".tar.gz")
@openers.register(".tar.xz")
@openers.register(".tar.bz2")
def open_tar(path: Path, reading: Reading) -> Listing:
    """List a tar archive; a compressed one is read into memory once, since it has no random access.

    Each thread that reads images opens an uncompressed one once.
    """
    folders: list[str] = []
    places: dict[str, tuple[int, int]] = {}
    contents: dict[str, bytes] = {}  # only the first bytes where the archive is not compressed
    try:
        with tarfile.open(path, "r:*") as archive:
            compressed = not isinstance(archive.fileobj, io.BufferedReader)  # whatever the name says
            for member in archive:
                name = _member_name(member.name)
                if member.isdir() and name != ".":
                    folders.append(name)
                # A hard link is the file it names.
                file = archive.getmember(member.linkname) if member.islnk() else member
                if file.isreg():
                    places[name] = (file.offset_data, file.size)
                    contents[name] = archive.extractfile(file).read(-1 if compressed else 16)  # type: ignore[union-attr]
            while compressed and archive.fileobj is not None and archive.fileobj.read(1 << 20):
                pass  # to the very end, where the checksum stands
    except (tarfile.TarError, OSError, EOFError, zlib.error, lzma.LZMAError, KeyError) as error:
        raise UsageError(f"{path}: cannot be read as a tar archive: {first_line(error)}") from None

    local = threading.local()

    def content(name: str) -> bytes:
        if compressed:
            return contents[name]
        if not hasattr(local, "file"):
            local.file = path.open("rb")
        offset, size = places[name]
        local.file.seek(offset)
        read: bytes = local.file.read(size)
        return read

    name = path.name.split(".")[0]
    return arranged_by_path(name, str(path), folders, places, lambda name: contents[name][:16], content, reading=reading)
