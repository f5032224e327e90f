"""Pillow's resizing as tensor operations, so that it can travel inside an exported graph.

Pillow resamples images in two passes (here, as in `Preprocessing.fit`, the columns come first) with coefficients of 22 bits,
and rounds to whole values after each (its Resample.c). The same coefficients are made here in double precision from the image's
size, and applied as products of matrices, each coefficient split in two parts of 11 bits so that single precision sums them
without rounding.
"""

import math
from collections.abc import Callable

import torch

from thawlab.data.preprocessing import Interpolation, Preprocessing

Tensor = torch.Tensor

# Bits of Pillow's coefficients, and of the lower of the two parts.
_BITS = 22
_LOW = 2.0**11


def _bilinear(x: Tensor) -> Tensor:
    return (1 - x).clamp(min=0)


def _bicubic(x: Tensor) -> Tensor:
    a = -0.5  # Keys 1981
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = (((x - 5) * x + 8) * x - 4) * a
    return torch.where(x < 1, near, torch.where(x < 2, far, torch.zeros_like(x)))


def _lanczos(x: Tensor) -> Tensor:
    return torch.where(x < 3, _sinc(x) * _sinc(x / 3), torch.zeros_like(x))


def _sinc(x: Tensor) -> Tensor:
    angle = x * math.pi
    safe = torch.where(angle == 0, torch.ones_like(angle), angle)
    return torch.where(angle == 0, torch.ones_like(angle), torch.sin(safe) / safe)


# Each kernel as a function of the distance from its centre, and how far it reaches.
_KERNELS: dict[str, tuple[Callable[[Tensor], Tensor], float]] = {
    "bilinear": (_bilinear, 1.0),
    "bicubic": (_bicubic, 2.0),
    "lanczos": (_lanczos, 3.0),
}


def coefficients(places: Tensor, start: Tensor, end: Tensor, size: Tensor, steps: Tensor, interpolation: Interpolation) -> Tensor:
    """Return the coefficients by which one side of an image is resampled.

    Args:
        places: 0, 1, … of the side's pixels; float64.
        start: where the part that is taken begins, in pixels; a float64 scalar.
        end: where it ends.
        size: how many pixels it becomes; a float64 scalar.
        steps: 0, 1, … of the pixels that come out; float64. Those outside 0 … size - 1 take part as if the pattern went on.
        interpolation: the kernel.

    Returns:
        float64, whole numbers, len(steps) × len(places); each row sums to about 2²².
    """
    # Pillow keeps the part's corners in single precision.
    first, last = start.float(), end.float()
    scale = (last - first).double() / size
    centre = (first.double() + (steps + 0.5) * scale)[:, None]
    if interpolation == "nearest":
        # Pillow adds the scale up from pixel to pixel; where a centre lies on a border its rounding decides.
        every = scale.expand(steps.shape[0])
        begin = (first.double() + scale * 0.5)[None]
        taken = torch.cumsum(torch.cat([begin, every[1:]]), dim=0)[steps.clamp(min=0).long()][:, None]
        return ((places[None] == taken.floor()) * 2.0**_BITS).double()
    kernel, reach = _KERNELS[interpolation]
    stretch = scale.clamp(min=1.0)
    support = reach * stretch
    # The pixels from the first to before the last, as C cuts them; negative ones are cut to 0 all the same.
    inside = (places >= (centre - support + 0.5).floor()) & (places < (centre + support + 0.5).floor())
    weights = torch.where(inside, kernel(((places - centre + 0.5) * (1 / stretch)).abs()), torch.zeros_like(centre * places))
    shares = weights / weights.sum(dim=1, keepdim=True) * 2.0**_BITS
    return torch.sign(shares) * (shares.abs() + 0.5).floor()


def resampled(values: Tensor, weights: Tensor) -> Tensor:
    """Apply coefficients along the last but one dimension, and round as Pillow does.

    Args:
        values: float32 whole numbers from 0 to 255, … × places × channels.
        weights: from `coefficients`.

    Returns:
        float32 whole numbers from 0 to 255, … × steps × channels.
    """
    high = ((weights + _LOW / 2) / _LOW).floor()
    low = weights - high * _LOW
    upper, lower = torch.matmul(high.float(), values).double(), torch.matmul(low.float(), values).double()
    rounded = ((upper * _LOW + lower + 2.0 ** (_BITS - 1)) / 2.0**_BITS).floor()
    return rounded.clamp(0, 255).float()


def fitted(images: Tensor, preprocessing: Preprocessing) -> Tensor:
    """Bring images to working size, as `Preprocessing.fit` does.

    Args:
        images: uint8, n × height × width × 3.
        preprocessing: says the size and how to reach it.

    Returns:
        float32 whole numbers from 0 to 255, n × size × size × 3.
    """
    size, kernel = preprocessing.size, preprocessing.interpolation
    rows, columns = (torch.arange(side, dtype=torch.float64, device=images.device) for side in images.shape[1:3])
    height, width = rows[-1] + 1, columns[-1] + 1
    steps, full = torch.arange(size, dtype=torch.float64, device=images.device), torch.full_like(height, size)
    if preprocessing.resize == "pad":
        scale = (size / torch.maximum(height, width)).clamp(max=1.0)
        inner = [(side * scale).round().clamp(min=1.0) for side in (height, width)]
        shifted = [steps - ((size - side) / 2).floor() for side in inner]
        zero = torch.zeros_like(height)
        down = coefficients(rows, zero, height, inner[0], shifted[0], kernel)
        across = coefficients(columns, zero, width, inner[1], shifted[1], kernel)
        covered = [(place >= 0) & (place < side) for place, side in zip(shifted, inner, strict=True)]
        ground = torch.tensor([float(value) for value in preprocessing.fill], device=images.device)
        return torch.where((covered[0][:, None] & covered[1][None])[None, :, :, None], _scaled(images, down, across), ground)
    side = torch.minimum(height, width) * (preprocessing.crop_pct if preprocessing.resize == "crop" else 1.0)
    top, left = (height - side) / 2, (width - side) / 2
    down = coefficients(rows, top, top + side, full, steps, kernel)
    return _scaled(images, down, coefficients(columns, left, left + side, full, steps, kernel))


def _scaled(images: Tensor, down: Tensor, across: Tensor) -> Tensor:
    """Apply the coefficients of the columns, and then those of the rows."""
    return resampled(resampled(images.float(), across).transpose(1, 2), down).transpose(1, 2)
