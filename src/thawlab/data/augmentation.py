"""Augmentations as tensor operations on whole batches, drawn from an explicit generator.

A specification is `name` or `name:argument`, e.g. `"rotate:15"`. Images are n × 3 × height × width with values in
[0, 255], uint8 or float; targets are class numbers, or class probabilities where images are mixed. Shift, rotation and
zoom that stand next to each other in a list are resampled together, once.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import final

import torch
import torch.nn.functional as F

from thawlab.errors import UsageError
from thawlab.registry import Registry

Batch = tuple[torch.Tensor, torch.Tensor]
Apply = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Batch]
Change = Callable[[torch.Tensor], torch.Tensor]
# The colour of erased rectangles: the mean of ImageNet's images.
_ERASED = (124.0, 116.0, 104.0)


@final
@dataclass(frozen=True)
class Augmentation:
    """One random change of a batch.

    Attributes:
        apply: images, targets, generator → images, targets.
        affine: count, generator → count × 3 × 3 matrices in normalised coordinates, where the change is affine.
        mixes: whether targets must be class probabilities.
    """

    apply: Apply
    affine: Callable[[int, torch.Generator], torch.Tensor] | None = None
    mixes: bool = False


augmentations: Registry[Callable[[str], Augmentation]] = Registry("augmentation")


def _number(name: str, argument: str, default: float, low: float, high: float) -> float:
    """Read an augmentation's argument and check its range."""
    try:
        value = float(argument) if argument else default
    except ValueError:
        raise UsageError(f"augment: '{name}:{argument}': '{argument}' is not a number") from None
    if not low < value <= high:
        raise UsageError(f"augment: '{name}:{argument}': must be above {low:g} and at most {high:g}")
    return value


def _whole(name: str, argument: str, default: int, high: int) -> int:
    """Read an argument that must be a whole number from 1 to `high`."""
    value = _number(name, argument, default, 0, high)
    if value != int(value):
        raise UsageError(f"augment: '{name}:{argument}': must be a whole number")
    return int(value)


def _none(name: str, argument: str) -> None:
    if argument:
        raise UsageError(f"augment: '{name}' takes no argument, but '{argument}' was given")


def _uniform(count: int, low: float, high: float, generator: torch.Generator) -> torch.Tensor:
    return torch.rand(count, generator=generator) * (high - low) + low


def _per_image(mask: torch.Tensor, like: torch.Tensor) -> torch.Tensor:
    return mask.view(-1, 1, 1, 1).to(like.device)


@augmentations.register("flip")
def flip(argument: str) -> Augmentation:
    """Mirror half of the images left to right."""
    _none("flip", argument)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        mask = torch.rand(len(images), generator=generator) < 0.5
        return torch.where(_per_image(mask, images), images.flip(-1), images), targets

    return Augmentation(apply)


@augmentations.register("alternate-flip")
def alternate_flip(argument: str) -> Augmentation:
    """Mirror a random half of the images in the first epoch, the other half in the second, and so on.

    Training does so when it takes the rows, since it knows the epoch; where there is none, this is `flip`.
    """
    _none("alternate-flip", argument)
    return flip("")


@augmentations.register("rotate90")
def rotate90(argument: str) -> Augmentation:
    """Turn each image by a multiple of 90 degrees."""
    _none("rotate90", argument)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        turns = torch.randint(0, 4, (len(images),), generator=generator)
        result = images
        for count in (1, 2, 3):
            result = torch.where(_per_image(turns == count, images), torch.rot90(images, count, (-2, -1)), result)
        return result, targets

    return Augmentation(apply)


@augmentations.register("crop")
def crop(argument: str) -> Augmentation:
    """Pad by this many pixels (default 4), mirrored at the edges, and cut out at a random place."""
    pad = _whole("crop", argument, 4, 256)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        count, _, height, width = images.shape
        if pad >= min(height, width):
            raise UsageError(f"augment: 'crop:{pad}' pads by more than the images' {min(height, width)} pixels")
        offsets = torch.randint(0, 2 * pad + 1, (2, count, 1), generator=generator)
        # Indices beyond the edge are mirrored; indexing with height × width × channel keeps channels-last memory.
        rows = _mirror(offsets[0] + torch.arange(height) - pad, height).to(images.device)
        columns = _mirror(offsets[1] + torch.arange(width) - pad, width).to(images.device)
        image = torch.arange(count, device=images.device).view(-1, 1, 1)
        return images.permute(0, 2, 3, 1)[image, rows[:, :, None], columns[:, None, :]].permute(0, 3, 1, 2), targets

    return Augmentation(apply)


def _mirror(index: torch.Tensor, length: int) -> torch.Tensor:
    index = index.abs()
    return torch.where(index >= length, 2 * (length - 1) - index, index)


def _resample(images: torch.Tensor, matrices: torch.Tensor) -> torch.Tensor:
    """Sample images through affine maps from output to input coordinates; edges are mirrored."""
    values = images.float()
    grid = F.affine_grid(matrices[:, :2].to(images.device), list(values.shape), align_corners=False)
    sampled = F.grid_sample(values, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    return sampled.contiguous(memory_format=torch.channels_last)


def _affine(*changes: Callable[[int, torch.Generator], torch.Tensor]) -> Augmentation:
    """Return the augmentation that resamples once for some affine changes in a row."""

    def matrices(count: int, generator: torch.Generator) -> torch.Tensor:
        total = _identity(count)
        for change in changes:
            total = total @ change(count, generator)
        return total

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        return _resample(images, matrices(len(images), generator)), targets

    return Augmentation(apply, affine=matrices)


def _identity(count: int) -> torch.Tensor:
    return torch.eye(3).repeat(count, 1, 1)


@augmentations.register("shift")
def shift(argument: str) -> Augmentation:
    """Move by up to this fraction of the side (default 0.1) in both directions."""
    limit = _number("shift", argument, 0.1, 0, 1)

    def matrices(count: int, generator: torch.Generator) -> torch.Tensor:
        result = _identity(count)
        # Normalised coordinates run from -1 to 1, so that a whole side is 2.
        result[:, 0, 2] = _uniform(count, -2 * limit, 2 * limit, generator)
        result[:, 1, 2] = _uniform(count, -2 * limit, 2 * limit, generator)
        return result

    return _affine(matrices)


@augmentations.register("rotate")
def rotate(argument: str) -> Augmentation:
    """Turn by up to this many degrees (default 15) either way."""
    limit = math.radians(_number("rotate", argument, 15, 0, 180))

    def matrices(count: int, generator: torch.Generator) -> torch.Tensor:
        angle = _uniform(count, -limit, limit, generator)
        result = _identity(count)
        result[:, 0, 0] = result[:, 1, 1] = angle.cos()
        result[:, 0, 1], result[:, 1, 0] = -angle.sin(), angle.sin()
        return result

    return _affine(matrices)


@augmentations.register("zoom")
def zoom(argument: str) -> Augmentation:
    """Scale by up to this fraction (default 0.1) up or down."""
    limit = _number("zoom", argument, 0.1, 0, 0.9)

    def matrices(count: int, generator: torch.Generator) -> torch.Tensor:
        factor = 1 / _uniform(count, 1 - limit, 1 + limit, generator)
        result = _identity(count)
        result[:, 0, 0] = result[:, 1, 1] = factor
        return result

    return _affine(matrices)


@augmentations.register("brightness")
def brightness(argument: str) -> Augmentation:
    """Multiply all values of an image by a factor within ± this fraction (default 0.2) of one."""
    limit = _number("brightness", argument, 0.2, 0, 1)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        factor = _per_image(_uniform(len(images), 1 - limit, 1 + limit, generator), images)
        return (images.float() * factor).clamp_(0, 255), targets

    return Augmentation(apply)


@augmentations.register("contrast")
def contrast(argument: str) -> Augmentation:
    """Multiply an image's distance from its own mean by a factor within ± this fraction (default 0.2) of one."""
    limit = _number("contrast", argument, 0.2, 0, 1)

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        factor = _per_image(_uniform(len(images), 1 - limit, 1 + limit, generator), images)
        values = images.float()
        mean = values.mean(dim=(1, 2, 3), keepdim=True)
        return ((values - mean) * factor + mean).clamp_(0, 255), targets

    return Augmentation(apply)


def _seeded(generator: torch.Generator, work: Callable[[], Batch]) -> Batch:
    """Run torchvision code, which draws from the global generator, with a seed of ours and leave no trace."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(int(torch.randint(0, 2**62, (1,), generator=generator)))
        return work()


def _one_by_one(operation: Change, prepare: Change) -> Augmentation:
    """Return torchvision's change of single images as an augmentation of batches."""

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        values = prepare(images)
        return _seeded(generator, lambda: (torch.stack([operation(image) for image in values]), targets))

    return Augmentation(apply)


@augmentations.register("randaugment")
def randaugment(argument: str) -> Augmentation:
    """RandAugment (Cubuk et al. 2020) through torchvision, `randaugment[:OPERATIONS[:MAGNITUDE]]`, default 2 and 9."""
    from torchvision.transforms import v2

    count, _, magnitude = argument.partition(":")
    operation = v2.RandAugment(_whole("randaugment", count, 2, 10), _whole("randaugment", magnitude, 9, 30))
    return _one_by_one(operation, lambda images: images.clamp(0, 255).round().to(torch.uint8))


@augmentations.register("erase")
def erase(argument: str) -> Augmentation:
    """Random erasing (Zhong et al. 2020) through torchvision: a rectangle of an image, with this probability (default 0.25)."""
    from torchvision.transforms import v2

    operation = v2.RandomErasing(_number("erase", argument, 0.25, 0, 1), value=list(_ERASED))
    return _one_by_one(operation, torch.Tensor.float)


def _mixing(kind: str, alpha: float) -> Augmentation:
    from torchvision.transforms import v2

    build = {"mixup": v2.MixUp, "cutmix": v2.CutMix}[kind]

    def apply(images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        operation = build(alpha=alpha, num_classes=targets.shape[1])
        return _seeded(generator, lambda: operation(images.float(), targets))

    return Augmentation(apply, mixes=True)


@augmentations.register("mixup")
def mixup(argument: str) -> Augmentation:
    """Mixup (Zhang et al. 2018) through torchvision: blend each batch with its neighbour's images; default alpha 0.2."""
    return _mixing("mixup", _number("mixup", argument, 0.2, 0, 100))


@augmentations.register("cutmix")
def cutmix(argument: str) -> Augmentation:
    """CutMix (Yun et al. 2019) through torchvision: paste a rectangle of the neighbour's image; default alpha 1."""
    return _mixing("cutmix", _number("cutmix", argument, 1.0, 0, 100))


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
    """A list of augmentations, applied in order.

    Args:
        specifications: as in a recipe.
        place: where they stand in the recipe, for messages.
    """

    def __init__(self, specifications: Sequence[str], place: str = "augment") -> None:
        steps = [parse_augmentation(text, f"{place}[{index}]") for index, text in enumerate(specifications)]
        mixers = [step for step in steps if step.mixes]
        self.mixes = bool(mixers)
        self._mixers = mixers
        self._steps: list[Apply] = []
        for is_affine, group in groupby([step for step in steps if not step.mixes], key=lambda step: step.affine is not None):
            members = list(group)
            changes = [step.affine for step in members if step.affine is not None]
            self._steps.extend([_affine(*changes).apply] if is_affine else [step.apply for step in members])

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """Apply all steps; of several ways to mix, each batch takes one at random."""
        for step in self._steps:
            images, targets = step(images, targets, generator)
        if self._mixers:
            choice = int(torch.randint(0, len(self._mixers), (1,), generator=generator))
            images, targets = self._mixers[choice].apply(images, targets, generator)
        return images, targets
