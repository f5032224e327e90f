"""Where the bytes of shards are read from: files of this machine, or copies of remote ones that are fetched as needed."""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import BinaryIO, Protocol, final

from thawlab.data.shards.index import Shard

# Files that are held open; a system allows about a thousand.
_OPEN = 256


class Store(Protocol):
    """Access to parts of shards, safe to use from several threads.

    Attributes:
        limit: bytes of copies that are kept; None where all are at hand.
    """

    limit: int | None

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return a part of the shard with a number.

        Raises:
            OSError: if it cannot be read, or the shard ends before.
        """

    def expect(self, shards: Sequence[int]) -> None:
        """Take note in which order shards will be read, so that they can be fetched ahead."""


@final
class LocalStore:
    """Shards in a folder; files that are read again and again stay open."""

    limit: int | None = None

    def __init__(self, folder: Path, shards: Sequence[Shard]) -> None:
        self._folder, self._shards = folder, shards
        self._files: OrderedDict[int, BinaryIO] = OrderedDict()
        self._lock = threading.Lock()

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return a part of a shard."""
        with self._lock:
            file = self._files.pop(shard, None) or self._path(shard).open("rb", buffering=0)
            self._files[shard] = file
            if len(self._files) > _OPEN:
                self._files.popitem(last=False)  # it is closed once no other thread reads it
        content = os.pread(file.fileno(), size, offset)
        if len(content) < size:
            raise OSError(f"{self._shards[shard].name} ends before it")
        return content

    def expect(self, shards: Sequence[int]) -> None:
        """Do nothing: the files are here."""

    def forget(self, shard: int) -> None:
        """Close the file of a shard."""
        with self._lock:
            self._files.pop(shard, None)

    def _path(self, shard: int) -> Path:
        return self._folder / self._shards[shard].name
