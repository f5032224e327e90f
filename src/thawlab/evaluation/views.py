"""Test-time augmentation: the mean of the logits over views of an image that show the same thing."""

from typing import NamedTuple

import torch
import torch.nn.functional as F


class View(NamedTuple):
    """One way to look at an image.

    Attributes:
        mirrored: left to right.
        shift: pixels down and to the right; what comes in from outside is mirrored at the edge.
        weight: of this view's logits in the mean.
    """

    mirrored: bool
    shift: tuple[int, int]
    weight: float

    def of(self, images: torch.Tensor) -> torch.Tensor:
        """Return the view of n × 3 × height × width images with values in [0, 255]."""
        down, right = self.shift
        if (down, right) != (0, 0):
            reach = max(abs(down), abs(right))
            height, width = images.shape[-2:]
            padded = F.pad(images.float(), (reach,) * 4, mode="reflect")
            images = padded[..., reach - down : reach - down + height, reach - right : reach - right + width]
        return images.flip(-1) if self.mirrored else images


VIEWS: dict[str, tuple[View, ...]] = {
    "flip": (View(False, (0, 0), 0.5), View(True, (0, 0), 0.5)),
    # The untouched image counts as much as the two shifted ones together.
    "flip-shift": tuple(
        View(mirrored, shift, weight)
        for shift, weight in (((0, 0), 0.25), ((1, 1), 0.125), ((-1, -1), 0.125))
        for mirrored in (False, True)
    ),
}
