"""Near-duplicates between test and training images, in the images of a run as they were decoded."""

import contextlib
import hashlib
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F

from thawlab.data.dataset import Dataset
from thawlab.data.types import Indices
from thawlab.errors import ThawlabError
from thawlab.files import read_json, write_json
from thawlab.quality.candidates import Thumbnails
from thawlab.quality.duplicates import FINDER, pairs_between, too_smooth
from thawlab.quality.registration import SIDE

# Test images that are looked up, and training images among which: seconds of work at most.
_QUERIES, _TABLE = 2000, 100_000
# Decoded images that are read for it, in bytes: in all, and at once.
_BYTES, _PART_BYTES = 2 << 30, 64 << 20
_LISTED = 1000


class NearLeaks(NamedTuple):
    """Test images that look like a training image.

    Attributes:
        too_smooth: how many of those that were compared have too little fine structure to tell.
        pairs: (training image, test image) by index in the data set, the most similar first; a test image stands in
            its best pair alone, and images of the very same content are left out.
        similarities: of the pairs, how sure each is, in [0.5, 1].
        tested: the test images that were compared, by index.
    """

    too_smooth: int
    pairs: tuple[tuple[int, int], ...]
    similarities: tuple[float, ...]
    tested: tuple[int, ...]

    @property
    def looked_at(self) -> int:
        """How many test images were compared."""
        return len(self.tested)

    def as_json(self, ids: Sequence[str]) -> dict[str, Any]:
        """Return the findings as JSON values; the list is cut to 1,000 pairs, the count never is."""
        listed = [
            {"train": ids[one], "test": ids[other], "similarity": round(similarity, 4)}
            for (one, other), similarity in zip(self.pairs[:_LISTED], self.similarities, strict=False)
        ]
        return {"looked_at": self.looked_at, "too_smooth": self.too_smooth, "count": len(self.pairs), "first": listed}


def near_leaks(dataset: Dataset, folder: Path | None = None) -> NearLeaks | None:
    """Look for near-duplicates of test images among the training images.

    Of larger splits an evenly spaced part is looked at: 2,000 test images, and 100,000 training images or 2 GiB of them.

    Args:
        dataset: with its splits.
        folder: where what was found is kept for other runs on the same images and splits; nowhere if None.

    Returns:
        What was found; None where a split is empty.
    """
    if folder is None:
        return _look(dataset)
    parts = [dataset.fingerprint, dataset.geometry, version("thawlab"), torch.__version__, FINDER, _QUERIES, _TABLE]
    indices = [np.ascontiguousarray(part).tobytes() for part in (dataset.splits.train, dataset.splits.test)]
    key = hashlib.sha256(b"/".join([repr(parts).encode(), *indices])).hexdigest()[:32]
    file = folder / f"{key}.json"
    with contextlib.suppress(ThawlabError, KeyError, TypeError):
        return _from_plain(read_json(file))
    found = _look(dataset)
    if found is not None:
        write_json(file, found._asdict())
    return found


def _from_plain(values: dict[str, Any]) -> NearLeaks:
    pairs = tuple((one, other) for one, other in values["pairs"])
    return NearLeaks(values["too_smooth"], pairs, tuple(values["similarities"]), tuple(values["tested"]))


def _look(dataset: Dataset) -> NearLeaks | None:
    readable = max(1, _BYTES // int(np.prod(dataset.images.shape[1:])))
    train = _spread(dataset.splits.train, min(_TABLE, readable))
    test = _spread(dataset.splits.test, min(_QUERIES, readable))
    if not (len(train) and len(test)):
        return None
    queries = _thumbnails(dataset, test)
    smooth = too_smooth(queries)
    rough = np.flatnonzero(~smooth)
    same = set(dataset.leaks)
    best: dict[int, tuple[int, float]] = {}
    for pair in pairs_between(_thumbnails(dataset, train), queries[rough]):
        one, other = int(train[pair.first]), int(test[rough[pair.second]])
        if (one, other) not in same:
            best.setdefault(other, (one, pair.similarity))
    return NearLeaks(
        too_smooth=int(smooth.sum()),
        pairs=tuple((one, other) for other, (one, _) in best.items()),
        similarities=tuple(similarity for _, similarity in best.values()),
        tested=tuple(test.tolist()),
    )


def _spread(indices: Indices, most: int) -> Indices:
    spread: Indices = indices[np.linspace(0, len(indices) - 1, min(most, len(indices))).astype(int)]
    return spread


def _thumbnails(dataset: Dataset, indices: Indices) -> Thumbnails:
    """Return images at the size at which duplicates are compared, uint8, n × 32 × 32 × 3."""
    result = np.empty((len(indices), SIDE, SIDE, 3), dtype=np.uint8)
    at_once = max(1, _PART_BYTES // int(np.prod(dataset.images.shape[1:])))
    for start in range(0, len(indices), at_once):
        part = np.take(dataset.images, indices[start : start + at_once], axis=0)
        if part.shape[1] != SIDE:
            images = torch.from_numpy(part).permute(0, 3, 1, 2).float()
            mode = "area" if part.shape[1] > SIDE else "bilinear"
            part = F.interpolate(images, (SIDE, SIDE), mode=mode).round().byte().permute(0, 2, 3, 1).numpy()
        result[start : start + at_once] = part
    return result
