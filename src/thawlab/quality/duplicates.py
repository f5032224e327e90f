"""Duplicates and near-duplicates: the same image again, perhaps saved anew, moved, scaled, recoloured, mirrored or cut out.

Candidates are neighbours in coarse descriptions of whole images and of their middles, and, where given, in a network's features.
A candidate counts only if one image can be laid over the other: how well, and how far it has to be moved, tells.
"""

from collections import defaultdict
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypeVar

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F

from thawlab.quality.candidates import Advance, Neighbours, Thumbnails, candidates, close_pairs, mirrored
from thawlab.quality.differences import differences
from thawlab.quality.registration import (
    FEW,
    SIDE,
    STARTS,
    Laid,
    alike,
    has_structure,
    laid,
    refined,
    rough_fit,
    roughly_refined,
    spectra,
)

# Part of the key of what is kept of the pairs found; raise it with each change by which others are found.
FINDER = 2
# Cosine similarity of features that makes a pair worth laying over each other.
_FEATURE_LEAST = 0.75
# Looks at a candidate, each at what the one before left: correlation of small images' structure under the best of a few maps; how
# alike the images are under a map found at half the size; and how much of the middle's structure must fit once it is exact.
_ROUGH_LEAST, _ALIKE_LEAST, _MIDDLE_LEAST = 0.64, 0.26, 0.12
_STARTS = 2
# What tells near-duplicates: correlation of small neighbourhoods where the images agree; the root of its sum as a share of the
# image; and against them, how far the colours are apart (logarithm of levels) and how far the map goes: in scale (logarithm of
# the larger one), shear, and shift in halves of the side. With the constant, the logarithm of the odds, fitted to planted copies,
# to CIFAR-10's most similar pairs of different classes, and to pairs of one class judged by eye.
_WEIGHTS, _CONSTANT = (5.78, 11.76, -2.35, -6.46, -3.77, -4.06), 0.5
_NEAR_COLOURS = 5.0  # levels
LEAST = 0.5
# Fine structure that fits itself this well one pixel aside says little: handwriting scanned at 8 × 8 pixels, blue skies.
SMOOTH_LEAST = 0.84
_ASIDE = ((1, 0), (0, 1), (1, 1), (1, -1))
# Pairs that are looked at together: exactly, and roughly; and images whose spectra are in memory for it.
_PAIRS, _ROUGH_PAIRS, _SPECTRA = 512, 1024, 65_536

T = TypeVar("T", bound=np.generic)


class Pair(NamedTuple):
    """Two images that are the same, or nearly.

    Attributes:
        first: index of one.
        second: index of the other; the larger one where both are from one set.
        similarity: how sure it is, in [0.5, 1].
        mirrored: whether one is mirrored left to right.
        how: what makes them differ, in words.
    """

    first: int
    second: int
    similarity: float
    mirrored: bool
    how: str = ""


def same_content(contents: Sequence[bytes]) -> list[list[int]]:
    """Return the groups of indices whose digests are equal, each group sorted, without the groups of one."""
    groups: dict[bytes, list[int]] = defaultdict(list)
    for index, digest in enumerate(contents):
        groups[digest].append(index)
    return [members for members in groups.values() if len(members) > 1]


def near_duplicates(
    thumbnails: Thumbnails, in_features: Neighbours | None = None, advance: Advance = lambda _count: None
) -> list[Pair]:
    """Return all pairs of near-duplicates among some images, the surest first.

    Args:
        thumbnails: uint8, n × 32 × 32 × 3.
        in_features: the neighbours of each image in the feature space of a network; finds candidates that the pixels alone
            miss.
        advance: is told of every image whose neighbours have been looked up, `PASSES` times of each.
    """
    if len(thumbnails) < 2:
        return []
    found: dict[bool, list[npt.NDArray[np.int64]]] = {False: [], True: []}
    if in_features is not None:
        found = {flip: [close_pairs(in_features, _FEATURE_LEAST)] for flip in found}
    for flip, pairs in candidates(thumbnails, thumbnails, advance):
        found[flip].append(pairs)
    ordered = {flip: np.sort(np.concatenate(parts), axis=1) for flip, parts in found.items()}
    return judged_pairs(thumbnails, thumbnails, {flip: pairs[pairs[:, 0] < pairs[:, 1]] for flip, pairs in ordered.items()})


def pairs_between(table: Thumbnails, queries: Thumbnails) -> list[Pair]:
    """Return the pairs of near-duplicates of which one image is in each of two sets, the surest first.

    Args:
        table: uint8, n × 32 × 32 × 3; `Pair.first` counts in it.
        queries: uint8, m × 32 × 32 × 3; `Pair.second` counts in it.
    """
    if not (len(table) and len(queries)):
        return []
    found: dict[bool, list[npt.NDArray[np.int64]]] = {False: [], True: []}
    for flip, pairs in candidates(table, queries, both_ways=True):
        found[flip].append(pairs)
    return judged_pairs(table, queries, {flip: np.concatenate(parts) for flip, parts in found.items()})


def judged_pairs(plain: Thumbnails, others: Thumbnails, found: dict[bool, npt.NDArray[np.int64]]) -> list[Pair]:
    """Lay candidates over each other, as they are and mirrored, and return each pair once as it fits best, the surest first."""
    best: dict[tuple[int, int], Pair] = {}
    shown, others_shown = (_shows_anything(images) for images in (plain, others))
    for flip, pairs in found.items():
        images = mirrored(others) if flip else others
        wanted = np.unique(pairs[shown[pairs[:, 0]] & others_shown[pairs[:, 1]]], axis=0)
        for part in _mapped(plain, images, _plausible(plain, images, wanted)):
            for pair in _fitting(plain, images, part, flip):
                if pair[:2] not in best or pair.similarity > best[pair[:2]].similarity:
                    best[pair[:2]] = pair
    return sorted(best.values(), key=lambda pair: (-pair.similarity, pair.first, pair.second))


@torch.inference_mode()
def _shows_anything(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    return np.concatenate([has_structure(_images(part)).numpy() for part in _parts(thumbnails, _ROUGH_PAIRS)])


def _parts(rows: npt.NDArray[T], size: int) -> Iterator[npt.NDArray[T]]:
    for start in range(0, len(rows), size):
        yield rows[start : start + size]


def _images(thumbnails: Thumbnails) -> torch.Tensor:
    return torch.from_numpy(thumbnails).permute(0, 3, 1, 2).float()


@torch.inference_mode()
def _plausible(plain: Thumbnails, others: Thumbnails, pairs: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """Return the pairs that correlate roughly; a cheap look before the exact one."""
    kept = [pairs[:0]]
    for begin in range(0, len(others), _SPECTRA):
        still = torch.cat([spectra(_images(part)) for part in _parts(others[begin : begin + _SPECTRA], _ROUGH_PAIRS)])
        among = pairs[(pairs[:, 1] >= begin) & (pairs[:, 1] < begin + _SPECTRA)]
        for part in _parts(among, _ROUGH_PAIRS):
            one, place = np.unique(part[:, 0], return_inverse=True)
            fits, _ = rough_fit(spectra(_images(plain[one]), FEW)[place], still[part[:, 1] - begin], 1)
            kept.append(part[(fits[:, 0] >= _ROUGH_LEAST).numpy()])
    return np.concatenate(kept)


class _Mapped(NamedTuple):
    """Pairs, n × 2, and the maps that lay the first image over the second roughly: where they began, and now; n × 2 × 3 each."""

    pairs: npt.NDArray[np.int64]
    start: torch.Tensor
    maps: torch.Tensor


@torch.inference_mode()
def _mapped(plain: Thumbnails, others: Thumbnails, pairs: npt.NDArray[np.int64]) -> Iterator[_Mapped]:
    """Yield some pairs at a time that are alike under a map."""
    kept = []
    for part in _parts(pairs, _PAIRS):
        first, place = np.unique(part[:, 0], return_inverse=True)  # images that are in many pairs are looked at once
        different, two = _images(plain[first]), _images(others[part[:, 1]])
        one = different[place]
        _, starts = rough_fit(spectra(different, len(STARTS))[place], spectra(two), _STARTS)
        start, maps = roughly_refined(one, two, starts)
        near = (alike(one, two, maps) >= _ALIKE_LEAST).nonzero().flatten()
        kept.append(_Mapped(part[near.numpy()], start[near], maps[near]))
        if sum(len(some.pairs) for some in kept) >= _PAIRS:
            yield _joined(kept)
            kept = []
    if any(len(some.pairs) for some in kept):
        yield _joined(kept)


def _joined(parts: Sequence[_Mapped]) -> _Mapped:
    pairs, start, maps = zip(*parts, strict=True)
    return _Mapped(np.concatenate(pairs), torch.cat(start), torch.cat(maps))


@torch.inference_mode()
def _fitting(plain: Thumbnails, others: Thumbnails, part: _Mapped, flip: bool) -> list[Pair]:
    """Return the near-duplicates among a few pairs."""
    pairs = part.pairs
    one, two = _images(plain[pairs[:, 0]]), _images(others[pairs[:, 1]])
    maps, middle = refined(one, two, part.start, part.maps)
    near = (middle >= _MIDDLE_LEAST).nonzero().flatten()
    if not len(near):
        return []
    found = laid(one[near], two[near], maps[near])
    sure = surety(found)
    keep = (sure >= LEAST).nonzero().flatten()
    if not len(keep):
        return []
    words = differences(one[near][keep], two[near][keep], Laid(*(values[keep] for values in found)), flip)
    return [
        Pair(int(first), int(second), similarity, flip, how)
        for (first, second), similarity, how in zip(pairs[near[keep].numpy()], sure[keep].tolist(), words, strict=True)
    ]


def surety(found: Laid) -> torch.Tensor:
    """Return how sure it is that images are near-duplicates, n values in [0, 1]."""
    axes, shift = found.maps[:, :, :2], found.maps[:, :, 2].norm(dim=1)
    scale = axes.norm(dim=1).log().abs().amax(dim=1)
    shear = (axes[:, :, 0] * axes[:, :, 1]).sum(dim=1).abs()
    colours = (found.distance + _NEAR_COLOURS).log()
    terms = torch.stack([found.local, found.held.clamp_min(0).sqrt(), colours, scale, shear, shift], dim=1)
    return torch.sigmoid(terms @ torch.tensor(_WEIGHTS) + _CONSTANT)


def too_smooth(thumbnails: Thumbnails) -> npt.NDArray[np.bool_]:
    """Return which images have too little fine structure for near-duplicates to mean anything.

    Args:
        thumbnails: uint8, n × 32 × 32 × 3.

    Returns:
        bool, n values: whether the fine structure, laid over itself one pixel aside, still correlates by 0.84 or more.
    """
    result = []
    for part in torch.split(torch.from_numpy(thumbnails), 4096):
        images = part.permute(0, 3, 1, 2).float()
        fine = images - F.avg_pool2d(images, 5, stride=1, padding=2, count_include_pad=False)
        inner = fine[:, :, 1:-1, 1:-1].flatten(1)
        aside = [fine[:, :, 1 + down : SIDE - 1 + down, 1 + right : SIDE - 1 + right] for down, right in _ASIDE]
        fits = torch.stack([F.cosine_similarity(inner, other.flatten(1)) for other in aside]).amax(dim=0)
        flat = inner.square().mean(dim=1) < 1  # no structure at all: less than one level of 256
        result.append(((fits >= SMOOTH_LEAST) | flat).numpy())
    return np.concatenate(result)
