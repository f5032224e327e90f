"""A folder of shards as a source: its index is its listing, and nothing is read before it is needed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import final

import numpy as np

from thawlab.data.images import HEAD
from thawlab.data.listing import Known, Listing, Reading
from thawlab.data.shards.index import INDEX, ROWS, Rows, ShardIndex, is_index, parsed, rows_of, why_unfit
from thawlab.data.shards.store import LocalStore, Store
from thawlab.data.types import Indices
from thawlab.errors import UsageError
from thawlab.files import size_of


@final
@dataclass(frozen=True)
class ShardImages:
    """The images of shards.

    Attributes:
        rows: where they lie.
        store: gives the bytes.
    """

    rows: Rows
    store: Store

    @property
    def fetches_again(self) -> bool:
        """Whether shards come from afar and not all are kept."""
        return self.store.limit is not None

    def read(self, index: int) -> bytes:
        """Return the encoded file of an image.

        Raises:
            OSError: if it cannot be read.
        """
        rows = self.rows
        return self.store.read(int(rows.shards[index]), int(rows.offsets[index]), int(rows.sizes[index]))

    def head(self, index: int) -> bytes:
        """Return the first bytes of an image's file."""
        rows = self.rows
        return self.store.read(int(rows.shards[index]), int(rows.offsets[index]), min(HEAD, int(rows.sizes[index])))

    def expect(self, indices: Indices) -> None:
        """Take note in which order images will be read."""
        shards = self.rows.shards[indices]
        first = np.sort(np.unique(shards, return_index=True)[1])
        self.store.expect(shards[first].tolist())


def holds_shards(folder: Path) -> bool:
    """Return whether a folder holds shards with an index."""
    path = folder / INDEX
    return path.is_file() and is_index(path.read_bytes())


def read_index(folder: Path) -> ShardIndex:
    """Return the index of a folder of shards, whatever became of the shards.

    Raises:
        UsageError: if there is none, or it is damaged.
    """
    path = folder / INDEX
    content = path.read_bytes() if path.is_file() else b""
    if not is_index(content):
        raise UsageError(f"{folder}: holds no shards with an {INDEX}; `thawlab data shards SOURCE FOLDER` writes them")
    return parsed(content, str(path))


def open_index(folder: Path) -> ShardIndex:
    """Return the index of a folder of shards.

    Raises:
        UsageError: if it is damaged, or a shard is missing or was cut.
    """
    index = read_index(folder)
    for shard in index.shards:
        path = folder / shard.name
        if reason := why_unfit(shard, size_of(path)):
            raise UsageError(f"{path}: {reason}; fetch it again, or write the shards again")
    return index


def open_shard_folder(folder: Path, reading: Reading) -> Listing:
    """List the images of a folder of shards with an index.

    Raises:
        UsageError: if the index is damaged, or does not fit the shards.
    """
    index = open_index(folder)
    path = folder / ROWS
    if not path.is_file():
        raise UsageError(f"{path}: is missing; fetch it again, or write the shards again")
    rows = rows_of(index, path, str(path))
    return listing_of_shards(index, rows, LocalStore(folder, index.shards), reading)


def listing_of_shards(index: ShardIndex, rows: Rows, store: Store, reading: Reading) -> Listing:
    """Return the listing that an index stands for.

    Raises:
        UsageError: if something is said of how to read it: the index says it.
    """
    reading.refuse("layout", "path_column", "label_column", what="shards with an index")
    from thawlab.environment import release_memory

    reasons: Mapping[int, str] = rows.reasons
    release_memory()  # what reading the index left behind
    return Listing(
        name=index.name,
        classes=index.classes,
        ids=rows.ids,
        labels=rows.labels,
        splits=rows.splits,
        images=ShardImages(rows, store),
        ignored=index.ignored,
        groups=rows.groups,
        layout=index.layout,
        notes=index.notes,
        known=Known(rows.digests, reasons, rows.shards, index.checked_by),
    )
