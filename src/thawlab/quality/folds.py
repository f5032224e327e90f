"""Parts of a data set that are held out in turn: images that belong together are never on both sides."""

from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from thawlab.data.types import Indices, Labels

# Near-duplicates that hang together and are more of a class than this are not kept together: films of turning fruits.
_MOST = 1 / 3


def fewest_parts(labels: Labels, groups: Indices | None) -> int:
    """Return into how many parts that can be held out the class with the fewest of them falls: samples, or groups."""
    parts = labels[:, None] if groups is None else np.unique(np.stack([labels, groups], axis=1), axis=0)
    return int(np.unique(parts[:, 0], return_counts=True)[1].min())


def folds_of(labels: Labels, groups: Indices | None, near: Iterable[tuple[int, int]], count: int, seed: int = 0) -> Indices:
    """Return the fold of each image, in which it is held out; every fold has about its share of every class.

    Args:
        labels: int64, n.
        groups: images of one group are in one fold; None where each is for itself.
        near: places of images that are nearly the same; they share a fold, too, unless so many hang together that a class
            could not be learned without them.
        count: of the folds, or as many as there are groups.
        seed: of their order.

    Returns:
        int64, n values in [0, count).
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    together = _joined(labels, groups, near)
    folds = np.zeros(len(labels), dtype=np.int64)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    splitter = kind(n_splits=min(count, int(together.max()) + 1), shuffle=True, random_state=seed)
    for number, (_, held) in enumerate(splitter.split(labels, labels, None if groups is None else together)):
        folds[held] = number
    _, first, place = np.unique(together, return_index=True, return_inverse=True)
    return folds[first[place]]


def unseen(labels: Labels, folds: Indices) -> npt.NDArray[np.bool_]:
    """Return which images are of a class that no other fold shows, so that who was kept from their fold cannot judge them."""
    pairs = np.unique(np.stack([labels, folds]), axis=1)
    alone: npt.NDArray[np.bool_] = np.bincount(pairs[0])[labels] == 1
    return alone


def _joined(labels: Labels, groups: Indices | None, near: Iterable[tuple[int, int]]) -> Indices:
    """Return a number per image that those share which are held out together."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    count = len(labels)
    first, group = np.arange(count), np.arange(count)
    if groups is not None:
        _, first, group = np.unique(groups, return_index=True, return_inverse=True)
    edges = np.array([*near], dtype=np.int64).reshape(-1, 2)
    graph = coo_array((np.ones(len(edges)), (group[edges[:, 0]], group[edges[:, 1]])), shape=(len(first), len(first)))
    parts = connected_components(graph, directed=False)[1].astype(np.int64)[group]
    sizes = np.bincount(labels)
    of_class, members = np.unique(np.stack([parts, labels]), axis=1, return_counts=True)
    large = np.isin(parts, of_class[0][members > _MOST * sizes[of_class[1]]])
    joined = np.where(large, parts.max() + 1 + group, parts)
    return np.unique(joined, return_inverse=True)[1].astype(np.int64)
