"""The dataset that training reads: images decoded once into uint8 rows, splits, and a fingerprint of the content."""

import hashlib
import json
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, cast, final

import numpy as np
import numpy.typing as npt
import PIL

from thawlab import progress
from thawlab.data.corrections import changes_of
from thawlab.data.decode import DECODING, BadImageError, decode, why_unreadable
from thawlab.data.images import ArrayImages, content_digest, patiently
from thawlab.data.listing import Listing
from thawlab.data.on_demand import OnDemand
from thawlab.data.originals import keep_originals
from thawlab.data.parallel import in_threads
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.rowstore import RowStore, marks_in
from thawlab.data.selection import open_data
from thawlab.data.sources import open_recorded, open_source
from thawlab.data.splits import Splits, absent_classes, make_splits
from thawlab.data.types import Indices, Labels, Pixels
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.files import cache_folder, read_json, room_for_cache, write_text
from thawlab.memory import remember
from thawlab.recipe import Caching, Recipe, System

# Decoded rows become valid in portions, so that an interruption loses little of a long decoding; a multiple of the chunks
# that the threads work in.
_PORTION = 4096
# Above this share of bad images something is wrong with the source, not with single files.
_MAX_BAD_SHARE = 0.5
# Decoded images that take more bytes are worth a line before they are written.
_WORTH_SAYING = 1 << 30
# Images per OOD source, to measure how well they are told apart.
_OOD_IMAGES = 250
# Stands in the fingerprint for the content of a file that cannot be read.
UNREADABLE_DIGEST = b"unreadable"


@final
@dataclass(frozen=True)
class Dataset:
    """Decoded images with labels and splits.

    Attributes:
        name: of the source.
        classes: class names; a label is an index into them.
        ids: a unique name per image.
        labels: int64 per image.
        images: uint8, n × size × size × 3, in memory, memory-mapped or decoded as taken; only rows of `splits` are valid.
        splits: disjoint indices for train, val and test.
        fingerprint: SHA-256 over classes, ids, labels, splits of the source and the content of every image.
        geometry: the key of the preprocessing that made `images`.
        quarantined: (id, reason) of images that could not be decoded; they are in no split.
        ignored: (path, reason) of files that are no images of a class.
        leaks: (training image, image of val or test) of the very same content.
        layout: what the levels of folders, or the columns, were taken for.
        notes: what else the data's owner should know of how they were read.
        corrected_test: test images whose labels people corrected, or that they left out.
        originals: files, or pixels, of a sample of the test images by index, as they came.
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Labels
    images: npt.NDArray[np.uint8]
    splits: Splits
    fingerprint: str
    geometry: str
    quarantined: tuple[tuple[str, str], ...] = ()
    ignored: tuple[tuple[str, str], ...] = ()
    leaks: tuple[tuple[int, int], ...] = ()
    layout: str = ""
    notes: tuple[str, ...] = ()
    corrected_test: int = 0
    originals: Mapping[int, bytes | Pixels] = field(default_factory=dict)

    def indices(self, split: str) -> Indices:
        """Return the indices of a split."""
        chosen: Indices = getattr(self.splits, split)
        return chosen

    def summary(self) -> dict[str, Any]:
        """Return what `data.json` holds: fingerprint, classes, sizes of splits and classes, and what was left out."""
        counts = {
            split: np.bincount(self.labels[self.indices(split)], minlength=len(self.classes)).tolist()
            for split in ("train", "val", "test")
        }
        return {
            "name": self.name,
            "fingerprint": self.fingerprint,
            "classes": list(self.classes),
            "n": {split: int(sum(values)) for split, values in counts.items()},
            "per_class": counts,
            "geometry": self.geometry,
            "quarantined": {"count": len(self.quarantined), "files": [{"id": i, "reason": r} for i, r in self.quarantined]},
            "leaks": {"count": len(self.leaks), "pairs": [[self.ids[k] for k in pair] for pair in self.leaks[:1000]]},
            "ignored": {"count": len(self.ignored), "files": [{"id": i, "reason": r} for i, r in self.ignored[:1000]]},
        }


class Scan(NamedTuple):
    """What one pass over the files of a listing found, in its order.

    Attributes:
        digests: SHA-256 of each file's content; a word instead where it cannot be read.
        reasons: by index, why an image cannot be read or, where there are `rows`, decoded.
        rows: uint8, n × size × size × 3, the decoded images; None where nothing was decoded.
    """

    digests: tuple[bytes, ...]
    reasons: Mapping[int, str]
    rows: npt.NDArray[np.uint8] | None = None


def hash_files(listing: Listing, workers: int | None = None) -> Scan:
    """Read every image of a listing once and hash its content.

    Raises:
        ThawlabError: if reading fails for a reason that says nothing about the file.
    """
    reasons: dict[int, str] = {}

    def hash_one(index: int) -> bytes:
        try:
            return patiently(lambda: content_digest(listing.images.read(index)), listing.ids[index])
        except OSError as error:
            reasons[index] = why_unreadable(error)
            return UNREADABLE_DIGEST

    parts = in_threads(hash_one, np.arange(len(listing)), workers, "reading")
    return Scan(tuple(digest for _, part in parts for digest in part), reasons)


def fingerprint(listing: Listing, digests: Sequence[bytes]) -> str:
    """Return the SHA-256 of a listing's classes, ids, labels, splits, groups and the content (`digests`) of its images.

    Of a corrected one also of the ids and labels before, which its splits are made of.
    """
    header = [listing.classes, listing.ids, listing.labels.tolist(), listing.splits.tolist()]
    if listing.groups is not None:
        header.append(listing.groups.tolist())
    if (before := listing.uncorrected) is not None:
        header.append([before.classes, before.ids, before.labels.tolist()])
    digest = hashlib.sha256(json.dumps(header, ensure_ascii=False).encode())
    images = listing.images
    digest.update(np.ascontiguousarray(images.array).data if isinstance(images, ArrayImages) else b"".join(digests))
    return digest.hexdigest()


def leaks_between(splits: Splits, digests: Sequence[bytes]) -> tuple[tuple[int, int], ...]:
    """Return the val and test images that are identical to a training image, as (training image, other)."""
    trained = {digests[index]: index for index in splits.train.tolist()[::-1]}
    judged = np.concatenate([splits.val, splits.test]).tolist()
    return tuple((trained[digests[index]], index) for index in judged if digests[index] in trained)


def ready_rows(listing: Listing, preprocessing: Preprocessing) -> npt.NDArray[np.uint8] | None:
    """Return the images of a listing that holds them at working size already; None where they must be decoded."""
    size = preprocessing.size
    whole = preprocessing.resize != "crop" or preprocessing.crop_pct == 1.0
    images = listing.images
    return images.array if isinstance(images, ArrayImages) and images.array.shape[1:] == (size, size, 3) and whole else None


def _decoder(listing: Listing, preprocessing: Preprocessing, scan: Scan) -> Callable[[int], Pixels | str]:
    """Return the function that gives an image's row, or the reason that its bytes cannot be decoded."""

    def read_and_decode(index: int) -> Pixels:
        content = listing.images.read(index)
        if content_digest(content) != scan.digests[index]:
            raise OSError("has other content")
        return decode(content, preprocessing)

    def decode_one(index: int) -> Pixels | str:
        try:
            return patiently(lambda: read_and_decode(index), listing.ids[index])
        except BadImageError as error:
            return str(error)
        except OSError as error:
            raise ThawlabError(f"{listing.ids[index]}: was changed while the data were read; run the command again") from error

    rows = scan.rows
    return decode_one if rows is None else lambda index: scan.reasons.get(index) or rows[index]


def _decode_rows(
    listing: Listing, indices: Indices, preprocessing: Preprocessing, folder: Path, workers: int | None, scan: Scan, keep: bool
) -> tuple[npt.NDArray[np.uint8], dict[int, str]]:
    """Return all rows as an array of which `indices` are valid, and the reasons of those that could not be decoded.

    Only what the bytes themselves cause is recorded as bad, since the folder stands for the bytes. Where rows are not kept, every
    image is decoded once all the same, to find the bad ones, and a mark is kept of it.
    """
    ready = ready_rows(listing, preprocessing)
    if ready is not None:
        return ready, {}
    size = preprocessing.size
    store = RowStore(folder if keep else folder / "checked", len(listing), (size, size, 3) if keep else (1,), np.uint8)
    decode_one = _decoder(listing, preprocessing, scan)
    bad_file = folder / "bad.json"
    unreadable = {k: reason for k, reason in scan.reasons.items() if scan.digests[k] == UNREADABLE_DIGEST}
    with store.filling():
        bad: dict[int, str] = {}
        with suppress(ThawlabError, ValueError):  # where the record is lost or damaged, they are found bad once more
            bad = {int(key): str(reason) for key, reason in read_json(bad_file).items()}
        missing = _without(store.missing(indices), [*bad, *unreadable])
        done = 0
        for chunk, rows in in_threads(decode_one, missing, workers, "decoding" if keep else "checking"):
            found = dict(zip(chunk.tolist(), rows, strict=True))
            bad |= {index: row for index, row in found.items() if isinstance(row, str)}
            good = _without(chunk, list(bad))
            if len(good):
                rows_of = np.stack([found[index] for index in good.tolist()]) if keep else np.ones((len(good), 1), np.uint8)
                store.write(good, rows_of)
            done += len(chunk)
            if done % _PORTION == 0 or done == len(missing):
                write_text(bad_file, json.dumps(bad, ensure_ascii=False))
                store.commit(_without(missing[:done], list(bad)))
    reasons = bad | unreadable
    found_bad = {index: reasons[index] for index in indices.tolist() if index in reasons}
    if keep:
        return store.array(), found_bad
    images = OnDemand(partial(_sure, decode_one, listing), len(listing), size, workers)
    return cast("npt.NDArray[np.uint8]", images), found_bad  # an array in all that is asked of it


def _sure(decode_one: Callable[[int], Pixels | str], listing: Listing, index: int) -> Pixels:
    """Return an image that could be decoded before.

    Raises:
        ThawlabError: if it cannot be decoded any more.
    """
    found = decode_one(index)
    if isinstance(found, str):
        raise ThawlabError(f"{listing.ids[index]}: cannot be decoded any more ({found}); run the command again")
    return found


def _keeps_rows(caching: Caching, needed: Indices, listing: Listing, preprocessing: Preprocessing, folder: Path) -> bool:
    """Return whether decoded images are kept, and say so where they take much room."""
    if ready_rows(listing, preprocessing) is not None:
        return True
    room, row = room_for_cache(folder), preprocessing.size**2 * 3
    lacking = row * int((~marks_in(folder, len(listing))[needed]).sum())  # what is there already needs no room
    keeps = caching == "decoded" or (caching == "auto" and lacking <= room)
    takes = f"decoded images take {len(needed) * row / 2**30:,.1f} GiB, of {2 * room / 2**30:,.1f} GiB free in {folder.parent}"
    if not keeps:
        progress.say(f"{takes}: none is kept, each is decoded when it is needed")
    elif lacking > _WORTH_SAYING:
        progress.say(f"{takes}; data.cache=none keeps none of them")
    return keeps


def _without(indices: Indices, others: Sequence[int]) -> Indices:
    return indices[~np.isin(indices, others)]


def _source(recipe: Recipe) -> tuple[str | None, ...]:
    """Return what determines which images a recipe uses, and how they are read."""
    data = recipe.data
    chosen = (data.source, data.exclude, data.corrections, data.group)
    return *chosen, data.layout, data.path_column, data.label_column, recipe.system.data_dir


def listing_of(recipe: Recipe) -> Listing:
    """Return the listing of a recipe's images; it is kept in memory.

    Raises:
        UsageError: if the source or what is said of it is wrong.
        ThawlabError: if a download is needed and fails.
    """
    return remember(("listing", *_source(recipe)), lambda: open_data(recipe.data, recipe.system))


def load_dataset(recipe: Recipe, preprocessing: Preprocessing) -> Dataset:
    """Open a recipe's source, split it, and decode what the splits need.

    Decoded images are kept in the cache folder by content, so that no epoch and no later run decodes them again.

    Raises:
        UsageError: if the source or its classes are wrong; raised before anything is decoded.
        ThawlabError: if too many images are bad, or the cache cannot be written.
    """
    data = recipe.data
    listing = listing_of(recipe)
    splits = make_splits(listing, recipe.seed, data.train_size, data.val, data.test, data.long_tail)
    scan = remember(("scan", *_source(recipe)), lambda: hash_files(listing, recipe.system.workers))
    dataset = decode_all(listing, preprocessing, recipe.system, splits, scan, data.cache)
    if (before := listing.uncorrected) is not None:
        test = make_splits(before, recipe.seed, data.train_size, data.val, data.test, data.long_tail).test
        if (changes := changes_of(listing, test)) is not None:
            dataset = replace(dataset, notes=(*dataset.notes, changes.line), corrected_test=changes.in_test or 0)
    try:
        originals = keep_originals(dataset.ids, listing.images, dataset.splits.test)
    except OSError as error:
        raise ThawlabError(f"{data.source}: was changed while the data were read ({error}); run the command again") from error
    dataset = replace(dataset, originals=originals)
    missing = absent_classes(dataset.splits.train, dataset.labels, dataset.classes)
    if missing:
        raise ThawlabError(f"{data.source}: no training image of '{missing[0]}' can be decoded; add some or remove the class")
    return dataset


def judged_part(listing: Listing) -> tuple[npt.NDArray[np.intp], str]:
    """Return which images of a source judge a classifier: its test split, or all where it has none; and "test" or "all"."""
    split = "test" if (listing.splits == "test").any() else "all"
    return np.flatnonzero((listing.splits == "test") | (split == "all")), split


def load_other(source: str, classes: tuple[str, ...], preprocessing: Preprocessing, system: System) -> tuple[Dataset, str]:
    """Open a source to judge an existing classifier on: its test split, or all of its images where it has none.

    The source's classes are matched by name to those of the classifier.

    Returns:
        The data, with the images to judge on as its test split, and what they are: "test" or "all".

    Raises:
        UsageError: if the source has a class that the classifier lacks.
    """
    listing = open_source(source, system.data_dir)
    unknown = [name for name in listing.classes if name not in classes]
    if unknown:
        raise UsageError(
            f"{source}: the classifier has no class '{unknown[0]}'{nearest(unknown[0], classes)}; its classes: {listed(classes)}"
        )
    numbers = np.array([classes.index(name) for name in listing.classes], dtype=np.int64)
    chosen, split = judged_part(listing)
    dataset = decode_all(listing, preprocessing, system, Splits(test=chosen))
    return replace(dataset, classes=classes, labels=numbers[dataset.labels]), split


def ood_datasets(preprocessing: Preprocessing, system: System, own: str) -> list[Dataset]:
    """Return OOD images as test splits: drawn shapes and handwritten digits, without the classifier's `own` data set."""
    datasets = []
    for source in (f"shapes:{_OOD_IMAGES}x64", "digits"):
        listing = open_recorded(source, system.data_dir)
        if listing.name != own:
            chosen = np.arange(0, len(listing), max(len(listing) // _OOD_IMAGES, 1))[:_OOD_IMAGES]
            datasets.append(decode_all(listing, preprocessing, system, Splits(test=chosen)))
    return datasets


def decode_all(
    listing: Listing,
    preprocessing: Preprocessing,
    system: System,
    splits: Splits | None = None,
    scan: Scan | None = None,
    caching: Caching = "auto",
) -> Dataset:
    """Decode the images of a listing and take out those that cannot be decoded.

    Args:
        listing: the images.
        preprocessing: says the size and how to reach it.
        system: says where caches are.
        splits: which images are needed; if omitted, all are decoded into the train split.
        scan: what a pass over the files gave already; they are not read again if it has `rows`.
        caching: whether decoded images are kept on the disk: "auto" where they fit.

    Raises:
        ThawlabError: if too many images are bad, or the cache cannot be written.
    """
    splits = splits or Splits(train=np.arange(len(listing)))
    scan = scan or hash_files(listing, system.workers)
    identity = fingerprint(listing, scan.digests)
    needed = np.sort(np.concatenate(splits))
    determined_by = f"{identity}/{preprocessing.geometry}/Pillow {PIL.__version__}/decoding {DECODING}"
    folder = cache_folder(system.cache_dir, "decoded") / hashlib.sha256(determined_by.encode()).hexdigest()[:32]
    keep = _keeps_rows(caching, needed, listing, preprocessing, folder)
    images, bad = _decode_rows(listing, needed, preprocessing, folder, system.workers, scan, keep)
    quarantined = tuple((listing.ids[index], reason) for index, reason in sorted(bad.items()))
    if len(bad) > _MAX_BAD_SHARE * len(needed):
        first, reason = quarantined[0]
        raise ThawlabError(
            f"{listing.name}: {len(bad)} of {len(needed)} images cannot be decoded, the first is {first} ({reason})"
        )
    kept = Splits(*(_without(part, list(bad)) for part in splits))
    return Dataset(
        name=listing.name,
        classes=listing.classes,
        ids=listing.ids,
        labels=listing.labels,
        images=images,
        splits=kept,
        fingerprint=identity,
        geometry=preprocessing.geometry,
        quarantined=quarantined,
        ignored=listing.ignored,
        leaks=leaks_between(kept, scan.digests),
        layout=listing.layout,
        notes=listing.notes if ready_rows(listing, preprocessing) is not None else (*listing.notes, *_grey_note(preprocessing)),
    )


def _grey_note(preprocessing: Preprocessing) -> list[str]:
    if preprocessing.grey_range is None:
        return []
    low, high = preprocessing.grey_range
    return [f"grey values of more than 8 bits run from {low:,g} (black) to {high:,g} (white)"]
