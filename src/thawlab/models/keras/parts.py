"""The layers that a graph of Keras is made of; images are n × channels × height × width here."""

from collections.abc import Callable
from typing import Any, final

import torch
from timm.layers import Conv2dSame, DropPath, register_notrace_module
from torch import nn
from torch.nn import functional

from thawlab.models.dropout import Dropout


def same_padding(size: int, kernel: int, stride: int) -> tuple[int, int]:
    """Return how many cells TensorFlow's padding "same" adds before and after; where they are odd, one more after."""
    total = max((-(-size // stride) - 1) * stride + kernel - size, 0)
    return total // 2, total - total // 2


def _convolution(
    inputs: int, outputs: int, kernel: list[int], strides: list[int], padding: str, dilation: list[int], groups: int, bias: bool
) -> nn.Module:
    """Return Conv2D or DepthwiseConv2D (as many groups as inputs)."""
    shared: dict[str, Any] = {"dilation": dilation, "groups": groups, "bias": bias}
    if padding == "valid":
        return nn.Conv2d(inputs, outputs, kernel, strides, 0, **shared)  # type: ignore[arg-type]
    if max(strides) > 1:  # what is added depends on the size of the image
        layer: nn.Module = Conv2dSame(inputs, outputs, kernel, strides, 0, **shared)
        return layer
    reach = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
    even: Any = "same" if any(side % 2 for side in reach) else [side // 2 for side in reach]
    return nn.Conv2d(inputs, outputs, kernel, 1, even, **shared)  # type: ignore[arg-type]


def _separable(inputs: int, outputs: int, multiplier: int, bias: bool, **window: Any) -> nn.Module:
    """Return SeparableConv2D: a convolution of each channel, and one of a single cell across them."""
    between = inputs * multiplier
    each = _convolution(inputs, between, groups=inputs, bias=False, **window)
    return nn.Sequential(each, nn.Conv2d(between, outputs, 1, bias=bias))


@final
class Dense(nn.Module):
    """Dense, along the channels: of rows, or of maps."""

    def __init__(self, inputs: int, outputs: int, bias: bool, maps: bool) -> None:
        super().__init__()
        self.linear, self.maps = nn.Linear(inputs, outputs, bias), maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return one value per unit."""
        result: torch.Tensor = self.linear(x.movedim(1, -1)).movedim(-1, 1) if self.maps else self.linear(x)
        return result


@register_notrace_module
@final
class Pool(nn.Module):
    """MaxPooling2D and AveragePooling2D; cells of padding count in neither."""

    def __init__(self, maximum: bool, size: list[int], strides: list[int], padding: str) -> None:
        super().__init__()
        self.maximum, self.size, self.strides, self.padding = maximum, size, strides, padding

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the pooled maps."""
        if self.maximum:
            return functional.max_pool2d(self._padded(x, float("-inf")), self.size, self.strides)
        total = functional.avg_pool2d(self._padded(x, 0.0), self.size, self.strides)
        if self.padding == "valid":
            return total
        return total / functional.avg_pool2d(self._padded(torch.ones_like(x[:1, :1]), 0.0), self.size, self.strides)

    def _padded(self, x: torch.Tensor, value: float) -> torch.Tensor:
        if self.padding == "valid":
            return x
        vertical, horizontal = (same_padding(x.shape[2 + k], self.size[k], self.strides[k]) for k in (0, 1))
        return functional.pad(x, (*horizontal, *vertical), value=value)


@final
class GlobalPool(nn.Module):
    """GlobalAveragePooling2D and GlobalMaxPooling2D."""

    def __init__(self, maximum: bool, keepdims: bool) -> None:
        super().__init__()
        self.maximum, self.keepdims = maximum, keepdims

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return n × channels, or n × channels × 1 × 1."""
        return x.amax((2, 3), keepdim=self.keepdims) if self.maximum else x.mean((2, 3), keepdim=self.keepdims)


@final
class ZeroPad(nn.Module):
    """ZeroPadding2D: ((top, bottom), (left, right)); a cropping where they are negative."""

    def __init__(self, padding: list[list[int]]) -> None:
        super().__init__()
        (top, bottom), (left, right) = padding
        self.sides = (left, right, top, bottom)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the maps with their margins."""
        return functional.pad(x, self.sides)


@final
class Reshape(nn.Module):
    """Flatten and Reshape: the numbers keep the order that they have in Keras, channels last."""

    def __init__(self, shape: list[int], maps: bool) -> None:
        super().__init__()
        self.shape, self.maps = shape, maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return rows, or maps of another shape."""
        values = x.permute(0, 2, 3, 1) if self.maps else x
        rows = values.reshape(-1, *self.shape)
        return rows.permute(0, 3, 1, 2) if len(self.shape) == 3 else rows


@final
class Permute(nn.Module):
    """Permute of maps: which of Keras' dimensions (1: rows, 2: columns, 3: channels) comes at which place."""

    def __init__(self, dims: list[int]) -> None:
        super().__init__()
        order = [0, *dims]
        before = (0, 2, 3, 1)  # where Keras' dimensions are here
        self.order = [before[order[place]] for place in (0, 3, 1, 2)]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the same numbers in other places."""
        return x.permute(self.order)


@final
class Resize(nn.Module):
    """UpSampling2D and Resizing: without anti-aliasing, and with the centres of pixels half a pixel in, as in TensorFlow."""

    def __init__(self, size: list[int], mode: str) -> None:
        super().__init__()
        self.size, self.mode = size, mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return maps of another size."""
        if self.mode == "nearest":
            return functional.interpolate(x, self.size, mode="nearest-exact")
        return functional.interpolate(x, self.size, mode=self.mode, align_corners=False)


@final
class LayerNorm(nn.Module):
    """LayerNormalization along the channels."""

    def __init__(self, channels: int, epsilon: float, maps: bool) -> None:
        super().__init__()
        self.norm, self.maps = nn.LayerNorm(channels, epsilon), maps

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the normalised values."""
        result: torch.Tensor = self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2) if self.maps else self.norm(x)
        return result


@final
class PRelu(nn.Module):
    """PReLU: slopes that were learnt, of one shape with a map, or for each channel."""

    def __init__(self, shape: list[int]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function of each value."""
        return functional.relu(x) - self.alpha * functional.relu(-x)


@final
class Affine(nn.Module):
    """scale · x + offset by channel: Rescaling, Normalization, and arithmetic with constants."""

    scale: torch.Tensor
    offset: torch.Tensor

    def __init__(self, channels: int, maps: bool) -> None:
        super().__init__()
        shape = (channels, 1, 1) if maps else (channels,)
        self.register_buffer("scale", torch.ones(shape))
        self.register_buffer("offset", torch.zeros(shape))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the scaled values."""
        return x * self.scale + self.offset


@final
class Arithmetic(nn.Module):
    """Sum, product and the like of several tensors."""

    def __init__(self, op: str) -> None:
        super().__init__()
        self.op = op

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return what the operation makes of the tensors, from the first on."""
        result, *others = tensors
        for other in others:
            result = OPERATIONS[self.op](result, other)
        return result / len(tensors) if self.op == "average" else result


OPERATIONS: dict[str, Callable[[torch.Tensor, torch.Tensor], torch.Tensor]] = {
    "add": torch.add,
    "average": torch.add,
    "subtract": torch.sub,
    "multiply": torch.mul,
    "divide": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
}


@final
class Concatenate(nn.Module):
    """Concatenate along the channels."""

    def forward(self, *tensors: torch.Tensor) -> torch.Tensor:
        """Return all channels."""
        return torch.cat(tensors, dim=1)


@final
class Channels(nn.Module):
    """A choice of channels, in an order: RGB to BGR."""

    order: torch.Tensor

    def __init__(self, order: list[int]) -> None:
        super().__init__()
        self.register_buffer("order", torch.tensor(order), persistent=False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the chosen channels."""
        return x.index_select(1, self.order)


@final
class Activation(nn.Module):
    """An activation function by name."""

    def __init__(self, function: str) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function of each value."""
        return ACTIVATIONS[self.function](x)


@final
class Relu(nn.Module):
    """ReLU with a slope below its threshold and a largest value: x above the threshold, slope · (x − threshold) below."""

    def __init__(self, slope: float, threshold: float, largest: float | None) -> None:
        super().__init__()
        self.slope, self.threshold, self.largest = slope, threshold, largest

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the function of each value."""
        if not self.slope and not self.threshold:
            return functional.relu(x) if self.largest is None else functional.hardtanh(x, 0.0, self.largest)
        result = torch.where(x > self.threshold, x, self.slope * (x - self.threshold))
        return result if self.largest is None else result.clamp(max=self.largest)


ACTIVATIONS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "linear": lambda x: x,
    "relu": functional.relu,
    "relu6": functional.relu6,
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "silu": functional.silu,
    "gelu": functional.gelu,
    "gelu tanh": lambda x: functional.gelu(x, approximate="tanh"),
    "elu": functional.elu,
    "selu": functional.selu,
    "leaky_relu": lambda x: functional.leaky_relu(x, 0.2),
    "softplus": functional.softplus,
    "softsign": functional.softsign,
    "exponential": torch.exp,
    "mish": functional.mish,
    "hard_sigmoid": functional.hardsigmoid,
    "hard_sigmoid of Keras 2": lambda x: (0.2 * x + 0.5).clamp(0, 1),
    "hard_silu": functional.hardswish,
    "softmax": lambda x: torch.softmax(x, dim=1),
}


def _norm(channels: int, epsilon: float, momentum: float, maps: bool) -> nn.Module:
    kind = nn.BatchNorm2d if maps else nn.BatchNorm1d
    return kind(channels, eps=epsilon, momentum=1 - momentum)


LAYERS: dict[str, Callable[..., nn.Module]] = {
    "convolution": _convolution,
    "separable": _separable,
    "dense": Dense,
    "norm": _norm,
    "pool": Pool,
    "global pool": GlobalPool,
    "zero pad": ZeroPad,
    "reshape": Reshape,
    "permute": Permute,
    "resize": Resize,
    "layer norm": LayerNorm,
    "prelu": PRelu,
    "affine": Affine,
    "arithmetic": Arithmetic,
    "concatenate": Concatenate,
    "channels": Channels,
    "activation": Activation,
    "relu": Relu,
    "dropout": Dropout,
    "spatial dropout": nn.Dropout2d,
    "drop path": DropPath,
}
