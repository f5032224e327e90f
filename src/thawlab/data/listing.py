"""What a source holds before anything is decoded: classes, ids, labels, splits and access to each image's bytes."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import final

import numpy as np
import numpy.typing as npt

from thawlab.data.images import Images
from thawlab.data.types import Indices, Labels


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
    """

    name: str
    classes: tuple[str, ...]
    ids: tuple[str, ...]
    labels: Labels
    splits: npt.NDArray[np.str_]
    images: Images
    ignored: tuple[tuple[str, str], ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    groups: Indices | None = None

    def __len__(self) -> int:
        return len(self.ids)
