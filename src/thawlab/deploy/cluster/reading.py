"""The pictures of a block, as they stand in it, and what is said of them; neither holds more than a few hundred at a time."""

from __future__ import annotations

import io
import lzma
import tarfile
import threading
import zlib
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import replace
from itertools import islice
from typing import Any, BinaryIO, NamedTuple

import numpy as np

from thawlab.data.archive_members import member_name
from thawlab.data.decode import UNREADABLE, decode, why_unreadable
from thawlab.data.formats import has_image_extension
from thawlab.data.images import HEAD
from thawlab.data.layout import is_litter
from thawlab.data.openers import is_image
from thawlab.data.types import Pixels
from thawlab.deploy.cluster.blocks import Block
from thawlab.deploy.cluster.places import Place, UnreachedError
from thawlab.deploy.prediction import Prediction
from thawlab.deploy.predictor import Predictor
from thawlab.errors import ThawlabError, first_line
from thawlab.inference.infer import INFERENCE_BATCH

_TAR_DAMAGES = (tarfile.TarError, EOFError, OSError, zlib.error, lzma.LZMAError)
_PORTION = 8 * INFERENCE_BATCH  # pictures at working size that are predicted together
_ROWS = 32  # of a Parquet file that are held at a time
# A storage answers after milliseconds, however fast it is: several pictures are asked for at once.
_ASKED_AT_ONCE = 16


class Picture(NamedTuple):
    """A picture's name, and its encoded file or what reads that."""

    name: str
    content: bytes | Callable[[], bytes]


def pictures_of(block: Block, flaws: list[str]) -> Iterator[Picture]:
    """Yield the pictures of a block in their order.

    Args:
        block: to read.
        flaws: is told, by the time the last picture was yielded, what is wrong with a shard that cannot be read to its end, or
            names a picture twice.

    Raises:
        UnreachedError: if the block cannot be read from here.
        ThawlabError: if a Parquet file is damaged.
    """
    place = Place(block.place)
    if block.kind == "tar":
        return _of_tar(block, place, flaws)
    return _of_table(block, place) if block.kind == "parquet" else _of_folder(block, place)


def predicted(predictor: Predictor, pictures: Iterator[Picture], top_k: int, threads: int) -> Iterator[Prediction]:
    """Predict pictures as they come; those that cannot be decoded get an `error`.

    The numbers are those of `Predictor.stream`: both decode alike and compute in batches of one shape.

    Raises:
        UnreachedError: if a picture cannot be read from here.
    """
    decoding, look = threading.Semaphore(threads), predictor.preprocessing

    def fit(content: bytes | Callable[[], bytes]) -> Pixels | str:
        try:
            encoded = content if isinstance(content, bytes) else content()
            with decoding:  # a large photo takes much memory meanwhile
                return decode(encoded, look)
        except UNREADABLE as error:
            return why_unreadable(error)

    with ThreadPoolExecutor(1) as ahead, ThreadPoolExecutor(max(threads, _ASKED_AT_ONCE)) as pool:
        fitted = _fitted(pictures, fit, pool, 2 * max(threads, _ASKED_AT_ONCE))
        waiting = ahead.submit(_portion, fitted)
        while portion := waiting.result():
            waiting = ahead.submit(_portion, fitted)  # the next one is read while the network computes this one
            good = [pixels for _, pixels in portion if not isinstance(pixels, str)]
            answers = iter(predictor.predict_fitted(np.stack(good), top_k) if good else ())
            for name, pixels in portion:
                if isinstance(pixels, str):
                    yield Prediction(name, error=pixels)
                else:
                    yield replace(next(answers), source=name, image=None)


def _portion(fitted: Iterator[tuple[str, Pixels | str]]) -> list[tuple[str, Pixels | str]]:
    return list(islice(fitted, _PORTION))


def _fitted(
    pictures: Iterator[Picture], fit: Callable[[bytes | Callable[[], bytes]], Pixels | str], pool: ThreadPoolExecutor, most: int
) -> Iterator[tuple[str, Pixels | str]]:
    """Yield pictures at working size, or why they cannot be; at most so many encoded ones are held."""
    begun: deque[tuple[str, Future[Pixels | str]]] = deque()
    for picture in pictures:
        begun.append((picture.name, pool.submit(fit, picture.content)))
        if len(begun) >= most:
            name, future = begun.popleft()
            yield name, future.result()
    for name, future in begun:
        yield name, future.result()


def _of_folder(block: Block, place: Place) -> Iterator[Picture]:
    def reader(name: str) -> Callable[[], bytes]:
        def read() -> bytes:
            try:
                return place.read(name)
            except FileNotFoundError:  # a row that says so would stay, though the picture may be there on other nodes
                raise UnreachedError(f"{block.place}/{name}: was listed, and cannot be found here") from None

        return read

    return (Picture(block.shown + name, reader(name)) for name in block.names)


def _opened(block: Block, place: Place) -> BinaryIO:
    try:
        return place.open(block.size)
    except OSError as error:
        raise UnreachedError(f"{block.place}: cannot be read here: {error.strerror or error}") from None


def _of_tar(block: Block, place: Place, flaws: list[str]) -> Iterator[Picture]:
    """Yield the pictures of a tar shard, whose records say by their order alone what belongs together."""
    seen: set[str] = set()
    twice: list[str] = []
    with _opened(block, place) as file:
        try:
            for name, content in _members(file):
                if name in seen:
                    twice.append(name)
                    continue
                seen.add(name)
                yield Picture(f"{block.shown}/{name}", content)
        except _TAR_DAMAGES as error:
            if isinstance(error, OSError) and error.errno is not None:  # the disk's or the network's error
                raise UnreachedError(f"{block.place}: cannot be read here: {error.strerror}") from None
            flaws.append(f"{block.shown}: is damaged after {len(seen):,} pictures ({first_line(error)}); fetch it again")
    if twice:
        flaws.append(
            f"{block.shown}: {len(twice):,} names stand in it twice, the first is {twice[0]}; the pictures that came first count"
        )


def _members(file: BinaryIO) -> Iterator[tuple[str, bytes | Callable[[], bytes]]]:
    """Yield the name and content of each image in a tar file.

    Raises:
        TarError: if it is none, or damaged, or ends early.
        EOFError: if its compressed content ends early; other errors of what compressed it likewise.
    """
    places: dict[str, tuple[int, int]] = {}
    links: list[tuple[str, str]] = []
    with tarfile.open(fileobj=file, mode="r:*") as archive:
        plain = archive.fileobj is file
        while (member := archive.next()) is not None:
            archive.members.clear()  # type: ignore[attr-defined] # they would fill the memory
            name = member_name(member.name)
            if is_litter(name):
                continue
            if member.islnk() or (member.issym() and has_image_extension(name)):
                target = member.linkname if member.islnk() else f"{name.rpartition('/')[0]}/{member.linkname}"
                links.append((name, member_name(target)))
            elif member.isreg() and (content := archive.extractfile(member)) is not None:
                head = content.read(HEAD)
                if is_image(name, lambda _, head=head: head):  # type: ignore[misc]
                    places[name] = (member.offset_data, member.size)
                    yield name, head + content.read()
        if not _ends(archive, file if plain else None):
            raise tarfile.ReadError("it ends early, without the mark of its end")
        for name, target in links:
            if target in places and plain:
                offset, size = places[target]
                file.seek(offset)
                yield name, file.read(size)
            elif has_image_extension(name):
                where = "in an archive that is compressed" if target in places else "which the archive lacks"
                yield name, _no_content(f"is a link to {target}, {where}")


def _no_content(reason: str) -> Callable[[], bytes]:
    def read() -> bytes:
        raise OSError(reason)

    return read


def _ends(archive: tarfile.TarFile, plain: BinaryIO | None) -> bool:
    """Return whether a tar file goes on with zeros where its last member ends: one that was cut, or spoilt, does not."""
    if plain is not None:
        plain.seek(archive.offset)
        return plain.read(tarfile.BLOCKSIZE) == bytes(tarfile.BLOCKSIZE)
    left, held = 0, archive.fileobj
    while held is not None and (piece := held.read(io.DEFAULT_BUFFER_SIZE)):  # to the very end, where a checksum stands
        left += len(piece)
        if piece.strip(b"\0"):
            return False
    return left > 0


def _of_table(block: Block, place: Place) -> Iterator[Picture]:
    """Yield the images of some row groups, named by the file, their row in it, and the name that a file gives them."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with _opened(block, place) as file:
            table = pq.ParquetFile(file)
            first, last = block.groups
            row = sum(table.metadata.row_group(number).num_rows for number in range(first))
            for batch in table.iter_batches(_ROWS, row_groups=list(range(first, last)), columns=[block.column]):
                for content, name in _cells(batch.column(0)):
                    yield Picture(f"{block.shown}#{row}{f'/{name}' if name else ''}", content)
                    row += 1
    except (pa.ArrowException, OSError) as error:
        raise ThawlabError(f"{block.shown}: cannot be read as Parquet: {first_line(error)}; fetch it again") from None


def _cells(column: Any) -> Iterator[tuple[bytes, str]]:
    """Yield the encoded image in each cell of a column, empty where there is none, and its name where it has one."""
    for value in column:
        cell = value.as_py()
        if isinstance(cell, dict):
            yield cell.get("bytes") or b"", str(cell.get("path") or "")
        else:
            yield cell or b"", ""
