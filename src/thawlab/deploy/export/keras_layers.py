"""Operations of PyTorch as layers of Keras, in which images have their channels last."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from torch import fx

from thawlab.deploy.export.keras_emitter import Emitter, Operation
from thawlab.models.keras.parts import same_padding
from thawlab.models.keras.weighted import scale_and_offset
from thawlab.models.keras.writing import Description

# What gives values that are not negative: a margin of zeros before a maximum then changes nothing.
_NOT_NEGATIVE = {"relu", "relu_", "relu6", "relu6_", "hardtanh", "hardtanh_", "sigmoid"}


def emit(description: Description, program: torch.export.ExportedProgram, first: str) -> str:
    """Add what a program computes to a description, and return the name of the layer that gives its result.

    Args:
        description: that grows.
        program: from one image tensor to logits.
        first: the layer whose output the program takes.

    Raises:
        UsageError: for an operation that no layer of Keras stands for.
    """
    return Emitter(description, program).emit(first, LAYERS)


def _conv2d(emitter: Emitter, node: fx.Node) -> None:
    """Conv2D or DepthwiseConv2D; margins are a layer of their own, or Keras' "same" where that is the same."""
    _, weight, bias, stride, padding, dilation, groups = _arguments(node, (None, 1, 0, 1, 1), 7)
    kernel, held = emitter.array(weight), [] if bias is None else [emitter.array(bias)]
    stride, dilation = _pair(stride), _pair(dilation)
    outputs, width, *window = kernel.shape
    reach = [(side - 1) * step for side, step in zip(window, dilation, strict=True)]
    same = padding == "same" or (max(stride) == 1 and [2 * side for side in _pair(padding)] == reach and max(reach) > 0)
    source = emitter.names[node.args[0]] if same else emitter.padded(node, _pair(0 if padding == "valid" else padding))  # type: ignore[index]
    settings = {
        "kernel_size": list(window),
        "strides": stride,
        "padding": "same" if same else "valid",
        "dilation_rate": dilation,
        "use_bias": bias is not None,
    }
    if groups > 1 and width == 1:
        arranged = kernel.reshape(groups, outputs // groups, *window).transpose(2, 3, 0, 1)
        emitter.add(node, "DepthwiseConv2D", settings | {"depth_multiplier": outputs // groups}, [arranged, *held], [source])
    else:
        settings |= {"filters": outputs, "groups": groups}
        emitter.add(node, "Conv2D", settings, [kernel.transpose(2, 3, 1, 0), *held], [source])


def _batch_norm(emitter: Emitter, node: fx.Node) -> None:
    """BatchNormalization, with the numbers that it would have where it has none to learn."""
    _, weight, bias, mean, variance, _, momentum, epsilon = _arguments(node, (), 8)
    means = emitter.array(mean)
    learnt = [emitter.array(part) for part in (weight, bias) if part is not None]
    settings = {"epsilon": epsilon, "momentum": 1 - momentum, "scale": weight is not None, "center": bias is not None}
    emitter.add(node, "BatchNormalization", settings, [*learnt, means, emitter.array(variance)])


def _layer_norm(emitter: Emitter, node: fx.Node) -> None:
    """LayerNormalization along the channels."""
    _, shape, weight, bias, epsilon, *_ = _arguments(node, (None, None, 1e-5, True), 6)
    rank = len(node.meta["val"].shape)
    if len(shape) != 1 or (rank > 2 and node.args[0] not in emitter.last):
        raise emitter.refused("a normalisation along other than channels")
    learnt = [emitter.array(part) for part in (weight, bias) if part is not None]
    settings = {"axis": -1, "epsilon": epsilon, "scale": weight is not None, "center": bias is not None}
    emitter.add(node, "LayerNormalization", settings, learnt)


def _upsample(emitter: Emitter, node: fx.Node) -> None:
    """UpSampling2D to a multiple of the size, nearest."""
    source: Any = node.args[0]
    before, after = source.meta["val"].shape[2:], node.meta["val"].shape[2:]
    if any(new % old for old, new in zip(before, after, strict=True)):
        raise emitter.refused("a resizing to no multiple")
    factors = [int(new // old) for old, new in zip(before, after, strict=True)]
    emitter.add(node, "UpSampling2D", {"size": factors, "interpolation": "nearest"})


def _linear(emitter: Emitter, node: fx.Node) -> None:
    """Dense."""
    _, weight, bias = _arguments(node, (None,), 3)
    kernel = emitter.array(weight)
    held = [] if bias is None else [emitter.array(bias)]
    if len(node.meta["val"].shape) > 2 and node.args[0] not in emitter.last:
        raise emitter.refused("a linear layer along the width")
    emitter.add(node, "Dense", {"units": len(kernel), "use_bias": bias is not None}, [kernel.T, *held])


def _hardtanh(emitter: Emitter, node: fx.Node) -> None:
    """ReLU with a largest value."""
    _, low, high = _arguments(node, (-1.0, 1.0), 3)
    if low != 0:
        raise emitter.refused("a hardtanh from below zero")
    emitter.add(node, "ReLU", {"max_value": float(high)})


def _leaky_relu(emitter: Emitter, node: fx.Node) -> None:
    """LeakyReLU."""
    _, slope = _arguments(node, (0.01,), 2)
    emitter.add(node, "LeakyReLU", {"negative_slope": float(slope)})


def _gelu(emitter: Emitter, node: fx.Node) -> None:
    """GELU, exact."""
    if node.kwargs.get("approximate", "none") != "none":
        raise emitter.refused("an approximate GELU")
    emitter.add(node, "Activation", {"activation": "gelu"})


def _max_pool2d(emitter: Emitter, node: fx.Node) -> None:
    """MaxPooling2D; margins of zeros change nothing where no value is negative."""
    _, size, stride, padding, dilation, ceil = _arguments(node, ([], 0, 1, False), 6)
    source: Any = node.args[0]
    if source in emitter.below:
        _max_pool_same(emitter, node, *emitter.below[source], _pair(size), _pair(stride or size))
        return
    fits = any(getattr(source, "name", "").startswith(name) for name in _NOT_NEGATIVE)
    if ceil or _pair(dilation) != [1, 1] or (any(_pair(padding)) and not fits):
        raise emitter.refused("a pooling of this kind")
    settings = {"pool_size": _pair(size), "strides": _pair(stride or size), "padding": "valid"}
    emitter.add(node, "MaxPooling2D", settings, given=[emitter.padded(node, _pair(padding))])


def _max_pool_same(
    emitter: Emitter, node: fx.Node, source: fx.Node, sides: list[int], size: list[int], strides: list[int]
) -> None:
    height, width = source.meta["val"].shape[2:]
    vertical, horizontal = same_padding(height, size[0], strides[0]), same_padding(width, size[1], strides[1])
    if sides != [*horizontal, *vertical]:
        raise emitter.refused("a pooling of this kind")
    emitter.add(node, "MaxPooling2D", {"pool_size": size, "strides": strides, "padding": "same"}, given=[emitter.names[source]])


def _avg_pool2d(emitter: Emitter, node: fx.Node) -> None:
    """AveragePooling2D; margins count."""
    _, size, stride, padding, ceil, counted, divisor = _arguments(node, ([], 0, False, True, None), 7)
    if ceil or divisor or (any(_pair(padding)) and not counted):
        raise emitter.refused("a pooling of this kind")
    settings = {"pool_size": _pair(size), "strides": _pair(stride or size), "padding": "valid"}
    emitter.add(node, "AveragePooling2D", settings, given=[emitter.padded(node, _pair(padding))])


def _adaptive_avg_pool2d(emitter: Emitter, node: fx.Node) -> None:
    """GlobalAveragePooling2D, or a pooling to several cells that divide the map evenly."""
    source: Any = node.args[0]
    before, after = source.meta["val"].shape[2:], _pair(node.args[1])
    if tuple(before) == tuple(after):
        emitter.same_as(node, source)
        return
    if after != [1, 1]:
        if any(side % cells for side, cells in zip(before, after, strict=True)):
            raise emitter.refused("a pooling to cells of unlike sizes")
        window = [side // cells for side, cells in zip(before, after, strict=True)]
        emitter.add(node, "AveragePooling2D", {"pool_size": window, "strides": window, "padding": "valid"})
        return
    emitter.add(node, "GlobalAveragePooling2D", {"keepdims": True})


def _mean(emitter: Emitter, node: fx.Node) -> None:
    """GlobalAveragePooling2D, of a mean over height and width."""
    _pool_all(emitter, node, "GlobalAveragePooling2D")


def _amax(emitter: Emitter, node: fx.Node) -> None:
    """GlobalMaxPooling2D, of a maximum over height and width; where places are given beside it, they are left out."""
    _pool_all(emitter, node, "GlobalMaxPooling2D")


def _getitem(emitter: Emitter, node: fx.Node) -> None:
    """Return the first of several results; the others have no layer."""
    source, place = node.args
    if place == 0:
        emitter.same_as(node, source)
    elif node.users:
        raise emitter.refused("the second of several results")


def _pool_all(emitter: Emitter, node: fx.Node, kind: str) -> None:
    source, axes, keep = _arguments(node, (False,), 3)
    axes = [axes] if isinstance(axes, int) else axes
    rank = len(source.meta["val"].shape)
    wanted = [2] if source in emitter.cells else [2, 3]
    if sorted(axis % rank for axis in axes) != wanted or source in emitter.last:
        raise emitter.refused("a mean or maximum over other than height and width")
    emitter.names[node] = emitter.description.add(kind, node.name, [emitter.names[source]], {"keepdims": bool(keep)})
    if keep and source in emitter.cells:
        raise emitter.refused("a mean or maximum that keeps one dimension of two")


def _pad(emitter: Emitter, node: fx.Node) -> None:
    """ZeroPadding2D."""
    sides: Any = node.args[1]
    rest = node.args[2:]
    mode = rest[0] if rest and isinstance(rest[0], str) else "constant"
    value = next((part for part in rest if isinstance(part, int | float)), 0)
    left, right, top, bottom, before, after = [*sides, 0, 0, 0, 0][:6]
    if value == float("-inf") and len(sides) == 4:
        emitter.below[node] = (node.args[0], list(sides))  # type: ignore[assignment]
        return
    if mode != "constant" or value or min(sides) < 0 or len(sides) > 6:
        raise emitter.refused("a padding of this kind")
    if before or after:  # channels of zeros, as a convolution of one cell
        source: Any = node.args[0]
        if left or right or top or bottom:
            raise emitter.refused("a padding of channels and margins at once")
        kernel = np.pad(np.eye(source.meta["val"].shape[1], dtype=np.float32), ((0, 0), (before, after)))[None, None]
        emitter.add(node, "Conv2D", {"filters": kernel.shape[-1], "kernel_size": [1, 1], "use_bias": False}, [kernel])
        return
    emitter.add(node, "ZeroPadding2D", {"padding": [[top, bottom], [left, right]]})


def _arithmetic(emitter: Emitter, node: fx.Node, kind: str) -> None:
    """Add, Multiply and the like of two tensors; a constant per channel is a rescaling."""
    first, second = node.args[:2]
    constant = _number(emitter, second) if _number(emitter, second) is not None else _number(emitter, first)
    if constant is None:
        emitter.add(node, kind, {}, given=[emitter.names[first], emitter.names[second]])  # type: ignore[index]
        return
    tensor = first if isinstance(first, fx.Node) and first in emitter.names else second
    turned = tensor is second
    if turned and kind in ("Subtract", "Divide"):
        raise emitter.refused("arithmetic of this kind")
    scale, offset = scale_and_offset(kind.lower(), constant)
    numbers = {"scale": np.asarray(scale).tolist(), "offset": np.asarray(offset).tolist()}
    emitter.add(node, "Rescaling", numbers, given=[emitter.names[tensor]])  # type: ignore[index]


def _number(emitter: Emitter, value: Any) -> Any:
    """Return a number, or one for each channel; None for a tensor that is computed."""
    if isinstance(value, int | float):
        return np.float64(value)
    if value not in emitter.constants:
        return None
    numbers = emitter.constants[value].detach().cpu().double().numpy()
    if numbers.size not in (1, max(numbers.shape, default=1)):
        raise emitter.refused("arithmetic with numbers other than one for each channel")
    return numbers.ravel() if numbers.size > 1 else numbers.ravel()[0]


def _cat(emitter: Emitter, node: fx.Node) -> None:
    """Concatenate."""
    tensors, axis = _arguments(node, (0,), 2)
    if len(tensors) == 1:
        emitter.same_as(node, tensors[0])
        return
    if axis not in (1, 1 - len(tensors[0].meta["val"].shape)) or any(part in emitter.last for part in tensors):
        raise emitter.refused("a concatenation of other than channels")
    emitter.add(node, "Concatenate", {"axis": -1}, given=[emitter.names[part] for part in tensors])


def _permute(emitter: Emitter, node: fx.Node) -> None:
    """Nothing, where channels go to the end or come back from it: in Keras they are there anyway."""
    source = node.args[0]
    axes: Any = node.args[1]
    order = [axis % len(axes) for axis in axes]
    emitter.names[node] = emitter.names[source]  # type: ignore[index]
    if order == [0, 2, 3, 1] and source not in emitter.last:
        emitter.last.add(node)
    elif order != [0, 3, 1, 2] or source not in emitter.last:
        raise emitter.refused("a permutation of this kind")


def _reshape(emitter: Emitter, node: fx.Node) -> None:
    """Flatten and Reshape; maps with channels first are brought to the order of PyTorch before."""
    source, shape = node.args[0], tuple(node.meta["val"].shape)
    before, given = source.meta["val"].shape, emitter.names[source]  # type: ignore[union-attr,index]
    if tuple(before) == shape:
        emitter.same_as(node, source)
        return
    if len(before) == 4 and source not in emitter.last and shape[:2] == tuple(before[:2]) and len(shape) == 3:
        emitter.names[node] = given
        emitter.cells.add(node)
        return
    if len(before) == 4 and source not in emitter.last and max(before[2:]) > 1:
        given = emitter.description.add("Permute", f"{node.name}_order", [given], {"dims": [3, 1, 2]})
    if len(shape) == 2:
        emitter.add(node, "Flatten", {}, given=[given])
    elif len(shape) == 4 and len(before) == 2 and shape[2:] == (1, 1):
        emitter.add(node, "Reshape", {"target_shape": [1, 1, shape[1]]}, given=[given])
    elif len(shape) == 4 and len(before) == 2 and shape[1:3] == (1, 1):
        emitter.add(node, "Reshape", {"target_shape": [1, 1, shape[3]]}, given=[given])
        emitter.last.add(node)
        return
    else:
        raise emitter.refused(f"a change of shape from {list(before)} to {list(shape)}")
    emitter.last.discard(node)


def _slice(emitter: Emitter, node: fx.Node) -> None:
    """Every n-th row or column, as a pooling of one cell."""
    source: Any = node.args[0]
    _, axis, start, end, step = _arguments(node, (0, None, None, 1), 5)
    if axis not in (2, 3) or source in emitter.last or start not in (0, None) or (end is not None and end < 2**62):
        if tuple(source.meta["val"].shape) == tuple(node.meta["val"].shape):
            emitter.same_as(node, source)
            return
        raise emitter.refused("a choice of rows or columns of this kind")
    strides = [int(step) if axis == 2 else 1, int(step) if axis == 3 else 1]
    emitter.add(node, "MaxPooling2D", {"pool_size": [1, 1], "strides": strides, "padding": "valid"})


def _index_select(emitter: Emitter, node: fx.Node) -> None:
    """A choice of channels, as a convolution of one cell."""
    source, axis, index = node.args
    if axis != 1:
        raise emitter.refused("a choice of other than channels")
    chosen, channels = emitter.constants[index].tolist(), source.meta["val"].shape[1]  # type: ignore[index,union-attr]
    kernel = np.eye(channels, dtype=np.float32)[:, chosen][None, None]
    emitter.add(node, "Conv2D", {"filters": len(chosen), "kernel_size": [1, 1], "use_bias": False}, [kernel])


LAYERS: dict[str, Operation] = {
    "conv2d": _conv2d,
    "batch_norm": _batch_norm,
    "layer_norm": _layer_norm,
    "upsample_nearest2d": _upsample,
    "linear": _linear,
    "hardtanh": _hardtanh,
    "leaky_relu": _leaky_relu,
    "gelu": _gelu,
    "max_pool2d": _max_pool2d,
    "avg_pool2d": _avg_pool2d,
    "adaptive_avg_pool2d": _adaptive_avg_pool2d,
    "mean": _mean,
    "amax": _amax,
    "max": _amax,
    "getitem": _getitem,
    "pad": _pad,
    "constant_pad_nd": _pad,
    "add": lambda emitter, node: _arithmetic(emitter, node, "Add"),
    "sub": lambda emitter, node: _arithmetic(emitter, node, "Subtract"),
    "mul": lambda emitter, node: _arithmetic(emitter, node, "Multiply"),
    "div": lambda emitter, node: _arithmetic(emitter, node, "Divide"),
    "cat": _cat,
    "permute": _permute,
    "flatten": _reshape,
    "view": _reshape,
    "reshape": _reshape,
    "squeeze": _reshape,
    "unsqueeze": _reshape,
    "slice": _slice,
    "index_select": _index_select,
}


def _arguments(node: fx.Node, defaults: Sequence[Any], count: int) -> list[Any]:
    """Return the arguments of an operation by place, with what is left out filled in."""
    given = [*node.args, *node.kwargs.values()]
    return [*given, *defaults[len(defaults) - (count - len(given)) :]] if len(given) < count else given[:count]


def _pair(value: Any) -> list[int]:
    return [int(value)] * 2 if isinstance(value, int) else [int(part) for part in value] * (2 // len(value))
