"""Pairs of pictures that are worth laying over each other: neighbours of what is described coarsely.

A picture is described as a whole, and by its middle alone, where another background or a frame is out of sight. Middles are
looked up at several places of the other picture, so that a shift does not hide them. Descriptions are shortened to their
principal components; of many pictures the neighbours are found by a graph (Malkov & Yashunin 2018, "HNSW"), of few by
comparing all.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache, cached_property
from typing import Any, NamedTuple, final

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from thawlab.cores import usable_cores
from thawlab.quality.registration import SIDE

_CELLS = 8
_SHORT = 48  # principal components that are kept
_FITTED = 10_000  # descriptions that they are computed from
# The table is searched exactly up to this many rows, or for this many queries.
_EXACT, _FEW = 8192, 4096
_QUERIES = 1024
# The nearest ones of each picture in each view, itself included: of many pictures few; of few, of which there may be many
# copies each, more, so that about so many candidates are looked at in each view.
NEAREST, _MOST_NEAREST, _CANDIDATES = 4, 32, 100_000
# The same among features, where the fifth neighbour tells outliers.
NEAREST_FEATURES = 7
# How similar descriptions must be, by cosine.
_LEAST = 0.84
_MIDDLE = 0.5  # of each side
# Where the middle is looked up in the other picture, in shares of its sides; the ways back come from the other's own middle.
_PLACES = tuple(itertools.product((-0.09, 0.0, 0.09), (0.0, 0.09)))
# Neighbours among a network's features, of which long ones are shortened.
_LONG, _FEATURES = 128, 96

Thumbnails = npt.NDArray[np.uint8]
Advance = Callable[[int], None]


class View(NamedTuple):
    """A part of a picture: its share of each side, and where its centre lies from the picture's own, in shares of the sides."""

    share: float = 1.0
    across: float = 0.0
    down: float = 0.0


WHOLE, MIDDLE = View(), View(_MIDDLE)
_LOOKED_UP = ((WHOLE, (WHOLE,)), (MIDDLE, tuple(View(_MIDDLE, *place) for place in _PLACES)))
# How often each picture is looked up.
PASSES = 2 * sum(len(views) for _, views in _LOOKED_UP)


class Neighbours(NamedTuple):
    """The nearest rows of a table of each query, the most similar first: cosines and row numbers, n × k each."""

    similarity: npt.NDArray[np.float32]
    rows: npt.NDArray[np.int64]


def mirrored(thumbnails: Thumbnails) -> Thumbnails:
    """Return images mirrored left to right."""
    return np.ascontiguousarray(thumbnails[:, :, ::-1])


def descriptions(thumbnails: Thumbnails, views: Sequence[View]) -> list[torch.Tensor]:
    """Return unit vectors that describe parts of images coarsely: blurred cells without the mean of each channel.

    Args:
        thumbnails: uint8, n × 32 × 32 × 3.
        views: the parts.

    Returns:
        float, n × 3 × 8 × 8 for each view; mirrored, they describe the mirrored view of the mirrored image.
    """
    weights = torch.cat([_cells_of(view) for view in views], dim=1)
    parts: list[list[torch.Tensor]] = [[] for _ in views]
    for part in torch.split(torch.from_numpy(thumbnails), 4096):
        channels = part.permute(0, 3, 1, 2).float().flatten(2)
        for cells, found in zip(torch.split(channels @ weights, _CELLS * _CELLS, dim=2), parts, strict=True):
            unit = cells / cells.flatten(1).norm(dim=1).clamp_min(1e-4).view(-1, 1, 1)
            found.append(unit.view(-1, 3, _CELLS, _CELLS))
    return [torch.cat(found) for found in parts]


@cache
def _cells_of(view: View) -> torch.Tensor:
    """Return how much each pixel counts in each cell of a view, 1,024 × 64: all that is done to a channel is linear."""
    pixels = torch.eye(SIDE * SIDE).view(-1, 1, SIDE, SIDE)
    side = round(view.share * SIDE / _CELLS) | 1  # odd: the same to the left and to the right
    soft = F.avg_pool2d(pixels, 5, 1, 2, count_include_pad=False)
    soft = F.avg_pool2d(F.pad(soft, (side // 2,) * 4, mode="replicate"), side, 1)
    places = torch.tensor([[[view.share, 0, 2 * view.across], [0, view.share, 2 * view.down]]])
    grid = F.affine_grid(places, [1, 1, _CELLS, _CELLS], align_corners=False).expand(len(pixels), -1, -1, -1)
    cells = F.grid_sample(soft, grid, padding_mode="border", align_corners=False).flatten(1)
    return cells - cells.mean(dim=1, keepdim=True)


@final
class Table:
    """Unit vectors among which the nearest ones of others are found.

    Args:
        vectors: float, n × width.
        short: components to keep; rows are compared by these.
    """

    def __init__(self, vectors: torch.Tensor, short: int = _SHORT) -> None:
        some = vectors[np.linspace(0, len(vectors) - 1, min(_FITTED, len(vectors))).astype(int)]
        self._mean = some.mean(dim=0)
        _, _, directions = torch.linalg.svd(some - self._mean, full_matrices=False)
        self._directions = directions[:short].T
        self._rows = self._shortened(vectors)

    @cached_property
    def _graph(self) -> Any:
        from usearch.index import Index

        width = self._rows.shape[1]
        graph = Index(ndim=width, metric="cos", dtype="f16", connectivity=16, expansion_add=64, expansion_search=16)
        graph.add(np.arange(len(self._rows)), self._rows.numpy(), threads=1)  # several would build another graph each time
        return graph

    def _shortened(self, vectors: torch.Tensor) -> torch.Tensor:
        return F.normalize((vectors - self._mean) @ self._directions, dim=1)

    def nearest(self, queries: torch.Tensor, count: int = NEAREST) -> Neighbours:
        """Return the nearest rows of each query.

        Args:
            queries: float, m × width, unit vectors.
            count: of the rows, or as many as there are.
        """
        short, count = self._shortened(queries), min(count, len(self._rows))
        if len(self._rows) > _EXACT and len(short) > _FEW:
            found = self._graph.search(short.numpy(), count, threads=usable_cores())
            return Neighbours(1 - np.asarray(found.distances, np.float32), np.asarray(found.keys).astype(np.int64))
        return _compared(short, self._rows, count)


def _compared(queries: torch.Tensor, rows: torch.Tensor, count: int) -> Neighbours:
    """Return the nearest rows of each query, found by comparing all of them."""
    parts = [(part @ rows.T).topk(count, dim=1) for part in torch.split(queries, _QUERIES)]
    return Neighbours(*(torch.cat([part[k] for part in parts]).numpy() for k in (0, 1)))


def nearest_features(features: npt.NDArray[np.float32], advance: Advance = lambda _count: None) -> Neighbours:
    """Return the nearest images of each by a network's features: each itself, and others.

    Of many images they are found by the features' principal components; the similarities are of all components.

    Args:
        features: float32, n × width.
        advance: is told of every image that is done.
    """
    unit = F.normalize(torch.from_numpy(features), dim=1)
    if len(unit) <= _EXACT:
        advance(len(unit))
        return _compared(unit, unit, min(NEAREST_FEATURES, len(unit)))
    rows = Table(unit, _FEATURES if unit.shape[1] > _LONG else unit.shape[1]).nearest(unit, NEAREST_FEATURES).rows
    found = []
    for start in range(0, len(unit), _QUERIES):
        place = torch.from_numpy(rows[start : start + _QUERIES])
        exact, order = (unit[start : start + _QUERIES, None] * unit[place]).sum(dim=2).sort(dim=1, descending=True, stable=True)
        found.append((exact.numpy(), place.gather(1, order).numpy()))
        advance(len(place))
    return Neighbours(*(np.concatenate([part[k] for part in found]) for k in (0, 1)))


def candidates(
    table: Thumbnails, queries: Thumbnails, advance: Advance = lambda _count: None, both_ways: bool = False
) -> Iterator[tuple[bool, npt.NDArray[np.int64]]]:
    """Yield pairs (row of the table, row of the queries), n × 2, and whether the query is mirrored in them.

    Args:
        table: uint8, n × 32 × 32 × 3.
        queries: uint8, m × 32 × 32 × 3.
        advance: is told of the queries that were looked up, `PASSES` times of each.
        both_ways: whether to look at all places; where the table is the queries, half of them are enough.
    """
    count = min(max(_CANDIDATES // max(len(table), len(queries)), NEAREST), _MOST_NEAREST)
    for view, looked_up in _LOOKED_UP:
        [own] = descriptions(table, [view])
        rows = Table(own.flatten(1))
        places = list(dict.fromkeys([*looked_up, *(_opposite(view) for view in looked_up)] if both_ways else looked_up))
        for vectors in descriptions(queries, places):
            for flip in (False, True):  # a mirrored place is among the places, too
                yield flip, close_pairs(rows.nearest((vectors.flip(3) if flip else vectors).flatten(1), count), _LEAST)
                advance(len(queries))


def _opposite(view: View) -> View:
    return View(view.share, -view.across, -view.down)


def close_pairs(neighbours: Neighbours, least: float) -> npt.NDArray[np.int64]:
    """Return pairs (row of the table, query) that are similar enough, n × 2."""
    query, column = np.nonzero(neighbours.similarity >= least)
    return np.stack([neighbours.rows[query, column], query], axis=1)
