"""Grad-CAM: which parts of an image speak for a class (Selvaraju et al. 2017), for convolutional networks and transformers.

The map is the last feature map that still has places, its channels weighted by the mean gradient of the class's logit and
summed; what is negative speaks against the class and is left out. The well-kept package for this imports OpenCV, which needs
system libraries that servers lack; a test compares with it where it is installed.
"""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import nn

from thawlab.models.classifier import Classifier
from thawlab.models.hooks import eval_mode, forward_hooks

_AT_ONCE = 16

# From what a layer gives to n × channels × height × width; None where it has no places.
ToMap = Callable[[torch.Tensor], torch.Tensor | None]


def explain(classifier: Classifier, inputs: torch.Tensor, classes: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the parts of images that speak for a class.

    Args:
        classifier: any; its weights and gradients are left as they are.
        inputs: normalised, n × 3 × size × size.
        classes: the class of each image to be explained.

    Returns:
        float32, n × size × size, from 0 at the weakest place of each image to 1 at the strongest; zeros where all places are
        alike, or nothing speaks for the class.

    Raises:
        ValueError: if the network has no feature map.
    """
    if len(inputs) == 0:
        return np.zeros((0, *inputs.shape[2:]), dtype=np.float32)
    with eval_mode(classifier), torch.enable_grad():
        layer, to_map = last_map(classifier.backbone, inputs[:1])
        parts = [
            _maps(classifier, layer, to_map, inputs[start : start + _AT_ONCE], classes[start : start + _AT_ONCE])
            for start in range(0, len(inputs), _AT_ONCE)
        ]
    return np.concatenate(parts)


def _maps(
    classifier: Classifier, layer: nn.Module, to_map: ToMap, inputs: torch.Tensor, classes: npt.NDArray[np.int64]
) -> npt.NDArray[np.float32]:
    kept: list[torch.Tensor] = []

    def keep(_module: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        kept.append(output)
        return output.clone()  # since it may be changed in place afterwards

    with forward_hooks([layer], keep):
        # Inputs that need gradients let them flow through networks whose layers are frozen.
        logits = classifier(inputs.detach().clone().requires_grad_())
    chosen = logits[torch.arange(len(inputs)), torch.from_numpy(classes).to(logits.device)]
    [gradient] = torch.autograd.grad(chosen.sum(), kept[-1])
    values, slopes = to_map(kept[-1].detach()), to_map(gradient)
    assert values is not None and slopes is not None
    weights = slopes.float().mean(dim=(2, 3), keepdim=True)
    raw = F.relu((weights * values.float()).sum(dim=1, keepdim=True))
    full = F.interpolate(raw, size=inputs.shape[2:], mode="bilinear", align_corners=False)[:, 0]
    least, most = full.amin(dim=(1, 2), keepdim=True), full.amax(dim=(1, 2), keepdim=True)
    return ((full - least) / (most - least).clamp(min=1e-12)).cpu().numpy()


def last_map(backbone: nn.Module, probe: torch.Tensor) -> tuple[nn.Module, ToMap]:
    """Return the last layer of a backbone whose output has places, and how that output becomes a feature map.

    Of a transformer's tokens those before the last attention are taken: behind it only the class token may reach the logits.

    Raises:
        ValueError: if there is no such layer.
    """
    blocks = getattr(backbone, "blocks", None)
    if hasattr(backbone, "num_prefix_tokens") and isinstance(blocks, nn.Sequential) and hasattr(blocks[-1], "norm1"):
        prefix = int(backbone.num_prefix_tokens)  # type: ignore[arg-type]

        def tokens_to_map(tokens: torch.Tensor) -> torch.Tensor:
            places = tokens[:, prefix:]
            side = math.isqrt(places.shape[1])
            return places.reshape(len(places), side, -1, places.shape[2]).permute(0, 3, 1, 2)

        return blocks[-1].norm1, tokens_to_map  # type: ignore[return-value]
    order = (0, 3, 1, 2) if getattr(backbone, "output_fmt", "NCHW") == "NHWC" else (0, 1, 2, 3)
    found: list[nn.Module] = []

    def to_map(output: torch.Tensor) -> torch.Tensor | None:
        return output.permute(order) if output.ndim == 4 else None

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        given = to_map(output) if isinstance(output, torch.Tensor) else None
        if given is not None and given.shape[2] * given.shape[3] > 1:
            found.append(module)

    # Blocks end after their last layer, so that what is found last holds the residual sum as well.
    with torch.no_grad(), forward_hooks(backbone.modules(), note):
        backbone(probe)
    if not found:
        raise ValueError("the network has no feature map of more than one cell")
    return found[-1], to_map
