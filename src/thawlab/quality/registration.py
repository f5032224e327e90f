"""Two pictures laid over each other: where one lies in the other, with which colours, and where they agree.

An affine map is found in two steps: the best of a few maps and shifts by correlation of small windowed images, then Gauss-Newton
steps on the fine structure, with weights that take what does not fit for covered (Lucas & Kanade 1981; Baker & Matthews 2004,
"Lucas-Kanade 20 years on", forward compositional). The middle counts more than the edge, which frames and other backgrounds
change. Colours are fitted by a mix of the channels and their squares, which holds a change of brightness, contrast, gamma,
saturation or cast. All pairs of a batch are treated at once.
"""

import itertools
import math
from functools import cache
from typing import NamedTuple

import torch
import torch.nn.functional as F

from thawlab.evaluation.properties import LUMA

# Sides of the images that are compared, and of the small ones that are compared first.
SIDE, _SMALL = 32, 16
_REACH = 3  # pixels of the small images by which they may be shifted at first
_FADING = 0.75  # power of the Hann window under which they are compared
_GAIN = 0.25  # at most, of a correlation between the pixels
_SCALES = (0.88, 1.0, 1.14)
_TURN = math.radians(4.5)
# How far a map may go: lengths, shear and turning, and shift, in halves of the side.
_LARGEST, _SKEW, _FARTHEST = 1.35, 0.13, 0.4
# The steps by the side of the images: the misfit, in standard deviations, beyond which a pixel counts little.
_STEPS = {_SMALL: (1.2, 1.0, 0.8, 0.7, 0.7), SIDE: (0.8, 0.6, 0.5, 0.5)}
_DAMPING, _LONGEST = 0.02, 0.12
_MIDDLE = 0.7  # standard deviation of the weight of the middle, in halves of the side
_CLOSER = 8  # power of that weight where colours are fitted first
_RIDGE = 1e-3
# Misfit of the colours that still counts as agreeing, in levels of 256: so much, and this share of the picture's own spread.
_LEVELS, _SPREAD = 8.0, 0.15
# Correlation of the fine structure where images agree, times the root of how much that is, of what hardly fits.
_HARDLY = 0.35
# Variance of a neighbourhood, in squares of levels, that counts as noise.
_NOISE = 16.0


class Laid(NamedTuple):
    """How pairs of images lie over each other; n values each.

    Attributes:
        maps: float, n × 2 × 3, from the second image's coordinates in [-1, 1] to the first's.
        local: mean correlation of small neighbourhoods where the images agree, once their colours are fitted.
        held: the same, summed over the pixels that agree, as a share of all pixels of the second image.
        whole_detail: correlation of the fine structure of all that the first image covers.
        overlap: share of the second image that the first one covers.
        agreeing: share of the second image where both agree.
        distance: root of the mean square of what is between the colours as they came, in levels of 256.
    """

    maps: torch.Tensor
    local: torch.Tensor
    held: torch.Tensor
    whole_detail: torch.Tensor
    overlap: torch.Tensor
    agreeing: torch.Tensor
    distance: torch.Tensor


def _starts() -> torch.Tensor:
    """Return the maps that are tried first, n × 2 × 3: some scales, equal ones first, and turned a little each way."""
    scales = sorted(itertools.product(_SCALES, repeat=2), key=lambda pair: pair[0] != pair[1])
    scaled = [[[across, 0, 0], [0, down, 0]] for across, down in scales]
    cosine, sine = math.cos(_TURN), math.sin(_TURN)
    turned = [[[cosine, -s, 0], [s, cosine, 0]] for s in (sine, -sine)]
    return torch.tensor([*scaled, *turned], dtype=torch.float32)


STARTS = _starts()
FEW = len(_SCALES)  # of the maps, those that scale both axes alike


def grey(images: torch.Tensor) -> torch.Tensor:
    """Return n × 3 × h × w images without colour, n × 1 × h × w."""
    red, green, blue = (images[:, channel : channel + 1] for channel in range(3))
    mixed: torch.Tensor = (red * LUMA[0]).add_(green, alpha=LUMA[1]).add_(blue, alpha=LUMA[2])
    return mixed


def blurred(images: torch.Tensor, times: int = 1) -> torch.Tensor:
    """Return square images under a binomial blur of 3 × 3 pixels, applied so many times; their edges are continued outwards."""
    along = _blurring(images.shape[3], times)
    soft: torch.Tensor = along @ (images @ along.T)
    return soft


@cache
def _blurring(side: int, times: int) -> torch.Tensor:
    """Return what blurs the columns of an image, side × side: one product is quicker than many passes."""
    identity = torch.eye(side)
    above, below = torch.cat([identity[:1], identity[:-1]]), torch.cat([identity[1:], identity[-1:]])
    once: torch.Tensor = (above + 2 * identity + below) / 4
    several: torch.Tensor = torch.linalg.matrix_power(once, times)
    return several


@cache
def _places(side: int) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Return x and y of each pixel in [-1, 1], and how much it counts before anything is known; 1 × 1 × side × side each."""
    along = (torch.arange(side) * 2 + 1) / side - 1
    x, y = along.view(1, 1, 1, side).expand(1, 1, side, side), along.view(1, 1, side, 1).expand(1, 1, side, side)
    return x, y, torch.exp(-(x * x + y * y) / (2 * _MIDDLE**2))


@cache
def _window() -> torch.Tensor:
    """Return the window under which small images are compared, along one axis."""
    return torch.hann_window(_SMALL + 2, periodic=False)[1:-1] ** _FADING


def _windowed(small: torch.Tensor) -> torch.Tensor:
    """Return the structure of small grey images under a window that fades to the edge, of unit length."""
    fine = (small - blurred(small, 2)) * (_window()[:, None] * _window()[None])
    unit: torch.Tensor = fine / fine.flatten(1).norm(dim=1).clamp_min(1e-3).view(-1, 1, 1, 1)
    return unit


@cache
def _common() -> torch.Tensor:
    """Return the share of the window that two images have in common after each shift, 7 × 7: what they can correlate by."""
    wave = _window()
    along = torch.stack([(wave[: _SMALL - step] * wave[step:]).sum() for step in (abs(k) for k in range(-_REACH, _REACH + 1))])
    along = along / along.max()
    return along[:, None] * along[None]


@cache
def _shifted() -> torch.Tensor:
    """Return what turns the product of two spectra into correlations by shift, 288 × 81: up to one pixel beyond the reach.

    Most shifts are beyond it: their share of an inverse transform would be computed in vain.
    """
    unit = torch.eye(2 * _SMALL * (_SMALL // 2 + 1)).view(-1, _SMALL, _SMALL // 2 + 1, 2)
    fits = torch.fft.irfft2(torch.view_as_complex(unit), s=(_SMALL, _SMALL))
    side = 2 * _REACH + 3
    return torch.roll(fits, (_REACH + 1, _REACH + 1), dims=(1, 2))[:, :side, :side].reshape(len(unit), -1)


def spectra(images: torch.Tensor, maps: int = 0) -> torch.Tensor:
    """Return the spectra by which `rough_fit` compares images: n × maps × 16 × 9.

    Args:
        images: float, n × 3 × 32 × 32.
        maps: how many of those that are tried first the images are under; as they are if 0, which makes one spectrum.
    """
    small = grey(F.adaptive_avg_pool2d(images, _SMALL))
    if not maps:
        still: torch.Tensor = torch.fft.rfft2(_windowed(small))
        return still
    n = len(small)
    grids = F.affine_grid(STARTS[:maps], [maps, 1, _SMALL, _SMALL], align_corners=False)
    row = small.view(1, n, _SMALL, _SMALL)  # images as channels: all of them under one map at a time
    under = [F.grid_sample(row, grid[None], padding_mode="border", align_corners=False)[0] for grid in grids]
    flat = torch.stack(under, dim=1).view(n * maps, 1, _SMALL, _SMALL)
    moved: torch.Tensor = torch.fft.rfft2(_windowed(flat).view(n, maps, _SMALL, _SMALL))
    return moved


def rough_fit(one: torch.Tensor, two: torch.Tensor, count: int) -> tuple[torch.Tensor, torch.Tensor]:
    """Return how well images fit under the best of the first maps and a small shift, and these maps.

    Args:
        one: spectra of the first images under all maps, n × maps × 16 × 9.
        two: spectra of the second images, n × 1 × 16 × 9.
        count: of the maps to return.

    Returns:
        Correlations of the best maps, n × count, and the maps from the second image to the first, n × count × 2 × 3.
    """
    width = 2 * _REACH + 1
    product = torch.view_as_real(one.conj() * two).flatten(2)
    wide = (product.flatten(0, 1) @ _shifted()).view(*product.shape[:2], width + 2, width + 2)
    near = wide[:, :, 1:-1, 1:-1] / _common()
    values, places = near.flatten(2).max(dim=2)
    best, which = values.topk(count, dim=1)
    place = places.gather(1, which)
    right, down = place % width, place // width
    move = torch.stack([right - _REACH, down - _REACH], dim=2).float() * (-2 / _SMALL)
    maps = STARTS[which].clone()
    maps[..., 2] = (maps[..., :2] @ move[..., None]).squeeze(-1)
    chosen = wide.gather(1, which[..., None, None].expand(-1, -1, width + 2, width + 2)).flatten(2)
    middle = (down + 1) * (width + 2) + right + 1
    return best * _between(
        *(chosen.gather(2, (middle + aside)[..., None])[..., 0] for aside in (0, -1, 1, -width - 2, width + 2))
    ), maps


def _between(
    peak: torch.Tensor, left: torch.Tensor, right: torch.Tensor, above: torch.Tensor, below: torch.Tensor
) -> torch.Tensor:
    """Return how much higher the peak of a correlation is between the pixels, by a parabola along each axis; 1 or more."""
    gain = torch.ones_like(peak)
    for before, after in ((left, right), (above, below)):
        bend = (2 * peak - before - after).clamp_min(1e-6)
        gain = gain + ((after - before).square() / (8 * bend * peak.clamp_min(1e-3))).clamp(0, _GAIN)
    return gain


def _sampled(images: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return images under maps, and where they cover the frame (n × 1 × h × w, 0 or 1)."""
    side = images.shape[3]
    x, y, _ = _places(side)
    pixels = torch.stack([x.flatten(), y.flatten(), torch.ones(side * side)])
    places = (maps.reshape(-1, 3) @ pixels).view(-1, 2, side, side)
    inside = (places.abs().amax(dim=1, keepdim=True) <= 1).float()
    return F.grid_sample(images, places.permute(0, 2, 3, 1), padding_mode="border", align_corners=False), inside


def _standard(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return values without weighted mean and of weighted unit variance, per image and channel."""
    total = weights.sum(dim=(2, 3), keepdim=True).clamp_min(1e-3)
    centred = values - (values * weights).sum(dim=(2, 3), keepdim=True) / total
    variance = (centred * centred * weights).sum(dim=(2, 3), keepdim=True) / total
    unit: torch.Tensor = centred / (variance + 1).sqrt()
    return unit


def _structure(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return what is neither noise nor shading of images, n × 1 × side × side."""
    soft = blurred(grey(images))
    soft = soft if side == SIDE else F.avg_pool2d(soft, SIDE // side)
    return soft - blurred(soft, 6)


def roughly_refined(one: torch.Tensor, two: torch.Tensor, starts: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the maps, of several, that lay the first images over the second ones best after some steps at half the size.

    Args:
        one: float, n × 3 × 32 × 32.
        two: of the same shape.
        starts: maps to begin with, n × k × 2 × 3.

    Returns:
        Where the best one began, and where it got to, n × 2 × 3 each.
    """
    first, second = (_structure(images, _SMALL) for images in (one, two))
    coarse = [_steps(first, second, maps, _SMALL) for maps in starts.unbind(dim=1)]
    best = torch.stack([_middle_fit(first, second, maps) for maps in coarse]).argmax(dim=0)
    chosen = best.view(-1, 1, 1, 1).expand(-1, 1, 2, 3)
    start, maps = (some.gather(1, chosen).squeeze(1) for some in (starts, torch.stack(coarse, dim=1)))
    return start, maps


def alike(one: torch.Tensor, two: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return how alike images are under maps by the neighbourhoods of their pixels, the middle's before all; n values up to 1.

    Colours are not fitted for it: cheaper than `laid`, which tells how well images fit that are alike.
    """
    under, inside = _sampled(grey(one), maps)
    return _mean(_local_correlation(under, grey(two), inside) * inside, _places(SIDE)[2].expand_as(inside))


def refined(one: torch.Tensor, two: torch.Tensor, start: torch.Tensor, maps: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return maps that lay the first images over the second ones more exactly, and how much of the middle then fits.

    Args:
        one: float, n × 3 × 32 × 32.
        two: of the same shape.
        start: where the maps began, n × 2 × 3.
        maps: what `roughly_refined` made of them, n × 2 × 3.

    Returns:
        The maps, n × 2 × 3, and n values in [0, 1]; where a map fits worse than where it began, that one and its value.
    """
    first, second = (_structure(images, SIDE) for images in (one, two))
    maps = _steps(first, second, maps, SIDE)
    fits, fits_before = (_middle_fit(first, second, some) for some in (maps, start))
    better = fits >= fits_before
    return torch.where(better.view(-1, 1, 1), maps, start), torch.where(better, fits, fits_before)


def _steps(first: torch.Tensor, second: torch.Tensor, maps: torch.Tensor, side: int) -> torch.Tensor:
    """Return maps after the Gauss-Newton steps at one size, given the structure of both images there."""
    x, y, prior = _places(side)
    last = torch.tensor([0.0, 0.0, 1.0]).expand(len(maps), 1, 3)
    weights: torch.Tensor | None = None
    for scale in _STEPS[side]:
        under, inside = _sampled(first, maps)
        counts = inside * prior
        weights = counts if weights is None else weights * inside
        a, b = _standard(second, weights), _standard(under, weights)
        rest = a - b
        weights = counts / (1 + (rest / scale).square()).square()
        padded = F.pad(b, (1, 1, 1, 1), mode="replicate")
        right = (padded[:, :, 1:-1, 2:] - padded[:, :, 1:-1, :-2]) * (side / 4)
        down = (padded[:, :, 2:, 1:-1] - padded[:, :, :-2, 1:-1]) * (side / 4)
        slopes = torch.cat([right * x, right * y, right, down * x, down * y, down], dim=1).flatten(2)
        weighted = slopes * weights.flatten(2)
        system = weighted @ slopes.transpose(1, 2)
        damping = system.diagonal(dim1=1, dim2=2).mean(dim=1) * _DAMPING + 1e-3
        system = system + torch.eye(6) * damping.view(-1, 1, 1)
        step = torch.linalg.solve(system, weighted @ rest.flatten(2).transpose(1, 2)).view(-1, 2, 3)
        maps = _bounded(maps @ torch.cat([step.clamp(-_LONGEST, _LONGEST) + torch.eye(2, 3), last], dim=1))
    return maps


def _bounded(maps: torch.Tensor) -> torch.Tensor:
    low = torch.tensor([[1 / _LARGEST, -_SKEW, -_FARTHEST], [-_SKEW, 1 / _LARGEST, -_FARTHEST]])
    high = torch.tensor([[_LARGEST, _SKEW, _FARTHEST], [_SKEW, _LARGEST, _FARTHEST]])
    return maps.clamp(low, high)


def _middle_fit(first: torch.Tensor, second: torch.Tensor, maps: torch.Tensor) -> torch.Tensor:
    """Return how much of the middle's structure fits, in [0, 1]: what the steps make as large as they can."""
    under, inside = _sampled(first, maps)
    prior = _places(first.shape[3])[2]
    counts = inside * prior
    for _ in range(2):
        a, b = _standard(second, counts), _standard(under, counts)
        counts = inside * prior / (1 + ((a - b) / 0.6).square()).square()
    energy = (a.square() + b.square()) * prior * inside
    share: torch.Tensor = (energy * counts / (prior * inside).clamp_min(1e-6)).sum(dim=(1, 2, 3)) / energy.sum(
        dim=(1, 2, 3)
    ).clamp_min(1e-6)
    return share


def _mean(values: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    total: torch.Tensor = (values * weights).sum(dim=(1, 2, 3)) / weights.sum(dim=(1, 2, 3)).clamp_min(1e-3)
    return total


def has_structure(images: torch.Tensor) -> torch.Tensor:
    """Return which images (n × 3 × 32 × 32) show anything: fine structure of at least one level of 256."""
    return _fine(grey(images)).square().mean(dim=(1, 2, 3)) >= 1


def _fine(images: torch.Tensor) -> torch.Tensor:
    """Return the fine structure that a slight blur or sharpening leaves: between two blurs."""
    soft = blurred(images)
    return soft - blurred(soft, 4)


class _Colours(NamedTuple):
    """What colours of first images are mixed of, n × 7 × pixels: one, the channels and their squares; and what is to be added."""

    terms: torch.Tensor
    missing: torch.Tensor


def _colours(one: torch.Tensor, two: torch.Tensor) -> _Colours:
    centred = (one / 255 - 0.5).flatten(2)
    terms = torch.cat([torch.ones_like(centred[:, :1]), centred, centred.square()], dim=1)
    return _Colours(terms, ((two - one) / 255).flatten(2))


def _in_colours_of(colours: _Colours, weights: torch.Tensor) -> torch.Tensor:
    """Return the first images with their channels, and the squares of these, mixed so that they fit the second ones best."""
    terms, missing = colours
    weighted = terms * weights.flatten(2)
    system = weighted @ terms.transpose(1, 2) + torch.eye(7) * (_RIDGE * terms.shape[2])
    factors = torch.linalg.solve(system, weighted @ missing.transpose(1, 2))
    fitted = terms[:, 1:4] + factors.transpose(1, 2) @ terms  # what is not known stays as it is
    result: torch.Tensor = ((fitted + 0.5) * 255).clamp(0, 255).view(len(terms), 3, *weights.shape[2:])
    return result


def _correlation(one: torch.Tensor, two: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
    """Return the weighted correlation of images, each channel without its mean; n values."""
    total = weights.sum(dim=(2, 3), keepdim=True).clamp_min(1e-3)
    a, b = (values - (values * weights).sum(dim=(2, 3), keepdim=True) / total for values in (one, two))
    product, left, right = ((u * v * weights).sum(dim=(1, 2, 3)) for u, v in ((a, b), (a, a), (b, b)))
    result: torch.Tensor = product / (left * right).sqrt().clamp_min(1e-3)
    return result


def laid(one: torch.Tensor, two: torch.Tensor, maps: torch.Tensor) -> Laid:
    """Say how well images fit under maps, once their colours are fitted.

    Args:
        one: float, n × 3 × 32 × 32.
        two: of the same shape.
        maps: n × 2 × 3.
    """
    under, inside = _sampled(one, maps)
    found = _agreement(under, two, inside)
    # Colours that are gone cannot be fitted to: the other way round may fit better. What hardly fits needs no second look.
    again = (found[0] >= _HARDLY).nonzero().flatten()
    back = _agreement(two[again], under[again], inside[again])
    better = back[0] > found[0][again]
    _, *values = (value.index_put((again,), torch.where(better, b, value[again])) for value, b in zip(found, back, strict=True))
    local, held, whole_detail, agreeing, distance = values
    return Laid(maps, local, held, whole_detail, inside.mean(dim=(1, 2, 3)), agreeing, distance)


def _agreement(one: torch.Tensor, two: torch.Tensor, inside: torch.Tensor) -> tuple[torch.Tensor, ...]:
    """Return how well the first images fit in the second ones' colours, and the values of `Laid` that depend on these."""
    deviation = two - two.mean(dim=(1, 2, 3), keepdim=True)
    scale = _SPREAD * deviation.square().mean(dim=(1, 2, 3), keepdim=True).sqrt() + _LEVELS
    weights = inside * _places(SIDE)[2] ** _CLOSER
    colours = _colours(one, two)
    for _ in range(4):
        fitted = _in_colours_of(colours, weights)
        rest = blurred((fitted - two).square().mean(dim=1, keepdim=True)).sqrt()
        weights = inside / (1 + (rest / scale).square()).square()
    agrees = (blurred((rest < scale).float() * inside, 2) > 0.5).float() * inside
    agreeing, ours, theirs = agrees.mean(dim=(1, 2, 3)), grey(fitted), grey(two)
    near = _local_correlation(ours, theirs, inside)
    return (
        _correlation(_fine(ours), _fine(theirs), agrees) * agreeing.sqrt(),
        _mean(near, agrees),
        (near * agrees).mean(dim=(1, 2, 3)),
        _correlation(_fine(_in_colours_of(colours, inside)), _fine(two), inside),
        agreeing,
        _mean((one - two).square().mean(dim=1, keepdim=True), weights).sqrt(),
    )


def _local_correlation(one: torch.Tensor, two: torch.Tensor, inside: torch.Tensor) -> torch.Tensor:
    """Return the correlation of the neighbourhood of each pixel (the structure term of SSIM, Wang et al. 2004).

    Silhouettes that fit each other have their edges in common, but not what lies within and around them.
    """
    counts = blurred(inside, 2).clamp_min(1e-3)
    means = [blurred(values * inside, 2) / counts for values in (one, two, one * one, two * two, one * two)]
    spread = ((means[2] - means[0].square()).clamp_min(0) * (means[3] - means[1].square()).clamp_min(0)).sqrt()
    found: torch.Tensor = (means[4] - means[0] * means[1]) / (spread + _NOISE)
    return found
