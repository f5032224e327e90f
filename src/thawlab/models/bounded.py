"""A convolution that bounds its own output as ReLU and ReLU6 do: one pass over memory less in each step on a CPU."""

import math
from typing import Any, NamedTuple, cast, final

import torch
import torch.nn.functional as F
from torch import nn

from thawlab.models.depthwise import depthwise_gradients, is_slow, rounds

# Magnitudes of sums far below those that overflow.
_TAME = 1e30


@final
class Places(NamedTuple):
    """Where a convolution's kernel lies on its input: as `nn.Conv2d` has it."""

    stride: list[int]
    padding: list[int]
    dilation: list[int]
    groups: int


def bounds_of(activation: nn.Module) -> tuple[float, float] | None:
    """Return between which values an activation holds its input; None where it does something else."""
    if isinstance(activation, nn.Hardtanh):  # also ReLU6
        return activation.min_val, activation.max_val
    return (0.0, float("inf")) if type(activation) is nn.ReLU else None


def bounded_conv2d(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor, places: Places, bounds: tuple[float, float]
) -> torch.Tensor:
    """Return a convolution held between two values; of its gradient the output says which values were.

    Args:
        x: n × channels × height × width on a CPU; within autocast to bfloat16 that is what it computes in.
        weight: as `nn.Conv2d` has it.
        bias: one value per output channel.
        places: stride, padding, dilation and groups.
        bounds: least and greatest value.
    """
    slow = places.groups == x.shape[1] == len(weight) > 1 and is_slow(x, weight, tuple(places.stride), tuple(places.dilation))
    if rounds(x):
        x, weight, bias = x.bfloat16(), weight.bfloat16(), bias.bfloat16()
    return cast("torch.Tensor", _BoundedConvolution.apply(x, weight, bias, places, bounds, slow))


class _BoundedConvolution(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any,
        x: torch.Tensor,
        weight: torch.Tensor,
        bias: torch.Tensor,
        places: Places,
        bounds: tuple[float, float],
        slow: bool,
    ) -> torch.Tensor:
        stride, padding, dilation, groups = places
        if _on_onednn(x) and _is_tame(x, weight, bias):
            by_onednn = torch.ops.mkldnn._convolution_pointwise
            y = by_onednn(x, weight, bias, padding, stride, dilation, groups, "hardtanh", list(bounds), "")
        else:
            y = F.hardtanh_(F.conv2d(x, weight, bias, stride, padding, dilation, groups), *bounds)
        ctx.save_for_backward(x, weight, y)
        ctx.places, ctx.bounds, ctx.slow = places, bounds, slow
        return cast("torch.Tensor", y)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight, y), (stride, padding, dilation, groups), needs = ctx.saved_tensors, ctx.places, ctx.needs_input_grad[:3]
        inner = torch.ops.aten.hardtanh_backward(gradients[0], y, *ctx.bounds)
        if ctx.slow:
            back = depthwise_gradients(inner, x, weight, stride, padding, needs)
        else:
            whole = torch.ops.aten.convolution_backward
            back = whole(inner, x, weight, [len(weight)], stride, padding, dilation, False, [0, 0], groups, list(needs))
        return *back, None, None, None


def _is_tame(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor) -> bool:
    """Return whether no sum can overflow; judged by the first image, with room to spare for the others.

    oneDNN turns NaN into the least value, by which training that diverges would never be found out.
    """
    most_x, most_weight, most_bias = (_most(values) for values in (x[0], weight, bias))
    return most_x * most_weight * weight[0].numel() + most_bias < _TAME


def _most(values: torch.Tensor) -> float:
    """Return the greatest magnitude; NaN where one is."""
    return max((abs(end.item()) for end in torch.aminmax(values)), key=lambda end: (math.isnan(end), end))


def _on_onednn(x: torch.Tensor) -> bool:
    """Return whether oneDNN can convolve these values and bound them at once."""
    known = x.device.type == "cpu" and x.dtype in {torch.float32, torch.bfloat16} and x.numel() > 0
    return known and torch._C._has_mkldnn and hasattr(torch.ops.mkldnn, "_convolution_pointwise")
