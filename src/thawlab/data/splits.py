"""Stratified, seeded, nested splits."""

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from thawlab.data.listing import Listing
from thawlab.data.types import Indices, Labels
from thawlab.errors import UsageError, listed
from thawlab.randomness import derive

_NONE: Indices = np.zeros(0, dtype=np.int64)


class Splits(NamedTuple):
    """Indices into a listing; the three are disjoint."""

    train: Indices = _NONE
    val: Indices = _NONE
    test: Indices = _NONE


def _ranks(labels: Labels, order: Indices) -> Indices:
    """Return each sample's position within its class, in an order that goes class after class."""
    counts = np.bincount(labels)
    places = np.arange(len(labels))
    places -= np.repeat(np.cumsum(counts) - counts, counts)
    ranks = np.empty_like(places)
    ranks[order] = places
    return ranks


def class_ranks(labels: Labels, seed: int) -> Indices:
    """Return each sample's position in a random order of its own class."""
    order = np.random.default_rng(seed).permutation(len(labels))
    order = order[np.argsort(labels[order].astype(np.int32), kind="stable")]
    return _ranks(labels, order)


def grouped_ranks(labels: Labels, groups: Indices | None, seed: int) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
    """Return the random orders that keep groups together.

    Args:
        labels: int64 class numbers.
        groups: int64 per sample; None where each sample stands for itself. A group of several classes counts as one of the
            class of its first sample.
        seed: of the random order.

    Returns:
        Each sample's rank within its class, group after group; the rank of its group among the groups of that class; and
        whether its class has only one group, which can be trained on or held out but not both.
    """
    if groups is None:
        ranks = class_ranks(labels, seed)
        return ranks, ranks, (np.bincount(labels) < 2)[labels]
    _, first, unit = np.unique(groups, return_index=True, return_inverse=True)
    unit = unit.reshape(-1)
    unit_ranks = class_ranks(labels[first], seed)[unit]
    lonely = (np.bincount(labels[first]) < 2)[labels[first]][unit]
    return _ranks(labels, np.lexsort((class_ranks(labels, seed), unit, unit_ranks, labels))), unit_ranks, lonely


def held_out(ranks: Indices, fraction: float) -> npt.NDArray[np.bool_]:
    """Return which ranks fall into a held-out part: evenly spread, so that every prefix holds out the same fraction.

    The first member of a class is always held out, so that no class is absent from the held-out part.
    """
    result: npt.NDArray[np.bool_] = np.ceil((ranks + 1) * fraction - 1e-9) > np.ceil(ranks * fraction - 1e-9)
    return result


def trained_first(labels: Labels, ranks: Indices, held: npt.NDArray[np.bool_]) -> Indices:
    """Return the ranks after moving the first member of each class that is not held out to the front of its class.

    A subset that takes a single member of a class then takes one to train on, and the same one in every larger subset.
    """
    order = np.lexsort((ranks, held, labels))
    first = np.zeros(len(labels), dtype=bool)
    first[order[np.unique(labels[order], return_index=True)[1]]] = True
    return _ranks(labels, np.lexsort((ranks, ~first, labels)))


def nested_subset(labels: Labels, ranks: Indices, size: int) -> npt.NDArray[np.bool_]:
    """Mark a stratified subset of exactly `size` samples; a smaller subset always lies inside a larger one."""
    counts = np.bincount(labels)
    # Samples are taken in the order of their relative position within their class, which keeps the classes in proportion.
    position = (ranks + 0.5) / counts[labels]
    chosen = np.zeros(len(labels), dtype=bool)
    chosen[np.lexsort((labels, ranks, position))[:size]] = True
    return chosen


def long_tailed(labels: Labels, ranks: Indices, ratio: float) -> npt.NDArray[np.bool_]:
    """Mark a long-tailed subset; that of a larger ratio always lies inside that of a smaller one.

    Class k of K, in the order of their numbers, keeps n · ratio^(−k/(K−1)) samples, where n is the size of the largest class
    (Cao et al. 2019, LDAM); at least two, one to train on and one to hold out, and at most those it has.
    """
    counts = np.bincount(labels)
    kept = counts.max() * ratio ** (-np.arange(len(counts)) / max(len(counts) - 1, 1))
    # The whole part, as in the paper; a rounding error must not take the last sample of what divides evenly.
    chosen: npt.NDArray[np.bool_] = ranks < np.maximum(np.floor(kept + 1e-6), 2)[labels]
    return chosen


def make_splits(
    listing: Listing, seed: int, train_size: int | None, val: float, test: float, long_tail: float | None = None
) -> Splits:
    """Split a listing, keeping the splits that the source has.

    A source without a test split gives the fraction `test` of its images to one, whatever `train_size` is. `train_size`
    counts the labelled images that may be trained on: a source without a val split gives the fraction `val` of them to
    validation. `long_tail` makes them long-tailed instead (see `long_tailed`). All parts are stratified; with the same seed,
    the parts of a smaller `train_size`, or of a larger `long_tail`, lie inside those of a larger (smaller) one. Images of one
    group are never trained on and held out at once by a split that is made here; the fractions then count groups. A corrected
    listing is split as it was before: the same images are tested, whatever labels were corrected.

    Raises:
        UsageError: if there are fewer than two classes, a class without training images, or not enough images.
    """
    labels, splits = listing.labels, listing.splits
    classes = len(listing.classes)
    if classes < 2:
        raise UsageError(f"{listing.name}: has one class only ('{listing.classes[0]}'); a classifier needs at least two")
    if len(listing) < 2 * classes:
        raise UsageError(f"{listing.name}: has {len(listing)} images for {classes} classes; each class needs a few")
    if (before := listing.uncorrected) is not None:
        return _carried_over(make_splits(before, seed, train_size, val, test, long_tail), before, listing)
    pool, given_val, in_test = (np.flatnonzero(splits == split) for split in ("train", "val", "test"))

    def ranked(purpose: str) -> tuple[Indices, Indices, npt.NDArray[np.bool_]]:
        groups = None if listing.groups is None else listing.groups[pool]
        return grouped_ranks(labels[pool], groups, derive(seed, "split", purpose))

    if not len(in_test):
        _, unit_ranks, lonely = ranked("test")
        held = held_out(unit_ranks, test) & ~lonely
        in_test, pool = pool[held], pool[~held]
    if train_size is not None and train_size > len(pool):
        raise UsageError(
            f"data.train_size = {train_size}: {listing.name} has {len(pool)} images to train on; take fewer, or omit the key"
        )
    ranks, unit_ranks, lonely = ranked("val")
    held = np.zeros(len(pool), dtype=bool) if len(given_val) else held_out(unit_ranks, val) & ~lonely
    if long_tail is not None:
        chosen = long_tailed(labels[pool], trained_first(labels[pool], ranks, held), long_tail)
    elif train_size is not None:
        chosen = nested_subset(labels[pool], trained_first(labels[pool], ranks, held), train_size)
    else:
        chosen = np.ones(len(pool), dtype=bool)
    result = Splits(pool[chosen & ~held], given_val if len(given_val) else pool[chosen & held], in_test)
    _refuse_untrained(result, listing)
    return result


def _carried_over(splits: Splits, before: Listing, listing: Listing) -> Splits:
    """Return the splits of a listing in which some images of another one are left out."""
    places = {identifier: place for place, identifier in enumerate(listing.ids)}
    names = ([before.ids[place] for place in part.tolist()] for part in splits)
    result = Splits(*(np.array([places[name] for name in part if name in places], dtype=np.int64) for part in names))
    _refuse_untrained(result, listing)
    return result


def _refuse_untrained(splits: Splits, listing: Listing) -> None:
    missing = absent_classes(splits.train, listing.labels, listing.classes)
    if missing:
        raise UsageError(
            f"{listing.name}: no training images of {listed(missing, 3)}; add some, raise data.train_size, or remove the class"
        )


def absent_classes(indices: Indices, labels: Labels, classes: tuple[str, ...]) -> list[str]:
    """Return the classes of which a split holds no image."""
    counts = np.bincount(labels[indices], minlength=len(classes))
    return [name for name, count in zip(classes, counts, strict=True) if count == 0]
