"""What a source holds before anything is decoded: classes, ids, labels, splits and access to each image's bytes."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import NamedTuple, Optional, final

import numpy as np
import numpy.typing as npt

from thawlab.data.images import ArrayImages, Images, ReadImages, expect, fetches_again, head_of
from thawlab.data.names import Digests, picked
from thawlab.data.types import Indices, Labels, Shards
from thawlab.errors import UsageError


@final
@dataclass(frozen=True)
class Reading:
    """What the owner of a source says of how to read it; None where that is to be found out.

    Attributes:
        layout: what each level of folders stands for, e.g. "split/class" (see `levels.by_roles`).
        path_column: of a table: the paths of the images, or the images themselves.
        label_column: of a table: the classes.
    """

    layout: str | None = None
    path_column: str | None = None
    label_column: str | None = None

    def refuse(self, *keys: str, what: str) -> None:
        """Refuse keys that have no meaning for `what`.

        Raises:
            UsageError: naming the first one that is given.
        """
        for key in keys:
            if getattr(self, key) is not None:
                raise UsageError(f"data.{key}: has no effect on {what}; leave it out")


UNSAID = Reading()


class Known(NamedTuple):
    """What the index of a source says of its images, so that they need not be read to find it out.

    Attributes:
        digests: SHA-256 of each image's file.
        reasons: by index, why an image cannot be decoded.
        shards: the number of the shard that each lies in.
        checked_by: the decoder that found the reasons; another one may find others.
    """

    digests: Digests
    reasons: Mapping[int, str]
    shards: Shards
    checked_by: str

    def chosen(self, indices: Indices) -> "Known":
        """Return what is known of some of the images."""
        known = self.reasons
        reasons = {new: known[old] for new, old in enumerate(indices.tolist()) if old in known} if known else {}
        return Known(Digests(self.digests.rows[indices]), reasons, self.shards[indices], self.checked_by)


@final
@dataclass(frozen=True)
class Listing:
    """What a source holds.

    Attributes:
        name: a short name for the data.
        classes: the class names; a label is an index into them.
        ids: a unique name per image, stable between machines.
        labels: int64, one per image.
        splits: per image "train", "val" or "test"; all "train" where the source knows no splits.
        images: access to the images.
        ignored: files that were found and are no images of a class, with the reason.
        columns: what else a manifest says of each image, by the column's name.
        groups: a number per image, equal for images that belong together; None where each stands for itself.
        layout: what the levels of its folders were taken for, e.g. "split/class", or its columns; "" where it has none.
        notes: what else its owner should know of how it was read, a line each.
        uncorrected: what it was before people's corrections; None where they changed nothing. Splits are made of that, so that
            no correction moves an image from one split to another.
        known: what an index says of the images; None where they must be read.
    """

    name: str
    classes: tuple[str, ...]
    ids: Sequence[str]
    labels: Labels
    splits: npt.NDArray[np.str_]
    images: Images
    ignored: tuple[tuple[str, str], ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Indices | None = None
    layout: str = ""
    notes: tuple[str, ...] = ()
    uncorrected: Optional["Listing"] = None
    known: Known | None = None

    def __len__(self) -> int:
        return len(self.ids)


def chosen(listing: Listing, indices: Indices) -> Listing:
    """Return a listing of some images of another one."""
    inner = listing.images
    images: Images = ReadImages(
        lambda index: inner.read(int(indices[index])),
        lambda index: head_of(inner, int(indices[index])),
        lambda order: expect(inner, indices[order]),
        fetches_again(inner),
    )
    if isinstance(listing.images, ArrayImages):
        images = ArrayImages(listing.images.array[indices])
    return replace(
        listing,
        ids=picked(listing.ids, indices),
        labels=listing.labels[indices],
        splits=listing.splits[indices],
        images=images,
        columns={name: tuple(values[place] for place in indices.tolist()) for name, values in listing.columns.items()},
        groups=None if listing.groups is None else listing.groups[indices],
        known=listing.known and listing.known.chosen(indices),
    )
