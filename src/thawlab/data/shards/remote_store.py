"""Shards on another machine: each is fetched whole when it is first needed, a few ahead, and kept while there is room."""

from __future__ import annotations

import hashlib
import math
import threading
from collections import OrderedDict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple, final

from thawlab import progress
from thawlab.data.listing import Listing, Reading
from thawlab.data.remote import Remote, content_of, fetch, patiently_remote
from thawlab.data.shards.index import INDEX, ROWS, Rows, Shard, ShardIndex, is_index, parsed, rows_of, why_unfit
from thawlab.data.shards.source import listing_of_shards
from thawlab.data.shards.store import LocalStore
from thawlab.errors import ThawlabError, UsageError
from thawlab.files import cache_folder, room_for_cache, sha256_of, write_atomically
from thawlab.recipe import Caching

# Shards that are fetched before they are needed.
_AHEAD = 2


class Keeping(NamedTuple):
    """What is kept of a remote source on this machine.

    Attributes:
        cache_dir: the folder of all caches, or None.
        caching: the recipe's `data.cache`: "encoded" keeps every shard, "none" only those being read, "auto" and "decoded"
            keep all where they take at most half of what is free.
        buffer: the recipe's `data.shuffle_buffer`, whose images must be at hand together.
    """

    cache_dir: str | None = None
    caching: Caching = "auto"
    buffer: int | None = None


EVERYTHING = Keeping()


@final
class RemoteStore:
    """Copies of remote shards in a folder.

    Args:
        place: where the shards lie.
        folder: for the copies.
        shards: what they must be.
        limit: bytes of copies that are kept; None to keep all.
    """

    def __init__(self, place: Remote, folder: Path, shards: Sequence[Shard], limit: int | None) -> None:
        self.limit = limit
        self._place, self._folder, self._shards = place, folder, shards
        self._local = LocalStore(folder, shards)
        self._here: OrderedDict[int, None] = OrderedDict()
        self._lock, self._fetching = threading.Lock(), [threading.Lock() for _ in shards]
        self._next: dict[int, list[int]] = {}
        self._pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="fetch-shards")

    def read(self, shard: int, offset: int, size: int) -> bytes:
        """Return a part of a shard, fetching the shard if it is not here.

        Raises:
            ThawlabError: if it cannot be fetched, or is not what the index says.
        """
        while True:
            self._have(shard)
            for other in self._next.pop(shard, ()):
                self._pool.submit(self._ahead, other)
            try:
                return self._local.read(shard, offset, size)
            except FileNotFoundError:  # made room for others between the two lines
                with self._lock:
                    self._here.pop(shard, None)

    def expect(self, shards: Sequence[int]) -> None:
        """Take note in which order shards will be read; with each, the next ones are fetched."""
        self._next = {shard: list(shards[at + 1 : at + 1 + _AHEAD]) for at, shard in enumerate(shards)}

    def _ahead(self, shard: int) -> None:
        """Fetch a shard that nobody waits for; whoever needs it meets the error again."""
        try:
            self._have(shard)
        except (ThawlabError, OSError):
            return

    def _have(self, shard: int) -> None:
        with self._lock:
            if shard in self._here:
                self._here.move_to_end(shard)
                return
        with self._fetching[shard]:
            wanted = self._shards[shard]
            path = self._folder / wanted.name
            if not (path.is_file() and path.stat().st_size == wanted.bytes):
                self._make_room(wanted.bytes)
                fetch(self._place.child(wanted.name), path, wanted.bytes, wanted.sha256)
            with self._lock:
                self._here[shard] = None

    def _make_room(self, size: int) -> None:
        """Take away the copies that were not read for longest, until one of `size` bytes fits."""
        while self.limit is not None:
            with self._lock:
                taken = sum(self._shards[shard].bytes for shard in self._here)
                if not self._here or taken + size <= self.limit:
                    return
                oldest, _ = self._here.popitem(last=False)
            self._local.forget(oldest)
            (self._folder / self._shards[oldest].name).unlink(missing_ok=True)


def open_remote_shards(place: Remote, reading: Reading, keeping: Keeping) -> Listing | None:
    """List the images of remote shards; None where no index of shards lies at the place.

    Raises:
        UsageError: if the index is damaged, or access is refused.
        ThawlabError: if the place does not answer.
    """
    try:
        content = content_of(place.child(INDEX))
    except FileNotFoundError:
        return None
    if not is_index(content):
        return None
    index = parsed(content, place.child(INDEX).url)
    folder = cache_folder(keeping.cache_dir, "remote") / hashlib.sha256(content).hexdigest()[:32]
    rows = _table(place.child(ROWS), folder, index)
    _check_sizes(place, index)
    limit = _limit(place, index, folder, keeping)
    return listing_of_shards(index, rows, RemoteStore(place, folder, index.shards, limit), reading)


def _table(place: Remote, folder: Path, index: ShardIndex) -> Rows:
    """Return the table of images, from the copy that is here or fetched."""
    path = folder / ROWS
    if not (path.is_file() and sha256_of(path) == index.rows_sha256):
        try:
            content = content_of(place)
        except FileNotFoundError:
            raise UsageError(f"{place.url}: is missing, and {INDEX} names it; write the shards again") from None
        write_atomically(path, lambda file: file.write(content))
    return rows_of(index, path, place.url)


def _check_sizes(place: Remote, index: ShardIndex) -> None:
    """Compare the sizes of all shards with the index where the place can list them at once.

    Raises:
        UsageError: naming the first shard that is missing or has another size.
    """

    def ask() -> dict[str, int | None]:
        found = place.files.ls(place.path, detail=True)
        return {str(info["name"]).rstrip("/").rpartition("/")[2]: info.get("size") for info in found}

    try:
        sizes = patiently_remote(ask, place.url)
    except FileNotFoundError:
        sizes = {}
    if INDEX not in sizes:  # the place gives files and no lists of them
        return
    for shard in index.shards:
        if shard.name in sizes and sizes[shard.name] is None:  # the place does not say how large its files are
            continue
        if reason := why_unfit(shard, sizes.get(shard.name)):
            raise UsageError(f"{place.child(shard.name).url}: {reason}; write the shards again")


def _limit(place: Remote, index: ShardIndex, folder: Path, keeping: Keeping) -> int | None:
    """Return how many bytes of shards are kept here, None for all, and say so before anything is written."""
    total, room = sum(shard.bytes for shard in index.shards), room_for_cache(folder)
    here = sum(shard.bytes for shard in index.shards if (folder / shard.name).is_file())
    free = f"of {2 * room / 2**30:,.1f} GiB free in {folder}"
    if keeping.caching == "encoded" or (keeping.caching != "none" and total - here <= room):
        if total > here:
            progress.say(f"{place.url}: {total / 2**30:,.2f} GiB of shards are kept as they are fetched, {free}")
        return None
    least = min(shard.images for shard in index.shards) or 1
    window = math.ceil((keeping.buffer or 1) / least) + 1
    limit = (window + 2 * _AHEAD + 1) * max(shard.bytes for shard in index.shards)
    if limit >= total:
        return None
    progress.say(
        f"{place.url}: of {total / 2**30:,.2f} GiB of shards at most {limit / 2**30:,.2f} GiB are kept at a time, {free}"
    )
    return limit
