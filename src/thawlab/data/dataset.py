"""The dataset that training reads: images decoded once into uint8 rows, splits, and a fingerprint of the content."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, final

import numpy as np
import numpy.typing as npt
import PIL

from thawlab.data.content import Scan, fingerprint, hash_files, leaks_between
from thawlab.data.corrections import changes_of
from thawlab.data.decode import DECODING
from thawlab.data.decoded import decoded_rows, keeps_rows, ready_rows, without
from thawlab.data.images import fetches_again
from thawlab.data.listing import Listing
from thawlab.data.on_demand import OnDemand
from thawlab.data.originals import keep_originals
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.remote import is_remote
from thawlab.data.selection import open_data
from thawlab.data.sources import open_recorded, open_source
from thawlab.data.splits import Splits, absent_classes, make_splits
from thawlab.data.types import Indices, Labels, Pixels, Shards
from thawlab.errors import ThawlabError, UsageError, listed, nearest
from thawlab.files import cache_folder
from thawlab.memory import remember
from thawlab.recipe import Caching, Data, Recipe, System

# Above this share of bad images something is wrong with the source, not with single files.
_MAX_BAD_SHARE = 0.5
# Images per OOD source, to measure how well they are told apart.
_OOD_IMAGES = 250


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
        shards: the number of the shard that each image lies in; None where they lie in none.
        originals: files, or pixels, of a sample of the test images by index, as they came.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
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
    shards: Shards | None = None
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


def load_dataset(recipe: Recipe, preprocessing: Preprocessing, listing: Listing | None = None) -> Dataset:
    """Open a recipe's source, split it, and decode what the splits need.

    Decoded images are kept in the cache folder by content, so that no epoch and no later run decodes them again.

    Args:
        recipe: closed.
        preprocessing: how images are decoded.
        listing: of the recipe's images, where they have been listed already.

    Raises:
        UsageError: if the source or its classes are wrong; raised before anything is decoded.
        ThawlabError: if too many images are bad, or the cache cannot be written.
    """
    data = recipe.data
    listing = listing_of(recipe) if listing is None else listing
    splits = make_splits(listing, recipe.seed, data.train_size, data.val, data.test, data.long_tail)
    _refuse_useless(data, listing)
    scan = remember(("scan", *_source(recipe)), lambda: hash_files(listing, recipe.system.workers))
    dataset = decode_all(listing, preprocessing, recipe.system, splits, scan, data.cache)
    _refuse_fetching_again(data, listing, dataset.images)
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


def _refuse_useless(data: Data, listing: Listing) -> None:
    """Refuse settings that have no effect on this source.

    Raises:
        UsageError: naming the key.
    """
    if data.shuffle_buffer is not None and listing.known is None:
        raise UsageError(
            f"data.shuffle_buffer: {listing.name} does not lie in shards with an index, and is shuffled as a whole; leave it "
            "out, or write shards with `thawlab data shards`"
        )
    if data.cache == "encoded" and not is_remote(data.source):
        raise UsageError(
            'data.cache = "encoded": keeps copies of a source that lies elsewhere, and this one lies here; leave it out'
        )


def _refuse_fetching_again(data: Data, listing: Listing, images: object) -> None:
    """Refuse an order over all images where each comes from afar and few are kept.

    Raises:
        UsageError: if the recipe asks for one.
    """
    if data.shuffle_buffer is None and isinstance(images, OnDemand) and fetches_again(listing.images):
        raise UsageError(
            f"{data.source}: not all of its shards are kept here, and an order drawn over all images would fetch them again and "
            'again; set data.shuffle_buffer, for example to 20000, or keep them with data.cache = "encoded"'
        )


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
    listing = other_listing(source, system)
    unknown = [name for name in listing.classes if name not in classes]
    if unknown:
        raise UsageError(
            f"{source}: the classifier has no class '{unknown[0]}'{nearest(unknown[0], classes)}; its classes: {listed(classes)}"
        )
    numbers = np.array([classes.index(name) for name in listing.classes], dtype=np.int64)
    chosen, split = judged_part(listing)
    dataset = decode_all(listing, preprocessing, system, Splits(test=chosen))
    return replace(dataset, classes=classes, labels=numbers[dataset.labels]), split


def other_listing(source: str, system: System) -> Listing:
    """Return the images of a source that is not the run's own."""
    return remember(("other", source, system.data_dir), lambda: open_source(source, system.data_dir))


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
    keep = keeps_rows(caching, needed, listing, preprocessing, folder)
    images, bad = decoded_rows(listing, needed, preprocessing, folder, system.workers, scan, keep)
    quarantined = tuple((listing.ids[index], reason) for index, reason in sorted(bad.items()))
    if len(bad) > _MAX_BAD_SHARE * len(needed):
        first, reason = quarantined[0]
        raise ThawlabError(
            f"{listing.name}: {len(bad)} of {len(needed)} images cannot be decoded, the first is {first} ({reason})"
        )
    kept = Splits(*(without(part, list(bad)) for part in splits))
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
        shards=None if listing.known is None else listing.known.shards,
        notes=listing.notes if ready_rows(listing, preprocessing) is not None else (*listing.notes, *_grey_note(preprocessing)),
    )


def _grey_note(preprocessing: Preprocessing) -> list[str]:
    if preprocessing.grey_range is None:
        return []
    low, high = preprocessing.grey_range
    return [f"grey values of more than 8 bits run from {low:,g} (black) to {high:,g} (white)"]
