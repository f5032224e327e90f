"""Remote sources without an index: copied into the cache once, and read there."""

from __future__ import annotations

import hashlib
import json
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path, PurePosixPath

from thawlab import progress
from thawlab.data.remote import Remote, RemoteFile, fetch, listed_files
from thawlab.errors import UsageError
from thawlab.files import cache_folder, room_for_cache

# Files that are fetched at a time: small ones cost waiting, not bandwidth.
_AT_ONCE = 16


def mirrored(place: Remote, cache_dir: str | None) -> Path:
    """Return a copy of a remote folder or file, fetched as far as it is not here yet.

    The copy is named by the names, sizes and versions of all files, so that changed data are another copy.

    Args:
        place: the folder or file.
        cache_dir: the folder of all caches, or None.

    Raises:
        UsageError: if nothing is there, access is refused, or the data would take more than half of the free disk.
        ThawlabError: if the place does not answer.
    """
    files = listed_files(place)
    version = hashlib.sha256(json.dumps([place.url.rstrip("/"), *files]).encode()).hexdigest()[:32]
    name = PurePosixPath(place.path.rstrip("/")).name or "data"
    folder = cache_folder(cache_dir, "remote") / version
    target = folder / name
    whole = [PurePosixPath(place.path).name] == [file.name for file in files]
    missing = [file for file in files if not _is_here(target if whole else target / file.name, file)]
    if missing:
        _say(place, missing, folder)
        with ThreadPoolExecutor(_AT_ONCE) as pool, progress.task("fetching", len(missing)) as advance:
            for _ in pool.map(lambda file: _fetched(place, file, target, whole), missing):
                advance(1)
    return target


def _is_here(path: Path, file: RemoteFile) -> bool:
    return path.is_file() and path.stat().st_size == file.size


def _fetched(place: Remote, file: RemoteFile, target: Path, whole: bool) -> None:
    if whole:
        fetch(place, target, file.size)
    else:
        fetch(place.child(file.name), target / file.name, file.size)


def _say(place: Remote, missing: list[RemoteFile], folder: Path) -> None:
    """Say what is fetched before anything is written.

    Raises:
        UsageError: if it would take more than half of what is free.
    """
    size, room = sum(file.size for file in missing), room_for_cache(folder)
    takes = f"{place.url}: {len(missing):,} files, {size / 2**30:,.2f} GiB"
    if size > room:
        raise UsageError(
            f"{takes}, and {2 * room / 2**30:,.1f} GiB are free in {folder.parent}; choose another place with --cache-dir, or "
            "write the data into shards near to where they lie (`thawlab data shards`), which are read without keeping them"
        )
    progress.say(f"{takes}, are fetched into {folder}")
