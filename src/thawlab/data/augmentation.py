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


@final
class Draws(NamedTuple):
    """Random numbers for a batch, or for a part of it, whose images get what they get in the whole batch.

    Attributes:
        generator: what is drawn from.
        first: the place of the part's first image in the batch.
        total: images of the whole batch; None where there are no others.
    """

    generator: torch.Generator
    first: int = 0
    total: int | None = None

    def uniform(self, count: int, low: float, high: float) -> torch.Tensor:
        """Return a float in [low, high) for each of so many images."""
        return torch.rand(self.total or count, generator=self.generator)[self._part(count)] * (high - low) + low

    def integers(self, count: int, high: int, rows: int = 1) -> torch.Tensor:
        """Return integers below a bound, rows × images."""
        drawn = torch.randint(0, high, (rows, self.total or count), generator=self.generator)
        return drawn[:, self._part(count)]

    def _part(self, count: int) -> slice:
        return slice(self.first, self.first + count)


Batch = tuple[torch.Tensor, torch.Tensor]
Apply = Callable[[torch.Tensor, torch.Tensor, torch.Generator], Batch]
ApplyPart = Callable[[torch.Tensor, torch.Tensor, Draws], Batch]
Matrices = Callable[[int, Draws], torch.Tensor]
# Images, or the identity per image; the argument; what is drawn → the changed images, or their affine matrices.
Change = Callable[[torch.Tensor, float, Draws], torch.Tensor]
# The colour of erased rectangles: the mean of ImageNet's images.
_ERASED = (124.0, 116.0, 104.0)


class Augmentation(NamedTuple):
    """One random change of a batch.

    Attributes:
        apply: images, targets, generator → images, targets.
        affine: count, draws → count × 3 × 3 matrices in normalised coordinates, where the change is affine.
        mixes: whether targets must be class probabilities.
        apply_part: as `apply`, to a part of a batch, where an image's change does not depend on the others.
    """

    apply: Apply
    affine: Matrices | None = None
    mixes: bool = False
    apply_part: ApplyPart | None = None


def _by_image(apply_part: ApplyPart, affine: Matrices | None = None) -> Augmentation:
    return Augmentation(
        lambda images, targets, generator: apply_part(images, targets, Draws(generator)), affine, apply_part=apply_part
    )


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
                return _resampled(lambda count, draws: change(torch.eye(3).repeat(count, 1, 1), value, draws))
            return _by_image(lambda images, targets, draws: (change(images, value, draws), targets))

        build.__doc__ = change.__doc__
        augmentations.register(name)(build)
        return change

    return add


def _per_image(values: torch.Tensor, images: torch.Tensor) -> torch.Tensor:
    return values.view(-1, 1, 1, 1).to(images.device)


@_register("flip")
def flip(images: torch.Tensor, _: float, draws: Draws) -> torch.Tensor:
    """Mirror half of the images left to right."""
    mask = draws.uniform(len(images), 0, 1) < 0.5
    return torch.where(_per_image(mask, images), images.flip(-1), images)


@_register("alternate-flip")
def alternate_flip(images: torch.Tensor, _: float, draws: Draws) -> torch.Tensor:
    """Mirror a random half of the images in the first epoch, the other half in the second, and so on.

    Training does so when it takes the rows, since it knows the epoch; where there is none, this is `flip`.
    """
    return flip(images, _, draws)


@_register("rotate90")
def rotate90(images: torch.Tensor, _: float, draws: Draws) -> torch.Tensor:
    """Turn each image by a multiple of 90 degrees."""
    [turns] = draws.integers(len(images), 4)
    result = images
    for count in (1, 2, 3):
        result = torch.where(_per_image(turns == count, images), torch.rot90(images, count, (-2, -1)), result)
    return result


@_register("crop", 4, 256, whole=True)
def crop(images: torch.Tensor, argument: float, draws: Draws) -> torch.Tensor:
    """Pad by this many pixels (default 4), mirrored at the edges, and cut out at a random place."""
    pad = int(argument)
    count, _, height, width = images.shape
    if pad >= min(height, width):
        raise UsageError(f"augment: 'crop:{pad}' pads by more than the images' {min(height, width)} pixels")
    offsets = draws.integers(count, 2 * pad + 1, rows=2)[..., None]
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

    def matrices(count: int, draws: Draws) -> torch.Tensor:
        return reduce(torch.matmul, [change(count, draws) for change in changes])

    return _by_image(lambda images, targets, draws: (_resample(images, matrices(len(images), draws)), targets), matrices)


@_register("shift", 0.1, 1, affine=True)
def shift(matrices: torch.Tensor, limit: float, draws: Draws) -> torch.Tensor:
    """Move by up to this fraction of the side (default 0.1) in both directions."""
    for axis in (0, 1):  # normalised coordinates run from -1 to 1, so that a whole side is 2
        matrices[:, axis, 2] = draws.uniform(len(matrices), -2 * limit, 2 * limit)
    return matrices


@_register("rotate", 15, 180, affine=True)
def rotate(matrices: torch.Tensor, degrees: float, draws: Draws) -> torch.Tensor:
    """Turn by up to this many degrees (default 15) either way."""
    limit = math.radians(degrees)
    angle = draws.uniform(len(matrices), -limit, limit)
    matrices[:, 0, 0] = matrices[:, 1, 1] = angle.cos()
    matrices[:, 0, 1], matrices[:, 1, 0] = -angle.sin(), angle.sin()
    return matrices


@_register("zoom", 0.1, 0.9, affine=True)
def zoom(matrices: torch.Tensor, limit: float, draws: Draws) -> torch.Tensor:
    """Scale by up to this fraction (default 0.1) up or down."""
    matrices[:, 0, 0] = matrices[:, 1, 1] = 1 / draws.uniform(len(matrices), 1 - limit, 1 + limit)
    return matrices


@_register("brightness", 0.2, 1)
def brightness(images: torch.Tensor, limit: float, draws: Draws) -> torch.Tensor:
    """Multiply all values of an image by a factor within ± this fraction (default 0.2) of one."""
    factor = _per_image(draws.uniform(len(images), 1 - limit, 1 + limit), images)
    return (images.float() * factor).clamp_(0, 255)


@_register("contrast", 0.2, 1)
def contrast(images: torch.Tensor, limit: float, draws: Draws) -> torch.Tensor:
    """Multiply an image's distance from its own mean by a factor within ± this fraction (default 0.2) of one."""
    factor = _per_image(draws.uniform(len(images), 1 - limit, 1 + limit), images)
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


@augmentations.register("erase")
def erase(argument: str) -> Augmentation:
    """Random erasing (Zhong et al. 2020) through torchvision: a rectangle of an image, with this probability (default 0.25)."""
    from torchvision.transforms import v2

    operation = v2.RandomErasing(_number("erase", argument, 0.25, 1), value=list(_ERASED))
    return Augmentation(lambda images, targets, generator: (_one_by_one(operation, images.float(), generator), targets))


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
    """A list of augmentations as in a recipe, applied in order; `place` says where in the recipe they are, for messages.

    Attributes:
        mixes: whether targets must be class probabilities.
        by_image: whether each image's change depends on its place in the batch alone, so that a part can be changed by itself.
    """

    def __init__(self, specifications: Sequence[str], place: str = "augment") -> None:
        steps = [parse_augmentation(text, f"{place}[{index}]") for index, text in enumerate(specifications)]
        self._mixers = [step.apply for step in steps if step.mixes]
        self.mixes = bool(self._mixers)
        self._steps: list[Augmentation] = []
        for is_affine, group in groupby((step for step in steps if not step.mixes), key=lambda step: step.affine is not None):
            members = list(group)
            self._steps += [_resampled(*(step.affine for step in members if step.affine))] if is_affine else members
        self.by_image = not self.mixes and all(step.apply_part for step in self._steps)

    def __call__(self, images: torch.Tensor, targets: torch.Tensor, generator: torch.Generator) -> Batch:
        """Apply all steps; of several ways to mix, each batch takes one at random."""
        for step in self._steps:
            images, targets = step.apply(images, targets, generator)
        if self._mixers:
            choice = int(torch.randint(0, len(self._mixers), (1,), generator=generator))
            images, targets = self._mixers[choice](images, targets, generator)
        return images, targets

    def part(self, images: torch.Tensor, targets: torch.Tensor, draws: Draws) -> Batch:
        """Apply all steps to a part of a batch, `by_image`: its images are changed as they are in the whole batch."""
        for step in self._steps:
            assert step.apply_part is not None, "each image is changed by itself"
            images, targets = step.apply_part(images, targets, draws)
        return images, targets
