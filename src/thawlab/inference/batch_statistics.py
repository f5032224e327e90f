"""How far the data's own statistics lie from those that a network's BatchNorm layers have stored."""

from typing import Any

import torch
from torch import nn

from thawlab.models.hooks import eval_mode, forward_hooks


@torch.no_grad()
def batch_norm_distance(module: nn.Module, inputs: torch.Tensor) -> float | None:
    """Return how far the means of some inputs lie from the stored ones, in stored standard deviations.

    In eval mode BatchNorm trusts what it stored in pre-training; where the data are far from that, features are pushed out of
    the range that the layers above were trained on (Li et al. 2016, "Revisiting batch normalization for practical domain
    adaptation").

    Args:
        module: any network; it runs in eval mode and is left as it was.
        inputs: normalised, n × 3 × size × size.

    Returns:
        The mean over channels of |mean of the data − stored mean| / stored deviation, of the layer where it is largest; None
        without such layers.
    """
    distances: list[float] = []

    def note(layer: Any, given: tuple[torch.Tensor, ...], _output: Any) -> None:
        if layer.running_mean is None:
            return
        values = given[0].float()
        mean = values.mean(dim=[axis for axis in range(values.ndim) if axis != 1])
        deviation = (layer.running_var + layer.eps).sqrt()
        distances.append(float(((mean - layer.running_mean).abs() / deviation).mean()))

    layers = [part for part in module.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)]
    with eval_mode(module), forward_hooks(layers, note):
        module(inputs)
    return max(distances) if distances else None
