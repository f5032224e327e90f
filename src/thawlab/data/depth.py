"""One range of grey values for a whole data set, found on some of its images."""

import numpy as np

from thawlab.data.decode import loaded
from thawlab.data.grey import may_be_deep, range_of
from thawlab.data.images import ArrayImages, head_of, patiently
from thawlab.data.listing import Listing
from thawlab.data.preprocessing import Preprocessing

# Images that are looked at, evenly spread over the listing: they tell whether there are deep ones, and their range.
_LOOKED_AT = 64


def with_grey_range(preprocessing: Preprocessing, listing: Listing) -> Preprocessing:
    """Return a preprocessing that knows the range of a data set's grey values of more than 8 bits, if it has such images.

    Training fixes it, and it travels with the model: a file is read alike in training and in prediction, whatever lies beside it.
    """
    if isinstance(listing.images, ArrayImages) or not len(listing):
        return preprocessing

    def read(index: int) -> bytes:
        if not may_be_deep(head_of(listing.images, index)):
            return b""
        content = listing.images.read(index)
        return content if isinstance(content, bytes) else b""

    def patient(index: int) -> bytes:
        try:
            return patiently(lambda: read(index), listing.ids[index])
        except OSError:
            return b""

    places = np.unique(np.linspace(0, len(listing) - 1, _LOOKED_AT).astype(np.int64)).tolist()
    found = range_of((patient(index) for index in places), loaded)
    return preprocessing if found is None else preprocessing.model_copy(update={"grey_range": found})
