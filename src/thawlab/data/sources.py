"""Named data sets, and the one function that opens a source by name or path."""

import contextlib
import io
import logging
import pickle
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from thawlab.data.images import ArrayImages
from thawlab.data.listing import UNSAID, Listing, Reading
from thawlab.data.mirror import mirrored
from thawlab.data.parquet import parquet_files
from thawlab.data.paths import open_path
from thawlab.data.remote import Remote, is_remote, remote
from thawlab.data.shapes import SHAPES, draw_shapes
from thawlab.data.shards.remote_store import EVERYTHING, Keeping, open_remote_shards
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.files import cache_root, found_path
from thawlab.registry import Registry

# What torchvision raises: without a network, and on files that were cut or are none of the data set.
_UNREAD: tuple[type[Exception], ...] = (OSError, RuntimeError, EOFError, ValueError, AssertionError, LookupError, TypeError)
_UNREAD += (AttributeError, MemoryError, pickle.UnpicklingError, struct.error)

# A factory is given what follows the name's colon ("shapes:500x64") and the folder where data sets are kept.
Source = Callable[[str, Path], Listing]
datasets: Registry[Source] = Registry("data set")


def _named(source: str) -> tuple[str, str] | None:
    """Return name and argument of a data set, or None for a path: a name holds no slash before its colon."""
    name, _, argument = source.partition(":")
    return (name, argument) if name in datasets else None


def canonical(source: str) -> str:
    """Return the one spelling of a source that recipes record.

    `photos/` becomes `photos`, and `./digits` stays a path, since `digits` is a data set. `digits:`, which is never a path,
    becomes `digits` unless a path of that name is here too, so that the spelling means the same when it is read again.

    Raises:
        UsageError: if the source is a data set's bare name and a path as well.
    """
    if is_remote(source):
        return source.rstrip("/")
    if _named(source) is None:
        path = str(Path(source))
        return path if _named(path) is None else f"./{path}"
    name = source.removesuffix(":")
    if name not in datasets or not Path(name).exists():
        return name
    if source == name:
        kind = "folder" if Path(source).is_dir() else "file"
        raise UsageError(
            f"data.source: '{source}' is both a built-in data set and a {kind} here; write ./{source} for the {kind}, "
            f"or {source}: for the data set"
        )
    return source


def check_source(source: str, bases: Sequence[str] = ()) -> None:
    """Check that a source is the name of a data set, an existing path or an address that can be read, without opening it.

    Args:
        source: as it was written.
        bases: as for `found_path`.

    Raises:
        UsageError: if it is neither, or both; the message gives the nearest name, or both spellings.
    """
    if is_remote(source):
        remote(source)
        return
    path = found_path(source, bases)
    if _named(canonical(source)) or path.exists():
        return
    siblings = [entry.name for entry in path.parent.iterdir()] if path.parent.is_dir() else []
    hint = nearest(source.partition(":")[0], datasets) or nearest(path.name, siblings)
    looked = f", looked for here and from {listed(bases)}" if bases else ""
    raise UsageError(
        f"data.source: '{source}' is neither a data set nor a path{looked}{hint or f' (data sets: {listed(datasets)})'}"
    )


def open_source(source: str, data_dir: str | None = None) -> Listing:
    """List the images of a named data set (`cifar10`, `shapes:500x64`), a path (folder, zip, tar, Parquet, CSV) or an address.

    `data_dir` holds a copy of a named data set, or takes its download.

    Raises:
        UsageError: if the source is neither, or both; the message gives the nearest name, or both spellings.
        ThawlabError: if a download is needed and fails; the message gives the offline ways.
    """
    check_source(source)
    return open_recorded(canonical(source), data_dir)


def open_recorded(
    source: str, data_dir: str | None = None, reading: Reading = UNSAID, bases: Sequence[str] = (), keeping: Keeping = EVERYTHING
) -> Listing:
    """List the images of a source as recipes record it: a bare name is a data set, whatever lies here.

    Args:
        source: as it was written.
        data_dir: as for `open_source`.
        reading: what the owner says of it.
        bases: as for `found_path`.
        keeping: what is kept here of a source on another machine.
    """
    if is_remote(source):
        return _open_remote(remote(source), reading, keeping)
    named = _named(source)
    if named is None:
        check_source(source, bases)
        return open_path(found_path(source, bases), reading)
    name, argument = named
    reading.refuse("layout", "path_column", "label_column", what=f"the data set '{name}'")
    return datasets.get(name)(argument, found_path(data_dir, bases) if data_dir else cache_root() / "data")


def _open_remote(place: Remote, reading: Reading, keeping: Keeping) -> Listing:
    """List the images at an address: shards as they are read, anything else from a copy."""
    shards = open_remote_shards(place, reading, keeping)
    return shards or open_path(mirrored(place, keeping.cache_dir), reading)


def _no_argument(name: str, argument: str) -> None:
    if argument:
        raise UsageError(f"data.source: '{name}' takes nothing after a colon, but '{argument}' was given")


def _torchvision(name: str, kind: str, data_dir: Path) -> Listing:
    """List the images of one of torchvision's data sets, downloading what is not at hand.

    torchvision verifies the archive's checksum before anything is read.
    """
    import torchvision

    build = getattr(torchvision.datasets, kind)
    where = build.mirrors[0] if hasattr(build, "mirrors") else build.url

    def parts(download: bool) -> list[Any]:
        return [build(str(data_dir), train=train, download=download) for train in (True, False)]

    try:
        try:
            both = parts(download=False)
        except RuntimeError:
            logging.getLogger(__name__).info("downloading %s from %s", name, where)
            with contextlib.redirect_stdout(io.StringIO()):
                both = parts(download=True)
    except _UNREAD as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ThawlabError(
            f"{name}: could not be fetched from {where} or read in {data_dir} ({reason}); "
            f"put a whole copy into a folder and name it with --data-dir, or give a folder of images as the source"
        ) from None
    images = np.concatenate([np.asarray(part.data) for part in both])
    if images.ndim == 3:
        images = np.repeat(images[..., None], 3, axis=-1)
    counts = [len(part.targets) for part in both]
    return Listing(
        name=name,
        classes=tuple(both[0].classes),
        ids=tuple(f"{split}/{k:05d}" for split, n in zip(("train", "test"), counts, strict=True) for k in range(n)),
        labels=np.concatenate([np.asarray(part.targets) for part in both]).astype(np.int64),
        splits=np.repeat(np.array(["train", "test"]), counts),
        images=ArrayImages(images),
    )


def _cifar(name: str, argument: str, data_dir: Path) -> Listing:
    _no_argument(name, argument)
    if not parquet_files(data_dir):
        return _torchvision(name, name.upper(), data_dir)
    listing = open_path(data_dir)
    wanted = int(name.removeprefix("cifar"))
    if len(listing.classes) != wanted:
        raise UsageError(
            f"{data_dir}: holds {len(listing.classes)} classes, not the {wanted} of {name}; name its folder as the source"
        )
    return listing


@datasets.register("cifar10")
def cifar10(argument: str, data_dir: Path) -> Listing:
    """CIFAR-10: 50,000 + 10,000 colour images of 32×32 in 10 classes (Krizhevsky 2009)."""
    return _cifar("cifar10", argument, data_dir)


@datasets.register("cifar100")
def cifar100(argument: str, data_dir: Path) -> Listing:
    """CIFAR-100: 50,000 + 10,000 colour images of 32×32 in 100 classes (Krizhevsky 2009)."""
    return _cifar("cifar100", argument, data_dir)


@datasets.register("fashion-mnist")
def fashion_mnist(argument: str, data_dir: Path) -> Listing:
    """Fashion-MNIST: 60,000 + 10,000 grey images of 28×28 in 10 classes (Xiao et al. 2017)."""
    _no_argument("fashion-mnist", argument)
    return _torchvision("fashion-mnist", "FashionMNIST", data_dir)


@datasets.register("digits")
def digits(argument: str, data_dir: Path) -> Listing:  # noqa: ARG001 - it comes with scikit-learn
    """Handwritten digits: 1,797 grey images of 8×8 in 10 classes; comes with scikit-learn, no split of its own."""
    from sklearn.datasets import load_digits

    _no_argument("digits", argument)
    table = load_digits()
    # Grey values run from 0 to 16; 255/16 brings them to the full range of a byte.
    images = np.rint(table.images * (255 / 16)).astype(np.uint8)
    ids = tuple(f"{index:04d}" for index in range(len(images)))
    labels, splits = table.target.astype(np.int64), np.repeat("train", len(images))
    pixels = ArrayImages(np.repeat(images[..., None], 3, axis=-1))
    return Listing("digits", tuple(map(str, table.target_names)), ids, labels, splits, pixels)


@datasets.register("shapes")
def shapes(argument: str, data_dir: Path) -> Listing:  # noqa: ARG001 - it is drawn
    """Drawn shapes in ten classes, `shapes:COUNTxSIZE[xSEED]` (default 1000x32x0); no split of its own."""
    parts = (argument or "1000x32").split("x")
    if not 1 <= len(parts) <= 3 or not all(part.isdecimal() for part in parts):
        raise UsageError(f"data.source: 'shapes:{argument}' should read shapes:COUNTxSIZE or shapes:COUNTxSIZExSEED")
    count, size, seed = (*map(int, parts), *(1000, 32, 0)[len(parts) :])
    if count < len(SHAPES) or not 8 <= size <= 1024:
        raise UsageError(f"data.source: 'shapes:{argument}' needs at least {len(SHAPES)} images of 8 to 1024 pixels")
    images, labels = draw_shapes(count, size, seed)
    ids = tuple(f"{index:06d}" for index in range(count))
    return Listing("shapes", SHAPES, ids, labels, np.repeat("train", count), ArrayImages(images))


@datasets.register("fruits360")
def fruits360(argument: str, data_dir: Path) -> Listing:
    """Fruits-360: images of fruit of 100×100 in `Training/` and `Test/`; needs a copy at hand (folder, zip or tar)."""
    _no_argument("fruits360", argument)
    if data_dir.is_file():
        return open_path(data_dir)
    for folder in (data_dir, *sorted(data_dir.glob("fruits*"))):
        if (folder / "Training").is_dir() or folder.suffix in {".zip", ".tar"}:
            return open_path(folder)
    raise ThawlabError(
        f"fruits360: no copy found in {data_dir}; fetch 'fruits-360-100x100' from its authors' page on GitHub or Kaggle, "
        "and name the folder (with Training/ and Test/), zip or tar with --data-dir"
    )
