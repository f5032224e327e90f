"""Splits that are fixed when shards are written: whoever reads them, with whatever recipe, tests on the same images."""

from dataclasses import replace

from thawlab.data.listing import Listing
from thawlab.data.splits import make_splits
from thawlab.data.types import Indices
from thawlab.errors import UsageError


def with_fixed_splits(listing: Listing, val: float | None, test: float | None) -> Listing:
    """Return a listing with val and test splits of its own, made as a recipe with seed 0 would make them.

    Args:
        listing: the images.
        val: the fraction of the training images; None to leave it to recipes.
        test: the fraction of all images; None to leave it to recipes.

    Raises:
        UsageError: if the source has such a split already, or there are too few images.
    """
    for name, fraction in (("val", val), ("test", test)):
        if fraction is not None and not 0 < fraction < 1:
            raise UsageError(f"--{name} {fraction:g}: is a fraction of the images, above 0 and below 1")
        if fraction is not None and (listing.splits == name).any():
            raise UsageError(f"--{name} {fraction:g}: {listing.name} has a {name} split already; leave it out")
    if val is None and test is None:
        return listing
    own = make_splits(listing, 0, None, val or 0.0, test if test is not None else 0.2)
    splits = listing.splits.astype("<U5")
    if val is not None:
        held = own.val if test is not None or (listing.splits == "test").any() else _of_all(listing, val)
        splits[held] = "val"
    if test is not None:
        splits[own.test] = "test"
    return replace(listing, splits=splits)


def _of_all(listing: Listing, val: float) -> Indices:
    """Return the val split where no test split is to be made: the part that would be tested."""
    return make_splits(listing, 0, None, 0.0, val).test
