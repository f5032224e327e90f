"""What a command predicts, cut into blocks: some pictures of a folder, a tar shard, some row groups of a Parquet file.

Blocks and the names of their parts follow from what is listed alone, neither from the cluster nor from what was predicted before:
that is how a command finds what it has done. Pictures of folders are held by name, about 200 bytes each; shards are not.
"""

from __future__ import annotations

import hashlib
import itertools
import json
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Literal, NamedTuple

from thawlab.data.archive_members import SUFFIXES
from thawlab.data.folders import image_files_below, walk
from thawlab.data.images import HEAD
from thawlab.data.layout import is_litter
from thawlab.data.listing import UNSAID
from thawlab.data.openers import is_image
from thawlab.data.parquet_columns import image_column
from thawlab.data.remote import is_remote
from thawlab.data.shards.index import ROWS
from thawlab.deploy.cluster.places import Entry, Place
from thawlab.errors import UsageError, first_line, nearest
from thawlab.files import user_path

# A block holds at most so many pictures, and few enough that many nodes share them, where its file does not say otherwise.
_MOST, _LEAST, _BLOCKS = 2048, 32, 64
_TARS = tuple(suffix for suffix in SUFFIXES if suffix != ".zip")
_PARQUET = ".parquet"
_LISTING_THREADS = 16


class Block(NamedTuple):
    """What one task predicts.

    Attributes:
        kind: pictures of a folder, all of a tar shard, or some rows of a Parquet file.
        place: the folder or file that is read, as every node can find it.
        shown: the beginning of what its rows are called.
        names: of the pictures below the folder.
        size: of the file in bytes.
        groups: the first of the Parquet file's row groups, and the one after the last.
        column: of the Parquet file, which holds the images.
        part: the file that its rows go to.
    """

    kind: Literal["pictures", "tar", "parquet"]
    place: str
    shown: str
    names: tuple[str, ...] = ()
    size: int = 0
    groups: tuple[int, int] = (0, 0)
    column: str = ""
    part: str = ""


class _File(NamedTuple):
    """A file that was found: the folder and name it is read by, what rows call the folder, its bytes and its version."""

    place: str
    name: str
    shown: str
    size: int
    mark: str

    @property
    def address(self) -> str:
        """Where it is read."""
        return f"{self.place}/{self.name}"


def blocks_of(sources: Sequence[str]) -> list[Block]:
    """Return the blocks of all sources, each picture in one of them, in the order of the sources and of the names.

    Args:
        sources: paths and addresses of pictures, tar shards and Parquet files, and of folders of them.

    Raises:
        UsageError: if one does not exist, holds nothing to predict, or is no Parquet file.
        UnreachedError: if a storage does not answer.
    """
    files = list({file.shown + file.name: file for source in sources for file in _files_of(source)}.values())
    pictures = [file for file in files if not _is_pack(file.name)]
    tables = [(file, *_groups_of(file)) for file in files if file.name.lower().endswith(_PARQUET)]
    most = _block_size(len(pictures) + sum(sum(rows) for _, _, rows in tables))
    blocks = list(_of_pictures(pictures, most))
    for file in files:
        if file.name.lower().endswith(_TARS):
            blocks.append(_named(Block("tar", file.address, file.shown + file.name, size=file.size), [file]))
    for file, column, rows in tables:
        for groups in _spans(rows, most):
            whole = Block("parquet", file.address, file.shown + file.name, (), file.size, groups, column)
            blocks.append(_named(whole, [file]))
    return blocks


def _files_of(source: str) -> list[_File]:
    """Return what a source holds: its pictures, or else its shards and Parquet files.

    Raises:
        UsageError: if there is nothing.
    """
    found = _remote_files(source) if is_remote(source) and not source.startswith("file://") else _local_files(source)
    refused = next((file for file in found if file.name.lower().endswith(".zip")), None)
    if refused is not None and len(found) == 1:
        raise UsageError(f"{source}: is a zip archive, which is not read from front to back; unpack it, or write tar shards")
    pictures = [file for file in found if not _is_pack(file.name)]
    packs = [file for file in found if file.name.lower().endswith((*_TARS, _PARQUET))]
    if any(file.name.lower().endswith(_TARS) for file in packs):
        packs = [file for file in packs if file.name.rpartition("/")[2] != ROWS]  # the index beside shards
    if not pictures and not packs:
        raise UsageError(f"{source}: holds neither pictures nor tar shards nor Parquet files")
    return pictures or packs  # tables and archives among pictures are something else


def _is_pack(name: str) -> bool:
    return name.lower().endswith((*SUFFIXES, _PARQUET))


def _local_files(source: str) -> list[_File]:
    path = user_path(source.removeprefix("file://"))
    if not path.exists():
        raise UsageError(
            f"{path}: there is no such file or folder{nearest(path.name, (one.name for one in path.parent.glob('*')))}"
        )
    if not path.is_dir():
        return [_local(path.parent, path.name)]
    found = [file.relative_to(path).as_posix() for file in image_files_below(path)]
    return [_local(path, name) for name in found or filter(_is_pack, walk(path).files)]


def _local(folder: Path, name: str) -> _File:
    """Return a file as `predict` names it without a cluster."""
    prefix = str(folder / "x")[:-1]
    try:
        look = (folder / name).stat()
        return _File(str(folder.absolute()), name, prefix, look.st_size, str(look.st_mtime_ns))
    except OSError:  # gone since, or a link that leads nowhere: whoever reads it says so
        return _File(str(folder.absolute()), name, prefix, -1, "")


def _remote_files(source: str) -> list[_File]:
    place, folder = Place(source), source.rstrip("/")
    if "*" not in place.path and (single := place.entry()) is not None:
        above, _, name = folder.rpartition("/")
        return [_File(above, name, f"{above}/", single.size, single.mark)]
    listing = place.files()
    if "*" in place.path:
        split = [place.url(entry.path).rpartition("/") for entry in listing]
        return sorted(_File(above, name, f"{above}/", e.size, e.mark) for (above, _, name), e in zip(split, listing, strict=True))
    below: dict[str, Entry] = {_below(place.path, entry.path): entry for entry in listing}
    names = sorted(name for name in below if name and not is_litter(name))

    def kept(name: str) -> bool:
        return _is_pack(name) or is_image(name, lambda name: place.read(name, 0, HEAD))

    with ThreadPoolExecutor(_LISTING_THREADS) as pool:  # a name without an extension asks for the first bytes
        chosen = [name for name, keep in zip(names, pool.map(kept, names), strict=True) if keep]
    return [_File(folder, name, f"{folder}/", below[name].size, below[name].mark) for name in chosen]


def _below(root: str, path: str) -> str:
    start = root.rstrip("/") + "/"
    return path[len(start) :] if path.startswith(start) else ""


def _groups_of(file: _File) -> tuple[str, list[int]]:
    """Return the column of a Parquet file that holds the images, and the rows of each of its row groups.

    Raises:
        UsageError: if it cannot be read, or has no such column.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    shown = Path(file.shown + file.name) if not is_remote(file.shown) else file.shown + file.name
    try:
        with Place(file.address).open(file.size) as opened:
            table = pq.ParquetFile(opened)
            column = image_column(table.schema_arrow, shown, UNSAID, opened, "Call the one image")
            return column, [table.metadata.row_group(number).num_rows for number in range(table.metadata.num_row_groups)]
    except (pa.ArrowException, OSError) as error:
        raise UsageError(f"{shown}: cannot be read as Parquet: {first_line(error)}; fetch it again, or leave it out") from None


def _block_size(total: int) -> int:
    """Return how many pictures a block holds: a power of two, so that a few pictures more do not change all blocks."""
    size = _MOST
    while size > _LEAST and total < size * _BLOCKS:
        size //= 2
    return size


def _of_pictures(pictures: Iterable[_File], most: int) -> Iterator[Block]:
    for (place, shown), run in itertools.groupby(pictures, lambda file: (file.place, file.shown)):
        while files := list(itertools.islice(run, most)):
            yield _named(Block("pictures", place, shown, tuple(file.name for file in files)), files)


def _spans(rows: Sequence[int], most: int) -> Iterator[tuple[int, int]]:
    """Yield spans of row groups that hold at most so many rows together, or one group that holds more."""
    start = held = 0
    for number, count in enumerate(rows):
        if number > start and held + count > most:
            yield start, number
            start, held = number, 0
        held += count
    if rows:
        yield start, len(rows)


def _named(block: Block, files: Sequence[_File]) -> Block:
    """Return a block with the name of its part: a digest of its pictures' names, or its file's, with sizes and versions."""
    what = [block.kind, block.groups, block.column, [(file.shown, file.name, file.size, file.mark) for file in files]]
    digest = hashlib.sha256(json.dumps(what).encode()).hexdigest()
    return block._replace(part=f"part-{digest[:20]}.parquet")
