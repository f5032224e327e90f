"""Duplicates and near-duplicates: the same image again, perhaps saved anew, shifted, brightened or mirrored.

Candidates are neighbours of a coarse description (a perceptual hash kept as numbers) and, where given, of a network's
features. A candidate counts only if the two images can be laid over each other: after a shift of a few pixels, and perhaps
a mirror, both the image and its fine structure must correlate. Two different blue skies share the first, not the second.
"""

from collections import defaultdict
from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

# Images are compared at this size.
SIDE = 32
_SHIFT = 3
# An image is looked up as it is and moved a little each way: the coarse description feels a shift of two pixels.
_MOVES = ((0, 0), (2, 0), (-2, 0), (0, 2), (0, -2))
_ASIDE = ((1, 0), (0, 1), (1, 1), (1, -1))
_CELLS = 8
_NEIGHBOURS = 6
# Cosine similarity of the coarse descriptions, or of the features, that makes a pair worth laying over each other.
_COARSE_LEAST, _FEATURE_LEAST = 0.9, 0.9
# Correlation that makes two images near-duplicates: of the pixels, and of what a blur takes away from them.
PIXELS_LEAST, DETAIL_LEAST = 0.9, 0.75
# Fine structure that fits itself this well one pixel aside says little: handwriting scanned at 8 × 8 pixels, blue skies.
SMOOTH_LEAST = 0.84
# A first look at a candidate: grey, at half the size, by cyclic correlation up to this shift of its pixels.
_ROUGH_SIDE, _ROUGH_SHIFT, _ROUGH_LEAST = 16, 2, 0.6
_QUERIES, _PAIRS, _ROUGH_PAIRS = 1024, 512, 8192

Thumbnails = npt.NDArray[np.uint8]
Advance = Callable[[int], None]
# Cosine similarities and row numbers of the nearest rows of each, the most similar first; n × k each.
Neighbours = tuple[torch.Tensor, torch.Tensor]


class Pair(NamedTuple):
    """Two images that are the same, or nearly.

    Attributes:
        first: index of one.
        second: index of the other; the larger one where both are from one set.
        similarity: the correlation of their pixels at best, in [-1, 1].
        mirrored: whether one is mirrored left to right.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool


def same_content(contents: Sequence[bytes]) -> list[list[int]]:
    """Return the groups of indices whose digests are equal, each group sorted, without the groups of one."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(contents):
        groups[digest].append(index)
    return [members for members in groups.values() if len(members) > 1]


def near_duplicates(
    thumbnails: Thumbnails, in_features: Neighbours | None = None, advance: Advance = lambda _count: None
) -> list[Pair]:
    """Return all pairs of near-duplicates among some images, the most similar first.

    Args:
        thumbnails: uint8, n × 32 × 32 × 3.
        in_features: the neighbours of each image in the feature space of a network; finds candidates that the pixels alone
            miss.
        advance: is told of every image whose neighbours have been looked up; twice of each.
    """
    if len(thumbnails) < 2:
        return []
    coarse = _coarse(thumbnails)
    close = _close_pairs(in_features, _FEATURE_LEAST) if in_features is not None else set()
    both = _both_ways(thumbnails)
    candidates = {
        flip: close | _close_pairs(nearest(_coarse(images) if flip else coarse, coarse, advance), _COARSE_LEAST)
        for flip, images in both.items()
    }
    return _best_pairs(thumbnails, both, candidates)


def pairs_between(table: Thumbnails, queries: Thumbnails) -> list[Pair]:
    """Return the pairs of near-duplicates of which one image is in each of two sets, the most similar first.

    Args:
        table: uint8, n × 32 × 32 × 3; `Pair.first` counts in it.
        queries: uint8, m × 32 × 32 × 3; `Pair.second` counts in it.
    """
    if not (len(table) and len(queries)):
        return []
    coarse = _coarse(table)
    others = _both_ways(queries)
    candidates: dict[bool, set[tuple[int, int]]] = {False: set(), True: set()}
    for flip, images in others.items():
        for down, right in _MOVES:
            similarity, place = nearest(_coarse(_moved(images, down, right)), coarse)
            query, column = (similarity >= _COARSE_LEAST).nonzero(as_tuple=True)
            candidates[flip] |= set(zip(place[query, column].tolist(), query.tolist(), strict=True))
    return _best_pairs(table, others, candidates)


def _both_ways(thumbnails: Thumbnails) -> dict[bool, Thumbnails]:
    """Return images as they are (False) and mirrored left to right (True)."""
    return {False: thumbnails, True: np.ascontiguousarray(thumbnails[:, :, ::-1])}


def _best_pairs(plain: Thumbnails, others: dict[bool, Thumbnails], candidates: dict[bool, set[tuple[int, int]]]) -> list[Pair]:
    """Lay candidates over each other, as they are and mirrored, and return each pair once as it fits best, the best first."""
    found: dict[tuple[int, int], Pair] = {}
    spectra = _rough(plain)
    for flip in (flip for flip in others if candidates[flip]):
        images = others[flip]
        pairs = torch.tensor(sorted(candidates[flip]), dtype=torch.int64).view(-1, 2)
        plausible = _plausible(spectra, _rough(images), pairs)
        for start in range(0, len(plausible), _PAIRS):  # not torch.split, which makes one empty part of none
            part = plausible[start : start + _PAIRS]
            one, two = part.T.numpy()
            pixels, detail = best_correlation(_images(plain[one]), _images(images[two]))
            for place in ((pixels >= PIXELS_LEAST) & (detail >= DETAIL_LEAST)).nonzero().flatten().tolist():
                pair = Pair(int(one[place]), int(two[place]), float(pixels[place]), flip)
                if pair[:2] not in found or pair.similarity > found[pair[:2]].similarity:
                    found[pair[:2]] = pair
    return sorted(found.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))


def _moved(thumbnails: Thumbnails, down: int, right: int) -> Thumbnails:
    """Return images moved by some pixels; what comes in repeats the edge."""
    rows, columns = (np.clip(np.arange(SIDE) - move, 0, SIDE - 1) for move in (down, right))
    return np.ascontiguousarray(thumbnails[:, rows][:, :, columns])


def too_smooth(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """Return which images have too little fine structure for near-duplicates to mean anything.

    Args:
        thumbnails: uint8, n × 32 × 32 × 3.

    Returns:
        bool, n values: whether the fine structure, laid over itself one pixel aside, still correlates by 0.84 or more.
    """
    result = []
    for part in torch.split(torch.from_numpy(thumbnails), 4096):
        fine = _fine(part.permute(0, 3, 1, 2).float())
        inner = fine[:, :, 1:-1, 1:-1].flatten(1)
        aside = [fine[:, :, 1 + down : SIDE - 1 + down, 1 + right : SIDE - 1 + right] for down, right in _ASIDE]
        fits = torch.stack([F.cosine_similarity(inner, other.flatten(1)) for other in aside]).amax(dim=0)
        flat = inner.square().mean(dim=1) < 1  # no structure at all: less than one level of 256
        result.append(((fits >= SMOOTH_LEAST) | flat).numpy())
    return np.concatenate(result)


def _coarse(thumbnails: Thumbnails) -> torch.Tensor:
    """Return unit vectors that describe images coarsely: blurred to 8 × 8 cells, without mean and contrast."""
    images = torch.from_numpy(thumbnails).permute(0, 3, 1, 2)
    values = torch.cat([F.adaptive_avg_pool2d(_blurred(part.float()), _CELLS) for part in torch.split(images, 8192)])
    return F.normalize((values - values.mean(dim=(2, 3), keepdim=True)).flatten(1), dim=1)


def nearest(queries: torch.Tensor, table: torch.Tensor, advance: Advance = lambda _count: None) -> Neighbours:
    """Return the rows of a table that are most similar to each query by cosine, the most similar first.

    Args:
        queries: float, n × width, unit vectors.
        table: float, m × width, unit vectors; where it is the queries, each finds itself too.
        advance: is told of every query that is done.

    Returns:
        Similarities and row numbers, n × at most 7 each.
    """
    count = min(_NEIGHBOURS + 1, len(table))
    found = []
    for part in torch.split(queries, _QUERIES):
        found.append((part @ table.T).topk(count, dim=1))
        advance(len(part))
    return torch.cat([part.values for part in found]), torch.cat([part.indices for part in found])


def _close_pairs(neighbours: Neighbours, least: float) -> set[tuple[int, int]]:
    """Return the pairs of an image and another one among its neighbours that are similar enough."""
    similarity, place = neighbours
    first, column = (similarity >= least).nonzero(as_tuple=True)
    second = place[first, column]
    low, high = torch.minimum(first, second), torch.maximum(first, second)
    different = low < high
    return set(zip(low[different].tolist(), high[different].tolist(), strict=True))


def _standard(values: torch.Tensor) -> torch.Tensor:
    """Return n × channels × height × width values without each channel's mean, each sample as a unit vector."""
    centred = values - values.mean(dim=(2, 3), keepdim=True)
    unit: torch.Tensor = centred / centred.flatten(1).norm(dim=1).clamp_min(1e-3).view(-1, 1, 1, 1)
    return unit


def _rough(thumbnails: Thumbnails) -> torch.Tensor:
    """Return the spectra of grey images of 16 × 16 pixels without mean and contrast."""
    greys = (part.float().mean(dim=3)[:, None] for part in torch.split(torch.from_numpy(thumbnails), 8192))
    return torch.cat([torch.fft.rfft2(_standard(F.avg_pool2d(grey, SIDE // _ROUGH_SIDE))[:, 0]) for grey in greys])


def _plausible(one: torch.Tensor, two: torch.Tensor, pairs: torch.Tensor) -> torch.Tensor:
    """Return the pairs (n × 2) that correlate roughly at some small shift; a cheap look before the exact one."""
    kept = []
    near = [*range(_ROUGH_SHIFT + 1), *range(-_ROUGH_SHIFT, 0)]
    for part in torch.split(pairs, _ROUGH_PAIRS):
        fits = torch.fft.irfft2(one[part[:, 0]].conj() * two[part[:, 1]], s=(_ROUGH_SIDE, _ROUGH_SIDE))
        kept.append(part[fits[:, near][:, :, near].amax(dim=(1, 2)) >= _ROUGH_LEAST])
    return torch.cat(kept)


def _images(thumbnails: Thumbnails) -> torch.Tensor:
    return torch.from_numpy(thumbnails).permute(0, 3, 1, 2).float()


def best_correlation(one: torch.Tensor, two: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Lay images over others, shifted by up to 3 pixels each way, and return how well they fit at best.

    Args:
        one: float, n × 3 × 32 × 32.
        two: of the same shape.

    Returns:
        The correlation of the pixels, each channel without its mean, and that of the fine structure at the same place; n each.
    """
    fits = _fit_everywhere(one, two)
    fits_detail = _fit_everywhere(_fine(one), _fine(two))
    place = (fits + fits_detail).argmax(dim=1, keepdim=True)
    return fits.gather(1, place).flatten(), fits_detail.gather(1, place).flatten()


def _blurred(images: torch.Tensor) -> torch.Tensor:
    return _mean_around(images, 5, padding=2)


def _mean_around(images: torch.Tensor, side: int, padding: int = 0) -> torch.Tensor:
    """Return the means of all windows of side × side pixels, down and across in turn; what lies outside does not count."""
    down = F.avg_pool2d(images, (side, 1), stride=1, padding=(padding, 0), count_include_pad=False)
    return F.avg_pool2d(down, (1, side), stride=1, padding=(0, padding), count_include_pad=False)


def _fine(images: torch.Tensor) -> torch.Tensor:
    """Return what a blur takes away."""
    return images - _blurred(images)


def _fit_everywhere(one: torch.Tensor, two: torch.Tensor) -> torch.Tensor:
    """Return the correlations of the middle of one image with every window of the other, n × shifts."""
    inner = SIDE - 2 * _SHIFT
    shifts = 2 * _SHIFT + 1
    middle = _standard(one[:, :, _SHIFT : _SHIFT + inner, _SHIFT : _SHIFT + inner])
    # The middle has no mean, so the window's own mean adds nothing to the product, only to the window's length.
    means, squares = (_mean_around(values, inner) for values in (two, two * two))
    length = (inner * inner * (squares - means * means)).sum(dim=1).clamp_min(1e-6).sqrt()
    # All products at once, as a correlation; filled up with zeros, the middle does not reach round the edge at these shifts.
    spectra = torch.fft.rfft2(middle.contiguous(), s=(SIDE, SIDE)).conj() * torch.fft.rfft2(two.contiguous())
    products: torch.Tensor = torch.fft.irfft2(spectra.sum(dim=1), s=(SIDE, SIDE))
    return (products[:, :shifts, :shifts] / length.clamp_min(1e-3)).flatten(1)
