"""Archives made to escape, to exhaust or to confuse; each a file name and its bytes."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import struct
import tarfile
import zipfile
from collections.abc import Callable, Iterable
from functools import cache

from crafted_pictures import zeros
from PIL import Image

Files = dict[str, bytes]


@cache
def picture(grey: int = 0) -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (12, 8), (grey, 90, 30)).save(buffer, "PNG")
    return buffer.getvalue()


def good() -> Files:
    return {f"{name}/{k}.png": picture(k) for name in ("cat", "dog") for k in range(3)}


def zipped(files: Files, method: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", method) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return buffer.getvalue()


def tarred(files: Files, more: Iterable[tarfile.TarInfo] = (), form: int = tarfile.GNU_FORMAT) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in more:
            archive.addfile(member, io.BytesIO(bytes(member.size)) if member.isreg() else None)
    return buffer.getvalue()


def special(name: str, kind: bytes, link: str = "", size: int = 0) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname, member.size = kind, link, size
    member.devmajor, member.devminor = 1, 3
    return member


def bomb_zip(name: str, size: int, stored: bytes | None = None, claimed: int | None = None, method: int = 8) -> bytes:
    """Return a zip of good pictures and a member of so many zeros, which may claim another size."""
    packed = zeros(size)[2:-4] if stored is None else stored
    whole = zipped(good())
    end = whole.rfind(b"PK\5\6")
    start = whole.find(b"PK\1\2")
    told = size if claimed is None else claimed
    fields = struct.pack("<HHHHHIIIHH", 20, 0, method, 0, 33, 0, len(packed), told & 0xFFFFFFFF, len(name), 0)
    local = b"PK\3\4" + fields + name.encode() + packed
    central = b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHII", 0, 0, 0, 0, start) + name.encode()
    directory = whole[start:end] + central
    last = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 7, 7, len(directory), start + len(local), 0)
    return whole[:start] + local + directory + last


def overlapping_zip(count: int) -> bytes:
    """Return a zip all of whose members are the same bytes, which unpack a thousandfold."""
    packed = zeros(20_000_000)[2:-4]
    fields = struct.pack("<HHHHHIII", 20, 0, 8, 0, 33, 0, len(packed), 20_000_000)
    local = b"PK\3\4" + fields + struct.pack("<HH", 5, 0) + b"c.png" + packed
    names = [b"%s/%05d.png" % (b"cat" if k % 2 else b"dog", k) for k in range(count)]
    central = b"".join(
        b"PK\1\2" + struct.pack("<H", 20) + fields + struct.pack("<HHHHHII", len(name), 0, 0, 0, 0, 0, 0) + name for name in names
    )
    return local + central + b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, count, count, len(central), len(local), 0)


@cache
def _bomb() -> bytes:
    return bomb_zip("cat/9.png", 1 << 28)


def names_zip(count: int) -> bytes:
    """Return a zip of so many empty members, in the form for more than 65,535."""
    local, central = io.BytesIO(), io.BytesIO()
    for k in range(count):
        name = b"c%d/%08d.png" % (k % 3, k)
        place = local.tell()
        local.write(b"PK\3\4" + struct.pack("<HHHHHIIIHH", 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0) + name)
        central.write(
            b"PK\1\2" + struct.pack("<HHHHHHIIIHHHHHII", 20, 20, 0, 0, 0, 33, 0, 0, 0, len(name), 0, 0, 0, 0, 0, place) + name
        )
    start, size = local.tell(), central.tell()
    wide = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, count, count, size, start)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, start + size, 1)
    last = b"PK\5\6" + struct.pack("<HHHHIIH", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    return local.getvalue() + central.getvalue() + wide + locator + last


def encrypted_zip() -> bytes:
    content = bytearray(zipped(good()))
    for mark, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):
        start = content.find(mark)
        while start >= 0:
            content[start + place] |= 1
            start = content.find(mark, start + 4)
    return bytes(content)


def changed(content: bytes, mark: bytes, offset: int, value: bytes) -> bytes:
    """Return content with bytes changed after every mark."""
    result, start = bytearray(content), content.find(mark)
    while start >= 0:
        result[start + offset : start + offset + len(value)] = value
        start = content.find(mark, start + 4)
    return bytes(result)


def empty_tar(count: int) -> bytes:
    block = b"".join(tarfile.TarInfo(f"c{k % 3}/{k:05d}.png").tobuf() for k in range(1000))
    return block * (count // 1000) + bytes(1024)


def pax(records: bytes) -> bytes:
    header = special("pax", tarfile.XHDTYPE, size=len(records)).tobuf(tarfile.USTAR_FORMAT)
    return header + records.ljust(-(-len(records) // 512) * 512, b"\0") + tarred({"cat/1.png": picture()})


def long_names(count: int) -> bytes:
    one = special("././@LongLink", tarfile.GNUTYPE_LONGNAME, size=2).tobuf(tarfile.GNU_FORMAT) + b"a\0".ljust(512, b"\0")
    return one * count + tarred(good())


def sparse(size: int) -> bytes:
    """Return a tar whose member is nearly all hole."""
    header = bytearray(special("cat/1.png", tarfile.GNUTYPE_SPARSE, size=512).tobuf(tarfile.GNU_FORMAT))
    header[386 : 386 + 24] = b"00000000000\x0000000001000\0"
    header[483 : 483 + 12] = b"%011o\0" % min(size, 8**11 - 1)
    header[148:156] = b"        "
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + bytes(512) + tarred(good())


def nested(depth: int) -> bytes:
    content = zipped(good())
    for _ in range(depth):
        content = zipped({f"{k}.zip": content for k in range(10)})
    return content


def hard_links(count: int) -> bytes:
    links = [special(f"dog/{k}.png", tarfile.LNKTYPE, "cat/0.png") for k in range(count)]
    return tarred(good(), links)


def _with(name: str) -> Files:
    return {**good(), name: picture(9)}


def duplicate_zip() -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, content in [*good().items(), ("cat/1.png", b"no picture"), ("cat/1.png", picture(5))]:
            info = zipfile.ZipInfo(name)
            archive.NameToInfo.pop(name, None)  # it would warn
            archive.writestr(info, content)
    return buffer.getvalue()


ARCHIVES: dict[str, Callable[[], bytes]] = {
    "traversal.zip": lambda: zipped(_with("../../../canary.png")),
    "traversal-backslash.zip": lambda: zipped(_with("..\\..\\canary.png")),
    "absolute.zip": lambda: zipped(_with("/tmp/canary.png")),
    "drive.zip": lambda: zipped(_with("C:\\canary.png")),
    "only-traversal.zip": lambda: zipped({"../a/1.png": picture(), "../../b/2.png": picture(1)}),
    "traversal.tar": lambda: tarred(_with("../../../canary.png")),
    "absolute.tar": lambda: tarred(_with("/tmp/canary.png")),
    "link-out.tar": lambda: tarred(good(), [special("cat/x.png", tarfile.SYMTYPE, "/etc/passwd")]),
    "link-up.tar": lambda: tarred(good(), [special("cat/x.png", tarfile.SYMTYPE, "../../../../etc/passwd")]),
    "link-to-folder.tar": lambda: tarred(
        good(), [special("out", tarfile.SYMTYPE, "/tmp"), special("out/canary.png", tarfile.REGTYPE)]
    ),
    "link-to-itself.tar": lambda: tarred(good(), [special("cat/x.png", tarfile.SYMTYPE, "x.png")]),
    "link-circle.tar": lambda: tarred(good(), [special(f"cat/x{k}.png", tarfile.SYMTYPE, f"x{1 - k}.png") for k in range(2)]),
    "hard-link-out.tar": lambda: tarred(good(), [special("cat/x.png", tarfile.LNKTYPE, "/etc/passwd")]),
    "hard-link-missing.tar": lambda: tarred(good(), [special("cat/x.png", tarfile.LNKTYPE, "nowhere")]),
    "hard-links.tar": lambda: hard_links(20_000),
    "device.tar": lambda: tarred(good(), [special("cat/null.png", tarfile.CHRTYPE)]),
    "block-device.tar": lambda: tarred(good(), [special("cat/disk.png", tarfile.BLKTYPE)]),
    "fifo.tar": lambda: tarred(good(), [special("cat/pipe.png", tarfile.FIFOTYPE)]),
    "only-devices.tar": lambda: tarred({}, [special(f"{name}/1.png", tarfile.CHRTYPE) for name in ("cat", "dog")]),
    "unknown-kind.tar": lambda: tarred(good(), [special("cat/x.png", b"Z")]),
    "bomb-1000.zip": _bomb,
    "bomb-hidden.zip": lambda: bomb_zip("cat/9.png", 1 << 28, claimed=1000),
    "bomb-claims-4-gb.zip": lambda: bomb_zip("cat/9.png", 1 << 20, claimed=0xFFFFFFFE),
    "bomb-no-image.zip": lambda: bomb_zip("cat/readme", 1 << 28),
    "bomb-inner.zip": lambda: bomb_zip("cat.tar", 1 << 28),
    "bomb-overlapping.zip": lambda: overlapping_zip(2_000),
    "bomb-bzip2.zip": lambda: bomb_zip("cat/9.png", 1 << 28, bz2.compress(bytes(1 << 28)), method=12),
    "bomb-bzip2-hidden.zip": lambda: bomb_zip("cat/9.png", 1 << 28, bz2.compress(bytes(1 << 28)), claimed=1000, method=12),
    "bomb-lzma.zip": lambda: zipped(good() | {"cat/9.png": bytes(1 << 26)}, zipfile.ZIP_LZMA),
    "good-lzma.zip": lambda: zipped(good(), zipfile.ZIP_LZMA),
    "good-bzip2.zip": lambda: zipped(good(), zipfile.ZIP_BZIP2),
    "bomb.tar.gz": lambda: gzip_zeros(good(), 2 << 30),
    "bomb.tgz": lambda: gzip_zeros({}, 1 << 30),
    "bomb.tar.bz2": lambda: bz2.compress(tarred(good(), [special("cat/9.png", tarfile.REGTYPE, size=1 << 28)])),
    "bomb.tar.xz": lambda: lzma.compress(tarred(good(), [special("cat/9.png", tarfile.REGTYPE, size=1 << 28)]), preset=0),
    "bomb-of-names.tar.gz": lambda: gzip.compress(empty_tar(1_000_000), 1),
    "nested-4.zip": lambda: nested(4),
    "nested-bombs.zip": lambda: zipped({f"{k}.zip": _bomb() for k in range(20)}),
    "nested-zeros.zip": lambda: zipped(
        {f"{k}.zip": zipped({"cat/1.png": bytes(1 << 24), "dog/1.png": bytes(1 << 24)}) for k in range(40)}
    ),
    "nested-stored.zip": lambda: zipped({f"{k}.tar": tarred({"1.png": bytes(30 << 20)}) for k in range(12)}),
    "itself.zip": lambda: zipped({"itself.zip": zipped({"itself.zip": b"PK"})}),
    "names-1-million.zip": lambda: names_zip(1_000_000),
    "names-1-million.tar": lambda: empty_tar(1_000_000),
    "encrypted.zip": encrypted_zip,
    "wrong-crc.zip": lambda: changed(zipped(good()), b"PK\1\2", 16, b"\1\2\3\4"),
    "wrong-local-name.zip": lambda: changed(zipped(good()), b"PK\3\4", 30, b"X"),
    "wrong-method.zip": lambda: changed(zipped(good()), b"PK\1\2", 10, b"\x63\0"),
    "wrong-offset.zip": lambda: changed(zipped(good()), b"PK\1\2", 42, b"\xff\xff\xff\x7f"),
    "garbage-lzma.zip": lambda: bomb_zip("cat/9.png", 1000, b"\x09\x04\x05\0" + b"\xff" * 900, method=14),
    "garbage-deflate.zip": lambda: bomb_zip("cat/9.png", 1000, b"\xff" * 900),
    "duplicates.zip": duplicate_zip,
    "duplicates.tar": lambda: tarred(good(), [special("cat/1.png", tarfile.REGTYPE, size=40)]),
    "case.zip": lambda: zipped(_with("CAT/1.png")),
    "controls.zip": lambda: zipped(
        {**good(), "cat/\x1b[31mred\x07.png": picture(7), "dog/new\nline.png": picture(8), "b\x08s/1.png": picture(9)}
    ),
    "controls.tar": lambda: tarred({**good(), "cat/\x1b]0;title\x07.png": picture(7), "dog/new\nline.png": picture(8)}),
    "only-controls.zip": lambda: zipped({"a\n\n/1.png": picture(), "b\x1b[2J/1.png": picture(1)}),
    "nul.zip": lambda: zipped({**good(), "cat/x.png\0.txt": picture(7)}),
    "long-name.zip": lambda: zipped(_with("cat/" + "n" * 60_000 + ".png")),
    "deep.zip": lambda: zipped(_with("d/" * 20_000 + "1.png")),
    "not-utf-8.tar": lambda: tarred(good()).replace(b"cat/1.png", b"cat/\xff.png"),
    "pax-endless-number.tar": lambda: pax(b"1" * 60_000),
    "pax-long.tar": lambda: pax(b"30 comment=" + b"x" * 5_000_000),
    "pax-negative.tar": lambda: pax(b"13 size=-999\n"),
    "pax-huge.tar": lambda: pax(b"25 size=9999999999999999\n"),
    "long-names.tar": lambda: long_names(5_000),
    "sparse.tar": lambda: sparse(8 << 30),
    "sparse.tar.gz": lambda: gzip.compress(sparse(8 << 30)),
    "wrong-checksum.tar": lambda: b"x" + tarred(good())[1:],
    "size-of-all.tar": lambda: tarred(good()).replace(b"%011o" % len(picture(0)), b"77777777777", 1),
    "cut.zip": lambda: zipped(good())[:-30],
    "cut.tar.gz": lambda: gzip.compress(tarred(good()))[:-30],
    "wrong-crc.tar.gz": lambda: gzip.compress(tarred(good()))[:-8] + bytes(8),
    "cut.tar.xz": lambda: lzma.compress(tarred(good()))[:-30],
    "empty.zip": lambda: b"PK\5\6" + bytes(18),
    "nothing.zip": lambda: b"",
    "nothing.tar": lambda: b"",
    "text.tar.bz2": lambda: b"BZh9 but then text",
    "picture.zip": picture,
}


def gzip_zeros(files: Files, size: int) -> bytes:
    """Return a compressed tar with a member of so many zeros, without making them first."""
    head = tarred(files).rstrip(b"\0")
    head += bytes(-len(head) % 512)
    member = special("cat/zeros.png", tarfile.REGTYPE, size=size).tobuf(tarfile.GNU_FORMAT)
    return gzip.compress(head + member) + gzip_run(size + 1024)


def gzip_run(size: int) -> bytes:
    """Return so many zeros as members of a gzip file, each of a MiB."""
    one = gzip.compress(bytes(1 << 20), 9)
    return one * (size >> 20) + gzip.compress(bytes(size & ((1 << 20) - 1)))
