"""Augmentations as tensor operations on whole batches, drawn from an explicit generator.

A specification is `name` or `name:argument`, e.g. `"rotate:15"`. Images are n × 3 × height × width with values in
[0, 255], uint8 or float; targets are class numbers, or class probabilities where images are mixed. Shift, rotation and
zoom that stand next to each other in a list are resampled together, once.
"""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import reduce
from itertools import groupby
from typing import NamedTuple, final

import torch
import torch.nn.functional as F
from torch import nn

from thawlab.errors import UsageError
from thawlab.registry import Registry

Batch = tuple[torch.Tensor, torch.Tensor]
Apply = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Batch]
Matrices = Callable[[int, torch.Generator], torch.Tensor]
# Images, or the identity per image; the argument; the generator → the changed images, or their affine matrices.
Change = Callable[[torch.Tensor, float, torch.Generator], torch.Tensor]
# The colour of erased rectangles: the mean of ImageNet's images.
_ERASED = (124.0, 116.0, 104.0)


class Augmentation(NamedTuple):
    """One random change of a batch.

    Attributes:
        apply: images, targets, generator → images, targets.
        affine: count, generator → count × 3 × 3 matrices in normalised coordinates, where the change is affine.
        mixes: whether targets must be class probabilities.
    """

    apply: Apply
    affine: Matrices | None = None
    mixes: bool = False


augmentations: Registry[Callable[[str], Augmentation]] = Registry("augmentation")


def _number(name: str, argument: str, default: float | None, high: float, whole: bool = False) -> float:
    """Read an augmentation's argument: a number above 0 and at most `high`, or none at all where there is no default."""
    if default is None:
        if argument:
            raise UsageError(f"augment: '{name}' takes no argument, but '{argument}' was given")
        return 0.0
    try:
        value = float(argument) if argument else default
    except ValueError:
        raise UsageError(f"augment: '{name}:{argument}': '{argument}' is not a number") from None
    if not 0 < value <= high:
        raise UsageError(f"augment: '{name}:{argument}': must be above 0 and at most {high:g}")
    if whole and value != int(value):
        raise UsageError(f"augment: '{name}:{argument}': must be a whole number")
    return value


def _register(
    name: str, default: float | None = None, high: float = 0, whole: bool = False, affine: bool = False
) -> Callable[[Change], Change]:
    """Return a decorator that files a change of images, or of matrices, under a name; `_number` says what argument it takes."""

    def add(change: Change) -> Change:
        def build(argument: str) -> Augmentation:
            value = _number(name, argument, default, high, whole)
            if affine:
                return _resampled(lambda count, generator: change(torch.eye(3).repeat(count, 1, 1), value, generator))
            return Augmentation(lambda images, targets, generator: (change(images, value, generator), targets))

        build.__doc__ = change.__doc__
        augmentations.register(name)(build)
        return change

    return add


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _per_image(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).to(images.device)


@_register("flip")
def flip(images: torch.Tensor, _: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror half of the images left to right."""
    mask = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(_per_image(mask, images), images.flip(-1), images)


@_register("alternate-flip")
def alternate_flip(images: torch.Tensor, _: float, generator: torch.Generator) -> torch.Tensor:
    """Mirror a random half of the images in the first epoch, the other half in the second, and so on.

    Training does so when it takes the rows, since it knows the epoch; where there is none, this is `flip`.
    """
    return flip(images, _, generator)


@_register("rotate90")
def rotate90(images: torch.Tensor, _: float, generator: torch.Generator) -> torch.Tensor:
    """Turn each image by a multiple of 90 degrees."""
    turns = torch.randint(0, 4, (len(images),), generator=generator)
    result = images
    for count in (1, 2, 3):
        result = torch.where(_per_image(turns == count, images), torch.rot90(images, count, (-2, -1)), result)
    return result


@_register("crop", 4, 256, whole=True)
def crop(images: torch.Tensor, argument: float, generator: torch.Generator) -> torch.Tensor:
    """Pad by this many pixels (default 4), mirrored at the edges, and cut out at a random place."""
    pad = int(argument)
    count, _, height, width = images.shape
    if pad >= min(height, width):
        raise UsageError(f"augment: 'crop:{pad}' pads by more than the images' {min(height, width)} pixels")
    offsets = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
    # Indices beyond the edge are mirrored; indexing with height × width × channel keeps channels-last memory.
    rows, columns = (
        (side - 1 - (side - 1 - (offset + torch.arange(side) - pad).abs()).abs()).to(images.device)
        for offset, side in zip(offsets, (height, width), strict=True)
    )
    image = torch.arange(count, device=images.device).view(-1, 1, 1)
    return images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2)


def _resample(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Sample images through affine maps from output to input coordinates; edges are mirrored."""
    values = images.float()
    grid = F.affine_grid(matrices[:, :2].to(images.device), list(values.shape), align_corners=False)
    sampled = F.grid_sample(values, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def _resampled(*changes: Matrices) -> Augmentation:
    """Return the augmentation that resamples once for some affine changes in a row."""

    def matrices(count: int, generator: torch.Generator) -> torch.Tensor:
        return reduce(torch.matmul, [change(count, generator) for change in changes])

    return Augmentation(
        lambda images, targets, generator: (_resample(images, matrices(len(images), generator)), targets), affine=matrices
    )


@_register("shift", 0.1, 1, affine=True)
def shift(matrices: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Move by up to this fraction of the side (default 0.1) in both directions."""
    for axis in (0, 1):  # normalised coordinates run from -1 to 1, so that a whole side is 2
        matrices[:, axis, 2] = _uniform(len(matrices), -2 * limit, 2 * limit, generator)
    return matrices


@_register("rotate", 15, 180, affine=True)
def rotate(matrices: torch.Tensor, degrees: float, generator: torch.Generator) -> torch.Tensor:
    """Turn by up to this many degrees (default 15) either way."""
    limit = math.radians(degrees)
    angle = _uniform(len(matrices), -limit, limit, generator)
    matrices[:, 0, 0] = matrices[:, 1, 1] = angle.cos()
    matrices[:, 0, 1], matrices[:, 1, 0] = -angle.sin(), angle.sin()
    return matrices


@_register("zoom", 0.1, 0.9, affine=True)
def zoom(matrices: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Scale by up to this fraction (default 0.1) up or down."""
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / _uniform(len(matrices), 1 - limit, 1 + limit, generator)
    return matrices


@_register("brightness", 0.2, 1)
def brightness(images: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Multiply all values of an image by a factor within ± this fraction (default 0.2) of one."""
    factor = _per_image(_uniform(len(images), 1 - limit, 1 + limit, generator), images)
    return (images.float() * factor).clamp_(0, 255)


@_register("contrast", 0.2, 1)
def contrast(images: torch.Tensor, limit: float, generator: torch.Generator) -> torch.Tensor:
    """Multiply an image's distance from its own mean by a factor within ± this fraction (default 0.2) of one."""
    factor = _per_image(_uniform(len(images), 1 - limit, 1 + limit, generator), images)
    values = images.float()
    mean = values.mean(dim=(1, 2, 3), keepdim=True)
    return ((values - mean) * factor + mean).clamp_(0, 255)


@contextmanager
def _seeded(generator: torch.Generator) -> Iterator[None]:
    """Let torchvision, which draws from the global generator, draw from a seed of ours and leave no trace."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(0, 2**62, (1,), generator=generator)))
        yield


def _one_by_one(operation: nn.Module, images: torch.Tensor, generator: torch.Generator) -> torch.Tensor:
    with _seeded(generator):
        return torch.stack([operation(image) for image in images])


@augmentations.register("randaugment")
def randaugment(argument: str) -> Augmentation:
    """RandAugment (Cubuk et al. 2020) through torchvision, `randaugment[:OPERATIONS[:MAGNITUDE]]`, default 2 and 9."""
    from torchvision.transforms import v2

    texts = argument.partition(":")[::2]
    operation = v2.RandAugment(
        *(int(_number("randaugment", *limits, whole=True)) for limits in zip(texts, (2, 9), (10, 30), strict=True))
    )

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        return _one_by_one(operation, images.clamp(0, 255).round().to(torch.uint8), generator), targets

    return Augmentation(apply)


@_register("erase", 0.25, 1)
def erase(images: torch.Tensor, probability: float, generator: torch.Generator) -> torch.Tensor:
    """Random erasing (Zhong et al. 2020) through torchvision: a rectangle of an image, with this probability (default 0.25)."""
    from torchvision.transforms import v2

    return _one_by_one(v2.RandomErasing(probability, value=list(_ERASED)), images.float(), generator)


def _mixing(name: str, kind: str, argument: str, default: float) -> Augmentation:
    from torchvision.transforms import v2

    alpha = _number(name, argument, default, 100)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        with _seeded(generator):
            mixed: Batch = getattr(v2, kind)(alpha=alpha, num_classes=targets.shape[1])(images.float(), targets)
        return mixed

    return Augmentation(apply, mixes=True)


@augmentations.register("mixup")
def mixup(argument: str) -> Augmentation:
    """Mixup (Zhang et al. 2018) through torchvision: blend each batch with its neighbour's images; default alpha 0.2."""
    return _mixing("mixup", "MixUp", argument, 0.2)


@augmentations.register("cutmix")
def cutmix(argument: str) -> Augmentation:
    """CutMix (Yun et al. 2019) through torchvision: paste a rectangle of the neighbour's image; default alpha 1."""
    return _mixing("cutmix", "CutMix", argument, 1.0)


def scaled(images: torch.Tensor, side: int) -> torch.Tensor:
    """Return images brought to side × side pixels, antialiased bilinear, as float; as they are if they have that size."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images.float(), (side, side), mode="bilinear", antialias=True)


def parse_augmentation(specification: str, place: str = "augment") -> Augmentation:
    """Return the augmentation that a specification names.

    Raises:
        UsageError: for an unknown name or a wrong argument.
    """
    name, _, argument = specification.partition(":")
    return augmentations.get(name, place)(argument)


@final
class Pipeline:
    """A list of augmentations as in a recipe, applied in order; `place` says where in the recipe they are, for messages."""

    def __init__(self, specifications: Sequence[str], place: str = "augment") -> None:
        steps = [parse_augmentation(text, f"{place}[{index}]") for index, text in enumerate(specifications)]
        self._mixers = [step.apply for step in steps if step.mixes]
        self.mixes = bool(self._mixers)
        self._steps: list[Apply] = []
        for is_affine, group in groupby((step for step in steps if not step.mixes), key=lambda step: step.affine is not None):
            members = list(group)
            merged = [_resampled(*(step.affine for step in members if step.affine)).apply] if is_affine else None
            self._steps += merged or [step.apply for step in members]

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """Apply all steps; of several ways to mix, each batch takes one at random."""
        for step in self._steps:
            images, targets = step(images, targets, generator)
        if self._mixers:
            choice = int(torch.randint(0, len(self._mixers), (1,), generator=generator))
            images, targets = self._mixers[choice](images, targets, generator)
        return images, targets
