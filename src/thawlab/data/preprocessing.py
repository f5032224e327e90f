"""The one way from an image to the network's input, used in training, evaluation, prediction and every export.

To decode and fit needs no torch: a process that only does this starts at once.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Literal

import numpy as np
from PIL import Image
from pydantic import BaseModel, ConfigDict, Field

from thawlab.data.types import Pixels

if TYPE_CHECKING:
    import torch

Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
# A JPEG may be decoded at a half, quarter or eighth of its size; this much more than the target must remain for the resampling.
_DRAFT_GAP = 2.0
# Pixels beyond which a picture of which only a part is scaled is cut down to this part first, and how many rows of the result's
# size beside it the widest filter looks at.
_MANY, _REACH = 1 << 24, 3.0
# Values of a batch that are normalised at a time.
_AT_ONCE = 1 << 18


class Preprocessing(BaseModel):
    """How an image becomes the network's input.

    Attributes:
        size: side of the square input in pixels.
        resize: "upsample" scales the short side to `size` and centre-crops what is left of the long side; "crop" first
            takes the central part that the weights' own evaluation takes (`crop_pct`); "pad" never enlarges: it scales
            the long side down where needed and fills the rest with the mean colour.
        crop_pct: the fraction of the short side that "crop" keeps.
        interpolation: of the scaling; scaling down is anti-aliased.
        mean: per channel, in [0, 1], subtracted after division by 255.
        std: per channel, in [0, 1], divided by.
        grey_range: the values of black and white in grey images of more than 8 bits, for files that do not say it themselves;
            None where the training data held none.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    size: int = Field(ge=1)
    resize: Literal["upsample", "pad", "crop"] = "upsample"
    crop_pct: float = Field(default=1.0, gt=0, le=1)
    interpolation: Interpolation = "bilinear"
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    grey_range: tuple[float, float] | None = None

    @property
    def geometry(self) -> str:
        """A key for everything that happens before normalisation; equal keys give equal uint8 arrays."""
        fill = f"-{self.fill}" if self.resize == "pad" else ""
        crop = f"-{self.crop_pct}" if self.resize == "crop" else ""
        grey = "" if self.grey_range is None else f"-grey{self.grey_range[0]:g}to{self.grey_range[1]:g}"
        return f"{self.size}-{self.resize}{crop}-{self.interpolation}{fill}{grey}"

    @property
    def fill(self) -> tuple[int, int, int]:
        """The colour around an image that "pad" does not fill: the mean, each channel from 0 to 255."""
        red, green, blue = (round(255 * value) for value in self.mean)
        return red, green, blue

    def draft_size(self, width: int, height: int) -> tuple[int, int] | None:
        """Return the least size that a JPEG of `width` × `height` may be decoded at, or None for its own."""
        side = (
            max(width, height) if self.resize == "pad" else min(width, height) * (self.crop_pct if self.resize == "crop" else 1)
        )
        scale = self.size * _DRAFT_GAP / side
        return (max(1, int(width * scale)), max(1, int(height * scale))) if scale < 1 else None

    def fit(self, image: Image.Image) -> Pixels:
        """Bring an image in mode RGB to the input's size: uint8, size × size × 3."""
        width, height = image.size
        resample = _RESAMPLING[self.interpolation]
        if self.resize == "pad":
            scale = min(1.0, self.size / max(width, height))
            inner = (max(1, round(width * scale)), max(1, round(height * scale)))
            canvas = Image.new("RGB", (self.size, self.size), self.fill)
            scaled = image if inner == image.size else _resized(image, inner, resample, (0, 0, width, height))
            canvas.paste(scaled, ((self.size - inner[0]) // 2, (self.size - inner[1]) // 2))
            return np.asarray(canvas)
        side = min(width, height) * (self.crop_pct if self.resize == "crop" else 1.0)
        left, top = (width - side) / 2, (height - side) / 2
        if (width, height, side) == (self.size, self.size, self.size):
            return np.asarray(image)
        return np.asarray(_resized(image, (self.size, self.size), resample, (left, top, left + side, top + side)))

    def normalize(self, images: torch.Tensor) -> torch.Tensor:
        """Turn images into the network's input values.

        Args:
            images: n × 3 × size × size; uint8, or float in [0, 255] after augmentation.

        Returns:
            float32 of the same shape in channels-last memory: (image / 255 − mean) / std.
        """
        import torch

        count, channels, height, width = images.shape
        mean = torch.tensor(self.mean, dtype=torch.float64)
        std = torch.tensor(self.std, dtype=torch.float64)
        # One value per column and channel: loops over whole rows of an image run many times faster than over 3 channels.
        scale = (1 / (255 * std)).float().repeat(width).to(images.device)
        shift = (-mean / std).float().repeat(width).to(images.device)
        rows = images.permute(0, 2, 3, 1).reshape(count, height, width * channels)
        values = torch.empty(rows.shape, dtype=torch.float32, device=rows.device)
        # A few images at a time stay in the processor's cache through all three operations.
        step = max(1, _AT_ONCE // max(rows[0].numel(), 1)) if count and rows.device.type == "cpu" else max(count, 1)
        for start in range(0, count, step):
            values[start : start + step].copy_(rows[start : start + step]).mul_(scale).add_(shift)
        return values.view(count, height, width, channels).permute(0, 3, 1, 2)

    def inputs(self, images: torch.Tensor) -> torch.Tensor:
        """Return the network's input of n × size × size × 3 images at working size."""
        return self.normalize(to_tensor(images))


_Box = tuple[float, float, float, float]


def _resized(image: Image.Image, size: tuple[int, int], resample: Image.Resampling, box: _Box) -> Image.Image:
    """Return a part of an image at another size, the same in every version of Pillow.

    Pillow rounds after each of two passes. Up to version 12 the columns come first, and so they do here; since then the rows do
    where the height shrinks by over twice what the width does, which moves values by one or, at hard edges, by more.
    """
    shrinks = image.height - size[1]
    if resample == Image.Resampling.NEAREST or not (shrinks > 0 and shrinks > 2 * (image.width - size[0])):
        return image.resize(size, resample, box=box)
    left, top, right, bottom = box
    if size[0] * image.height > _MANY and (bottom - top) * 4 < image.height:  # most rows are not looked at
        reach = math.ceil(_REACH * max(1.0, (bottom - top) / size[1])) + 1
        first, last = max(0, math.floor(top) - reach), min(image.height, math.ceil(bottom) + reach)
        image, top, bottom = image.crop((0, first, image.width, last)), top - first, bottom - first
    narrow = image.resize((size[0], image.height), resample, box=(left, 0, right, image.height))
    return narrow.resize(size, resample, box=(0, top, size[0], bottom))


def to_tensor(images: np.ndarray | torch.Tensor) -> torch.Tensor:
    """Return n × size × size × 3 images as an n × 3 × size × size tensor in channels-last memory, without a copy."""
    import torch

    tensor = torch.from_numpy(images) if isinstance(images, np.ndarray) else images
    return tensor.permute(0, 3, 1, 2)
