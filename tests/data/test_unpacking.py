from __future__ import annotations

import bz2
import io
import lzma
import tarfile
import zipfile
from pathlib import Path

import pytest

from thawlab.data import unpacking
from thawlab.data.paths import open_path
from thawlab.data.unpacking import (
    BombError,
    Room,
    Watched,
    refuse_hollow_tar,
    refuse_hollow_zip,
    unpacked_member,
    why_not_unpacked,
)
from thawlab.errors import UsageError


def test_a_source_may_unpack_to_so_many_times_its_size_or_to_a_little() -> None:
    small, large = Room(1000), Room(1 << 30)
    assert small.whole == 1 << 28 and large.whole == 10 << 30
    small.take((1 << 28) - 256)
    small.take_names(1)
    with pytest.raises(BombError, match="it unpacks to more than 268 MB, far more than it is; unpack it yourself"):
        small.take_archive(b"")
    with pytest.raises(BombError):
        Room(1000).take_names(2_000_000)


def test_a_member_is_judged_by_what_it_claims() -> None:
    assert why_not_unpacked(1 << 27, 1 << 25) is None and why_not_unpacked(1000, 1) is None
    assert why_not_unpacked(1 << 27, 1 << 17) == "unpacks to 134 MB, over 100 times what it is stored in"
    assert why_not_unpacked(1 << 30, 1 << 30) == "too large: a file of 1,074 MB"


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_no_more_of_a_member_is_unpacked_than_it_claims(method: int) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        archive.writestr("x", bytes(5_000_000))
    with zipfile.ZipFile(buffer) as archive:
        info = archive.getinfo("x")
        start = info.header_offset + 30 + len("x")
        packed = buffer.getvalue()[start : start + info.compress_size]
    assert unpacked_member(packed, info, info.file_size) == bytes(5_000_000)
    assert unpacked_member(packed, info, 7) == bytes(7)
    info.file_size = 1000
    with pytest.raises(zipfile.BadZipFile, match="it is not what its checksum says"):
        unpacked_member(packed, info, 1000)
    with pytest.raises((OSError, EOFError, lzma.LZMAError, zipfile.BadZipFile)):
        unpacked_member(packed[:9] + b"\xff" * 40, info, 1000)


def test_names_alone_are_refused(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(unpacking, "_LARGE_DIRECTORY", 500)
    monkeypatch.setattr(unpacking, "_MANY_NAMES", 20)
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as archive:
        for k in range(30):
            archive.writestr(f"cat/{k}.png", b"")
    with pytest.raises(UsageError, match=r"x\.zip: cannot be read as a zip archive: it holds hardly anything but names"):
        open_path(tmp_path / "x.zip")
    with pytest.raises(BombError):
        refuse_hollow_zip((tmp_path / "x.zip").read_bytes())
    with zipfile.ZipFile(tmp_path / "y.zip", "w") as archive:
        for k in range(30):
            archive.writestr(f"cat/{k}.png", bytes(1000))
    refuse_hollow_zip(tmp_path / "y.zip")
    refuse_hollow_tar(50, 21)
    with pytest.raises(BombError, match="21 of its first 41 members are empty"):
        refuse_hollow_tar(41, 21)


def test_a_compressed_tar_is_not_unpacked_beyond_its_room() -> None:
    room = Room(1000)
    room.left = 3000
    watched = Watched(io.BytesIO(bytes(10_000)), room)
    assert watched.read(2000) == bytes(2000) and watched.seek(0) == 0
    assert watched.read(3000) == bytes(3000)  # what was unpacked before takes nothing more
    with pytest.raises(BombError):
        watched.seek(5000)
    room.left, short = 3000, Watched(io.BytesIO(bytes(1000)), room)
    assert short.read(2500) == bytes(1000) and room.left == 2000 and short.read(2000) == b"" and room.left == 2000
    free = Watched(io.BytesIO(bytes(10_000)), None)
    assert free.seek(9000) == free.tell() == 9000


def test_headers_without_an_end_are_refused() -> None:
    watched = Watched(io.BytesIO(b"1" * 5000), None)
    assert watched.read(500) == b"1" * 500
    watched.is_header = True
    with pytest.raises(tarfile.ReadError, match="a header holds an endless number"):
        watched.read(500)


def test_devices_and_holes_are_left_out_with_a_reason(tmp_path: Path) -> None:
    from PIL import Image

    picture = io.BytesIO()
    Image.new("RGB", (8, 8)).save(picture, "PNG")
    with tarfile.open(tmp_path / "x.tar", "w") as archive:
        for name in ("cat/1.png", "dog/1.png"):
            member = tarfile.TarInfo(name)
            member.size = len(picture.getvalue())
            archive.addfile(member, io.BytesIO(picture.getvalue()))
        for name, kind in (("cat/pipe.png", tarfile.FIFOTYPE), ("cat/disk.png", tarfile.BLKTYPE), ("cat/y.png", tarfile.LNKTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "nowhere.png"
            archive.addfile(member)
    listing = open_path(tmp_path / "x.tar")
    assert listing.ids == ("cat/1.png", "dog/1.png")
    assert dict(listing.ignored) == {
        "cat/pipe.png": "is a device or a pipe",
        "cat/disk.png": "is a device or a pipe",
        "cat/y.png": "is a link to what the archive does not hold",
    }


def test_the_archives_in_a_folder_share_their_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unpacking, "_FREE", 140_000)
    monkeypatch.setattr(unpacking, "_TIMES", 0)
    content = io.BytesIO()
    with tarfile.open(fileobj=content, mode="w") as archive:
        member = tarfile.TarInfo("1.png")
        member.size = 60_000
        archive.addfile(member, io.BytesIO(bytes(60_000)))
    for name in ("cat", "dog"):
        (tmp_path / f"{name}.tar.bz2").write_bytes(bz2.compress(content.getvalue()))
    with pytest.raises(UsageError, match=r"dog\.tar\.bz2: cannot be read as an archive: it unpacks to more than 0 MB"):
        open_path(tmp_path)
