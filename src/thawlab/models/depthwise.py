"""Convolutions whose gradients oneDNN computes many times slower than it could, or wrongly, by ways that it is good at."""

import itertools
from collections.abc import Sequence
from typing import Any, cast

import torch
import torch.nn.functional as F

# The largest kernel, in each direction, of which oneDNN is quick at the gradient of the weights in bfloat16.
_QUICK = 3


def is_slow(x: torch.Tensor, weight: torch.Tensor, stride: tuple[int, ...], dilation: tuple[int, ...]) -> bool:
    """Return whether oneDNN's gradients of a depthwise convolution are slow.

    They are in float32 where a map is smaller than the kernel, and in bfloat16 where the kernel is larger than 3 or strides.

    Args:
        x: n × channels × height × width.
        weight: channels × 1 × height × width.
        stride: down and to the right.
        dilation: likewise.
    """
    if not torch.is_grad_enabled() or not (weight.requires_grad or x.requires_grad) or max(dilation) > 1:
        return False
    if _rounds(x):
        return max(weight.shape[2:]) > _QUICK or max(stride) > 1
    return x.dtype == torch.float32 and max(stride) == 1 and x.shape[-1] < weight.shape[-1] and weight.requires_grad


def with_its_border(
    x: torch.Tensor, weight: torch.Tensor, stride: tuple[int, ...], padding: tuple[int, ...]
) -> torch.Tensor | None:
    """Return a map with the zeros around it, to be convolved without padding, where the gradient would be wrong otherwise.

    Parts of a kernel can meet nothing but padding where a stride is longer than the map. oneDNN 3 leaves their gradients
    unwritten in bfloat16.

    Args:
        x: n × channels × height × width.
        weight: as `nn.Conv2d` has it.
        stride: down and to the right.
        padding: likewise, at both ends.

    Returns:
        The larger map; None where the gradient is right.
    """
    if not (torch.is_grad_enabled() and weight.requires_grad and _rounds(x)) or max(padding) == 0:
        return None
    exceeds = any(side < step for side, step in zip(x.shape[2:], stride, strict=True))
    return _padded(x, padding) if exceeds else None


def _padded(x: torch.Tensor, padding: Sequence[int]) -> torch.Tensor:
    return F.pad(x, (padding[1], padding[1], padding[0], padding[0]))


def _rounds(x: torch.Tensor) -> bool:
    """Return whether a convolution of these values computes in bfloat16."""
    return torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.bfloat16 and x.device.type == "cpu"


def depthwise(
    x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: tuple[int, ...], padding: tuple[int, ...]
) -> torch.Tensor:
    """Return a depthwise convolution, whose gradients are put together of what oneDNN is quick at.

    Args:
        x: n × channels × height × width, in float32; within autocast to bfloat16 that is what it computes in.
        weight: channels × 1 × height × width.
        bias: channels; None for none.
        stride: down and to the right.
        padding: likewise, at both ends.
    """
    if _rounds(x):
        x, weight, bias = x.bfloat16(), weight.bfloat16(), None if bias is None else bias.bfloat16()
    return cast("torch.Tensor", _Depthwise.apply(x, weight, bias, list(stride), list(padding)))


class _Depthwise(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None, stride: list[int], padding: list[int]
    ) -> torch.Tensor:
        ctx.save_for_backward(x, weight)
        ctx.places = stride, padding
        return F.conv2d(x, weight, bias, stride, padding, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> tuple[torch.Tensor | None, ...]:
        (x, weight), (stride, padding), [gradient] = ctx.saved_tensors, ctx.places, gradients
        of_input = of_weight = of_bias = None
        if ctx.needs_input_grad[0]:
            of_input = _of_input(gradient, x, weight, stride, padding)
        if ctx.needs_input_grad[1]:
            of_weight = _of_weight(gradient, x, weight, stride, padding)
        if ctx.needs_input_grad[2]:
            of_bias = gradient.sum((0, 2, 3))
        return of_input, of_weight, of_bias, None, None


def _usual(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: list[int], padding: list[int], which: int
) -> torch.Tensor:
    """Return oneDNN's gradient of the input (0) or of the weights (1)."""
    wanted = [which == 0, which == 1, False]
    places = stride, padding, [1, 1], False, [0, 0], len(weight)
    return cast("torch.Tensor", torch.ops.aten.convolution_backward(gradient, x, weight, None, *places, wanted)[which])


def _of_input(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: list[int], padding: list[int]
) -> torch.Tensor:
    """Return the gradient of the input: of a stride, by a plain convolution of the output's gradient with zeros between."""
    if max(stride) == 1:
        return _usual(gradient, x, weight, stride, padding, 0)
    reach = [size + 2 * pad - kernel + 1 for size, pad, kernel in zip(x.shape[2:], padding, weight.shape[2:], strict=True)]
    between = torch.empty(*x.shape[:2], *reach, dtype=x.dtype, memory_format=torch.channels_last).zero_()
    between[:, :, :: stride[0], :: stride[1]] = gradient
    back = [kernel - 1 - pad for pad, kernel in zip(padding, weight.shape[2:], strict=True)]
    return F.conv2d(between, weight.flip(2, 3), None, 1, back, 1, len(weight))


def _of_weight(
    gradient: torch.Tensor, x: torch.Tensor, weight: torch.Tensor, stride: list[int], padding: list[int]
) -> torch.Tensor:
    if x.dtype == torch.bfloat16 and max(weight.shape[2:]) <= _QUICK:
        return _usual(gradient, x, weight, stride, padding, 1)
    padded = _padded(x, padding)
    return _by_parts(gradient, padded, weight, stride) if x.dtype == torch.bfloat16 else _by_taps(gradient, padded, weight)


def _by_taps(gradient: torch.Tensor, padded: torch.Tensor, weight: torch.Tensor) -> torch.Tensor:
    """Return the gradient of the weights of a convolution without stride, each tap summed by itself."""
    height, width = gradient.shape[2:]
    taps = itertools.product(range(weight.shape[2]), range(weight.shape[3]))
    sums = [(padded[:, :, i : i + height, j : j + width] * gradient).sum((0, 2, 3)) for i, j in taps]
    return torch.stack(sums, dim=1).view_as(weight)


def _by_parts(gradient: torch.Tensor, padded: torch.Tensor, weight: torch.Tensor, stride: list[int]) -> torch.Tensor:
    """Return the gradient of the weights, 3 × 3 of them at a time: parts of the kernel that overlap, and cover it."""
    result = torch.empty_like(weight)
    (height, width), (rows, columns) = gradient.shape[2:], (_parts(size) for size in weight.shape[2:])
    for (top, tall), (left, wide) in itertools.product(rows, columns):
        part = weight[:, :, top : top + tall, left : left + wide].contiguous(memory_format=torch.channels_last)
        below, right = top + stride[0] * (height - 1) + tall, left + stride[1] * (width - 1) + wide
        under = padded[:, :, top:below, left:right].contiguous(memory_format=torch.channels_last)
        result[:, :, top : top + tall, left : left + wide] = _usual(gradient, under, part, stride, [0, 0], 1)
    return result


def _parts(size: int) -> list[tuple[int, int]]:
    """Return where parts begin that cover a kernel's side, and how long they are."""
    last = size - _QUICK
    return [*((start, _QUICK) for start in range(0, last, _QUICK)), (last, _QUICK)] if last > 0 else [(0, size)]
