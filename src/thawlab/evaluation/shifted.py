"""A sample of images in all corruptions, as a dataset of its own: each is made when it is taken, from the image as it came."""

import hashlib
import json
from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import NamedTuple, cast

import numpy as np
import numpy.typing as npt
import PIL
from PIL import Image

from thawlab.data.dataset import Dataset
from thawlab.data.decode import DECODING, decode
from thawlab.data.decoded import surely
from thawlab.data.on_demand import OnDemand
from thawlab.data.originals import AtOwnSize
from thawlab.data.preprocessing import Preprocessing
from thawlab.data.splits import Splits
from thawlab.data.types import Indices, Pixels
from thawlab.evaluation.corruptions import VERSION, corrupted, corruptions

# A picture is corrupted at its own size, but for a shorter side of more than this many times the working size, or than this
# many pixels if that is more: what is done to more pixels takes long, and little of it is left after preprocessing.
_OVER, _ENOUGH = 2, 256
# Pictures that are kept decoded while all that is made of them is taken.
_DECODED = 64

Read = Callable[[int], bytes | Pixels]


class Way(NamedTuple):
    """One way in which images are corrupted; strength 0 leaves them as they are."""

    corruption: str
    strength: int


def ways(strengths: Sequence[int]) -> tuple[Way, ...]:
    """Return the clean images and then all corruptions, each in these strengths."""
    names = [name for name, _ in corruptions.items()]
    return (Way(names[0], 0), *(Way(name, strength) for name in names for strength in strengths))


def largest_side(preprocessing: Preprocessing) -> int:
    """Return the shorter side in pixels that a picture is reduced to before it is corrupted, if it has more."""
    return max(_OVER * preprocessing.size, _ENOUGH)


def shifted(
    dataset: Dataset,
    indices: Indices,
    read: Read | None,
    preprocessing: Preprocessing,
    strengths: Sequence[int],
    workers: int | None = None,
) -> Dataset:
    """Return some images in all ways, as the test split of a dataset: those of the first image, then those of the next.

    Args:
        dataset: that the images are from.
        indices: of the images.
        read: gives an image as it came, by index; if None, the decoded rows are corrupted.
        preprocessing: that corrupted images go through, as all others do; decoded rows went through it before.
        strengths: from 1 to 5.
        workers: threads that make the images; as many as cores if None.
    """
    chosen, all_ways = indices.tolist(), ways(strengths)
    own = AtOwnSize(largest_side(preprocessing), preprocessing.grey_range)

    @lru_cache(maxsize=_DECODED)
    def picture(index: int) -> Pixels:
        if read is None:
            return np.asarray(dataset.images[index])
        return surely(lambda: decode(read(index), own), dataset.ids[index])

    def made(row: int) -> Pixels:
        place, way = divmod(row, len(all_ways))
        index = chosen[place]
        pixels = corrupted(picture(index), *all_ways[way], dataset.ids[index])
        return pixels if read is None else preprocessing.fit(Image.fromarray(pixels))

    count = len(chosen) * len(all_ways)
    images = OnDemand(made, count, preprocessing.size, workers)
    ids = tuple(f"{dataset.ids[index]} {way.corruption} {way.strength}" for index in chosen for way in all_ways)
    made_of = [dataset.fingerprint, preprocessing.geometry, PIL.__version__, DECODING, VERSION, read is None, *own, ids]
    return Dataset(
        name=dataset.name,
        classes=dataset.classes,
        ids=ids,
        labels=np.repeat(dataset.labels[indices], len(all_ways)),
        images=cast("npt.NDArray[np.uint8]", images),  # an array in all that is asked of it
        splits=Splits(test=np.arange(count)),
        fingerprint=hashlib.sha256(json.dumps(made_of).encode()).hexdigest(),
        geometry=dataset.geometry,
    )
