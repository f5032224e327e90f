"""Sources that are paths: a folder of images, of Parquet files, of shards, or a file with an opener of its own."""

from pathlib import Path

from thawlab.data import archive_members, archives, manifest  # noqa: F401 - they register their openers
from thawlab.data.folders import open_folder, walk
from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.openers import opener_of, openers
from thawlab.data.parquet import open_parquet, parquet_files
from thawlab.data.shards.source import holds_shards, open_shard_folder
from thawlab.errors import UsageError, listed


def open_path(path: Path, reading: Reading = UNSAID) -> Listing:
    """List the images of a folder, or of a file that has an opener.

    Raises:
        UsageError: if the path is neither, or holds no usable images.
    """
    if path.is_dir():
        if holds_shards(path):
            return open_shard_folder(path, reading)
        found = walk(path)
        if parquet_files(path, found):
            return open_parquet(path, reading)
        packed = [name for name in found.files if name.lower().endswith(archive_members.SUFFIXES)]
        if packed:
            return archives.open_archives(path, found, packed, reading)
        return open_folder(path, reading, found)
    opener = opener_of(path)
    if opener is None:
        raise UsageError(f"{path}: not a source of images; give a folder, or a file that ends in {listed(openers)}")
    return opener(path, reading)
