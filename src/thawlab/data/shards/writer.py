"""Write the images of a listing into shards: tar files that WebDataset's readers know, and the index of them."""

from __future__ import annotations

import hashlib
import io
import json
import tarfile
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import BinaryIO, NamedTuple, cast

import numpy as np
from PIL import Image

from thawlab import progress
from thawlab.cores import usable_cores
from thawlab.data.decode import DECODER, BadImageError, decode, why_unreadable
from thawlab.data.images import content_digest, patiently
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.shards.index import FORMAT, INDEX, ROWS, Places, Shard, ShardIndex, table_of, why_unfit
from thawlab.data.types import Indices, Pixels
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import read_json, sha256_of, size_of, write_atomically, write_json, write_text
from thawlab.randomness import derive

# Decoding to any size finds what cannot be decoded.
_TRIAL = Preprocessing(size=64, mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
# Images that are read and tried at a time, and how many of such portions are ahead of the writing.
_PORTION, _AHEAD = 128, 4
_SPLITS = ("train", "val", "test")
_STARTS: tuple[tuple[bytes, str], ...] = (
    (b"\xff\xd8", ".jpg"),
    (b"\x89PNG", ".png"),
    (b"RIFF", ".webp"),
    (b"GIF8", ".gif"),
    (b"BM", ".bmp"),
)
_STARTS += ((b"II*\0", ".tif"), (b"MM\0*", ".tif"))
_UNFINISHED = ".unfinished.json"
_BLOCK = 512


class Written(NamedTuple):
    """What was written: the index of the shards, and (id, reason) of images that no shard holds, since they cannot be read."""

    shards: ShardIndex
    unreadable: tuple[tuple[str, str], ...]


class _Record(NamedTuple):
    """An image as it goes into a shard: its number in the listing, its content, extension, digest, and what is wrong with it."""

    number: int
    content: bytes
    extension: str
    digest: bytes
    reason: str | None
    readable: bool


def write_shards(listing: Listing, folder: Path, shard_bytes: int) -> Written:
    """Write the images of a listing into shards, in an order drawn once, each split into shards of its own.

    The folder is made if needed. Where writing was interrupted, the same call goes on behind the last whole shard. Images that
    cannot be decoded are written too, and marked: who reads the shards leaves out the same ones as who reads the source. Pixels
    that have no file are written as PNG.

    Args:
        listing: the images.
        folder: new, empty, or of an interrupted writing of the same images.
        shard_bytes: after which a shard ends, 1 to 2^40; the last one of a split may be small.

    Raises:
        UsageError: if the folder holds anything else, or no image can be read.
        ThawlabError: if reading fails for a reason that says nothing about an image, or the disk does not take the shards.
    """
    identity = hashlib.sha256(
        json.dumps([listing.name, listing.classes, list(listing.ids), listing.labels.tolist(), shard_bytes]).encode()
    ).hexdigest()
    _begin(folder, identity)
    shards: list[Shard] = []
    rows: list[Places] = []
    numbers: list[Indices] = []
    reasons: dict[int, str] = {}
    unreadable: dict[int, str] = {}
    with progress.task("writing", len(listing)) as advance:
        for split in _SPLITS:
            own = np.flatnonzero(listing.splits == split)
            order = np.random.default_rng(derive(0, "shards", split)).permutation(own)
            start, number = 0, 0
            while start < len(order):
                name = f"{split}-{number:05d}"
                part = _written_before(folder, name)
                if part is None:
                    part = _write_shard(listing, order[start:], folder / f"{name}.tar", shard_bytes)
                    write_json(_record_of(folder, name), part.as_json())
                places, kept = part.places(len(shards)), np.array(part.numbers, dtype=np.int64)
                reasons |= {sum(map(len, numbers)) + row: reason for row, reason in part.reasons.items()}
                unreadable |= part.unreadable
                shards.append(part.shard)
                rows.append(places)
                numbers.append(kept)
                start, number = start + part.taken, number + 1
                advance(part.taken)
    lost = tuple((listing.ids[k], reason) for k, reason in sorted(unreadable.items()))
    kept = np.concatenate(numbers) if numbers else np.zeros(0, dtype=np.int64)
    if not len(kept):
        raise UsageError(
            f"{listing.name}: none of its {len(listing):,} images can be read; the first, {lost[0][0]}, {lost[0][1]}"
        )
    return Written(
        _finish(listing, folder, shards, kept, Places(*map(np.concatenate, zip(*rows, strict=True))), reasons, lost), lost
    )


class _Part(NamedTuple):
    """A shard that was written, and what it took of the order, as it stands in the record of an unfinished writing."""

    shard: Shard
    taken: int
    numbers: list[int]
    offsets: list[int]
    sizes: list[int]
    digests: list[str]
    reasons: dict[int, str]
    unreadable: dict[int, str]

    def as_json(self) -> dict[str, object]:
        return {**self._asdict(), "shard": self.shard.model_dump()}

    def places(self, shard: int) -> Places:
        """Return where its images lie, given its number."""
        digests = np.frombuffer(bytes.fromhex("".join(self.digests)), np.uint8).reshape(-1, 32)
        return Places(
            np.full(len(self.numbers), shard), np.array(self.offsets, np.int64), np.array(self.sizes, np.int64), digests
        )


def _begin(folder: Path, identity: str) -> None:
    """Make the folder, and note in it what is being written.

    Raises:
        UsageError: if it holds anything else than an interrupted writing of the same images.
    """
    record = folder / _UNFINISHED
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        write_json(record, {"identity": identity})
    elif not record.is_file():
        what = (
            "shards already; read them, or write to another folder"
            if (folder / INDEX).is_file()
            else "other files; name a new one"
        )
        raise UsageError(f"{folder}: holds {what}" if folder.is_dir() else f"{folder}: is a file; name a folder")
    elif _identity_in(record) != identity:
        raise UsageError(f"{folder}: holds unfinished shards of other images, or of another size; write to another folder")


def _identity_in(record: Path) -> object:
    """Return what an unfinished writing writes.

    Raises:
        UsageError: if its record is damaged.
    """
    try:
        return read_json(record)["identity"]
    except (ThawlabError, LookupError, TypeError):
        raise UsageError(f"{record}: is damaged, and says no more what was written here; write to another folder") from None


def _record_of(folder: Path, name: str) -> Path:
    return folder / f".{name}.json"


def _written_before(folder: Path, name: str) -> _Part | None:
    """Return what an interrupted writing put into a shard; None where it is to be written (again)."""
    try:
        part = _part(read_json(_record_of(folder, name)))
    except (ThawlabError, LookupError, TypeError, ValueError, AttributeError):  # lost or damaged
        return None
    return part if why_unfit(part.shard, size_of(folder / f"{name}.tar")) is None else None


def _part(values: dict[str, object]) -> _Part:
    given = dict(values)
    for key in ("reasons", "unreadable"):
        given[key] = {int(k): v for k, v in cast("dict[str, str]", given[key]).items()}
    return _Part(**{**given, "shard": Shard.model_validate(given["shard"])})  # type: ignore[arg-type]


def _write_shard(listing: Listing, order: Indices, path: Path, shard_bytes: int) -> _Part:
    """Write images of an order into one shard until it is full."""
    part = _Part(Shard(name=path.name, bytes=0, sha256="0" * 64, images=0), 0, [], [], [], [], {}, {})
    taken = 0

    def write(file: BinaryIO) -> None:
        nonlocal taken
        for record in _records(listing, order):
            if taken and file.tell() >= shard_bytes:
                break
            taken += 1
            if not record.readable:
                part.unreadable[record.number] = str(record.reason)
                continue
            if record.reason is not None:
                part.reasons[len(part.numbers)] = record.reason
            key = f"{record.number:09d}"
            offset = _add(file, f"{key}{record.extension}", record.content)
            _add(file, f"{key}.cls", str(int(listing.labels[record.number])).encode())
            part.numbers.append(record.number)
            part.offsets.append(offset)
            part.sizes.append(len(record.content))
            part.digests.append(record.digest.hex())
        file.write(bytes(2 * _BLOCK))

    write_atomically(path, write)
    shard = Shard(name=path.name, bytes=path.stat().st_size, sha256=sha256_of(path), images=len(part.numbers))
    return part._replace(shard=shard, taken=taken)


def _add(file: BinaryIO, name: str, content: bytes) -> int:
    """Append a member to a tar file and return where its content begins; equal members give equal bytes."""
    info = tarfile.TarInfo(name)
    info.size, info.mode = len(content), 0o644
    file.write(info.tobuf(tarfile.USTAR_FORMAT))
    offset = file.tell()
    file.write(content)
    file.write(bytes(-len(content) % _BLOCK))
    return offset


def _records(listing: Listing, order: Indices) -> Iterator[_Record]:
    """Yield the images of an order, read and tried in threads, some portions ahead."""

    def portion(numbers: Sequence[int]) -> list[_Record]:
        return [_record(listing, number) for number in numbers]

    portions = [order[start : start + _PORTION].tolist() for start in range(0, len(order), _PORTION)]
    with ThreadPoolExecutor(usable_cores()) as pool:
        ahead = [pool.submit(portion, numbers) for numbers in portions[:_AHEAD]]
        try:
            for number in range(len(portions)):
                yield from ahead.pop(0).result()
                if number + _AHEAD < len(portions):
                    ahead.append(pool.submit(portion, portions[number + _AHEAD]))
        finally:
            for future in ahead:
                future.cancel()


def _record(listing: Listing, number: int) -> _Record:
    try:
        content = patiently(lambda: listing.images.read(number), listing.ids[number])
    except OSError as error:
        return _Record(number, b"", "", b"", why_unreadable(error), readable=False)
    if not isinstance(content, bytes):
        content = _png(content)
    reason = None
    try:
        patiently(lambda: decode(content, _TRIAL), listing.ids[number])
    except BadImageError as error:
        reason = str(error)
    return _Record(number, content, _extension(content), content_digest(content), reason, readable=True)


def _png(pixels: Pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, "PNG")
    return file.getvalue()


def _extension(content: bytes) -> str:
    """Return the extension by which other readers of WebDataset know an image's format; ours look at the content."""
    return next((extension for start, extension in _STARTS if content.startswith(start)), ".bin")


def _finish(
    listing: Listing,
    folder: Path,
    shards: list[Shard],
    kept: Indices,
    places: Places,
    reasons: dict[int, str],
    lost: tuple[tuple[str, str], ...],
) -> ShardIndex:
    """Write the index, which makes the folder whole, and take away the record of the unfinished writing."""
    import pyarrow as pa

    ids = pa.array([listing.ids[number] for number in kept.tolist()], pa.string())
    groups = None if listing.groups is None else listing.groups[kept]
    rows = table_of(ids, listing.labels[kept], listing.splits[kept], groups, places, reasons)
    index = ShardIndex(
        format=FORMAT,
        name=listing.name,
        classes=listing.classes,
        shards=tuple(shards),
        rows_sha256=hashlib.sha256(rows).hexdigest(),
        checked_by=DECODER,
        layout=listing.layout,
        notes=listing.notes,
        ignored=(*listing.ignored, *lost),
    )
    write_atomically(folder / ROWS, lambda file: file.write(rows))
    write_text(folder / INDEX, index.model_dump_json(indent=1) + "\n")
    for shard in shards:
        _record_of(folder, shard.name.removesuffix(".tar")).unlink(missing_ok=True)
    (folder / _UNFINISHED).unlink(missing_ok=True)
    return index


def verify_shards(folder: Path, index: ShardIndex) -> list[str]:
    """Read all shards of a folder and return the names of those that are not what the index says, with the reason."""
    wrong = []
    with progress.task("verifying", len(index.shards)) as advance:
        for shard in index.shards:
            path = folder / shard.name
            if reason := why_unfit(shard, size_of(path)):
                wrong.append(f"{shard.name}: {reason}")
            elif sha256_of(path) != shard.sha256:
                wrong.append(f"{shard.name}: has other content than the index says")
            advance(1)
    return wrong
